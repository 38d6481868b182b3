"""What a user may choose about the mapping; every choice has a default that the compiler makes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choices:
    """How a graph is mapped. Switching a part off shows what it is worth (``benchmarks/mapping.py``)."""

    replicas: int | None = None
    """Copies of every segment's weights that share its rows; None: as many as the chip has room for, given where they
    save most time."""

    lanes: int = 4
    """Tiles at most that take turns with the blocks of one vector stage."""

    rotation: int = 2
    """Sets of buffers that blocks take turns with: with 2, one block is received while another is worked on."""

    residence: bool = True
    """Whether values between segments are kept in the local memory of tiles where it has room."""
