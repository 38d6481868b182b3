"""The inner loop of the fast timing engine: the model of :mod:`cimc.sim.reference` on flat arrays, compiled by numba.

What an instruction waits for within its tile is known without looking at the clock, and so is the end of one that
meets nobody else: it follows as soon as all it waits for is known. Only what competes with other tiles, for links, room
in channels, memory and the host, has to happen in the order of (time, tile, order, phase): for these there is a heap of
events, and one is taken from it only when nothing else can be followed any further. So the events happen in the same
order as in the reference, where everything is an event: of two that are told from the same past, neither can change it
for the other, and every event stands behind the one that brings it about (at the same time at the earliest, and then
for a later instruction of the same tile)."""

from __future__ import annotations

from collections.abc import Callable

from cimc.native import entry, fingerprint, index, inner
from cimc.sim.heap import drop_first, key_of, push
from cimc.sim.issue import end, finish, hand_over, issue, message_at
from cimc.sim.joining import join
from cimc.sim.lines import enter
from cimc.sim.state import (
    BAD,
    BUSY,
    C_BYTES,
    C_FIRST,
    C_HEAD,
    C_RECEIVER,
    C_RING,
    C_SENDER,
    C_TAIL,
    C_TAKEN,
    CHANNEL,
    COLLECT,
    COMPUTE,
    ENDED,
    F_CHAIN,
    F_COST,
    F_FREE,
    F_OPERANDS,
    F_ROW,
    F_START,
    F_UNIT,
    FIRST,
    HEAP,
    HOST_FREE,
    LINK,
    M_ARRIVAL,
    M_BYTES,
    M_CHAIN,
    M_RELEASE,
    MEMORY,
    MESSAGE,
    NOW,
    NOW_KEY,
    OPEN,
    OPERAND,
    PLACES,
    Q_BUSY,
    Q_FREE,
    QUEUE,
    READY,
    RECEIVE,
    REDUCE,
    SEND,
    STEP,
    UNIT,
    UNKNOWN,
    VERSION,
    WAIT,
    Ints,
    State,
    W,
)  # fmt: skip
from cimc.sim.tables import (
    R_CHANNEL,
    R_DEST,
    R_DEST_END,
    R_OP,
    R_SERVER,
    R_TREE,
    R_TREE_END,
    R_UNIT,
    R_WAY,
    V_BUSY,
    V_CORES,
    V_CROSS,
    V_CYCLES,
    V_REQUEST,
    V_SIZE,
    Flat,
)

SOURCES = (
    "isa/instruction.py", "sim/heap.py", "sim/issue.py", "sim/joining.py", "sim/lines.py", "sim/reference.py",
    "sim/relations.py", "sim/state.py", "sim/tables.py"
)  # fmt: skip
"""Where what is compiled here comes from, beside this file."""

DONE, MORE, MISMATCH = range(3)  # what advance() returns
WRONG = 3  # phase of the event of a recv that finds a message of the wrong size


# --- what can start -----------------------------------------------------------------------------


@inner
def begin(c: Flat, s: State) -> None:
    """The last of the slots that are ready: its start is known, and its end too if it meets no other tile."""
    s.scalar[READY] -= 1
    g = index(s.ready[index(s.scalar[READY])])
    row = index(s.flight[g, F_ROW])
    if s.flight[g, F_START] == UNKNOWN:
        operands = s.flight[g, F_OPERANDS]
        start = max(operands, s.flight[g, F_UNIT])
        s.flight[g, F_START] = start
        s.spent[row, OPERAND] += operands
        s.spent[row, UNIT] += start - operands
    op = c.rows[row, R_OP]
    if op == COMPUTE:
        compute(c, s, g, row)
    elif op in (RECEIVE, WAIT, COLLECT):
        take(c, s, g, row)
    else:
        push(s, s.flight[g, F_START], key_of(s, g, 0))


@inner
def compute(c: Flat, s: State, g: int, row: int) -> None:
    """Work of a unit of the tile. Products on the same cells follow each other in the chain too."""
    cost = index(s.flight[g, F_COST])
    cycles, busy = c.costs[cost, V_CYCLES], c.costs[cost, V_BUSY]
    s.spent[row, BUSY] += busy
    s.flight[g, F_FREE] = s.flight[g, F_START] + busy
    chain = s.flight[g, F_CHAIN]
    if c.costs[cost, V_CORES]:
        t, unit = g // W, index(c.rows[row, R_UNIT])
        chain = max(chain, s.chain_on[t, unit])
        s.chain_on[t, unit] = chain + busy
    end(s, g, s.flight[g, F_START] + cycles, chain + cycles)


