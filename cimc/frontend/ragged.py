"""Lists whose length is known only at run time: where a tensor is not zero (NonZero), as exporters write a mixture of
experts. The list is taken as *all* places of the tensor, in order, and the axis it makes is marked with the tensor
itself: whether each place belongs to the list. The marks follow the axis through nodes that treat its entries one by
one, to the ScatterElements or ScatterND that writes entries back: it writes those that belong. What would mix entries
or count them is refused.

The price is stated by the machine: entries that do not belong are computed too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Unsupported, Value
from cimc.frontend.call import Call, Operand, spelling
from cimc.frontend.layout import take
from cimc.frontend.record import Array
from cimc.frontend.scatter import REDUCE
from cimc.isa.operands import Element

MAX_PLACES = 1 << 16
MAX_LAYERS = 64
REFUSED = "the shape of its output is known only at run time"


@dataclass(frozen=True)
class Mark:
    """``axis`` of a value is a list; ``hit`` (places,) of bool: which entries belong. None: the value is made from the
    length of the list, so it may only say how large something is that has this length."""

    axis: int | None
    hit: Value


Marks = Mapping[int, Mark]
"""By the number of the operand."""


@spelling("NonZero", note="of constants; else every place is kept to the ScatterElements or ScatterND that writes back")
def non_zero(c: Call) -> Value:
    """The places of all elements (rank × places); of a constant, of those that are not zero."""
    x = c.x()
    known = c.b.array(x)
    if known is not None:
        return c.b.constant(np.argwhere(known).T.astype(np.int64))
    if not x.rank or x.type.size > MAX_PLACES:
        raise Unsupported(f"{REFUSED}, and {x.type} is too large to keep all its places")
    c.ask(x)  # In vain where the list can be followed; where it cannot, the values may be compiled in.
    return c.b.constant(np.indices(x.shape, np.int64).reshape(x.rank, -1))


def begins(c: Call) -> Mark | None:
    """The mark of a list that this node makes."""
    if c.node.op_type != "NonZero" or c.node.domain or c.b.array(c.x()) is not None:
        return None
    x = c.x()
    zero = c.b.constant(np.zeros((), x.dtype))
    hit = x if x.element is Element.B8 else f.unary(c.b, "not", f.binary(c.b, "eq", x, zero))
    return Mark(1, f.reshape(c.b, hit, (x.type.size,)))


def follow(c: Call, marks: Marks, results: Sequence[Operand]) -> tuple[Mark | None, ...]:
    """The marks of a node's outputs. Raises Unsupported where its meaning depends on how long the list is."""
    op = c.node.op_type
    hit = next(iter(marks.values())).hit
    lists = {i: m.axis for i, m in marks.items() if m.axis is not None}
    if any(m.hit != hit for m in marks.values()):
        raise Unsupported(f"it reads two lists whose lengths are known only at run time; {REFUSED}")
    if op in ("Shape", "Size") or (not lists and op in _COUNTING):
        return tuple(Mark(None, hit) for _ in results)
    rule = _RULES.get(op)
    if rule is None or (len(lists) < len(marks) and (op not in ("Reshape", "Expand") or 0 not in lists)):
        raise Unsupported(f"it reads a list whose length is known only at run time; {REFUSED}")
    if op == "Split" and _complete(c, lists):
        return tuple(None for _ in results)
    found: list[Mark | None] = []
    for y in results:
        axis = rule(c, lists, y) if isinstance(y, Value) else -1
        if not isinstance(y, Value) or not 0 <= axis < y.rank or y.shape[axis] != hit.shape[0]:
            raise Unsupported(f"it takes apart a list whose length is known only at run time; {REFUSED}")
        found.append(Mark(axis, hit))
    return tuple(found)


Lists = Mapping[int, int]
"""Operands that are lists: on which axis."""
Rule = Callable[[Call, Lists, Value], int]
"""The axis of an output that is the list; below 0 if there is none."""


def _aligned(c: Call, lists: Lists, y: Value) -> int:
    """Element by element with broadcasting: all lists lie on one axis, counted from the end."""
    found = {y.rank - c.x(i).rank + axis for i, axis in lists.items()}
    return found.pop() if len(found) == 1 else -1


