"""Tiles of a STREAM segment change places until its links carry as evenly as can be found.

Matrices take tiles in the order of execution, and each vector stage the tile that seems best when its turn comes. What a
segment's tiles send each other is known when its code is drafted; some links then carry many times what others do, and set the
pace. Any two tiles of one kind can do each other's work, so pairs change places (:mod:`cimc.codegen.swaps`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.codegen.context import Context
from cimc.codegen.flow import Flow, drafted
from cimc.codegen.handed import Handed, handed
from cimc.codegen.pushed import takers
from cimc.codegen.spread import sent_to
from cimc.codegen.stages import Plan
from cimc.codegen.swaps import BOUND, MEMORY, Exchange, Message, together
from cimc.codegen.tags import PUSHED
from cimc.codegen.tilecode import TileCode
from cimc.isa.messages import SENDING, destinations, integer
from cimc.isa.operands import View, static_shape
from cimc.isa.steps import executed
from cimc.mapping.lanes import INPUT_BITS
from cimc.mapping.mapping import Mapping as Placed
from cimc.mapping.placement import Placement, Segment, Style
from cimc.mapping.segment import MATRIX_OPS, product

PACE = 0.5
"""Links that carry less than this part of what the cores take do not set the pace, and tiles stay where they are (estimated)."""

WORTH = 2
"""Sending a head's operands as they are made may take the fullest link longer by so many times what they take on a link: beyond,
rows come later by more than attention begins earlier (of the layers of BERT-base and ViT-base on sram-digital, those with less
than 2 gain, those with more than 4 lose)."""

SHORT = 0.1
"""Part of the pairs that are tried to see that (0.03: the same for MiniLM)."""

Draft = Callable[[Segment], Context]
"""A segment's code alone."""


def exchanged(placed: Placed, chip: ChipSpec, draft: Draft) -> Placed:
    """The mapping with tiles of STREAM segments exchanged. Who loads or stores what stays in global memory stays where the
    way there is short. Operands that would fill links too much are loaded, not sent as they are made."""
    placement = placed.placement
    if placement.reload is not None:
        return placed  # tiles of matrices that take turns are shared by many segments
    users = Counter(tile for s in placed.segments for tile in placement.matrix_tiles(s))
    streams = {s.index: s for s in placed.segments if s.style is Style.STREAM}
    drafts: dict[int, Context] = {}
    parts: dict[int, Exchange] = {}
    links: list[Handed] = []
    cells: dict[int, float] = {}
    for segment in streams.values():
        found = draft(segment)
        alone = {t for t in placement.matrix_tiles(segment) if users[t] == 1 and not placement.written}
        groups = [*_alike(chip, _vector_tiles(chip)), *_alike(chip, alone)]
        exchange = Exchange(chip, [*_messages(chip, found.codes), *_moved_far(chip, found)], groups)
        cells[segment.index] = _cells(placement, segment, chip)
        if exchange.fullest > PACE * cells[segment.index]:
            drafts[segment.index] = found
            parts[segment.index] = exchange
            links += handed(found, placement, segment)
    loading = _too_much(parts, links, cells, {i: _operands(found, streams[i]) for i, found in drafts.items()})
    segments = (s.index for i in loading for s in takers(drafts[i], streams[i]) if sent_to(drafts[i], s))
    placement = replace(placement, loading=placement.loading.union(segments))
    moves = together({i: part.again(bound=i not in loading) for i, part in parts.items()}, links)
    for index, to in moves.items():
        placement = _moved(placement, streams[index], to)
    return replace(placed, placement=placement)


MANY = 10
"""How many times as many pairs are tried for a region as for a segment: it has the tiles of all its segments (estimated)."""


def exchanged_region(
    placed: Placed, chip: ChipSpec, context: Context, plans: Sequence[Plan], taken: Mapping[int, int]
) -> tuple[Placed, Sequence[Plan]]:
    """The mapping and the plans of its region, with tiles exchanged that nothing else has matrices on and of which as many bytes
    are ``taken`` for something else: all that its segments send in a step is sent at the same time. The same if links do not
    set the pace, but cells or global memory."""
    region, placement = placed.region, placed.placement
    assert region is not None
    if placement.written:
        return placed, plans
    streams = [s for s in placed.segments if s.style is Style.STREAM]
    inside = [s for s in streams if s.index in region.segments]
    others = {t for s in streams if s.index not in region.segments for t in placement.matrix_tiles(s)} | context.ahead
    free = [t for t in range(chip.tile_count) if t not in others and (chip.tile(t).cores or chip.tile(t).vector)]
    groups = [
        [t for t in g if taken.get(t, 0) == n] for g in _alike(chip, free) for n in sorted({taken.get(t, 0) for t in g})
    ]
    flows = drafted(context, plans)
    found = Exchange(chip, _sent_in_a_step(chip, flows), groups)
    cells = max((_cells(placement, s, chip) / s.rows * plans[0].rows * region.copies for s in inside), default=0.0)
    if found.fullest <= PACE * max(cells, _memory(chip, flows)):
        return placed, plans
    to = together({0: found}, (), MANY).get(0, {})
    for segment in inside:
        placement = _moved(placement, segment, to)
    return replace(placed, placement=placement), [plan.moved(placement, to) for plan in plans]


