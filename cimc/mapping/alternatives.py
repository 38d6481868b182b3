"""What the products of activations cost, each way that the chip could do them: estimates, beside what was chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import ceil, prod

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits, energy_pj
from cimc.ir.graph import Graph, Node
from cimc.isa.instruction import Unit
from cimc.mapping.json_value import Json
from cimc.mapping.treatment import PLACES
from cimc.mapping.written import ACTIVATION_BITS, able, block_spans
from cimc.ops.written import WRITTEN

Extents = tuple[int, int, int, int]
"""batch, m, k, n of products (m × k) · (k × n)."""

_WRITES = ("cell.write", "digital.write")


def alternatives(graph: Graph, chip: ChipSpec) -> list[dict[str, Json]]:
    """For ``digital``, ``sram-write`` and ``nvm-write``: whether the chip can (``why`` not), and for all products together
    the multiply-accumulates, the cells written, and cycles and energy of the units alone: the products spread evenly over
    all tiles that could do them, each product at work by itself, nothing loaded, stored or waited for. Nothing for a
    graph without such products. ``chosen`` says which runs."""
    found = [(node, extents) for node in graph.nodes for extents in _products(graph, node)]
    if not found:
        return []
    chosen = {str(node.attr("cells")) if node.op == WRITTEN else "" for node, _ in found}
    work = [extents for _, extents in found]
    return [
        {"how": how, "chosen": cells in chosen, "macs": sum(map(prod, work))} | _cost(chip, cells, work)
        for how, cells in PLACES.items()
    ]


def _products(graph: Graph, node: Node) -> Iterator[Extents]:
    y = graph.type(node.outputs[0]).shape
    if node.op == "attention":
        keys, width = graph.type(node.inputs[1]).shape[-1], graph.type(node.inputs[0]).shape[-1]
        yield prod(y[:-2]), y[-2], width, keys
        yield prod(y[:-2]), y[-2], keys, y[-1]
    elif node.op == WRITTEN or (node.op == "matmul" and not graph.constants.intersection(node.inputs)):
        yield prod(y[:-2]), y[-2], graph.type(node.inputs[0]).shape[-1], y[-1]


def _cost(chip: ChipSpec, cells: str, work: list[Extents]) -> dict[str, Json]:
    nothing: dict[str, Json] = {"cell_writes": None, "cycles": None, "energy_pj": None}
    if cells:
        try:
            tiles = able(chip, cells, frozenset({Unit.VECTOR, Unit.SPECIAL}))
        except errors.CimcError as fault:
            return {"possible": False, "why": str(fault), **nothing}
    else:
        tiles = [t for t in range(chip.tile_count) if chip.tile(t).matmul is not None]
        if not tiles:
            return {"possible": False, "why": f"no tile of {chip.name} has a matmul unit", **nothing}
    units, cycles, actions = TileUnits(chip, tiles[0]), 0, Counter[str]()
    for extents in work:
        once, done = _written(units, extents) if cells else _digital(units, extents)
        cycles += once
        actions.update(done)
    spent = sum(n * energy_pj(chip, action) for action, n in actions.items())
    writes = sum(actions[a] for a in _WRITES)
    share = ceil(cycles / len(tiles))
    return {"possible": True, "why": "", "cell_writes": writes, "cycles": share, "energy_pj": spent}


def _digital(units: TileUnits, extents: Extents) -> tuple[int, dict[str, int]]:
    batch, m, k, n = extents
    return units.matmul_cycles(batch, m, n, k), units.matmul_actions(batch, m, n, k)


def _written(units: TileUnits, extents: Extents) -> tuple[int, Counter[str]]:
    batch, m, k, n = extents
    spans = block_spans(k, n, units.core.rows, units.core.cols)
    blocks = [(r1 - r0, c1 - c0) for (r0, r1), (c0, c1) in spans]
    actions = Counter(units.program_actions(blocks)) + Counter(units.mvm_actions(blocks, m, ACTIVATION_BITS))
    cycles = units.program_cycles(blocks) + units.mvm_cycles(m, ACTIVATION_BITS)
    return batch * cycles, Counter({action: batch * count for action, count in actions.items()})
