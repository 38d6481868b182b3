"""Building an IR graph node by node. A node whose inputs are all constants is evaluated at once, through the op's own
numeric reference, so the shape arithmetic that exporters write vanishes while it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cimc.frontend.record import Array
from cimc.ir.graph import Attr, Graph, Node, Type
from cimc.isa.kernels import cast
from cimc.isa.operands import Element
from cimc.ops import OPS
from cimc.ops.op import Arithmetic
from cimc.origin import Origin

MAX_CONSTANT = 1 << 28
"""Bytes a folded constant may have (or twice its operands, so that a large table can still be converted)."""
MAX_VALUE = 1 << 36
"""Bytes any value may have."""
MAX_TABLE = 1 << 31
"""Bytes of a mask or grid that a translation makes for itself."""
_SMALL = 4096
_HOLDERS = {
    Element.I4: Element.I8,
    Element.U4: Element.U8,
    Element.I2: Element.I8,
    Element.U2: Element.U8,
    # Every number of the others is a float16 number, but for the powers of two of E8M0.
    Element.F8E8M0: Element.F32,
}
_ELEMENTS = {e.dtype(exact=True): e for e in Element if not e.quantized}


class Unsupported(Exception):
    """Something cimc does not do, or not for these operands; becomes a MODEL_OP diagnostic naming the node."""


class Impossible(Exception):
    """The node contradicts itself or its operands; becomes a MODEL_NODE diagnostic naming the node."""


def room(shape: Sequence[int], itemsize: int = 1) -> None:
    """Raises Unsupported if a table that a translation would make (a mask, a grid of positions) is too large."""
    size = math.prod(shape) * itemsize
    if size > MAX_TABLE:
        raise Unsupported(f"a table of {size} bytes is needed, more than the limit of {MAX_TABLE}")


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph under construction."""

    name: str
    type: Type

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return self.type.shape

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.type.shape)

    @property
    def element(self) -> Element:
        """Element type."""
        return self.type.element

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """NumPy's type for the element."""
        return self.type.element.dtype(exact=True)

    @property
    def floating(self) -> bool:
        """Whether elements are floating-point numbers."""
        return self.element in (Element.F16, Element.BF16, Element.F32, Element.F64)


def element_of(dtype: np.dtype[np.generic]) -> Element:
    """The element type of a NumPy type. Raises Unsupported if there is none."""
    found = _ELEMENTS.get(dtype)
    if found is None:
        raise Unsupported(f"element type {dtype} is not supported")
    return found


