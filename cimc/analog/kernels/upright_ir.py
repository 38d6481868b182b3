"""Levels to bits that stand upright: one vector of columns per row and bit."""

from __future__ import annotations

from cimc.analog.kernels.ir import Values, Writer, function

LANES = 32  # columns at once


def build_upright(width: int, unit: int) -> str:
    """IR of ``upright(levels, starts, bits; slices, blocks, rows, columns, filled, count)``.

    ``levels`` are numbers of ``unit`` bits (slice, row, column), readable ``LANES`` numbers beyond their end; ``starts``
    (block, 2): first row, rows. The ``count`` lowest bits of each go to ``bits``, laid out (tile, block, bit from the
    highest, row and one that is left as it is, ``width`` bytes). Lanes are the columns of one slice after the other,
    ``filled`` up to a multiple of ``LANES``.
    """
    return _Upright(width, unit).build()


class _Upright:
    def __init__(self, width: int, unit: int) -> None:
        self.w = Writer()
        self.width = width
        self.unit = unit
        self.kind = f"<{LANES} x i{unit}>"

    def build(self) -> str:
        w = self.w
        extended = w.do(f"mul i64 {w.do('add i64 %rows, %blocks')}, %count")
        self._tile = w.do(f"mul i64 {extended}, {self.width}")
        single = w.do(f"insertelement {self.kind} poison, i{self.unit} {self._unused_bits()}, i64 0")
        self._first = w.do(f"shufflevector {self.kind} {single}, {self.kind} poison, <{LANES} x i32> zeroinitializer")

        def slice_body(s: str, _: Values) -> Values:
            w.loop("0", "%blocks", "1", [], lambda block, _: self._block(s, block))
            return []

        w.loop("0", "%slices", "1", [], slice_body)
        arguments = (
            "ptr %levels, ptr %starts, ptr %bits, i64 %slices, i64 %blocks, i64 %rows, i64 %columns, i64 %filled"
        )
        return function("upright", f"{arguments}, i64 %count", w, "declare i64 @llvm.smin.i64(i64, i64)\n")

    def _unused_bits(self) -> str:
        """By how much a level is shifted for its highest bit to be the number's."""
        unused = self.w.do(f"sub i64 {self.unit}, %count")
        return self.w.do(f"trunc i64 {unused} to i{self.unit}")

    def _block(self, s: str, block: str) -> Values:
        w = self.w
        entry = w.do(f"mul i64 {block}, 2")
        start, many = (w.do(f"load i64, ptr {w.at('i64', '%starts', entry, str(i))}") for i in range(2))
        corner = w.do(f"mul i64 {w.do(f'add i64 {start}, {block}')}, %count")
        size = w.do(f"mul i64 {w.do(f'add i64 {many}, 1')}, {self.width}")
        above = w.do(f"add i64 {w.do(f'mul i64 {s}, %rows')}, {start}")
        lane = w.do(f"mul i64 {s}, %filled")

        def row_body(row: str, _: Values) -> Values:
            at = w.do(f"mul i64 {w.do(f'add i64 {above}, {row}')}, %columns")
            place = w.do(f"mul i64 {w.do(f'add i64 {corner}, {row}')}, {self.width}")
            w.loop("0", "%columns", str(LANES), [], lambda column, _: self._group(at, column, lane, place, size))
            return []

        w.loop("0", many, "1", [], row_body)
        return []

    def _group(self, at: str, column: str, lane: str, place: str, size: str) -> Values:
        """Some columns of one row: a bit of each goes to every ``size`` bytes from ``place`` on."""
        w, lanes = self.w, self.width * 8
        levels = w.load(self.kind, "%levels", at, column, unit=f"i{self.unit}")
        left = w.do(f"call i64 @llvm.smin.i64(i64 {LANES}, i64 {w.do(f'sub i64 %columns, {column}')})")
        used = w.do(f"sub i64 {w.do(f'shl i64 1, {left}')}, 1")
        valid = w.do(f"trunc i64 {used} to i{LANES}")
        number = w.do(f"add i64 {lane}, {column}")
        tile = w.do(f"mul i64 {w.do(f'udiv i64 {number}, {lanes}')}, {self._tile}")
        byte = w.do(f"udiv i64 {w.do(f'urem i64 {number}, {lanes}')}, 8")
        first = w.do(f"add i64 {w.do(f'add i64 {tile}, {place}')}, {byte}")

        def bit_body(b: str, held: Values) -> Values:
            flags = w.do(f"icmp slt {self.kind} {held[0]}, zeroinitializer")
            bits = w.do(f"and i{LANES} {w.do(f'bitcast <{LANES} x i1> {flags} to i{LANES}')}, {valid}")
            w.store(f"i{LANES}", bits, "%bits", first, w.do(f"mul i64 {b}, {size}"))
            return [w.do(f"shl {self.kind} {held[0]}, {self._ones}")]

        shifted = w.do(f"shl {self.kind} {levels}, {self._first}")
        w.loop("0", "%count", "1", [(self.kind, shifted)], bit_body)
        return []

    @property
    def _ones(self) -> str:
        return "<" + ", ".join([f"i{self.unit} 1"] * LANES) + ">"
