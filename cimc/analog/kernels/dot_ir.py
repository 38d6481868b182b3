"""The dot kernel for few vectors and noisy cells: lanes are columns, sums are products of 16-bit numbers.

Cells are read as they are held, whole numbers of grid steps, two rows at a time: a multiply-and-add of pairs does two
rows of 16 columns (of 512-bit vectors) for one vector and one input plane. There are no tables to build or to keep, and
no limit on a column's sum but the 24 bits in which float32 is exact. Conversion is ``adc.index_of`` in float32, with
``rng.conversion_noise`` where asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from cimc.analog.kernels.draw import LaneWriter
from cimc.analog.kernels.ir import Values, function
from cimc.analog.normal import STEP
from cimc.analog.rng import BYTES_MEAN, BYTES_STD

# By the width of the machine's vectors in bytes: pairs of 16-bit numbers multiplied and added; the same of bytes.
PAIRWISE = {64: "llvm.x86.avx512.pmaddw.d.512", 32: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.sse2.pmadd.wd"}
BYTEWISE = {
    64: "llvm.x86.avx512.pmaddubs.w.512",
    32: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.ssse3.pmadd.ub.sw.128",
}
TOGETHER = 8  # planes summed in one pass over the rows: two registers each
POINTERS = (
    "cells", "starts", "driven", "energy", "sigma", "keys", "factors", "weights", "shifts", "out", "clipped", "sums",
)  # fmt: skip
NUMBERS = ("blocks", "slices", "tiles", "vectors", "columns", "rows", "pairs", "first")


@dataclass(frozen=True)
class DotSpec:
    """``width`` of the vectors in bytes; ``planes`` input cycles; ``divide``: the step is no power of two; ``noise``
    per conversion."""

    width: int
    planes: int
    divide: bool
    noise: bool


def build_dot(spec: DotSpec) -> str:
    """IR of ``dot(POINTERS; NUMBERS)``.

    ``cells`` are 16-bit (slice, row, column); ``starts`` (block, 3): first row, first pair of rows, pairs; ``driven``
    16-bit (vector, pair, plane, 2); ``energy`` roots of the driven rows (vector, block, plane); ``sigma`` spreads in
    LSB (block, slice, column); ``keys`` (block, slice, 2); ``factors`` are 2**-bits (over the step, if that is a power
    of two), the step, the lowest code, the highest index; ``weights`` of the planes and ``shifts`` of the slices; sums
    of weighted indices are added to ``out`` (vector, tile and lane). ``sums`` holds the planes of one tile.
    """
    return _Dot(spec).build()


class _Dot(LaneWriter):
    def __init__(self, spec: DotSpec) -> None:
        super().__init__(spec.width // 4)
        self.spec = spec
        self.words = f"<{spec.width // 2} x i16>"
        self.tile = 2 * self.lanes

    def build(self) -> str:
        w = self.w
        self._factors = [
            self.everywhere("float", w.do(f"load float, ptr {w.at('float', '%factors', str(i))}")) for i in range(4)
        ]
        self._row = w.do(f"mul i64 %tiles, {self.tile}")

        def tile_body(tile: str, clipped: Values) -> Values:
            lane = w.do(f"mul i64 {tile}, {self.tile}")
            masks = [self._mask(lane, half) for half in range(2)]

            def block_body(block: str, counted: Values) -> Values:
                return w.loop(
                    "0", "%slices", "1", [("i64", counted[0])],
                    lambda s, count: self._crossbar(lane, masks, block, s, count),
                )  # fmt: skip

            return w.loop("0", "%blocks", "1", [("i64", clipped[0])], block_body)

        count = w.loop("0", "%tiles", "1", [("i64", "0")], tile_body)[0]
        before = w.do("load i64, ptr %clipped")
        w.emit(f"store i64 {w.do(f'add i64 {before}, {count}')}, ptr %clipped")
        arguments = ", ".join([*(f"ptr %{name}" for name in POINTERS), *(f"i64 %{name}" for name in NUMBERS)])
        return function("dot", arguments, w, self._declarations())

    def _declarations(self) -> str:
        width, n = self.spec.width, self.lanes
        half = f"<{width} x i8>"
        return (
            f"declare {self.longs} @{PAIRWISE[width]}({self.words}, {self.words})\n"
            f"declare {self.words} @{BYTEWISE[width]}({half}, {half})\n"
            f"declare {self.floats} @llvm.rint.v{n}f32({self.floats})\n"
            f"declare i{n} @llvm.ctpop.i{n}(i{n})\n"
        )

    def _mask(self, lane: str, half: int) -> str:
        """Which lanes of a half tile are columns."""
        w = self.w
        left = w.do(f"trunc i64 {w.do(f'sub i64 %columns, {lane}')} to i32")
        iota = "<" + ", ".join(f"i32 {i + half * self.lanes}" for i in range(self.lanes)) + ">"
        flags = w.do(f"icmp slt {self.longs} {iota}, {self.everywhere('i32', left)}")
        return w.do(f"bitcast <{self.lanes} x i1> {flags} to i{self.lanes}")

    def _crossbar(self, lane: str, masks: Values, block: str, s: str, count: Values) -> Values:
        """One tile of columns of one crossbar, for every vector."""
        w = self.w
        entry = w.do(f"mul i64 {block}, 3")
        row, pair, pairs = (w.do(f"load i64, ptr {w.at('i64', '%starts', entry, str(i))}") for i in range(3))
        number = w.do(f"add i64 {w.do(f'mul i64 {block}, %slices')}, {s}")
        place = w.do(f"add i64 {w.do(f'mul i64 {s}, %rows')}, {row}")
        start = w.do(f"add i64 {w.do(f'mul i64 {place}, %columns')}, {lane}")
        shift = self.everywhere("i32", w.do(f"load i32, ptr {w.at('i32', '%shifts', s)}"))
        noise = self._noise_of(number, lane) if self.spec.noise else []

        def vector_body(vector: str, counted: Values) -> Values:
            driven = w.do(f"mul i64 {w.do(f'mul i64 {vector}, %pairs')}, {self.spec.planes}")
            driven = w.do(f"add i64 {driven}, {w.do(f'mul i64 {pair}, {self.spec.planes}')}")
            for first in range(0, self.spec.planes, TOGETHER):
                self._sum(start, driven, pairs, first, min(TOGETHER, self.spec.planes - first))
            totals, after = self._convert_all(vector, block, masks, noise, counted[0])
            at = w.do(f"add i64 {w.do(f'mul i64 {vector}, {self._row}')}, {lane}")
            for half, total in enumerate(totals):
                old = w.load(self.longs, "%out", at, str(half * self.lanes), unit="i32")
                added = self.long("add", old, self.long("shl", total, shift))
                w.store(self.longs, added, "%out", at, str(half * self.lanes), unit="i32")
            return [after]

        return w.loop("0", "%vectors", "1", [("i64", count[0])], vector_body)

    def _sum(self, start: str, driven: str, pairs: str, first: int, many: int) -> None:
        """Sums of ``many`` planes over the pairs of rows, put into ``sums`` in the order of the columns."""
        w, words, longs = self.w, self.words, self.longs
        two = w.do("mul i64 %columns, 2")
        n = self.spec.width // 2
        # Interleaved within 16 bytes, as the machine does it; undone when the sums are kept.
        orders = [[(8 * (i // 8)) + 4 * j + i % 8 // 2 + n * (i % 2) for i in range(n)] for j in range(2)]

        def pair_body(pair: str, acc: Values) -> Values:
            at = w.do(f"add i64 {start}, {w.do(f'mul i64 {pair}, {two}')}")
            rows = [
                w.load(words, "%cells", at, unit="i16"),
                w.load(words, "%cells", w.do(f"add i64 {at}, %columns"), unit="i16"),
            ]
            mixed: Values = []
            for order in orders:
                mask = ", ".join(f"i32 {i}" for i in order)
                mixed.append(w.do(f"shufflevector {words} {rows[0]}, {words} {rows[1]}, <{n} x i32> <{mask}>"))
            where = w.do(f"add i64 {driven}, {w.do(f'mul i64 {pair}, {self.spec.planes}')}")
            result: Values = list(acc)
            for k in range(many):
                bits = self.everywhere("i32", w.do(f"load i32, ptr {w.at('i32', '%driven', where, str(first + k))}"))
                both = w.do(f"bitcast {longs} {bits} to {words}")
                for half in range(2):
                    product = w.do(f"call {longs} @{PAIRWISE[self.spec.width]}({words} {mixed[half]}, {words} {both})")
                    result[2 * k + half] = self.long("add", result[2 * k + half], product)
            return result

        sums = w.loop("0", pairs, "1", [(longs, "zeroinitializer")] * (2 * many), pair_body)
        for k in range(many):
            for half in range(2):
                order = [self._lane_of(half * self.lanes + i) for i in range(self.lanes)]
                mask = ", ".join(f"i32 {i}" for i in order)
                a, b = sums[2 * k], sums[2 * k + 1]
                value = w.do(f"shufflevector {longs} {a}, {longs} {b}, <{self.lanes} x i32> <{mask}>")
                w.store(longs, value, "%sums", str((2 * (first + k) + half) * self.lanes), unit="i32")

    def _lane_of(self, column: int) -> int:
        """Where a column's sum lies in the two registers put one after the other."""
        return column // 8 * 4 + column % 4 + (self.lanes if column % 8 >= 4 else 0)

    def _noise_of(self, number: str, lane: str) -> Values:
        """What a crossbar's noise needs: spreads of both halves of the tile, two keys, the column's number."""
        w = self.w
        at = w.do(f"add i64 {w.do(f'mul i64 {number}, {self._row}')}, {lane}")
        sigmas = [w.load(self.floats, "%sigma", at, str(half * self.lanes), unit="float") for half in range(2)]
        pair = w.do(f"mul i64 {number}, 2")
        keys = [w.do(f"load i32, ptr {w.at('i32', '%keys', pair, str(i))}") for i in range(2)]
        return [*sigmas, *(self.everywhere("i32", key) for key in keys), lane]

    def _convert_all(self, vector: str, block: str, masks: Values, noise: Values, count: str) -> tuple[Values, str]:
        """Weighted indices of all planes of one tile, both halves, and the clipped conversions."""
        w, planes = self.w, self.spec.planes
        energy = w.do(f"add i64 {w.do(f'mul i64 {vector}, %blocks')}, {block}")
        energy = w.do(f"mul i64 {energy}, {planes}")
        number = w.do(f"mul i64 {w.do(f'add i64 %first, {vector}')}, {planes}")

        def plane_body(k: str, carried: Values) -> Values:
            weight = self.everywhere("i32", w.do(f"load i32, ptr {w.at('i32', '%weights', k)}"))
            after: Values = []
            more = carried[2]
            drive = ""
            if noise:
                drive = self.everywhere("float", w.do(f"load float, ptr {w.at('float', '%energy', energy, k)}"))
            for half in range(2):
                place = w.do(f"add i64 {w.do(f'mul i64 {k}, {self.tile}')}, {half * self.lanes}")
                position = self._position(w.load(self.longs, "%sums", place, unit="i32"))
                if noise:
                    which = w.do(f"mul i64 {w.do(f'add i64 {number}, {k}')}, %columns")
                    which = w.do(f"add i64 {w.do(f'add i64 {which}, {noise[4]}')}, {half * self.lanes}")
                    spread = self.real("fmul", drive, noise[half])
                    drawn = self.real("fmul", spread, self._draw(which, (noise[2], noise[3])))
                    position = self.real("fadd", position, drawn)
                index, more = self._index(position, masks[half], more)
                after.append(self.long("add", carried[half], self.long("mul", index, weight)))
            return [*after, more]

        zero = (self.longs, "zeroinitializer")
        found = w.loop("0", str(planes), "1", [zero, zero, ("i64", count)], plane_body)
        return found[:2], found[2]

    def _position(self, sums: str) -> str:
        position = self.real("fmul", self.to_float(sums), self._factors[0])
        return self.real("fdiv", position, self._factors[1]) if self.spec.divide else position

    def _index(self, position: str, mask: str, count: str) -> tuple[str, str]:
        """Rounded and clipped, as whole numbers; clipped columns counted."""
        w, n, floats = self.w, self.lanes, self.floats
        index = w.do(f"call {floats} @llvm.rint.v{n}f32({floats} {self.real('fsub', position, self._factors[2])})")
        zero, top = self.constant(0.0), self._factors[3]
        below, above = w.do(f"fcmp olt {floats} {index}, {zero}"), w.do(f"fcmp ogt {floats} {index}, {top}")
        flags = w.do(f"bitcast <{n} x i1> {w.do(f'or <{n} x i1> {below}, {above}')} to i{n}")
        counted = w.do(f"call i{n} @llvm.ctpop.i{n}(i{n} {w.do(f'and i{n} {flags}, {mask}')})")
        count = w.do(f"add i64 {count}, {w.do(f'zext i{n} {counted} to i64')}")
        index = w.do(f"select <{n} x i1> {below}, {floats} {zero}, {floats} {index}")
        index = w.do(f"select <{n} x i1> {above}, {floats} {top}, {floats} {index}")
        return w.do(f"fptosi {floats} {index} to {self.longs}"), count

    def _draw(self, first: str, keys: tuple[str, str]) -> str:
        """``rng.conversion_noise`` of neighbouring conversions."""
        w = self.w
        iota = "<" + ", ".join(f"i32 {i}" for i in range(self.lanes)) + ">"
        counter = self.long("add", self.everywhere("i32", w.do(f"trunc i64 {first} to i32")), iota)
        one = self.hashed(counter, keys)
        two = self.mix(self.long("add", one, STEP))
        total = self.to_float(self.long("add", self._byte_sum(one), self._byte_sum(two)))
        return self.real("fmul", self.real("fsub", total, BYTES_MEAN), 1.0 / BYTES_STD)

    def _byte_sum(self, word: str) -> str:
        """The four bytes of each word added up."""
        w, width = self.w, self.spec.width
        half = f"<{width} x i8>"
        split = w.do(f"bitcast {self.longs} {word} to {half}")
        ones = "<" + ", ".join("i8 1" for _ in range(width)) + ">"
        pairs = w.do(f"call {self.words} @{BYTEWISE[width]}({half} {split}, {half} {ones})")
        single = "<" + ", ".join("i16 1" for _ in range(width // 2)) + ">"
        return w.do(f"call {self.longs} @{PAIRWISE[width]}({self.words} {pairs}, {self.words} {single})")