@inner
def take(c: Flat, s: State, g: int, row: int) -> None:
    """A recv or wait takes its message, or waits for it."""
    cost, channel = index(s.flight[g, F_COST]), index(c.rows[row, R_CHANNEL])
    taken = s.channel[channel, C_TAKEN]
    if taken == s.channel[channel, C_TAIL]:
        s.channel[channel, C_RECEIVER] = g
        return
    at = message_at(s, channel, taken)
    if s.message[at, M_BYTES] != c.costs[cost, V_SIZE] or odd(c, s, row, c.costs[cost, V_SIZE]) >= 0:
        wrong(s, g)
        return
    busy = c.costs[cost, V_CYCLES] if c.rows[row, R_OP] != WAIT else 0
    copied = s.flight[g, F_START] + busy
    done = max(copied, s.message[at, M_ARRIVAL])
    s.message[at, M_RELEASE] = done
    s.channel[channel, C_TAKEN] = taken + 1
    s.spent[row, BUSY] += busy
    s.spent[row, FIRST] = min(s.spent[row, FIRST], done - busy)  # what came before was waiting
    s.spent[row, MESSAGE] += done - copied
    begin = c.rows[row, R_DEST]
    for i in range(begin - 1, c.rows[row, R_DEST_END]):  # the channel itself and, of a sum, those of its parts
        part = channel
        if i >= begin:
            part = index(c.dests[i, 0])
            s.message[message_at(s, part, s.channel[part, C_TAKEN]), M_RELEASE] = done
            s.channel[part, C_TAKEN] += 1
        sender = s.channel[part, C_SENDER]
        if sender >= 0:
            s.channel[part, C_SENDER] = -1
            push(s, done, key_of(s, sender, 0))
    end(s, g, done, max(s.flight[g, F_CHAIN] + busy, s.message[at, M_CHAIN]))


@inner
def odd(c: Flat, s: State, row: int, size: int) -> int:
    """The channel of a part of another size, of the sum that a row takes next; -1 if there is none."""
    for i in range(c.rows[row, R_DEST], c.rows[row, R_DEST_END]):
        part = c.dests[i, 0]
        if s.message[message_at(s, part, s.channel[part, C_TAKEN]), M_BYTES] != size:
            return part
    return -1


@inner
def wrong(s: State, g: int) -> None:
    """A recv finds a message of the wrong size: now, or when its turn comes, as others may fail before."""
    start, key = s.flight[g, F_START], key_of(s, g, WRONG)
    if start > s.scalar[NOW] or (start == s.scalar[NOW] and key > s.scalar[NOW_KEY]):
        push(s, start, key)
    else:
        s.scalar[BAD] = g


# --- messages -----------------------------------------------------------------------------------


@inner
def room(s: State, channel: int, now: int, size: int, capacity: int) -> int:
    """When a message may enter the channel, from now on; -1 if not known yet. Forgets what has been released."""
    first, ring = index(s.channel[channel, C_FIRST]), s.channel[channel, C_RING]
    head, taken = s.channel[channel, C_HEAD], s.channel[channel, C_TAKEN]
    while head < taken and s.message[first + head % ring, M_RELEASE] <= now:
        s.channel[channel, C_BYTES] -= s.message[first + head % ring, M_BYTES]
        head += 1
    s.channel[channel, C_HEAD] = head
    occupied = s.channel[channel, C_BYTES]
    at = now
    while head < s.channel[channel, C_TAIL] and occupied + size > capacity:
        if head >= taken:
            return -1
        at = s.message[first + head % ring, M_RELEASE]
        occupied -= s.message[first + head % ring, M_BYTES]
        head += 1
    return at


@inner
def send(c: Flat, s: State, g: int, row: int, now: int, rates: Ints) -> None:
    """A send tries to enter its channels."""
    cost = index(s.flight[g, F_COST])
    enter = now
    for i in range(c.rows[row, R_DEST], c.rows[row, R_DEST_END]):
        at = room(s, c.dests[i, 0], now, c.costs[cost, V_SIZE], rates[1])
        if at < 0:
            s.channel[c.dests[i, 0], C_SENDER] = g
            enter = -1
            break
        enter = max(enter, at)
    if enter == now:
        if s.blocked[g] != UNKNOWN:
            s.spent[row, CHANNEL] += now - s.blocked[g]
            s.blocked[g] = UNKNOWN
        if c.rows[row, R_OP] == SEND:
            leave(c, s, g, row, now, rates)
        else:
            join(c, s, g, row, now, rates)
        return
    if s.blocked[g] == UNKNOWN:
        s.blocked[g] = now
    if enter > now:
        push(s, enter, key_of(s, g, 0))


