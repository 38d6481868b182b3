"""Redundant copies of the most significant slices, and how their codes become one.

A fault or a programming error in the top slice of a weight costs most. ``copies`` crossbars hold each of the ``slices``
most significant slices, with cells, faults and converters of their own; at the shift-and-add the copies' codes of one
conversion become one code, by their ``median`` (voting) or their ``mean`` (averaging):

    A[b,s] = sum over planes k of  weight[k] * median over copies c of  code[b,s,c,k]
    A[b,s] = (sum over planes k of  weight[k] * sum over copies c of  code[b,s,c,k]) / copies

Copies are numbered from 1 (0 is the core's own slice) and draw from streams of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer
from cimc.analog.config import AdcConfig, AnalogConfig, Redundancy, refuse
from cimc.analog.crossbar import Cells, program, sum_dtype
from cimc.analog.encoding import stored
from cimc.analog.planewise import PlaneCore
from cimc.analog.rng import Streams

Table = tuple[tuple[Transfer, ...], ...] | None


def programmed(codes: NDArray[Any], config: AnalogConfig, streams: Streams) -> Cells:
    """A core's cells (``program``), with those of its redundant crossbars. Raises ``CimcError`` for a fault map whose
    shape is not that of all crossbars."""
    extra = config.redundancy
    if extra.copies == 1:
        return program(codes, config, streams)
    maps = _stuck_maps(codes.shape, config)
    cells = program(codes, replace(config, redundancy=Redundancy(), stuck=maps[0]), streams)
    top, part = top_codes(codes, config), top_config(config)
    copies = tuple(
        program(top, replace(part, stuck=stuck), replace(streams, copy=number))
        for number, stuck in enumerate(maps[1:], start=1)
    )
    return replace(cells, copies=copies)


def top_config(config: AnalogConfig) -> AnalogConfig:
    """The configuration of one copy: a core that holds nothing but the top slices."""
    encoding, count = config.weights, config.redundancy.slices
    shift = encoding.shifts[-count]
    bits = encoding.slice_bits[-count:]
    weights = replace(encoding, bits=max(encoding.bits - shift, 1), slice_bits=bits, offset=encoding.offset >> shift)
    return replace(config, weights=weights, adc=_top_adc(config.adc, count), redundancy=Redundancy())


def top_codes(codes: NDArray[Any], config: AnalogConfig) -> NDArray[Any]:
    """The weights of which a core of ``top_config`` holds exactly the top slices of ``codes``."""
    encoding = config.weights
    shift = encoding.shifts[-config.redundancy.slices]
    held = stored(codes, encoding) >> shift
    return held - (encoding.offset >> shift) if encoding.kind == "offset" else held * np.sign(codes)


def _top_adc(adc: AdcConfig | None, count: int) -> AdcConfig | None:
    return replace(adc, ranges=adc.ranges[-count:]) if adc is not None and len(adc.ranges) > 1 else adc


def _stuck_maps(shape: tuple[int, ...], config: AnalogConfig) -> list[NDArray[np.int8] | None]:
    """The fault map of the core itself, and of each copy; None for all where none is given."""
    extra, slices = config.redundancy, len(config.weights.slice_bits)
    if config.stuck is None:
        return [None] * extra.copies
    crossbars = len(config.crossbar_slices)
    axis = config.stuck.ndim - 3
    if config.stuck.shape[axis] != crossbars:
        want = (crossbars, shape[1], shape[0])
        why = f"the map's shape is {config.stuck.shape}"
        raise refuse("stuck", why, f"give {want}: the slices and then the copies of the top ones, out, in")
    cuts = [slices + number * extra.slices for number in range(extra.copies - 1)]
    return list(np.split(config.stuck, cuts, axis=axis))


def combined(codes: list[NDArray[np.floating]], combine: str) -> NDArray[np.floating]:
    """One code of those of all copies: their median, or their sum (which ``RedundantCore`` and the reference divide
    after the shift-and-add)."""
    if combine == "median":
        return np.sort(np.stack(codes), axis=0)[len(codes) // 2]
    total = codes[0].astype(np.float64)
    for code in codes[1:]:
        total = total + code.astype(np.float64)
    return total


def alike(cells: Cells) -> bool:
    """Whether every copy holds what the core's own top slices hold, in whole levels."""

    def equal(copy: Cells) -> bool:
        pairs = ((copy.held_plus, cells.held_plus), (copy.held_minus, cells.held_minus))
        return copy.whole and all(
            one is None or (whole is not None and np.array_equal(one, whole[-len(one) :])) for one, whole in pairs
        )

    return cells.whole and all(map(equal, cells.copies))


def mean_net(cells: Cells) -> NDArray[np.float64]:
    """What the columns sum, (slices, in, columns), the copies of a slice averaged."""
    net = cells.net.astype(np.float64)
    if cells.copies:
        count = cells.copies[0].shape[0]
        others = sum(copy.net.astype(np.float64) for copy in cells.copies)
        net[-count:] = (net[-count:] + others) / (1 + len(cells.copies))
    return net


class RedundantCore(PlaneCore):
    """The general path with copies of the top slices."""

    def __init__(
        self, cells: Cells, config: AnalogConfig, table: Table, streams: Streams, dtype: type[np.floating]
    ) -> None:
        super().__init__(cells, config, table, streams, dtype)
        count = config.redundancy.slices
        self._first = len(config.weights.slice_bits) - count
        top = None if table is None else tuple(row[-count:] for row in table)
        part = top_config(config)
        self._copies = [
            PlaneCore(copy, part, top, replace(streams, copy=number), sum_dtype(part, cells.shape[1]))
            for number, copy in enumerate(cells.copies, start=1)
        ]

    def _slice(
        self, driven: NDArray[np.int64], bounds: tuple[int, int], at: tuple[int, int], first_read: int
    ) -> tuple[NDArray[np.float64], int]:
        b, s = at
        if s < self._first:
            return super()._slice(driven, bounds, at, first_read)
        own, clipped = self.codes(driven, bounds, at, first_read)
        codes: list[NDArray[Any]] = [own]
        for copy in self._copies:
            code, more = copy.codes(driven, bounds, (b, s - self._first), first_read)
            codes.append(code)
            clipped += more
        how = self.config.redundancy.combine
        added = self.added(combined(codes, how))
        return (added if how == "median" else added / len(codes)), clipped
