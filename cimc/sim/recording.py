"""What a program does to values, found by running it on their names.

In place of every element a buffer holds the number of the value that would stand there. An instruction that only moves
elements moves numbers; one that computes gets numbers for what it writes, and is noted as an *instance* with the numbers of
what it reads. Control flow never depends on values, so every run does the same: :mod:`cimc.sim.batches` puts instances that
are alike together, whatever tile, turn or lane they are of, and nothing is left to do for the others.

*Alike* are instances of one form (mnemonic, keywords, extents, element types, constants, matrix) and one *level*: one more
than the highest of what they read. So none of them reads what another writes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Instruction, Machine, Matrix, Meaning
from cimc.isa.transfer import summed
from cimc.sim.matrices import CheckedMatrix
from cimc.sim.memory import Storage
from cimc.sim.packing import Packed, Unsuited
from cimc.sim.scope import Scope, meaning_of

Array = NDArray[np.generic]
Numbers = NDArray[Any]
Runs = int | tuple[NDArray[np.int64], NDArray[np.int64]]
"""Neighbouring numbers: the first one, or the first and how many of each of several runs."""
NONE = -1  # the number of an element that is zero since before the run
FIRST = 2  # number of a value; none before it, so that it is no neighbour of NONE
MOST = 2**31 - 2**24  # numbers
CONSTANTS = 1 << 24  # elements of constants that are moved
FOREVER = 1 << 62  # level after the run
VARIABLE = 1 << 20  # level of the inputs; instances below it are the same in every run
_BEGIN = np.zeros(1, np.int32)  # a difference that is none between neighbours


@dataclass(frozen=True)
class Part:
    """An operand: ``role`` is "read", "write", "update", "fixed" (a constant's view, the same array for all) or "matrix"."""

    role: str
    packed: Packed
    dtype: np.dtype[np.generic]
    spread: bool = False


@dataclass(frozen=True, eq=False)
class Form:
    """What instances of one kind do. ``reading``, ``writing``: places of such operands; an updated one is in both."""

    step: Instruction
    scope: Scope
    keywords: Mapping[str, Any]
    parts: tuple[Part, ...]
    reading: tuple[int, ...]
    writing: tuple[int, ...]
    rank: int
    stacks: bool

    def meaning(self) -> Meaning:
        """What is to be called with the operands of all instances."""
        if self.step.mnemonic == "collect":
            return _collected
        return meaning_of(self.step, self.scope)


def _collected(machine: Machine, y: Array, *parts: Array, **keywords: object) -> None:
    summed(y, parts)


@dataclass(eq=False)
class Group:
    """Instances that are alike. ``outs``: the number of what each writes first, ``reads``: of what each reads, by
    operand; ``last``: the highest level that reads of what they write."""

    number: int
    level: int
    form: Form | None
    objects: tuple[Array | Matrix, ...]
    sizes: tuple[int, ...]
    """Elements of each operand that an instance writes; their numbers follow each other, with one left out between them."""
    dtypes: tuple[np.dtype[np.generic], ...]
    outs: list[int] = field(default_factory=list[int])
    reads: list[list[Runs]] = field(default_factory=list[list[Runs]])
    last: int = 0


class Recorder:
    """The values of one run so far. ``starts``: the first number of each piece, neighbours of one operand of one
    instance (of an input or constant: all); ``owner``: its group."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.owner: list[Group] = []
        self.groups: dict[tuple[object, ...], Group] = {}
        self.next = FIRST
        self.by_number: list[Group] = []
        self._firsts = np.zeros(1024, np.int64)  # starts and owners' numbers, with room for more
        self._owners = np.zeros(1024, np.int64)
        self.tables: dict[tuple[object, ...], dict[tuple[tuple[int, ...], ...], Form]] = {}  # of who asks for forms
        self._forms: dict[tuple[object, ...], Form] = {}
        self._moved = 0  # elements of constants

    def piece(self, group: Group, size: int) -> int:
        """Numbers for ``size`` neighbours; the first one."""
        first, count = self.next, len(self.starts)
        if count == len(self._firsts):
            self._firsts = np.concatenate((self._firsts, np.zeros_like(self._firsts)))
            self._owners = np.concatenate((self._owners, np.zeros_like(self._owners)))
        self._firsts[count] = first
        self._owners[count] = group.number
        self.starts.append(first)
        self.owner.append(group)
        self.next = first + size + 1  # one left out: pieces are no neighbours
        if self.next > MOST:
            raise Unsuited(f"it computes more than {MOST:,} values")
        return first

    def source(self, array: Storage, level: int, key: tuple[object, ...]) -> int:
        """A group that writes a whole array, before everything else; its first number."""
        size = len(array.raw) // array.dtype.itemsize
        group = self._new(key, level, None, (array.array(),), [(size, array.dtype)])
        first = self.piece(group, size)
        group.outs.append(first)
        return first

    def constant(self, storage: Storage, view: Array, shape: Sequence[int], strides: Sequence[int]) -> Numbers:
        """The numbers of a constant's elements."""
        base = address(storage.raw)
        key = ("constant", base, len(storage.raw), storage.dtype)
        group = self.groups.get(key)
        if group is None:
            self._moved += len(storage.raw) // storage.dtype.itemsize
            if self._moved > CONSTANTS:
                raise Unsuited(f"it moves more than {CONSTANTS:,} elements of constants")
            self.source(storage, 0, key)
            group = self.groups[key]
        first = group.outs[0]
        at = first + (address(view) - base) // storage.dtype.itemsize
        return _pattern(tuple(shape), tuple(strides)) + np.int32(at)

    def runs(self, flat: Numbers) -> tuple[Runs, Sequence[Group]]:
        """Neighbours among numbers, and whose they are."""
        first, size = int(flat[0]), len(flat)
        if first != NONE and (size == 1 or (int(flat[-1]) - first == size - 1 and _neighbours(flat, first))):
            return first, (self.owner[bisect_right(self.starts, first) - 1],)
        begins = np.flatnonzero(np.concatenate((_BEGIN, flat[1:] - flat[:-1])) != 1)
        heads = flat[begins].astype(np.int64)
        pieces = self._firsts[: len(self.starts)].searchsorted(heads[heads != NONE], "right") - 1
        owners = set(self._owners[pieces].tolist())
        return (heads, np.diff(begins, append=size)), [self.by_number[n] for n in owners]

    def kept(self, flat: Numbers) -> Runs:
        """Neighbours among numbers of values that are read after the run."""
        found, owners = self.runs(flat)
        for group in owners:
            group.last = FOREVER
        return found

    def note(
        self, form: Form, objects: tuple[Array | Matrix, ...], views: Sequence[Numbers], read: Sequence[Numbers]
    ) -> None:
        """An instance: ``views`` of numbers it writes, and numbers it reads."""
        noted = [self.runs(flat) for flat in read]
        level = -1
        for _, owners in noted:
            for group in owners:
                level = max(level, group.level)
        level += 1
        for _, owners in noted:
            for group in owners:
                group.last = max(group.last, level)
        group = self._group(form, objects, level)
        for k, (size, view) in enumerate(zip(group.sizes, views, strict=True)):
            first = self.piece(group, size)
            np.add(_counting(view.shape), np.int32(first), out=view)
            if not k:
                group.outs.append(first)
        for known, (runs, _) in zip(group.reads, noted, strict=True):
            known.append(runs)

    def _group(self, form: Form, objects: tuple[Array | Matrix, ...], level: int) -> Group:
        key = (level, id(form), *map(_name, objects)) if objects else (level, id(form))
        group = self.groups.get(key)
        if group is None:
            parts = [(form.parts[i].packed.size, form.parts[i].dtype) for i in form.writing]
            group = self._new(key, level, form, objects, parts)
            group.reads = [[] for _ in form.reading]
        return group

    def _new(
        self,
        key: tuple[object, ...],
        level: int,
        form: Form | None,
        objects: tuple[Array | Matrix, ...],
        parts: Sequence[tuple[int, np.dtype[np.generic]]],
    ) -> Group:
        group = Group(len(self.by_number), level, form, objects, tuple(s for s, _ in parts), tuple(d for _, d in parts))
        group.last = level
        self.by_number.append(group)
        self.groups[key] = group
        return group

    def form(self, key: tuple[object, ...], made: Callable[[], Form]) -> Form:
        """The form of that key."""
        found = self._forms.get(key)
        if found is None:
            found = self._forms[key] = made()
        return found


def address(array: Array) -> int:
    """Of an array's first element."""
    return int(array.__array_interface__["data"][0])


def _name(thing: Array | Matrix) -> object:
    """By which constants and matrices are the same: views of one place, replicas of a matrix."""
    if isinstance(thing, np.ndarray):
        return address(thing)
    return id(thing.inner if isinstance(thing, CheckedMatrix) else thing)


def _neighbours(flat: Numbers, first: int) -> bool:
    """Whether numbers follow each other from the first one on: compared as bytes, in a third of the time."""
    return (flat - np.int32(first)).tobytes() == _counted(len(flat))


@lru_cache(512)
def _counted(size: int) -> bytes:
    """The numbers below ``size``."""
    return np.arange(size, dtype=np.int32).tobytes()


@lru_cache(512)
def _counting(shape: tuple[int, ...]) -> Numbers:
    """A view's elements, counted from 0."""
    return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)


@lru_cache(4096)
def _pattern(shape: tuple[int, ...], strides: tuple[int, ...]) -> Numbers:
    """Where the elements of a view lie, from its first one."""
    found = np.zeros(shape, np.int32)
    for axis, (extent, stride) in enumerate(zip(shape, strides, strict=True)):
        found += (np.arange(extent, dtype=np.int32) * stride).reshape(-1, *(1,) * (len(shape) - axis - 1))
    return found
