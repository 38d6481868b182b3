"""How long it takes to serve a value that crosses segments: from the buffer of one tile, or from global memory.

A tile serves a resident array over its links, ``noc.link_bytes_per_cycle`` bytes a cycle, one access after the other. Global
memory may be faster, but all tiles share it. So the home of a value is a matter of how much is loaded and stored, in how many
accesses, and how much else goes to global memory meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil

from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import INSTRUCTIONS, Instruction, Kind, Step
from cimc.isa.operands import View
from cimc.isa.program import GlobalBuffer, TileProgram
from cimc.isa.steps import executed

BESIDE = 2
"""Values that segments read and write at a time, which share global memory: one in, one out (1: 0.1 % of MiniLM's cycles
more, 4: 0.2 % less)."""

_GLOBAL = frozenset((Kind.GLOBAL_READ, Kind.GLOBAL_WRITE))
_REACHING = frozenset(m for m, spec in INSTRUCTIONS.items() if any(o.kind in _GLOBAL for o in spec.operands))


def better_away(buffers: Sequence[GlobalBuffer], tiles: Sequence[TileProgram], chip: ChipSpec) -> frozenset[str]:
    """The buffers, by name, that global memory would serve sooner than a tile even if it serves another one beside.

    In cycles: an access of B bytes keeps a tile's queue busy for B / link, the memory's for B / memory. The tile with most
    accesses waits in each for the way there and back: across two thirds of the mesh, or the memory's latency.
    """
    elements = {b.name: b.element.bytes for b in buffers}
    here: Counter[str] = Counter()  # cycles of the queues
    away: Counter[str] = Counter()
    most: dict[str, int] = {}
    link, memory = chip.noc.link_bytes_per_cycle, chip.memory.bytes_per_cycle
    for tile in tiles:
        mine: Counter[str] = Counter()
        for view, times in _accesses(tile.steps):
            size = elements.get(view.buffer, 0) * _count(view)
            here[view.buffer] += times * max(1, ceil(size / link))
            away[view.buffer] += times * ceil(size / memory)
            mine[view.buffer] += times
        for name, times in mine.items():
            most[name] = max(most.get(name, 0), times)
    way = 2 * chip.noc.router_cycles * (chip.columns + chip.tile_count // chip.columns) // 3
    latency = chip.memory.latency_cycles
    parts: dict[str, list[str]] = {}  # of an array that is cut, its pieces: several tiles serve them at once
    for name in elements:
        parts.setdefault(name.partition(".")[0], []).append(name)
    found: set[str] = set()
    for names in parts.values():
        there = BESIDE * sum(away[n] for n in names) + max(most.get(n, 0) for n in names) * latency
        if max(here[n] + most.get(n, 0) * way for n in names) > there:
            found.update(names)
    return frozenset(found)


def _count(view: View) -> int:
    """Elements of a view; of an extent that depends on a parameter, one."""
    n = 1
    for extent in view.shape:
        n *= extent if isinstance(extent, int) else 1
    return n


def _accesses(steps: Sequence[Step]) -> Iterator[tuple[View, int]]:
    """Views of global arrays, and how often they are taken."""
    for step, times in executed(steps):
        if step.mnemonic in _REACHING:
            yield from ((view, times) for view in _global_views(step))


def _global_views(step: Instruction) -> Iterator[View]:
    spec, words = INSTRUCTIONS[step.mnemonic], dict(step.keywords)
    for i, operand in enumerate(step.operands):
        if isinstance(operand, View) and spec.access(i, words) in _GLOBAL:
            yield operand
