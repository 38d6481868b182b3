"""The upright kernel around a core of whole levels: which configurations it serves, cells as bits, calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer
from cimc.analog.config import AnalogConfig
from cimc.analog.crossbar import Cells
from cimc.analog.encoding import planes
from cimc.analog.kernels.driven import CACHE_LINE, DrivenRows
from cimc.analog.kernels.jit import address, aligned, compile_ir, target
from cimc.analog.kernels.sliced_ir import NUMBERS, POINTERS, ROWS, SlicedSpec, build_sliced

GROUP = 16  # columns that are turned together
UNIT = 8  # bytes that a list counts in
MAX_WORDS = 20  # bits of a column's sum


@cache
def _kernel(spec: SlicedSpec) -> Callable[..., None]:
    return compile_ir(build_sliced(spec), "sliced", len(POINTERS), len(NUMBERS))


def sliced_spec(config: AnalogConfig, transfer: Transfer, cells: Cells) -> SlicedSpec | None:
    """The kernel for a core, or None where it does not serve: it needs whole levels, steps and input bits."""
    here, kind = target(), config.inputs.kind
    if here is None or not cells.whole or kind == "split" or config.inputs.dac_bits != 1 or config.inputs.bits > 8:
        return None
    own = 0.0 if config.adc is None else config.adc.noise_lsb
    if own or not transfer.ideal or not transfer.whole or transfer.step < 1 or transfer.top >= 1 << 15:
        return None
    # The rows that a crossbar may have, not those of this core: cores of one configuration share a kernel.
    rows = min(config.active_rows or config.rows, config.rows)
    reach, low, step = rows * max(config.weights.max_levels), int(transfer.low), int(transfer.step)
    signed = cells.held_minus is not None
    start = step // 2 - low * step
    width, blocks = _width(config, cells), len(config.blocks(cells.shape[1]))
    spec = SlicedSpec(
        width=width, ternary=here.ternary, planes=len(planes(config.inputs)),
        bits=max(config.weights.slice_bits) + signed, signed=signed, two_sided=kind == "sign_magnitude",
        negative_top=kind == "twos_complement", start=start,
        lowest=start - (reach if signed or kind == "sign_magnitude" else 0), highest=start + reach, step=step,
        top=transfer.top, blocks=-(-(blocks - 1).bit_length() // 4) * 4,
    )  # fmt: skip
    fits = spec.highest > 0 and spec.words <= MAX_WORDS and (rows + 1) * width // UNIT < 1 << 16
    return spec if fits and _largest(spec, low, config, blocks) < 1 << 31 else None


def _largest(spec: SlicedSpec, low: int, config: AnalogConfig, blocks: int) -> int:
    """No result is greater than this."""
    worth = sum(1 << shift for shift in config.weights.shifts) * spec.step * blocks
    return (abs(low) + (1 << spec.code)) * worth << spec.planes


def _width(config: AnalogConfig, cells: Cells) -> int:
    """Bytes of the vectors: the widest that columns fill, a narrower one where there are few."""
    here = target()
    assert here is not None
    lanes = len(config.weights.slice_bits) * -(-cells.shape[2] // GROUP) * GROUP
    fitting = [shuffle.width for shuffle in here.shuffles if shuffle.width * 8 >= lanes]
    return fitting[-1] if fitting else here.shuffles[0].width


class SlicedCore:
    """One core of whole levels whose converters have the lowest code ``low``, for any number of vectors: the bits of its
    columns, 8 to a byte. Lanes are the columns of one slice after the other, each filled up to a multiple of 16."""

    def __init__(self, cells: Cells, config: AnalogConfig, spec: SlicedSpec, low: int) -> None:
        self.spec = spec
        self._cells = cells
        slices, self._rows, self.columns = cells.shape
        self._blocks = config.blocks(self._rows)
        self._driven = DrivenRows(config.inputs, self._blocks, spec.width // UNIT, ROWS)
        self._filled = -(-self.columns // GROUP) * GROUP
        self._tiles = -(-slices * self._filled // (spec.width * 8))
        worth = [spec.step << shift for shift in config.weights.shifts]
        self._places = self._placed(np.array(worth, dtype=np.int64))
        used = np.zeros((slices, self._filled), dtype=np.uint8)
        used[:, : self.columns] = 1
        self._valid = aligned((self._tiles, spec.width), np.uint8)
        self._valid.ravel()[: used.size // 8] = np.packbits(used.ravel(), bitorder="little")
        self._bits: NDArray[np.uint8] | None = None
        # Codes count from the lowest; of a negative plane the complement is added.
        ones = low * sum(plane.weight for plane in planes(config.inputs))
        if spec.negative_top:
            ones -= ((1 << spec.code) - 1) << (spec.planes - 1)
        self._constant = ones * sum(worth) * len(self._blocks)
        self._sizes = (self._tiles, len(self._blocks))
        self._dims = (self._rows, self._driven.room, self._filled + GROUP)
        self._tables = (address(self._driven.starts), address(self._valid), address(self._places))

    @property
    def nbytes(self) -> int:
        """Bytes of the bits, if they were made."""
        return 0 if self._bits is None else self._bits.nbytes

    def _placed(self, worth: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where every 16 lanes begin, and what their slice is worth; those behind the last slice go behind the last
        column."""
        at = np.arange(0, self._tiles * self.spec.width * 8, GROUP)
        s = at // self._filled
        real = s < len(worth)
        columns = np.where(real, at % self._filled, self._filled)
        return np.stack([columns, worth[np.where(real, s, 0)]], axis=1)

    def _made(self) -> NDArray[np.uint8]:
        """Bits of all cells, (tile, block, bit from the highest, row and one of zeros, byte), blocks to rows together."""
        spec, net = self.spec, self._cells.held_net
        slices, rows, columns = net.shape
        levels = np.zeros((rows, self._tiles * spec.width * 8), dtype=np.int8)
        for s in range(slices):
            levels[:, s * self._filled : s * self._filled + columns] = net[s]
        bits = aligned((self._tiles, spec.bits * (rows + len(self._blocks)), spec.width), np.uint8)
        for b in range(spec.bits):
            packed = np.packbits((levels >> (spec.bits - 1 - b)) & 1, axis=1, bitorder="little")
            by_tile = packed.reshape(rows, self._tiles, spec.width).transpose(1, 0, 2)
            for i, (first, past) in enumerate(self._blocks):
                at = spec.bits * (first + i) + b * (past - first + 1)
                bits[:, at : at + past - first] = by_tile[:, first:past]
        return bits

    def __call__(self, inputs: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
        """All row blocks: sums in weight units (vectors, columns), and the clipped conversions."""
        if self._bits is None:
            self._bits = self._made()
            self._cells_at = address(self._bits)
            self._run = _kernel(self.spec)
        vectors = len(inputs)
        out = np.empty((vectors, self._dims[2]), dtype=np.int32)
        out.fill(self._constant)
        # One piece of memory for all that a call needs, as asking for an address takes a microsecond.
        size = self._driven.nbytes(vectors)
        work = np.empty(2 * CACHE_LINE + size + self.spec.scratch(vectors), dtype=np.uint8)
        count = work[:8].view(np.int64)
        count[0] = 0
        clipped = address(work)
        at = (clipped + 2 * CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
        listed = self._driven.fill(inputs, at)
        self._run(
            self._cells_at, *listed, *self._tables, address(out), clipped, at + size, *self._sizes, vectors, *self._dims
        )
        return out[:, : self.columns], int(count[0])
