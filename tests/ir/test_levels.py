"""The law of levels: what is told, and where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cimc.ir.graph import Graph, Node, Type
from cimc.ir.levels import LEVELS, LawBroken, check
from cimc.isa.operands import Element
from cimc.ops import OPS
from cimc.origin import Origin

F32 = Element.F32
SQUARE = Type(F32, (4, 4))


def graph(level: str, *nodes: Node, **types: Type) -> tuple[Graph, dict[str, np.ndarray]]:
    """x and z are inputs, w a constant, all 4 × 4; every other value is, too, unless ``types`` says otherwise."""
    values = {v for n in nodes for v in (*n.inputs, *n.outputs) if v} | {"x", "z", "w"}
    table = {**dict.fromkeys(values, SQUARE), **types}
    made = Graph("g", level, ("x", "z"), (nodes[-1].outputs[0],), nodes, table, frozenset({"w"}))
    return made, {"w": np.ones((4, 4), np.float32)}


def node(op: str, inputs: str, output: str = "y", **attrs: int | float | str) -> Node:
    return Node(op, tuple(inputs.split()), (output,), tuple(attrs.items()), (Origin("/layer", "Layer"),))


def violations(made: Graph, constants: dict[str, np.ndarray]) -> str:
    with pytest.raises(LawBroken) as caught:
        check(made, constants, "after fold")
    assert str(caught.value).startswith(f"after fold: graph g breaks the law of level {made.level}\n")
    return "\n".join(caught.value.violations)


def test_lawful_graphs_pass() -> None:
    check(*graph("imported", node("matmul", "x z", "a"), node("add", "a w")))
    check(*graph("canonical", node("linear", "x w")))


@pytest.mark.parametrize(
    ("level", "op"),
    [
        ("imported", "linear"),
        ("imported", "quantize"),
        ("canonical", "dequantize"),
        ("canonical", "blocked_mvm"),
        ("quantized", "linear"),
        ("partitioned", "mvm"),
    ],
)
def test_ops_of_another_level(level: str, op: str) -> None:
    attrs = {"rows": 4, "cols": 4} if op == "blocked_mvm" else {}
    operands = "x w z" if op == "dequantize" else "x" if op == "quantize" else "x w"
    made = node(op, operands, **attrs)
    types = OPS[op].infer(made, [SQUARE] * len(made.inputs))
    made = replace(made, outputs=tuple(f"y{i}" for i in range(len(types))))
    broken = graph(level, made, **dict(zip(made.outputs, types, strict=True)))
    assert f"(from /layer) is not legal at level {level}" in violations(*broken)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ((node("neg", "b", "a"), node("neg", "a", "b")), "neg → a (from /layer) reads b, which nothing before"),
        ((node("neg", "x", "a"), node("exp", "x", "a")), "exp → a (from /layer) produces a a second time"),
        ((node("neg", "x", "z"),), "produces z a second time"),
        ((node("nag", "x"),), "nag → y (from /layer) is no op"),
        ((node("neg", "x", axis=1),), "has an undeclared attribute axis"),
        ((node("layer_norm", "x"),), "lacks attribute epsilon"),
        ((node("layer_norm", "x", epsilon="small"),), "has attribute epsilon = 'small', of type str"),
        ((node("neg", "x z"),), "has 2 inputs, not 1 to 1"),
        ((Node("add", ("x", ""), ("y",)),), "lacks input 1"),
        ((node("reduce_sum", "x"),), "declares y as f32[4x4], but it is f32[4x1]"),
        ((Node("neg", ("x",), ("y", "u")),), "has 2 outputs, not 1"),
    ],
)
def test_what_holds_at_every_level(nodes: tuple[Node, ...], told: str) -> None:
    assert told in violations(*graph("imported", *nodes))


def test_operands_that_do_not_fit() -> None:
    broken = graph("imported", node("matmul", "x q"), q=Type(F32, (3, 4)))
    made = replace(broken[0], inputs=("x", "z", "q"))
    assert "does not fit its operands: matmul of f32[4x4] and f32[3x4]" in violations(made, broken[1])


def test_constants_must_exist() -> None:
    made, _ = graph("imported", node("add", "x w"))
    assert "constant w has no array" in violations(made, {})
    assert "value w is both input and constant" in violations(replace(made, inputs=("x", "w")), {"w": np.ones(1)})


def test_outputs_must_be_produced() -> None:
    made, constants = graph("imported", node("add", "x w"))
    assert "output q is produced by nothing" in violations(replace(made, outputs=("q",)), constants)


def test_canonical_has_no_work_left() -> None:
    assert "has only constant inputs" in violations(*graph("canonical", node("neg", "w")))
    assert "multiplies by constant w: this is a linear" in violations(*graph("canonical", node("matmul", "x w")))
    assert "has weights z that are not constant" in violations(*graph("canonical", node("linear", "x z")))


def test_only_integers_of_the_model_are_multiplied_before_quantisation() -> None:
    types = {"q": Type(Element.Q8, (4, 4)), "y": Type(Element.Q32, (4, 4))}
    broken = graph("imported", node("mvm", "q w"), **types)
    made = replace(broken[0], inputs=("x", "z", "q"))
    assert "is on values quantised by cimc" in violations(made, broken[1])


def test_blocks_have_a_size() -> None:
    broken = graph("partitioned", node("blocked_mvm", "x w", rows=0, cols=4), y=Type(Element.I32, (4, 4)))
    assert "has blocks of 0 × 4" in violations(*broken)


def test_unknown_levels_and_long_lists() -> None:
    assert "there is no level 'sometimes'" in violations(*graph("sometimes", node("neg", "x")))
    many = [node("nag", "x", f"y{i}") for i in range(15)]
    made, constants = graph("imported", *many)
    with pytest.raises(LawBroken, match=r"\.\.\. and 5 more"):
        check(made, constants)


def test_every_op_is_legal_somewhere() -> None:
    for op in OPS:
        assert any(op not in level.forbidden for level in LEVELS.values()), op
