"""Which repeats may have their turns executed at once, in the values engine, and what that takes.

It changes nothing that is computed if every buffer the body touches is one of these:

- only read;
- *private*: every turn writes what it reads of it, before it reads it, so each turn can have a buffer of its own;
- *apart*: what one turn touches of it no other turn writes.

Messages are taken when all are there, and sent at the end: a tile may do its own work in any order that its own data
allow."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from cimc.isa.instruction import Carries, Instruction, Kind, Repeat
from cimc.isa.operands import Affine, Extent, View
from cimc.sim.memory import ALIGN
from cimc.sim.scope import Scope, row_of

MOST_APART = 1 << 24  # elements of a buffer over which stores are compared one by one
SENDS = {"send": Carries.DATA, "signal": Carries.TOKENS, "reduce": Carries.PARTS}
TAKES = {"recv": Carries.DATA, "wait": Carries.TOKENS, "collect": Carries.PARTS}


class Use(NamedTuple):
    """A view in the body. ``at``: its instruction. ``factor``: by how many elements it moves from turn to turn."""

    at: int
    view: View
    factor: int
    reads: bool
    writes: bool
    shape: tuple[int, ...]


class Exchange(NamedTuple):
    """The messages of one channel (of several with equal ones, when sent) in a turn: the instructions in the body."""

    to: tuple[int, ...]
    """Tiles: where they go, or the one they come from."""
    tag: int
    carries: int
    at: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A repeat whose turns may be executed at once. ``private``: where each such buffer begins among a turn's bytes;
    ``kept``: those of them that something else may read afterwards."""

    body: tuple[Instruction, ...]
    variable: str
    private: Mapping[str, int]
    kept: frozenset[str]
    turn_bytes: int
    takes: tuple[Exchange, ...]
    sends: tuple[Exchange, ...]


