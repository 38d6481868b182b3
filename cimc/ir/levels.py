"""The law of each level: which ops may stand in a graph, and what holds of it. Checked before and after every pass.

What holds at every level: SSA order, every type as the op infers it, attributes as the op declares them.

- imported: what the model says; integer matmuls that the model spells itself may be ``mvm`` on integers.
- canonical: folded and fused; a float matmul with a constant matrix is ``linear``; no node has only constant inputs.
- quantized: no ``linear``, but ``quantize`` → ``mvm`` → ``dequantize``.
- partitioned: no ``mvm``, but ``blocked_mvm`` with the rows and columns of its blocks.
- ``written_matmul``, with its blocks, from quantized on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cimc.ir.graph import Constants, Graph, Node, Type
from cimc.isa.operands import Element
from cimc.ops import OPS

MOST_VIOLATIONS = 10
"""How many violations one message lists."""

FLOATS = frozenset((Element.F64, Element.F32, Element.F16, Element.BF16))

FOLD_BYTES = 16 << 20
FOLD_GROWTH = 8
"""A node with only constant inputs is folded unless its result is above FOLD_BYTES and FOLD_GROWTH times its
operands."""


class LawBroken(AssertionError):
    """A graph does not keep the law of its level: a bug in the pass that is named."""

    def __init__(self, where: str, graph: Graph, violations: Sequence[str]) -> None:
        lines = [f"{where}: graph {graph.name} breaks the law of level {graph.level}"]
        lines += [f"  {v}" for v in violations[:MOST_VIOLATIONS]]
        if len(violations) > MOST_VIOLATIONS:
            lines.append(f"  ... and {len(violations) - MOST_VIOLATIONS} more")
        super().__init__("\n".join(lines))
        self.violations = tuple(violations)


Rule = Callable[[Graph, Node], str]
"""Looks at one node; says what is wrong, or nothing."""


@dataclass(frozen=True)
class Level:
    """One level's law: the ops it forbids and the rules that hold of each node."""

    name: str
    forbidden: frozenset[str]
    rules: tuple[Rule, ...] = ()


def check(graph: Graph, constants: Constants, where: str = "check") -> None:
    """Check a graph against its level; ``where`` names the pass in the message. Raises LawBroken.

    Takes time linear in the size of the graph and reads no constant's elements.
    """
    violations = [*_values(graph, constants), *_nodes(graph)]
    if graph.level not in LEVELS:
        violations.insert(0, f"there is no level {graph.level!r}; there are {', '.join(LEVELS)}")
    if violations:
        raise LawBroken(where, graph, violations)


def _values(graph: Graph, constants: Constants) -> Iterator[str]:
    """Every value known before it is read, produced once, typed."""
    known = set(graph.inputs) | graph.constants
    if len(set(graph.inputs)) != len(graph.inputs):
        yield "an input is listed twice"
    yield from (f"value {v} is both input and constant" for v in graph.inputs if v in graph.constants)
    yield from (f"constant {v} has no array" for v in sorted(graph.constants) if v not in constants)
    for node in graph.nodes:
        for v in node.inputs:
            if v and v not in known:
                yield _at(node, f"reads {v}, which nothing before it produces")
        for v in node.outputs:
            if v in known:
                yield _at(node, f"produces {v} a second time")
            known.add(v)
        known.discard("")
        call = node.get("call", "")
        if node.op == "host" and call not in constants:
            yield _at(node, f"has no constant {call} with its call")
    yield from (f"output {v} is produced by nothing" for v in graph.outputs if v not in known)
    calls = {n.get("call", "") for n in graph.nodes if n.op == "host"}
    yield from (f"value {v} has no type" for v in sorted(known) if v not in graph.types and v not in calls)


def _nodes(graph: Graph) -> Iterator[str]:
    level = LEVELS.get(graph.level)
    for node in graph.nodes:
        if node.op not in OPS:
            yield _at(node, "is no op")
            continue
        wrong = attributes(node) or _types(graph, node)
        if not wrong and level is not None:
            wrong = _legal(level, graph, node)
        if wrong:
            yield _at(node, wrong)


def _legal(level: Level, graph: Graph, node: Node) -> str:
    if node.op in level.forbidden:
        return f"is not legal at level {level.name}"
    for rule in level.rules:
        wrong = rule(graph, node)
        if wrong:
            return wrong
    return ""


