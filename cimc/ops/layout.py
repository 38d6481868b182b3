"""Layout ops: views (no instruction), assembly of regions, row lookup, explicit copies, host calls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from cimc.ir.graph import Node, Type
from cimc.isa.operands import Element
from cimc.ops.op import Access, Arithmetic, Array, Attribute, Emit, Form, Layout, Op, Part, broadcast, register

_INTS = (tuple,)


def integers(node: Node, name: str) -> tuple[int, ...]:
    """An attribute that is a list of integers."""
    value = node.attr(name)
    assert isinstance(value, tuple)
    return tuple(int(v) for v in value)


def integer(node: Node, name: str) -> int:
    """An attribute that is an integer."""
    value = node.attr(name)
    assert isinstance(value, int)
    return value


def _x(inputs: Sequence[Type | None]) -> Type:
    x = inputs[0]
    assert x is not None
    return x


def _array(inputs: Sequence[Array | None]) -> Array:
    x = inputs[0]
    assert x is not None
    return x


class Reshape(Op):
    """The same elements in row-major order under another shape."""

    name = "reshape"
    form: ClassVar[Form] = Form.VIEW
    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (Attribute("shape", _INTS),)
    doc = "the same elements in row-major order under `shape`"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x = _x(inputs)
        y = Type(x.element, integers(node, "shape"))
        if y.size != x.size:
            raise ValueError(f"reshape of {x} to {y}")
        return (y,)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        return (np.reshape(_array(inputs), integers(node, "shape")),)

    def view(self, node: Node, layout: Layout) -> Layout | None:
        shape = integers(node, "shape")
        return reshape_layout(layout, shape) or _folded(layout, shape)


def reshape_layout(layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """The layout of a reshaped view, or None where the elements are not evenly spaced (NumPy's rule for no-copy)."""
    if 0 in shape:
        return Layout(layout.offset, shape, (0,) * len(shape))
    if layout.tail:
        return None
    old = [(n, s) for n, s in zip(layout.shape, layout.strides, strict=True) if n != 1]
    strides = [0] * len(shape)
    i = 0
    j = 0
    while i < len(old) or j < len(shape):
        if j < len(shape) and shape[j] == 1:
            j += 1
            continue
        if i == len(old):
            return None
        group_old, size_old, first = [old[i]], old[i][0], j
        size_new = shape[j]
        i += 1
        j += 1
        while size_old != size_new:
            if size_old < size_new:
                group_old.append(old[i])
                size_old *= old[i][0]
                i += 1
            else:
                size_new *= shape[j]
                j += 1
        if any(a[1] != b[0] * b[1] for a, b in itertools.pairwise(group_old)):
            return None
        step = group_old[-1][1]
        for axis in range(j - 1, first - 1, -1):
            strides[axis] = step
            step *= shape[axis]
    return Layout(layout.offset, shape, tuple(strides))


MOST_FOLDED = 6  # axes that one may be made of


def _folded(layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """The layout of a reshaped view whose last axis is made of several that are not evenly spaced; None where the axes
    before it are not evenly spaced either, or the last axis begins within one."""
    if not layout.shape or not shape:
        return None
    at, size = len(layout.shape), 1
    while at and size < shape[-1]:
        at -= 1
        size *= layout.shape[at]
    if size != shape[-1] or (layout.tail and at < len(layout.shape) - 1):
        return None
    lead = reshape_layout(Layout(layout.offset, layout.shape[:at], layout.strides[:at]), shape[:-1])
    tail = layout.tail or _joined(list(zip(layout.shape[at:], layout.strides[at:], strict=True)))
    return (
        replace(lead, shape=shape, strides=(*lead.strides, 0), tail=tail) if lead and len(tail) <= MOST_FOLDED else None
    )


def _joined(axes: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Axes without those of extent 1, neighbours that are evenly spaced joined."""
    found: list[tuple[int, int]] = []
    for extent, stride in (a for a in axes if a[0] != 1):
        if found and found[-1][1] == extent * stride:
            found[-1] = (found[-1][0] * extent, stride)
        else:
            found.append((extent, stride))
    return tuple(found)


class Transpose(Op):
    """Axes in another order."""

    name = "transpose"
    form: ClassVar[Form] = Form.VIEW
    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (Attribute("perm", _INTS),)
    doc = "axes in the order `perm`"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x, perm = _x(inputs), integers(node, "perm")
        if sorted(perm) != list(range(len(x.shape))):
            raise ValueError(f"transpose of {x} by {perm}")
        return (Type(x.element, tuple(x.shape[p] for p in perm)),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        return (np.transpose(_array(inputs), integers(node, "perm")),)

    def view(self, node: Node, layout: Layout) -> Layout | None:
        perm = integers(node, "perm")
        return Layout(layout.offset, tuple(layout.shape[p] for p in perm), tuple(layout.strides[p] for p in perm))


class Slice(Op):
    """Every ``step``-th element from ``start``, ``size`` of them, per axis; negative steps run backwards."""

    name = "slice"
    form: ClassVar[Form] = Form.VIEW
    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (
        Attribute("start", _INTS),
        Attribute("size", _INTS),
        Attribute("step", _INTS),
    )
    doc = "per axis: `size` elements from `start`, every `step`-th (negative: backwards)"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x = _x(inputs)
        start, size, step = (integers(node, a) for a in ("start", "size", "step"))
        if not len(start) == len(size) == len(step) == len(x.shape):
            raise ValueError(f"slice of {x}: one start, size and step per axis are needed")
        for n, a, s, d in zip(x.shape, start, size, step, strict=True):
            if s and not (0 <= a < n and 0 <= a + (s - 1) * d < n):
                raise ValueError(f"slice of {x}: start {a}, size {s}, step {d} leave the axis")
        return (Type(x.element, size),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x = _array(inputs)
        index = [
            a + d * np.arange(s)
            for a, s, d in zip(integers(node, "start"), integers(node, "size"), integers(node, "step"), strict=True)
        ]
        return (x[np.ix_(*index)] if index else x,)

    def view(self, node: Node, layout: Layout) -> Layout | None:
        start, size, step = (integers(node, a) for a in ("start", "size", "step"))
        offset = layout.offset + sum(a * s for a, s, n in zip(start, layout.strides, size, strict=True) if n)
        return Layout(offset, size, tuple(d * s for d, s in zip(step, layout.strides, strict=True)))


class Expand(Op):
    """Broadcast to a shape."""

    name = "expand"
    form: ClassVar[Form] = Form.VIEW
    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (Attribute("shape", _INTS),)
    doc = "x broadcast to `shape`"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x, shape = _x(inputs), integers(node, "shape")
        if broadcast(x.shape, shape) != shape:
            raise ValueError(f"expand of {x} to {shape}")
        return (Type(x.element, shape),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        return (np.broadcast_to(_array(inputs), integers(node, "shape")),)

    def view(self, node: Node, layout: Layout) -> Layout | None:
        shape = integers(node, "shape")
        lead = len(shape) - len(layout.shape)
        strides = [0] * lead
        for n, old, stride in zip(shape[lead:], layout.shape, layout.strides, strict=True):
            strides.append(stride if old == n else 0)
        return Layout(layout.offset, shape, tuple(strides))


class Concat(Op):
    """Operands one after another along an axis."""

    name = "concat"
    form: ClassVar[Form] = Form.ASSEMBLE
    arity: ClassVar[tuple[int, int]] = (1, 1 << 16)
    attributes = (Attribute("axis", (int,)), Attribute("apart", (int,), 0))
    doc = "operands one after another along `axis`; `apart`: joined where they are stored, never as rows on a tile"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        axis = node.whole("axis")
        first, total = _x(inputs), 0
        for t in inputs:
            assert t is not None
            same = t.element == first.element and len(t.shape) == len(first.shape)
            if not same or any(a != b for i, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if i != axis):
                raise ValueError(f"concat of {first} and {t} along axis {axis}")
            total += t.shape[axis]
        return (Type(first.element, (*first.shape[:axis], total, *first.shape[axis + 1 :])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        axis = node.whole("axis")
        return (np.concatenate([x for x in inputs if x is not None], axis=axis),)

    def parts(self, node: Node, inputs: Sequence[Type]) -> tuple[Part, ...]:
        axis = node.whole("axis")
        parts: list[Part] = []
        at = 0
        for i, t in enumerate(inputs):
            start = tuple(at if a == axis else 0 for a in range(len(t.shape)))
            parts.append(Part(start, t.shape, i))
            at += t.shape[axis]
        return tuple(parts)


class Pad(Op):
    """A constant border around x."""

    name = "pad"
    form: ClassVar[Form] = Form.ASSEMBLE
    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (
        Attribute("before", _INTS),
        Attribute("after", _INTS),
        Attribute("value", (float, int), 0.0),
    )
    doc = "x with `before` and `after` elements of `value` added per axis (none negative)"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x, before, after = _x(inputs), integers(node, "before"), integers(node, "after")
        if len(before) != len(x.shape) or len(after) != len(x.shape) or min((*before, *after, 0)) < 0:
            raise ValueError(f"pad of {x} by {before} and {after}")
        return (Type(x.element, tuple(n + a + b for n, a, b in zip(x.shape, before, after, strict=True))),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        widths = list(zip(integers(node, "before"), integers(node, "after"), strict=True))
        return (np.pad(_array(inputs), widths, constant_values=node.get("value", 0.0)),)  # pyright: ignore[reportArgumentType]  # a number

    def parts(self, node: Node, inputs: Sequence[Type]) -> tuple[Part, ...]:
        before, whole = integers(node, "before"), self.infer(node, inputs)[0].shape
        value = node.number("value", 0.0)
        return (Part((0,) * len(whole), whole, -1, value), Part(before, inputs[0].shape, 0))


class Window(Op):
    """Sliding windows over the last axes, as a view: x (n × c × spatial…) → (n × out… × c × kernel…)."""

    name = "window"
    form: ClassVar[Form] = Form.VIEW
    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (
        Attribute("kernel", _INTS),
        Attribute("stride", _INTS),
        Attribute("dilation", _INTS),
    )
    doc = "sliding windows: x (n × c × spatial…) as (n × out… × c × kernel…), no copy"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x = _x(inputs)
        kernel, stride, dilation = (integers(node, a) for a in ("kernel", "stride", "dilation"))
        if len(x.shape) != len(kernel) + 2:
            raise ValueError(f"window of {x}: {len(kernel)} spatial axes are needed")
        spans = zip(x.shape[2:], kernel, stride, dilation, strict=True)
        out = tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in spans)
        if min(out, default=1) < 1:
            raise ValueError(f"window of {x}: the kernel {kernel} is larger than the input")
        return (Type(x.element, (x.shape[0], *out, x.shape[1], *kernel)),)

    def _layout(self, node: Node, layout: Layout) -> Layout:
        shape = self.infer(node, [Type(Element.F32, layout.shape)])[0].shape
        stride, dilation = integers(node, "stride"), integers(node, "dilation")
        n, c, *spatial = layout.strides
        moves = [s * step for s, step in zip(spatial, stride, strict=True)]
        taps = [s * step for s, step in zip(spatial, dilation, strict=True)]
        return Layout(layout.offset, shape, (n, *moves, c, *taps))

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x = np.ascontiguousarray(_array(inputs))
        layout = self._layout(node, Layout.dense(x.shape))
        strides = tuple(s * x.itemsize for s in layout.strides)
        return (np.lib.stride_tricks.as_strided(x, layout.shape, strides, writeable=False),)

    def view(self, node: Node, layout: Layout) -> Layout | None:
        return self._layout(node, layout)


class Copy(Op):
    """The same value written out anew, dense."""

    name = "copy"
    arity: ClassVar[tuple[int, int]] = (1, 1)
    doc = "the same value, written out dense"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        return (_x(inputs),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        # not np.ascontiguousarray, which turns a scalar into a vector
        return (np.asarray(_array(inputs), order="C"),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("copy", emit.output(), emit.input(0))


class Gather(Op):
    """Rows of a table by index: table (v × d), index (… × 1) → (… × d)."""

    name = "gather"
    arity: ClassVar[tuple[int, int]] = (2, 2)
    doc = "y[i] = table[index[i]]: table (v × d), index (… × 1), negative indices from the end"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        table, index = inputs
        assert table is not None
        assert index is not None
        if len(table.shape) != 2 or not index.shape or index.shape[-1] != 1:
            raise ValueError(f"gather from {table} by {index}")
        return (Type(table.element, (*index.shape[:-1], table.shape[1])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        table, index = inputs
        assert table is not None
        assert index is not None
        return (table[index[..., 0].astype(np.int64)],)

    def access(self, node: Node, index: int) -> Access:
        return Access.TABLE if index == 0 else Access.ROWS

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("gather", emit.output(), emit.input(0), emit.input(1))


class Host(Op):
    """An ONNX node that no tile unit can do: run by the host controller. ``call`` is the key of the serialized node among
    the constants; ``outputs`` are the types of what it returns, as text."""

    name = "host"
    form: ClassVar[Form] = Form.HOST
    arity: ClassVar[tuple[int, int]] = (0, 1 << 16)
    attributes = (
        Attribute("op_type", (str,)),
        Attribute("call", (str,)),
        Attribute("types", _INTS),
        Attribute("reason", (str,)),
    )
    doc = "an ONNX node run by the host controller"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        types = node.attr("types")
        assert isinstance(types, tuple)
        return tuple(parse_type(str(t)) for t in types)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        raise AssertionError("host calls are evaluated by cimc.ir.evaluate, which holds the serialized nodes")


def parse_type(text: str) -> Type:
    """``f32[2x3]`` → the type. Raises ValueError if it is not one."""
    element, bracket, rest = text.partition("[")
    if not bracket or not rest.endswith("]"):
        raise ValueError(f"{text!r} is not a type like f32[2x3]")
    body = rest[:-1]
    return Type(Element(element), tuple(int(d) for d in body.split("x")) if body else ())


for _op in (
    Reshape(),
    Transpose(),
    Slice(),
    Expand(),
    Concat(),
    Pad(),
    Window(),
    Copy(),
    Gather(),
    Host(),
):
    register(_op)
