"""Kernels for what time does to programmed cells: drift by a power law, and read noise accumulated since.

Each computes the bits of its numpy definition (``aging.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.kernels.ir import Values, function
from cimc.analog.kernels.jit import address, compile_ir
from cimc.analog.kernels.lanes import StreamWriter, kernel_lanes

MOST_LEVELS = 128
"""Of a cell: what an int8 tells apart."""
NUMBERS = "i64 %key, i64 %second, i64 %lowest, i64 %most, i64 %count"


class _CurveWriter(StreamWriter):
    """Lanes that read curves too; ``%lowest`` and ``%most`` are where their table begins and ends."""

    def __init__(self, lanes: int) -> None:
        super().__init__(lanes)
        self.lowest = self.everywhere("i32", self.w.do("trunc i64 %lowest to i32"))
        self.most = self.everywhere("i32", self.w.do("trunc i64 %most to i32"))

    @property
    def declared(self) -> str:
        """Declarations that such a function needs."""
        two = f"{self.longs} @llvm.{{}}.v{self.lanes}i32({self.longs}, {self.longs})"
        return (
            f"{super().declared}declare {self.floats} @llvm.fabs.v{self.lanes}f32({self.floats})\n"
            f"declare {two.format('smin')}\ndeclare {two.format('smax')}\n"
        )

    def size(self, x: str) -> str:
        """Absolute values."""
        return self.w.do(f"call {self.floats} @llvm.fabs.v{self.lanes}f32({self.floats} {x})")

    def curve(self, x: str, fraction: int) -> str:
        """``curve.Curve`` of ``x`` by ``%table``, (segments, 2): value and rise."""
        index, part = self.segment(self.as_longs(x), self.lowest, self.most, fraction)
        value, rise = self.pairs("%table", index)
        return self.real("fadd", value, self.real("fmul", rise, part))

    def pairs(self, table: str, index: str) -> tuple[str, str]:
        """The two neighbours of every index in ``table``, two floats apart each, as two vectors."""
        w, found = self.w, list[str]()
        for i in range(self.lanes):
            single = w.do(f"zext i32 {w.do(f'extractelement {self.longs} {index}, i64 {i}')} to i64")
            found.append(w.load("<2 x float>", table, w.do(f"shl i64 {single}, 1"), unit="float"))
        size = 2
        while len(found) > 1:
            order = ", ".join(f"i32 {i}" for i in range(2 * size))
            kind = f"<{size} x float>"
            halves = zip(found[::2], found[1::2], strict=True)
            found = [w.do(f"shufflevector {kind} {a}, {kind} {b}, <{2 * size} x i32> <{order}>") for a, b in halves]
            size *= 2
        return self._every_second(found[0], 0), self._every_second(found[0], 1)

    def _every_second(self, value: str, first: int) -> str:
        order = ", ".join(f"i32 {2 * i + first}" for i in range(self.lanes))
        kind = f"<{2 * self.lanes} x float>"
        return self.w.do(f"shufflevector {kind} {value}, {kind} poison, <{self.lanes} x i32> <{order}>")


def build_flicker(lanes: int, fraction: int) -> str:
    """IR of ``flicker(cells, programmed, table, unit, out; key, second, lowest, most, count)``: see ``fast_flicker``."""
    v = _CurveWriter(lanes)
    unit = v.everywhere("float", v.w.do("load float, ptr %unit"))

    def body(place: str, _: Values) -> Values:
        cells = v.w.load(v.floats, "%cells", place, unit="float")
        spread = v.curve(v.w.load(v.floats, "%programmed", place, unit="float"), fraction)
        error = v.real("fmul", v.real("fmul", cells, spread), v.numbers(place))
        noisy = v.scattered(cells, error, relative=False)
        v.w.store(v.floats, v.real("fmul", noisy, unit), "%out", place, unit="float")
        return []

    v.w.loop("0", "%count", str(lanes), [], body)
    arguments = f"ptr %cells, ptr %programmed, ptr %table, ptr %unit, ptr %out, {NUMBERS}"
    return function("flicker", arguments, v.w, v.declared)


def build_drift(lanes: int, fraction: int) -> str:
    """IR of ``drift(levels, exponents, table, cells; key, second, lowest, most, count)``: see ``fast_drift``."""
    v = _CurveWriter(lanes)

    def body(place: str, _: Values) -> Values:
        level = v.w.do(f"zext <{lanes} x i8> {v.w.load(f'<{lanes} x i8>', '%levels', place)} to {v.longs}")
        mean, spread = v.pairs("%exponents", level)
        exponent = v.size(v.real("fadd", mean, v.real("fmul", spread, v.numbers(place))))
        cells = v.w.load(v.floats, "%cells", place, unit="float")
        v.w.store(v.floats, v.real("fmul", cells, v.curve(exponent, fraction)), "%cells", place, unit="float")
        return []

    v.w.loop("0", "%count", str(lanes), [], body)
    return function("drift", f"ptr %levels, ptr %exponents, ptr %table, ptr %cells, {NUMBERS}", v.w, v.declared)


def build_wide(lanes: int, relative: bool) -> str:
    """IR of ``wide(cells, levels, factors, out; key, second, lowest, most, count)``: see ``fast_wide``."""
    v = _CurveWriter(lanes)
    first, second = (
        v.everywhere("float", v.w.do(f"load float, ptr {v.w.at('float', '%factors', str(i))}")) for i in (0, 1)
    )

    def body(place: str, _: Values) -> Values:
        level = v.w.do(f"zext <{lanes} x i8> {v.w.load(f'<{lanes} x i8>', '%cells', place)} to {v.longs}")
        goal, sigma = v.pairs("%levels", level)
        noisy = v.scattered(goal, v.real("fmul", sigma, v.numbers(place)), relative)
        v.w.store(v.floats, v.real("fmul", v.real("fmul", noisy, first), second), "%out", place, unit="float")
        return []

    v.w.loop("0", "%count", str(lanes), [], body)
    return function("wide", f"ptr %cells, ptr %levels, ptr %factors, ptr %out, {NUMBERS}", v.w, v.declared)


@cache
def _wide(lanes: int, relative: bool) -> Callable[..., None]:
    return compile_ir(build_wide(lanes, relative), "wide", 4, 5)


@cache
def _flicker(lanes: int, fraction: int) -> Callable[..., None]:
    return compile_ir(build_flicker(lanes, fraction), "flicker", 5, 5)


@cache
def _drift(lanes: int, fraction: int) -> Callable[..., None]:
    return compile_ir(build_drift(lanes, fraction), "drift", 4, 5)


def _held(*arrays: NDArray[Any]) -> bool:
    return all(a.flags.c_contiguous and a.dtype == np.float32 for a in arrays)


def fast_flicker(
    cells: NDArray[Any],
    programmed: NDArray[Any],
    table: tuple[NDArray[np.float32], int, int],
    key: tuple[int, int],
    unit: float,
    out: NDArray[Any],
) -> bool:
    """``out`` (which may be ``cells``) becomes ``max(cells + cells * spread * n, 0) * unit``, the spread by the curve
    ``table`` (pairs, lowest, fraction) of what was ``programmed``, ``n`` the stream's numbers. False, and nothing done,
    where the kernel does not serve."""
    lanes, (pairs, lowest, fraction) = kernel_lanes(), table
    if not lanes or cells.size % lanes or not _held(cells, programmed, out):
        return False
    most = (len(pairs) << fraction) - 1
    factor = np.array([unit], dtype=np.float32)
    places = (address(cells), address(programmed), address(pairs), address(factor), address(out))
    _flicker(lanes, fraction)(*places, *key, lowest, most, cells.size)
    return True


def fast_drift(
    levels: NDArray[Any],
    exponents: NDArray[np.float32],
    table: tuple[NDArray[np.float32], int, int],
    key: tuple[int, int],
    cells: NDArray[Any],
) -> bool:
    """``cells`` are multiplied by the curve ``table`` of ``|mean + spread * n|``: mean and spread by level from
    ``exponents`` (levels, 2). False, and nothing done, where the kernel does not serve."""
    lanes, (pairs, lowest, fraction) = kernel_lanes(), table
    fits = levels.dtype == np.int8 and levels.flags.c_contiguous and len(exponents) <= MOST_LEVELS
    if not lanes or cells.size % lanes or not fits or not _held(cells):
        return False
    most = (len(pairs) << fraction) - 1
    places = (address(levels), address(exponents), address(pairs), address(cells))
    _drift(lanes, fraction)(*places, *key, lowest, most, cells.size)
    return True


def fast_wide(
    levels: NDArray[Any],
    table: tuple[NDArray[np.float32], NDArray[np.float32], float, float],
    relative: bool,
    key: tuple[int, int],
    out: NDArray[np.float32],
) -> bool:
    """As ``program.fast_spread`` for cells of many levels, whose goals and sigmas are looked up."""
    lanes, (goals, sigmas, first, second) = kernel_lanes(), table
    fits = levels.dtype == np.int8 and levels.flags.c_contiguous and _held(out)
    if not lanes or not fits or levels.size % lanes or len(goals) > MOST_LEVELS:
        return False
    entries = np.ascontiguousarray(np.stack([goals, sigmas], axis=1), dtype=np.float32)
    factors = np.array([first, second], dtype=np.float32)
    places = (address(levels), address(entries), address(factors), address(out))
    _wide(lanes, relative)(*places, *key, 0, 0, levels.size)
    return True
