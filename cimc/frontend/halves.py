"""Nodes on half-precision numbers that become several ops: computed in float32 and rounded once, where the model rounds,
not after every op. A node that is one op rounds once by itself."""

from __future__ import annotations

from dataclasses import replace

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Value
from cimc.frontend.call import Call, Operand, Result, Spelling
from cimc.frontend.record import OnnxGraph
from cimc.ir.graph import Node
from cimc.isa.operands import Element
from cimc.ops import OPS, Form

HALVES = (Element.F16, Element.BF16)
EXACT = frozenset(("select", "min", "max", "relu", "neg", "abs", "copy", "gather", "cast"))
"""Ops that round nothing."""
DEFERRED = 4096
"""Constants of more elements are widened when needed only."""


def translate(found: Spelling, c: Call) -> tuple[Operand, ...]:
    """The node's outputs; if its ops would round half-precision numbers more than once, as one rounding."""
    before = c.b.count
    narrow = _tuple(found.translate(c))
    if any(isinstance(v, OnnxGraph) for v in c.node.attributes.values()) or _roundings(c.b, before) < 2:
        return narrow
    wide = _tuple(found.translate(replace(c, inputs=tuple(_widened(c.b, v) for v in c.inputs))))
    return tuple(_like(c.b, y, old) for y, old in zip(wide, narrow, strict=True))


def _tuple(result: Result) -> tuple[Operand, ...]:
    return (result,) if isinstance(result, Value) else tuple(result)


def _roundings(b: Builder, since: int) -> int:
    return sum(_rounds(b, n) for n in b.nodes_from(since))


def _rounds(b: Builder, node: Node) -> bool:
    if node.op in EXACT or OPS[node.op].form is not Form.ROWWISE:
        return False
    return any(b.element(v) in HALVES for v in node.outputs)


def _widened(b: Builder, operand: Operand) -> Operand:
    if not isinstance(operand, Value) or operand.element not in HALVES:
        return operand
    before, b.deferred = b.deferred, b.deferred or operand.type.size > DEFERRED
    try:
        return f.cast(b, operand, Element.F32)
    finally:
        b.deferred = before


def _like(b: Builder, y: Operand, old: Operand) -> Operand:
    return f.cast(b, y, old.element) if isinstance(y, Value) and isinstance(old, Value) else y
