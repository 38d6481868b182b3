"""Which tiles do the stages of a region, and in blocks of how many rows: evenly loaded, as far as buffers allow."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from cimc import errors
from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.codegen.context import Context
from cimc.codegen.flow import Flow, drafted
from cimc.codegen.near import FULL, End, Message, Places, Want, spread
from cimc.codegen.order import Costs
from cimc.codegen.sizes import Cost, Size, ranked
from cimc.codegen.stages import Job, Plan
from cimc.isa.instruction import INSTRUCTIONS, Instruction, Repeat, Step, Unit
from cimc.mapping.allocate import aligned
from cimc.mapping.lanes import INPUT_BITS
from cimc.mapping.region import Region
from cimc.mapping.units import tiles_with, units_needed

UNEVEN = 1.12
"""A block's rows are cut into pieces of which the largest has no more rows than this many times the mean."""

WAITING = (0.5, 0.9)
"""Of what tiles of matrices have left, the part in which rows may wait: the rest is for rings one deeper, without which a product
waits for the one before. The second where the first is too little (estimated)."""

AHEAD = 1.6
"""Tiles of matrices that have room for so many times their buffers have two places for what products take and make; else a
product waits until the one before is out of the pipeline of its core, and taken away (estimated)."""

IDLE = 2
"""Products take so many times as long as what tiles do beside them, at least, where a stage of rows begins in the step in which
its rows come: then there is time left in it for their way (estimated)."""

LADEN, MOST = 1.6, 3
"""Where the fullest unit or link has more to do than so many times what a tile has on average, pieces have no room near what they
work with: so many sizes are placed, and the best is taken (estimated)."""

AGAIN = 3
"""How often tiles that are exceeded are filled less, at most, and MARGIN: by which part more than what they are exceeded by."""

MARGIN = 0.002

EASED = 0.8
"""Filling tiles less is tried again only if what they are exceeded by fell to this part (estimated)."""

FINE = (2, 3, 6)
"""A stage is cut so that no piece has more than this part of the load of a tile; the others where buffers are too small for
large pieces, the second at least where rows wait in other tiles (estimated)."""

CARRIED = 1.25
"""Tiles for vector work that receive for so many times as long as any of their units works, and as products take, have vector
stages cut by columns: then less is sent, for some more work with vectors. (BERT-base, 12 layers: 15 % fewer cycles, 3 layers:
10 %. Where they receive for less, ViT-base takes 4 % more and MiniLM 16 %.)"""

CROWDED = 2
"""The power of what stages keep, in parts of what tiles for vector work have, by which these take longer than that, where it is
more than they have: rows then wait elsewhere, and rings are as short as can be (estimated)."""


def plans(
    context: Context,
    region: Region,
    chip: ChipSpec,
    taken: Mapping[int, int] | None = None,
    sizes: Sequence[Size] = (),
) -> list[Plan]:
    """Plans for the copies of a region, of the size that fits and takes least time. ``taken``: bytes of tiles that are for
    something else. ``sizes``: to try, best first, if not all. Raises STREAM_ROOM if not even blocks of one row do."""
    taken = taken or {}
    over = (-1, 0)
    spare: list[Plan] = []
    good: list[_Found] = []
    tries = [(size, fine) for size in sizes or _sizes(context, region, chip) for fine in FINE]
    while tries:
        (size, fine), *tries = tries
        draft = _balanced(context, region, chip, size, fine, taken)
        short = isinstance(draft, _Short)
        first = over = (draft.tile, draft.need) if short else _first(exceeded(context, chip, draft.plans, taken))
        if not short and (over[0] < 0 or over[0] in draft.movable):
            found = _near(context, chip, draft, taken)
            over = found.over
            if over[0] < 0:
                good.append(found)
                if found.fullest <= LADEN or len(good) == MOST:
                    break
                tries = [(s, f) for s, f in tries if s != size]
                continue
            if first[0] < 0 and not spare:
                spare = draft.plans
        if (
            not short and over[0] not in draft.movable
        ):  # no other tiles or smaller groups would help, shorter blocks may
            tries = [(s, f) for s, f in tries if s.rows < size.rows]
        tries = [(s, f) for s, f in tries if s.below(size) or (s == size and f > fine)]
    if good:
        return min(good, key=lambda found: found.cycles).plans
    if spare:
        return spare
    tile, need = over
    have = chip.tile(tile).local_bytes
    raise errors.STREAM_ROOM(chip=chip.name, tile=tile, kind=chip.kind(tile), need=need, have=have)


