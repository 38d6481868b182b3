"""Table kernels around a core: which configurations they serve, tables, packed inputs, calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer
from cimc.analog.config import AnalogConfig, InputEncoding
from cimc.analog.crossbar import Cells, sum_dtype
from cimc.analog.encoding import planes
from cimc.analog.kernels.convert_ir import FloatAdc, LutSpec, reciprocal
from cimc.analog.kernels.jit import Shuffle, address, aligned, compile_ir, target
from cimc.analog.kernels.lut_ir import LUT_NUMBERS, LUT_POINTERS, build, build_pack

MAX_TOP = 31  # levels above this leave no room in a byte for four rows


def lut_spec(config: AnalogConfig, transfer: Transfer, cells: Cells) -> LutSpec | None:
    """The kernel for a core, or None where the tables cannot serve the configuration."""
    here = target()
    kind = config.inputs.kind
    if here is None or kind == "split" or config.inputs.dac_bits != 1 or config.inputs.bits > 8:
        return None
    own = 0.0 if config.adc is None else config.adc.noise_lsb
    # The converter's own noise would clip padding lanes too: the general path takes it.
    if own or not transfer.ideal or not float(transfer.low).is_integer() or transfer.top >= 1 << 15:
        return None
    if not cells.whole or max(config.weights.max_levels) > MAX_TOP:
        return None
    signed = cells.held_minus is not None or kind == "sign_magnitude"
    spec = LutSpec(
        lanes=64, shuffle=here.shuffles[0], planes=len(planes(config.inputs)), shifts=config.weights.shifts,
        two_sided=kind == "sign_magnitude", signed_sums=signed, negative_top=kind == "twos_complement",
        chunk=max((127 if signed else 255) // (4 * max(config.weights.max_levels)), 1),
        low=int(transfer.low), top=transfer.top, step=1, under=0, over=0, reach=0,
    )  # fmt: skip
    blocks = config.blocks(cells.shape[1])
    exact = _integer_adc(spec, config, transfer, max(b - a for a, b in blocks))
    if exact is not None:
        return exact
    if sum_dtype(config, cells.shape[1]) is not np.float32:
        return None
    return replace(spec, analog=FloatAdc(transfer.step, spec.low))


def _integer_adc(spec: LutSpec, config: AnalogConfig, transfer: Transfer, rows: int) -> LutSpec | None:
    """``spec`` with the converter in 16-bit integers, if its step and range allow."""
    if not transfer.whole or transfer.step < 1 or transfer.low > 0:
        return None
    low, step, top = int(transfer.low), int(transfer.step), max(config.weights.max_levels)
    highest = rows * top - low * step
    lowest = (-rows * top if spec.signed_sums else 0) - low * step
    if highest >= 1 << 15 or lowest < -(1 << 15):
        return None
    reach = min(transfer.top * step, highest)
    if step > 1 and reciprocal(step, reach + step // 2) is None:
        return None
    under, over = _clip_limits(lowest, highest, step, transfer.top)
    return replace(spec, step=step, under=under, over=over, reach=reach)


def _clip_limits(lowest: int, highest: int, step: int, top: int) -> tuple[int, int]:
    """The smallest and the largest sum, counted from the lowest code, that are not clipped."""
    sums = np.arange(lowest, highest + 1)
    index = np.rint(sums / step)
    kept = sums[(index >= 0) & (index <= top)]
    under = -(1 << 15) if kept[0] == lowest else int(kept[0])
    over = (1 << 15) - 1 if kept[-1] == highest else int(kept[-1])
    return under, over


@cache
def _kernel(spec: LutSpec) -> Callable[..., None]:
    return compile_ir(build(spec), "lut", len(LUT_POINTERS), len(LUT_NUMBERS))


@cache
def _packer(lanes: int, count: int) -> Callable[..., None]:
    return compile_ir(build_pack(lanes, count), "pack", 2, 2)


def clips_zero(spec: LutSpec) -> bool:
    """Whether a conversion of nothing clips: the lowest code lies above 0, or the highest below."""
    return spec.low > 0 or spec.low + spec.top < 0


class LutCore:
    """The tables of one core and the calls on them. ``lossy`` says which columns of which row block need conversions,
    (blocks, columns); ``step`` is that of the converters."""

    def __init__(
        self,
        cells: Cells,
        config: AnalogConfig,
        spec: LutSpec,
        lossy: NDArray[np.bool_],
        step: float,
    ) -> None:
        self.spec = spec
        self.config = config
        self.step = step
        self._cells = cells
        self.columns = cells.shape[2]
        self.blocks = config.blocks(cells.shape[1])
        self._groups = [-(-(b - a) // 4) for a, b in self.blocks]
        self._chosen = [np.flatnonzero(row) for row in lossy]
        self._made: list[NDArray[np.generic]] = []
        # Codes count from ``low``: what the constant adds, per column, over its lossy blocks.
        ones = sum(p.weight for p in planes(config.inputs)) * sum(1 << shift for shift in spec.shifts)
        self._constant = (spec.low * ones * lossy.sum(axis=0)).astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables made so far."""
        return sum(table.nbytes for table in self._made)

    @property
    def _tables(self) -> list[NDArray[np.generic]]:
        """Tables of every row block, made when first used: a core that only sees few vectors needs none."""
        if self._made:
            return self._made
        net = self._cells.held_net
        dtype = np.int8 if self.config.weights.kind == "differential" else np.uint8
        self._made = [
            self._table(net[:, a:b] if len(chosen) == self.columns else net[:, a:b][:, :, chosen], groups, dtype)
            for (a, b), groups, chosen in zip(self.blocks, self._groups, self._chosen, strict=True)
        ]
        return self._made

    def _table(self, net: NDArray[Any], groups: int, dtype: type[np.generic]) -> NDArray[np.generic]:
        """16 sums per column, slice and group of four rows: (columns, slices, groups, 16)."""
        slices, rows, columns = net.shape
        padded = np.zeros((slices, groups * 4, columns), dtype=dtype)
        padded[:, :rows] = net
        levels = padded.reshape(slices, groups, 4, columns).transpose(3, 0, 1, 2)
        table = aligned((columns, slices, groups, 16), dtype)
        for j in range(4):
            half = 1 << j
            np.add(table[..., :half], levels[..., j : j + 1], out=table[..., half : 2 * half])
        return table

    def __call__(self, inputs: NDArray[Any], first_read: int = 0) -> tuple[NDArray[Any], int]:
        """All lossy row blocks: sums in weight units (vectors, columns), and the clipped conversions."""
        vectors = len(inputs)
        spec = self._sized(vectors)
        tiles = -(-vectors // spec.lanes)
        out = aligned((self.columns, tiles * spec.lanes), np.int32)
        clipped = np.zeros(1, dtype=np.int64)
        for b, (first, past) in enumerate(self.blocks):
            if len(self._chosen[b]):
                self._block(inputs[:, first:past], b, spec, out, clipped)
        counted = int(clipped[0]) - self._padding_clips(tiles * spec.lanes - vectors)
        sums = out[:, :vectors].T
        if self.step == 1 and not self._constant.any():
            return sums, counted
        step = np.int64(self.step) if float(self.step).is_integer() else np.float64(self.step)
        return (sums + self._constant) * step, counted

    def _block(
        self,
        inputs: NDArray[Any],
        b: int,
        spec: LutSpec,
        out: NDArray[np.int32],
        clipped: NDArray[np.int64],
    ) -> None:
        """One row block, added to ``out``."""
        groups, table, chosen = self._groups[b], self._tables[b], self._chosen[b]
        tiles = out.shape[1] // spec.lanes
        patterns, negatives = self._pack(inputs, groups, tiles, spec)
        run = _kernel(spec)
        target_rows = out if len(chosen) == self.columns else aligned((len(chosen), out.shape[1]), np.int32)
        run(
            address(patterns), address(negatives), address(table), address(target_rows), address(clipped),
            groups, len(chosen), tiles,
        )  # fmt: skip
        if target_rows is not out:
            out[chosen] += target_rows

    def _padding_clips(self, padding: int) -> int:
        """Padding vectors are zeros: they clip only if a sum of 0 does."""
        spec = self.spec
        converted = sum(len(chosen) for chosen in self._chosen)
        return padding * clips_zero(spec) * converted * len(spec.shifts) * spec.planes

    def _sized(self, vectors: int) -> LutSpec:
        """The spec with as many lanes as the batch can use."""
        here = target()
        assert here is not None
        fitting = [s for s in here.shuffles if s.width >= vectors]
        shuffle: Shuffle = fitting[-1] if fitting else here.shuffles[0]
        return replace(self.spec, lanes=shuffle.width, shuffle=shuffle)

    def _pack(
        self, inputs: NDArray[Any], groups: int, tiles: int, spec: LutSpec
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        encoding: InputEncoding = self.config.inputs
        if not spec.two_sided:
            # Two's complement of fewer bits than a byte: the planes are those bits of the byte.
            packed = self._patterns(inputs, groups, tiles, spec)
            return packed, packed
        assert encoding.kind == "sign_magnitude"
        return (
            self._patterns(np.maximum(inputs, 0), groups, tiles, spec),
            self._patterns(np.maximum(-inputs, 0), groups, tiles, spec),
        )

    def _patterns(self, inputs: NDArray[Any], groups: int, tiles: int, spec: LutSpec) -> NDArray[np.uint8]:
        vectors, rows = inputs.shape
        by_row = aligned((groups * 4, tiles * spec.lanes), np.uint8)
        by_row[:rows, :vectors] = inputs.T
        patterns = aligned((tiles, groups, spec.planes, spec.lanes), np.uint8)
        pack = _packer(spec.lanes, spec.planes)
        pack(address(by_row), address(patterns), groups, tiles)
        return patterns
