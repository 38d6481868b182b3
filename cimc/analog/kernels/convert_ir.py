"""What the table kernels share: byte sums widened in time, the converter, shift-and-add.

Two converters: on whole sums an exact integer one, whose division is a multiplication by a reciprocal that was checked
against the true rounding for every possible sum; on any sums one in float32, the arithmetic of ``adc.index_of``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from cimc.analog.kernels.ir import Values, Writer, splat
from cimc.analog.kernels.jit import Shuffle


@dataclass(frozen=True)
class FloatAdc:
    """The converter in float32: ``step`` and ``low`` as in ``adc.Transfer``."""

    step: float
    low: int


@dataclass(frozen=True)
class LutSpec:
    """What a kernel is specialised for. ``lanes`` vectors at a time; ``planes`` input cycles per conversion group.

    ``two_sided``: inputs carry a sign, so a second index holds the negative ones. ``signed_sums``: table entries may be
    negative. ``negative_top``: the last plane is a two's complement sign. ``low``, ``top`` and ``step`` are the ADC's
    (codes ``low .. low+top``, whole ``step`` levels each); ``under`` and ``over`` the sums, counted from ``low*step``,
    outside which a conversion clips; ``reach`` the largest such sum that is not clipped. ``analog``: convert in float32
    instead.
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
    analog: FloatAdc | None = None

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


class KernelWriter:
    """What the table kernels share: sums in bytes widened in time, conversion, shift-and-add."""

    def __init__(self, spec: LutSpec) -> None:
        self.spec = spec
        self.w = Writer()
        self.bytes = f"<{spec.lanes} x i8>"
        self.words = f"<{spec.lanes} x i16>"
        self.longs = f"<{spec.lanes} x i32>"
        self.floats = f"<{spec.lanes} x float>"

    def declarations(self) -> str:
        """The intrinsics in use."""
        n, width = self.spec.lanes, self.spec.shuffle.width
        declared = f"declare <{width} x i8> @{self.spec.shuffle.intrinsic}(<{width} x i8>, <{width} x i8>)\n"
        declared += f"declare i{n} @llvm.ctpop.i{n}(i{n})\n"
        for name in ("smax", "umin"):
            declared += f"declare {self.words} @llvm.{name}.v{n}i16({self.words}, {self.words})\n"
        if self.spec.analog is not None:
            declared += f"declare {self.floats} @llvm.rint.v{n}f32({self.floats})\n"
        return declared

    def add_clipped(self, count: str) -> None:
        """Add to the counter of clipped conversions."""
        before = self.w.do("load i64, ptr %clipped")
        self.w.emit(f"store i64 {self.w.do(f'add i64 {before}, {count}')}, ptr %clipped")

    def summed(
        self, groups: str, many: int, chunk: int, signed: bool, group: Callable[[str, Values], Values]
    ) -> Values:
        """``many`` 16-bit sums over all groups: ``group`` adds one group to byte sums, widened every ``chunk``
        groups."""
        w = self.w
        widen = "sext" if signed else "zext"

        def chunk_body(first: str, wide: Values) -> Values:
            end = w.do(f"add i64 {first}, {chunk}")
            inside = w.do(f"icmp slt i64 {end}, {groups}")
            stop = w.do(f"select i1 {inside}, i64 {end}, i64 {groups}")
            narrow = w.loop(first, stop, "1", [(self.bytes, "zeroinitializer")] * many, group)
            extended = [w.do(f"{widen} {self.bytes} {v} to {self.words}") for v in narrow]
            return [w.do(f"add {self.words} {a}, {b}") for a, b in zip(wide, extended, strict=True)]

        return w.loop("0", groups, str(chunk), [(self.words, "zeroinitializer")] * many, chunk_body)

    def recombine(self, sums: Values, s: int, total: str, count: str) -> tuple[str, str]:
        """Convert slice ``s``'s sums of all planes and add them, shifted, to ``total``; clipped ones to ``count``."""
        w, shift = self.w, self.spec.shifts[s]
        codes: Values = []
        for value in sums:
            if self.spec.analog is None:
                code, count = self._convert(value, count)
            else:
                code, count = self._convert_float(value, count, self.spec.analog)
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
            count = self._counted(outside, count)
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

    def _convert_float(self, value: str, count: str, adc: FloatAdc) -> tuple[str, str]:
        """``adc.index_of`` and the clipping after it, in float32: whole numbers as i32."""
        w, n, floats = self.w, self.spec.lanes, self.floats
        extend = "sext" if self.spec.signed_sums else "zext"
        whole = w.do(f"{extend} {self.words} {value} to {self.longs}")
        position = w.do(f"sitofp {self.longs} {whole} to {floats}")
        if adc.step != 1.0:
            position = w.do(f"fdiv {floats} {position}, {self._float(adc.step)}")
        position = w.do(f"fsub {floats} {position}, {self._float(float(adc.low))}")
        index = w.do(f"call {floats} @llvm.rint.v{n}f32({floats} {position})")
        zero, top = self._float(0.0), self._float(float(self.spec.top))
        below, above = w.do(f"fcmp olt {floats} {index}, {zero}"), w.do(f"fcmp ogt {floats} {index}, {top}")
        count = self._counted(w.do(f"or <{n} x i1> {below}, {above}"), count)
        index = w.do(f"select <{n} x i1> {below}, {floats} {zero}, {floats} {index}")
        index = w.do(f"select <{n} x i1> {above}, {floats} {top}, {floats} {index}")
        return w.do(f"fptosi {floats} {index} to {self.longs}"), count

    def _float(self, value: float) -> str:
        """A float32 constant in every lane, written as LLVM wants it: the double of the same value in hexadecimal."""
        single = struct.unpack("f", struct.pack("f", value))[0]
        return splat("float", self.spec.lanes, "0x" + struct.pack(">d", single).hex().upper())

    def _counted(self, flags: str, count: str) -> str:
        """``count`` plus the lanes that are set."""
        w, n = self.w, self.spec.lanes
        bits = w.do(f"bitcast <{n} x i1> {flags} to i{n}")
        found = w.do(f"call i{n} @llvm.ctpop.i{n}(i{n} {bits})")
        wide = found if n == 64 else w.do(f"zext i{n} {found} to i64")
        return w.do(f"add i64 {count}, {wide}")

    def _shift_and_add(self, codes: Values) -> str:
        """Horner over the planes, in 16 bits where they suffice, then widened to 32."""
        w, spec, n = self.w, self.spec, self.spec.lanes
        magnitude = len(codes) - spec.negative_top
        most = spec.top * ((1 << magnitude) - 1)
        narrow = spec.analog is None and most < (1 << 15 if spec.negative_top else 1 << 16)
        kind, unit = (self.words, "i16") if narrow else (self.longs, "i32")
        parts = codes
        if not narrow and spec.analog is None:
            parts = [w.do(f"zext {self.words} {code} to {self.longs}") for code in codes]
        total = parts[magnitude - 1]
        for part in reversed(parts[: magnitude - 1]):
            total = w.do(f"shl {kind} {total}, {splat(unit, n, 1)}")
            total = w.do(f"add {kind} {total}, {part}")
        total = total if not narrow else w.do(f"zext {self.words} {total} to {self.longs}")
        if not spec.negative_top:
            return total
        sign = parts[-1] if not narrow else w.do(f"zext {self.words} {parts[-1]} to {self.longs}")
        worth = w.do(f"shl {self.longs} {sign}, {splat('i32', n, magnitude)}")
        return w.do(f"sub {self.longs} {total}, {worth}")
