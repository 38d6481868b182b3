"""The table kernel for a single input vector: lanes are outputs, tables are made from the inputs.

For each group of four rows and each input plane, the 16 sums of the four driven bits are a table; a column's slice
gives one pattern of four weight bits per bit of the cell, two groups' patterns to a byte. A shuffle looks 16 to 64
outputs up. Conversion and shift-and-add are those of the kernel for many vectors.
"""

from __future__ import annotations

from cimc.analog.kernels.convert_ir import KernelWriter, LutSpec
from cimc.analog.kernels.ir import Values, Writer, function, splat


def build_decode(spec: LutSpec, slice_bits: tuple[int, ...], signed: bool) -> str:
    """IR of ``decode(starts, patterns, tables, out, clipped; blocks, tiles)``.

    ``starts`` are the first pairs of groups of the row blocks and the end, ``patterns`` bytes laid out (block, tile,
    slice, pair, bit, lane), ``tables`` bytes (group, plane, 16), ``out`` 32-bit sums per output. ``signed``: the
    last bit of every slice is a two's complement sign, and ``slice_bits`` count it.
    """
    return _Decode(spec, slice_bits, signed).build()


class _Decode(KernelWriter):
    def __init__(self, spec: LutSpec, slice_bits: tuple[int, ...], signed: bool) -> None:
        super().__init__(spec)
        self.slice_bits = slice_bits
        self.signed = signed

    def build(self) -> str:
        w, spec = self.w, self.spec
        group_bytes = sum(self.slice_bits) * spec.lanes
        block_bytes = w.do(f"mul i64 %tiles, {group_bytes}")

        def block_body(block: str, clipped: Values) -> Values:
            first = w.do(f"load i64, ptr {w.at('i64', '%starts', block)}")
            past = w.do(f"load i64, ptr {w.at('i64', '%starts', block, '1')}")
            groups = w.do(f"sub i64 {past}, {first}")
            base = w.do(f"mul i64 {first}, {block_bytes}")
            tile_bytes = w.do(f"mul i64 {groups}, {group_bytes}")
            table = w.do(f"mul i64 {first}, {32 * spec.planes}")

            def tile_body(tile: str, count: Values) -> Values:
                start = w.do(f"add i64 {base}, {w.do(f'mul i64 {tile}, {tile_bytes}')}")
                total, more = self._column(start, groups, table, count[0])
                lane = w.do(f"mul i64 {tile}, {spec.lanes}")
                old = w.load(self.longs, "%out", lane, unit="i32")
                w.store(self.longs, w.do(f"add {self.longs} {old}, {total}"), "%out", lane, unit="i32")
                return [more]

            return w.loop("0", "%tiles", "1", [("i64", clipped[0])], tile_body)

        count = w.loop("0", "%blocks", "1", [("i64", "0")], block_body)
        self.add_clipped(count[0])
        arguments = "ptr %starts, ptr %patterns, ptr %tables, ptr %out, ptr %clipped, i64 %blocks, i64 %tiles"
        return function("decode", arguments, w, self.declarations())

    def _column(self, start: str, groups: str, table: str, count: str) -> tuple[str, str]:
        """All slices of one tile of outputs in one row block; neighbours of equal width share the loads of tables."""
        w, spec = self.w, self.spec
        total, s = "zeroinitializer", 0
        while s < len(self.slice_bits):
            bits = self.slice_bits[s]
            together = self._together(s)
            size = w.do(f"mul i64 {groups}, {bits * spec.lanes}")
            starts = [start]
            for _ in range(together):
                starts.append(w.do(f"add i64 {starts[-1]}, {size}"))
            sums = self._sums(starts[:-1], bits, groups, table)
            for p in range(together):
                mine = sums[p * spec.planes : (p + 1) * spec.planes]
                total, count = self.recombine(mine, s + p, total, count)
            start = starts[-1]
            s += together
        return total, count

    def _together(self, s: int) -> int:
        """How many slices from ``s`` on have the same width and fit the registers."""
        bits = self.slice_bits[s]
        room = max(self._registers // (self.spec.planes * bits), 1)
        many = 1
        while many < room and s + many < len(self.slice_bits) and self.slice_bits[s + many] == bits:
            many += 1
        return many

    @property
    def _registers(self) -> int:
        """Byte sums that stay in registers: 512-bit vectors have 32 of them, shorter ones mostly 16."""
        return 24 if self.spec.lanes == 64 else 10

    def _sums(self, starts: list[str], bits: int, groups: str, table: str) -> Values:
        """16-bit sums of every slice of ``starts`` and plane. Each weight bit is summed by itself, in bytes that overflow
        late, and weighted when all rows are in: so all bits share one table of the inputs."""
        w, spec = self.w, self.spec
        at_once = max(self._registers // (spec.planes * len(starts)), 1)
        total: Values = []
        for first in range(0, bits, at_once):
            run = range(first, min(first + at_once, bits))
            found = self.summed(
                groups,
                spec.planes * len(starts) * len(run),
                (31 if spec.two_sided else 63) // 2,
                spec.two_sided,
                lambda g, acc, r=run: self._look(g, acc, starts, bits, r, table),
            )
            for b, bit in enumerate(run):
                part = found[b :: len(run)]
                if bit:
                    part = [w.do(f"shl {self.words} {v}, {splat('i16', spec.lanes, bit)}") for v in part]
                sign = "sub" if self.signed and bit == bits - 1 else "add"
                old = total or ["zeroinitializer"] * len(part)
                total = [w.do(f"{sign} {self.words} {a}, {v}") for a, v in zip(old, part, strict=True)]
        return total

    def _look(self, pair: str, acc: Values, starts: list[str], bits: int, run: range, table: str) -> Values:
        """Eight rows: the two patterns of the weight bits ``run`` in each plane's tables, for every slice of
        ``starts``. Sums are in the order (slice, plane, bit)."""
        w, spec = self.w, self.spec
        place = w.do(f"mul i64 {pair}, {bits * spec.lanes}")
        entry = w.do(f"add i64 {table}, {w.do(f'mul i64 {pair}, {32 * spec.planes}')}")
        result: Values = list(acc)
        packed = [w.load(self.bytes, "%patterns", at, place, str(bit * spec.lanes)) for at in starts for bit in run]
        for group in range(2):
            found = [self._half(value, group) for value in packed]
            for k in range(spec.planes):
                sums = self.broadcast(w.load("<16 x i8>", "%tables", entry, str(16 * (spec.planes * group + k))))
                for p, pattern in enumerate(found):
                    at = (p // len(run) * spec.planes + k) * len(run) + p % len(run)
                    result[at] = w.do(f"add {self.bytes} {result[at]}, {self.look_up(sums, pattern)}")
        return result

    def _half(self, packed: str, group: int) -> str:
        """The pattern of one of the two groups in a byte."""
        w, n = self.w, self.spec.lanes
        if group:
            return w.do(f"lshr {self.bytes} {packed}, {splat('i8', n, 4)}")
        return w.do(f"and {self.bytes} {packed}, {splat('i8', n, 15)}")


def build_tables(planes: int, two_sided: bool) -> str:
    """IR of ``tables(inputs, negatives, tables; groups)``: bytes of four rows to the 16 sums of every plane.

    Four planes are made at once, each in its 16 lanes of 64.
    """
    w, kind = Writer(), "<64 x i8>"
    members = ["<" + ", ".join(f"i8 {(i % 16 >> j) & 1}" for i in range(64)) + ">" for j in range(4)]

    def group_body(group: str, _: Values) -> Values:
        first = w.do(f"mul i64 {group}, 4")
        plus = [_spread(w, "%inputs", first, j) for j in range(4)]
        minus = [_spread(w, "%negatives", first, j) for j in range(4)] if two_sided else []
        place = w.do(f"mul i64 {group}, {16 * planes}")
        for k in range(0, planes, 4):
            tested = "<" + ", ".join(f"i8 {1 << (k + i // 16) & 255}" for i in range(64)) + ">"
            total = "zeroinitializer"
            for sign, rows in (("add", plus), ("sub", minus)):
                for member, row in zip(members, rows, strict=False):
                    driven = w.do(f"icmp ne {kind} {w.do(f'and {kind} {row}, {tested}')}, zeroinitializer")
                    one = w.do(f"select <64 x i1> {driven}, {kind} {member}, {kind} zeroinitializer")
                    total = w.do(f"{sign} {kind} {total}, {one}")
            _keep(w, total, min(planes - k, 4), place, 16 * k)
        return []

    w.loop("0", "%groups", "1", [], group_body)
    return function("tables", "ptr %inputs, ptr %negatives, ptr %tables, i64 %groups", w)


def _keep(w: Writer, value: str, count: int, place: str, offset: int) -> None:
    """Store the tables of ``count`` planes out of four."""
    order = ", ".join(f"i32 {i}" for i in range(16 * count))
    part = w.do(f"shufflevector <64 x i8> {value}, <64 x i8> poison, <{16 * count} x i32> <{order}>")
    w.store(f"<{16 * count} x i8>", part, "%tables", place, str(offset))


def _spread(w: Writer, base: str, first: str, j: int) -> str:
    """One row's input byte in all 64 lanes."""
    value = w.do(f"load i8, ptr {w.at('i8', base, first, str(j))}")
    single = w.do(f"insertelement <64 x i8> poison, i8 {value}, i64 0")
    return w.do(f"shufflevector <64 x i8> {single}, <64 x i8> poison, <64 x i32> zeroinitializer")
