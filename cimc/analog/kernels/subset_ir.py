"""The kernel for noisy cells: lanes are columns, and rows are added in groups whose sums are all made beforehand.

Of a few neighbouring rows every subset is added up once (Arlazarov, Dinic, Kronrod and Faradzev's way with Boolean
matrices: "four Russians"), 32 columns of 16-bit numbers to a 512-bit vector. A vector's input plane then drives one of
these subsets: one load and one addition do the whole group. Tables live in the nearest cache for a few groups at a time,
so nothing is kept beside the cells. Conversion is ``adc.index_of`` in float32, with ``rng.conversion_noise`` where asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cimc.analog.kernels.ir import PAIRWISE, Values, function, splat
from cimc.analog.kernels.lanes import LaneWriter
from cimc.analog.normal import STEP
from cimc.analog.rng import BYTES_MEAN, BYTES_STD

# Pairs of bytes multiplied and added, by the width of the machine's vectors in bytes.
BYTEWISE = {
    64: "llvm.x86.avx512.pmaddubs.w.512",
    32: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.ssse3.pmadd.ub.sw.128",
}
TABLE_BYTES = 16384  # of tables at once: half of a level-1 cache of 32 KiB
VECTORS = 16  # whose sums stay beside the tables
POINTERS = (
    "cells", "starts", "offsets", "minus", "energy", "sigma", "keys", "factors", "weights", "shifts", "out", "clipped",
    "scratch",
)  # fmt: skip
NUMBERS = ("blocks", "slices", "tiles", "vectors", "columns", "rows", "groups", "first", "apart")


@dataclass(frozen=True)
class SubsetSpec:
    """``width`` of the vectors in bytes; ``planes`` input cycles; ``members`` rows to a group; ``two_sided``: inputs
    carry a sign, the negative ones in patterns of their own; ``signed``: column sums may be negative; ``divide``: the
    step is no power of two; ``noise`` per conversion; ``pairwise``: the machine adds neighbouring numbers (x86);
    ``codes``: indices are kept one by one, not added up; ``given``: column sums come from elsewhere (sliced_ir.py)."""

    width: int
    planes: int
    members: int
    two_sided: bool
    signed: bool
    divide: bool
    noise: bool
    pairwise: bool
    codes: bool = False
    given: bool = False

    @property
    def entry(self) -> int:
        """Bytes of a group's tables."""
        return self.width << self.members

    @property
    def together(self) -> int:
        """Groups whose tables exist at once."""
        return max(TABLE_BYTES // self.entry, 1)

    @property
    def scratch(self) -> int:
        """Bytes of tables and sums."""
        return self.together * self.entry + VECTORS * self.planes * self.width


def build_subset(spec: SubsetSpec) -> str:
    """IR of ``subset(POINTERS; NUMBERS)``.

    ``cells`` are 16-bit (slice, row, column); ``starts`` (block, 3): first row, first group of rows, groups;
    ``offsets`` and ``minus`` 16-bit (vector, group, plane): which subset is driven, in bytes of a table; ``energy``
    roots of the driven rows (vector, block, plane); ``sigma`` spreads in LSB (block, slice, column); ``keys`` (block,
    slice, 2); ``factors`` are 2**-bits (over the step, if that is a power of two), the step, the lowest code, the
    highest index; ``weights`` of the planes and ``shifts`` of the slices; sums of weighted indices are added to ``out``
    (vector, tile and lane), blocks ``apart`` vectors from each other. With ``codes``, ``out`` are the 16-bit indices
    (block, slice, vector, plane, tile and lane). ``scratch`` holds tables, then the sums (vector, plane) of one tile.
    ``given``: ``cells`` are the column sums, 16-bit (block, slice, vector, plane, ``rows`` columns), in their place.
    """
    return _Subset(spec).build()


class _Subset(LaneWriter):
    def __init__(self, spec: SubsetSpec) -> None:
        super().__init__(spec.width // 4)
        self.spec = spec
        self.tile = 2 * self.lanes
        self.words = f"<{self.tile} x i16>"
        self.sums_at = spec.together * spec.entry

    def build(self) -> str:
        w = self.w
        self._factors = [
            self.everywhere("float", w.do(f"load float, ptr {w.at('float', '%factors', str(i))}")) for i in range(4)
        ]
        self._row = w.do(f"mul i64 %tiles, {self.tile}")

        def loop(count: str, held: str, body: Callable[[str, str], str]) -> str:
            return w.loop("0", count, "1", [("i64", held)], lambda i, counts: [body(i, counts[0])])[0]

        # In the order of the memory.
        count = loop("%slices", "0", lambda s, many: loop("%blocks", many, lambda block, more: loop(
            "%tiles", more, lambda tile, most: self._crossbar(tile, block, s, most)
        )))  # fmt: skip
        before = w.do("load i64, ptr %clipped")
        w.emit(f"store i64 {w.do(f'add i64 {before}, {count}')}, ptr %clipped")
        arguments = ", ".join([*(f"ptr %{name}" for name in POINTERS), *(f"i64 %{name}" for name in NUMBERS)])
        return function("subset", arguments, w, self._declarations())

    def _declarations(self) -> str:
        n, width = self.lanes, self.spec.width
        declared = "declare i64 @llvm.smin.i64(i64, i64)\ndeclare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
        declared += f"declare i32 @llvm.vector.reduce.add.v{n}i32({self.longs})\n"
        declared += f"declare {self.floats} @llvm.rint.v{n}f32({self.floats})\n"
        if self.spec.pairwise:
            declared += f"declare {self.longs} @{PAIRWISE[width]}({self.words}, {self.words})\n"
            declared += f"declare {self.words} @{BYTEWISE[width]}(<{width} x i8>, <{width} x i8>)\n"
        return declared

    def _carried(self, counts: Values) -> list[tuple[str, str]]:
        return [(self.longs, count) for count in counts]

    def _counted(self, counts: Values, lane: str) -> str:
        """What the lanes that are columns counted, added up."""
        w, n = self.w, self.lanes
        left = self.everywhere("i32", w.do(f"trunc i64 {w.do(f'sub i64 %columns, {lane}')} to i32"))
        kept: Values = []
        for half, count in enumerate(counts):
            iota = "<" + ", ".join(f"i32 {i + half * n}" for i in range(n)) + ">"
            flags = w.do(f"icmp slt {self.longs} {iota}, {left}")
            kept.append(w.do(f"select <{n} x i1> {flags}, {self.longs} {count}, {self.longs} zeroinitializer"))
        total = w.do(f"call i32 @llvm.vector.reduce.add.v{n}i32({self.longs} {self.long('add', kept[0], kept[1])})")
        return w.do(f"zext i32 {total} to i64")

    def _crossbar(self, tile: str, block: str, s: str, clipped: str) -> str:
        """One tile of columns of one crossbar, for every vector: the clipped conversions and ``clipped`` before."""
        w = self.w
        lane = w.do(f"mul i64 {tile}, {self.tile}")
        entry = w.do(f"mul i64 {block}, 3")
        row, group, groups = (w.do(f"load i64, ptr {w.at('i64', '%starts', entry, str(i))}") for i in range(3))
        number = w.do(f"add i64 {w.do(f'mul i64 {block}, %slices')}, {s}")
        place = w.do(f"add i64 {w.do(f'mul i64 {s}, %rows')}, {row}")
        corner = w.do(f"mul i64 {place}, %columns")
        start = w.do(f"add i64 {corner}, {lane}")
        ahead = self._ahead(corner, groups, tile)
        shift = self.everywhere("i32", w.do(f"load i32, ptr {w.at('i32', '%shifts', s)}"))
        noise = self._noise_of(number, lane) if self.spec.noise else []
        all_planes = w.do(f"mul i64 {self._row}, {self.spec.planes}")

        def some_vectors(v0: str, counted: Values) -> Values:
            many = self._least(str(VECTORS), w.do(f"sub i64 %vectors, {v0}"))
            if not self.spec.given:
                self._clear(many)
                w.loop(
                    "0",
                    groups,
                    str(self.spec.together),
                    [],
                    lambda g0, _: self._groups(start, ahead, group, g0, groups, v0, many),
                )

            def vector_body(v: str, inner: Values) -> Values:
                vector = w.do(f"add i64 {v0}, {v}")
                one = w.do(f"add i64 {w.do(f'mul i64 {number}, %vectors')}, {vector}")
                kept = w.do(f"add i64 {w.do(f'mul i64 {one}, {all_planes}')}, {lane}")
                totals, after = self._convert_all(vector, self._held(v, one, lane), block, noise, inner, kept)
                if self.spec.codes:
                    return after
                one = w.do(f"add i64 {w.do(f'mul i64 {block}, %apart')}, {vector}")
                at = w.do(f"add i64 {w.do(f'mul i64 {one}, {self._row}')}, {lane}")
                for half, total in enumerate(totals):
                    old = w.load(self.longs, "%out", at, str(half * self.lanes), unit="i32")
                    added = self.long("add", old, self.long("shl", total, shift))
                    w.store(self.longs, added, "%out", at, str(half * self.lanes), unit="i32")
                return after

            return w.loop("0", many, "1", self._carried(counted), vector_body)

        counts = w.loop("0", "%vectors", str(VECTORS), self._carried(["zeroinitializer"] * 2), some_vectors)
        return w.do(f"add i64 {clipped}, {self._counted(counts, lane)}")

    def _held(self, v: str, one: str, lane: str) -> tuple[str, str, str]:
        """Where the sums of a vector and tile are: the array, the byte where they begin, the bytes of a plane."""
        w, planes, width = self.w, self.spec.planes, self.spec.width
        if not self.spec.given:
            at = w.do(f"add i64 {w.do(f'mul i64 {v}, {planes * width}')}, {self.sums_at}")
            return "%scratch", at, str(width)
        row = w.do(f"mul i64 {w.do(f'mul i64 {one}, {planes}')}, %rows")
        return "%cells", w.do(f"mul i64 {w.do(f'add i64 {row}, {lane}')}, 2"), w.do("mul i64 %rows, 2")

    def _least(self, a: str, b: str) -> str:
        return self.w.do(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})")

    def _clear(self, vectors: str) -> None:
        """Sums of nothing."""
        w, size = self.w, self.spec.planes * self.spec.width

        def body(place: str, _: Values) -> Values:
            w.store(self.words, "zeroinitializer", "%scratch", place, str(self.sums_at))
            return []

        w.loop("0", w.do(f"mul i64 {vectors}, {size}"), str(self.spec.width), [], body)

    def _ahead(self, corner: str, groups: str, tile: str) -> str:
        """Where this tile's share of the next crossbar begins: read ahead while this one is at work."""
        w, spec = self.w, self.spec
        rows = w.do(f"mul i64 {groups}, {spec.members}")
        past = w.do(f"add i64 {corner}, {w.do(f'mul i64 {rows}, %columns')}")
        return w.do(f"add i64 {past}, {w.do(f'mul i64 {tile}, ' + w.do(f'mul i64 {rows}, {self.tile}'))}")

    def _groups(self, start: str, ahead: str, group: str, first: str, groups: str, v0: str, vectors: str) -> Values:
        """Add some groups, from ``first`` on, to the sums of some vectors."""
        w, spec = self.w, self.spec
        many = self._least(str(spec.together), w.do(f"sub i64 {groups}, {first}"))
        step = w.do(f"mul i64 %columns, {spec.members}")
        above = w.do(f"add i64 {start}, {w.do(f'mul i64 {first}, {step}')}")

        def table_body(g: str, _: Values) -> Values:
            number = w.do(f"mul i64 {w.do(f'add i64 {first}, {g}')}, {spec.members * self.tile}")
            self._table(w.do(f"add i64 {above}, {w.do(f'mul i64 {g}, {step}')}"), w.do(f"add i64 {ahead}, {number}"), g)
            return []

        w.loop("0", many, "1", [], table_body)
        mine = w.do(f"add i64 {group}, {first}")

        def vector_body(v: str, _: Values) -> Values:
            place = w.do(f"mul i64 {v}, {spec.planes * spec.width}")
            place = w.do(f"add i64 {place}, {self.sums_at}")
            vector = w.do(f"mul i64 {w.do(f'add i64 {v0}, {v}')}, %groups")
            driven = w.do(f"mul i64 {w.do(f'add i64 {vector}, {mine}')}, {spec.planes}")
            old = [(self.words, w.load(self.words, "%scratch", place, str(k * spec.width))) for k in range(spec.planes)]
            new = w.loop("0", many, "1", old, lambda g, acc: self._add(g, driven, acc))
            for k, value in enumerate(new):
                w.store(self.words, value, "%scratch", place, str(k * spec.width))
            return []

        w.loop("0", vectors, "1", [], vector_body)
        return []

    def _table(self, above: str, ahead: str, group: str) -> None:
        """The sums of every subset of one group of rows."""
        w, spec = self.w, self.spec
        base = w.do(f"mul i64 {group}, {spec.entry}")
        found = ["zeroinitializer"]
        place = above
        for j in range(spec.members):
            row = w.load(self.words, "%cells", place, unit="i16")
            w.emit(
                f"call void @llvm.prefetch.p0(ptr {w.at('i16', '%cells', ahead, str(j * self.tile))}, i32 0, i32 2, i32 1)"
            )
            found += [row if i == 0 else w.do(f"add {self.words} {found[i]}, {row}") for i in range(1 << j)]
            place = w.do(f"add i64 {place}, %columns")
        for i, value in enumerate(found):
            w.store(self.words, value, "%scratch", base, str(i * spec.width))

    def _add(self, group: str, driven: str, acc: Values) -> Values:
        """One group's subsets, as a vector's planes drive them."""
        w, spec = self.w, self.spec
        base = w.do(f"mul i64 {group}, {spec.entry}")
        at = w.do(f"add i64 {driven}, {w.do(f'mul i64 {group}, {spec.planes}')}")
        result: Values = list(acc)
        for name, sign in (("%offsets", "add"), ("%minus", "sub"))[: 1 + spec.two_sided]:
            for k in range(spec.planes):
                which = w.do(f"load i16, ptr {w.at('i16', name, at, str(k))}")
                value = w.load(self.words, "%scratch", base, w.do(f"zext i16 {which} to i64"))
                result[k] = w.do(f"{sign} {self.words} {result[k]}, {value}")
        return result

    def _noise_of(self, number: str, lane: str) -> Values:
        """What a crossbar's noise needs: spreads of both halves of the tile, two keys, the column's number."""
        w = self.w
        at = w.do(f"add i64 {w.do(f'mul i64 {number}, {self._row}')}, {lane}")
        sigmas = [w.load(self.floats, "%sigma", at, str(half * self.lanes), unit="float") for half in range(2)]
        pair = w.do(f"mul i64 {number}, 2")
        keys = [w.do(f"load i32, ptr {w.at('i32', '%keys', pair, str(i))}") for i in range(2)]
        return [*sigmas, *(self.everywhere("i32", key) for key in keys), lane]

    def _convert_all(
        self, vector: str, held: tuple[str, str, str], block: str, noise: Values, clipped: Values, kept: str
    ) -> tuple[Values, Values]:
        """Weighted indices of all planes of one tile, both halves, and what each lane clipped so far. ``held``: where
        the vector's sums are, ``kept`` where its indices go if they are asked for."""
        w, planes, width = self.w, self.spec.planes, self.spec.width
        energy = w.do(f"add i64 {w.do(f'mul i64 {vector}, %blocks')}, {block}")
        energy = w.do(f"mul i64 {energy}, {planes}")
        number = w.do(f"mul i64 {w.do(f'add i64 %first, {vector}')}, {planes}")
        array, sums, step = held

        def plane_body(k: str, carried: Values) -> Values:
            weight = self.everywhere("float", w.do(f"load float, ptr {w.at('float', '%weights', k)}"))
            after: Values = []
            more: Values = []
            drive = ""
            if noise:
                drive = self.everywhere("float", w.do(f"load float, ptr {w.at('float', '%energy', energy, k)}"))
            for half in range(2):
                place = w.do(f"add i64 {w.do(f'mul i64 {k}, {step}')}, {half * width // 2}")
                position = self._position(w.load(f"<{self.lanes} x i16>", array, sums, place))
                if noise:
                    which = w.do(f"mul i64 {w.do(f'add i64 {number}, {k}')}, %columns")
                    which = w.do(f"add i64 {w.do(f'add i64 {which}, {noise[4]}')}, {half * self.lanes}")
                    spread = self.real("fmul", drive, noise[half])
                    drawn = self.real("fmul", spread, self._draw(which, (noise[2], noise[3])))
                    position = self.real("fadd", position, drawn)
                index, outside = self._index(position)
                more.append(self.long("add", carried[2 + half], outside))
                if self.spec.codes:
                    self._keep(index, w.do(f"add i64 {kept}, {w.do(f'mul i64 {k}, {self._row}')}"), half)
                # Whole numbers below 2**24: exact.
                after.append(self.real("fadd", carried[half], self.real("fmul", index, weight)))
            return [*after, *more]

        zero = (self.floats, "zeroinitializer")
        first = [zero, zero, *((self.longs, count) for count in clipped)]
        found = w.loop("0", str(planes), "1", first, plane_body)
        return [w.do(f"fptosi {self.floats} {total} to {self.longs}") for total in found[:2]], found[2:]

    def _keep(self, index: str, place: str, half: int) -> None:
        """Indices of one plane and half tile, as 16-bit numbers."""
        kind = f"<{self.lanes} x i16>"
        long = self.w.do(f"fptosi {self.floats} {index} to {self.longs}")
        short = self.w.do(f"trunc {self.longs} {long} to {kind}")
        self.w.store(kind, short, "%out", place, str(half * self.lanes), unit="i16")

    def _position(self, sums: str) -> str:
        extend = "sext" if self.spec.signed else "zext"
        long = self.w.do(f"{extend} <{self.lanes} x i16> {sums} to {self.longs}")
        position = self.real("fmul", self.to_float(long), self._factors[0])
        return self.real("fdiv", position, self._factors[1]) if self.spec.divide else position

    def _index(self, position: str) -> tuple[str, str]:
        """Rounded and clipped, and 1 in every lane that clipped."""
        w, n, floats = self.w, self.lanes, self.floats
        raw = w.do(f"call {floats} @llvm.rint.v{n}f32({floats} {self.real('fsub', position, self._factors[2])})")
        index = self._choose("ogt", raw, self.constant(0.0))
        index = self._choose("olt", index, self._factors[3])
        flags = w.do(f"fcmp une {floats} {raw}, {index}")
        return index, w.do(f"zext <{n} x i1> {flags} to {self.longs}")

    def _choose(self, how: str, a: str, b: str) -> str:
        """``a`` where it compares ``how`` to ``b``, else ``b``: one instruction."""
        w, n, floats = self.w, self.lanes, self.floats
        flags = w.do(f"fcmp {how} {floats} {a}, {b}")
        return w.do(f"select <{n} x i1> {flags}, {floats} {a}, {floats} {b}")

    def _draw(self, first: str, keys: tuple[str, str]) -> str:
        """``rng.conversion_noise`` of neighbouring conversions."""
        w = self.w
        iota = "<" + ", ".join(f"i32 {i}" for i in range(self.lanes)) + ">"
        counter = self.long("add", self.everywhere("i32", w.do(f"trunc i64 {first} to i32")), iota)
        one = self.hashed(counter, keys)
        two = self.mix(self.long("add", one, STEP))
        total = self.to_float(self._byte_sums(one, two))
        return self.real("fmul", self.real("fsub", total, BYTES_MEAN), 1.0 / BYTES_STD)

    def _byte_sums(self, one: str, two: str) -> str:
        """The eight bytes of two words added up, in every lane."""
        w, width = self.w, self.spec.width
        if not self.spec.pairwise:
            low = [self.long("and", word, 0x00FF00FF) for word in (one, two)]
            high = [self.long("and", self.long("lshr", word, 8), 0x00FF00FF) for word in (one, two)]
            pairs = self.long("add", self.long("add", *low), self.long("add", *high))
            return self.long("add", self.long("and", pairs, 0xFFFF), self.long("lshr", pairs, 16))
        half = f"<{width} x i8>"
        ones = splat("i8", width, 1)
        split = [w.do(f"bitcast {self.longs} {word} to {half}") for word in (one, two)]
        pairs = [w.do(f"call {self.words} @{BYTEWISE[width]}({half} {part}, {half} {ones})") for part in split]
        both = w.do(f"add {self.words} {pairs[0]}, {pairs[1]}")
        single = splat("i16", width // 2, 1)
        return w.do(f"call {self.longs} @{PAIRWISE[width]}({self.words} {both}, {self.words} {single})")
