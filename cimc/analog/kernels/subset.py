"""The subset kernel around a core of noisy cells: patterns of the inputs, spreads and keys, one call for all row
blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer
from cimc.analog.config import AnalogConfig
from cimc.analog.crossbar import ROOM_ROWS, Cells, sum_dtype
from cimc.analog.encoding import planes
from cimc.analog.kernels.jit import address, aligned, compile_ir, target
from cimc.analog.kernels.patterns import build_patterns
from cimc.analog.kernels.sliced import SlicedCore, raw_spec
from cimc.analog.kernels.subset_ir import NUMBERS, POINTERS, SubsetSpec, build_subset
from cimc.analog.rng import Streams

MEMBERS = 4  # rows to a group
VERY_FEW = 1  # vectors whose sums are made elsewhere


@cache
def _kernel(spec: SubsetSpec) -> Callable[..., None]:
    return compile_ir(build_subset(spec), "subset", len(POINTERS), len(NUMBERS))


@cache
def _patterns(count: int, members: int, size: int) -> Callable[..., None]:
    return compile_ir(build_patterns(count, members, size), "patterns", 4, 4)


def subset_serves(config: AnalogConfig, transfer: Transfer, cells: Cells) -> bool:
    """Whether the kernel has these cells, inputs and converters."""
    kind, adc = config.inputs.kind, config.adc
    if target() is None or kind == "split" or config.inputs.dac_bits != 1 or config.inputs.bits > 8:
        return False
    # The converter's own noise is the general path's.
    if adc is None or adc.noise_lsb or not transfer.ideal:
        return False
    plain = float(transfer.low).is_integer() and transfer.top < 1 << 15
    return plain and _short(config, cells) and sum_dtype(config, cells.shape[1]) is np.float32


def _short(config: AnalogConfig, cells: Cells) -> bool:
    """Whether every column sum is a 16-bit number."""
    longest = max(b - a for a, b in config.blocks(cells.shape[1]))
    return cells.fixed or (cells.whole and longest * max(config.weights.max_levels) < 1 << 15)


@dataclass(frozen=True, eq=False)
class _Groups:
    """The rows of a core's blocks in groups of MEMBERS; a ragged block is followed by rows that are not driven. ``starts``:
    first row, first group and number of groups of every block, (blocks, 3); ``rows``: where each row goes among those of
    the groups; ``count``: groups in all."""

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    count: int

    @staticmethod
    def of(blocks: Sequence[tuple[int, int]]) -> _Groups:
        """Of blocks that follow each other."""
        many = [-(-(b - a) // MEMBERS) for a, b in blocks]
        firsts = np.cumsum([0, *many])
        starts = [(a, first, n) for (a, _), first, n in zip(blocks, firsts, many, strict=False)]
        rows = [np.arange(b - a) + MEMBERS * first for (a, b), first in zip(blocks, firsts, strict=False)]
        return _Groups(np.array(starts, dtype=np.int64), np.concatenate(rows), int(firsts[-1]))

    @property
    def ragged(self) -> bool:
        """Whether there are rows that are not driven."""
        return self.count * MEMBERS != len(self.rows)


class SubsetCore:
    """One core of cells on a 16-bit grid (``cells.fixed``) or of whole levels, whose converters all have ``transfer``;
    or some of its ``slices``, first and past the last. ``codes``: for ``codes()``, not for sums. Sums of
    very few vectors are made by the upright kernel."""

    def __init__(
        self,
        cells: Cells,
        config: AnalogConfig,
        transfer: Transfer,
        streams: Streams,
        slices: tuple[int, int] | None = None,
        codes: bool = False,
    ) -> None:
        here = target()
        assert here is not None
        width = here.shuffles[0].width
        self.config = config
        self.step = transfer.step
        self.low = int(transfer.low)
        count, rows, self.columns = cells.shape
        one, past = slices or (0, count)
        self.slices = past - one
        kinds = planes(config.inputs)
        self._cells = _roomy(cells.held_net[one:past])
        power = math.log2(transfer.step).is_integer()
        two_sided = config.inputs.kind == "sign_magnitude"
        signed = two_sided or cells.held_minus is not None
        upright = raw_spec(config, cells) if slices is None else None
        self._given = None if upright is None else SlicedCore(cells, config, upright, transfer)
        self._noisy = cells.read_sigma is not None
        pairwise = not here.shuffles[0].intrinsic.startswith("llvm.aarch64")
        self.spec = SubsetSpec(width, len(kinds), MEMBERS, two_sided, signed, not power, self._noisy, pairwise, codes)
        blocks = config.blocks(rows)
        self._blocks = len(blocks)
        self._groups = _Groups.of(blocks)
        self._tiles = -(-self.columns // (width // 2))
        self._lanes = self._tiles * (width // 2)
        sigma = None if cells.read_sigma is None else cells.read_sigma[:, one:past]
        self._sigma = self._spreads(sigma, np.float32(transfer.step))
        numbers = [b * count + s for b in range(len(blocks)) for s in range(one, past)]
        keys = [streams.key("conversion", i) if self._noisy else (0, 0) for i in numbers]
        self._keys = np.array(keys, dtype=np.uint32)
        scale = 2.0**-cells.grid_bits / (transfer.step if power else 1.0)
        self._factors = np.array([scale, transfer.step, transfer.low, transfer.top], dtype=np.float32)
        self._weights = np.array([plane.weight for plane in kinds], dtype=np.float32)
        self._shifts = np.array(config.weights.shifts[one:past], dtype=np.int32)
        self._sizes = (len(blocks), self.slices, self._tiles)
        self._dims = (self.columns, rows, self._groups.count)
        fixed = (self._sigma, self._keys, self._factors, self._weights, self._shifts)
        self._fixed = tuple(address(array) for array in fixed)
        self._places = (address(self._cells), address(self._groups.starts))
        self._converter: Callable[..., None] | None = None
        # Codes count from the lowest: what that adds in every block.
        self._constant = self.low * int(self._weights.sum()) * sum(1 << int(s) for s in self._shifts)

    @property
    def nbytes(self) -> int:
        """Bytes beside the cells."""
        given = 0 if self._given is None else self._given.nbytes
        return given + self._sigma.nbytes + (0 if self.config.weights.kind == "offset" else self._cells.nbytes)

    def __call__(self, inputs: NDArray[Any], first_read: int = 0) -> tuple[NDArray[Any], int]:
        """All row blocks: sums in weight units (vectors, columns), and the clipped conversions."""
        out = np.zeros((len(inputs), self._lanes), dtype=np.int32)
        few = self._given is not None and len(inputs) <= VERY_FEW
        clipped = self._run(inputs, out, first_read, 0, self._given if few else None)
        sums, constant = out[:, : self.columns], self._constant * self._blocks
        if self.step == 1 and not constant:
            return sums, clipped
        step = np.int64(self.step) if float(self.step).is_integer() else np.float64(self.step)
        return (sums + np.int64(constant)) * step, clipped

    def by_block(self, inputs: NDArray[Any], first_read: int = 0) -> tuple[NDArray[np.int64], int]:
        """Every row block for itself: (blocks, vectors, columns) in weight units over the step."""
        out = np.zeros((self._blocks, len(inputs), self._lanes), dtype=np.int32)
        clipped = self._run(inputs, out, first_read, len(inputs))
        return out[:, :, : self.columns] + np.int64(self._constant), clipped

    def codes(self, inputs: NDArray[Any], first_read: int = 0) -> tuple[NDArray[np.int16], int]:
        """Every code, counted from the lowest: (blocks, slices, vectors, planes, columns)."""
        out = np.empty((self._blocks, self.slices, len(inputs), self.spec.planes, self._lanes), dtype=np.int16)
        clipped = self._run(inputs, out, first_read, 0)
        return out[..., : self.columns], clipped

    def _run(
        self, inputs: NDArray[Any], out: NDArray[Any], first_read: int, apart: int, given: SlicedCore | None = None
    ) -> int:
        """One call of the kernel into ``out``, sums by ``given`` if there is one: the clipped conversions."""
        if self.spec.two_sided:
            wide = inputs.astype(np.int16)
            offsets, driven = self._driven(np.maximum(wide, 0).astype(np.uint8))
            minus, more = self._driven(np.maximum(-wide, 0).astype(np.uint8))
            driven = driven + more
        else:
            offsets, driven = self._driven(inputs)
            minus = offsets
        energy = _roots()[driven] if self._noisy else self._sigma
        clipped = np.zeros(1, dtype=np.int64)
        scratch = clipped if given is not None else aligned((self.spec.scratch,), np.uint8)
        cells, starts = self._places
        columns, rows, groups = self._dims
        sums = self._cells if given is None else given.raw(inputs)
        if given is not None:
            cells, rows = address(sums), sums.shape[-1]
        run = _kernel(self.spec) if given is None else self._few()
        run(
            cells, starts, address(offsets), address(minus), address(energy), *self._fixed, address(out),
            address(clipped), address(scratch), *self._sizes, len(inputs), columns, rows, groups,
            first_read, apart,
        )  # fmt: skip
        return int(clipped[0])

    def _few(self) -> Callable[..., None]:
        """The kernel of sums that are given, looked up once: single vectors are short."""
        if self._converter is None:
            self._converter = _kernel(replace(self.spec, given=True))
        return self._converter

    def _driven(self, inputs: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Which subset of each group every plane drives, as bytes into its table, (vectors, groups, planes); and how
        many rows are driven in each block, (vectors, blocks, planes). ``inputs`` are bytes, bits of planes."""
        vectors, spec, groups = len(inputs), self.spec, self._groups
        held = np.ascontiguousarray(inputs)
        if groups.ragged:
            held = np.zeros((vectors, groups.count * MEMBERS), dtype=np.uint8)
            held[:, groups.rows] = inputs.astype(np.uint8)
        offsets = np.empty((vectors, groups.count, spec.planes), dtype=np.uint16)
        counts = np.empty((vectors, self._blocks, spec.planes), dtype=np.uint16)
        run = _patterns(spec.planes, MEMBERS, spec.width)
        run(
            address(held), self._places[1], address(offsets), address(counts),
            vectors, self._blocks, groups.count, groups.count * MEMBERS,
        )  # fmt: skip
        return offsets, counts

    def _spreads(self, sigma: NDArray[np.float32] | None, step: np.float32) -> NDArray[np.float32]:
        """Spreads in LSB, (blocks, slices, columns), columns padded to whole tiles."""
        if sigma is None:
            return np.zeros((1, 1, self._lanes), dtype=np.float32)
        padded = np.zeros((*sigma.shape[:2], self._lanes), dtype=np.float32)
        padded[:, :, : self.columns] = sigma / step
        return padded


@cache
def _roots() -> NDArray[np.float32]:
    """Roots of whole numbers of 16 bits: what read noise grows with."""
    return np.sqrt(np.arange(1 << 16, dtype=np.float64)).astype(np.float32)


def _roomy(cells: NDArray[Any]) -> NDArray[np.int16]:
    """The same cells as 16-bit numbers, contiguous, with some rows and a vector of readable memory behind them."""
    room = ROOM_ROWS * cells.shape[2] + 64
    base = cells.base
    if (
        isinstance(base, np.ndarray)
        and cells.dtype == np.int16
        and cells.flags.c_contiguous
        and base.nbytes >= cells.nbytes + 2 * room
    ):
        behind = base.ctypes.data + base.nbytes - cells.ctypes.data - cells.nbytes
        if base.flags.c_contiguous and behind >= 2 * room:
            return cells
    held = np.zeros(cells.size + room, dtype=np.int16)
    held[: cells.size] = cells.ravel()
    return held[: cells.size].reshape(cells.shape)
