"""The table kernel: column sums by byte shuffles, converter and shift-and-add in the same pass.

For each group of four rows a column's slice has 16 possible sums, one per pattern of four input bits: a table of 16
bytes. One shuffle looks up 16 to 64 input vectors at once, so a shuffle and an addition do four rows of all of them.
"""

from __future__ import annotations

from cimc.analog.kernels.convert_ir import KernelWriter, LutSpec
from cimc.analog.kernels.ir import Values, Writer, function, splat

LUT_POINTERS = ("patterns", "negatives", "tables", "out", "clipped")
LUT_NUMBERS = ("groups", "columns", "tiles")


def build(spec: LutSpec) -> str:
    """IR of ``lut(patterns, negatives, tables, out, clipped; groups, columns, tiles)``."""
    return _Builder(spec).build()


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
        pointers = ", ".join(f"ptr %{name}" for name in LUT_POINTERS)
        numbers = ", ".join(f"i64 %{name}" for name in LUT_NUMBERS)
        return function("lut", f"{pointers}, {numbers}", w, self.declarations())

    def _slices(self, base: str, table: str, slice_size: str, count: str) -> tuple[str, str]:
        """All slices of one column and tile: the shifted sum of their codes, and the clip count."""
        w, spec = self.w, self.spec
        total = "zeroinitializer"
        for first in range(0, len(spec.shifts), spec.paired):
            offsets = [w.do(f"mul i64 {slice_size}, {first + p}") for p in range(spec.paired)]
            starts = [w.do(f"add i64 {table}, {offset}") for offset in offsets]
            sums = self._byte_sums(base, starts)
            for p in range(spec.paired):
                mine = sums[p * spec.planes : (p + 1) * spec.planes]
                total, count = self.recombine(mine, first + p, total, count)
        return total, count

    def _byte_sums(self, base: str, starts: list[str]) -> Values:
        """16-bit sums of every plane, for each of the slices whose tables begin at ``starts``."""
        many, chunk = len(starts) * self.spec.planes, self.spec.chunk
        return self.summed(
            "%groups", many, chunk, self.spec.signed_sums, lambda g, acc: self._group(g, base, starts, acc)
        )

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
