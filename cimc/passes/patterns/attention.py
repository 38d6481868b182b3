"""Scaled dot-product attention spelled as matmuls around a softmax."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cimc.ir.graph import Node
from cimc.ir.levels import FLOATS
from cimc.isa.operands import Element
from cimc.ops.op import broadcast
from cimc.passes.editor import merge_origins
from cimc.passes.patterns.heads import Operands, on_lead, ungrouped, unshaped, write
from cimc.passes.patterns.match import Match

_ABSORBS = {Element.F64: -1e300, Element.F32: -1e30}
"""A masked score replaced by a number this low equals the score plus that number exactly: the score, of ordinary
size, is below half a unit in its last place. Half precision has no such finite number."""

_DEEPEST = 6
"""How many scales and masks may lie between the matmul and the softmax."""


@dataclass(frozen=True)
class _Mask:
    """A mask that is added (``value``), or that says by ``condition`` where the scores stay and where they are
    ``value``."""

    value: str
    condition: str = ""
    keeps: bool = True


@dataclass(frozen=True)
class _Scores:
    """What the softmax is taken of: ``scale · q · k`` plus the masks."""

    q: str
    k: str
    scale: float
    lead: tuple[int, ...]
    """Leading extents at the masks, or of the product if there is no mask."""
    nodes: tuple[Node, ...]
    masks: tuple[_Mask, ...] = ()


def attention(m: Match, node: Node) -> bool:
    """``softmax(scale · q · k + mask) · v`` → ``attention``; the weights must have no other reader.

    - The scale may stand on the scores, on q, on k, or be split over q and k. - Masks are added; ``select(keep,
    scores, low)`` counts as added if that gives the same scores: low is -inf, or so low
      that adding it to a score of ordinary size gives it exactly.
    - A guard ``select(isnan(p), 0, p)`` around the softmax moves to the result, unless no row can be masked altogether.
    - Reshapes that keep the last two axes (heads folded into the batch) are looked through.
    - Heads repeated for grouped queries are not repeated: the leading axes broadcast instead.
    """
    weights, guard = _weights(m, node.inputs[0])
    if weights is None or node.get("scale", 1.0) != 1.0:
        return False
    scores = _scores(m, weights.inputs[0], _DEEPEST)
    operands = _operands(m, node, scores) if scores is not None else None
    if scores is None or operands is None:
        return False
    (q, q_factor), (k, k_factor) = m.unscaled(operands.q), m.unscaled(operands.k)
    origins = merge_origins((node, weights, *scores.nodes))
    led = on_lead(m, replace(operands, q=q, k=k), origins, node.outputs[0])
    if led is None:
        return False
    scale = scores.scale * q_factor * k_factor
    mask = _one_mask(m, scores.masks, node)
    write(m, node, ungrouped(m, replace(led, mask=mask), origins), scale, origins, guard=guard)
    return True


def _weights(m: Match, value: str) -> tuple[Node | None, bool]:
    """The softmax behind the matmul's first operand, if nobody else reads it, and whether a guard stands around it."""
    value = _privately(m, value)
    guard = m.by(value, "select")
    if guard is None:
        node = m.by(value, "softmax")
        return (node, False) if node is not None and m.only_reader(value) else (None, False)
    condition, zero, p = guard.inputs
    test = m.by(condition, "isnan")
    if test is None or test.inputs[0] != p or m.scalar(zero) != 0 or not m.only_reader(value):
        return None, False
    return m.by(p, "softmax"), True


def _privately(m: Match, value: str) -> str:
    """The value before casts that lose nothing or come back, and reshapes that keep the last two axes, as long as
    only one node reads it."""
    while m.only_reader(value):
        node = m.by(value, "cast", "reshape")
        if node is None or m.shape(node.inputs[0])[-2:] != m.shape(value)[-2:]:
            break
        if node.op == "cast" and m.element(node.inputs[0]) not in FLOATS:
            break
        value = node.inputs[0]
    return value


def _scores(m: Match, value: str, depth: int) -> _Scores | None:
    """Read a value as scaled and masked scores."""
    value = unshaped(m, value)
    node = m.by(value, "matmul", "add", "select", "mul", "div")
    if node is None or depth == 0 or not m.only_reader(value):
        return None
    if node.op == "matmul":
        scale = node.number("scale", 1.0)
        q, k = node.inputs
        return _Scores(q, k, scale, m.shape(value)[:-2], (node,))
    if node.op in ("mul", "div"):
        found = m.scaled(value)
        inner = _scores(m, found[0], depth - 1) if found is not None else None
        if found is None or inner is None or inner.masks:
            return None  # a scale after a mask would scale the mask
        return replace(inner, scale=inner.scale * found[1], nodes=(node, *inner.nodes))
    return _masked(m, node, _added(node) if node.op == "add" else _selected(m, node), depth)


def _masked(m: Match, node: Node, readings: list[tuple[str, _Mask]], depth: int) -> _Scores | None:
    shape = m.shape(node.outputs[0])
    for below, mask in readings:
        inner = _scores(m, below, depth - 1) if m.shape(below) == shape else None
        if inner is None or (inner.masks and inner.lead != shape[:-2]):
            continue
        return replace(inner, lead=shape[:-2], nodes=(node, *inner.nodes), masks=(*inner.masks, mask))
    return None


def _added(node: Node) -> list[tuple[str, _Mask]]:
    a, b = node.inputs
    return [(a, _Mask(b)), (b, _Mask(a))]


def _selected(m: Match, node: Node) -> list[tuple[str, _Mask]]:
    condition, a, b = node.inputs
    readings = ((a, _Mask(b, condition)), (b, _Mask(a, condition, keeps=False)))
    return [(below, mask) for below, mask in readings if _replaces_as_it_adds(m, mask.value)]


def _replaces_as_it_adds(m: Match, low: str) -> bool:
    number = m.scalar(low)
    if number is None:
        return False
    return number == -np.inf or number <= _ABSORBS.get(m.element(low), -np.inf)


def _operands(m: Match, node: Node, scores: _Scores) -> Operands | None:
    """q, k, v and their leading extents, if all is of one element type and the masks fit."""
    element = m.element(node.outputs[0])
    v = node.inputs[1]
    if element not in FLOATS or any(m.element(x) is not element for x in (scores.q, scores.k, v)):
        return None
    whole = (*scores.lead, m.shape(scores.q)[-2], m.shape(scores.k)[-1])
    for mask in scores.masks:
        if m.element(mask.value) is not element:
            return None
        shape = broadcast(m.shape(mask.value), m.shape(mask.condition) if mask.condition else ())
        if broadcast(shape, whole) != whole:
            return None
    return Operands(scores.q, scores.k, v, scores.lead)


def _one_mask(m: Match, masks: tuple[_Mask, ...], node: Node) -> str:
    """The masks as one value to add; empty if there is none."""
    editor, total = m.editor, ""
    for mask in masks:
        value = mask.value
        if mask.condition:
            zero = editor.number(0.0, m.element(value))
            branches = (zero, value) if mask.keeps else (value, zero)
            output = editor.fresh(f"{node.outputs[0]}.mask")
            value = editor.emit("select", (mask.condition, *branches), origins=node.origins, output=output)
        elif (source := m.by(value, "expand")) is not None:
            value = source.inputs[0]  # masks broadcast by themselves
        if total:
            output = editor.fresh(f"{node.outputs[0]}.masks")
            value = editor.emit("add", (total, value), origins=node.origins, output=output)
        total = value
    return total
