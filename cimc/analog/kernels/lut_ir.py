"""The table kernel: column sums by byte shuffles, converter and shift-and-add in the same pass.

For each group of four rows a column's slice has 16 possible sums, one per pattern of four input bits: a table of 16
bytes. One shuffle looks up 16 to 64 input vectors at once, so a shuffle and an addition do four rows of all of them.
Sums of noisy conductances, in units of the grid, take two bytes: two shuffles whose results are interleaved.
"""

from __future__ import annotations

from cimc.analog.kernels.convert_ir import KernelWriter, LutSpec, Where
from cimc.analog.kernels.ir import Values, Writer, function, splat

LUT_POINTERS = ("patterns", "negatives", "tables", "out", "clipped", "energy", "sigma", "keys", "scale")
LUT_NUMBERS = ("groups", "columns", "tiles", "first", "all")


def build(spec: LutSpec) -> str:
    """IR of ``lut(patterns, negatives, tables, out, clipped, energy, sigma, keys, scale; groups, columns, tiles,
    first, all)``.

    ``scale`` is the unit of the sums of two-byte tables in levels. The rest serve noise per conversion: roots of the
    driven energy (plane, vector), spreads (column, slice), keys of the slices, the number of the first vector and the
    columns that a vector numbers.
    """
    return _Builder(spec).build()


