"""Values that cross segments, cut by columns into arrays of their own, so that no single tile serves all who read and write them.

A stored value is looked at as rows of a fixed number of elements. A *part* is a range of columns of all rows: the head of an
attention's K, say. Every load and store of the value then goes to the part it lies in, or falls into one for each part that
it meets. Where to cut follows from the accesses alone: at the borders of what loads take, and where they take whole rows,
at the borders of what stores bring, or evenly. An access whose columns a loop moves over, or that steps unevenly over
them, is never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from cimc.codegen.tilecode import narrowed
from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Instruction, Kind, Repeat, Step, kinds
from cimc.isa.operands import Affine, View, static_shape
from cimc.isa.program import GlobalBuffer
from cimc.ops.written_as import HALVED

MOST_PIECES = 4
"""Parts of a value that some load takes in whole rows: such a load falls into as many, one after the other (2: MiniLM takes 1.5 %
more cycles, BERT-base 0.6 %; 8: 0.3 % fewer and 0.5 % more)."""

MOST_LOADS = 24
"""Loads that one of a few rows falls into at most, so that none of them waits for another (of 8 and 24; text grows with it)."""

STORING, MOST_STORED = 5, 12
"""So many tiles that store columns of a value are worth one part more than MOST_PIECES would have, up to so many parts: they
store at about the same time, each part's home serves one after the other (10 tiles: the same for MiniLM, 3.6 % more
cycles for BERT-base)."""

MIN_ROW_BYTES = 256
"""Of a part, where nothing but their number says where to cut: each access has a latency, whatever its bytes (128 and 512: less
than 0.1 % of MiniLM's cycles)."""

MIN_BYTES = 16384
"""Of an array that is worth cutting: others are read and written in no time (4,096 and 65,536: the same for MiniLM)."""

HALVED_AS = 2
"""A value in 16 bits counts for so many times its bytes: it is worth cutting where in 32 bits it would be. Ways there and back,
which parts make shorter, are as long, and whole it would sooner be left to global memory."""


@dataclass(frozen=True, slots=True)
class Access:
    """A load or store of a global array by a tile. ``loops``: the repeats around it with their counts. ``even``: both
    sides have the same extents, so that it can be done in pieces. ``phase``: accesses of one are made at about the same time.
    ``turns``: it is made in one of so many rounds of the innermost loop, ``turn``: in which."""

    tile: int
    view: View
    loops: tuple[tuple[str, int], ...]
    writes: bool
    even: bool
    phase: int = 0
    turns: int = 1
    turn: int = 0

    @property
    def moved(self) -> int:
        """Elements of all its executions; where it takes turns, about."""
        n = 1
        for extent in (*static_shape(self.view), *(count for _, count in self.loops)):
            n *= extent
        return n // self.turns


@dataclass(frozen=True, slots=True)
class Reach:
    """The columns [low, high) that an access touches. ``axis``: of its view, the only thing that moves over them, one
    by one; -1 if there is none, or it is another."""

    low: int
    high: int
    axis: int


@dataclass(frozen=True, slots=True)
class Cut:
    """How an array is cut: elements in a row, and the borders of the parts, 0 and ``row`` included."""

    row: int
    edges: tuple[int, ...]

    def largest(self, reaches: Iterable[Reach]) -> float:
        """The share of a row of the largest part that one of these meets."""
        met = {k for reach in set(reaches) for k in self.meeting(reach)}
        return max(high - low for k, (low, high) in enumerate(pairwise(self.edges)) if k in met) / self.row

    def meeting(self, reach: Reach) -> list[int]:
        """The parts that a reach meets."""
        return [k for k, (low, high) in enumerate(pairwise(self.edges)) if low < reach.high and reach.low < high]

    def arrays(self, buffer: GlobalBuffer) -> tuple[GlobalBuffer, ...]:
        """The arrays of the parts."""
        rows = buffer.size // self.row
        return tuple(
            GlobalBuffer(f"{buffer.name}.{k}", buffer.element, (rows, high - low))
            for k, (low, high) in enumerate(pairwise(self.edges))
        )

    def split(self, step: Instruction, access: Access) -> Iterator[Instruction]:
        """A load or store of the array, done on the parts it meets."""
        reach = _reach(access, self.row)
        assert reach is not None, "the cut was made for all accesses"
        at = 0 if access.writes else 1
        other = step.operands[1 - at]
        assert isinstance(other, View)
        met = self.meeting(reach)
        for k in met:
            low, high = max(reach.low, self.edges[k]), min(reach.high, self.edges[k + 1])
            mine, local = access.view, other
            if (low, high) != (reach.low, reach.high):
                first = low - reach.low
                mine, local = (narrowed(v, reach.axis, first, high - low) for v in (mine, local))
            for part, here in _apart(mine, local, access, len(met)):
                pair = (self._moved(part, k), here)
                yield step.on(pair if at == 0 else pair[::-1])

    def _moved(self, view: View, k: int) -> View:
        """A view of the whole array, as one of its part ``k``."""
        low, high = self.edges[k], self.edges[k + 1]

        def step(s: int) -> int:
            return s // self.row * (high - low) + s % self.row

        offset = Affine.of(step(view.offset.constant) - low, {v: step(c) for v, c in view.offset.terms})
        return View(f"{view.buffer}.{k}", offset, view.shape, tuple(step(s) for s in view.strides))


class Division(Protocol):
    """How an array falls into several, whose names are its own with a number behind."""

    def arrays(self, buffer: GlobalBuffer) -> tuple[GlobalBuffer, ...]:
        """Those."""
        ...

    def split(self, step: Instruction, access: Access) -> Iterator[Instruction]:
        """A load or store of the array, done on those."""
        ...


def accesses(tile: int, steps: Iterable[Step], phase: int = 0) -> Iterator[tuple[str, Access | None]]:
    """Every access of a tile's steps to a global array, by the array's name; None for what is no load or store, or
    goes where a derived variable says."""
    work: list[tuple[tuple[tuple[str, int], ...], Iterator[Step]]] = [((), iter(steps))]
    while work:
        loops, rest = work[-1]
        step = next(rest, None)
        if step is None:
            work.pop()
        elif isinstance(step, Repeat):
            assert isinstance(step.count, int)
            work.append(((*loops, (step.variable, step.count)), iter(step.body)))
        elif INSTRUCTIONS[step.mnemonic].reaches:
            yield from _of(tile, step, loops, phase)


def _of(
    tile: int, step: Instruction, loops: tuple[tuple[str, int], ...], phase: int
) -> Iterator[tuple[str, Access | None]]:
    for i, (kind, operand) in enumerate(zip(kinds(step), step.operands, strict=True)):
        if not isinstance(operand, View) or kind not in GLOBAL:
            continue
        derived = {name for name, _ in operand.offset.terms} - {name for name, _ in loops}
        if step.mnemonic not in ("load", "store") or derived:
            yield operand.buffer, None
            continue
        other = step.operands[1 - i]
        even = isinstance(other, View) and other.shape == operand.shape
        turns, turn = (step.phase.turns, step.phase.turn) if step.phase else (1, 0)
        yield operand.buffer, Access(tile, operand, loops, kind is Kind.GLOBAL_WRITE, even, phase, turns, turn)


def cut(buffer: GlobalBuffer, found: Sequence[Access]) -> Cut | None:
    """Where to cut an array that these accesses, all there are, read and write; None if it stays whole."""
    best, share = None, 0.0
    bytes_each = buffer.element.bytes * (HALVED_AS if buffer.element in HALVED else 1)
    if buffer.size * bytes_each < MIN_BYTES:
        return None
    least = MIN_ROW_BYTES // bytes_each
    for row in _rows(buffer, found):
        reaches = [_reach(a, row) for a in found]
        known = [(a, r) for a, r in zip(found, reaches, strict=True) if r is not None]
        if len(known) < len(found):
            continue
        edges = _edges(row, known, least)
        found_cut = Cut(row, edges)
        largest = found_cut.largest(r for _, r in known)
        if len(edges) > 2 and (best is None or largest < share):
            best, share = found_cut, largest
    return best


def _rows(buffer: GlobalBuffer, found: Sequence[Access]) -> list[int]:
    """Lengths of a row that are worth a try: steps of the views that divide the array, and all of it."""
    steps = {s for a in found for s, n in zip(a.view.strides, static_shape(a.view), strict=True) if s > 1 and n > 1}
    steps |= {c for a in found for _, c in a.view.offset.terms}
    return sorted({s for s in (*steps, buffer.size) if buffer.size % s == 0 and s > 1}, reverse=True)


def _reach(access: Access, row: int) -> Reach | None:
    """The columns an access touches, if it stays within rows of that length; None if it does not."""
    view, counts = access.view, dict(access.loops)
    low = view.offset.constant % row
    moves = [(s, n, i) for i, (s, n) in enumerate(zip(view.strides, static_shape(view), strict=True))]
    moves += [(c, counts[v], -1) for v, c in view.offset.terms]
    if any(s < 0 for s, _, _ in moves):
        return None
    across = [(s, n, i) for s, n, i in moves if s % row and n > 1]
    high = low + sum(s * (n - 1) for s, n, _ in across) + 1
    if high > row:
        return None
    single = len(across) == 1 and across[0][0] == 1 and access.even
    return Reach(low, high, across[0][2] if single else -1)


def _edges(row: int, found: Sequence[tuple[Access, Reach]], least: int) -> tuple[int, ...]:
    """``found``: all accesses. Where loads take whole rows, there are few parts, for each costs a load; those that many
    tiles store into are a few more."""
    loads = [r for a, r in _joined(found) if not a.writes]
    narrow = [r for r in loads if r.high - r.low < row]
    whole = len(narrow) < len(loads)
    wanted = {e for r in narrow or [r for a, r in _joined(found) if a.writes] for e in (r.low, r.high)} - {0, row}
    if not wanted and row >= MOST_PIECES * least:
        wanted = {row * k // MOST_PIECES for k in range(1, MOST_PIECES)}
    fixed = sorted((r.low, r.high) for _, r in found if r.axis < 0)
    edges = [e for e in sorted(wanted) if not any(low < e < high for low, high in fixed)]
    storing = len({a.tile for a, r in found if a.writes and r.high - r.low < row})
    most = max(MOST_PIECES, min(MOST_STORED, storing // STORING))
    return (0, *(_fewer(edges, row, most) if whole else edges), row)


def _joined(found: Sequence[tuple[Access, Reach]]) -> list[tuple[Access, Reach]]:
    """Accesses of a tile's loops with those that stand before or after a loop, and go on with what it does."""
    known: list[tuple[Access, Reach]] = []
    ordered = sorted(found, key=lambda f: (f[0].tile, f[0].writes, f[1].low))
    for access, reach in ordered:
        last = known[-1] if known else None
        if (
            last is not None
            and (last[0].tile, last[0].writes, last[0].view.shape) == (access.tile, access.writes, access.view.shape)
            and last[0].view.strides == access.view.strides
            and (last[0].loops or access.loops)
            and last[1].high >= reach.low
        ):
            looped = last[0] if last[0].loops else access
            known[-1] = (looped, Reach(last[1].low, max(last[1].high, reach.high), last[1].axis))
            continue
        known.append((access, reach))
    return known


def _fewer(edges: list[int], row: int, most: int) -> list[int]:
    """Of the edges, those nearest to an even cut into ``most`` parts."""
    if len(edges) < most:
        return edges
    return sorted({min(edges, key=lambda e: abs(e - row * k // most)) for k in range(1, most)})


def rewritten(tile: int, steps: Sequence[Step], plans: Mapping[str, Division]) -> tuple[Step, ...]:
    """The steps with every load and store of an array that is cut done on its parts."""
    return _rewritten(tile, steps, plans, ())


def _rewritten(
    tile: int, steps: Sequence[Step], plans: Mapping[str, Division], loops: tuple[tuple[str, int], ...]
) -> tuple[Step, ...]:
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Repeat):
            assert isinstance(step.count, int)
            body = _rewritten(tile, step.body, plans, (*loops, (step.variable, step.count)))
            found.append(step if body == step.body else replace(step, body=body))
            continue
        if not INSTRUCTIONS[step.mnemonic].reaches:
            found.append(step)
            continue
        access = next(((n, a) for n, a in _of(tile, step, loops, 0) if n in plans), None)
        if access is None or access[1] is None:
            found.append(step)
            continue
        found += plans[access[0]].split(step, access[1])
    return tuple(found)


def _apart(mine: View, local: View, access: Access, parts: int) -> list[tuple[View, View]]:
    """What a part is loaded by: row by row if they are few, else all at once. Columns of several rows lie between those of
    other parts, and would wait for them."""
    rows = static_shape(local)[0]
    few = len(local.shape) == 2 and rows > 1 and rows * parts <= MOST_LOADS
    if not few or parts < 2 or access.writes:
        return [(mine, local)]
    return [(narrowed(mine, 0, row, 1), narrowed(local, 0, row, 1)) for row in range(rows)]
