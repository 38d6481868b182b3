"""Which units nodes need, and which tiles have them."""

from __future__ import annotations

from collections.abc import Iterable

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Node
from cimc.isa.instruction import INSTRUCTIONS, Unit
from cimc.mapping.lacking import lacking
from cimc.mapping.short import no_tile_with


def units_needed(nodes: Iterable[Node]) -> frozenset[Unit]:
    """Units a tile needs to run nodes that are not on cores."""
    needed = {Unit.VECTOR}
    for node in nodes:
        if node.op == "attention":
            needed.update((Unit.MATMUL, Unit.SPECIAL))
        elif node.op in INSTRUCTIONS:
            needed.add(INSTRUCTIONS[node.op].unit)
    return frozenset(needed & {Unit.VECTOR, Unit.SPECIAL, Unit.MATMUL})


def tiles_with(chip: ChipSpec, units: frozenset[Unit]) -> list[int]:
    """Tiles that have all the units; those without cores if there are any. Raises UNIT_MISSING if there is none."""

    kinds = {kind for kind, spec in chip.tiles.items() if not lacking(spec, units)}
    able = [t for t in range(chip.tile_count) if chip.kind(t) in kinds]
    if not able:
        raise no_tile_with(chip, units)
    without = [t for t in able if not chip.tile(t).cores]
    return without or able