class Builder:
    """Collects nodes, types and constants; ``origin`` is the ONNX node under translation."""

    def __init__(self) -> None:
        self.origin = Origin("", "")
        self.deferred = False
        """Whether nodes on constants stay nodes: what is derived from weights is computed by ``fold``, when needed."""
        self._nodes: list[Node] = []
        self._types: dict[str, Type] = {}
        self._arrays: dict[str, Array] = {}
        self._inputs: list[str] = []
        self._known: dict[tuple[object, ...], tuple[Value, ...]] = {}
        self._final: dict[str, str] = {}
        self._taken: set[str] = set()
        self._count = 0
        self._wide: dict[str, Value] = {}

    def input(self, name: str, kind: Type) -> Value:
        """An input of the graph."""
        self._inputs.append(name)
        self._taken.add(name)
        self._final[name] = name
        self._types[name] = kind
        return Value(name, kind)

    def constant(self, array: Array, name: str = "") -> Value:
        """A constant; ``name`` if it has one in the model. Small equal ones are one."""
        kind = Type(element_of(array.dtype), array.shape)
        key = ("constant", kind, array.tobytes()) if not name and array.nbytes <= _SMALL else None
        if key in self._known:
            return self._known[key][0]
        value = Value(self._fresh(), kind)
        self._types[value.name] = kind
        self._arrays[value.name] = array
        if name:
            self.label(value, name)
        if key:
            self._known[key] = (value,)
        return value

    def wide(self, value: Value) -> Value:
        """The same numbers in a type that is computed with: those of 2 and 4 bits as bytes, of narrow floats as wider
        ones. Of a constant: at once, and in its place, under its name."""
        if not value.element.narrow:
            return value
        if value.name not in self._wide:
            self._wide[value.name] = self._widened(value, _HOLDERS.get(value.element, Element.F16))
        return self._wide[value.name]

    def _widened(self, value: Value, holder: Element) -> Value:
        array = self._arrays.get(value.name)
        if array is None:
            return self.emit("cast", (value,), to=holder.value)[0]
        found = self.constant(cast(array, holder.dtype(exact=True)))
        if value.name in self._final:
            self._final.setdefault(found.name, self._final.pop(value.name))
        return found

    def narrowed(self, value: Value, element: Element) -> Value:
        """Numbers that a narrow element type has, in that type; read again, they are ``value`` itself."""
        found = self.emit("cast", (value,), to=element.value)[0]
        self._wide[found.name] = value
        return found

    @property
    def count(self) -> int:
        """Number of nodes so far."""
        return len(self._nodes)

    def nodes_from(self, index: int) -> Sequence[Node]:
        """The nodes since there were ``index``."""
        return self._nodes[index:]

    def element(self, name: str) -> Element:
        """The element type of a value by the name that nodes have for it here."""
        return self._types[name].element

    def scalar(self, number: float | bool, element: Element) -> Value:
        """A constant without axes."""
        return self.constant(np.array(number).astype(element.dtype(exact=True)))

    def array(self, value: Value) -> Array | None:
        """The value's elements if it is a constant."""
        return self._arrays.get(value.name)

    def emit(self, op: str, inputs: Sequence[Value | None], **attrs: Attr) -> tuple[Value, ...]:
        """Apply an op. Raises Impossible if its operands do not fit, Unsupported if a result is too large."""
        names = tuple(v.name if v else "" for v in inputs)
        fixed = tuple(sorted(attrs.items()))
        key = (op, names, fixed)
        if key in self._known:
            return self._known[key]
        node = Node(op, names, (), fixed, (self.origin,))
        try:
            kinds = OPS[op].infer(node, [v.type if v else None for v in inputs])
        except ValueError as e:
            raise Impossible(str(e)) from e
        for kind in kinds:
            if kind.bytes > MAX_VALUE:
                raise Unsupported(f"its result {kind} is {kind.bytes} bytes, more than the limit of {MAX_VALUE}")
        constant = op != "host" and not self.deferred and all(v is None or v.name in self._arrays for v in inputs)
        values = self._fold(node, inputs, kinds) if constant else self._append(node, kinds)
        self._known[key] = values
        return values

    def _append(self, node: Node, kinds: Sequence[Type]) -> tuple[Value, ...]:
        values = tuple(Value(self._fresh(), kind) for kind in kinds)
        for v in values:
            self._types[v.name] = v.type
        self._nodes.append(Node(node.op, node.inputs, tuple(v.name for v in values), node.attrs, node.origins))
        return values

    def _fold(self, node: Node, inputs: Sequence[Value | None], kinds: Sequence[Type]) -> tuple[Value, ...]:
        limit = max(MAX_CONSTANT, 2 * sum(v.type.bytes for v in inputs if v))
        for kind in kinds:
            if kind.bytes > limit:
                raise Unsupported(
                    f"the constant it makes, {kind}, is {kind.bytes} bytes, more than the limit of {limit}"
                )
        arrays = [self._arrays[v.name] if v else None for v in inputs]
        try:
            with np.errstate(all="ignore"):
                results = OPS[node.op].evaluate(node, arrays, Arithmetic())
        except (IndexError, ValueError, TypeError, ArithmeticError, MemoryError) as e:
            raise Impossible(f"{node.op} of constants: {e}") from e
        return tuple(self.constant(np.asarray(y)) for y in results)

    def _fresh(self) -> str:
        self._count += 1
        return f"%{self._count}"

    def sources(self, value: Value) -> tuple[Value, ...]:
        """The graph's inputs that a value is computed from."""
        live = {value.name}
        for node in reversed(self._nodes):
            if live.intersection(node.outputs):
                live.update(node.inputs)
        return tuple(Value(n, self._types[n]) for n in self._inputs if n in live)

    def label(self, value: Value, name: str) -> None:
        """Give a value the name it has in the model; the first name given stays."""
        if value.name in self._final or not name:
            return
        fresh, n = name, 1
        while fresh in self._taken:
            fresh, n = f"{name}#{n}", n + 1
        self._taken.add(fresh)
        self._final[value.name] = fresh

    def finish(
        self, name: str, outputs: Sequence[tuple[str, Value]], dims: tuple[tuple[str, int], ...]
    ) -> tuple[Graph, dict[str, Array]]:
        """The graph of the nodes that the outputs need, and its constants. Outputs are distinct values that are not
        inputs: those are copied."""
        ends: list[Value] = []
        for label, value in outputs:
            again = value.name in self._inputs or any(value.name == e.name for e in ends)
            if again:
                value = self._append(Node("copy", (value.name,), (), (), (Origin(label, "Identity"),)), [value.type])[0]
            self.label(value, label)
            ends.append(value)
        nodes = self._needed({v.name for v in ends})
        used = {v for n in nodes for v in (*n.inputs, *n.outputs) if v} | {v.name for v in ends} | set(self._inputs)
        names = self._names(nodes, used)
        renamed = tuple(
            Node(
                n.op, tuple(names.get(v, "") for v in n.inputs), tuple(names[v] for v in n.outputs), n.attrs, n.origins
            )
            for n in nodes
        )
        constants = {names[v]: self._arrays[v] for v in sorted(used) if v in self._arrays}
        folded = frozenset(constants)
        self._add_calls(renamed, constants)
        graph = Graph(
            name,
            "imported",
            tuple(self._inputs),
            tuple(names[v.name] for v in ends),
            renamed,
            {names[v]: self._types[v] for v in self._types if v in used},
            folded,
            tuple(label for label, _ in outputs),
            dims,
        )
        return graph, constants

    def _add_calls(self, nodes: tuple[Node, ...], constants: dict[str, Array]) -> None:
        """Serialized host nodes stand among the constants, but no node reads them as a value."""
        for n in nodes:
            if n.op == "host":
                key = str(n.attr("call"))
                constants[key] = self._arrays[key]

    def call(self, data: bytes) -> str:
        """Keep a serialized host node among the constants; returns its key."""
        key = f"call:{self.origin.node}"
        while key in self._taken:
            key += "'"
        self._taken.add(key)
        self._arrays[key] = np.frombuffer(data, np.uint8)
        return key

    def _needed(self, live: set[str]) -> list[Node]:
        kept: list[Node] = []
        for node in reversed(self._nodes):
            if live.intersection(node.outputs):
                kept.append(node)
                live.update(node.inputs)
        kept.reverse()
        return kept

    def _names(self, nodes: Sequence[Node], used: set[str]) -> dict[str, str]:
        """Names for values the model has none for: the layer and the op that makes them."""
        names = {v: self._final[v] for v in used if v in self._final}
        count: dict[str, int] = {}
        for node in nodes:
            for v in node.outputs:
                if v not in names:
                    names[v] = self._free(f"{node.origin.node}.{node.op}", count)
            for v in node.inputs:
                if v and v not in names:
                    names[v] = self._free(f"{node.origin.node}.constant", count)
        for v in sorted(used - names.keys()):
            names[v] = self._free("constant", count)
        return names

    def _free(self, stem: str, count: dict[str, int]) -> str:
        while True:
            count[stem] = count.get(stem, -1) + 1
            name = f"{stem}.{count[stem]}" if count[stem] else stem
            if name not in self._taken:
                self._taken.add(name)
                return name
