"""The timing model, defined: a plain, slow, event-driven simulation. :mod:`cimc.sim.timing` does the same, fast.

A tile issues its instructions in order, one a cycle, repeats unrolled at no cost. At most :data:`WINDOW` instructions
are in flight: instruction k issues when instruction k - WINDOW and all before that have ended. It then waits until

- its unit is free: units take their instructions in the order of issue, one at a time; every matrix is a unit, a host
  call occupies the tile's memory path. A unit is free when its instruction has ended; a matrix already when the last
  row has gone in, ``rows · interval`` after the start; the memory path when the request has left (for what lies in the
  tile's own local memory, at once);
- no earlier instruction in flight has a hazard with it: a range of local bytes that one of the two writes. Ranges are
  the bounding ranges of views. Two accumulating MVMs on the same range have none;
- for ``signal`` and host calls: every earlier instruction has ended.

That is its start. When it ends:

- compute: start + its cycles.
- ``send``, ``signal``: from the start it waits for room in the channels to all destinations at once. A channel has
  room if it is empty or its bytes and the message's are at most ``channel_bytes``; a message leaves it when the
  ``recv`` that takes it ends. Then the header leaves. Link j of its way is entered as soon as the header is there and
  the link is free long enough, stays occupied for ``ceil(bytes / link_bytes_per_cycle)`` cycles (at least 1), and the
  header is at the next router ``router_cycles`` after it entered. A link between chips, one each way, is occupied for
  ``ceil(bytes / link.bytes_per_cycle)`` cycles and takes the header ``link.latency_cycles``. A multicast takes the tree
  of the ways, shared links once. The message has arrived when its last byte has: after the header, the longest
  occupation on its way, at least that of a link within a chip. The instruction ends when the last
  byte has left for the first link (the latest of them); what is blocked further on is held by the routers.
- ``reduce``: as a ``send`` to one tile, along the union of the ways of all tiles ``of`` to it, which is a tree. A router at
  which several parts (or sums of some) come together passes on one packet: its header leaves ``noc.reduce.cycles`` after
  the last of theirs came, and it occupies every link from there on for at least ``ceil(elements / noc.reduce.lanes)``
  cycles. The links behind such a router are reserved when the last of the parts that it waits for leaves its source; a part
  that meets others at its own router has left when it has been handed to that. The last byte of the sum arrives
  after its header by the longest occupation on any of the ways.
- ``collect``: as a ``recv``, of the sum; all the parts leave their channels then.
- ``recv``: takes the next message of its channel; the copy runs at link width, along with the arrival: ``max(start +
  occupation, arrival)``.
- ``wait``: ``max(start, arrival)`` of its token; nothing after it issues before that.
- memory: a packet (a load's request has no bytes, a store's has the data) goes to the nearest memory port, is served
  in order of arrival there, one at a time for ``ceil(bytes / bytes_per_cycle)`` cycles; ``latency_cycles`` later a
  packet (a load's data; a store's acknowledgement has no bytes) goes back. It ends when that has arrived.
- memory, of a resident buffer: the packets go to its home tile and back, by the same rules; there a queue of that
  tile's own serves it for ``ceil(bytes / link_bytes_per_cycle)`` cycles, and ``router_cycles`` later the answer
  leaves. At home there are no packets.
- host: one call at a time on the whole chip, in order of start.
- ``halt``: at its issue.

What happens in the same cycle happens in the order of tile number, then instruction. Links are reserved when the header
leaves the source, all of the way at once; a later packet may slip in before a reservation for a later time. Few
reservations of a link are kept apart. That, the unlimited depth of routers, and the free order of the local buffer's
ports are the approximations.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cimc import errors
from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import WINDOW, Carries, Instruction, Phase, Repeat, Step
from cimc.isa.messages import destinations, integer, parts
from cimc.isa.operands import extent
from cimc.isa.program import Program
from cimc.isa.steps import walk
from cimc.sim import params, place
from cimc.sim.job import Action, Foreman, Job, action, carries, is_token, unit
from cimc.sim.queues import UNTOLD, Channel, Flight, Message, Sum, Sums

RESERVATIONS = 16  # of a link that are kept apart; what is free between the first two of more is given up

Key = tuple[int, int, int, Carries]  # source, destination, tag, what it carries
Total = tuple[tuple[int, ...], int, int]  # the tiles whose parts make a sum, destination, tag


@dataclass
class Line:
    """A link's reservations, in the order of time: [from, to), none next to the other."""

    taken: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def enter(self, header: int, occupied: int, now: int) -> int:
        """Reserve the link from the first time on, not before ``header``, at which it is free for ``occupied`` cycles."""
        self.taken = [(low, high) for low, high in self.taken if high > now]
        at = header
        for low, high in self.taken:
            if at + occupied > low:
                at = max(at, high)
        whole: list[tuple[int, int]] = []
        for low, high in sorted([*self.taken, (at, at + occupied)]):
            if whole and whole[-1][1] == low:
                whole[-1] = (whole[-1][0], high)
            else:
                whole.append((low, high))
        if len(whole) > RESERVATIONS:
            whole[:2] = [(whole[0][0], whole[1][1])]
        self.taken = whole
        return at


