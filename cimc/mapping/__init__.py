"""Graph → Mapping: where every value lives, which nodes run together, on which tiles and cores."""

from cimc.mapping.mapping import Mapping, Segment

__all__ = ["Mapping", "Segment"]
