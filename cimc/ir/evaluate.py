"""Run a graph at any level by calling each op's numeric reference: the meaning of a graph.

Values are freed after their last use, so the memory needed is that of the live values, not of all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping

import numpy as np

from cimc import errors
from cimc.ir.graph import Array, Constants, Graph, Node
from cimc.isa.hostnode import HostNode, Refused
from cimc.ops import OPS, Arithmetic

Watch = Callable[[Node, str, Array], None]
"""Called with every value as it is computed: its node, its name, the array (not to be changed)."""

FLOAT_COMPANION = ".float"
"""Suffix of the constant that holds the unrounded original of quantised weight codes."""

_CELLS_OPS = ("mvm", "blocked_mvm", "matmul")


def evaluate(
    graph: Graph, constants: Constants, inputs: Mapping[str, Array], arithmetic: Arithmetic
) -> dict[str, Array]:
    """The graph's outputs, by value name. ``inputs`` has one array per graph input.

    Raises CimcError (graph-input) if an input is missing or of another shape or element type.
    """
    found = evaluate_all(graph, constants, inputs, arithmetic, keep=graph.outputs)
    return {name: found[name] for name in graph.outputs}


def evaluate_all(
    graph: Graph,
    constants: Constants,
    inputs: Mapping[str, Array],
    arithmetic: Arithmetic,
    *,
    keep: Collection[str] = (),
    watch: Watch | None = None,
) -> dict[str, Array]:
    """The values named in ``keep`` (inputs and constants may be named too); ``watch`` sees every computed value.

    Raises CimcError (graph-input) as :func:`evaluate`; AssertionError if an op's reference returns another type than
    the graph declares: a bug in cimc.
    """
    live: dict[str, Array] = {name: _input(graph, name, inputs) for name in graph.inputs}
    last = _last_uses(graph)
    kept = frozenset(keep)
    found: dict[str, Array] = {name: live[name] for name in graph.inputs if name in kept}
    for index, node in enumerate(graph.nodes):
        operands = [_operand(graph, constants, live, node, v, arithmetic) for v in node.inputs]
        results = _run(node, operands, constants, arithmetic)
        for name, value in zip(node.outputs, results, strict=False):
            if not name:
                continue
            _check(graph, node, name, value, arithmetic)
            if watch is not None:
                watch(node, name, value)
            if name in kept:
                found[name] = value
            if last.get(name, -1) > index:
                live[name] = value
        for v in node.inputs:
            if last.get(v) == index:
                live.pop(v, None)
    for name in kept - found.keys():
        if name in graph.constants:
            found[name] = constants[name]
    return found


def _input(graph: Graph, name: str, inputs: Mapping[str, Array]) -> Array:
    declared = graph.types[name]
    if name not in inputs:
        raise errors.GRAPH_INPUT(name=name, graph=graph.name, why="no value is given", type=declared)
    value = np.asarray(inputs[name])
    if value.shape != declared.shape or value.dtype != declared.element.dtype(exact=True):
        why = f"the value given has shape {value.shape} and type {value.dtype}"
        raise errors.GRAPH_INPUT(name=name, graph=graph.name, why=why, type=declared)
    return value


def _last_uses(graph: Graph) -> dict[str, int]:
    return {v: index for index, node in enumerate(graph.nodes) for v in node.inputs if v}


def _operand(
    graph: Graph, constants: Constants, live: Mapping[str, Array], node: Node, name: str, arithmetic: Arithmetic
) -> Array | None:
    if not name:
        return None
    if name in live:
        return live[name]
    return _constant(graph, constants, node, name, arithmetic)


def _constant(graph: Graph, constants: Constants, node: Node, name: str, arithmetic: Arithmetic) -> Array:
    declared = graph.types[name]
    companion = name + FLOAT_COMPANION
    # The companion stands in for codes that cimc made (type q8), never for integers the model itself multiplies.
    if arithmetic.exact and node.op in _CELLS_OPS and declared.element.quantized and companion in constants:
        return constants[companion]
    value = constants[name]
    if value.shape != declared.shape or value.dtype != declared.element.dtype(exact=False):
        raise AssertionError(
            f"constant {name} read by {node.op} ({node.origin}) is {value.dtype}{list(value.shape)}, "
            f"but the graph declares {declared}"
        )
    return value


def _run(node: Node, operands: list[Array | None], constants: Constants, arithmetic: Arithmetic) -> list[Array]:
    if node.op == "host":
        return run_host(constants[str(node.attr("call"))], operands)
    # Infinities and NaNs are values like any other here; and a kernel on a scalar gives a NumPy scalar, not an array.
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in OPS[node.op].evaluate(node, operands, arithmetic)]


def _check(graph: Graph, node: Node, name: str, value: Array, arithmetic: Arithmetic) -> None:
    declared = graph.types[name]
    dtype = declared.element.dtype(exact=arithmetic.exact)
    if value.shape != declared.shape or value.dtype != dtype:
        raise AssertionError(
            f"value {name} of {node.op} ({node.origin}) evaluates to {value.dtype}{list(value.shape)}, "
            f"but the graph declares {declared} (in NumPy {dtype})"
        )


def run_host(call: Array, operands: list[Array | None]) -> list[Array]:
    """One ONNX node on the host. ``call``: the serialized single-node model (uint8); operands in the order of its inputs,
    absent optional ones None.

    Raises CimcError (host-node) if the host refuses the node or its operands.
    """
    present = [np.asarray(x, order="C") for x in operands if x is not None]
    try:
        return _node(np.asarray(call, dtype=np.uint8).tobytes()).run(present)
    except (Refused, ValueError) as fault:
        raise errors.HOST_NODE(why=str(fault)) from fault


@functools.lru_cache(maxsize=256)
def _node(model: bytes) -> HostNode:
    return HostNode(model)