@dataclass
class TileState:
    """A tile: what is still to be issued, what is in flight."""

    number: int
    foreman: Foreman
    stream: Iterator[tuple[Instruction, int, dict[str, int]]]
    flights: list[Flight] = field(default_factory=list[Flight])  # the last WINDOW, ended or not
    issued: int = 0
    next_issue: int = 0
    retired: int = 0  # when all up to the one that leaves the window had ended
    barrier: Flight | None = None
    finished: bool = False


def unroll(
    steps: Sequence[Step], env: Mapping[str, int], first: int = 1
) -> Iterator[tuple[Instruction, int, dict[str, int]]]:
    """Instructions in the order of execution, with their numbers in the text (a body counts once) and the values of the
    variables."""
    for step in steps:
        if isinstance(step, Instruction):
            yield step, first, dict(env)
            first += 1
            continue
        for i, inner, nth in _rounds(step, extent(step.count, env), first):
            derived = {d.name: d.at(i) for d in step.derived}
            yield from unroll((inner,), {**env, step.variable: i, **derived}, nth)
        first += sum(1 for _ in walk(step.body))


def _rounds(repeat: Repeat, count: int, first: int) -> Iterator[tuple[int, Step, int]]:
    """What a repeat executes, one after the other: for which round, the step, and its number."""
    body: list[tuple[Step, int, Phase]] = []
    for step in repeat.body:
        body.append((step, first, (step.phase if isinstance(step, Instruction) else None) or Phase()))
        first += sum(1 for _ in walk((step,)))
    for at in range(count + max((p.stage for _, _, p in body), default=0)):
        for step, nth, phase in body:
            i = at - phase.stage
            if 0 <= i < count and i % phase.turns == phase.turn:
                yield i, step, nth


@dataclass(frozen=True)
class Executed:
    """One executed instruction: what it took, and the cycles of issue, start and end."""

    tile: int
    instruction: Instruction
    job: Job
    issue: int
    start: int
    end: int


