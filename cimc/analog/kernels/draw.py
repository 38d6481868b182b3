"""Kernels that programming many cells needs: normal numbers by counter, and unary curves of conductances.

Each computes the bits of its numpy definition (``normal.hashed`` and ``normal.normal_of``, ``curve.Curve``): the
same cells come out with and without a compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cimc.analog.kernels.ir import Values, function, splat
from cimc.analog.kernels.jit import address, compile_ir
from cimc.analog.kernels.lanes import LaneWriter, StreamWriter, kernel_lanes


def build_normals(lanes: int) -> str:
    """IR of ``normals(out; key, second, first, count)``: ``count`` is a multiple of ``lanes``."""
    v = StreamWriter(lanes)
    w = v.w

    def body(index: str, _: Values) -> Values:
        w.store(v.floats, v.numbers(w.do(f"add i64 %first, {index}")), "%out", index, unit="float")
        return []

    w.loop("0", "%count", str(lanes), [], body)
    return function("normals", "ptr %out, i64 %key, i64 %second, i64 %first, i64 %count", w, v.declared)


def build_curve(lanes: int, fraction: int) -> str:
    """IR of ``curve(cells, values, rises, out; lowest, most, count)``: see ``curve.Curve``."""
    v = LaneWriter(lanes)
    w = v.w
    lowest = v.everywhere("i32", w.do("trunc i64 %lowest to i32"))
    most = v.everywhere("i32", w.do("trunc i64 %most to i32"))
    pointers = f"<{lanes} x ptr>"
    yes = splat("i1", lanes, 1)

    def gather(table: str, index: str) -> str:
        places = w.do(f"getelementptr float, ptr {table}, {v.longs} {index}")
        name = f"@llvm.masked.gather.v{lanes}f32.v{lanes}p0"
        return w.do(f"call {v.floats} {name}({pointers} {places}, i32 4, <{lanes} x i1> {yes}, {v.floats} poison)")

    def body(place: str, _: Values) -> Values:
        index, part = v.segment(w.load(v.longs, "%cells", place, unit="i32"), lowest, most, fraction)
        rise = v.real("fmul", gather("%rises", index), part)
        w.store(v.floats, v.real("fadd", gather("%values", index), rise), "%out", place, unit="float")
        return []

    w.loop("0", "%count", str(lanes), [], body)
    declared = (
        f"declare {v.floats} @llvm.masked.gather.v{lanes}f32.v{lanes}p0({pointers}, i32, <{lanes} x i1>, {v.floats})\n"
        f"declare {v.longs} @llvm.smin.v{lanes}i32({v.longs}, {v.longs})\n"
        f"declare {v.longs} @llvm.smax.v{lanes}i32({v.longs}, {v.longs})\n"
    )
    arguments = "ptr %cells, ptr %values, ptr %rises, ptr %out, i64 %lowest, i64 %most, i64 %count"
    return function("curve", arguments, w, declared)


@cache
def _normals(lanes: int) -> Callable[..., None]:
    return compile_ir(build_normals(lanes), "normals", 1, 4)


@cache
def _curve(lanes: int, fraction: int) -> Callable[..., None]:
    return compile_ir(build_curve(lanes, fraction), "curve", 4, 3)


def fast_normals(key: tuple[int, int], first: int, count: int) -> NDArray[np.float32] | None:
    """``rng.normals``, or None without a compiler."""
    lanes = kernel_lanes()
    if not lanes:
        return None
    padded = -(-count // lanes) * lanes
    out = np.empty(padded, dtype=np.float32)
    _normals(lanes)(address(out), key[0], key[1], first, padded)
    return out[:count]


def fast_curve(
    cells: NDArray[np.float32],
    values: NDArray[np.float32],
    rises: NDArray[np.float32],
    lowest: int,
    most: int,
    fraction: int,
) -> NDArray[np.float32] | None:
    """``curve.Curve`` of cells in one piece, or None where the kernel does not serve them."""
    lanes = kernel_lanes()
    if not lanes or cells.size % lanes or not cells.flags.c_contiguous:
        return None
    out = np.empty_like(cells)
    run = _curve(lanes, fraction)
    run(address(cells), address(values), address(rises), address(out), lowest, most, cells.size)
    return out
