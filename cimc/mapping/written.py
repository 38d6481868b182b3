"""Where the operands are written that go into cells as the model runs: on which tiles, into which of their cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace

from cimc import errors
from cimc.arch.spec import ChipSpec, CoreSpec
from cimc.arch.units import TileUnits
from cimc.ir.graph import Graph, Node
from cimc.isa.instruction import Unit
from cimc.isa.program import Block
from cimc.mapping.chips import snake
from cimc.mapping.lacking import giving, lacking
from cimc.mapping.placement import Cells, Segment
from cimc.ops.layout import integer
from cimc.ops.written import NVM, SRAM, WRITTEN

ACTIVATION_BITS = 8

MOST_COPIES = 4
"""Of an operand in the cores of one tile: as many blocks of rows are worked on together there."""

Units = Callable[[Iterable[Node]], frozenset[Unit]]
"""The units that nodes need on a tile, beside cores."""


def kind_of(chip: ChipSpec, core: CoreSpec) -> str:
    """What a core's cells are: SRAM if its sums are digital or the chip's technology is SRAM, else non-volatile."""
    return SRAM if core.digital or chip.technology.startswith("sram") else NVM


def weights_kind(chip: ChipSpec) -> str:
    """The kind of tile that static weights are put on: the first that has cores ("" if none has)."""
    return next((name for name, tile in chip.tiles.items() if tile.core is not None and chip.count(tile)), "")


def weight_tiles(chip: ChipSpec) -> list[int]:
    """The tiles for static weights, by number. Other kinds with cores of their own are for operands that are written."""
    kind = chip.tiles.get(weights_kind(chip))
    if kind is None:
        return []
    same = {name for name, tile in chip.tiles.items() if (tile.cores, tile.core) == (kind.cores, kind.core)}
    return [t for t in range(chip.tile_count) if chip.kind(t) in same]


def weight_cores(chip: ChipSpec, cells: str = "") -> int:
    """The cores for static weights; where they take turns, without those of the tiles kept for operands that are written
    into such ``cells``."""
    tiles = weight_tiles(chip)
    shared = cells and chip.kind(able(chip, cells, frozenset())[0]) in {chip.kind(t) for t in tiles}
    left = len(tiles) - spared(len(tiles)) if shared else len(tiles)
    return sum(chip.tile(t).cores for t in tiles[:left])


def spared(tiles: int) -> int:
    """Of so many tiles that weights take turns on, those kept for operands that are written."""
    return max(1, tiles // 4)


def cells_of(segment: Segment) -> str:
    """The cells that a segment's products are written into; "" if it writes none."""
    return next((str(n.attr("cells")) for n in segment.nodes if n.op == WRITTEN), "")


def able(chip: ChipSpec, cells: str, units: frozenset[Unit]) -> list[int]:
    """Tiles with cores of these cells and all of these units, of one kind: one that holds no weights if there is any.

    Raises ATTENTION_CELLS if there is none, saying whether it is the cells or a unit that is missing."""
    kinds = [
        name
        for name, tile in chip.tiles.items()
        if tile.core is not None and chip.count(tile) and kind_of(chip, tile.core) == cells
    ]
    if not kinds:
        other = {kind_of(chip, tile.core) for tile in chip.tiles.values() if tile.core is not None and chip.count(tile)}
        ways = " or ".join([*(f"{o}-write" for o in other), "digital"])
        fix = f"choose hardware with such cores (hybrid has both), or --attention {ways}"
        raise errors.ATTENTION_CELLS(chip=chip.name, cells=cells, why=f"no tile has cores of {cells} cells", fix=fix)
    fit = [name for name in kinds if not lacking(chip.tiles[name], units)]
    if not fit:
        name = min(kinds, key=lambda k: len(lacking(chip.tiles[k], units)))
        lacks = lacking(chip.tiles[name], units)
        none = " and no ".join(u.value for u in lacks)
        why = f"softmax and quantisation run beside them, and tiles of kind '{name}' have no {none} unit"
        fix = f"give them one, as in {giving(name, lacks)}, or use --attention digital"
        raise errors.ATTENTION_CELLS(chip=chip.name, cells=cells, why=why, fix=fix)
    chosen = next((name for name in fit if name != weights_kind(chip)), fit[0])
    return [t for t in range(chip.tile_count) if chip.kind(t) == chosen]