def _sent_in_a_step(chip: ChipSpec, flows: Sequence[Flow]) -> list[Message]:
    """What tiles send each other, load and store for a block of rows."""
    found: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for flow in flows:
        for size, (_, tile), ends in flow.messages:
            if to := tuple(sorted({t for _, t in ends} - {tile})):
                found[tile, to] += noc.packet_cycles(chip, size)
        for (_, tile), size in flow.fetched.items():
            found[MEMORY, (tile,)] += noc.packet_cycles(chip, size)
        for tile, size in flow.put_out.items():
            found[tile, (MEMORY,)] += noc.packet_cycles(chip, size)
    return [(source, to, cycles) for (source, to), cycles in found.items()]


def _memory(chip: ChipSpec, flows: Sequence[Flow]) -> float:
    """Cycles of global memory for what tiles load and store for a block of rows."""
    return sum(flow.fetched.total() + flow.put_out.total() for flow in flows) / chip.memory.bytes_per_cycle


def _too_much(
    parts: Mapping[int, Exchange], links: Sequence[Handed], cells: Mapping[int, float], operands: Mapping[int, float]
) -> frozenset[int]:
    """The segments from which operands that are sent to the tiles of the next ones fill links more than that is worth, seen after
    a short search."""
    if math.isinf(min(operands.values(), default=math.inf)):
        return frozenset()
    together(parts, links, SHORT)
    return frozenset(
        i for i, part in parts.items() if part.fullest - max(part.without_bound, int(cells[i])) > WORTH * operands[i]
    )


def _operands(context: Context, segment: Segment) -> float:
    """Cycles that a link takes for the operands of a head that are sent to the tiles of the segments after this one, of one tile
    that gets most; no limit if none are."""
    sizes: Counter[int] = Counter()
    for push in dict.fromkeys(p for s in takers(context, segment) for p in sent_to(context, s).values()):
        sizes.update(dict.fromkeys(push.tiles, push.rows * push.cols * push.element.bytes))
    return max(sizes.values(), default=math.inf) / context.chip.noc.link_bytes_per_cycle


def _cells(placement: Placement, segment: Segment, chip: ChipSpec) -> float:
    """Cycles that the cores of each copy take for its share of the segment's rows."""
    copies = [placement.matrices[n.outputs[0]] for n in segment.nodes if n.op in MATRIX_OPS]
    interval = TileUnits(chip, copies[0][0].parts[0].tile).mvm_interval(INPUT_BITS)
    return segment.rows * interval / len(copies[0])


def _vector_tiles(chip: ChipSpec) -> set[int]:
    """Tiles that do vector work and hold no weights."""
    return {t for t in range(chip.tile_count) if chip.tile(t).vector is not None and not chip.tile(t).cores}


def _alike(chip: ChipSpec, tiles: Iterable[int]) -> list[list[int]]:
    """The tiles by kind and chip."""
    found: dict[tuple[str, int], list[int]] = {}
    for tile in sorted(tiles):
        found.setdefault((chip.kind(tile), chip.chip_of(tile)), []).append(tile)
    return list(found.values())


def _moved_far(chip: ChipSpec, context: Context) -> list[Message]:
    """What tiles load from global memory and store there, as messages of the port that is nearest: of arrays that stay there."""
    codes, graph = context.codes, context.graph
    values = {*graph.inputs, *context.outputs, *graph.constants}
    bound = {name for value, name in context.names.items() if value in values}
    found: Counter[tuple[int, int]] = Counter()
    for tile, code in codes.items():
        for step, times in executed(code.steps):
            views = [o for o in step.operands if isinstance(o, View)]
            if not any(v.buffer in bound and v.buffer not in code.rooms for v in views):
                continue
            local = [v for v in views if v.buffer in code.rooms]
            if local:
                size = product(static_shape(local[0])) * code.rooms[local[0].buffer].element.bytes
                way = (tile, MEMORY) if step.mnemonic == "store" else (MEMORY, tile)
                found[way] += times * noc.packet_cycles(chip, size)
    return [(source, (to,), cycles) for (source, to), cycles in found.items()]


def _messages(chip: ChipSpec, codes: Mapping[int, TileCode]) -> list[Message]:
    """What tiles send each other, that between the same tiles as one."""
    found: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for tile, code in codes.items():
        for step, times in executed(code.steps):
            if step.mnemonic in SENDING:
                view, to = step.operands[0], destinations(step)
                assert isinstance(view, View)
                if integer(step, "tag") >= PUSHED:
                    to = tuple(BOUND - t for t in to)
                size = product(static_shape(view)) * code.rooms[view.buffer].element.bytes
                found[tile, to] += times * noc.packet_cycles(chip, size)
    return [(source, to, cycles) for (source, to), cycles in found.items()]


def _moved(placement: Placement, segment: Segment, moves: Mapping[int, int]) -> Placement:
    """A segment's work on the tiles that it moves to."""

    def at(tile: int) -> int:
        return moves.get(tile, tile)

    index = segment.index
    homes = {**placement.homes, index: tuple(tuple(tuple(map(at, s)) for s in r) for r in placement.homes[index])}
    beside = dict(placement.beside)
    if index in beside:
        beside[index] = tuple({at(tile): at(aside) for tile, aside in of.items()} for of in beside[index])
    matrices = dict(placement.matrices)
    for value in (n.outputs[0] for n in segment.nodes if n.op in MATRIX_OPS):
        parts = (tuple(replace(p, tile=at(p.tile)) for p in copy.parts) for copy in matrices[value])
        matrices[value] = tuple(replace(copy, parts=p) for copy, p in zip(matrices[value], parts, strict=True))
    return replace(placement, homes=homes, beside=beside, matrices=matrices)
