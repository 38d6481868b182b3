"""Graph → Mapping: where every value lives, which nodes run together, on which tiles and cores."""

from cimc.mapping.mapping import Mapping
from cimc.mapping.placement import Segment

__all__ = ["Mapping", "Segment"]