def plan(repeat: Repeat, count: int, scope: Scope, here: Container[str]) -> Plan | None:
    """How the turns of a repeat can be executed at once; None if they cannot, or if nothing would be gained. ``here``:
    local buffers that only this repeat's instructions name."""
    if scope.recorded is not None:
        return None  # instances are put together whatever repeat they are of
    body = [s for s in repeat.body if isinstance(s, Instruction)]
    if count < 2 or len(body) < len(repeat.body) or not _simple(body, scope):
        return None
    found = _uses(body, repeat)
    if found is None:
        return None
    private: dict[str, int] = {}
    size = 0
    for name in found.written:
        uses = found.by_buffer[name]
        if name in found.moving or name[0]:
            if not _apart(uses, repeat.variable, count):
                return None
            continue
        raw, dtype, _ = scope.local[name[1]]
        if not _covered(uses, len(raw) // dtype.itemsize):
            return None
        private[name[1]] = size
        size += -(-len(raw) // ALIGN) * ALIGN
    sends = _sends(body)
    if sends is None or 2 * max(size, 1) > scope.arena.size:
        return None
    kept = frozenset(name for name in private if name not in here or name in scope.lasting)
    return Plan(tuple(body), repeat.variable, private, kept, size, tuple(_takes(body)), sends)


def _simple(body: Sequence[Instruction], scope: Scope) -> bool:
    """Whether all instructions take several turns, with keywords that are the same in all of them."""
    used: set[str] = set()
    for step in body:
        if not row_of(step.mnemonic).stacks or any(isinstance(v, Affine) for _, v in step.keywords):
            return False
        for o in step.operands:
            if isinstance(o, str):
                if scope.ordered and o in used:
                    return False
                used.add(o)
    return True


Name = tuple[bool, str]
"""A buffer: whether it is global, and its name."""


class Uses(NamedTuple):
    """What a body does with each buffer, in its order; those that it writes, and where it uses views that move."""

    by_buffer: dict[Name, list[Use]]
    written: dict[Name, None]
    moving: set[Name]


def _uses(body: Sequence[Instruction], repeat: Repeat) -> Uses | None:
    """What the body does with buffers; None for views that cannot be stacked."""
    found = Uses({}, {}, set())
    derived = {d.name for d in repeat.derived}
    for at, step in enumerate(body):
        row = row_of(step.mnemonic)
        for i, o in enumerate(step.operands):
            if isinstance(o, str):
                continue
            factor = 0
            for name, by in o.offset.terms:
                if name in derived:
                    return None
                if name == repeat.variable:
                    factor = by
            writes = row.writes[i]
            reads = row.reads[i] and (i != row.update or row.spec.access(i, dict(step.keywords)) is Kind.UPDATE)
            shape = _stackable(o.shape, o.strides, writes)
            if shape is None or (factor and step.mnemonic == "gather" and i == 1):
                return None
            key = (row.shared[i], o.buffer)
            found.by_buffer.setdefault(key, []).append(Use(at, o, factor, reads, writes, shape))
            if writes:
                found.written[key] = None
            if o.offset.terms:
                found.moving.add(key)
    return found


@lru_cache(4096)
def _stackable(shape: tuple[Extent, ...], strides: tuple[int, ...], writes: bool) -> tuple[int, ...] | None:
    """The extents; None if not all are known, or if something is written twice."""
    known = tuple(e for e in shape if isinstance(e, int) and e > 0)
    twice = writes and any(s == 0 and e != 1 for s, e in zip(strides, shape, strict=True))
    return None if len(known) < len(shape) or twice else known


def _covered(uses: Iterable[Use], size: int) -> bool:
    """Whether a turn writes what it reads of a buffer of ``size`` elements, before it does."""
    views: set[tuple[int, tuple[Extent, ...], tuple[int, ...]]] = set()
    written: list[Use] = []
    for use in sorted(uses, key=itemgetter(0, 4)):  # at, writes
        key = (use.view.offset.constant, use.view.shape, use.view.strides)
        if use.reads and key not in views and not _within(use, written, size):
            return False
        if use.writes and key not in views:
            views.add(key)
            written.append(use)
    return True


def _within(use: Use, written: Iterable[Use], size: int) -> bool:
    """Whether a view lies in those written, together."""
    mask = np.zeros(size, np.bool_)
    try:
        for w in written:
            np.ndarray(w.shape, np.bool_, mask, w.view.offset.constant, w.view.strides)[...] = True
        return bool(np.ndarray(use.shape, np.bool_, mask, use.view.offset.constant, use.view.strides).all())
    except (ValueError, TypeError):  # outside the buffer: decoding says so
        return False


def _apart(uses: Sequence[Use], variable: str, count: int) -> bool:
    """Whether no turn writes what another one touches of a buffer."""
    others = {tuple(t for t in u.view.offset.terms if t[0] != variable) for u in uses}
    if len(others) > 1:
        return False
    spans = [_span(u) for u in uses]
    low, high = min(s[0] for s in spans), max(s[1] for s in spans)
    factors = {u.factor for u in uses}
    if len(factors) == 1 and high - low <= abs(uses[0].factor):
        return True
    return not any(u.reads for u in uses) and _once(uses, count)


def _span(use: Use) -> tuple[int, int]:
    """The elements [first, end) between which a view lies in turn 0, without what its offset has of other variables."""
    steps = [(e - 1) * s for e, s in zip(use.shape, use.view.strides, strict=True)]
    at = use.view.offset.constant
    return at + sum(s for s in steps if s < 0), at + sum(s for s in steps if s > 0) + 1


def _once(uses: Sequence[Use], count: int) -> bool:
    """Whether all turns together write no element twice."""
    spans = [
        (s[0] + min(0, u.factor * (count - 1)), s[1] + max(0, u.factor * (count - 1))) for u in uses for s in [_span(u)]
    ]
    low, high = min(s[0] for s in spans), max(s[1] for s in spans)
    total = count * sum(math.prod(u.shape) for u in uses)
    if total > high - low or high - low > MOST_APART:
        return False
    mask = np.zeros(high - low, np.bool_)
    for u in uses:
        at = u.view.offset.constant - low
        np.ndarray((count, *u.shape), np.bool_, mask, at, (u.factor, *u.view.strides))[...] = True
    return int(np.count_nonzero(mask)) == total


def _takes(body: Iterable[Instruction]) -> Iterator[Exchange]:
    """What the body receives, channel by channel."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for at, step in enumerate(body):
        if step.mnemonic in TAKES:
            words = dict(step.keywords)
            source, tag = words.get("source"), words["tag"]
            assert isinstance(tag, int)
            of = words["of"] if source is None else (source,)
            assert isinstance(of, tuple)
            for tile in of:
                assert isinstance(tile, int)
                found.setdefault((tile, tag, TAKES[step.mnemonic]), []).append(at)
    for (source, tag, carries), places in found.items():
        yield Exchange((source,), tag, carries, tuple(places))


def _sends(body: Sequence[Instruction]) -> tuple[Exchange, ...] | None:
    """What the body sends, in groups that go the same ways; None if a channel takes part in two groups."""
    found: dict[tuple[tuple[int, ...], int, int], list[int]] = {}
    channels: dict[tuple[int, int, int], tuple[int, ...]] = {}
    for at, step in enumerate(body):
        if step.mnemonic not in SENDS:
            continue
        words = dict(step.keywords)
        to, tag, carries = words["to"], words["tag"], SENDS[step.mnemonic]
        to = (to,) if isinstance(to, int) else to
        assert isinstance(to, tuple)
        assert isinstance(tag, int)
        if any(channels.setdefault((tile, tag, carries), to) != to for tile in to):
            return None
        found.setdefault((to, tag, carries), []).append(at)
    return tuple(Exchange(to, tag, carries, tuple(places)) for (to, tag, carries), places in found.items())
