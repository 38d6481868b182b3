"""Norms and softmax spelled in elementary operators."""

from __future__ import annotations

from cimc.ir.graph import Node
from cimc.passes.editor import merge_origins
from cimc.passes.patterns.match import Match


def norm(m: Match, node: Node) -> bool:
    """``x / sqrt(mean(x²) + ε)`` → ``rms_norm``; with ``x = z - mean(z)`` → ``layer_norm`` of z. As a quotient by the
    root, or a product with its reciprocal. Gain and bias stay a mul and an add."""
    for x, moment in _normalised(m, node):
        shifted = m.plus(moment)
        if shifted is None:
            continue
        mean, epsilon = shifted
        squares = m.mean(m.uncast(mean))
        base = m.squared(m.uncast(squares)) if squares is not None else None
        if base is None or not m.same(base, x) or m.shape(x) != m.shape(node.outputs[0]):
            continue
        z = _centred(m, x)
        nodes = [n for n in (node, m.by(mean, "reduce_mean", "mul", "div"), m.by(x, "sub")) if n is not None]
        m.editor.emit(
            "rms_norm" if z is None else "layer_norm",
            (x if z is None else z,),
            origins=merge_origins(nodes if z is not None else nodes[:2]),
            output=node.outputs[0],
            attrs=(("epsilon", epsilon),),
        )
        return True
    return False


def _normalised(m: Match, node: Node) -> list[tuple[str, str]]:
    """(x, v) for every way to read the node as ``x / sqrt(v)``."""
    a, b = node.inputs
    if node.op == "div":
        root = m.by(m.uncast(b), "sqrt")
        return [(a, root.inputs[0])] if root is not None else []
    pairs = ((a, _under_reciprocal_root(m, b)), (b, _under_reciprocal_root(m, a)))
    return [(x, v) for x, v in pairs if v is not None]


def _under_reciprocal_root(m: Match, value: str) -> str | None:
    """v where the value is ``1 / sqrt(v)``."""
    node = m.by(m.uncast(value), "rsqrt", "recip", "div", "pow")
    if node is None:
        return None
    if node.op == "rsqrt":
        return node.inputs[0]
    if node.op == "pow":
        return node.inputs[0] if m.scalar(node.inputs[1]) == -0.5 else None
    if node.op == "div" and m.scalar(node.inputs[0]) != 1:
        return None
    root = m.by(node.inputs[-1], "sqrt")
    return root.inputs[0] if root is not None else None


def _centred(m: Match, x: str) -> str | None:
    """z where x is ``z - mean(z)``."""
    node = m.by(x, "sub")
    if node is None:
        return None
    z, mean = node.inputs
    of = m.mean(mean)
    return z if of is not None and m.same(of, z) else None


def softmax(m: Match, node: Node) -> bool:
    """``e / sum(e)`` with ``e = exp(x - max(x))`` → ``softmax``."""
    e, total = node.inputs
    power, total_of = m.by(e, "exp"), m.by(total, "reduce_sum")
    if power is None or total_of is None or total_of.inputs[0] != e:
        return False
    difference = m.by(power.inputs[0], "sub")
    peak = m.by(difference.inputs[1], "reduce_max") if difference is not None else None
    if difference is None or peak is None or peak.inputs[0] != difference.inputs[0]:
        return False
    origins = merge_origins((node, power, difference))
    m.editor.emit("softmax", (difference.inputs[0],), origins=origins, output=node.outputs[0])
    return True
