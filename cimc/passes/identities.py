"""What ``fold`` knows about single nodes: those that change nothing, and chains that are one node.

A rule looks at a node (and at what stands before it) and returns the value it is the same as, a simpler node for the
same output, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cimc.ir.graph import Attr, Node
from cimc.isa.kernels import UNARY
from cimc.isa.operands import Element
from cimc.ops.layout import integers
from cimc.passes.editor import Editor, merge_origins

Rule = Callable[[Editor, Node], str | Node | None]

MOST_COMPARED = 1 << 20
"""Constants of up to this many elements are looked through for being all 0 or all 1."""


def _is_all(editor: Editor, value: str, number: float) -> bool:
    if not editor.is_constant(value) or editor.types[value].size > MOST_COMPARED:
        return False
    array = editor.value(value)
    return array.size > 0 and bool(np.all(array == number))


def _same_type(editor: Editor, node: Node, value: str) -> bool:
    return editor.types[value] == editor.types[node.outputs[0]]


def _neutral(number: float, *, either: bool) -> Rule:
    """``f(x, number) = x``, and ``f(number, x) = x`` too if ``either``."""

    def rule(editor: Editor, node: Node) -> str | None:
        a, b = node.inputs
        if _same_type(editor, node, a) and _is_all(editor, b, number):
            return a
        if either and _same_type(editor, node, b) and _is_all(editor, a, number):
            return b
        return None

    return rule


def _same(editor: Editor, node: Node) -> str | None:
    """Reshape, expand, cast, pad or concat to the type that the operand has already."""
    if len(node.inputs) != 1:
        return None
    return node.inputs[0] if _same_type(editor, node, node.inputs[0]) else None


def _copy(editor: Editor, node: Node) -> str:
    return node.inputs[0]


def _before(editor: Editor, node: Node, op: str) -> Node | None:
    """The node that produces the first input, if it is of that op."""
    source = editor.producer.get(node.inputs[0])
    return source if source is not None and source.op == op else None


def _through(node: Node, source: Node, **attrs: Attr) -> Node:
    """The node reading what ``source`` reads."""
    kept = tuple(attrs.items()) or node.attrs
    return replace(node, inputs=source.inputs, attrs=kept, origins=merge_origins((node, source)))


def _chain(op: str) -> Rule:
    """Of two such nodes in a row only the last one counts."""

    def rule(editor: Editor, node: Node) -> Node | None:
        source = _before(editor, node, op)
        return _through(node, source) if source is not None else None

    return rule


def _transpose(editor: Editor, node: Node) -> str | Node | None:
    """Composed with a transpose before it; the identity; a reshape if only axes of extent 1 move."""
    source = _before(editor, node, "transpose")
    if source is not None:
        inner = integers(source, "perm")
        node = _through(node, source, perm=tuple(inner[p] for p in integers(node, "perm")))
    perm = integers(node, "perm")
    if perm == tuple(range(len(perm))):
        return node.inputs[0]
    shape = editor.types[node.inputs[0]].shape
    moved = [p for p in perm if shape[p] != 1]
    if moved == sorted(moved):
        after = editor.types[node.outputs[0]].shape
        return replace(node, op="reshape", attrs=(("shape", after),))
    return node if source is not None else None


def _turned_in_batch(editor: Editor, node: Node) -> Node | None:
    """Heads folded into the batch, the last two axes swapped, heads unfolded again: a transpose of those axes."""
    turned = _before(editor, node, "transpose")
    folded = _before(editor, turned, "reshape") if turned is not None else None
    if turned is None or folded is None:
        return None
    after, between = editor.types[node.outputs[0]].shape, editor.types[turned.inputs[0]].shape
    rank = len(between)
    swap = (*range(rank - 2), rank - 1, rank - 2)
    if rank < 3 or integers(turned, "perm") != swap or len(after) < 3 or after[-2:] != (between[-1], between[-2]):
        return None
    origins = merge_origins((node, turned, folded))
    x, shape = folded.inputs[0], (*after[:-2], *between[-2:])
    if editor.types[x].shape != shape:
        name = editor.fresh(f"{node.outputs[0]}.heads")
        x = editor.emit("reshape", (x,), origins=origins, output=name, attrs=(("shape", shape),))
    perm = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    return replace(node, op="transpose", inputs=(x,), attrs=(("perm", perm),), origins=origins)


def _slice(editor: Editor, node: Node) -> str | Node | None:
    """Composed with a slice before it; the identity."""
    source = _before(editor, node, "slice")
    if source is not None:
        outer = [integers(source, a) for a in ("start", "step")]
        inner = [integers(node, a) for a in ("start", "step")]
        start = tuple(a + d * b for a, d, b in zip(outer[0], outer[1], inner[0], strict=True))
        step = tuple(d * e for d, e in zip(outer[1], inner[1], strict=True))
        node = _through(node, source, start=start, size=integers(node, "size"), step=step)
    x = editor.types[node.inputs[0]].shape
    whole = integers(node, "size") == x and not any(integers(node, "start"))
    if whole and all(d == 1 or n <= 1 for d, n in zip(integers(node, "step"), x, strict=True)):
        return node.inputs[0]
    return node if source is not None else None


_SIGNED = (Element.I8, Element.I16, Element.I32, Element.I64)
_UNSIGNED = (Element.U8, Element.U16, Element.U32, Element.U64)
_MANTISSA = {Element.F64: 53, Element.F32: 24, Element.F16: 11, Element.BF16: 8}
_EXPONENT = {Element.F64: 11, Element.F32: 8, Element.F16: 5, Element.BF16: 8}


def lossless(source: Element, target: Element) -> bool:
    """Whether every value of one element type is a value of the other."""
    if source is target or source is Element.B8:
        return source is target or target is not Element.F8E8M0  # which has no 0
    if source in _MANTISSA:
        wider = target in _MANTISSA and _MANTISSA[target] >= _MANTISSA[source]
        return wider and _EXPONENT[target] >= _EXPONENT[source]
    if source not in _SIGNED and source not in _UNSIGNED:
        return False
    bits = 8 * source.bytes - (source in _SIGNED)
    if target in _MANTISSA:
        return bits <= _MANTISSA[target]
    if target in _SIGNED:
        return bits <= 8 * target.bytes - 1
    return target in _UNSIGNED and source in _UNSIGNED and bits <= 8 * target.bytes


def _cast(editor: Editor, node: Node) -> str | Node | None:
    """A cast of a cast that lost nothing is a cast of the original."""
    source = _before(editor, node, "cast")
    if source is None:
        return None
    original, between = editor.types[source.inputs[0]].element, editor.types[source.outputs[0]].element
    if not lossless(original, between):
        return None
    if original is editor.types[node.outputs[0]].element:
        return source.inputs[0]
    return _through(node, source)


def _once(editor: Editor, node: Node) -> Node | None:
    """What is done with every element of an expanded value, done before: a mask of tokens is cast once, not for each channel."""
    source = _before(editor, node, "expand")
    whole = editor.types[node.outputs[0]]
    if source is None or editor.types[source.inputs[0]].size >= whole.size:
        return None
    name = editor.fresh(f"{node.outputs[0]}.once")
    editor.emit(node.op, source.inputs, origins=node.origins, output=name, attrs=node.attrs)
    origins = merge_origins((node, source))
    return replace(node, op="expand", inputs=(name,), attrs=(("shape", whole.shape),), origins=origins)


def _select(editor: Editor, node: Node) -> str | None:
    """One branch where the condition is the same everywhere."""
    condition, a, b = node.inputs
    if _is_all(editor, condition, 1) and _same_type(editor, node, a):
        return a
    if _is_all(editor, condition, 0) and _same_type(editor, node, b):
        return b
    return a if a == b and _same_type(editor, node, a) else None


def _in_order(editor: Editor, node: Node) -> Node | None:
    """All rows of a table in their order: masks that an exporter has written as look-ups of every position."""
    table, index = node.inputs
    shape, rows = editor.types[node.outputs[0]].shape, editor.types[table].shape[0]
    if not editor.is_constant(index) or editor.types[index].size != rows or rows > MOST_COMPARED:
        return None
    if not np.array_equal(editor.value(index).reshape(-1), np.arange(rows)):
        return None
    return replace(node, op="reshape", inputs=(table,), attrs=(("shape", shape),))


RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(UNARY, (_once,)),
    "add": (_neutral(0, either=True),),
    "sub": (_neutral(0, either=False),),
    "mul": (_neutral(1, either=True),),
    "div": (_neutral(1, either=False),),
    "pow": (_neutral(1, either=False),),
    "and": (_neutral(1, either=True),),
    "or": (_neutral(0, either=True),),
    "gather": (_in_order,),
    "select": (_select,),
    "cast": (_same, _cast, _once),
    "reshape": (_chain("reshape"), _same, _turned_in_batch),
    "expand": (_chain("expand"), _same),
    "transpose": (_transpose,),
    "slice": (_slice,),
    "pad": (_same,),
    "concat": (_same,),
    "copy": (_copy,),
}
"""Rules by op, tried in order; each sees what the one before it made."""
