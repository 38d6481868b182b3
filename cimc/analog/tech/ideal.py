"""The ideal cell: exact levels, no noise, infinite on/off ratio."""

from cimc.analog.technology import CellModel, Technology

TECHNOLOGIES = (
    Technology("ideal", "exact levels, nothing else", CellModel("Ideal", "a definition", (), 0.0, 1.0), (), 2),
)
