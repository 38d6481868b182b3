"""Arithmetic on numbers that stand upright: one vector per bit, a lane of one bit per number.

An adder of three bits is two instructions where the machine has one for any function of three bits (AVX-512), five
elsewhere; it adds 128 to 512 numbers at once. Constants cost nothing, a shift is a renaming.
"""

from __future__ import annotations

from cimc.analog.kernels.ir import Values, Writer

# Functions of three bits a, b, c, as the eight results for abc = 111 .. 000.
XOR, MAJORITY = 0x96, 0xE8
ZERO = "zeroinitializer"


class BitWriter:
    """Writes logic on vectors of ``width`` bytes; ``ternary``: the machine has any function of three bits at once."""

    def __init__(self, width: int, ternary: bool) -> None:
        self.w = Writer()
        self.width = width
        self.ternary = ternary
        self.lanes = width // 8
        self.kind = f"<{self.lanes} x i64>"
        self.ones = "<" + ", ".join(["i64 -1"] * self.lanes) + ">"

    def declarations(self) -> str:
        """The intrinsics in use."""
        declared = f"declare {self.kind} @llvm.ctpop.v{self.lanes}i64({self.kind})\n"
        if self.ternary:
            three = ", ".join([self.kind] * 3)
            declared += f"declare {self.kind} @{self._intrinsic}({three}, i32)\n"
        return declared

    @property
    def _intrinsic(self) -> str:
        return f"llvm.x86.avx512.pternlog.q.{self.width * 8}"

    def constant(self, bit: int) -> str:
        """The same bit in every lane."""
        return self.ones if bit else ZERO

    def both(self, operation: str, a: str, b: str) -> str:
        """``a operation b``."""
        return self.w.do(f"{operation} {self.kind} {a}, {b}")

    def invert(self, a: str) -> str:
        """Every bit the other way."""
        return self.both("xor", a, self.ones)

    def three(self, function: int, a: str, b: str, c: str) -> str:
        """A function of three bits, as its eight results."""
        if self.ternary:
            kind = self.kind
            return self.w.do(f"call {kind} @{self._intrinsic}({kind} {a}, {kind} {b}, {kind} {c}, i32 {function})")
        if function == MAJORITY:
            return self.both("or", self.both("and", a, b), self.both("and", c, self.both("xor", a, b)))
        return self._polynomial(function, (a, b, c))

    def _polynomial(self, function: int, bits: tuple[str, str, str]) -> str:
        """Reed and Muller's form: products of bits, added modulo 2."""
        found = [(function >> i) & 1 for i in range(8)]
        for j in (1, 2, 4):
            found = [value ^ (found[i ^ j] if i & j else 0) for i, value in enumerate(found)]
        total = self.constant(found[0])
        for i in range(1, 8):
            if found[i]:
                product = self.ones
                for j, bit in zip((4, 2, 1), bits, strict=True):
                    product = self.both("and", product, bit) if i & j else product
                total = self.both("xor", total, product)
        return total

    def added(self, a: str, b: str, c: str) -> tuple[str, str]:
        """Three bits added: the low and the high bit."""
        return self.three(XOR, a, b, c), self.three(MAJORITY, a, b, c)

    def carried(self, number: Values, first: int, carry: str) -> Values:
        """``number`` with ``carry`` added to its bit ``first``, modulo its length."""
        result = list(number)
        for i in range(first, len(number)):
            result[i] = self.both("xor", number[i], carry)
            if i + 1 < len(number):
                carry = self.both("and", number[i], carry)
        return result

    def divided(self, number: Values, step: int) -> tuple[Values, str]:
        """A whole number by a constant: the quotient, and a bit that is set where something remained."""
        even = (step & -step).bit_length() - 1
        odd = step >> even
        left: Values = number[:even]
        if odd == 1 or len(number) <= even:
            return number[even:] or [ZERO], self._any(left)
        rest, most, quotient = Values(), 0, Values()
        for bit in reversed(number[even:]):
            rest, most = [bit, *rest], 2 * most + 1
            if most < odd:
                quotient.append(ZERO)
                continue
            rest, fits = self._reduced(rest, odd)
            most = odd - 1
            quotient.append(fits)
        return quotient[::-1], self._any([*left, *rest])

    def _reduced(self, rest: Values, odd: int) -> tuple[Values, str]:
        """``rest``, below twice ``odd``, less ``odd`` where that fits; and where it did."""
        kept = (odd - 1).bit_length()
        if len(rest) <= 3:
            bits = ([*rest, ZERO])[:3] if len(rest) < 3 else rest
            after = [v - odd if v >= odd else v for v in range(8)]
            fits = sum((v >= odd) << v for v in range(8))
            return [
                self.three(sum(((after[v] >> i) & 1) << v for v in range(8)), bits[2], bits[1], bits[0])
                for i in range(kept)
            ], self.three(fits, bits[2], bits[1], bits[0])
        borrows = [ZERO]
        for i, bit in enumerate(rest):
            other = self.invert(bit)
            borrows.append(self.both("or" if (odd >> i) & 1 else "and", other, borrows[-1]))
        fits = self.invert(borrows[-1])
        result: Values = []
        for i in range(kept):
            less = self.invert(borrows[i]) if (odd >> i) & 1 else borrows[i]
            result.append(self.both("xor", rest[i], self.both("and", fits, less)))
        return result, fits

    def above(self, number: Values, limit: int) -> str:
        """Where a whole number is greater than a constant."""
        found = ZERO
        for i, bit in enumerate(number):
            found = self.both("and" if (limit >> i) & 1 else "or", found, bit)
        return found

    def _any(self, bits: Values) -> str:
        found = ZERO
        for bit in bits:
            found = self.both("or", found, bit)
        return found
