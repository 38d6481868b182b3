"""Kernels around the cells of a crossbar: levels to drawn conductances, conductances to moments of a read, and to grid steps.

Each computes the bits of its numpy definition (``technology.Spread``, ``curve.Curve``, ``crossbar.to_grid``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.kernels.ir import Values, function
from cimc.analog.kernels.jit import address, compile_ir
from cimc.analog.kernels.lanes import LaneWriter, StreamWriter, kernel_lanes

MOST_LEVELS = 16
"""Of a cell whose goal and sigma are found by comparing with every level; for more, ``aging.fast_wide`` looks them up."""


def build_spread(lanes: int, levels: int, relative: bool) -> str:
    """IR of ``spread(cells, table, out; key, second, count)``: see ``fast_spread``."""
    v = StreamWriter(lanes)
    w = v.w
    entries = [
        v.everywhere("float", w.do(f"load float, ptr {w.at('float', '%table', str(i))}")) for i in range(2 * levels + 2)
    ]

    def body(place: str, _: Values) -> Values:
        level = w.load(f"<{lanes} x i8>", "%cells", place)
        goal, sigma = entries[0], entries[levels]
        for i in range(1, levels):
            flags = w.do(f"icmp eq <{lanes} x i8> {level}, {_bytes(lanes, i)}")
            goal = w.do(f"select <{lanes} x i1> {flags}, {v.floats} {entries[i]}, {v.floats} {goal}")
            sigma = w.do(f"select <{lanes} x i1> {flags}, {v.floats} {entries[levels + i]}, {v.floats} {sigma}")
        noisy = v.scattered(goal, v.real("fmul", sigma, v.numbers(place)), relative)
        noisy = v.real("fmul", v.real("fmul", noisy, entries[-2]), entries[-1])
        w.store(v.floats, noisy, "%out", place, unit="float")
        return []

    w.loop("0", "%count", str(lanes), [], body)
    return function("spread", "ptr %cells, ptr %table, ptr %out, i64 %key, i64 %second, i64 %count", w, v.declared)


def _bytes(lanes: int, value: int) -> str:
    return "<" + ", ".join(f"i8 {value}" for _ in range(lanes)) + ">"


def build_moments(lanes: int, fraction: int) -> str:
    """IR of ``moments(cells, table, variance; lowest, most, rows, columns)``: see ``fast_moments``."""
    v = LaneWriter(lanes)
    w = v.w
    lowest = v.everywhere("i32", w.do("trunc i64 %lowest to i32"))
    most = v.everywhere("i32", w.do("trunc i64 %most to i32"))

    def column_body(column: str, _: Values) -> Values:
        def row_body(row: str, acc: Values) -> Values:
            place = w.do(f"add i64 {w.do(f'mul i64 {row}, %columns')}, {column}")
            index, part = v.segment(w.load(v.longs, "%cells", place, unit="i32"), lowest, most, fraction)
            mean, rise, var, slope = _fours(v, index)
            w.store(v.floats, v.real("fadd", mean, v.real("fmul", rise, part)), "%cells", place, unit="float")
            return [v.real("fadd", acc[0], v.real("fadd", var, v.real("fmul", slope, part)))]

        total = w.loop("0", "%rows", "1", [(v.floats, "zeroinitializer")], row_body)
        w.store(v.floats, total[0], "%variance", column, unit="float")
        return []

    w.loop("0", "%columns", str(lanes), [], column_body)
    declared = (
        f"declare {v.longs} @llvm.smin.v{lanes}i32({v.longs}, {v.longs})\n"
        f"declare {v.longs} @llvm.smax.v{lanes}i32({v.longs}, {v.longs})\n"
    )
    arguments = "ptr %cells, ptr %table, ptr %variance, i64 %lowest, i64 %most, i64 %rows, i64 %columns"
    return function("moments", arguments, w, declared)


def _fours(v: LaneWriter, index: str) -> list[str]:
    """The four neighbours of every index, four floats apart each, turned into four vectors."""
    w, n = v.w, v.lanes
    found: list[str] = []
    for i in range(n):
        single = w.do(f"zext i32 {w.do(f'extractelement {v.longs} {index}, i64 {i}')} to i64")
        found.append(w.load("<4 x float>", "%table", w.do(f"mul i64 {single}, 4"), unit="float"))
    size = 4
    while len(found) > 4:
        order = ", ".join(f"i32 {i}" for i in range(2 * size))
        pairs = zip(found[::2], found[1::2], strict=True)
        found = [
            w.do(f"shufflevector <{size} x float> {a}, <{size} x float> {b}, <{2 * size} x i32> <{order}>")
            for a, b in pairs
        ]
        size *= 2
    return [_column(v, found, size, j) for j in range(4)]


def _column(v: LaneWriter, parts: Values, size: int, j: int) -> str:
    """Every fourth number from the ``j``th on of ``parts`` one after the other."""
    w, each = v.w, size // 4
    order = ", ".join(f"i32 {4 * i + j + size * half}" for half in range(2) for i in range(each))
    halves = [
        w.do(f"shufflevector <{size} x float> {a}, <{size} x float> {b}, <{2 * each} x i32> <{order}>")
        for a, b in zip(parts[::2], parts[1::2], strict=True)
    ]
    whole = ", ".join(f"i32 {i}" for i in range(v.lanes))
    kind = f"<{2 * each} x float>"
    return w.do(f"shufflevector {kind} {halves[0]}, {kind} {halves[1]}, <{v.lanes} x i32> <{whole}>")


def build_steps(lanes: int) -> str:
    """IR of ``steps(cells, factors, out; count)``: see ``fast_steps``."""
    v = LaneWriter(lanes)
    w = v.w
    scale, limit = (v.everywhere("float", w.do(f"load float, ptr {w.at('float', '%factors', str(i))}")) for i in (0, 1))

    def body(place: str, _: Values) -> Values:
        scaled = v.real("fmul", w.load(v.floats, "%cells", place, unit="float"), scale)
        whole = w.do(f"call {v.floats} @llvm.rint.v{lanes}f32({v.floats} {scaled})")
        less = w.do(f"fcmp olt {v.floats} {whole}, {limit}")
        cut = w.do(f"select <{lanes} x i1> {less}, {v.floats} {whole}, {v.floats} {limit}")
        long = w.do(f"fptosi {v.floats} {cut} to {v.longs}")
        w.store(f"<{lanes} x i16>", w.do(f"trunc {v.longs} {long} to <{lanes} x i16>"), "%out", place, unit="i16")
        return []

    w.loop("0", "%count", str(lanes), [], body)
    declared = f"declare {v.floats} @llvm.rint.v{lanes}f32({v.floats})\n"
    return function("steps", "ptr %cells, ptr %factors, ptr %out, i64 %count", w, declared)


@cache
def _spread(lanes: int, levels: int, relative: bool) -> Callable[..., None]:
    return compile_ir(build_spread(lanes, levels, relative), "spread", 3, 3)


@cache
def _moments(lanes: int, fraction: int) -> Callable[..., None]:
    return compile_ir(build_moments(lanes, fraction), "moments", 3, 4)


@cache
def _steps(lanes: int) -> Callable[..., None]:
    return compile_ir(build_steps(lanes), "steps", 3, 1)


def fast_spread(
    levels: NDArray[Any],
    table: tuple[NDArray[np.float32], NDArray[np.float32], float, float],
    relative: bool,
    key: tuple[int, int],
    out: NDArray[np.float32],
) -> bool:
    """``out`` becomes ``max(goal + sigma * n, 0) * first * second`` of every cell, with ``relative`` ``max(goal * (1 +
    sigma * n), 0)``: goals and sigmas by level and the two factors from ``table``, ``n`` the stream's normal numbers.
    False, and nothing done, where the kernel does not serve."""
    lanes, (goals, sigmas, first, second) = kernel_lanes(), table
    fits = levels.dtype == np.int8 and levels.flags.c_contiguous and out.flags.c_contiguous
    if not lanes or not fits or levels.size % lanes or len(goals) > MOST_LEVELS:
        return False
    entries = np.concatenate([goals, sigmas, np.array([first, second], dtype=np.float32)]).astype(np.float32)
    _spread(lanes, len(goals), relative)(address(levels), address(entries), address(out), *key, levels.size)
    return True


def fast_moments(
    cells: NDArray[np.float32], table: NDArray[np.float32], lowest: int, fraction: int, variance: NDArray[np.float32]
) -> bool:
    """Cells (rows, columns) become the mean of a read, and ``variance`` what those of its columns add up to. ``table``
    (segments, 4): value and rise of the mean's curve and of the variance's. False where the kernel does not serve."""
    lanes = kernel_lanes()
    held = cells.flags.c_contiguous and variance.flags.c_contiguous and cells.dtype == np.float32
    if lanes < 8 or not held or cells.shape[1] % lanes:
        return False
    most = (len(table) << fraction) - 1
    _moments(lanes, fraction)(address(cells), address(table), address(variance), lowest, most, *cells.shape)
    return True


def fast_steps(levels: NDArray[Any], bits: int, limit: float, out: NDArray[np.int16]) -> bool:
    """``out`` becomes the levels (0 or more) in whole steps of ``2**-bits``, at most ``limit`` of them. False where the
    kernel does not serve."""
    lanes = kernel_lanes()
    held = levels.flags.c_contiguous and out.flags.c_contiguous and levels.dtype == np.float32
    if not lanes or not held or levels.size % lanes:
        return False
    factors = np.array([2.0**bits, limit], dtype=np.float32)
    _steps(lanes)(address(levels), address(factors), address(out), levels.size)
    return True
