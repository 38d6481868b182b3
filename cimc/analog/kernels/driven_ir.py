"""Inputs to lists of the rows that every input plane drives."""

from __future__ import annotations

from cimc.analog.kernels.ir import Values, Writer, function, splat

COMPRESS = "llvm.x86.avx512.mask.compress.v16i32"
FULL = 16  # rows at once, where the machine can close the gaps of a vector


def build_driven(planes: int, unit: int, whole: int, compress: bool) -> str:
    """IR of ``driven(inputs, starts, lists, steps; vectors, blocks, rows, room)``.

    ``inputs`` are bytes (vector, row), ``starts`` (block, 2): first row, rows. ``lists`` 16-bit (vector, block, plane,
    ``room``): the numbers within the block of the rows whose bit of the plane is set, times ``unit``, filled up to a
    multiple of ``whole`` with the number behind the last row; ``room`` counts those in. ``steps`` 32-bit (vector, block,
    plane): how many multiples. ``compress``: the machine closes the gaps of a vector (AVX-512).
    """
    w = Writer()
    kind = f"<{whole} x i16>"
    declared = ""
    if compress:
        declared = (
            f"declare <16 x i32> @{COMPRESS}(<16 x i32>, <16 x i32>, <16 x i1>)\ndeclare i16 @llvm.ctpop.i16(i16)\n"
        )

    def vector_body(vector: str, _: Values) -> Values:
        above = w.do(f"mul i64 {vector}, %rows")

        def block_body(block: str, _: Values) -> Values:
            entry = w.do(f"mul i64 {block}, 2")
            first, rows = (w.do(f"load i64, ptr {w.at('i64', '%starts', entry, str(i))}") for i in range(2))
            number = w.do(f"add i64 {w.do(f'mul i64 {vector}, %blocks')}, {block}")
            number = w.do(f"mul i64 {number}, {planes}")
            begin = [w.do(f"mul i64 {w.do(f'add i64 {number}, {k}')}, %room") for k in range(planes)]
            corner = w.do(f"add i64 {above}, {first}")
            past, start = begin, "0"
            if compress:
                start = w.do(f"and i64 {rows}, -{FULL}")
                held = [("i64", at) for at in past]
                past = w.loop("0", start, str(FULL), held, lambda row, at: _rows(w, unit, row, at, corner))
            past = w.loop(
                start, rows, "1", [("i64", at) for at in past], lambda row, at: _row(w, unit, row, at, corner)
            )
            last = w.do(f"trunc i64 {w.do(f'mul i64 {rows}, {unit}')} to i16")
            single = w.do(f"insertelement {kind} poison, i16 {last}, i64 0")
            zeros = w.do(f"shufflevector {kind} {single}, {kind} poison, <{whole} x i32> zeroinitializer")
            for k, (at, end) in enumerate(zip(begin, past, strict=True)):
                w.store(kind, zeros, "%lists", end, unit="i16")
                count = w.do(f"add i64 {w.do(f'sub i64 {end}, {at}')}, {whole - 1}")
                steps = w.do(f"trunc i64 {w.do(f'sdiv i64 {count}, {whole}')} to i32")
                w.emit(f"store i32 {steps}, ptr {w.at('i32', '%steps', number, str(k))}")
            return []

        w.loop("0", "%blocks", "1", [], block_body)
        return []

    w.loop("0", "%vectors", "1", [], vector_body)
    arguments = "ptr %inputs, ptr %starts, ptr %lists, ptr %steps, i64 %vectors, i64 %blocks, i64 %rows, i64 %room"
    return function("driven", arguments, w, declared)


def _row(w: Writer, unit: int, row: str, places: Values, first: str) -> Values:
    """One row of the inputs behind ``first``: where each of its bits is set, its entry is added to that plane's list."""
    value = w.do(f"load i8, ptr {w.at('i8', '%inputs', first, row)}")
    wide = w.do(f"zext i8 {value} to i64")
    entry = w.do(f"trunc i64 {w.do(f'mul i64 {row}, {unit}')} to i16")
    after: Values = []
    for k, place in enumerate(places):
        w.emit(f"store i16 {entry}, ptr {w.at('i16', '%lists', place)}")
        bit = w.do(f"and i64 {w.do(f'lshr i64 {wide}, {k}')}, 1")
        after.append(w.do(f"add i64 {place}, {bit}"))
    return after


def _rows(w: Writer, unit: int, row: str, places: Values, first: str) -> Values:
    """Sixteen rows at once, as :func:`_row`."""
    values = w.load("<16 x i8>", "%inputs", first, row)
    entries = _counted(w, w.do(f"trunc i64 {w.do(f'mul i64 {row}, {unit}')} to i32"), unit)
    after: Values = []
    for k, place in enumerate(places):
        bit = w.do(f"and <16 x i8> {values}, {splat('i8', 16, 1 << k)}")
        mask = w.do(f"icmp ne <16 x i8> {bit}, zeroinitializer")
        close = f"<16 x i32> {entries}, <16 x i32> zeroinitializer, <16 x i1> {mask}"
        dense = w.do(f"call <16 x i32> @{COMPRESS}({close})")
        w.store("<16 x i16>", w.do(f"trunc <16 x i32> {dense} to <16 x i16>"), "%lists", place, unit="i16")
        count = w.do(f"call i16 @llvm.ctpop.i16(i16 {w.do(f'bitcast <16 x i1> {mask} to i16')})")
        after.append(w.do(f"add i64 {place}, {w.do(f'zext i16 {count} to i64')}"))
    return after


def _counted(w: Writer, first: str, unit: int) -> str:
    """``first``, ``first + unit`` ... in 16 lanes."""
    single = w.do(f"insertelement <16 x i32> poison, i32 {first}, i64 0")
    spread = w.do(f"shufflevector <16 x i32> {single}, <16 x i32> poison, <16 x i32> zeroinitializer")
    return w.do(f"add <16 x i32> {spread}, <" + ", ".join(f"i32 {i * unit}" for i in range(16)) + ">")
