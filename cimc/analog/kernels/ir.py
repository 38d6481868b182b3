"""A small writer of LLVM IR text: fresh names, loops with carried values, vector helpers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Values = list[str]

PAIRWISE = {64: "llvm.x86.avx512.pmaddw.d.512", 32: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.sse2.pmadd.wd"}
"""Pairs of 16-bit numbers multiplied and each pair added, by the width of the machine's vectors in bytes."""


class Writer:
    """Collects the lines of one function. Every method returns the name of the value it defines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._next = 0
        self.block = "entry"

    def fresh(self, stem: str = "v") -> str:
        """A name not used before."""
        self._next += 1
        return f"{stem}{self._next}"

    def emit(self, text: str) -> None:
        """One instruction without a result."""
        self.lines.append(f"  {text}")

    def do(self, text: str) -> str:
        """One instruction with a result."""
        name = "%" + self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def at(self, kind: str, base: str, *terms: str) -> str:
        """Address of element ``sum(terms)`` of an array of ``kind``."""
        index = terms[0]
        for term in terms[1:]:
            index = self.do(f"add i64 {index}, {term}")
        return self.do(f"getelementptr {kind}, ptr {base}, i64 {index}")

    def load(self, kind: str, base: str, *terms: str, unit: str = "i8") -> str:
        """A vector at element ``sum(terms)`` of an array of ``unit``; no alignment is assumed."""
        return self.do(f"load {kind}, ptr {self.at(unit, base, *terms)}, align 1")

    def store(self, kind: str, value: str, base: str, *terms: str, unit: str = "i8") -> None:
        """The reverse of ``load``."""
        self.emit(f"store {kind} {value}, ptr {self.at(unit, base, *terms)}, align 1")

    def loop(
        self,
        start: str,
        stop: str,
        step: str,
        carried: Sequence[tuple[str, str]],
        body: Callable[[str, Values], Values],
    ) -> Values:
        """``for i in start..stop step``: ``carried`` are (type, first value); ``body(i, values)`` gives the next ones.

        The body runs zero times if ``start >= stop``. Returns the values after the loop.
        """
        head, inside, done = self.fresh("head"), self.fresh("body"), self.fresh("done")
        before = self.block
        self.emit(f"br label %{head}")
        self.lines.append(f"{head}:")
        index = "%" + self.fresh("i")
        names = ["%" + self.fresh("c") for _ in carried]
        mark = len(self.lines)
        follow = "%" + self.fresh("t")
        self.emit(f"{follow} = icmp slt i64 {index}, {stop}")
        self.emit(f"br i1 {follow}, label %{inside}, label %{done}")
        self.lines.append(f"{inside}:")
        self.block = inside
        after = body(index, names)
        bumped = self.do(f"add i64 {index}, {step}")
        self.emit(f"br label %{head}")
        latch = self.block
        phis = [f"  {index} = phi i64 [ {start}, %{before} ], [ {bumped}, %{latch} ]"]
        for (kind, first), name, value in zip(carried, names, after, strict=True):
            phis.append(f"  {name} = phi {kind} [ {first}, %{before} ], [ {value}, %{latch} ]")
        self.lines[mark:mark] = phis
        self.lines.append(f"{done}:")
        self.block = done
        return names


def splat(kind: str, lanes: int, value: int | float | str) -> str:
    """A constant vector with ``value`` in every lane."""
    text = repr(value) if isinstance(value, float) else str(value)
    return "<" + ", ".join(f"{kind} {text}" for _ in range(lanes)) + ">"


def function(name: str, arguments: str, writer: Writer, declarations: str = "") -> str:
    """The module's text."""
    body = "\n".join(writer.lines)
    return f"{declarations}\ndefine void @{name}({arguments}) {{\nentry:\n{body}\n  ret void\n}}\n"
