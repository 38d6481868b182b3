"""A program: what global memory holds, and one instruction stream per tile with its buffers and matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Step
from cimc.isa.operands import Element, Extent, Sized, extent
from cimc.isa.phases import straight

Weights = Mapping[str, NDArray[np.generic]]
"""``weights.safetensors`` as arrays by key, memory-mapped where possible.

A matrix ``"k"`` has its cell codes under ``k`` (int8, inputs × outputs). Where cimc quantised the codes itself, the
unrounded weights stand under ``k.float`` (float32): ``float`` numerics use these. Constant buffers stand under their
key. A host call ``"h"`` is a serialized single-node ONNX model under ``h`` (uint8)."""


@dataclass(frozen=True, slots=True)
class Param:
    """A runtime integer parameter with the inclusive range it may take."""

    name: str
    low: int
    high: int
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a held array, from element ``corner`` on, as a view of a local array that is a state: element offset,
    extents and strides."""

    tile: int
    corner: tuple[int, ...]
    buffer: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GlobalBuffer(Sized):
    """An array that every tile reaches. ``key`` fills it from the weights; ``state`` keeps it across runs (starts as
    zeros). It lies in global memory, or is resident: ``tile`` ≥ 0 is the tile in whose local memory it lies, from byte
    ``address`` on; or it is held: its elements are those of ``pieces``, and only inputs and outputs name it."""

    name: str
    element: Element
    shape: tuple[int, ...]
    key: str = ""
    state: bool = False
    line: int = field(default=0, compare=False)
    tile: int = -1
    address: int = 0
    pieces: tuple[Piece, ...] = ()

    @property
    def held(self) -> bool:
        """Whether its elements are those of tiles' states."""
        return bool(self.pieces)

    @property
    def resident(self) -> bool:
        """Whether it lies in a tile's local memory."""
        return self.tile >= 0


@dataclass(frozen=True, slots=True)
class Buffer(Sized):
    """An array in a tile's local memory at a byte address. ``key`` fills it from the weights before the run."""

    name: str
    element: Element
    shape: tuple[int, ...]
    address: int
    key: str = ""
    state: bool = False
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows [row, row_end) and columns [col, col_end) of a matrix, held by one core of the tile."""

    core: int
    row: int
    row_end: int
    col: int
    col_end: int


@dataclass(frozen=True, slots=True)
class MatrixDecl:
    """A weight matrix (rows = inputs, cols = outputs) in cores of the tile: the part
    ``[row_offset : +rows, col_offset : +cols]`` of the weights under ``key`` (no key: zeros until ``program`` writes
    the cells). Blocks cover it without overlap; the partial sums of blocks over the same columns are added in the
    tile."""

    name: str
    element: Element
    rows: int
    cols: int
    key: str
    row_offset: int
    col_offset: int
    blocks: tuple[Block, ...]
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class TileProgram:
    """What one tile holds and does."""

    tile: int
    buffers: tuple[Buffer, ...]
    matrices: tuple[MatrixDecl, ...]
    steps: tuple[Step, ...]
    line: int = field(default=0, compare=False)

    @cached_property
    def straight(self) -> tuple[Step, ...]:
        """Its steps as they are executed: without phases (:func:`cimc.isa.phases.straight`)."""
        return straight(self.steps)


@dataclass(frozen=True, slots=True)
class Port:
    """A model input or output, by its name in the model, and the global buffer that holds it: all of it, or where ``shape``
    says so the elements of its corner, those whose every index is below these extents (affine in parameters)."""

    name: str
    buffer: str
    shape: tuple[Extent, ...] | None = None
    line: int = field(default=0, compare=False)

    def extents(self, whole: tuple[int, ...], env: Mapping[str, int]) -> tuple[int, ...]:
        """Its shape, of an array of shape ``whole``, for the parameters in ``env``."""
        return whole if self.shape is None else tuple(extent(e, env) for e in self.shape)


@dataclass(frozen=True)
class Program:
    """A whole program. ``hardware`` names the preset or file it was made for; ``header`` is free text for people.

    ``line`` here and below: where it stands in the text, 0 if built; no part of equality."""

    hardware: str
    globals: tuple[GlobalBuffer, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tiles: tuple[TileProgram, ...]
    params: tuple[Param, ...] = ()
    header: tuple[str, ...] = ()
    source: str = field(default="", compare=False)  # file it was parsed from; instructions carry the line
