"""The kernel for whole levels: lanes of one bit are columns, and column sums stand upright, one vector per bit.

A row of cells is one bit per column and bit of the level. An input plane drives some rows; their bits are added by
trees of full adders (Harley and Seal's way of counting bits), 16 or 32 rows at a time, for 512 columns at once. Rows that
a plane does not drive cost nothing. The sums stay upright through the converter (a long division by its step) and the
shift-and-add over the planes and row blocks; only the results are turned. One vector costs what one of many does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cimc.analog.kernels.bits_ir import ZERO, BitWriter
from cimc.analog.kernels.ir import Values, function, splat

POINTERS = (
    "cells", "used", "lists", "steps", "minus", "less", "starts", "valid", "places", "out", "clipped", "scratch",
)  # fmt: skip
NUMBERS = ("tiles", "groups", "slices", "blocks", "vectors", "rows", "room", "stride")
VECTORS = 32  # whose results stay upright together
ROWS = 16  # to which lists of driven rows are filled up


@dataclass(frozen=True)
class SlicedSpec:
    """``width`` of the vectors in bytes, ``ternary`` as in ``BitWriter``; ``planes`` input cycles; ``bits`` of a level,
    the highest of which is negative if ``signed``; ``two_sided``: inputs carry a sign, the negative ones in lists of
    their own; ``negative_top``: the last plane is a two's complement sign. Sums are counted from the lowest code and half
    a step below: ``start`` is that of no rows, ``lowest`` and ``highest`` what they reach. ``step`` and ``top`` (highest
    index) are the converter's, in the unit of the sums. ``blocks``: bits that the sum over row blocks needs beyond that of
    one. ``raw``: sums are wanted as they are, in 16 bits, counted from 0."""

    width: int
    ternary: bool
    planes: int
    bits: int
    signed: bool
    two_sided: bool
    negative_top: bool
    start: int
    lowest: int
    highest: int
    step: int
    top: int
    blocks: int
    raw: bool = False

    @property
    def group(self) -> int:
        """Columns that are turned together."""
        return 32 if self.raw else 16

    @property
    def words(self) -> int:
        """Bits of a column's sum, in two's complement if it may be negative."""
        if self.raw:
            return 16
        return max(self.highest.bit_length() + (self.lowest < 0), (~self.lowest).bit_length() + 1, 6)

    @property
    def code(self) -> int:
        """Bits of an index."""
        return max(min(self.top, self.highest // self.step).bit_length(), 1)

    @property
    def total(self) -> int:
        """Bits of a column's result."""
        return self.code + self.planes + self.blocks

    @property
    def alone(self) -> bool:
        """Whether no other kernel is faster for many vectors: where adders are short, or levels are bits."""
        return self.ternary or self.bits == 1

    def scratch(self, vectors: int) -> int:
        """Bytes of memory in use: the count, one block's result, the results of some vectors."""
        return self.width * (2 + max(self.code + self.planes, 16) + min(vectors, VECTORS) * self.total)


def build_sliced(spec: SlicedSpec) -> str:
    """IR of ``sliced(POINTERS; NUMBERS)``.

    ``cells`` are bits (tile, block, bit from the highest, row and one row of zeros, lane); ``used`` 32-bit (tile, block,
    bit): -1, or 0 where no cell has the bit; ``starts`` (block, 2): first row, rows. ``lists`` 16-bit (vector, block,
    plane, ``room``): the driven rows, as eights of bytes into a bit's rows, filled up to whole ``steps`` (vector, block,
    plane; 32-bit) of 16 with the row of zeros; ``minus`` and ``less`` those of negative inputs. ``valid`` (tile, lane):
    lanes that are columns. ``places`` (some lanes, 2; ``groups`` of them in all): the column where these begin, what
    their slice is worth. Results are added to ``out``, 32-bit (vector, ``stride`` columns).

    ``raw``: the second of ``places`` is the slice, and sums are written to ``out``, 16-bit (block, slice, vector, plane,
    ``stride`` columns).
    """
    return _Sliced(spec).build()


@dataclass(frozen=True)
class _Cells:
    """One row block of a tile: where its bits begin, the bytes of one bit, where its flags begin, and which it is."""

    corner: str
    size: str
    used: str
    tile: str
    block: str


