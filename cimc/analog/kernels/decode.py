"""The single-vector kernel around a core: patterns of its weight bits, tables of the inputs, one call for all
blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AnalogConfig
from cimc.analog.encoding import planes
from cimc.analog.kernels.convert_ir import LutSpec
from cimc.analog.kernels.decode_ir import build_decode, build_tables
from cimc.analog.kernels.jit import address, aligned, compile_ir, target
from cimc.analog.kernels.lut import clips_zero


@cache
def _decoder(spec: LutSpec, slice_bits: tuple[int, ...], signed: bool) -> Callable[..., None]:
    return compile_ir(build_decode(spec, slice_bits, signed), "decode", 5, 2)


@cache
def _tabler(count: int, two_sided: bool) -> Callable[..., None]:
    return compile_ir(build_tables(count, two_sided), "tables", 3, 1)


def serves(spec: LutSpec) -> bool:
    """Whether this kernel has the converter: the one in integers."""
    return spec.analog is None


class DecodeCore:
    """One core for one vector at a time. ``net`` is what columns sum, whole levels (slices, in, columns): those of a
    differential pair in two's complement of one bit more. Its buffers serve one call at a time."""

    def __init__(self, net: NDArray[Any], config: AnalogConfig, spec: LutSpec) -> None:
        here = target()
        assert here is not None
        self.config = config
        self.spec = replace(spec, lanes=here.shuffles[0].width, shuffle=here.shuffles[0])
        self.columns = net.shape[2]
        signed = config.weights.kind == "differential"
        self._bits = tuple(bits + signed for bits in config.weights.slice_bits)
        blocks = config.blocks(net.shape[1])
        self._starts = np.cumsum([0, *(-(-(b - a) // 8) for a, b in blocks)], dtype=np.int64)
        self._rows = np.concatenate([np.arange(b - a) + 8 * s for (a, b), s in zip(blocks, self._starts, strict=False)])
        self._patterns = np.concatenate([self._block(net[:, a:b]) for a, b in blocks])
        self._run = _decoder(self.spec, self._bits, signed)
        self._make_tables = _tabler(self.spec.planes, spec.two_sided)
        groups = 2 * int(self._starts[-1])
        self._tables = aligned((groups, self.spec.planes, 16), np.int8)
        self._inputs = np.zeros((2, groups * 4), dtype=np.uint8)
        self._clipped = np.zeros(1, dtype=np.int64)
        self._fixed = (address(self._starts), address(self._patterns), address(self._tables))
        self._halves = (address(self._inputs), address(self._inputs[1]))
        self._counter = address(self._clipped)
        ones = sum(p.weight for p in planes(config.inputs)) * sum(1 << shift for shift in spec.shifts)
        self._constant = spec.low * ones * len(blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of the patterns."""
        return self._patterns.nbytes

    def _block(self, net: NDArray[Any]) -> NDArray[np.uint8]:
        """Patterns of one row block, flat in the order (tile, slice, pair of groups, bit, lane)."""
        lanes = self.spec.lanes
        _, rows, columns = net.shape
        pairs, tiles = -(-rows // 8), -(-columns // lanes)
        parts: list[NDArray[np.uint8]] = []
        for s, bits in enumerate(self._bits):
            padded = np.zeros((pairs * 8, tiles * lanes), dtype=np.int8)
            padded[:rows, :columns] = net[s]
            eights = padded.reshape(pairs, 8, tiles, lanes)
            found = np.zeros((tiles, pairs, bits, lanes), dtype=np.uint8)
            for bit in range(bits):
                pattern = sum(((eights[:, j] >> bit) & 1).astype(np.uint8) << j for j in range(8))
                found[:, :, bit] = np.asarray(pattern, dtype=np.uint8).transpose(1, 0, 2)
            parts.append(found.reshape(tiles, -1))
        return np.concatenate(parts, axis=1).ravel()

    def __call__(self, inputs: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Few vectors, one after another: sums in weight units (vectors, columns), and the clipped conversions."""
        lanes = self.spec.lanes
        tiles = -(-self.columns // lanes)
        out = np.zeros((len(inputs), tiles * lanes), dtype=np.int32)
        self._clipped[0] = 0
        blocks, start = len(self._starts) - 1, address(out)
        for v, vector in enumerate(inputs):
            self._fill(vector)
            self._run(*self._fixed, start + v * tiles * lanes * 4, self._counter, blocks, tiles)
        sums = out[:, : self.columns]
        counted = int(self._clipped[0]) - self._padding_clips((tiles * lanes - self.columns) * len(inputs))
        # A converter in integers: its step is the kernel's.
        if self.spec.step == 1 and not self._constant:
            return sums, counted
        return (sums + np.int64(self._constant)) * np.int64(self.spec.step), counted

    def _fill(self, vector: NDArray[Any]) -> None:
        """Tables of one vector."""
        if self.spec.two_sided:
            wide = vector.astype(np.int16)
            self._inputs[0, self._rows] = np.maximum(wide, 0)
            self._inputs[1, self._rows] = np.maximum(-wide, 0)
        else:
            self._inputs[0, self._rows] = vector.astype(np.uint8)
        groups = 2 * int(self._starts[-1])
        self._make_tables(*self._halves, self._fixed[2], groups)

    def _padding_clips(self, padding: int) -> int:
        """Padding outputs sum to zero: they clip only if a sum of 0 does."""
        spec = self.spec
        return padding * clips_zero(spec) * len(spec.shifts) * spec.planes * (len(self._starts) - 1)
