"""The mapping as ``mapping.json``: what went where, in the contract's keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Graph, Node
from cimc.isa.instruction import Instruction
from cimc.isa.matrix import PRODUCTS
from cimc.isa.operands import View, static_shape
from cimc.isa.program import Program
from cimc.isa.steps import executed
from cimc.mapping.alternatives import alternatives
from cimc.mapping.json_value import Json
from cimc.mapping.mapping import Mapping
from cimc.mapping.placement import PlacedMatrix, Segment, Style
from cimc.mapping.work import work
from cimc.ops.matmul import scales_of
from cimc.ops.written import WRITTEN


def dump(graph: Graph, mapping: Mapping, program: Program, chip: ChipSpec) -> dict[str, Json]:
    """The object of ``mapping.json``. Crossbars are numbered per tile: core · crossbars per core + slice."""
    origins = {n.outputs[0]: n.origin for n in graph.nodes}
    used: dict[int, set[int]] = {}
    cells: dict[tuple[int, int], int] = {}  # of each core, the most weights it ever holds
    static: list[Json] = []
    turning = mapping.placement.reload.values if mapping.placement.reload else frozenset[str]()
    for copies in mapping.placement.matrices.values():
        for tile, block in ((p.tile, b) for copy in copies for p in copy.parts for b in p.blocks):
            size = (block.rows[1] - block.rows[0]) * (block.cols[1] - block.cols[0])
            cells[tile, block.core] = max(size, cells.get((tile, block.core), 0))
        row = _static(copies, str(origins[copies[0].value]), chip, used)
        static.append({**row, "reloaded": copies[0].value in turning} if turning else row)
    _written_cores(program, chip, used, cells)
    return {
        "hardware": chip.name,
        "chips": chip.chips,
        "tiles": [_tile(chip, t, used) for t in range(chip.tile_count)],
        "static": static,
        "dynamic": [*_dynamic(graph, program), *_written(graph, mapping, program)],
        "attention": [*alternatives(graph, chip)],
        "codes": list(_codes(graph)),
        "segments": [_segment(s, mapping) for s in mapping.segments],
        "residents": [
            {"value": v, "bytes": graph.type(v).bytes, "tile": t} for v, t in mapping.placement.residents.items()
        ],
        "work": work(graph),
        "host": [
            {"node": str(n.origin), "op_type": str(n.attr("op_type")), "reason": str(n.attr("reason"))}
            for n in graph.nodes
            if n.op == "host"
        ],
        "totals": {**_totals(chip, used, sum(cells.values())), "tiles_used": len({t.tile for t in program.tiles})},
    }


def _totals(chip: ChipSpec, used: dict[int, set[int]], weights: int) -> dict[str, Json]:
    """Crossbars in use and on the chip; the share of cells in the cores in use that ``weights`` fill."""
    held = 0
    for tile, crossbars in used.items():
        core = chip.tile(tile).core
        assert core is not None
        held += len(crossbars) // core.crossbars * core.rows * core.cols
    return {
        "crossbars_used": sum(map(len, used.values())),
        "crossbars": sum(_crossbars(chip, t) for t in range(chip.tile_count)),
        "cell_utilization": weights / held if held else 0.0,
    }


def _codes(graph: Graph) -> Iterator[dict[str, Json]]:
    """Operands of products of activations that come as codes: the values that are brought to them where they are made, the bytes
    of codes and scales, and those that the values would have as they are."""
    producers = graph.producers()
    found: dict[str, Node] = {}
    for node in graph.nodes:
        for value in node.inputs[:2] if scales_of(node) else ():
            while (maker := producers[value]).op != "quantize":
                value = maker.inputs[0]
            found[value] = maker
    for maker in found.values():
        held = sum(graph.type(v).bytes for v in maker.outputs)
        yield {"value": maker.inputs[0], "bytes": held, "plain_bytes": graph.type(maker.inputs[0]).bytes}


def _segment(segment: Segment, mapping: Mapping) -> dict[str, Json]:
    """Where a segment's vector work is: ``stages``, replica by replica and stage by stage the tiles that take turns,
    ``tiles``, those that share its rows or regions or the one that drives it, or ``streamed``, stage by stage the tiles of
    one that a batch streams through. ``beside``: replica by replica, which tile does what that of products ``of`` has no
    unit for. ``push``: false where operands are loaded that could be sent as they are made."""
    placement, index = mapping.placement, segment.index
    found: dict[str, Json] = {"index": index, "style": segment.style.value, "node": first_node(segment)}
    if index in placement.rows and segment.style in (Style.STREAM, Style.SPREAD):
        found["rows"] = placement.rows[index]
    if index in placement.streamed:
        return {**found, "streamed": [list(tiles) for tiles in placement.streamed[index]]}
    if segment.style is Style.STREAM:
        beside: list[Json] = [
            [{"of": of, "tile": tile} for of, tile in copy.items()] for copy in placement.beside.get(index, ())
        ]
        stages: list[Json] = [[list(lanes) for lanes in stages] for stages in placement.homes[index]]
        return {**found, "stages": stages, "beside": beside} if beside else {**found, "stages": stages}
    if index in placement.loading:
        found["push"] = False
    return {**found, "tiles": list(placement.tiles[index])}


def first_node(segment: Segment) -> str:
    """What ``mapping.json`` calls a segment by."""
    return segment.nodes[0].outputs[0]


def _crossbars(chip: ChipSpec, tile: int) -> int:
    spec = chip.tile(tile)
    return spec.cores * spec.core.crossbars if spec.core else 0


def _tile(chip: ChipSpec, tile: int, used: dict[int, set[int]]) -> dict[str, Json]:
    x, y = chip.position(tile)
    return {
        "id": tile,
        "chip": chip.chip_of(tile),
        "x": x % chip.chip_columns,
        "y": y,
        "kind": chip.kind(tile),
        "crossbars_used": len(used.get(tile, ())),
        "crossbars": _crossbars(chip, tile),
    }


def _static(copies: Sequence[PlacedMatrix], origin: str, chip: ChipSpec, used: dict[int, set[int]]) -> dict[str, Json]:
    blocks: list[Json] = []
    placed = copies[0]
    for replica, part in ((p.replica, part) for p in copies for part in p.parts):
        core = chip.tile(part.tile).core
        assert core is not None
        for block in part.blocks:
            crossbars = range(block.core * core.crossbars, (block.core + 1) * core.crossbars)
            used.setdefault(part.tile, set()).update(crossbars)
            blocks.append(
                {
                    "rows": list(block.rows),
                    "cols": list(block.cols),
                    "slices": core.slices,
                    "replica": replica,
                    "tile": part.tile,
                    "crossbars": list(crossbars),
                }
            )
    return {
        "node": origin,
        "value": placed.value,
        "weight": placed.weight,
        "rows": placed.rows,
        "cols": placed.cols,
        "precision": placed.precision,
        "blocks": blocks,
    }


def _dynamic(graph: Graph, program: Program) -> Iterator[dict[str, Json]]:
    """Dynamic matmuls, one entry per tile that does a share of one; attention's two products apart."""
    attention = {str(n.origin) for n in graph.nodes if n.op == "attention"}
    for tile in program.tiles:
        found: dict[tuple[str, str], int] = {}
        seen: dict[str, int] = {}
        for step, times in executed(tile.steps):
            if step.mnemonic not in PRODUCTS or step.origin is None:
                continue
            name = str(step.origin)
            turn = seen.get(name, 0)
            seen[name] = turn + 1
            kind = ("qk" if turn % 2 == 0 else "pv") if name in attention else "matmul"
            found[(name, kind)] = found.get((name, kind), 0) + times * _macs(step)
        for (name, kind), macs in found.items():
            yield {"node": name, "origin": name, "kind": kind, "tile": tile.tile, "unit": "matmul", "macs": macs}


