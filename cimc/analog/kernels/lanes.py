"""Vectors of 32-bit numbers in kernels: their arithmetic, and the normal numbers of a stream by counter.

Each function of :mod:`cimc.analog.normal` that is named here is computed to the bit.
"""

from __future__ import annotations

import struct

from cimc.analog.kernels.ir import Values, Writer, splat
from cimc.analog.kernels.jit import target
from cimc.analog.normal import CENTRE, LN2, LOG, MIX, ROOT_HALF, SIGN, STEP, TAIL


def kernel_lanes() -> int:
    """Numbers of 32 bits to a vector of this machine; 0 without a compiler."""
    here = target()
    return 0 if here is None else here.shuffles[0].width // 4


class LaneWriter:
    """Arithmetic on ``lanes`` 32-bit numbers at a time."""

    def __init__(self, lanes: int) -> None:
        self.w = Writer()
        self.lanes = lanes
        self.longs = f"<{lanes} x i32>"
        self.floats = f"<{lanes} x float>"

    def long(self, operation: str, a: str, b: str | int) -> str:
        """``a operation b`` on whole numbers; ``b`` may be a constant."""
        other = b if isinstance(b, str) else splat("i32", self.lanes, b)
        return self.w.do(f"{operation} {self.longs} {a}, {other}")

    def real(self, operation: str, a: str, b: str | float) -> str:
        """``a operation b`` in float32; ``b`` may be a constant."""
        other = b if isinstance(b, str) else self.constant(b)
        return self.w.do(f"{operation} {self.floats} {a}, {other}")

    def constant(self, value: float) -> str:
        """A float32 in every lane, written as LLVM wants it: the double of the same value in hexadecimal."""
        single = struct.unpack("f", struct.pack("f", value))[0]
        return splat("float", self.lanes, "0x" + struct.pack(">d", single).hex().upper())

    def everywhere(self, kind: str, value: str) -> str:
        """One number in every lane."""
        vector = f"<{self.lanes} x {kind}>"
        single = self.w.do(f"insertelement {vector} poison, {kind} {value}, i64 0")
        return self.w.do(f"shufflevector {vector} {single}, {vector} poison, <{self.lanes} x i32> zeroinitializer")

    def as_floats(self, value: str) -> str:
        """The same bits as float32."""
        return self.w.do(f"bitcast {self.longs} {value} to {self.floats}")

    def as_longs(self, value: str) -> str:
        """The same bits as whole numbers."""
        return self.w.do(f"bitcast {self.floats} {value} to {self.longs}")

    def to_float(self, value: str) -> str:
        """Whole numbers, rounded to float32."""
        return self.w.do(f"sitofp {self.longs} {value} to {self.floats}")

    def segment(self, bits: str, lowest: str, most: str, fraction: int) -> tuple[str, str]:
        """Of numbers given by their bits: which segment of a curve's table they lie in, 0 to ``most >> fraction``, and how
        far in it, 0 to 1. ``lowest`` are the bits of where the table begins."""
        bits = self.long("sub", bits, lowest)
        bits = self._clamp("smin", self._clamp("smax", bits, "zeroinitializer"), most)
        part = self.to_float(self.long("and", bits, (1 << fraction) - 1))
        return self.long("ashr", bits, fraction), self.real("fmul", part, 2.0**-fraction)

    def _clamp(self, name: str, a: str, b: str) -> str:
        return self.w.do(f"call {self.longs} @llvm.{name}.v{self.lanes}i32({self.longs} {a}, {self.longs} {b})")

    def horner(self, coefficients: tuple[float, ...], x: str) -> str:
        """A polynomial, highest power first."""
        total = self.constant(coefficients[0])
        for coefficient in coefficients[1:]:
            total = self.real("fadd", self.real("fmul", total, x), coefficient)
        return total

    def mix(self, word: str) -> str:
        """``normal.mix``."""
        word = self._fold(word, 16)
        word = self._fold(self.long("mul", word, MIX[0]), 15)
        return self._fold(self.long("mul", word, MIX[1]), 15)

    def _fold(self, word: str, shift: int) -> str:
        return self.long("xor", word, self.long("lshr", word, shift))

    def hashed(self, counter: str, keys: tuple[str, str]) -> str:
        """``normal.hashed``."""
        word = self.long("add", self.long("mul", counter, STEP), keys[0])
        return self.mix(self.long("xor", self.mix(word), keys[1]))

    def normal(self, word: str) -> str:
        """``normal.normal_of``."""
        t = self.to_float(self.long("and", word, SIGN - 1))
        t = self.real("fmul", self.real("fadd", t, 0.5), 2.0**-32)
        ones = self.constant(1.0)
        product = self.real("fmul", self.real("fmul", t, 4.0), self.real("fsub", ones, t))
        w = self.w.do(f"fneg {self.floats} {self._log(product)}")
        centre = self.horner(CENTRE, self.real("fsub", w, 2.5))
        far = self.w.do(f"fcmp uge {self.floats} {w}, {self.constant(5.0)}")

        def tail(_: str, near: Values) -> Values:
            positive = self.above_zero(w)
            root = self.w.do(f"call {self.floats} @llvm.sqrt.v{self.lanes}f32({self.floats} {positive})")
            return [self.select(far, self.horner(TAIL, self.real("fsub", root, 3.0)), near[0])]

        # Few vectors have a lane beyond 2.7 sigma: a loop of no or one turn.
        bits = self.w.do(f"bitcast <{self.lanes} x i1> {far} to i{self.lanes}")
        some = self.w.do(f"zext i1 {self.w.do(f'icmp ne i{self.lanes} {bits}, 0')} to i64")
        quotient = self.w.loop("0", some, "1", [(self.floats, centre)], tail)[0]
        x = self.real("fsub", ones, self.real("fmul", t, 2.0))
        size = self.real("fmul", quotient, x)
        return self.as_floats(self.long("xor", self.as_longs(size), self.long("and", word, SIGN)))

    def select(self, flags: str, a: str, b: str) -> str:
        """``a`` where a flag is set, else ``b``."""
        return self.w.do(f"select <{self.lanes} x i1> {flags}, {self.floats} {a}, {self.floats} {b}")

    def above_zero(self, x: str) -> str:
        """``max(x, 0)``."""
        zero = self.constant(0.0)
        return self.select(self.w.do(f"fcmp ogt {self.floats} {x}, {zero}"), x, zero)

    def _log(self, x: str) -> str:
        bits = self.long("sub", self.as_longs(x), ROOT_HALF)
        exponent = self.to_float(self.long("ashr", bits, 23))
        mantissa = self.long("add", self.long("and", bits, 0x007FFFFF), ROOT_HALF)
        f = self.real("fsub", self.as_floats(mantissa), 1.0)
        square = self.real("fmul", f, f)
        rest = self.real("fmul", self.real("fmul", self.horner(LOG, f), f), square)
        rest = self.real("fsub", rest, self.real("fmul", square, 0.5))
        return self.real("fadd", self.real("fmul", exponent, LN2), self.real("fadd", f, rest))


