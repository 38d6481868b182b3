"""The dot kernel around a core of noisy cells: drives of the inputs, spreads and keys, one call for all row blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer
from cimc.analog.config import AnalogConfig
from cimc.analog.crossbar import Cells
from cimc.analog.encoding import drive, planes
from cimc.analog.kernels.dot_ir import NUMBERS, POINTERS, DotSpec, build_dot
from cimc.analog.kernels.jit import address, compile_ir, target
from cimc.analog.rng import Streams


@cache
def _kernel(spec: DotSpec) -> Callable[..., None]:
    return compile_ir(build_dot(spec), "dot", len(POINTERS), len(NUMBERS))


def dot_width() -> int | None:
    """Bytes of the vectors that the kernel would use here; None where it cannot run."""
    here = target()
    if here is None or here.shuffles[0].intrinsic.startswith("llvm.aarch64"):
        return None
    return here.shuffles[0].width


class DotCore:
    """One core of cells on a 16-bit grid (``cells.fixed``), whose converters all have ``transfer``. Its buffers serve
    one call at a time."""

    def __init__(self, cells: Cells, config: AnalogConfig, transfer: Transfer, streams: Streams) -> None:
        width = dot_width()
        assert width is not None
        self.config = config
        self.step = transfer.step
        slices, rows, self.columns = cells.shape
        self._planes = planes(config.inputs)
        self._cells = _roomy(cells.held_net)
        power = math.log2(transfer.step).is_integer()
        self._run = _kernel(DotSpec(width, len(self._planes), not power, cells.read_sigma is not None))
        blocks = config.blocks(rows)
        pairs = [-(-(b - a) // 2) for a, b in blocks]
        firsts = np.cumsum([0, *pairs])
        self._pairs = int(firsts[-1])
        self._starts = np.array(
            [(a, p, n) for (a, _), p, n in zip(blocks, firsts, pairs, strict=False)], dtype=np.int64
        )
        # Where each row goes among the pairs: a block of odd length is followed by a row that is not driven.
        self._rows = np.concatenate([np.arange(b - a) + 2 * p for (a, b), p in zip(blocks, firsts, strict=False)])
        self._tiles = -(-self.columns // (width // 2))
        self._lanes = self._tiles * (width // 2)
        self._sigma = self._spreads(cells.read_sigma, np.float32(transfer.step))
        noisy = cells.read_sigma is not None
        number = range(len(blocks) * slices)
        self._keys = np.array([streams.key("conversion", i) if noisy else (0, 0) for i in number], dtype=np.uint32)
        scale = 2.0**-cells.grid_bits / (transfer.step if power else 1.0)
        self._factors = np.array([scale, transfer.step, transfer.low, transfer.top], dtype=np.float32)
        self._weights = np.array([plane.weight for plane in self._planes], dtype=np.int32)
        self._shifts = np.array(config.weights.shifts, dtype=np.int32)
        self._sums = np.zeros(len(self._planes) * width // 2, dtype=np.int32)
        self._sizes = (len(blocks), slices, self._tiles)
        self._dims = (self.columns, rows, self._pairs)
        fixed = (self._sigma, self._keys, self._factors, self._weights, self._shifts)
        self._fixed = tuple(address(array) for array in fixed)
        self._places = (address(self._cells), address(self._starts), address(self._sums))
        self._bits = np.arange(len(self._planes), dtype=np.int16)
        self._by_bits = config.inputs.kind in ("unsigned", "twos_complement") and config.inputs.dac_bits == 1
        self._noisy = noisy
        self._constant = int(transfer.low) * int(self._weights.sum()) * sum(1 << s for s in config.weights.shifts)
        self._constant *= len(blocks)

    @property
    def nbytes(self) -> int:
        """Bytes beside the cells."""
        return self._sigma.nbytes + (0 if self.config.weights.kind == "offset" else self._cells.nbytes)

    def __call__(self, inputs: NDArray[Any], first_read: int = 0) -> tuple[NDArray[Any], int]:
        """All row blocks: sums in weight units (vectors, columns), and the clipped conversions."""
        vectors = len(inputs)
        driven = self._driven(inputs)
        energy = self._energy(driven) if self._noisy else self._sigma
        out = np.zeros((vectors, self._lanes), dtype=np.int32)
        clipped = np.zeros(1, dtype=np.int64)
        cells, starts, scratch = self._places
        self._run(
            cells, starts, address(driven), address(energy), *self._fixed, address(out), address(clipped), scratch,
            *self._sizes, vectors, *self._dims, first_read,
        )  # fmt: skip
        sums = out[:, : self.columns]
        if self.step == 1 and not self._constant:
            return sums, int(clipped[0])
        step = np.int64(self.step) if float(self.step).is_integer() else np.float64(self.step)
        return (sums + np.int64(self._constant)) * step, int(clipped[0])

    def _driven(self, inputs: NDArray[Any]) -> NDArray[np.int16]:
        """What the rows are driven with, (vectors, pairs, planes, 2)."""
        vectors, count = len(inputs), len(self._planes)
        by_plane = np.zeros((vectors, self._pairs * 2, count), dtype=np.int16)
        wide = inputs.astype(np.int16)
        if self._by_bits:
            by_plane[:, self._rows] = (wide[:, :, None] >> self._bits) & np.int16(1)
        else:
            for k, plane in enumerate(self._planes):
                by_plane[:, self._rows, k] = drive(wide.astype(np.int64), plane)
        return np.ascontiguousarray(by_plane.reshape(vectors, self._pairs, 2, count).transpose(0, 1, 3, 2))

    def _energy(self, driven: NDArray[np.int16]) -> NDArray[np.float32]:
        """Root of the driven rows of every vector, block and plane: what read noise grows with."""
        rows = np.abs(driven).sum(axis=3, dtype=np.int32)
        return np.sqrt(np.add.reduceat(rows, self._starts[:, 1], axis=1, dtype=np.float64)).astype(np.float32)

    def _spreads(self, sigma: NDArray[np.float32] | None, step: np.float32) -> NDArray[np.float32]:
        """Spreads in LSB, (blocks, slices, columns), columns padded to whole tiles."""
        if sigma is None:
            return np.zeros((1, 1, self._lanes), dtype=np.float32)
        padded = np.zeros((*sigma.shape[:2], self._lanes), dtype=np.float32)
        padded[:, :, : self.columns] = sigma / step
        return padded


def _roomy(cells: NDArray[np.int16]) -> NDArray[np.int16]:
    """The same cells, contiguous, with a row and a vector of readable memory behind them."""
    room = cells.shape[2] + 64
    base = cells.base
    if isinstance(base, np.ndarray) and cells.flags.c_contiguous and base.nbytes >= cells.nbytes + 2 * room:
        behind = base.ctypes.data + base.nbytes - cells.ctypes.data - cells.nbytes
        if base.flags.c_contiguous and behind >= 2 * room:
            return cells
    held = np.zeros(cells.size + room, dtype=np.int16)
    held[: cells.size] = cells.ravel()
    return held[: cells.size].reshape(cells.shape)
