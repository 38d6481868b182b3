"""The instruction set. Importing the package declares every instruction."""

from cimc.isa import control, matrix, transfer, vector

__all__ = ["control", "matrix", "transfer", "vector"]
