"""The arrays a run works on: global memory, the tiles' local buffers, inputs and state, and strided views of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.operands import Affine, View
from cimc.isa.program import Buffer, GlobalBuffer, Piece, Program, TileProgram, Weights

Array = NDArray[np.generic]
State = dict[str, Array]
"""What survives a run, by buffer: ``name`` for global memory, ``tile.name`` for a tile's local memory."""

Local = Mapping[str, "Storage"]
"""A tile's local buffers by name."""

Env = list[int]  # the current values of a tile's repeat variables
ALIGN = 64  # bytes: a line of a processor's cache
SMALL = 1 << 20
"""Constants of up to so many bytes are copied if the weights' file has them at odd addresses: NumPy computes with such
arrays in pieces."""


class Storage(NamedTuple):
    """One buffer's memory: flat bytes (read-only where they are the weights file), element type, declared shape."""

    raw: NDArray[np.uint8]
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    def array(self) -> Array:
        """The whole buffer."""
        return (
            self.raw[: self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))]
            .view(self.dtype)
            .reshape(self.shape)
        )


def describe(array: Array) -> str:
    """``float32 8x384``: how messages show an array."""
    return f"{array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'}"


def _wanted(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> str:
    return f"{dtype} {'x'.join(map(str, shape)) or 'scalar'}"


def _zeros(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Storage:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return Storage(np.zeros(max(size, dtype.itemsize), np.uint8), dtype, shape)


def _of(array: Array) -> Storage:
    flat = np.ascontiguousarray(array).reshape(-1)
    return Storage(flat.view(np.uint8), array.dtype, array.shape)  # a view, with a writeable flag of its own


def from_weights(buffer: Buffer | GlobalBuffer, what: str, weights: Weights, exact: bool) -> Storage:
    """The buffer filled by its key, without a copy where the weights already have its type.

    In ``float`` numerics a q type takes ``KEY.float`` where there is one. Raises WEIGHT_MISSING, WEIGHT_MISMATCH."""
    dtype = buffer.element.dtype(exact=exact)
    key = buffer.key
    if exact and buffer.element.quantized and f"{key}.float" in weights:
        key = f"{key}.float"
    if key not in weights:
        raise errors.WEIGHT_MISSING(key=key, what=what)
    array = weights[key]
    stored = buffer.element.dtype(exact=False)
    if buffer.element.narrow and array.dtype == np.uint8:
        array = array.view(stored)
    if array.size != buffer.size or array.dtype not in (dtype, stored):
        raise errors.WEIGHT_MISMATCH(key=key, got=describe(array), what=what, want=_wanted(stored, buffer.shape))
    array = array.astype(dtype, copy=False).reshape(buffer.shape)
    if not array.flags.aligned and array.nbytes <= SMALL:
        array = array.copy()
    storage = _of(array)
    storage.raw.flags.writeable = False
    return storage


@dataclass
class Constants:
    """The weights as buffers' memory: all buffers with the same key share it, as no instruction may write them."""

    weights: Weights
    exact: bool
    _known: dict[tuple[str, str, tuple[int, ...]], Storage] = field(
        default_factory=dict[tuple[str, str, tuple[int, ...]], Storage]
    )

    def storage(self, buffer: Buffer | GlobalBuffer, what: str) -> Storage:
        """The memory of a buffer that has a key. Raises WEIGHT_MISSING, WEIGHT_MISMATCH."""
        key = (buffer.key, buffer.element.name, buffer.shape)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = from_weights(buffer, what, self.weights, self.exact)
        return found


def _keep(state: State, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Storage:
    """State of earlier runs, or zeros; the array in ``state`` is the one the program writes."""
    if name not in state:
        fresh = _zeros(dtype, shape)
        state[name] = fresh.array()
    kept = state[name]
    if kept.dtype != dtype or kept.shape != shape or not kept.flags.c_contiguous or not kept.flags.writeable:
        raise errors.STATE_MISMATCH(name=name, got=describe(kept), want=_wanted(dtype, shape))
    return _of(kept)


Blank = list[NDArray[np.uint8]]
"""Memory that is all zeros when a run begins."""


def global_memory(
    program: Program, chip: ChipSpec, constants: Constants, state: State, blank: Blank
) -> dict[str, Storage]:
    """Every global buffer's memory, wherever it lies; ``blank`` is added to. Raises MEMORY_EXCEEDED if they are more than the
    chip has."""
    need = sum(g.bytes for g in program.globals if not g.resident and not g.held)
    if need > chip.memory.capacity_bytes:
        raise errors.MEMORY_EXCEEDED(what="global memory", need=need, have=chip.memory.capacity_bytes)
    found: dict[str, Storage] = {}
    for g in program.globals:
        dtype = g.element.dtype(exact=constants.exact)
        if g.held:
            continue
        if g.key:
            found[g.name] = constants.storage(g, f"global buffer '{g.name}'")
        elif g.state:
            found[g.name] = _keep(state, g.name, dtype, g.shape)
        else:
            found[g.name] = _zeros(dtype, g.shape)
            blank.append(found[g.name].raw)
    return found


def local_memory(
    tile: TileProgram, chip: ChipSpec, constants: Constants, state: State, blank: Blank
) -> dict[str, Storage]:
    """Every local buffer of a tile, each with memory of its own; ``blank`` is added to. Raises MEMORY_EXCEEDED if one lies
    outside."""
    have = chip.tile(tile.tile).local_bytes
    found: dict[str, Storage] = {}
    working: list[tuple[Buffer, np.dtype[np.generic], int, int]] = []  # where in the memory of all such; bytes
    total = 0
    for b in tile.buffers:
        need = b.bytes
        if b.address < 0 or b.address + need > have:
            what = f"buffer '{b.name}' of tile {tile.tile}"
            raise errors.MEMORY_EXCEEDED(what=what, need=b.address + need, have=have)
        if b.key:
            found[b.name] = constants.storage(b, f"buffer '{b.name}' of tile {tile.tile}")
            continue
        dtype = b.element.dtype(exact=constants.exact)
        if b.state:
            found[b.name] = _keep(state, f"{tile.tile}.{b.name}", dtype, b.shape)
            continue
        size = max(1, b.size) * dtype.itemsize
        working.append((b, dtype, total, size))
        total += -(-size // ALIGN) * ALIGN
    memory = np.zeros(total, np.uint8)
    blank.append(memory)
    for b, dtype, at, size in working:
        found[b.name] = Storage(memory[at : at + size], dtype, b.shape)
    return found


def check_inputs(program: Program, inputs: Mapping[str, Array], params: Mapping[str, int]) -> None:
    """The program's inputs, all of them, in its types and in the shapes they have for these parameters; an input that tiles
    hold may be left out, and is what they hold then. Raises INPUT_UNKNOWN, _MISSING, _MISMATCH."""
    buffers = {g.name: g for g in program.globals}
    names = [p.name for p in program.inputs]
    known = ", ".join(names) or "none"
    collector = errors.Collector()
    for name in inputs:
        if name not in names:
            collector.add(errors.INPUT_UNKNOWN(name=name, near=errors.did_you_mean(name, names), known=known))
    for port in program.inputs:
        buffer = buffers[port.buffer]
        if port.name not in inputs:
            if not buffer.held:
                collector.add(errors.INPUT_MISSING(name=port.name, known=known))
            continue
        array, shape = np.asarray(inputs[port.name]), port.extents(buffer.shape, params)
        dtype = buffer.element.dtype(exact=False)
        if array.dtype != dtype or array.shape != shape:
            want = _wanted(dtype, shape)
            collector.add(errors.INPUT_MISMATCH(name=port.name, got=describe(array), want=want))
    collector.raise_if_any()


def fill_inputs(
    program: Program, inputs: Mapping[str, Array], memory: Mapping[str, Storage], local: Mapping[int, Local]
) -> None:
    """Copy checked inputs into global memory, and those that are held into the tiles' states."""
    held = {g.name: g for g in program.globals if g.held}
    for port in program.inputs:
        if port.name not in inputs:
            continue  # tiles hold it
        array = np.asarray(inputs[port.name])
        if port.buffer not in held:
            np.copyto(_corner(memory[port.buffer].array(), array.shape), array, casting="unsafe")
            continue
        for piece in held[port.buffer].pieces:
            part = array[(*_rectangle(piece), ...)]
            np.copyto(_corner(_state(piece, local), part.shape), part, casting="unsafe")


def outputs(
    program: Program,
    memory: Mapping[str, Storage],
    local: Mapping[int, Local],
    exact: bool,
    params: Mapping[str, int],
) -> dict[str, Array]:
    """Copies of the outputs by the model's names; those that are held are read from the tiles' states."""
    buffers = {g.name: g for g in program.globals}
    found: dict[str, Array] = {}
    for port in program.outputs:
        buffer = buffers[port.buffer]
        shape = port.extents(buffer.shape, params)
        if not buffer.held:
            found[port.name] = _corner(memory[port.buffer].array(), shape).copy()
            continue
        whole = found[port.name] = np.zeros(shape, buffer.element.dtype(exact=exact))
        for piece in reversed(buffer.pieces):  # of several that hold an element, the first counts
            part = whole[(*_rectangle(piece), ...)]
            part[...] = _corner(_state(piece, local), part.shape)
    return found


def _corner(array: Array, shape: tuple[int, ...]) -> Array:
    """The elements whose every index is below these extents."""
    return array[(*(slice(n) for n in shape), ...)]  # with `...` also an array without axes stays one


def _rectangle(piece: Piece) -> tuple[slice, ...]:
    """Where a piece lies in its array; in a corner of the array, the part of it that lies there."""
    return tuple(slice(c, c + n) for c, n in zip(piece.corner, piece.shape, strict=True))


def _state(piece: Piece, local: Mapping[int, Local]) -> Array:
    """A piece of a held array, as a view of the state's memory."""
    raw, dtype, _ = local[piece.tile][piece.buffer]
    strides = tuple(s * dtype.itemsize for s in piece.strides)
    return np.ndarray(piece.shape, dtype, raw, piece.offset * dtype.itemsize, strides)


def affine(value: Affine, slots: Mapping[str, int], constants: Mapping[str, int]) -> int | Callable[[Env], int]:
    """An affine value as a number, or as a function of the tile's repeat variables where it has any."""
    base = value.constant + sum(c * constants[v] for v, c in value.terms if v in constants)
    terms = [(slots[v], c) for v, c in value.terms if v not in constants]
    if not terms:
        return base
    if len(terms) == 1:
        slot, factor = terms[0]
        return lambda env: base + factor * env[slot]
    return lambda env: base + sum(c * env[s] for s, c in terms)


Steps = dict[tuple[tuple[int, ...], int], tuple[int, ...]]
"""Strides in bytes, by strides in elements and the bytes of one."""


def view(
    storage: Storage, operand: View, slots: Mapping[str, int], constants: Mapping[str, int], known: Steps
) -> Array | Callable[[Env], Array]:
    """A view as an array, or as a function of the repeat variables. NumPy checks it against the buffer's end: raises
    ValueError or TypeError if it lies outside. ``known`` is filled, so that strides are made out once."""
    raw, dtype, _ = storage
    item = dtype.itemsize
    strides = known.get((operand.strides, item))
    if strides is None:
        strides = known[operand.strides, item] = tuple(s * item for s in operand.strides)
    offset = operand.offset.constant * item if not operand.offset.terms else None
    shape = [e for e in operand.shape if isinstance(e, int)]
    if len(shape) < len(operand.shape):
        return _grown(storage, operand, slots, constants)
    if offset is None:
        at = affine(operand.offset, slots, constants)
        if not isinstance(at, int):
            return lambda env: np.ndarray(shape, dtype, raw, at(env) * item, strides)
        offset = at * item
    return np.ndarray(shape, dtype, raw, offset, strides)


def _grown(
    storage: Storage, operand: View, slots: Mapping[str, int], constants: Mapping[str, int]
) -> Array | Callable[[Env], Array]:
    """A view whose extents are affine."""
    raw, dtype, _ = storage
    item = dtype.itemsize
    offset = affine(operand.offset, slots, constants)
    extents = [e if isinstance(e, int) else affine(e, slots, constants) for e in operand.shape]
    strides = tuple(s * item for s in operand.strides)

    def grown(env: Env) -> Array:
        shape = tuple(e if isinstance(e, int) else e(env) for e in extents)
        at = offset if isinstance(offset, int) else offset(env)
        return np.ndarray(shape, dtype, raw, at * item, strides)

    fixed = isinstance(offset, int) and all(isinstance(e, int) for e in extents)
    return grown([]) if fixed else grown
