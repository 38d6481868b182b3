"""What lies where, joined: every layer with its blocks, tiles, cycles and energy; every tile with its content.

``inspect``, the page and the CSV all show this one join of ``mapping.json`` with ``run.json``. A layer is an ONNX node.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cimc.arch.spec import ChipSpec
from cimc.report.figures import LayerFigures, RunFigures, read_run
from cimc.report.mapping_file import Block, DynamicOp, MappingFile, StaticMatrix, TilePlace, read_mapping

Place = Literal["cells", "dynamic", "host", "tile units"]

RUN_FILE = "run.json"


SYNCHRONISATION = "(synchronisation)"
"""The layer of instructions that belong to no ONNX node: tokens between tiles."""

SYNCHRONISED = (
    f"{SYNCHRONISATION} is no layer of the model: signals by which tiles tell each other that what they wrote is there"
)
"""What that row is, for readers."""


@dataclass(frozen=True)
class Layer:
    """One ONNX node on the chip. ``place``: weights in cells, a product of two activations, the host, or none of these
    (vector and special-function work, known from a run only)."""

    name: str
    place: Place
    matrices: tuple[StaticMatrix, ...] = ()
    products: tuple[DynamicOp, ...] = ()
    op_type: str = ""
    cost: LayerFigures | None = None
    cell_utilization: float | None = None  # cells that hold weight bits / cells of its crossbars; needs the chip

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Weight blocks, replicas among them."""
        return tuple(b for m in self.matrices for b in m.blocks)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tiles that hold blocks of it or compute products of it."""
        return tuple(sorted({b.tile for b in self.blocks} | {p.tile for p in self.products}))

    @property
    def crossbars(self) -> int:
        """Physical crossbars it takes."""
        return len({(b.tile, c) for b in self.blocks for c in b.crossbars})

    @property
    def replicas(self) -> int:
        """Copies of its weights."""
        return max((b.replica for b in self.blocks), default=-1) + 1

    @property
    def shape(self) -> str:
        """``384×1536`` per matrix; nothing for what has none."""
        return ", ".join(f"{m.rows}×{m.cols}" for m in self.matrices)

    @property
    def precision(self) -> str:
        """Precision of the weights."""
        return ", ".join(dict.fromkeys(m.precision for m in self.matrices))

    @property
    def cycles(self) -> int | None:
        """Cycles from its first to its last."""
        return self.cost.span if self.cost else None

    @property
    def energy_pj(self) -> float | None:
        """Energy of all its instructions."""
        return self.cost.energy_pj["total"] if self.cost else None


@dataclass(frozen=True)
class Content:
    """What a tile has of one layer."""

    layer: Layer
    blocks: tuple[Block, ...]
    products: tuple[DynamicOp, ...]

    @property
    def crossbars(self) -> int:
        """Crossbars of the tile it takes."""
        return len({c for b in self.blocks for c in b.crossbars})


@dataclass(frozen=True)
class Inspection:
    """A compiled directory as the reports look at it."""

    directory: Path
    mapping: MappingFile
    run: RunFigures | None
    chip: ChipSpec | None

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers: in the order of their first cycle after a run, in the mapping's otherwise."""
        return _layers(self)

    @functools.cached_property
    def contents(self) -> dict[int, tuple[Content, ...]]:
        """Tile → what lies on it, in the order of the layers; tiles without any are absent."""
        found: dict[int, list[Content]] = {}
        for layer in self.layers:
            blocks, products = _by_tile(layer)
            for tile in layer.tiles:
                content = Content(layer, tuple(blocks.get(tile, ())), tuple(products.get(tile, ())))
                found.setdefault(tile, []).append(content)
        return {tile: tuple(parts) for tile, parts in found.items()}

    @functools.cached_property
    def coloured(self) -> dict[str, int]:
        """Layers that lie on tiles → their number, which chooses colour and letter."""
        return {layer.name: i for i, layer in enumerate(layer for layer in self.layers if layer.tiles)}

    def main_layer(self, tile: TilePlace) -> Layer | None:
        """The layer that takes most crossbars of a tile; without any, the one with most products."""
        parts = self.contents.get(tile.id, ())
        return max(parts, key=lambda c: (c.crossbars, len(c.products))).layer if parts else None


def _by_tile(layer: Layer) -> tuple[dict[int, list[Block]], dict[int, list[DynamicOp]]]:
    blocks: dict[int, list[Block]] = {}
    products: dict[int, list[DynamicOp]] = {}
    for block in layer.blocks:
        blocks.setdefault(block.tile, []).append(block)
    for product in layer.products:
        products.setdefault(product.tile, []).append(product)
    return blocks, products


def load(directory: Path, chip: ChipSpec | None = None) -> Inspection:
    """Read what ``compile`` wrote into a directory, and ``run.json`` if it lies there.

    Raises FILE_NOT_FOUND, FILE_UNREADABLE, REPORT_FILE.
    """
    mapping = read_mapping(directory / "mapping.json")
    run_path = directory / RUN_FILE
    return Inspection(directory, mapping, read_run(run_path) if run_path.exists() else None, chip)


def _layers(inspection: Inspection) -> tuple[Layer, ...]:
    mapping = inspection.mapping
    costs = inspection.run.layers if inspection.run else {}
    matrices: dict[str, list[StaticMatrix]] = {}
    products: dict[str, list[DynamicOp]] = {}
    for matrix in mapping.static:
        matrices.setdefault(matrix.layer, []).append(matrix)
    for op in mapping.dynamic:
        products.setdefault(op.layer, []).append(op)
    host = {node.node: node.op_type for node in mapping.host}
    found: list[Layer] = []
    for name in dict.fromkeys((*matrices, *products, *host, *costs)):
        held, used = tuple(matrices.get(name, ())), tuple(products.get(name, ()))
        layer = Layer(
            name=name or SYNCHRONISATION,
            place="cells" if held else "dynamic" if used else "host" if name in host else "tile units",
            matrices=held,
            products=used,
            op_type=host.get(name, ""),
            cost=costs.get(name),
            cell_utilization=_cell_utilization(held, inspection.chip),
        )
        found.append(layer)
    if inspection.run is None:
        return tuple(found)
    return tuple(sorted(found, key=lambda layer: layer.cost.first_cycle if layer.cost else 2**62))


def _cell_utilization(matrices: tuple[StaticMatrix, ...], chip: ChipSpec | None) -> float | None:
    """Every crossbar of a block holds one cell per weight; the rest of its cells is empty."""
    if chip is None or not matrices:
        return None
    held = Counter[tuple[int, int]]()
    for block in (b for m in matrices for b in m.blocks):
        for crossbar in block.crossbars:
            held[block.tile, crossbar] += block.height * block.width
    cells = 0
    for tile, _ in held:
        core = chip.tile(tile).core if tile < chip.tile_count else None
        if core is None:
            return None  # the chip is not the one that was mapped to
        cells += core.crossbar.rows * core.crossbar.cols
    return held.total() / cells if cells else None