def _only_first(c: Call, lists: Lists, y: Value) -> int:
    return _aligned(c, lists, y) if set(lists) == {0} else -1


def _product(c: Call, lists: Lists, y: Value) -> int:
    """Rows of the left operand."""
    inner = lists[0] == c.x(0).rank - 1 if 0 in lists else True
    return -1 if inner or set(lists) != {0} else _aligned(c, lists, y)


def _gemm(c: Call, lists: Lists, y: Value) -> int:
    return -1 if c.int("transA", 0) else _product(c, lists, y)


def _transposed(c: Call, lists: Lists, y: Value) -> int:
    perm = c.ints("perm") or tuple(reversed(range(y.rank)))
    return perm.index(lists[0])


def _regrouped(c: Call, lists: Lists, y: Value) -> int:
    """Reshape and the like: the axis with as many elements before it."""
    if set(lists) != {0}:
        return -1
    x, axis = c.x(0), lists[0]
    before = math.prod(x.shape[:axis])
    places = (a for a, n in enumerate(y.shape) if math.prod(y.shape[:a]) == before and n == x.shape[axis])
    return next(places, -1)


def _untouched(c: Call, lists: Lists, y: Value) -> int:
    """Split, Slice, Concat: along other axes, or all of the list."""
    del y
    axes = set(lists.values())
    axis = axes.pop()
    if axes:
        return -1
    if c.node.op_type != "Slice":
        along = c.axis(c.int("axis", 0), c.x(0).rank)
        return -1 if along == axis or (c.node.op_type == "Split" and set(lists) != {0}) else axis
    return _sliced(c, axis) if set(lists) == {0} else -1


def _complete(c: Call, lists: Lists) -> bool:
    """Split of the list into as many entries as there are places: the model holds only where all places belong."""
    axis = c.axis(c.int("axis", 0), c.x(0).rank)
    sizes = c.ints("split") or (c.known_ints(1, "the sizes") if len(c) > 1 else None)
    return lists == {0: axis} and sizes is not None and sum(sizes) == c.x(0).shape[axis]


def _sliced(c: Call, axis: int) -> int:
    if c.version < 10:
        return -1
    starts, steps = c.known_ints(1, "the starts") or (), c.known_ints(4, "the steps")
    given = c.known_ints(3, "the axes")
    axes = range(len(starts)) if given is None else c.axes(given, c.x(0).rank)
    return -1 if (axis in axes and steps is not None and steps[list(axes).index(axis)] != 1) else axis


def _gathered(c: Call, lists: Lists, y: Value) -> int:
    del y
    along = c.axis(c.int("axis", 0), c.x(0).rank)
    axis = lists[min(lists)]
    if set(lists) == {1}:
        return along + axis
    if set(lists) == {0} and along != axis:
        return axis if axis < along else axis - 1 + c.x(1).rank
    return -1


def _gathered_tuples(c: Call, lists: Lists, y: Value) -> int:
    del y
    axis = lists[1] if set(lists) == {1} else -1
    return -1 if c.int("batch_dims", 0) or axis == c.x(1).rank - 1 else axis


def _by_row(c: Call, lists: Lists, y: Value) -> int:
    """Softmax and norms: along the axes from ``axis`` on."""
    axis = _only_first(c, lists, y)
    along = c.axis(c.int("axis", 1 if "oftmax" in c.node.op_type and c.version < 13 else -1), c.x(0).rank)
    single = "oftmax" in c.node.op_type and c.version >= 13
    return axis if axis != along and (single or axis < along) else -1


def _reduced(c: Call, lists: Lists, y: Value) -> int:
    axes = c.ints("axes") or (c.known_ints(1, "the axes") if len(c) > 1 else None)
    x, axis = c.x(0), lists[0] if set(lists) == {0} else -1
    if not axes or axis < 0 or axis in c.axes(axes, x.rank):
        return -1
    return axis if y.rank == x.rank else axis - sum(a < axis for a in c.axes(axes, x.rank))


