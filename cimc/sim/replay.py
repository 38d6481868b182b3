"""Runs of a program after the first one: the batches of its recording, one after the other.

They compute what the instructions do, value for value: the meanings are the same ones, on operands with one more extent
before their own, and what a kernel makes of a row does not depend on the rows beside it (:mod:`cimc.isa.kernels`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Matrix
from cimc.isa.program import Port, Program
from cimc.sim.batches import Batch, Direct, Gathered, Placing
from cimc.sim.memory import Storage
from cimc.sim.packing import Unsuited
from cimc.sim.recording import VARIABLE, Part, Recorder, Runs

Array = NDArray[np.generic]
Bytes = NDArray[np.uint8]
Work = Callable[[], object]
Storages = Mapping[str, Storage]


def enter_inputs(program: Program, recorder: Recorder, real: Storages, numbers: Storages) -> None:
    """Numbers for the program's inputs. Raises Unsuited if tiles hold inputs or outputs from run to run."""
    held = {g.name for g in program.globals if g.held}
    if any(port.buffer in held for port in (*program.inputs, *program.outputs)):
        raise Unsuited("tiles hold inputs or outputs from run to run")
    if any(port.shape is not None for port in (*program.inputs, *program.outputs)):
        raise Unsuited("inputs or outputs are corners of arrays")
    for port in program.inputs:
        first = recorder.source(real[port.buffer], VARIABLE, ("input", port.buffer))
        array = numbers[port.buffer].array()
        array[...] = np.arange(first, first + array.size, dtype=np.int32).reshape(array.shape)


class Replay:
    """A recorded program, to be run any number of times. Raises Unsuited if it takes too much memory."""

    def __init__(self, program: Program, recorder: Recorder, real: Storages, numbers: Storages) -> None:
        self._program, self._real = program, real
        written = [p for p in program.outputs if real[p.buffer].raw.flags.writeable]
        ends = {p.name: recorder.kept(numbers[p.buffer].array().reshape(-1)) for p in written}
        placing = Placing(recorder)
        layout = placing.layout
        self._values = np.zeros(layout.size, np.uint8)
        self._room = np.empty(layout.room, np.uint8)
        self._inputs: dict[str, Array] = {}
        for key, group in recorder.groups.items():
            if group.form is not None:
                continue
            source = group.objects[0]
            assert isinstance(source, np.ndarray)
            array = np.ndarray(source.shape, source.dtype, self._values, placing.offset(group.outs[0]))
            if key[0] == "input":
                self._inputs[str(key[1])] = array
            else:
                np.copyto(array, source)
        self._outputs = {p.name: self._output(p, placing, ends) for p in program.outputs}
        for batch in layout.fixed:
            for work in self._works(batch):
                work()
        self._work = [work for batch in layout.batches for work in self._works(batch)]

    @property
    def nbytes(self) -> int:
        """Bytes of values."""
        return self._values.nbytes + self._room.nbytes

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Copies of the outputs by the model's names."""
        for port in self._program.inputs:
            np.copyto(self._inputs[port.buffer], np.asarray(inputs[port.name]), casting="unsafe")
        with np.errstate(all="ignore"):
            for work in self._work:
                work()
        return {name: made() for name, made in self._outputs.items()}

    def _output(self, port: Port, placing: Placing, ends: Mapping[str, Runs]) -> Callable[[], Array]:
        storage = self._real[port.buffer]
        runs = ends.get(port.name)
        if runs is None:
            return lambda: storage.array().copy()
        size = int(np.prod(storage.shape, dtype=np.int64))
        place = placing.runs(runs, size, storage.dtype.itemsize)
        if isinstance(place, Direct):
            return np.ndarray(storage.shape, storage.dtype, self._values, place.at).copy
        pieces = self._pieces(place.size)

        def gathered() -> Array:
            return np.take(pieces, place.places, axis=0).reshape(-1).view(storage.dtype).reshape(storage.shape)

        return gathered

    def _pieces(self, size: int) -> Array:
        """The values' memory in pieces of ``size`` bytes."""
        return self._values[: len(self._values) // size * size].reshape(-1, size)

    def _works(self, batch: Batch) -> Sequence[Work]:
        form = batch.form
        works: list[Work] = []
        operands: dict[int, Array | Matrix] = {}
        for i, place in zip(form.writing, batch.writes, strict=True):
            operands[i] = self._array(batch, form.parts[i], self._values, place)
        for i, place in zip(form.reading, batch.reads, strict=True):
            part = form.parts[i]
            if part.role == "update":
                target = operands[i]
                assert isinstance(target, np.ndarray)
                works.append(self._filled(batch, part, target, place))
            elif isinstance(place, Direct):
                operands[i] = self._array(batch, part, self._values, place)
            else:
                size = len(place.places) * place.size
                works.append(self._take(place, self._room[place.at : place.at + size]))
                lead = part.packed.size * part.dtype.itemsize
                operands[i] = self._array(batch, part, self._room, Direct(place.at, lead))
        rest = iter(batch.group.objects)
        for i, part in enumerate(form.parts):
            if part.role in ("fixed", "matrix"):
                operands[i] = next(rest)
        views = [operands[i] for i in range(len(form.parts))]
        works.append(partial(form.meaning(), form.scope.machine, *views, **form.keywords))
        return works

    def _filled(self, batch: Batch, part: Part, target: Array, place: Direct | Gathered) -> Work:
        """What was there before it is updated."""
        if isinstance(place, Gathered):
            return self._take(place, target.reshape(-1).view(np.uint8))
        return partial(np.copyto, target, self._array(batch, part, self._values, place))

    def _take(self, place: Gathered, room: Bytes) -> Work:
        pieces, out = self._pieces(place.size), room.reshape(-1, place.size)
        return partial(np.take, pieces, place.places, axis=0, out=out, mode="clip")

    def _array(self, batch: Batch, part: Part, memory: Bytes, place: Direct) -> Array:
        """An operand of all instances."""
        item, packed = part.dtype.itemsize, part.packed
        strides = tuple(s * item for s in packed.strides)
        same = not place.lead and not part.spread
        if not batch.form.stacks or batch.count == 1 or same:
            return np.ndarray(packed.shape, part.dtype, memory, place.at, strides)
        pad = batch.form.rank - len(packed.shape)
        shape = (batch.count, *(1,) * pad, *packed.shape)
        return np.ndarray(shape, part.dtype, memory, place.at, (place.lead, *(0,) * pad, *strides))