class Reference:
    """One simulation."""

    def __init__(self, program: Program, chip: ChipSpec, param_values: Mapping[str, int] | None = None) -> None:
        env = params.bind(program, param_values)
        self.chip = chip
        self.tiles = {t.tile: TileState(t.tile, Foreman(program, t, chip), unroll(t.steps, env)) for t in program.tiles}
        self.links: dict[int, Line] = {}
        self.channels: dict[Key, Channel] = {}
        self.sums: dict[Total, Sums] = {}
        self.memory_free: dict[int, int] = {}  # home tile, -1 for global memory
        self.host_free = 0
        self.events: list[tuple[int, int, int, int]] = []  # time, tile, order, phase
        self.executed: list[Executed] = []
        self.stalls: Counter[tuple[int, str, str]] = (
            Counter()
        )  # (tile, layer, cause) → cycles; causes: docs/contract.md

    def run(self) -> int:
        """Simulate to the end; the cycle in which the last instruction ends. Raises DEADLOCK, INSTRUCTION_FAILED."""
        for number_ in sorted(self.tiles):
            self._issue(self.tiles[number_])
        while self.events:
            time, tile, order, phase = heapq.heappop(self.events)
            flight = next(f for f in self.tiles[tile].flights if f.order == order)
            self._happen(flight, time, phase)
        stuck = [self._stuck(t) for t in self.tiles.values() if not t.finished or any(f.end is None for f in t.flights)]
        if stuck:
            raise place.deadlock(stuck, len(self.tiles))
        return max((e.end for e in self.executed), default=0)

    # --- issue ----------------------------------------------------------------------------------

    def _issue(self, tile: TileState) -> None:
        """Issue what can be issued; times may lie ahead of the simulation's."""
        while not tile.finished:
            if tile.barrier is not None and tile.barrier.end is None:
                return
            if len(tile.flights) == WINDOW:
                oldest = tile.flights[0]
                if oldest.end is None:
                    return
                tile.retired = max(tile.retired, oldest.end)
                tile.flights.pop(0)
            item = next(tile.stream, None)
            if item is None:
                tile.finished = True
                return
            self._admit(tile, *item)

    def _admit(self, tile: TileState, instruction: Instruction, step: int, env: dict[str, int]) -> None:
        job = tile.foreman.job(instruction, env)
        after = tile.barrier.end if tile.barrier is not None and tile.barrier.end is not None else 0
        free = max(tile.next_issue, after)
        issue = max(free, tile.retired)
        kind = action(instruction)
        which = unit(instruction)
        everything = kind is Action.HOST or (kind is Action.SEND and is_token(instruction))
        before = [f for f in tile.flights if everything or hazard(f.job, job)]
        ahead = next((f for f in reversed(tile.flights) if f.unit == which), None)
        flight = Flight(tile.number, tile.issued, step, instruction, job, which, issue, before, ahead)
        self._stall(flight, "issue", issue - free)
        tile.flights.append(flight)
        tile.issued += 1
        tile.next_issue = issue + 1
        if kind is Action.WAIT:
            tile.barrier = flight
        if kind is Action.HALT:
            flight.start = issue
            self._end(flight, issue)
            return
        self._ready(flight)

    def _ready(self, flight: Flight) -> None:
        """Put a flight's start among the events once everything it waits for is known."""
        ends = [f.end for f in flight.before]
        free = flight.issue if flight.ahead is None else flight.ahead.free
        if flight.queued or free is None or None in ends:
            return
        operands = max([flight.issue, *(e for e in ends if e is not None)])
        flight.start = max(operands, free)
        self._stall(flight, "operand", operands - flight.issue)
        self._stall(flight, "unit", flight.start - operands)
        flight.queued = True
        self._at(flight.start, flight, 0)

    def _stall(self, flight: Flight, cause: str, cycles: int) -> None:
        layer = flight.instruction.origin.node if flight.instruction.origin else ""
        self.stalls[flight.tile, layer, cause] += cycles

    def _at(self, time: int, flight: Flight, phase: int) -> None:
        heapq.heappush(self.events, (time, flight.tile, flight.order, phase))

    def _end(self, flight: Flight, time: int) -> None:
        flight.end = time
        if flight.free is None:
            flight.free = time
        start = flight.issue if flight.start is None else flight.start
        self.executed.append(Executed(flight.tile, flight.instruction, flight.job, flight.issue, start, time))
        tile = self.tiles[flight.tile]
        for other in tile.flights:
            if flight in other.before or flight is other.ahead:
                self._ready(other)
        self._issue(tile)

    def _hand_over(self, flight: Flight, time: int) -> None:
        flight.free = time
        for other in self.tiles[flight.tile].flights:
            if flight is other.ahead:
                self._ready(other)

    # --- what happens ---------------------------------------------------------------------------

    def _happen(self, flight: Flight, now: int, phase: int) -> None:
        kind = action(flight.instruction)
        if kind is Action.COMPUTE:
            flight.free = now + flight.job.busy
            self._end(flight, now + flight.job.cycles)
        elif kind is Action.SEND or kind is Action.REDUCE:
            self._send(flight, now)
        elif kind is Action.COLLECT:
            self._collect(flight)
        elif kind is Action.RECEIVE or kind is Action.WAIT:
            self._receive(flight)
        elif kind is Action.MEMORY:
            self._memory(flight, now, phase)
        elif kind is Action.HOST:
            self._stall(flight, "unit", max(0, self.host_free - now))
            self.host_free = max(now, self.host_free) + flight.job.cycles
            self._end(flight, self.host_free)

    def _channel(self, source: int, destination: int, instruction: Instruction) -> Channel:
        key = (source, destination, integer(instruction, "tag"), carries(instruction))
        return self.channels.setdefault(key, Channel())

    def _packet(self, flight: Flight, source: int, to: Sequence[int], size: int, now: int) -> tuple[list[int], int]:
        """Send a packet on its way: (arrival at each destination, when its last byte has left the source)."""
        tree = noc.tree(self.chip, source, to)
        inside = noc.packet_cycles(self.chip, size)
        header: list[int] = []
        left = free = now + inside  # the latter: if no link were taken
        for link, parent in zip(tree.links, tree.parents, strict=True):
            hop, occupied = self._link(link, size)
            line = self.links.setdefault(link, Line())
            entered = line.enter(now if parent < 0 else header[parent], occupied, now)
            header.append(entered + hop)
            if parent < 0:
                left, free = max(left, entered + occupied), max(free, now + occupied)
        arrivals: list[int] = []
        held = left - free
        for destination, leaf in zip(to, tree.leaves, strict=True):
            way = [self._link(link, size) for link in noc.route(self.chip, source, destination)]
            slowest = max([inside, *(occupied for _, occupied in way)])
            arrivals.append((now if leaf < 0 else header[leaf]) + slowest)
            held = max(held, arrivals[-1] - now - sum(hop for hop, _ in way) - slowest)
        self._stall(flight, "link", held)
        return arrivals, left

    def _link(self, link: int, size: int) -> tuple[int, int]:
        """What a link takes of a packet: cycles of its header, cycles it is occupied."""
        if link < noc.first_chip_link(self.chip):
            return self.chip.noc.router_cycles, noc.packet_cycles(self.chip, size)
        assert self.chip.link is not None
        return self.chip.link.latency_cycles, noc.crossing_cycles(self.chip, size)

    def _send(self, flight: Flight, now: int) -> None:
        to = destinations(flight.instruction)
        channels = [self._channel(flight.tile, d, flight.instruction) for d in to]
        size = flight.job.bytes
        rooms = [c.room_at(now, size, self.chip.noc.channel_bytes) for c in channels]
        if None in rooms:
            channels[rooms.index(None)].sender = flight
            return
        enter = max(r for r in rooms if r is not None)
        if enter > now:
            self._at(enter, flight, 0)
            return
        assert flight.start is not None
        self._stall(flight, "channel", now - flight.start)
        if action(flight.instruction) is Action.REDUCE:
            channels[0].messages.append(Message(size, UNTOLD))
            self._end(flight, self._join(flight, to[0], now))
            return
        arrivals, left = self._packet(flight, flight.tile, to, size, now)
        for channel, arrival in zip(channels, arrivals, strict=True):
            channel.messages.append(Message(size, arrival))
            if channel.receiver is not None:
                receiver, channel.receiver = channel.receiver, None
                self._receive(receiver)
        self._end(flight, left)

    def _sums(self, instruction: Instruction, destination: int) -> Sums:
        of, tag = parts(instruction), integer(instruction, "tag")
        if (of, destination, tag) not in self.sums:
            self.sums[of, destination, tag] = Sums(noc.meeting(self.chip, of, destination))
        return self.sums[of, destination, tag]

    def _join(self, flight: Flight, to: int, now: int) -> int:
        """Send a part of a sum on its way, to the first router that still waits for another; if it is the last that one
        waits for, the sum goes on from there. When its last byte has left the source."""
        assert self.chip.noc.reduce is not None
        job, sums = flight.job, self._sums(flight.instruction, to)
        one = sums.turn(sums.sent[flight.tile])
        sums.sent[flight.tile] += 1
        tree = sums.tree
        router = tree.starts[parts(flight.instruction).index(flight.tile)]
        header, slowest, added, first = now, noc.packet_cycles(self.chip, job.bytes), 0, True
        left = free = now + slowest
        while True:
            if tree.inputs[router] > 1:
                one.came[router] += 1
                header = one.header[router] = max(one.header[router], header)
                slowest = one.slowest[router] = max(one.slowest[router], slowest)
                if one.came[router] < tree.inputs[router]:
                    break
                header, added, first = header + self.chip.noc.reduce.cycles, job.added, False
                slowest = max(slowest, added)
            link = tree.links[router]
            if link < 0:
                self._arrive(sums, one, header + slowest)
                break
            hop, occupied = self._link(link, job.bytes)
            occupied = max(occupied, added)
            entered = self.links.setdefault(link, Line()).enter(header, occupied, now)
            if first:
                left, free = max(left, entered + occupied), max(free, now + occupied)
            header, slowest, first = entered + hop, max(slowest, occupied), False
            router = tree.nexts[router]
        self._stall(flight, "link", left - free)
        return left

    def _arrive(self, sums: Sums, one: Sum, arrival: int) -> None:
        one.arrival = arrival
        if sums.receiver is not None:
            receiver, sums.receiver = sums.receiver, None
            self._collect(receiver)

    def _collect(self, flight: Flight) -> None:
        """Take the next sum: its parts leave all their channels."""
        sums = self._sums(flight.instruction, flight.tile)
        one = sums.turn(sums.taken)
        if one.arrival is None:
            sums.receiver = flight
            return
        channels = [self._channel(source, flight.tile, flight.instruction) for source in parts(flight.instruction)]
        messages = [m for m in (c.untaken() for c in channels) if m is not None]
        for source, message in zip(parts(flight.instruction), messages, strict=True):
            if message.bytes != flight.job.bytes:
                raise self._mismatch(flight, source, message.bytes)
        sums.taken += 1
        assert flight.start is not None
        copied = flight.start + flight.job.cycles
        end = max(copied, one.arrival)
        self._stall(flight, "message", end - copied)
        for channel, message in zip(channels, messages, strict=True):
            message.release = end
            if channel.sender is not None:
                self._at(end, channel.sender, 0)
                channel.sender = None
        self._end(flight, end)

    def _receive(self, flight: Flight) -> None:
        channel = self._channel(integer(flight.instruction, "source"), flight.tile, flight.instruction)
        message = channel.untaken()
        if message is None:
            channel.receiver = flight
            return
        if message.bytes != flight.job.bytes:
            raise self._mismatch(flight, integer(flight.instruction, "source"), message.bytes)
        assert flight.start is not None
        copied = flight.start + flight.job.cycles
        message.release = max(copied, message.arrival)
        self._stall(flight, "message", message.release - copied)
        if channel.sender is not None:
            self._at(message.release, channel.sender, 0)
            channel.sender = None
        self._end(flight, message.release)

    def _memory(self, flight: Flight, now: int, phase: int) -> None:
        job = flight.job
        there = self.tiles[flight.tile].foreman.port if job.home < 0 else job.home
        at_home = job.home == flight.tile
        if phase == 0:
            arrivals, left = ([now], now) if at_home else self._packet(flight, flight.tile, (there,), job.request, now)
            self._at(arrivals[0], flight, 1)
            self._hand_over(flight, left)
        elif phase == 1:
            begun = max(now, self.memory_free.get(job.home, 0))
            self._stall(flight, "memory", begun - now)
            served = self.memory_free[job.home] = begun + job.cycles
            latency = self.chip.memory.latency_cycles if job.home < 0 else self.chip.noc.router_cycles
            self._at(served + latency, flight, 2)
        else:
            self._end(flight, now if at_home else self._packet(flight, there, (flight.tile,), job.response, now)[0][0])

    # --- reports --------------------------------------------------------------------------------

    def _mismatch(self, flight: Flight, source: int, size: int) -> errors.CimcError:
        why = f"the message from tile {source} has {size} bytes, the view {flight.job.bytes}"
        return place.failed(flight.tile, flight.step, flight.instruction, why)

    def _stuck(self, tile: TileState) -> place.Stuck:
        flight = next(f for f in tile.flights if f.end is None)
        return place.Stuck(tile.number, flight.step, flight.instruction, place.waits(flight.instruction))


def hazard(earlier: Job, later: Job) -> bool:
    """Whether two jobs touch the same bytes in a way that keeps their order."""
    return any(
        max(a.low, b.low) < min(a.high, b.high) and (a.writes or b.writes) and not (a.accumulates and b.accumulates)
        for a in earlier.ranges
        for b in later.ranges
    )