@inner
def leave(c: Flat, s: State, g: int, row: int, now: int, rates: Ints) -> None:
    """A message leaves: it takes its links, and its place in the channels."""
    cost = index(s.flight[g, F_COST])
    size, occupied = c.costs[cost, V_SIZE], c.costs[cost, V_CYCLES]
    cross = c.costs[cost, V_CROSS]
    left = now + occupied
    free = occupied  # how long it takes to leave if no link is taken
    first = index(c.rows[row, R_TREE])
    for i in range(c.rows[row, R_TREE_END] - first):
        link, parent = index(c.trees[first + i, 0]), c.trees[first + i, 1]
        between = link >= rates[3]
        taken, hop = (cross, rates[4]) if between else (occupied, rates[0])
        entered = enter(s, link, now if parent < 0 else s.way[parent, 0], taken, now)
        s.way[i, 0] = entered + hop
        s.way[i, 1] = hop if parent < 0 else s.way[parent, 1] + hop
        s.way[i, 2] = max(taken, occupied if parent < 0 else s.way[parent, 2])
        if parent < 0:
            left = max(left, entered + taken)
            free = max(free, taken)
    s.spent[row, BUSY] += occupied
    chain, held = s.flight[g, F_CHAIN] + free, left - now - free
    # What is ready last begins first: backwards, so that the first receiver does.
    for i in range(c.rows[row, R_DEST_END] - 1, c.rows[row, R_DEST] - 1, -1):
        channel, leaf = index(c.dests[i, 0]), c.dests[i, 1]
        at = message_at(s, channel, s.channel[channel, C_TAIL])
        header = now if leaf < 0 else s.way[leaf, 0]
        alone = 0 if leaf < 0 else s.way[leaf, 1]
        slowest = occupied if leaf < 0 else s.way[leaf, 2]
        held = max(held, header - now - alone)
        s.message[at, M_BYTES] = size
        s.message[at, M_ARRIVAL] = header + slowest
        s.message[at, M_RELEASE] = UNKNOWN
        s.message[at, M_CHAIN] = s.flight[g, F_CHAIN] + slowest + alone
        s.channel[channel, C_TAIL] += 1
        s.channel[channel, C_BYTES] += size
        if s.channel[channel, C_RECEIVER] >= 0:
            s.ready[s.scalar[READY]] = s.channel[channel, C_RECEIVER]
            s.scalar[READY] += 1
            s.channel[channel, C_RECEIVER] = -1
    s.spent[row, LINK] += held
    end(s, g, left, chain)


# --- memory and the host ------------------------------------------------------------------------


@inner
def packet(
    s: State, links: Ints, first: int, stop: int, now: int, occupied: int, cross: int, rates: Ints
) -> tuple[int, int, int]:
    """A packet along a way: when its last byte arrives, when it has left the source, how long it takes alone."""
    header, left, alone, slowest = now, now + occupied, 0, occupied
    for i in range(first, stop):
        link = index(links[index(i)])
        between = link >= rates[3]
        taken, hop = (cross, rates[4]) if between else (occupied, rates[0])
        entered = enter(s, link, header, taken, now)
        if i == first:
            left = max(left, entered + taken)
        header = entered + hop
        alone += hop
        slowest = max(slowest, taken)
    return header + slowest, left, alone + slowest


@inner
def memory(c: Flat, s: State, g: int, row: int, phase: int, now: int, rates: Ints) -> None:
    """One of the three phases of a memory access: the request leaves, it is served, the response leaves."""
    cost, hop = index(s.flight[g, F_COST]), rates[0]
    way, server = c.rows[row, R_WAY], index(c.rows[row, R_SERVER])
    if phase == 1:
        starts = max(now, s.server[server, Q_FREE])
        s.spent[row, QUEUE] += starts - now
        s.server[server, Q_BUSY] += c.costs[cost, V_CYCLES]
        s.server[server, Q_FREE] = starts + c.costs[cost, V_CYCLES]
        push(s, s.server[server, Q_FREE] + (rates[2] if server == 0 else hop), key_of(s, g, 2))
        if server == 0:
            due(s, s.flight[g, F_CHAIN], c.costs[cost, V_CYCLES])
        return
    column = 0 if phase == 0 else 1  # there, back
    occupied = c.costs[cost, V_REQUEST + column]
    cross = c.costs[cost, V_CROSS + column]
    there = left = now
    if way >= 0:
        first, stop = int(c.way_part[2 * way + column]), int(c.way_part[2 * way + column + 1])
        there, left, free = packet(s, c.way_link, first, stop, now, occupied, cross, rates)
        s.spent[row, LINK] += there - now - free
    if phase == 0:
        s.spent[row, BUSY] += left - s.flight[g, F_START]
        push(s, there, key_of(s, g, 1))
        hand_over(s, g, left)
        return
    end(s, g, there, s.flight[g, F_CHAIN] + alone(c, row, cost, rates))


