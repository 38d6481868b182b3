"""The table kernel: column sums of whole levels by byte shuffles, converter and shift-and-add in the same pass.

For each group of four rows a column's slice has 16 possible sums, one per pattern of four input bits: a table of 16
bytes. One shuffle looks up 16 to 64 input vectors at once, so a shuffle and an addition do four rows of all of them.
Byte sums are widened to 16 bits before they can overflow; the ADC's division is a multiplication by a reciprocal that
was checked against the true rounding for every possible sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cimc.analog.kernels.ir import Values, Writer, function, splat
from cimc.analog.kernels.jit import Shuffle


@dataclass(frozen=True)
class LutSpec:
    """What a kernel is specialised for. ``lanes`` vectors at a time; ``planes`` input cycles per conversion group.

    ``two_sided``: inputs carry a sign, so a second index holds the negative ones. ``signed_sums``: table entries may be
    negative. ``negative_top``: the last plane is a two's complement sign. ``low``, ``top`` and ``step`` are the ADC's
    (codes ``low .. low+top``, whole ``step`` levels each); ``under`` and ``over`` the sums, counted from ``low*step``,
    outside which a conversion clips; ``reach`` the largest such sum that is not clipped.
    """

    lanes: int
    shuffle: Shuffle
    planes: int
    shifts: tuple[int, ...]
    two_sided: bool
    signed_sums: bool
    negative_top: bool
    chunk: int
    low: int
    top: int
    step: int
    under: int
    over: int
    reach: int

    @property
    def paired(self) -> int:
        """Slices that share the loads of the input patterns."""
        return 2 if self.shuffle.width == 64 and len(self.shifts) % 2 == 0 else 1


def reciprocal(step: int, reach: int) -> int | None:
    """A multiplier ``m`` with ``(t * m) >> 16 == t // step`` for every ``t`` in 0..reach, if 16 bits hold one."""
    multiplier = -(-(1 << 16) // step)
    if multiplier >= 1 << 16:
        return None
    for t in range(reach + 1):
        if (t * multiplier) >> 16 != t // step:
            return None
    return multiplier


def build(spec: LutSpec) -> str:
    """IR of ``lut(patterns, negatives, tables, out, clipped; groups, columns, tiles)``."""
    return _Builder(spec).build()


class KernelWriter:
    """What the table kernels share: sums in bytes widened in time, conversion, shift-and-add."""

    def __init__(self, spec: LutSpec) -> None:
        self.spec = spec
        self.w = Writer()
        self.bytes = f"<{spec.lanes} x i8>"
        self.words = f"<{spec.lanes} x i16>"
        self.longs = f"<{spec.lanes} x i32>"

    def declarations(self) -> str:
        """The intrinsics in use."""
        n, width = self.spec.lanes, self.spec.shuffle.width
        declared = f"declare <{width} x i8> @{self.spec.shuffle.intrinsic}(<{width} x i8>, <{width} x i8>)\n"
        declared += f"declare i{n} @llvm.ctpop.i{n}(i{n})\n"
        for name in ("smax", "umin"):
            declared += f"declare {self.words} @llvm.{name}.v{n}i16({self.words}, {self.words})\n"
        return declared

    def add_clipped(self, count: str) -> None:
        """Add to the counter of clipped conversions."""
        before = self.w.do("load i64, ptr %clipped")
        self.w.emit(f"store i64 {self.w.do(f'add i64 {before}, {count}')}, ptr %clipped")

    def summed(self, groups: str, many: int, chunk: int, group: Callable[[str, Values], Values]) -> Values:
        """``many`` 16-bit sums over all groups: ``group`` adds one group to byte sums, widened every ``chunk`` groups."""
        w, spec = self.w, self.spec
        widen = "sext" if spec.signed_sums else "zext"

        def chunk_body(first: str, wide: Values) -> Values:
            end = w.do(f"add i64 {first}, {chunk}")
            inside = w.do(f"icmp slt i64 {end}, {groups}")
            stop = w.do(f"select i1 {inside}, i64 {end}, i64 {groups}")
            narrow = w.loop(first, stop, "1", [(self.bytes, "zeroinitializer")] * many, group)
            extended = [w.do(f"{widen} {self.bytes} {v} to {self.words}") for v in narrow]
            return [w.do(f"add {self.words} {a}, {b}") for a, b in zip(wide, extended, strict=True)]

        return w.loop("0", groups, str(chunk), [(self.words, "zeroinitializer")] * many, chunk_body)

    def recombine(self, sums: Values, shift: int, total: str, count: str) -> tuple[str, str]:
        """Convert one slice's sums of all planes and add them, shifted, to ``total``; clipped ones to ``count``."""
        w = self.w
        codes: Values = []
        for value in sums:
            code, count = self._convert(value, count)
            codes.append(code)
        added = self._shift_and_add(codes)
        if shift:
            added = w.do(f"shl {self.longs} {added}, {splat('i32', self.spec.lanes, shift)}")
        return w.do(f"add {self.longs} {total}, {added}"), count

    def broadcast(self, table: str) -> str:
        """A table of 16 bytes in every 16 lanes."""
        width = self.spec.shuffle.width
        if width == 16:
            return table
        order = ", ".join(f"i32 {i % 16}" for i in range(width))
        return self.w.do(f"shufflevector <16 x i8> {table}, <16 x i8> poison, <{width} x i32> <{order}>")

    def look_up(self, table: str, index: str) -> str:
        """``table[index]`` in every lane."""
        width = self.spec.shuffle.width
        kind = f"<{width} x i8>"
        return self.w.do(f"call {kind} @{self.spec.shuffle.intrinsic}({kind} {table}, {kind} {index})")

    def _convert(self, value: str, count: str) -> tuple[str, str]:
        """Index of each sum after rounding half to even and clipping; clipped conversions are counted."""
        w, spec, n = self.w, self.spec, self.spec.lanes
        words = self.words
        if spec.low:
            value = w.do(f"sub {words} {value}, {splat('i16', n, spec.low * spec.step)}")
        if spec.under > -(1 << 15) or spec.over < (1 << 15) - 1:
            from_low = w.do(f"sub {words} {value}, {splat('i16', n, spec.under)}")
            outside = w.do(f"icmp ugt {words} {from_low}, {splat('i16', n, spec.over - spec.under)}")
            bits = w.do(f"bitcast <{n} x i1> {outside} to i{n}")
            found = w.do(f"call i{n} @llvm.ctpop.i{n}(i{n} {bits})")
            wide = found if n == 64 else w.do(f"zext i{n} {found} to i64")
            count = w.do(f"add i64 {count}, {wide}")
        if spec.signed_sums or spec.low:
            value = self._call("smax", value, splat("i16", n, 0))
        value = self._call("umin", value, splat("i16", n, spec.reach))
        return self._divide(value), count

    def _call(self, name: str, a: str, b: str) -> str:
        return self.w.do(f"call {self.words} @llvm.{name}.v{self.spec.lanes}i16({self.words} {a}, {self.words} {b})")

    def _divide(self, value: str) -> str:
        w, spec, n = self.w, self.spec, self.spec.lanes
        if spec.step == 1:
            return value
        half = w.do(f"add {self.words} {value}, {splat('i16', n, spec.step // 2)}")
        multiplier = reciprocal(spec.step, spec.reach + spec.step // 2)
        assert multiplier is not None
        longs = w.do(f"zext {self.words} {half} to {self.longs}")
        product = w.do(f"mul {self.longs} {longs}, {splat('i32', n, multiplier)}")
        high = w.do(f"lshr {self.longs} {product}, {splat('i32', n, 16)}")
        quotient = w.do(f"trunc {self.longs} {high} to {self.words}")
        if spec.step % 2:
            return quotient
        # A tie leaves no remainder after half a step was added: an odd quotient then goes back to the even one below.
        back = w.do(f"mul {self.words} {quotient}, {splat('i16', n, spec.step)}")
        tie = w.do(f"icmp eq {self.words} {back}, {half}")
        odd = w.do(f"and {self.words} {quotient}, {splat('i16', n, 1)}")
        fix = w.do(f"select <{n} x i1> {tie}, {self.words} {odd}, {self.words} zeroinitializer")
        return w.do(f"sub {self.words} {quotient}, {fix}")

    def _shift_and_add(self, codes: Values) -> str:
        """Horner over the planes, in 16 bits where they suffice, then widened to 32."""
        w, spec, n = self.w, self.spec, self.spec.lanes
        low = codes[:-1] if spec.negative_top else codes
        narrow = spec.top * ((1 << len(low)) - 1) < 1 << 15 or (
            not spec.negative_top and spec.top * ((1 << len(low)) - 1) < 1 << 16
        )
        kind, unit = (self.words, "i16") if narrow else (self.longs, "i32")
        parts = codes if narrow else [w.do(f"zext {self.words} {c} to {self.longs}") for c in codes]
        ordered = parts[:-1] if spec.negative_top else parts
        total = ordered[-1]
        for part in reversed(ordered[:-1]):
            total = w.do(f"shl {kind} {total}, {splat(unit, n, 1)}")
            total = w.do(f"add {kind} {total}, {part}")
        total = total if not narrow else w.do(f"zext {self.words} {total} to {self.longs}")
        if not spec.negative_top:
            return total
        sign = parts[-1] if not narrow else w.do(f"zext {self.words} {parts[-1]} to {self.longs}")
        worth = w.do(f"shl {self.longs} {sign}, {splat('i32', n, len(low))}")
        return w.do(f"sub {self.longs} {total}, {worth}")


class _Builder(KernelWriter):
    def build(self) -> str:
        w, spec = self.w, self.spec
        groups_size = w.do(f"mul i64 %groups, {spec.planes * spec.lanes}")
        table_size = w.do(f"mul i64 %groups, {16 * len(spec.shifts)}")
        row = w.do(f"mul i64 %tiles, {spec.lanes}")
        slice_size = w.do("mul i64 %groups, 16")

        def tile_body(tile: str, clipped: Values) -> Values:
            base = w.do(f"mul i64 {tile}, {groups_size}")
            lane = w.do(f"mul i64 {tile}, {spec.lanes}")

            def column_body(column: str, count: Values) -> Values:
                table = w.do(f"mul i64 {column}, {table_size}")
                total, more = self._slices(base, table, slice_size, count[0])
                place = w.do(f"mul i64 {column}, {row}")
                old = w.load(self.longs, "%out", place, lane, unit="i32")
                w.store(self.longs, w.do(f"add {self.longs} {old}, {total}"), "%out", place, lane, unit="i32")
                return [more]

            return w.loop("0", "%columns", "1", [("i64", clipped[0])], column_body)

        self.add_clipped(w.loop("0", "%tiles", "1", [("i64", "0")], tile_body)[0])
        arguments = "ptr %patterns, ptr %negatives, ptr %tables, ptr %out, ptr %clipped, "
        return function("lut", arguments + "i64 %groups, i64 %columns, i64 %tiles", w, self.declarations())

    def _slices(self, base: str, table: str, slice_size: str, count: str) -> tuple[str, str]:
        """All slices of one column and tile: the shifted sum of their codes, and the clip count."""
        w, spec = self.w, self.spec
        total = "zeroinitializer"
        for first in range(0, len(spec.shifts), spec.paired):
            offsets = [w.do(f"mul i64 {slice_size}, {first + p}") for p in range(spec.paired)]
            starts = [w.do(f"add i64 {table}, {offset}") for offset in offsets]
            sums = self.summed(
                "%groups", len(starts) * spec.planes, spec.chunk, lambda g, acc, at=starts: self._group(g, base, at, acc)
            )
            for p in range(spec.paired):
                mine = sums[p * spec.planes : (p + 1) * spec.planes]
                total, count = self.recombine(mine, spec.shifts[first + p], total, count)
        return total, count

    def _group(self, group: str, base: str, starts: list[str], acc: Values) -> Values:
        """Four rows: look every plane's pattern up in each slice's table and add."""
        w, spec = self.w, self.spec
        entry = w.do(f"mul i64 {group}, 16")
        tables = [self.broadcast(w.load("<16 x i8>", "%tables", start, entry)) for start in starts]
        place = w.do(f"mul i64 {group}, {spec.planes * spec.lanes}")
        result: Values = list(acc)
        for k in range(spec.planes):
            offset = w.do(f"add i64 {place}, {k * spec.lanes}")
            index = w.load(self.bytes, "%patterns", base, offset)
            minus = w.load(self.bytes, "%negatives", base, offset) if spec.two_sided else ""
            for p, table in enumerate(tables):
                at = p * spec.planes + k
                result[at] = w.do(f"add {self.bytes} {result[at]}, {self.look_up(table, index)}")
                if spec.two_sided:
                    result[at] = w.do(f"sub {self.bytes} {result[at]}, {self.look_up(table, minus)}")
        return result


def build_pack(lanes: int, planes: int) -> str:
    """IR of ``pack(inputs, patterns; groups, tiles)``: bytes (rows, vectors), four rows to a group, to one pattern of
    four bits per plane, laid out (tile, group, plane, lane)."""
    w, kind = Writer(), f"<{lanes} x i8>"
    row = w.do(f"mul i64 %tiles, {lanes}")

    def tile_body(tile: str, _: Values) -> Values:
        lane = w.do(f"mul i64 {tile}, {lanes}")
        base = w.do(f"mul i64 {tile}, %groups")

        def group_body(group: str, _: Values) -> Values:
            first = w.do(f"mul i64 {group}, 4")
            places = [w.do(f"mul i64 {w.do(f'add i64 {first}, {j}')}, {row}") for j in range(4)]
            rows = [w.load(kind, "%inputs", place, lane) for place in places]
            where = w.do(f"mul i64 {w.do(f'add i64 {base}, {group}')}, {planes * lanes}")
            for k in range(planes):
                pattern = ""
                for j, value in enumerate(rows):
                    bit = w.do(f"lshr {kind} {value}, {splat('i8', lanes, k)}")
                    bit = w.do(f"and {kind} {bit}, {splat('i8', lanes, 1)}")
                    bit = w.do(f"shl {kind} {bit}, {splat('i8', lanes, j)}") if j else bit
                    pattern = w.do(f"or {kind} {pattern}, {bit}") if pattern else bit
                w.store(kind, pattern, "%patterns", where, str(k * lanes))
            return []

        w.loop("0", "%groups", "1", [], group_body)
        return []

    w.loop("0", "%tiles", "1", [], tile_body)
    return function("pack", "ptr %inputs, ptr %patterns, i64 %groups, i64 %tiles", w)
