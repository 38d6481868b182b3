"""The chip map of the page: every tile a square, every layer on it a stripe as high as its share of the crossbars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cimc.report.layers import Content, Inspection, Layer
from cimc.report.mapping_file import TilePlace
from cimc.report.palette import layer_colour

TILE, GAP, MARGIN = 40, 6, 22  # in SVG units
STRIP = 9.0  # height of the strip of products on a tile that has crossbars as well
NEUTRAL = "#8a94a3"  # layers that lie on no tile


@dataclass(frozen=True)
class Segment:
    """A coloured part of a tile: the share that one layer takes."""

    layer: int
    colour: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class TileShape:
    """A tile on the map. ``mark`` is a letter for tiles without crossbars."""

    id: int
    x: int
    y: int
    mark: str
    hint: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class ChipShape:
    """The map of one chip, and the numbers along its edges."""

    name: str
    width: int
    height: int
    columns: Sequence[tuple[int, int]]  # (number, x)
    rows: Sequence[tuple[int, int]]
    tiles: Sequence[TileShape]


def colour_of(inspection: Inspection, layer: Layer) -> str:
    """``#rrggbb`` of a layer: by depth if it lies on tiles, grey if not."""
    number = inspection.coloured.get(layer.name)
    return NEUTRAL if number is None else layer_colour(number, len(inspection.coloured))


def chip_shape(inspection: Inspection, chip: int) -> ChipShape:
    """The map of the chip of that number, which has at least one tile."""
    tiles = [t for t in inspection.mapping.tiles if t.chip == chip]
    columns, rows = max(t.x for t in tiles) + 1, max(t.y for t in tiles) + 1
    index = {layer.name: i for i, layer in enumerate(inspection.layers)}
    pitch = TILE + GAP
    label = f"Chip {chip}" if inspection.mapping.chips > 1 else "Chip map"
    return ChipShape(
        name=label,
        width=MARGIN + columns * pitch,
        height=MARGIN + rows * pitch,
        columns=[(x, MARGIN + x * pitch + TILE // 2) for x in sorted({t.x for t in tiles})],
        rows=[(y, MARGIN + y * pitch + TILE // 2) for y in sorted({t.y for t in tiles})],
        tiles=[_tile(inspection, t, index) for t in tiles],
    )


def _tile(inspection: Inspection, tile: TilePlace, index: Mapping[str, int]) -> TileShape:
    content = inspection.contents.get(tile.id, ())
    used = f"{tile.crossbars_used} of {tile.crossbars} crossbars" if tile.crossbars else "no crossbars"
    return TileShape(
        id=tile.id,
        x=MARGIN + tile.x * (TILE + GAP),
        y=MARGIN + tile.y * (TILE + GAP),
        mark="" if tile.crossbars else tile.kind[:1].upper(),
        hint=f"tile {tile.id} ({tile.kind}): {used}, {len(content)} layers",
        segments=tuple(_segments(inspection, tile, content, index)),
    )


def _segments(
    inspection: Inspection, tile: TilePlace, content: Sequence[Content], index: Mapping[str, int]
) -> list[Segment]:
    """Crossbars fill the tile from below, a stripe per layer; products of activations are columns in a strip below."""
    found: list[Segment] = []
    bottom = float(TILE)
    products = [c for c in content if c.products]
    strip = STRIP if products and tile.crossbars else float(TILE) if products else 0.0
    for i, part in enumerate(products):
        width = TILE / len(products)
        colour = colour_of(inspection, part.layer)
        found.append(Segment(index[part.layer.name], colour, i * width, bottom - strip, width, strip))
    bottom -= strip if tile.crossbars else 0.0
    room = bottom
    for part in content:
        height = room * part.crossbars / tile.crossbars if tile.crossbars else 0.0
        if height <= 0:
            continue
        bottom -= height
        found.append(Segment(index[part.layer.name], colour_of(inspection, part.layer), 0.0, bottom, TILE, height))
    return found
