"""The upright kernel around a core: which configurations it serves, cells as bits, calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from cimc.analog.kernels.upright_ir import LANES, build_upright
from cimc.analog.physics import HEADROOM

UNIT = 8  # bytes that a list counts in
MAX_WORDS = 20  # bits of a column's sum
FLOAT_BITS = 22  # below 2**22, dividing in float32 rounds as dividing exactly


@cache
def _kernel(spec: SlicedSpec) -> Callable[..., None]:
    return compile_ir(build_sliced(spec), "sliced", len(POINTERS), len(NUMBERS))


@cache
def _upright(width: int, unit: int) -> Callable[..., None]:
    return compile_ir(build_upright(width, unit), "upright", 3, 6)


def sliced_spec(config: AnalogConfig, transfer: Transfer, cells: Cells) -> SlicedSpec | None:
    """The kernel for a core, or None where it does not serve: it needs cells on a coarse grid, a step that is a whole
    number of grid steps, input bits, and conversions without noise."""
    here, kind = target(), config.inputs.kind
    if here is None or kind == "split" or config.inputs.dac_bits != 1 or config.inputs.bits > 8:
        return None
    own = 0.0 if config.adc is None else config.adc.noise_lsb
    if own or not transfer.ideal or not float(transfer.low).is_integer() or transfer.top >= 1 << 15:
        return None
    grid = transfer.step * (1 << cells.grid_bits)
    if not (cells.whole or cells.fixed) or cells.read_sigma is not None or not grid.is_integer() or grid < 1:
        return None
    low, step = int(transfer.low), int(grid)
    start, reach = step // 2 - low * step, _reach(config, cells)
    negative = cells.held_minus is not None or kind == "sign_magnitude"
    spec = replace(
        _spec(config, cells, here.ternary), start=start, lowest=start - reach * negative, highest=start + reach,
        step=step, top=transfer.top,
    )  # fmt: skip
    fits = spec.highest > 0 and spec.words <= MAX_WORDS and abs(low) * step + spec.highest < 1 << FLOAT_BITS
    return spec if fits and _short(config, spec) and _largest(spec, low, config, cells) < 1 << 30 else None


def raw_spec(config: AnalogConfig, cells: Cells) -> SlicedSpec | None:
    """The kernel for the sums of cells on a 16-bit grid, or None where a crossbar has too many rows."""
    here = target()
    assert here is not None
    spec = replace(_spec(config, cells, here.ternary), raw=True)
    return spec if cells.fixed and _short(config, spec) else None


def _spec(config: AnalogConfig, cells: Cells, ternary: bool) -> SlicedSpec:
    """All but the converter."""
    signed = cells.held_minus is not None
    # What levels may be, not what they are: cores of one configuration share a kernel.
    highest = max(config.weights.max_levels)
    if cells.fixed:
        highest = min(int(HEADROOM * highest) << cells.grid_bits, 32767)
    blocks = len(config.blocks(cells.shape[1]))
    return SlicedSpec(
        width=_width(config, cells), ternary=ternary, planes=len(planes(config.inputs)),
        bits=highest.bit_length() + signed, signed=signed, two_sided=config.inputs.kind == "sign_magnitude",
        negative_top=config.inputs.kind == "twos_complement", start=0, lowest=0, highest=1, step=1, top=1,
        blocks=-(-(blocks - 1).bit_length() // 4) * 4,
    )  # fmt: skip


def _reach(config: AnalogConfig, cells: Cells) -> int:
    """No column sum is greater than this."""
    if cells.fixed:
        return (1 << 16) - 1
    return _rows(config) * max(config.weights.max_levels)


def _rows(config: AnalogConfig) -> int:
    """Rows that a crossbar may have."""
    return min(config.active_rows or config.rows, config.rows)


def _short(config: AnalogConfig, spec: SlicedSpec) -> bool:
    """Whether lists of 16-bit numbers reach all rows."""
    return (_rows(config) + 1) * spec.width // UNIT < 1 << 16


def _largest(spec: SlicedSpec, low: int, config: AnalogConfig, cells: Cells) -> int:
    """No result is greater than this."""
    blocks, step = len(config.blocks(cells.shape[1])), spec.step >> cells.grid_bits
    worth = sum(1 << shift for shift in config.weights.shifts) * max(step, 1) * blocks
    most = max(abs(low), abs(low + min(spec.top, spec.highest // spec.step)))
    return most * worth << spec.planes


def _width(config: AnalogConfig, cells: Cells) -> int:
    """Bytes of the vectors: the widest that columns fill, a narrower one where there are few."""
    here = target()
    assert here is not None
    lanes = len(config.weights.slice_bits) * -(-cells.shape[2] // LANES) * LANES
    fitting = [shuffle.width for shuffle in here.shuffles if shuffle.width * 8 >= lanes]
    return fitting[-1] if fitting else here.shuffles[0].width


class SlicedCore:
    """One core whose converters all have ``transfer``, for any number of vectors: the bits of its columns, 8 to a byte.
    Lanes are the columns of one slice after the other, each filled up to a multiple of 32."""

    def __init__(self, cells: Cells, config: AnalogConfig, spec: SlicedSpec, transfer: Transfer) -> None:
        self.spec = spec
        self._cells = cells
        slices, self._rows, self.columns = cells.shape
        self._blocks = config.blocks(self._rows)
        self._driven = DrivenRows(config.inputs, self._blocks, spec.width // UNIT, ROWS)
        self._filled = -(-self.columns // LANES) * LANES
        self._tiles = -(-slices * self._filled // (spec.width * 8))
        whole = float(transfer.step).is_integer()
        self._step = None if whole else np.float64(transfer.step)
        worth = np.array([(int(transfer.step) if whole else 1) << shift for shift in config.weights.shifts], np.int64)
        at = np.arange(0, slices * self._filled, spec.group)
        second = at // self._filled if spec.raw else worth[at // self._filled]
        self._places = np.stack([at % self._filled, second], axis=1)
        used = np.zeros((slices, self._filled), dtype=np.uint8)
        used[:, : self.columns] = 1
        self._valid = aligned((self._tiles, spec.width), np.uint8)
        self._valid.ravel()[: used.size // 8] = np.packbits(used.ravel(), bitorder="little")
        self._bits: NDArray[np.uint8] | None = None
        # Codes count from the lowest; of a negative plane the complement is added.
        ones = int(transfer.low) * sum(plane.weight for plane in planes(config.inputs))
        if spec.negative_top:
            ones -= ((1 << spec.code) - 1) << (spec.planes - 1)
        constant = ones * int(worth.sum()) * len(self._blocks)
        # Results fit 32 bits; what they are made of may go around.
        self._constant = (constant + (1 << 31)) % (1 << 32) - (1 << 31)
        self._sizes = (self._tiles, len(at), slices, len(self._blocks))
        self._dims = (self._rows, self._driven.room, self._filled)
        self._scratch = spec.scratch(1)
        self._tables = (address(self._driven.starts), address(self._valid), address(self._places))

    @property
    def nbytes(self) -> int:
        """Bytes of the bits, if they were made."""
        return 0 if self._bits is None else self._bits.nbytes

    def _made(self) -> NDArray[np.uint8]:
        """Bits of all cells, (tile, block, bit from the highest, row and one of zeros, byte), blocks to rows together."""
        spec, net = self.spec, self._cells.held_net
        slices, rows, columns = net.shape
        levels = np.zeros(net.size + LANES, dtype=net.dtype)
        levels[: net.size] = net.ravel()
        bits = aligned((self._tiles, spec.bits * (rows + len(self._blocks)), spec.width), np.uint8)
        _upright(spec.width, net.dtype.itemsize * 8)(
            address(levels), self._tables[0], address(bits), slices, len(self._blocks), rows, columns, self._filled,
            spec.bits,
        )  # fmt: skip
        return bits

    def _flags(self, bits: NDArray[np.uint8]) -> NDArray[np.int32]:
        """-1 where a tile's block has cells with a bit, else 0: (tile, block, bit)."""
        count = self.spec.bits
        flags = np.zeros((self._tiles, len(self._blocks), count), dtype=np.int32)
        wide = bits.view(np.uint64)
        for i, (first, past) in enumerate(self._blocks):
            part = wide[:, count * (first + i) : count * (past + i + 1)]
            flags[:, i] = np.where(part.reshape(self._tiles, count, -1).any(axis=2), -1, 0)
        return flags

    def __call__(self, inputs: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """All row blocks: sums in weight units (vectors, columns), and the clipped conversions."""
        out = np.empty((len(inputs), self._filled), dtype=np.int32)
        out.fill(self._constant)
        clipped = self._call(inputs, out)
        sums = out[:, : self.columns]
        return (sums if self._step is None else sums * self._step), clipped

    def raw(self, inputs: NDArray[Any]) -> NDArray[np.int16]:
        """Column sums in grid steps: (blocks, slices, vectors, planes, columns)."""
        shape = (len(self._blocks), self._sizes[2], len(inputs), self.spec.planes, self._filled)
        out = np.empty(shape, dtype=np.int16)
        self._call(inputs, out)
        return out

    def _call(self, inputs: NDArray[Any], out: NDArray[Any]) -> int:
        """The kernel into ``out``: the clipped conversions."""
        if self._bits is None:
            self._bits = self._made()
            self._used = self._flags(self._bits)
            self._held = (address(self._bits), address(self._used))
            self._run = _kernel(self.spec)
        vectors = len(inputs)
        if not vectors:
            return 0
        # One piece of memory for all that a call needs, as asking for an address takes time.
        size = self._driven.nbytes(vectors)
        work = np.empty(
            2 * CACHE_LINE + size + (self._scratch if vectors == 1 else self.spec.scratch(vectors)), np.uint8
        )
        count = work[:8].view(np.int64)
        count[0] = 0
        clipped = address(work)
        at = (clipped + 2 * CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
        listed = self._driven.fill(inputs, at)
        self._run(
            *self._held, *listed, *self._tables, address(out), clipped, at + size, *self._sizes, vectors, *self._dims
        )
        return int(count[0])
