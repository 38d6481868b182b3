"""What stands behind a value of a quantised model: moves of ``scale · (codes - zero)``, spelled in single ops."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cimc.ir.graph import Node
from cimc.ir.levels import FLOATS
from cimc.isa.operands import Element
from cimc.passes.editor import Editor

BYTES = (Element.I8, Element.U8)
MOVES = frozenset(("reshape", "transpose", "slice", "window", "pad"))
"""Ops that only move elements, so that they may come before dequantising instead of after it."""


@dataclass(frozen=True)
class Codes:
    """A value as ``scale · (codes - zero)``: names of the codes, of the scale and of the zero point ("" for none), and
    the moves that lead from the codes to the value. ``axis``: along which scale and zero point vary, before the moves;
    -1 if they are scalars."""

    codes: str
    scale: str
    zero: str
    axis: int
    moves: tuple[Node, ...]


def chain(editor: Editor, value: str, ops: tuple[str, ...]) -> list[Node] | None:
    """The nodes behind a value, each the first operand's producer, if they are these ops."""
    found: list[Node] = []
    for op in ops:
        node = editor.producer.get(value)
        if node is None or node.op != op:
            return None
        found.append(node)
        value = node.inputs[0]
    return found


def dequantized(editor: Editor, value: str) -> Codes | None:
    """What stands behind a value, if it is moves of a dequantised tensor of 8-bit integers."""
    moves: list[Node] = []
    node = editor.producer.get(value)
    while node is not None and node.op in MOVES:
        if node.op == "pad" and node.get("value", 0.0) != 0:
            return None
        moves.append(node)
        node = editor.producer.get(node.inputs[0])
    if node is None or node.op != "mul" or editor.types[value].element not in FLOATS:
        return None
    wide, scale = node.inputs
    if editor.is_constant(wide):
        wide, scale = scale, wide
    if editor.types[wide].shape != editor.types[node.outputs[0]].shape:
        return None
    return _centred(editor, wide, scale, tuple(reversed(moves)))


def _centred(editor: Editor, wide: str, scale: str, moves: tuple[Node, ...]) -> Codes | None:
    node, zero = editor.producer.get(wide), ""
    if node is not None and node.op == "sub":
        zero = node.inputs[1]
        node = editor.producer.get(node.inputs[0])
    if node is None or node.op != "cast" or not editor.is_constant(scale):
        return None
    codes = node.inputs[0]
    whole = editor.types[codes]
    axis = _axis(editor, whole.shape, scale)
    if whole.element not in BYTES or axis is None or (zero and not editor.is_constant(zero)):
        return None
    along = _axis(editor, whole.shape, zero) if zero else -1
    return None if along is None or along not in (-1, axis) else Codes(codes, scale, zero, axis, moves)


def _axis(editor: Editor, shape: tuple[int, ...], vector: str) -> int | None:
    """The axis of ``shape`` that a scale varies along; -1 for a scalar, None for more than one axis."""
    extents = editor.types[vector].shape
    wide = (1,) * (len(shape) - len(extents)) + extents
    varying = [a for a, n in enumerate(wide) if n != 1]
    if len(varying) > 1 or len(wide) != len(shape):
        return None
    return varying[0] if varying else -1


def per_column(editor: Editor, w: Codes, value: str) -> bool:
    """Whether the scales, after the moves, vary along the columns only."""
    axis: int | None = w.axis
    for move in w.moves:
        if axis is not None and axis >= 0:
            axis = _follow(move, editor.types[move.inputs[0]].shape, axis, editor)
    return axis is not None and (axis < 0 or axis == len(editor.types[value].shape) - 1)


def _follow(move: Node, shape: tuple[int, ...], axis: int, editor: Editor) -> int | None:
    """Where an axis is after a move; None if it does not stay an axis of its own."""
    if move.op == "transpose":
        perm = move.attr("perm")
        return perm.index(axis) if isinstance(perm, tuple) else None
    if move.op != "reshape":
        return None
    after = editor.types[move.outputs[0]].shape
    before, at = math.prod(shape[:axis]), 1
    for new, extent in enumerate(after):
        if at == before and extent == shape[axis]:
            return new
        at *= extent
    return None