def _sizes(context: Context, region: Region, chip: ChipSpec) -> list[Size]:
    """Sizes of blocks to try, best first."""
    tiles = {part.tile for found in context.placement.matrices.values() for part in found[0].parts}
    units = [TileUnits(chip, tile) for tile in sorted(tiles)]
    cell = max((u.mvm_interval(INPUT_BITS) for u in units), default=0)

    def least(size: Size) -> Cost:
        plan = Plan(context.graph, region, context.placement, size.rows, 0, {}, group=size.group)
        return Cost(_steps(plan), size.rows * cell, 0.0)

    def cost(size: Size) -> Cost:
        measured = _loads(context, region, chip, size)
        crowd = max(1.0, _filled(measured.loads, chip, region.copies)) ** CROWDED
        found = replace(least(size), tiles=crowd * math.hypot(*_means(measured.loads, region.copies)))
        if all(measured.needs[t] * AHEAD <= chip.tile(t).local_bytes for t in tiles):
            return found
        return replace(found, cells=max(u.mvm_cycles(size.rows, INPUT_BITS) for u in units))

    return ranked(region.rows, least, cost)


def _steps(plan: Plan) -> int:
    """Steps of all samples of a plan's copy, those of filling the layers included."""
    return plan.region.waves // plan.region.copies * plan.blocks + max(plan.starts.values(), default=0) + 1


def exceeded(context: Context, chip: ChipSpec, found: Sequence[Plan], taken: Mapping[int, int]) -> dict[int, int]:
    """Tiles whose buffers exceed them, and the bytes they need. Those that have to do what they do come first."""
    codes = {t: code for flow in drafted(context, found) for t, code in flow.context.codes.items()}
    free = {t for plan in found for tiles in plan.tiles.values() for t in tiles}
    needs = {t: sum(aligned(r.bytes) for r in code.rooms.values()) + taken.get(t, 0) for t, code in codes.items()}
    return {t: needs[t] for t in sorted(needs, key=lambda t: (t in free, t)) if needs[t] > chip.tile(t).local_bytes}


def _first(over: Mapping[int, int]) -> tuple[int, int]:
    """The first tile of those that are exceeded, and the bytes it needs; (-1, 0) if there is none."""
    return next(iter(over.items()), (-1, 0))


_Parts = tuple[float, ...]

UNITS = (Unit.VECTOR, Unit.SPECIAL, Unit.MATMUL)


@dataclass(frozen=True)
class _Load:
    """What a stage takes of a tile: cycles of each of its units, of its receive side and of its port for a block, bytes of its
    buffer; and the tiles that can do it."""

    cycles: tuple[float, ...]
    bytes: float
    tiles: tuple[int, ...]

    def parts(self, mean: _Mean, count: int) -> _Parts:
        """Of one of ``count`` pieces, in parts of what a tile has on average of what it has most of (of its buffer: can
        have)."""
        return (*(mine / mean.cycles / count for mine in self.cycles), self.bytes / mean.bytes / count)


@dataclass(frozen=True)
class _Mean:
    """Cycles that a tile has for a block on average, of what it has most of; and bytes of its buffer."""

    cycles: float
    bytes: float


@dataclass(frozen=True)
class _Draft:
    """Plans that are balanced. ``wants``: what each piece of a stage takes, as a part of what a tile has on average; and
    where it can be; stages that are kept together have one, that of their ``leaders``. ``cycles``: what a tile takes for a
    block on average."""

    plans: list[Plan]
    wants: Mapping[Job, Want]
    cycles: float
    leaders: Mapping[Job, Job]

    @property
    def movable(self) -> set[int]:
        """Tiles that stages can be put on or taken from."""
        return {t for want in self.wants.values() for t in want.tiles}


@dataclass(frozen=True, slots=True)
class _Short:
    """No plan: tiles as this one need more bytes than they have."""

    tile: int
    need: int