class _Sliced(BitWriter):
    def __init__(self, spec: SlicedSpec) -> None:
        super().__init__(spec.width, spec.ternary)
        self.spec = spec
        self.block_at = spec.width
        self.totals_at = spec.width * (2 + spec.code + spec.planes)

    def build(self) -> str:
        w, spec = self.w, self.spec
        w.store(self.kind, ZERO, "%scratch", "0")
        extended = w.do("add i64 %rows, %blocks")
        tile_bytes = w.do(f"mul i64 {extended}, {spec.bits * spec.width}")

        def tile_body(tile: str, _: Values) -> Values:
            base = w.do(f"mul i64 {tile}, {tile_bytes}")
            w.loop("0", "%vectors", str(VECTORS), [], lambda v0, _: self._group(tile, base, v0))
            return []

        w.loop("0", "%tiles", "1", [], tile_body)
        counted = w.load(self.kind, "%scratch", "0")
        found = w.do(f"call i64 @llvm.vector.reduce.add.v{self.lanes}i64({self.kind} {counted})")
        before = w.do("load i64, ptr %clipped")
        w.emit(f"store i64 {w.do(f'add i64 {before}, {found}')}, ptr %clipped")
        declared = self.declarations() + "declare i64 @llvm.smin.i64(i64, i64)\n"
        declared += f"declare i64 @llvm.vector.reduce.add.v{self.lanes}i64({self.kind})\n"
        arguments = ", ".join([*(f"ptr %{name}" for name in POINTERS), *(f"i64 %{name}" for name in NUMBERS)])
        return function("sliced", arguments, w, declared)

    def _group(self, tile: str, base: str, v0: str) -> Values:
        """Some vectors through one tile of columns: all row blocks, then the results turned."""
        w, spec = self.w, self.spec
        left = w.do(f"sub i64 %vectors, {v0}")
        many = w.do(f"call i64 @llvm.smin.i64(i64 {VECTORS}, i64 {left})")
        valid = w.load(self.kind, "%valid", w.do(f"mul i64 {tile}, {spec.width}"))

        def clear(place: str, _: Values) -> Values:
            w.store(self.kind, ZERO, "%scratch", place, str(self.totals_at))
            return []

        if not spec.raw:
            w.loop("0", w.do(f"mul i64 {many}, {spec.total * spec.width}"), str(spec.width), [], clear)

        mine = f"mul i64 {tile}, %blocks"

        def block_body(block: str, _: Values) -> Values:
            entry = w.do(f"mul i64 {block}, 2")
            first, rows = (w.do(f"load i64, ptr {w.at('i64', '%starts', entry, str(i))}") for i in range(2))
            above = w.do(f"mul i64 {w.do(f'add i64 {first}, {block}')}, {spec.bits * spec.width}")
            corner = w.do(f"add i64 {base}, {above}")
            size = w.do(f"mul i64 {w.do(f'add i64 {rows}, 1')}, {spec.width}")
            used = w.do(f"mul i64 {w.do(f'add i64 {w.do(mine)}, {block}')}, {spec.bits}")
            cells = _Cells(corner, size, used, tile, block)

            def vector_body(v: str, _: Values) -> Values:
                vector = w.do(f"add i64 {v0}, {v}")
                number = w.do(f"add i64 {w.do(f'mul i64 {vector}, %blocks')}, {block}")
                number = w.do(f"mul i64 {number}, {spec.planes}")
                if spec.raw:
                    self._raw(cells, number, vector)
                    return []
                self._block(cells, number, valid)
                self._add_block(w.do(f"mul i64 {v}, {spec.total * spec.width}"))
                return []

            w.loop("0", many, "1", [], vector_body)
            return []

        w.loop("0", "%blocks", "1", [], block_body)
        if not spec.raw:
            w.loop("0", many, "1", [], lambda v, _: self._result(tile, v, w.do(f"add i64 {v0}, {v}")))
        return []

    def _raw(self, cells: _Cells, number: str, vector: str) -> None:
        """One vector's planes through one row block: the sums, written out."""
        w, spec = self.w, self.spec

        def plane_body(k: str, _: Values) -> Values:
            for i, bit in enumerate(self._sums(cells, w.do(f"add i64 {number}, {k}"))[:16]):
                w.store(self.kind, bit, "%scratch", str(self.block_at + i * spec.width))

            def keep(column: str, s: str, value: str) -> None:
                crossbar = w.do(f"add i64 {w.do(f'mul i64 {cells.block}, %slices')}, {s}")
                one = w.do(f"add i64 {w.do(f'mul i64 {crossbar}, %vectors')}, {vector}")
                row = w.do(f"add i64 {w.do(f'mul i64 {one}, {spec.planes}')}, {k}")
                w.store("<32 x i16>", value, "%out", w.do(f"mul i64 {row}, %stride"), column, unit="i16")

            self._turned(cells.tile, str(self.block_at), 16, keep)
            return []

        w.loop("0", str(spec.planes), "1", [], plane_body)

    def _block(self, cells: _Cells, number: str, valid: str) -> None:
        """One vector's planes through one row block: the weighted indices, in scratch."""
        w, spec = self.w, self.spec
        for i in range(spec.code):
            w.store(self.kind, ZERO, "%scratch", str(self.block_at + i * spec.width))

        def plane_body(k: str, _: Values) -> Values:
            sums = self._sums(cells, w.do(f"add i64 {number}, {k}"))
            code = self._converted(sums, valid)
            if spec.negative_top:
                last = w.do(f"icmp eq i64 {k}, {spec.planes - 1}")
                mask = self._everywhere(w.do(f"sext i1 {last} to i64"))
                code = [self.both("xor", bit, mask) for bit in code]
            place = w.do(f"add i64 {w.do(f'mul i64 {k}, {spec.width}')}, {self.block_at}")
            carry = ZERO
            for i, bit in enumerate(code):
                old = w.load(self.kind, "%scratch", place, str(i * spec.width))
                new, carry = self.added(old, bit, carry)
                w.store(self.kind, new, "%scratch", place, str(i * spec.width))
            w.store(self.kind, carry, "%scratch", place, str(spec.code * spec.width))
            return []

        w.loop("0", str(spec.planes), "1", [], plane_body)

    def _sums(self, cells: _Cells, number: str) -> Values:
        """Column sums of one plane, counted from ``start``: bit by bit of the level, from the highest."""
        w, spec = self.w, self.spec
        many = spec.words
        first = [self.constant((spec.start >> (spec.bits + i)) & 1) for i in range(many)]

        def bit_body(b: str, held: Values) -> Values:
            at = w.do(f"sub i64 {spec.bits - 1}, {b}")
            low = w.do(f"and i64 {w.do(f'lshr i64 {spec.start & (1 << 63) - 1}, {at}')}, 1")
            sums = [self._everywhere(w.do(f"sub i64 0, {low}")), *held[:-1]]
            base = w.at("i8", "%cells", cells.corner, w.do(f"mul i64 {b}, {cells.size}"))
            used = w.do(f"load i32, ptr {w.at('i32', '%used', cells.used, b)}")
            top = w.do(f"icmp eq i64 {b}, 0")
            for lists, steps, minus in (("%lists", "%steps", False), ("%minus", "%less", True))[: 1 + spec.two_sided]:
                mask = ""
                if spec.signed:
                    turned = w.do(f"xor i1 {top}, {str(minus).lower()}")
                    mask = self._everywhere(w.do(f"sext i1 {turned} to i64"))
                elif minus:
                    mask = self.ones
                # Less is what the complement has more.
                sums = [self.both("xor", bit, mask) for bit in sums] if mask else sums
                list_at = w.do(f"mul i64 {number}, %room")
                many = w.do(f"and i32 {w.do('load i32, ptr ' + w.at('i32', steps, number))}, {used}")
                sums = self._counted(sums, (base, lists, list_at), w.do(f"zext i32 {many} to i64"))
                sums = [self.both("xor", bit, mask) for bit in sums] if mask else sums
            return sums

        return w.loop("0", str(spec.bits), "1", [(self.kind, bit) for bit in first], bit_body)

    def _counted(self, sums: Values, rows: tuple[str, str, str], many: str) -> Values:
        """``sums`` and the listed rows: ``rows`` are where they are, the lists and where this one begins."""
        w = self.w
        base, lists, list_at = rows
        twice = w.do(f"and i64 {many}, -2")
        for start, stop, levels in (("0", twice, 5), (twice, many, 4)):

            def rows_body(step: str, held: Values, levels: int = levels) -> Values:
                at = w.do(f"add i64 {list_at}, {w.do(f'mul i64 {step}, {ROWS}')}")
                held = list(held)
                carry = self._tree(held, levels, 0, (base, lists, at))
                return self.carried(held, levels, carry)

            carried = [(self.kind, bit) for bit in sums]
            sums = w.loop(start, stop, str((1 << levels) // ROWS), carried, rows_body)
        return sums

    def _tree(self, sums: Values, level: int, first: int, rows: tuple[str, str, str]) -> str:
        """2**level rows from the list's entry ``first`` on, added to the lowest bits of ``sums``: the carry."""
        w = self.w
        if level:
            a = self._tree(sums, level - 1, first, rows)
            b = self._tree(sums, level - 1, first + (1 << level - 1), rows)
            sums[level - 1], carry = self.added(sums[level - 1], a, b)
            return carry
        base, lists, at = rows
        entry = w.do(f"zext i16 {w.do('load i16, ptr ' + w.at('i16', lists, at, str(first)))} to i64")
        return w.do(f"load {self.kind}, ptr {w.at('i64', base, entry)}, align 8")

    def _converted(self, sums: Values, valid: str) -> Values:
        """Index of every sum, rounded half to even and clipped; clipped conversions are counted."""
        w, spec = self.w, self.spec
        below = sums[-1] if spec.lowest < 0 else ""
        number = sums[:-1] if below else sums
        quotient, remains = self.divided(number[: spec.highest.bit_length()], spec.step)
        if spec.step % 2 == 0:
            # Half a step was added: a tie leaves nothing, and goes back to the even code.
            quotient[0] = self.both("and", quotient[0], remains)
        quotient = quotient[: (spec.highest // spec.step).bit_length()]
        above = self.above(quotient, spec.top) if spec.highest // spec.step > spec.top else ""
        code = (quotient + [ZERO] * spec.code)[: spec.code]
        if above:
            code = [self.both("or", bit, above) if spec.top >> i & 1 else
                    self.both("and", bit, self.invert(above)) for i, bit in enumerate(code)]  # fmt: skip
        if below:
            inside = self.invert(below)
            code = [self.both("and", bit, inside) for bit in code]
        outside = self.both("or", above, below) if above and below else above or below
        if outside:
            found = w.do(
                f"call {self.kind} @llvm.ctpop.v{self.lanes}i64({self.kind} {self.both('and', outside, valid)})"
            )
            w.store(self.kind, self.both("add", w.load(self.kind, "%scratch", "0"), found), "%scratch", "0")
        return code

    def _add_block(self, place: str) -> None:
        """The block's result added to the vector's."""
        w, spec = self.w, self.spec
        start = w.do(f"add i64 {place}, {self.totals_at}")
        carry = ZERO
        for i in range(spec.total):
            at = str(i * spec.width)
            old = w.load(self.kind, "%scratch", start, at)
            if i < spec.code + spec.planes:
                value = w.load(self.kind, "%scratch", str(self.block_at + i * spec.width))
                new, carry = self.added(old, value, carry)
            else:
                new, carry = self.both("xor", old, carry), self.both("and", old, carry)
            w.store(self.kind, new, "%scratch", start, at)

    def _result(self, tile: str, v: str, vector: str) -> Values:
        """One vector's results as 32-bit numbers, multiplied and added to their columns."""
        w, spec = self.w, self.spec
        start = w.do(f"add i64 {w.do(f'mul i64 {v}, {spec.total * spec.width}')}, {self.totals_at}")
        row = w.do(f"mul i64 {vector}, %stride")
        longs = "<16 x i32>"

        def keep(column: str, worth: str, value: str) -> None:
            single = w.do(f"insertelement {longs} poison, i32 {w.do(f'trunc i64 {worth} to i32')}, i64 0")
            spread = w.do(f"shufflevector {longs} {single}, {longs} poison, <16 x i32> zeroinitializer")
            product = w.do(f"mul {longs} {value}, {spread}")
            old = w.load(longs, "%out", row, column, unit="i32")
            w.store(longs, w.do(f"add {longs} {old}, {product}"), "%out", row, column, unit="i32")

        self._turned(tile, start, spec.total, keep)
        return []

    def _turned(self, tile: str, start: str, many: int, keep: Callable[[str, str, str], None]) -> None:
        """A tile's upright numbers of ``many`` bits, in scratch from ``start`` on, as numbers side by side: ``keep`` gets
        the two of a group's place and the numbers."""
        w, lanes = self.w, self.spec.group
        unit = 512 // lanes
        kind = f"<{lanes} x i{unit}>"
        first = w.do(f"mul i64 {tile}, {self.width * 8 // lanes}")
        left = w.do(f"sub i64 %groups, {first}")
        groups = w.do(f"call i64 @llvm.smin.i64(i64 {self.width * 8 // lanes}, i64 {left})")

        def group_body(group: str, _: Values) -> Values:
            place = w.do(f"mul i64 {w.do(f'add i64 {first}, {group}')}, 2")
            column, second = (w.do(f"load i64, ptr {w.at('i64', '%places', place, str(i))}") for i in range(2))
            at = w.do(f"add i64 {start}, {w.do(f'mul i64 {group}, {lanes // 8}')}")
            total = ""
            for i in range(min(many, unit)):
                bits = w.load(f"i{lanes}", "%scratch", at, str(i * self.width))
                mask = w.do(f"bitcast i{lanes} {bits} to <{lanes} x i1>")
                one = splat(f"i{unit}", lanes, 1 << i)
                part = w.do(f"select <{lanes} x i1> {mask}, {kind} {one}, {kind} zeroinitializer")
                total = w.do(f"or {kind} {total}, {part}") if total else part
            keep(column, second, total)
            return []

        w.loop("0", groups, "1", [], group_body)

    def _everywhere(self, value: str) -> str:
        """One 64-bit number in every lane."""
        single = self.w.do(f"insertelement {self.kind} poison, i64 {value}, i64 0")
        return self.w.do(
            f"shufflevector {self.kind} {single}, {self.kind} poison, <{self.lanes} x i32> zeroinitializer"
        )
