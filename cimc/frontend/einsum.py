"""Einstein sums as transposes, reshapes and matrix products, two operands at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Value
from cimc.frontend.call import Call, NeedsHost, spelling


@dataclass(frozen=True)
class Term:
    """An operand and the letter of each of its axes."""

    value: Value
    letters: str


@spelling("Einsum", note="products become matmuls; a letter twice in one operand is left to the host")
def einsum(c: Call) -> Value:
    """The equation's operands multiplied and summed over the letters that the result lacks."""
    terms, result = _parsed(c)
    for t in terms:
        if len(set(t.letters)) != len(t.letters):
            raise NeedsHost("a diagonal: a letter occurs twice in one operand")
    total = terms[0]
    for i, t in enumerate(terms[1:], 2):
        later = {letter for rest in terms[i:] for letter in rest.letters}
        total = _multiplied(c.b, total, t, later | set(result))
    total = _summed(c.b, total, result)
    return f.transpose(c.b, total.value, [total.letters.index(letter) for letter in result])


def _parsed(c: Call) -> tuple[list[Term], str]:
    """Operands with letters, an ellipsis spelled out with digits-as-letters, and the result's letters."""
    equation = "".join(c.text("equation").split())
    left, arrow, result = equation.partition("->")
    names = left.split(",")
    values = c.tensors()
    if len(names) != len(values):
        raise Impossible(f"equation {equation!r} for {len(values)} operands")
    widths = [v.rank - len(n.replace("...", "")) for n, v in zip(names, values, strict=True) if "..." in n]
    width = max(widths, default=0)
    terms: list[Term] = []
    for name, v in zip(names, values, strict=True):
        dots = _dots(v.rank - len(name.replace("...", "")), width)
        letters = name.replace("...", dots)
        plain = name.replace("...", "")
        if len(letters) != v.rank or (plain and not plain.isalpha()):
            raise Impossible(f"equation {equation!r}: {name!r} for {v.type}")
        terms.append(Term(v, letters))
    if not arrow:
        every = left.replace(",", "").replace("...", "")
        result = ("..." if widths else "") + "".join(sorted(x for x in set(every) if every.count(x) == 1))
    result = result.replace("...", _dots(width, width))
    known = {letter for t in terms for letter in t.letters}
    if len(set(result)) != len(result) or not set(result) <= known:
        raise Impossible(f"equation {equation!r}: the result names a letter twice or one that no operand has")
    return terms, result


def _dots(count: int, width: int) -> str:
    """Letters of an ellipsis over ``count`` of ``width`` axes, right-aligned; digits cannot occur in an equation."""
    return "".join(chr(0x1000 + width - count + i) for i in range(max(count, 0)))


def _summed(b: Builder, t: Term, keep: str | set[str]) -> Term:
    axes = [i for i, letter in enumerate(t.letters) if letter not in keep]
    if not axes:
        return t
    return Term(f.reduce(b, "reduce_sum", t.value, axes, keep=False), "".join(x for x in t.letters if x in keep))


def _multiplied(b: Builder, x: Term, y: Term, keep: set[str]) -> Term:
    """The product of two operands, summed over shared letters that nothing later needs."""
    x = _summed(b, x, keep | set(y.letters))
    y = _summed(b, y, keep | set(x.letters))
    shared = [n for n in x.letters if n in y.letters]
    batch = [n for n in shared if n in keep]
    summed = [n for n in shared if n not in keep]
    rows = [n for n in x.letters if n not in shared]
    columns = [n for n in y.letters if n not in shared]
    extent = _extents(x, y)
    left = _grouped(b, x, (batch, rows, summed), extent)
    right = _grouped(b, y, (batch, summed, columns), extent)
    z = f.matmul(b, left, right)
    letters = [*batch, *rows, *columns]
    return Term(f.reshape(b, z, [extent[n] for n in letters]), "".join(letters))


def _extents(x: Term, y: Term) -> dict[str, int]:
    extent: dict[str, int] = {}
    for t in (x, y):
        for letter, n in zip(t.letters, t.value.shape, strict=True):
            if extent.get(letter, n) not in (n, 1) and n != 1:
                raise Impossible(f"einsum of {x.value.type} and {y.value.type}: an axis has {extent[letter]} and {n}")
            extent[letter] = max(extent.get(letter, 1), n) if n else 0
    return extent


def _grouped(b: Builder, t: Term, groups: tuple[Sequence[str], ...], extent: dict[str, int]) -> Value:
    """Axes in the order of three groups: the first kept, the others merged into one axis each. No batch: a matrix, so
    that constant weights are seen as one."""
    order = [n for g in groups for n in g]
    v = f.transpose(b, t.value, [t.letters.index(n) for n in order])
    v = f.expand(b, v, [extent[n] for n in order])
    return f.reshape(b, v, (*(extent[n] for n in groups[0]), *(math.prod(extent[n] for n in g) for g in groups[1:])))