def cores_for(graph: Graph, chip: ChipSpec, segments: Sequence[Segment], tile: int) -> dict[str, Cells]:
    """By output value, the cores of each written product, of the kind that ``tile`` is. A tile does one segment after
    another, so products of equal shape share cores; those within a segment have cores of their own. Where cores are left,
    operands may have copies.

    Raises ATTENTION_CELLS if a tile has too few cores for them."""
    found: dict[str, Cells] = {}
    taken: dict[tuple[int, int, int], Cells] = {}  # shape, and which of that shape in its segment
    at = 0
    for segment in segments:
        count: dict[tuple[int, int], int] = {}
        for node in (n for n in segment.nodes if n.op == WRITTEN):
            rows, cols = graph.type(node.inputs[1]).shape[-2:]
            turn = count[(rows, cols)] = count.get((rows, cols), 0) + 1
            key = (rows, cols, turn)
            if key not in taken:
                taken[key] = Cells(f"D{len(taken)}", rows, cols, _blocks(node, rows, cols, at))
                at += len(taken[key].blocks)
            found[node.outputs[0]] = taken[key]
    have = chip.tile(tile).cores
    if at > have:
        why = f"the operands of one head take {at} cores of a tile, tiles of kind '{chip.kind(tile)}' have {have}"
        fix = f"give them more (-c {chip.kind(tile)}.cores={at}), bind a shorter sequence (--dim), or use --attention digital"
        cells = next(filter(None, map(cells_of, segments)))
        raise errors.ATTENTION_CELLS(chip=chip.name, cells=cells, why=why, fix=fix)
    copies = max(1, min(MOST_COPIES, have // max(at, 1)))
    return {value: replace(cells, copies=copies, step=at) for value, cells in found.items()}


def unfit(
    segment: Segment, written: Mapping[str, Cells], chip: ChipSpec, tile: int, taken: Container[tuple[int, int]]
) -> str:
    """What keeps a segment's operands (``written``: their cores) from being written into a tile, to follow its name in a
    message; "" if nothing does. ``taken``: (tile, core) with static weights."""
    cells = cells_of(segment)
    if not cells:
        return ""
    spec = chip.tile(tile)
    if spec.core is None or kind_of(chip, spec.core) != cells:
        return f"has no cores of {cells} cells"
    found = [written[n.outputs[0]] for n in segment.nodes if n.op == WRITTEN]
    blocks = [b for held in found for number in range(held.copies) for b in held.copy(number).blocks]
    most = spec.core.crossbar
    if any(b.row_end - b.row > most.rows or b.col_end - b.col > most.cols for b in blocks):
        return f"has cores of {most.rows}×{most.cols}, too small for the blocks"
    last = max(b.core for b in blocks)
    if last >= spec.cores:
        return f"has {spec.cores} cores, of {last + 1} that are written"
    held_by_weights = next((b.core for b in blocks if (tile, b.core) in taken), None)
    return "" if held_by_weights is None else f"holds weights in core {held_by_weights}, which is written"


def _blocks(node: Node, rows: int, cols: int, core: int) -> tuple[Block, ...]:
    spans = block_spans(rows, cols, integer(node, "rows"), integer(node, "cols"))
    return tuple(Block(core + i, *r, *c) for i, (r, c) in enumerate(spans))


def block_spans(rows: int, cols: int, high: int, wide: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Rows and columns of the blocks that a matrix is cut into, column after column."""
    down = [(r, min(r + high, rows)) for r in range(0, rows, high)]
    return [(r, (c, min(c + wide, cols))) for c in range(0, cols, wide) for r in down]


def least_rows(graph: Graph, chip: ChipSpec, segment: Segment, cells: Mapping[str, Cells], tile: int) -> int:
    """Rows of one operand that are worth a tile of their own. Each tile loads the operand, from a home that serves one tile
    after the other, and writes it: T tiles for each of H operands take T · H · L + (program + rows · interval / T) cycles,
    with L cycles for one load over a link. That is least for T = √(rows · interval / (H · L)); and rows should take the
    cores no less time than writing the operand."""
    units = TileUnits(chip, tile)
    interval = max(units.mvm_interval(ACTIVATION_BITS), 1)
    most = 1
    for node in segment.nodes:
        if node.op != WRITTEN:
            continue
        held = cells[node.outputs[0]]
        rows = graph.type(node.outputs[0]).shape[-2]
        blocks = [(b.row_end - b.row, b.col_end - b.col) for b in held.blocks]
        load = graph.type(node.inputs[1]).bytes / chip.noc.link_bytes_per_cycle
        tiles = max(1, round(math.sqrt(rows * interval / max(load, 1))))
        worth = max(math.ceil(units.program_cycles(blocks) / interval), rows // tiles)
        most = max(most, min(worth, rows))  # however long writing takes, operands are written side by side
    return most


class Writing:
    """The segments of a graph that write operands into cells, on a chip: their tiles and cores. ``reserved`` are tiles of
    the weights' kind that are kept free of weights for it."""

    def __init__(self, graph: Graph, segments: Sequence[Segment], chip: ChipSpec, units: Units) -> None:
        self.chip = chip
        self.segments = [s for s in segments if cells_of(s)]
        self.tiles: dict[int, list[int]] = {}
        self.cells: dict[str, Cells] = {}
        self.least_rows: dict[int, int] = {}
        self.reserved: frozenset[int] = frozenset()
        by_kind: dict[int, list[Segment]] = {}
        for segment in self.segments:
            self.tiles[segment.index] = snake(chip, able(chip, cells_of(segment), units(segment.nodes)))
            by_kind.setdefault(self.tiles[segment.index][0], []).append(segment)
        for tile, mine in by_kind.items():
            self.cells |= cores_for(graph, chip, mine, tile)
            self.least_rows |= {s.index: least_rows(graph, chip, s, self.cells, tile) for s in mine}

    def shared(self) -> list[int]:
        """The tiles, in order, that weights and written operands both could be on."""
        weights = set(weight_tiles(self.chip))
        return next((tiles for tiles in self.tiles.values() if weights.issuperset(tiles)), [])

    def spare(self) -> None:
        """Keep tiles free for it where weights take turns on the others. Raises ATTENTION_CELLS if there is only one tile."""
        tiles = self.shared()
        if len(tiles) == 1:
            cells = cells_of(self.segments[0])
            why = "the only tile with such cores is the one that weights take turns on"
            fix = "add one (-c layout=...), or use --attention digital"
            raise errors.ATTENTION_CELLS(chip=self.chip.name, cells=cells, why=why, fix=fix)
        self.reserved = frozenset(tiles[-spared(len(tiles)) :]) if tiles else frozenset()

    def wanted(self) -> int:
        """How many tiles the segment with most parallel work keeps busy."""
        return max((max(1, s.rows // self.least_rows[s.index]) for s in self.segments), default=0)

    def of(self, segment: Segment) -> list[int]:
        """The tiles that take part in a segment."""
        tiles = self.tiles[segment.index]
        return [t for t in tiles if t in self.reserved] if self.reserved.intersection(tiles) else tiles