def _balanced(
    context: Context, region: Region, chip: ChipSpec, size: Size, fine: int, taken: Mapping[int, int]
) -> _Draft | _Short:
    """Plans in which every tile has about the same to do: the largest pieces first, each to the tiles that have least then of
    what they have most of."""
    copies = region.copies
    measured = _loads(context, region, chip, size)
    loads, leaders = _together(measured.loads, measured.plan)
    alone = measured
    for part in WAITING:
        if not _roomy(loads, chip, copies):
            measured = _loads(context, region, chip, size, alone.spare(chip, copies, part, context.ahead))
            leaders = {job: measured.plan.leader(job) for job in measured.loads}
            loads = _joined(measured.loads, leaders)
    if not _roomy(loads, chip, copies):
        return _short(loads, copies)
    able = sorted({t for load in loads.values() for t in load.tiles})
    busiest = _busiest(loads, copies)
    mean = _Mean(busiest, min((chip.tile(t).local_bytes for t in able), default=1))
    none = (0.0,) * (len(next(iter(loads.values())).cycles) + 1) if loads else ()
    has = dict.fromkeys(able, none)
    tiles: list[dict[Job, tuple[int, ...]]] = [{} for _ in range(copies)]
    fine = max(fine, FINE[1]) if measured.plan.park else fine
    counts = {job: _cuts(measured.plan, size, job, load, mean, fine) for job, load in loads.items()}
    order = sorted(loads, key=lambda j: (-max(loads[j].parts(mean, counts[j])), j.part, j.stage))
    for job in order:
        piece = loads[job].parts(mean, counts[job])
        for copy in range(copies):
            then = {t: _sum(has[t], piece) for t in loads[job].tiles}
            chosen = heapq.nsmallest(counts[job], then, key=lambda t: (max(then[t]), t))
            has.update((t, then[t]) for t in chosen)
            tiles[copy].update((j, tuple(sorted(chosen))) for j, leader in leaders.items() if leader == job)
    room = {t: (chip.tile(t).local_bytes - taken.get(t, 0)) // copies for t in range(chip.tile_count)}
    of, prompt = (context.graph, region, context.placement, size.rows), IDLE * busiest <= measured.cells
    how = (room, size.group, measured.plan.park, prompt, bool(measured.plan.strips))
    found = [Plan(*of, c, tiles[c], *how) for c in range(copies)]
    # What is received and sent depends on where the others are: that is left to the messages.
    own = len(UNITS)
    pieces = {job: load.parts(mean, counts[job]) for job, load in loads.items()}
    parts = {job: Want((*piece[:own], piece[-1]), loads[job].tiles) for job, piece in pieces.items()}
    return _Draft(found, parts, busiest, leaders)


def _busiest(loads: Mapping[Job, _Load], copies: int) -> float:
    """Cycles that a tile for vector work has for a block on average, of what it has most of."""
    return max(1.0, *_means(loads, copies))


def _means(loads: Mapping[Job, _Load], copies: int) -> list[float]:
    """Cycles that each unit and side of a tile for vector work has for a block on average."""
    able = {t for load in loads.values() for t in load.tiles}
    return [copies / len(able) * sum(of) for of in zip(*(load.cycles for load in loads.values()), strict=True)]


def _short(loads: Mapping[Job, _Load], copies: int) -> _Short:
    """The first tile of those that have too little room, and the bytes that each needs on average."""
    able = sorted({t for load in loads.values() for t in load.tiles})
    return _Short(able[0], int(copies * sum(load.bytes for load in loads.values()) / len(able)))


def _roomy(loads: Mapping[Job, _Load], chip: ChipSpec, copies: int) -> bool:
    """Whether all tiles together have room for what the stages keep."""
    return _filled(loads, chip, copies) <= FULL


def _filled(loads: Mapping[Job, _Load], chip: ChipSpec, copies: int) -> float:
    """What the stages keep, in parts of what all tiles for vector work have."""
    able = {t for load in loads.values() for t in load.tiles}
    return copies * sum(load.bytes for load in loads.values()) / max(1, sum(chip.tile(t).local_bytes for t in able))


def _together(loads: Mapping[Job, _Load], plan: Plan) -> tuple[dict[Job, _Load], dict[Job, Job]]:
    """Stages of rows, two by two, of which one takes rows that the other makes: on the same tiles the rows stay where they
    are. Their loads added up, at the first of the two; and of every stage, the first of its pair."""
    leaders = {job: plan.leader(job) for job in loads}
    paired: set[Job] = set()
    for (out, _), root in sorted(plan.root_of.items(), key=lambda item: plan.starts[plan.job_of[item[0][0]]]):
        job, before = plan.job_of[out], plan.job_of[root]
        if job.kind == before.kind == "rows" and not {job, before} & paired and loads[job].tiles == loads[before].tiles:
            paired |= {job, before}
            leaders[job] = before
    return _joined(loads, leaders), leaders


def _joined(loads: Mapping[Job, _Load], leaders: Mapping[Job, Job]) -> dict[Job, _Load]:
    """Loads of stages with the same leader added up."""
    found = {job: load for job, load in loads.items() if leaders[job] == job}
    for job, leader in leaders.items():
        if job != leader:
            one, other = found[leader], loads[job]
            found[leader] = _Load(_sum(one.cycles, other.cycles), one.bytes + other.bytes, one.tiles)
    return found


@dataclass(frozen=True)
class _Found:
    """Plans, and what their fullest unit or link has to do, in parts of what a tile has on average; the first tile that is
    exceeded and the bytes it needs, (-1, 0) if none is; and the cycles of all samples."""

    plans: list[Plan]
    fullest: float
    over: tuple[int, int]
    cycles: float


def _near(context: Context, chip: ChipSpec, draft: _Draft, taken: Mapping[int, int]) -> _Found:
    """Plans with as many pieces, on tiles where their messages go shorter ways. Tiles that turn out to be exceeded are filled
    less, a few times."""
    places, order = _places(context, chip, draft)
    alike = len({chip.tile(t).local_bytes for t in draft.movable}) == 1
    if alike and (hopeless := places.hopeless()) is not None:
        tile, parts = hopeless
        return _Found([], math.inf, (tile, int(parts * chip.tile(tile).local_bytes)), math.inf)
    again, excess = 0, math.inf
    while True:
        at = spread(places, order)
        found = [
            plan.on(
                {j: tuple(at[plan.copy, draft.leaders[j], k] for k in range(len(t))) for j, t in plan.tiles.items()}
            )
            for plan in draft.plans
        ]
        over = exceeded(context, chip, found, taken)
        before, excess = excess, sum(need - chip.tile(tile).local_bytes for tile, need in over.items())
        if not over or again == AGAIN or excess > EASED * before or not over.keys() <= draft.movable:
            break
        again += 1
        for tile, need in over.items():
            places.narrow(tile, need / chip.tile(tile).local_bytes - 1.0 + MARGIN)
    fullest = places.fullest()
    cycles = max(_steps(plan) for plan in found) * max(1.0, fullest) * draft.cycles
    return _Found(found, fullest, _first(over), cycles)


def _places(context: Context, chip: ChipSpec, draft: _Draft) -> tuple[Places, list[End]]:
    """What is to be put where its messages go short ways, and in which order."""
    link = chip.noc.link_bytes_per_cycle
    messages: list[Message] = []
    wants: dict[End, Want] = {}
    flows = drafted(context, [plan.on(plan.tiles, {}) for plan in draft.plans])
    for plan, flow in zip(draft.plans, flows, strict=True):
        for size, maker, takers in flow.messages:
            ends = dict.fromkeys(_end(draft, plan, at) for at in takers)
            messages.append(Message(size / link, _end(draft, plan, maker), tuple(ends)))
        messages += [Message(n / link, None, (_end(draft, plan, at),)) for at, n in flow.fetched.items()]
        kept: Counter[End] = Counter()
        for job, rooms in flow.rooms.items():
            for tile, name in rooms if job in plan.tiles else ():
                kept[_end(draft, plan, (job, tile))] += aligned(flow.context.code(tile).rooms[name].bytes)
        for end, size in kept.items():
            want = draft.wants[end[1]]
            have = min(chip.tile(t).local_bytes for t in want.tiles)
            wants[end] = replace(want, parts=(*want.parts[:-1], size / have))
    order = sorted(wants, key=lambda end: (end[1].part, end[1].stage, end[0], end[2]))
    ports = noc.memory_ports(chip)
    near_ports = [noc.nearest(chip, t, ports) for t in range(chip.tile_count)] if ports else []
    return Places(chip.columns, draft.cycles, wants, messages, near_ports), order


def _end(draft: _Draft, plan: Plan, at: tuple[Job, int]) -> End:
    """What is at one end of a message: a piece of a stage, or what is bound to the tile."""
    job, tile = at
    return (plan.copy, draft.leaders.get(job, job), plan.tiles[job].index(tile) if job in plan.tiles else -1 - tile)


def _sum(one: _Parts, other: _Parts) -> _Parts:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _cuts(plan: Plan, size: Size, job: Job, load: _Load, mean: _Mean, fine: int) -> int:
    """Pieces of a stage: rows of a block, columns, or middle axes and then rows."""
    wanted = min(max(1, math.ceil(fine * max(load.parts(mean, 1)))), len(load.tiles))
    axes = plan.region.parts[job.part].axes
    if job.kind in ("rows", "columns"):
        whole = size.rows if job.kind == "rows" else len(plan.strips[job].blocks)
        return max(n for n in range(1, min(wanted, whole) + 1) if -(-whole // n) * n <= whole * UNEVEN)
    if wanted <= axes[0] or size.group > 1:
        return max(n for n in range(1, min(wanted, axes[0]) + 1) if axes[0] % n == 0)
    down = max(n for n in range(1, wanted // axes[0] + 1) if size.rows % n == 0)
    return axes[0] * down


@dataclass(frozen=True)
class _Measured:
    """What stages take, the plan in which that was found, the bytes that it needs of every tile, and the cycles for which a
    block takes the cells that it takes longest."""

    loads: dict[Job, _Load]
    plan: Plan
    needs: Mapping[int, int]
    cells: int

    def spare(self, chip: ChipSpec, copies: int, part: float, ahead: Collection[int]) -> dict[int, int]:
        """Bytes of tiles without stages of their own in which rows may wait, a part of what they have left; of several copies
        each has its own tiles, which one measured does not show. ``ahead``: tiles that work beside the region."""
        able = {t for load in self.loads.values() for t in load.tiles}.union(ahead)
        free = {t: int(part * (chip.tile(t).local_bytes - need)) for t, need in self.needs.items() if t not in able}
        return {t: n for t, n in free.items() if n > 0} if copies == 1 else {}


def _loads(
    context: Context, region: Region, chip: ChipSpec, size: Size, park: Mapping[int, int] | None = None
) -> _Measured:
    """Every stage that is not bound to the tiles of a product, with stages cut by columns where that pays."""
    whole = _measured(context, region, chip, size, park, False)
    *units, received, _ = _means(whole.loads, region.copies)
    if received < CARRIED * max(*units, whole.cells):
        return whole
    return _measured(context, region, chip, size, park, True)


def _measured(
    context: Context, region: Region, chip: ChipSpec, size: Size, park: Mapping[int, int] | None, strips: bool
) -> _Measured:
    """Every stage, measured on its code as if one tile did it all."""
    of = (context.graph, region, context.placement, size.rows, 0)
    empty = Plan(*of, {}, strips=strips)
    first: dict[Job, tuple[int]] = {}
    able: dict[Job, tuple[int, ...]] = {}
    for job, nodes in empty.nodes.items():
        if job.kind in ("rows", "columns", "heads") and empty.leader(job) == job:
            able[job] = tuple(tiles_with(chip, units_needed(nodes)))
            first[job] = (able[job][len(first) % len(able[job])],)
    trial = context.apart()
    plan = Plan(*of, first, group=size.group, park=park, strips=strips)
    flow = Flow(trial, plan)
    flow.emit(draft=True)
    found: dict[Job, _Load] = {}
    for job, tiles in plan.tiles.items():
        (tile,) = tiles
        code = trial.code(tile)
        room = sum(code.rooms[name].bytes for at, name in flow.rooms[job] if at == tile)
        link = chip.noc.link_bytes_per_cycle
        busy = _worked(flow.spent[job], Costs(chip, code))
        cycles = tuple(busy[unit] / plan.period(job) for unit in UNITS)
        found[job] = _Load(
            (*cycles, (flow.received[job] + flow.fetched[job, tile]) / link, flow.sent[job] / link),
            room,
            able[plan.leader(job)],
        )
    needs = dict.fromkeys(range(chip.tile_count), 0)
    needs.update((t, sum(aligned(room.bytes) for room in code.rooms.values())) for t, code in trial.codes.items())
    taken: Counter[tuple[int, str]] = Counter()
    for tile, stages in flow.stages.items():
        costs = Costs(chip, trial.code(tile))
        for step in chain.from_iterable(stages.values()):
            unit, busy, _ = costs.of(step) if isinstance(step, Instruction) and step.mnemonic == "mvm" else ("", 0, 0)
            taken[tile, unit] += busy
    return _Measured(found, plan, needs, max(taken.values(), default=0))


def _worked(steps: Sequence[Step], costs: Costs) -> Counter[Unit]:
    """Cycles that instructions take of each unit."""
    found: Counter[Unit] = Counter()
    for step in steps:
        if isinstance(step, Repeat):
            assert isinstance(step.count, int)
            for unit, cycles in _worked(step.body, costs).items():
                found[unit] += step.count * cycles
        elif INSTRUCTIONS[step.mnemonic].unit in UNITS:
            found[INSTRUCTIONS[step.mnemonic].unit] += costs.worked(step)
    return found
