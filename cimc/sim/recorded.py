"""A tile's instructions as they are recorded: what stands for their meanings (:mod:`cimc.sim.recording`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Blocked, Instruction, Machine, Meaning, Repeat
from cimc.isa.matrix import PRODUCTS
from cimc.isa.messages import SENDING
from cimc.isa.operands import Affine, View
from cimc.isa.program import Program
from cimc.isa.steps import each, executed
from cimc.sim.memory import Storage
from cimc.sim.packing import Packed, Unsuited, packed
from cimc.sim.recording import NONE, Form, Numbers, Part, Recorder
from cimc.sim.scope import Row, Scope, meaning_of, row_of

Array = NDArray[np.generic]
Shapes = tuple[tuple[int, ...], ...]  # of operands; () for a matrix
MOST_STEPS = 1 << 19
"""Executed instructions of a program that is recorded: each takes some 20 µs, once, and some hundred bytes meanwhile."""
_MOVES = frozenset({"load", "store", "copy"})
_TOKENS = frozenset({"signal", "wait", "halt", "recv"})  # for these the numbers are as good as values
_SPREAD = frozenset({("mvm", 2), ("gather", 2)})
"""Operands that their meanings count: they have the instances' extent even where they are the same in all of them."""


def suited(program: Program) -> None:
    """Raises Unsuited for programs that execute too much, or how much nobody knows before they do."""
    total = 0
    for tile in program.tiles:
        if any(isinstance(s, Repeat) and not isinstance(s.count, int) for s in each(tile.steps)):
            raise Unsuited(f"tile {tile.tile} has a repeat whose count is an expression")
        total += sum(times for _, times in executed(tile.steps))
    if total > MOST_STEPS:
        raise Unsuited(f"it executes {total:,} instructions, of {MOST_STEPS:,} that are recorded at most")


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
        if name in SENDING:
            return self._sent(step, row)
        if name in _MOVES and self._storage(step, row, 0).dtype == self._storage(step, row, 1).dtype:
            return self._moved(step, row)
        if name == "calibrate":
            return lambda machine, *operands, **keywords: None
        if name == "collect":
            return self._collect(step)
        if not row.stacks:
            raise Unsuited(f"{_place(step, self.real)} does more than to write its operands")
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
        known = self._known(step, row, roles) if steady and step.mnemonic != "matmul" else {}  # a matmul's own
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

    def _known(self, step: Instruction, row: Row, roles: Sequence[str]) -> dict[Shapes, Form]:
        """Forms by the extents of operands: one table for all instructions that differ in nothing else that matters to one."""
        lies: list[tuple[object, ...]] = []
        for i, o in enumerate(step.operands):
            if isinstance(o, View):
                quantized = not row.shared[i] and o.buffer in self.real.quantized
                lies.append((o.strides, self._storage(step, row, i).dtype, quantized))
        key = (step.mnemonic, step.keywords, tuple(roles), self.real.machine.operand_bits, *lies)
        return self.recorder.tables.setdefault(key, {})

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
        shapes: Shapes,
        keywords: Mapping[str, Any],
    ) -> Form:
        parts: list[Part] = []
        for i, (role, operand, shape) in enumerate(zip(roles, step.operands, shapes, strict=True)):
            if isinstance(operand, str):
                parts.append(Part(role, packed((), None), np.dtype(np.void)))
                continue
            if role == "fixed":  # as it is
                known = Packed(shape, operand.strides, 0, ())
                parts.append(Part(role, known, self._storage(step, row, i).dtype))
                continue
            product = step.mnemonic in PRODUCTS or (step.mnemonic, i) == ("mvm", 2)
            strides = None if role in ("write", "update") else operand.strides
            if strides is None and any(s == 0 and e > 1 for s, e in zip(operand.strides, shape, strict=True)):
                raise Unsuited(f"{_place(step, self.real)} writes an element twice")
            dtype = self._storage(step, row, i).dtype
            parts.append(Part(role, packed(shape, strides, product=product), dtype, (step.mnemonic, i) in _SPREAD))
        if step.mnemonic in PRODUCTS and _may_be_same(
            step.operands[1], step.operands[-1 if step.mnemonic == "matmul" else -2]
        ):
            raise Unsuited(  # NumPy multiplies an array by its own transpose in another way
                f"{_place(step, self.real)} may multiply an array by itself"
            )
        checked = meaning_of(step, self.real) is not row.meaning
        key = (step.mnemonic, tuple(sorted(keywords.items())), checked, self.real.machine.operand_bits, tuple(parts))
        rank = max(len(p.packed.shape) for p in parts)
        stacks = not (step.mnemonic == "mvm" and rank != 2) and not (step.mnemonic == "gather" and roles[1] != "fixed")
        reading = tuple(i for i, p in enumerate(parts) if p.role in ("read", "update"))
        writing = tuple(i for i, p in enumerate(parts) if p.role in ("write", "update"))
        return self.recorder.form(
            key, lambda: Form(step, self.real, dict(keywords), tuple(parts), reading, writing, rank, stacks)
        )


def _place(step: Instruction, scope: Scope) -> str:
    """Which instruction it is, for people."""
    line = f" in line {step.line}" if step.line else ""
    return f"{step.mnemonic}{line} of tile {scope.tile}"


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
