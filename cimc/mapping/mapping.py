"""The whole mapping: what code generation needs beside the graph."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from dataclasses import dataclass

from cimc.mapping.caches import Cache
from cimc.mapping.choices import Choices
from cimc.mapping.placement import Home, Placement, Segment
from cimc.mapping.region import Region


@dataclass(frozen=True)
class Mapping:
    """Everything code generation needs beside the graph."""

    homes: MappingABC[str, Home]
    segments: tuple[Segment, ...]
    placement: Placement
    choices: Choices
    region: Region | None = None
    """Segments that the samples of a batch stream through together."""
    caches: tuple[Cache, ...] = ()
    """KV caches that are to lie in the tiles that multiply with them."""
