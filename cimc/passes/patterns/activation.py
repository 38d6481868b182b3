"""Activation functions spelled in elementary operators."""

from __future__ import annotations

import math

from cimc.ir.graph import Node
from cimc.passes.editor import merge_origins
from cimc.passes.patterns.match import Match


def silu(m: Match, node: Node) -> bool:
    """``x · sigmoid(x)`` → ``silu``."""
    a, b = node.inputs
    for x, other in ((a, b), (b, a)):
        gate = m.by(other, "sigmoid")
        if gate is not None and gate.inputs[0] == x:
            m.editor.emit("silu", (x,), origins=merge_origins((node, gate)), output=node.outputs[0])
            return True
    return False


def gelu(m: Match, node: Node) -> bool:
    """``½ · x · (1 + erf(x / √2))`` → ``gelu``, ``½ · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`` → ``gelu_tanh``,
    in any order of the factors (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    y = node.outputs[0]
    for gate in m.factors(y)[1]:
        found = _one_plus(m, gate)
        if found is None:
            continue
        inner, factor = found
        x = _erf_argument(m, inner) if inner.op == "erf" else _tanh_argument(m, inner)
        if x is None or m.shape(x) != m.shape(y):
            continue
        number, values = m.factors(y, whole=(x, gate))
        if sorted(values) == sorted((x, gate)) and m.close(y, number * factor, 0.5):
            op = "gelu" if inner.op == "erf" else "gelu_tanh"
            m.editor.emit(op, (x,), origins=merge_origins((node, inner)), output=y)
            return True
    return False


def _one_plus(m: Match, value: str) -> tuple[Node, float] | None:
    """(f, c) where the value is ``c · (1 + f)`` with f an erf or tanh."""
    shifted = m.plus(value)
    if shifted is None:
        return None
    inner, factor = m.unscaled(shifted[0])
    node = m.by(inner, "erf", "tanh")
    return (node, factor) if node is not None and m.close(value, factor, shifted[1]) else None


def _erf_argument(m: Match, node: Node) -> str | None:
    """x where the node is ``erf(x / √2)``."""
    return _unscaled_by(m, node.inputs[0], math.sqrt(0.5))


def _unscaled_by(m: Match, value: str, wanted: float) -> str | None:
    """x where the value is ``x · wanted``, however the number is spread over products."""
    found, factor = m.scaled(value), 1.0
    while found is not None:
        value, number = found
        factor *= number
        if m.close(value, factor, wanted):
            return value
        found = m.scaled(value)
    return None


def _tanh_argument(m: Match, node: Node) -> str | None:
    """x where the node is ``tanh(√(2/π) · (x + 0.044715 · x³))`` or ``tanh(√(2/π) · x · (1 + 0.044715 · x²))``."""
    top = math.sqrt(2 / math.pi)
    polynomial = _unscaled_by(m, node.inputs[0], top)
    total = m.by(polynomial, "add") if polynomial is not None else None
    if total is not None:
        a, b = total.inputs
        return next((x for x, cube in ((a, b), (b, a)) if _is_power(m, cube, x, 3)), None)
    number, values = m.factors(node.inputs[0])
    if len(values) != 2 or not m.close(node.outputs[0], number, top):
        return None
    a, b = values
    return next((x for x, rest in ((a, b), (b, a)) if _is_one_plus_square(m, rest, x)), None)


def _is_power(m: Match, value: str, x: str, exponent: int) -> bool:
    number, values = m.factors(value, whole=(x,))
    return values == [x] * exponent and m.close(value, number, 0.044715)


def _is_one_plus_square(m: Match, value: str, x: str) -> bool:
    shifted = m.plus(value)
    return shifted is not None and shifted[1] == 1 and _is_power(m, shifted[0], x, 2)
