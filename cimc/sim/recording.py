"""What a program does to values, found by running it on their names.

In place of every element a buffer holds the number of the value that would stand there. An instruction that only moves
elements moves numbers; one that computes gets numbers for what it writes, and is noted as an *instance* with the numbers of
what it reads. Control flow never depends on values, so every run does the same: :mod:`cimc.sim.batches` puts instances that
are alike together, whatever tile, turn or lane they are of, and nothing is left to do for the others.

*Alike* are instances of one form (mnemonic, keywords, extents, element types, constants, matrix) and one *level*: one more
than the highest of what they read. So none of them reads what another writes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Blocked, Instruction, Machine, Matrix, Meaning
from cimc.isa.operands import Affine, View
from cimc.isa.transfer import summed
from cimc.sim.matrices import CheckedMatrix
from cimc.sim.memory import Storage
from cimc.sim.packing import Packed, Unsuited, packed
from cimc.sim.scope import Row, Scope, meaning_of, row_of

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
_MOVES = frozenset({"load", "store", "copy"})
_SENDS = frozenset({"send", "reduce"})
_TOKENS = frozenset({"signal", "wait", "halt", "recv"})  # for these the numbers are as good as values
SPREAD = frozenset({("mvm", 2), ("gather", 2)})
"""Operands that their meanings count: they have the instances' extent even where they are the same in all of them."""


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
        self._forms: dict[tuple[object, ...], Form] = {}
        self._constants: dict[int, int] = {}
        self._kept: list[Storage] = []

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
            raise Unsuited
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
        first = self._constants.get(base)
        if first is None:
            if sum(len(s.raw) // s.dtype.itemsize for s in (*self._kept, storage)) > CONSTANTS:
                raise Unsuited
            self._kept.append(storage)
            first = self._constants[base] = self.source(storage, 0, ("constant", base))
        at = first + (address(view) - base) // storage.dtype.itemsize
        return _pattern(tuple(shape), tuple(strides)) + np.int32(at)

    def runs(self, flat: Numbers) -> tuple[Runs, Sequence[Group]]:
        """Neighbours among numbers, and whose they are."""
        first, size = int(flat[0]), len(flat)
        if size == 1 or int(flat[-1]) - first == size - 1:
            alone = size == 1 or bool((flat[1:] - flat[:-1] == 1).all())
            if alone and first != NONE:
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
            view[...] = np.arange(first, first + size, dtype=np.int32).reshape(view.shape)
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


@lru_cache(4096)
def _pattern(shape: tuple[int, ...], strides: tuple[int, ...]) -> Numbers:
    """Where the elements of a view lie, from its first one."""
    found = np.zeros(shape, np.int32)
    for axis, (extent, stride) in enumerate(zip(shape, strides, strict=True)):
        found += (np.arange(extent, dtype=np.int32) * stride).reshape(-1, *(1,) * (len(shape) - axis - 1))
    return found


@dataclass(frozen=True)
class TileRecorder:
    """A tile's instructions as they are recorded. ``real``: what their names mean when values are computed."""

    recorder: Recorder
    real: Scope

    def meaning(self, step: Instruction) -> Meaning:
        """What stands for the meaning of an instruction. Raises Unsuited for one whose effect is more than its operands
        show."""
        name, row = step.mnemonic, row_of(step.mnemonic)
        if name in _TOKENS:
            return row.meaning
        if name in _SENDS:
            return self._sent(step, row)
        if name in _MOVES and self._storage(step, row, 0).dtype == self._storage(step, row, 1).dtype:
            return self._moved(step, row)
        if name == "calibrate":
            return lambda machine, *operands, **keywords: None
        if name == "collect":
            return self._collect(step)
        if not row.stacks:
            raise Unsuited
        return self._computed(step, row)

    def _storage(self, step: Instruction, row: Row, place: int) -> Storage:
        operand = step.operands[place]
        assert isinstance(operand, View)
        return (self.real.shared if row.shared[place] else self.real.local)[operand.buffer]

    def _constant(self, step: Instruction, row: Row, place: int) -> Callable[[Array], Numbers] | None:
        """From a view of a constant to its numbers; None if the operand is none."""
        storage, operand = self._storage(step, row, place), step.operands[place]
        assert isinstance(operand, View)
        if storage.raw.flags.writeable:
            return None
        return lambda view: self.recorder.constant(storage, view, view.shape, operand.strides)

    def _sent(self, step: Instruction, row: Row) -> Meaning:
        constant = self._constant(step, row, 0)
        if constant is None:
            return row.meaning
        return lambda machine, x, **keywords: row.meaning(machine, constant(x), **keywords)

    def _moved(self, step: Instruction, row: Row) -> Meaning:
        constant = self._constant(step, row, 1)
        if constant is None:
            return row.meaning

        def moved(machine: Machine, y: Array, x: Array) -> None:
            np.copyto(y, constant(x))

        return moved

    def _collect(self, step: Instruction) -> Meaning:
        dtype = self._storage(step, row_of("collect"), 0).dtype

        def collect(machine: Machine, y: Array, *, of: tuple[int, ...], tag: int) -> None:
            parts = machine.collect(of, tag)
            if parts is None:
                raise Blocked
            form = self._sum(step, y.shape, dtype, len(parts))
            self.recorder.note(form, (), (y,), [p.reshape(-1) for p in parts])

        return collect

    def _sum(self, step: Instruction, shape: tuple[int, ...], dtype: np.dtype[np.generic], count: int) -> Form:
        def made() -> Form:
            dense = packed(shape, None)
            parts = (Part("write", dense, dtype), *(Part("read", dense, dtype) for _ in range(count)))
            return Form(step, self.real, {}, parts, tuple(range(1, count + 1)), (0,), len(shape), True)

        return self.recorder.form(("collect", shape, dtype, count), made)

    def _computed(self, step: Instruction, row: Row) -> Meaning:
        """An instruction that computes."""
        roles = [self._role(step, row, i) for i in range(len(step.operands))]
        constants = {i: self._constant(step, row, i) for i, o in enumerate(step.operands) if isinstance(o, View)}
        steady = not any(isinstance(v, Affine) for _, v in step.keywords)
        known: dict[tuple[tuple[int, ...], ...], Form] = {}
        objects_at = [i for i, r in enumerate(roles) if r in ("fixed", "matrix")]

        def run(machine: Machine, *operands: Any, **keywords: Any) -> None:
            shapes = tuple([o.shape if isinstance(o, np.ndarray) else () for o in operands])
            form = known.get(shapes) if steady else None
            if form is None:
                form = known[shapes] = self._form(step, row, roles, shapes, keywords)
            read: list[Numbers] = []
            for i in form.reading:
                constant = constants[i]
                view = operands[i] if constant is None else constant(operands[i])
                read.append(form.parts[i].packed.flat(view))
            objects = tuple([operands[i] for i in objects_at])
            self.recorder.note(form, objects, [operands[i] for i in form.writing], read)

        return run

    def _role(self, step: Instruction, row: Row, place: int) -> str:
        operand = step.operands[place]
        if isinstance(operand, str):
            return "matrix"
        if row.writes[place]:
            update = (
                place == row.update and row.spec.access(place, dict(step.keywords)) == row.spec.operands[place].kind
            )
            return "update" if update else "write"
        table = step.mnemonic == "gather" and place == 1
        constant = not self._storage(step, row, place).raw.flags.writeable
        return "fixed" if constant and (table or not operand.offset.terms) else "read"

    def _form(
        self,
        step: Instruction,
        row: Row,
        roles: Sequence[str],
        shapes: tuple[tuple[int, ...], ...],
        keywords: Mapping[str, Any],
    ) -> Form:
        parts: list[Part] = []
        for i, (role, operand, shape) in enumerate(zip(roles, step.operands, shapes, strict=True)):
            if isinstance(operand, str):
                parts.append(Part(role, packed((), None), np.dtype(np.void)))
                continue
            product = step.mnemonic == "matmul" or (step.mnemonic, i) == ("mvm", 2)
            strides = None if role in ("write", "update") else operand.strides
            if strides is None and any(s == 0 and e > 1 for s, e in zip(operand.strides, shape, strict=True)):
                raise Unsuited
            dtype = self._storage(step, row, i).dtype
            parts.append(Part(role, packed(shape, strides, product=product), dtype, (step.mnemonic, i) in SPREAD))
        if step.mnemonic == "matmul" and _may_be_same(*step.operands[1:]):
            raise Unsuited  # NumPy multiplies an array by its own transpose in another way
        checked = meaning_of(step, self.real) is not row.meaning
        key = (step.mnemonic, tuple(sorted(keywords.items())), checked, tuple(parts))
        rank = max(len(p.packed.shape) for p in parts)
        stacks = not (step.mnemonic == "mvm" and rank != 2) and not (step.mnemonic == "gather" and roles[1] != "fixed")
        reading = tuple(i for i, p in enumerate(parts) if p.role in ("read", "update"))
        writing = tuple(i for i, p in enumerate(parts) if p.role in ("write", "update"))
        return self.recorder.form(
            key, lambda: Form(step, self.real, dict(keywords), tuple(parts), reading, writing, rank, stacks)
        )


def _may_be_same(a: View | str, b: View | str) -> bool:
    """Whether two views may begin at one element."""
    assert isinstance(a, View)
    assert isinstance(b, View)
    return a.buffer == b.buffer and (a.offset == b.offset or bool(a.offset.terms or b.offset.terms))


def numbered(storages: Mapping[str, Storage]) -> dict[str, Storage]:
    """Buffers of numbers in place of those that are written; constants as they are."""
    return {name: _numbered(s) if s.raw.flags.writeable else s for name, s in storages.items()}


def _numbered(storage: Storage) -> Storage:
    numbers = np.full(len(storage.raw) // storage.dtype.itemsize, NONE, np.int32)
    return Storage(numbers.view(np.uint8), numbers.dtype, storage.shape)