class _Builder(KernelWriter):
    def build(self) -> str:
        w, spec = self.w, self.spec
        entry = 32 if spec.wide else 16
        groups_size = w.do(f"mul i64 %groups, {spec.planes * spec.lanes}")
        table_size = w.do(f"mul i64 %groups, {entry * len(spec.shifts)}")
        row = w.do(f"mul i64 %tiles, {spec.lanes}")
        slice_size = w.do(f"mul i64 %groups, {entry}")
        if spec.analog is not None and spec.analog.scaled:
            unit = w.do("load float, ptr %scale")
            single = w.do(f"insertelement {self.floats} poison, float {unit}, i64 0")
            zero = f"<{spec.lanes} x i32> zeroinitializer"
            self.scale = w.do(f"shufflevector {self.floats} {single}, {self.floats} poison, {zero}")

        def tile_body(tile: str, clipped: Values) -> Values:
            base = w.do(f"mul i64 {tile}, {groups_size}")
            lane = w.do(f"mul i64 {tile}, {spec.lanes}")
            counters = self._counters(lane)

            def column_body(column: str, count: Values) -> Values:
                table = w.do(f"mul i64 {column}, {table_size}")
                sigma = w.do(f"mul i64 {column}, {len(spec.shifts)}")
                where = Where(row, lane, sigma, counters, column) if counters else None
                total, more = self._slices(base, table, slice_size, count[0], where)
                place = w.do(f"mul i64 {column}, {row}")
                old = w.load(self.longs, "%out", place, lane, unit="i32")
                w.store(self.longs, w.do(f"add {self.longs} {old}, {total}"), "%out", place, lane, unit="i32")
                return [more]

            return w.loop("0", "%columns", "1", [("i64", clipped[0])], column_body)

        self.add_clipped(w.loop("0", "%tiles", "1", [("i64", "0")], tile_body)[0])
        pointers = ", ".join(f"ptr %{name}" for name in LUT_POINTERS)
        numbers = ", ".join(f"i64 %{name}" for name in LUT_NUMBERS)
        return function("lut", f"{pointers}, {numbers}", w, self.declarations())

    def _counters(self, lane: str) -> str:
        """Numbers of the conversions of every lane in plane 0 and column 0; nothing without noise."""
        w, spec = self.w, self.spec
        if spec.analog is None or not spec.analog.noise:
            return ""
        per_vector = w.do(f"mul i64 %all, {spec.planes}")
        first = w.do(f"mul i64 {w.do(f'add i64 %first, {lane}')}, {per_vector}")
        start = self._spread_long(w.do(f"trunc i64 {first} to i32"))
        step = self._spread_long(w.do(f"trunc i64 {per_vector} to i32"))
        lanes = "<" + ", ".join(f"i32 {i}" for i in range(spec.lanes)) + ">"
        return w.do(f"add {self.longs} {start}, {w.do(f'mul {self.longs} {step}, {lanes}')}")

    def _slices(self, base: str, table: str, slice_size: str, count: str, where: Where | None) -> tuple[str, str]:
        """All slices of one column and tile: the shifted sum of their codes, and the clip count."""
        w, spec = self.w, self.spec
        total = "zeroinitializer"
        for first in range(0, len(spec.shifts), spec.paired):
            offsets = [w.do(f"mul i64 {slice_size}, {first + p}") for p in range(spec.paired)]
            starts = [w.do(f"add i64 {table}, {offset}") for offset in offsets]
            sums = self._wide_sums(base, starts[0]) if spec.wide else self._byte_sums(base, starts)
            for p in range(spec.paired):
                mine = sums[p * spec.planes : (p + 1) * spec.planes]
                total, count = self.recombine(mine, first + p, total, count, where)
        return total, count

    def _byte_sums(self, base: str, starts: list[str]) -> Values:
        """16-bit sums of every plane, for each of the slices whose tables begin at ``starts``."""
        many, chunk = len(starts) * self.spec.planes, self.spec.chunk
        return self.summed(
            "%groups", many, chunk, self.spec.signed_sums, lambda g, acc: self._group(g, base, starts, acc)
        )

    def _wide_sums(self, base: str, start: str) -> Values:
        """16-bit sums of every plane from two-byte tables."""
        w, spec = self.w, self.spec
        half = f"<{spec.lanes // 2} x i16>"
        first = [(half, "zeroinitializer")] * (2 * spec.planes)
        sums = w.loop("0", "%groups", "1", first, lambda g, acc: self._wide_group(g, base, start, acc))
        # Interleaving works within 16 bytes: put the halves back in the order of the lanes.
        order = [(i // 16) * 8 + i % 8 + (spec.lanes // 2) * (i % 16 // 8) for i in range(spec.lanes)]
        mask = ", ".join(f"i32 {i}" for i in order)
        return [
            w.do(f"shufflevector {half} {sums[2 * k]}, {half} {sums[2 * k + 1]}, <{spec.lanes} x i32> <{mask}>")
            for k in range(spec.planes)
        ]

    def _wide_group(self, group: str, base: str, start: str, acc: Values) -> Values:
        """Four rows: look every plane's pattern up in both bytes' tables, interleave, add."""
        w, spec = self.w, self.spec
        entry = w.do(f"mul i64 {group}, 32")
        tables = [self.broadcast(w.load("<16 x i8>", "%tables", start, entry, str(16 * j))) for j in range(2)]
        place = w.do(f"mul i64 {group}, {spec.planes * spec.lanes}")
        half = f"<{spec.lanes // 2} x i16>"
        result: Values = list(acc)
        for k in range(spec.planes):
            offset = str(k * spec.lanes)
            for name, sign in (("%patterns", "add"), ("%negatives", "sub"))[: 1 + spec.two_sided]:
                index = w.load(self.bytes, name, base, place, offset)
                low, high = (self.look_up(table, index) for table in tables)
                for j in range(2):
                    words = w.do(f"bitcast {self.bytes} {self._interleave(low, high, j)} to {half}")
                    result[2 * k + j] = w.do(f"{sign} {half} {result[2 * k + j]}, {words}")
        return result

    def _interleave(self, low: str, high: str, j: int) -> str:
        """Bytes of both in turn, from the lower (0) or upper (1) eight of every sixteen."""
        n = self.spec.lanes
        pairs = [(16 * (i // 8) + 8 * j + i % 8) for i in range(n // 2)]
        mask = ", ".join(f"i32 {a}, i32 {a + n}" for a in pairs)
        return self.w.do(f"shufflevector {self.bytes} {low}, {self.bytes} {high}, <{n} x i32> <{mask}>")

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