def attributes(node: Node) -> str:
    """What is wrong with a node's attributes, or nothing."""
    declared = {a.name: a for a in OPS[node.op].attributes}
    given = dict(node.attrs)
    if len(given) != len(node.attrs):
        return "has an attribute twice"
    for name, value in given.items():
        if name not in declared:
            return f"has an undeclared attribute {name}"
        if not isinstance(value, declared[name].types):
            return f"has attribute {name} = {value!r}, of type {type(value).__name__}"
    missing = [a.name for a in declared.values() if a.default is None and a.name not in given]
    return f"lacks attribute {missing[0]}" if missing else ""


def _types(graph: Graph, node: Node) -> str:
    op = OPS[node.op]
    fewest, most = op.arity
    if not fewest <= len(node.inputs) <= most:
        return f"has {len(node.inputs)} inputs, not {fewest} to {most}"
    absent = [i for i, v in enumerate(node.inputs) if not v and i < fewest]
    if absent:
        return f"lacks input {absent[0]}"
    operands: list[Type | None] = [graph.types.get(v) if v else None for v in node.inputs]
    if any(t is None and v for t, v in zip(operands, node.inputs, strict=True)):
        return ""  # told once, as a value without type
    try:
        inferred = op.infer(node, operands)
    except (ValueError, ArithmeticError, LookupError, TypeError, AssertionError) as fault:
        return f"does not fit its operands: {fault}"
    if len(inferred) != len(node.outputs):
        return f"has {len(node.outputs)} outputs, not {len(inferred)}"
    for v, t in zip(node.outputs, inferred, strict=True):
        if v and v in graph.types and graph.types[v] != t:
            return f"declares {v} as {graph.types[v]}, but it is {t}"
    return ""


def _at(node: Node, what: str) -> str:
    return f"{node.op} → {', '.join(node.outputs)} (from {node.origin}) {what}"


def _integers_only(graph: Graph, node: Node) -> str:
    cimc_made = node.op == "mvm" and graph.types[node.inputs[0]].element.quantized
    return "is on values quantised by cimc, which this level does not have" if cimc_made else ""


def foldable(graph: Graph, node: Node) -> bool:
    """Whether constant folding computes this node: only constant inputs, no host call, a result of reasonable size."""
    present = [v for v in node.inputs if v]
    if node.op == "host" or not all(v in graph.constants for v in present):
        return False
    return folds(node, [graph.types[v] for v in present], [graph.types[v] for v in node.outputs if v])


def folds(node: Node, operands: Sequence[Type], results: Sequence[Type]) -> bool:
    """Whether a node on constants is small enough to fold (the size rule of :func:`foldable`)."""
    size = sum(t.bytes for t in results)
    return size <= max(FOLD_BYTES, FOLD_GROWTH * sum(t.bytes for t in operands))


def _no_constant_nodes(graph: Graph, node: Node) -> str:
    return "has only constant inputs" if foldable(graph, node) else ""


def flat(shape: tuple[int, ...]) -> bool:
    """Whether a constant of this shape is a matrix once leading extents of 1 are taken away."""
    return len(shape) >= 2 and all(n == 1 for n in shape[:-2])


def _static_is_linear(graph: Graph, node: Node) -> str:
    if node.op != "matmul":
        return ""
    types = [graph.types[v] for v in node.inputs]
    if types[0].element not in FLOATS or types[0].element != types[1].element:
        return ""
    static = [v for v, t in zip(node.inputs, types, strict=True) if v in graph.constants and flat(t.shape)]
    return f"multiplies by constant {static[0]}: this is a linear" if static else ""


def _constant_cells(graph: Graph, node: Node) -> str:
    if node.op not in ("linear", "mvm", "blocked_mvm") or node.inputs[1] in graph.constants:
        return ""
    return f"has weights {node.inputs[1]} that are not constant"


def _block_size(graph: Graph, node: Node) -> str:
    if node.op not in ("blocked_mvm", "written_matmul"):
        return ""
    rows, cols = node.attr("rows"), node.attr("cols")
    fits = isinstance(rows, int) and isinstance(cols, int) and rows > 0 and cols > 0
    return "" if fits else f"has blocks of {rows} × {cols}"


_QUANTISATION = frozenset(("quantize", "quantize_static", "dequantize", "written_matmul"))

LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("imported", _QUANTISATION | {"linear", "blocked_mvm"}, (_integers_only, _constant_cells)),
        Level(
            "canonical",
            _QUANTISATION | {"blocked_mvm"},
            (_integers_only, _constant_cells, _no_constant_nodes, _static_is_linear),
        ),
        Level("quantized", frozenset({"linear", "blocked_mvm"}), (_constant_cells, _static_is_linear, _block_size)),
        Level("partitioned", frozenset({"linear", "mvm"}), (_constant_cells, _static_is_linear, _block_size)),
    )
}
"""The levels, in the order a graph goes through them."""