def _written_cores(
    program: Program, chip: ChipSpec, used: dict[int, set[int]], cells: dict[tuple[int, int], int]
) -> None:
    """Adds the crossbars that operands are written into to those in use, and the weights that they hold at a time."""
    for tile in program.tiles:
        core = chip.tile(tile.tile).core
        for matrix in tile.matrices:
            if core is None or matrix.key:
                continue
            for block in matrix.blocks:
                size = (block.row_end - block.row) * (block.col_end - block.col)
                cells[tile.tile, block.core] = max(size, cells.get((tile.tile, block.core), 0))
                used.setdefault(tile.tile, set()).update(
                    range(block.core * core.crossbars, (block.core + 1) * core.crossbars)
                )


def _written(graph: Graph, mapping: Mapping, program: Program) -> Iterator[dict[str, Json]]:
    """Products whose operand is written into cells, one entry per tile that does a share of one."""
    products: dict[tuple[str, str], tuple[str, str]] = {}
    for node in graph.nodes:
        if node.op == WRITTEN and node.outputs[0] in mapping.placement.written:
            cells = mapping.placement.written[node.outputs[0]]
            for name in (cells.copy(k).name for k in range(cells.copies)):
                products[(str(node.origin), name)] = (str(node.get("product", "matmul")), f"{node.attr('cells')} cells")
    for tile in program.tiles:
        found: dict[tuple[str, tuple[str, str]], int] = {}  # node, what and where → multiply-accumulates
        cols = {m.name: m.cols for m in tile.matrices}
        for step, times in executed(tile.steps):
            key = (str(step.origin), str(step.operands[1])) if step.mnemonic == "mvm" else ("", "")
            if key in products:
                x = step.operands[2]
                assert isinstance(x, View)
                whole = (key[0], products[key])
                found[whole] = found.get(whole, 0) + times * prod(static_shape(x)) * cols[key[1]]
        for (node, (kind, unit)), macs in found.items():
            yield {"node": node, "origin": node, "kind": kind, "tile": tile.tile, "unit": unit, "macs": macs}


def _macs(step: Instruction) -> int:
    y, a = step.operands[0], step.operands[1]
    assert isinstance(y, View)
    assert isinstance(a, View)
    return prod(static_shape(y)) * static_shape(a)[-1]
