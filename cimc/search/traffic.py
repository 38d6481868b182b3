"""A cheap model of a placement's traffic: cycles on the fullest link or server, segment by segment.

Segments follow each other, so what they take adds up; within one everything is under way at once, so the fullest link or
queue decides. It knows no order and no hazards: it proposes, the timing engine judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.codegen.lower import Lowered
from cimc.isa.instruction import INSTRUCTIONS, Instruction, Kind, Step
from cimc.isa.messages import SENDING, destinations
from cimc.isa.operands import View, static_shape
from cimc.isa.steps import executed

MEMORY = -1
"""The server that is global memory; others are tiles."""

HOPS = 1e-3
"""Weight of a cycle on any link beside one on the fullest: of two placements as full, the one with shorter ways
(estimated)."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Bytes between ends within a segment, all packets of all blocks. From ``tile`` to the tiles ``to``; or, with a
    ``value``, of that stored value (or array that is a part of one) to the tile, or from it (``store``)."""

    tile: int
    to: tuple[int, ...]
    value: str
    store: bool
    packets: int
    bytes: int


Homes = Mapping[str, int | None]
Moves = Mapping[int, int]  # tile → the tile that does its work instead


class Traffic:
    """The flows of a lowered program by segment, and what they take on a chip."""

    def __init__(self, made: Lowered, chip: ChipSpec) -> None:
        self.chip = chip
        self.ports = noc.memory_ports(chip)
        arrays = made.program.globals
        self.parts = {b.name: b.tile if b.resident else None for b in arrays if b.name not in made.values}
        """Arrays that are parts of values, and the tiles that hold them: code generation decides on these."""
        names = {name: name for name in self.parts} | dict(made.values)
        self.flows = {segment: _flows(made, names, steps) for segment, steps in made.steps.items()}
        self.tiles: dict[int, set[int]] = {}  # tile → segments it has a part in
        self.values: dict[str, set[int]] = {}  # value → segments that read or write it
        for segment, flows in self.flows.items():
            for flow in flows:
                for tile in (flow.tile, *flow.to):
                    self.tiles.setdefault(tile, set()).add(segment)
                if flow.value:
                    self.values.setdefault(flow.value, set()).add(segment)

    def cost(self, segment: int, homes: Homes, moves: Moves) -> float:
        """What a segment's flows take, in cycles of the fullest link or server."""
        links: dict[int, int] = {}
        servers: dict[int, int] = {}
        for flow in self.flows[segment]:
            self._count(flow, homes, moves, links, servers)
        return max(max(links.values(), default=0), max(servers.values(), default=0)) + HOPS * sum(links.values())

    def fullest(self, segment: int, homes: Homes) -> int:
        """The tile at whose router the fullest link or server of a segment is."""
        links: dict[int, int] = {}
        servers: dict[int, int] = {}
        for flow in self.flows[segment]:
            self._count(flow, homes, {}, links, servers)
        servers.pop(MEMORY, None)
        by_tile = dict(servers)
        for link, cycles in links.items():
            if link < noc.first_chip_link(self.chip):
                by_tile[link // 4] = max(cycles, by_tile.get(link // 4, 0))
        return max(by_tile, key=lambda t: by_tile[t], default=0)

    def _count(self, flow: Flow, homes: Homes, moves: Moves, links: dict[int, int], servers: dict[int, int]) -> None:
        tile = moves.get(flow.tile, flow.tile)
        each = noc.packet_cycles(self.chip, flow.bytes // flow.packets) if flow.packets else 0
        if not flow.value:
            to = tuple(sorted(moves.get(t, t) for t in flow.to))
            self._add(noc.tree(self.chip, tile, to).links, flow.packets * each, links)
            return
        home = homes.get(flow.value, self.parts.get(flow.value))
        at = noc.nearest(self.chip, tile, self.ports) if home is None else moves.get(home, home)
        there, back = (each, 1) if flow.store else (1, each)
        if at != tile:
            self._add(noc.route(self.chip, tile, at), flow.packets * there, links)
            self._add(noc.route(self.chip, at, tile), flow.packets * back, links)
        if home is None:
            served = flow.packets * ceil(flow.bytes / flow.packets / self.chip.memory.bytes_per_cycle)
            servers[MEMORY] = servers.get(MEMORY, 0) + served
        else:
            servers[at] = servers.get(at, 0) + flow.packets * each

    @staticmethod
    def _add(way: Sequence[int], cycles: int, links: dict[int, int]) -> None:
        for link in way:
            links[link] = links.get(link, 0) + cycles


def _flows(made: Lowered, names: Mapping[str, str], steps: Mapping[int, Sequence[Step]]) -> list[Flow]:
    """The flows of one segment; those between the same ends as one. ``names``: global arrays, and what is in them."""
    sizes = {b.name: b.element.bytes for b in made.program.globals}
    found: dict[tuple[int, tuple[int, ...], str, bool], list[int]] = {}
    for tile in made.program.tiles:
        if tile.tile not in steps:
            continue
        local = sizes | {b.name: b.element.bytes for b in tile.buffers}
        for step, times in executed(steps[tile.tile]):
            end = _end(step, names)
            if end is None or not times:  # an instruction of rounds that do not come sends nothing
                continue
            to, value, store, view = end
            entry = found.setdefault((tile.tile, to, value, store), [0, 0])
            entry[0] += times
            entry[1] += times * prod(static_shape(view)) * local[view.buffer]
    return [Flow(*ends, packets, size) for ends, (packets, size) in found.items()]


def _end(step: Instruction, values: Mapping[str, str]) -> tuple[tuple[int, ...], str, bool, View] | None:
    """Where an instruction sends bytes to or has them from: tiles, or a value (and whether it is written); and the local
    view of those bytes. None for those that move nothing between tiles."""
    first = step.operands[0] if step.operands else None
    if not isinstance(first, View):
        return None
    if step.mnemonic in SENDING:
        return destinations(step), "", False, first
    if step.mnemonic not in ("load", "store", "gather"):
        return None
    spec, words = INSTRUCTIONS[step.mnemonic], dict(step.keywords)
    store = spec.access(0, words) is Kind.GLOBAL_WRITE
    other = step.operands[1]
    assert isinstance(other, View)
    name = first.buffer if store else other.buffer
    return (), values[name], store, other if store else first