_POINTWISE = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Mod",
    "Min",
    "Max",
    "Sum",
    "Mean",
    "Where",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "And",
    "Or",
    "Xor",
    "Not",
    "Neg",
    "Abs",
    "Exp",
    "Log",
    "Sqrt",
    "Reciprocal",
    "Erf",
    "Tanh",
    "Sigmoid",
    "Relu",
    "Gelu",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Selu",
    "Celu",
    "Mish",
    "Swish",
    "HardSigmoid",
    "HardSwish",
    "Softplus",
    "Softsign",
    "Sin",
    "Cos",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Clip",
    "Cast",
    "Identity",
    "IsNaN",
    "IsInf",
    "FastGelu",
    "QuickGelu",
    "BiasGelu",
    "Expand",
]
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE, _aligned),
    **dict.fromkeys(("MatMul", "MatMulNBits", "FusedMatMul"), _product),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _only_first),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _regrouped),
    **dict.fromkeys(("Split", "Slice", "Concat"), _untouched),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"), _by_row),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"), _reduced),
    "Gemm": _gemm,
    "Transpose": _transposed,
    "Gather": _gathered,
    "GatherND": _gathered_tuples,
}
_COUNTING = frozenset(
    ("Gather", "Concat", "Slice", "Unsqueeze", "Squeeze", "Cast", "Mul", "Add", "Sub", "Equal", "Where")
)
"""What exporters do with sizes before they use them as a shape."""


def write_back(c: Call, marks: Marks) -> Value | None:
    """ScatterElements or ScatterND of a list: the entries that belong are written. None: it is neither."""
    if c.node.op_type not in ("ScatterElements", "ScatterND") or c.node.domain:
        return None
    b, x, updates = c.b, c.x(0), c.x(2)
    reduction = c.text("reduction", "none")
    index = b.array(c.x(1))
    if set(marks) != {1, 2} or marks[1].hit != marks[2].hit or reduction not in REDUCE or index is None:
        raise Unsupported(
            f"it writes a list whose length is known only at run time other than entry by entry; {REFUSED}"
        )
    by_row = c.node.op_type == "ScatterElements"
    axis = c.axis(c.int("axis", 0), x.rank) if by_row else 0
    rows = _rows(index, axis) if by_row else _tuples(index)
    if rows is None or marks[1].axis != axis or marks[2].axis != axis or updates.rank != x.rank:
        raise Unsupported(
            f"it writes a list whose length is known only at run time other than by whole rows; {REFUSED}"
        )
    if any(n != m for a, (n, m) in enumerate(zip(updates.shape, x.shape, strict=True)) if a != axis):
        raise Unsupported(f"it writes into a part of {x.type}; {REFUSED}")
    return _written(c, (x, updates, marks[1].hit), rows, axis)


def _rows(index: Array, axis: int) -> list[int] | None:
    """Row numbers of ScatterElements whose indices are the same over all other axes."""
    flat = np.moveaxis(index, axis, 0).reshape(index.shape[axis], -1)
    return [int(r) for r in flat[:, 0]] if flat.shape[1] and (flat == flat[:, :1]).all() else None


def _tuples(index: Array) -> list[int] | None:
    return [int(r) for r in index[:, 0]] if index.ndim == 2 and index.shape[1] == 1 else None


def _written(c: Call, operands: tuple[Value, Value, Value], rows: Sequence[int], axis: int) -> Value:
    """Entry after entry in order; entries to different rows at once, as one layer."""
    b = c.b
    x, updates, hit = operands
    count = x.shape[axis]
    if any(not -count <= r < count for r in rows):
        raise Impossible(f"an index outside {x.type}")
    layers: list[dict[int, int]] = []
    used: dict[int, int] = {}
    for entry, row in enumerate(r % count for r in rows):
        layer = used.get(row, 0)
        used[row] = layer + 1
        if layer == len(layers):
            layers.append({})
        layers[layer][row] = entry
    if len(layers) > MAX_LAYERS:
        raise Unsupported(f"{len(layers)} entries of a list may be written to one row, more than {MAX_LAYERS}")
    op = REDUCE[c.text("reduction", "none")]
    y = x
    for layer in layers:
        source = [layer.get(r, 0) for r in range(count)]
        belongs = f.binary(b, "and", take(c, hit, 0, source), b.constant(np.array([r in layer for r in range(count)])))
        belongs = f.reshape(b, belongs, (count, *(1,) * (x.rank - axis - 1)))
        new = take(c, updates, axis, source)
        y = f.select(b, belongs, f.binary(b, op, y, new) if op else new, y)
    return y