class StreamWriter(LaneWriter):
    """Lanes that take normal numbers of the stream whose two keys are the function's arguments ``%key`` and ``%second``."""

    def __init__(self, lanes: int) -> None:
        super().__init__(lanes)
        w = self.w
        self.keys = (
            self.everywhere("i32", w.do("trunc i64 %key to i32")),
            self.everywhere("i32", w.do("trunc i64 %second to i32")),
        )
        self.iota = "<" + ", ".join(f"i32 {i}" for i in range(lanes)) + ">"

    @property
    def declared(self) -> str:
        """Declarations that such a function needs."""
        return f"declare {self.floats} @llvm.sqrt.v{self.lanes}f32({self.floats})\n"

    def numbers(self, place: str) -> str:
        """The stream's normal numbers from ``place`` on."""
        counter = self.long("add", self.everywhere("i32", self.w.do(f"trunc i64 {place} to i32")), self.iota)
        return self.normal(self.hashed(counter, self.keys))

    def scattered(self, goal: str, error: str, relative: bool) -> str:
        """``max(goal + error, 0)``; ``relative``: ``max(goal * (1 + error), 0)``."""
        if relative:
            return self.above_zero(self.real("fmul", goal, self.real("fadd", error, 1.0)))
        return self.above_zero(self.real("fadd", goal, error))