@inner
def due(s: State, chain: int, cycles: int) -> None:
    """Note an access of global memory that no schedule begins before its chain. When places run out, each stands for twice
    as many cycles."""
    while chain >> s.scalar[STEP] >= PLACES:
        for place in range(PLACES // 2):
            s.due[index(place)] = s.due[index(2 * place)] + s.due[index(2 * place + 1)]
        for place in range(PLACES // 2, PLACES):
            s.due[index(place)] = 0
        s.scalar[STEP] += 1
    s.due[index(chain >> s.scalar[STEP])] += cycles


@inner
def alone(c: Flat, row: int, cost: int, rates: Ints) -> int:
    """Cycles of a memory access that meets no other."""
    way = c.rows[row, R_WAY]
    served = c.costs[cost, V_CYCLES] + (rates[2] if c.rows[row, R_SERVER] == 0 else rates[0])
    if way < 0:
        return served
    for column in range(2):
        slowest = c.costs[cost, V_REQUEST + column]
        for i in range(int(c.way_part[2 * way + column]), int(c.way_part[2 * way + column + 1])):
            if c.way_link[index(i)] >= rates[3]:
                served += rates[4]
                slowest = max(slowest, c.costs[cost, V_CROSS + column])
            else:
                served += rates[0]
        served += slowest
    return served


@inner
def host(c: Flat, s: State, g: int, row: int, now: int) -> None:
    """A host call: one at a time on the whole chip."""
    busy = c.costs[s.flight[g, F_COST], V_CYCLES]
    starts = max(now, s.scalar[HOST_FREE])
    s.spent[row, UNIT] += starts - now
    s.scalar[HOST_FREE] = starts + busy
    s.spent[row, BUSY] += busy
    end(s, g, starts + busy, s.flight[g, F_CHAIN] + busy)


# --- the loop -----------------------------------------------------------------------------------


@inner
def happen(c: Flat, s: State, rates: Ints) -> None:
    """The earliest event happens."""
    now, key = s.heap[0, 0], s.heap[0, 1]
    drop_first(s)
    s.scalar[NOW] = now
    s.scalar[NOW_KEY] = key
    g = index((key >> 46) * W + ((key >> 2) & ((1 << 44) - 1)) % W)
    row = index(s.flight[g, F_ROW])
    op = c.rows[row, R_OP]
    if op in (SEND, REDUCE):
        send(c, s, g, row, now, rates)
    elif op == MEMORY:
        memory(c, s, g, row, key & 3, now, rates)
    elif op in (RECEIVE, COLLECT):  # WRONG
        s.scalar[BAD] = g
    else:
        host(c, s, g, row, now)


@inner
def loop(c: Flat, s: State, rates: Ints, steps: int) -> int:
    """Take up to ``steps`` steps; see :data:`advance`."""
    for _ in range(steps):
        if s.scalar[READY] == 0 and s.scalar[ENDED] == 0:
            if s.scalar[OPEN] > 0:
                issue(c, s)
            elif s.scalar[HEAP] > 0:
                happen(c, s, rates)
            else:
                return DONE
        if s.scalar[READY] > 0:
            begin(c, s)
        if s.scalar[ENDED] > 0:
            finish(c, s)
        if s.scalar[BAD] >= 0:
            return MISMATCH
    return MORE


def _entry(version: int) -> Callable[[Flat, State, Ints, int], int]:
    """The loop behind the function whose machine code numba keeps on disk."""

    @entry
    def advance(c: Flat, s: State, rates: Ints, steps: int) -> int:
        s.scalar[VERSION] = version
        return loop(c, s, rates, steps)

    return advance


advance = _entry(fingerprint(*SOURCES))
"""``advance(flat, state, rates, steps)`` takes up to ``steps`` steps, in each of which at most one instruction ends;
``rates``: router cycles, channel bytes, memory latency, the first link between chips, its latency, cycles by which a router
that adds is later. Returns DONE (nothing is left that can happen), MORE or MISMATCH (a message of the wrong size: the slot BAD
has its recv)."""


def compiled() -> bool:
    """Whether this process has the loop's machine code. If not, the first call of :data:`advance` loads it from disk or,
    once on a machine, compiles it: some ten seconds."""
    return bool(getattr(advance, "signatures", True))
