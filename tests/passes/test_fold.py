"""fold: goldens on small graphs; the answers stay."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, ops, rewritten

from cimc.isa.operands import Element
from cimc.passes.fold import Fold
from cimc.passes.identities import lossless

HEAD = "graph test : imported\n"


def fold(text: str, **constants: object) -> str:
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return body(rewritten(HEAD + text, arrays, Fold())[0])


def f32(value: object) -> np.ndarray:
    return np.asarray(value, np.float32)


def test_the_example_of_the_docstring() -> None:
    before = """\
input %x : f32[2x3]
const %one : f32[]
%a : f32[2x3] = mul %x, %one
%b : f32[3x2] = transpose{perm=(1, 0)} %a
%c : f32[2x3] = transpose{perm=(1, 0)} %b
%d : f32[2x3] = exp %c
%e : f32[2x3] = exp %x
%f : f32[2x3] = add %d, %e
output %f
"""
    after = """\
input %x : f32[2x3]
%d : f32[2x3] = exp %x
%f : f32[2x3] = add %d, %d
output %f
"""
    assert fold(before, one=f32(1)) == after


def test_what_depends_on_constants_only_is_computed() -> None:
    before = """\
input %x : f32[3]
const %a : f32[3]
const %b : f32[]
%c : f32[3] = mul %a, %b
%d : f32[3] = exp %c
%y : f32[3] = add %x, %d
output %y
"""
    after = """\
input %x : f32[3]
const %d : f32[3]
%y : f32[3] = add %x, %d
output %y
"""
    graph, constants = rewritten(HEAD + before, {"a": f32([1, 2, 3]), "b": f32(0.5)}, Fold())
    assert body(graph) == after
    np.testing.assert_allclose(constants["d"], np.exp([0.5, 1, 1.5]), rtol=1e-6)


def test_large_results_are_not_folded() -> None:
    text = """\
input %x : f32[]
const %a : f32[1]
%b : f32[5000000] = expand{shape=(5000000)} %a
%y : f32[5000000] = mul %b, %x
output %y
"""
    assert ops(rewritten(HEAD + text, {"a": f32([2])}, Fold())[0]) == ["expand", "mul"]


@pytest.mark.parametrize(
    ("op", "neutral", "swaps"),
    [("add", 0, True), ("sub", 0, False), ("mul", 1, True), ("div", 1, False), ("pow", 1, False)],
)
def test_neutral_operands_go(op: str, neutral: float, swaps: bool) -> None:
    for operands, gone in (("%x, %c", True), ("%c, %x", swaps)):
        text = (
            f"input %x : f32[2]\nconst %c : f32[1]\n%y : f32[2] = {op} {operands}\n%z : f32[2] = tanh %y\noutput %z\n"
        )
        graph, _ = rewritten(HEAD + text, {"c": f32([neutral])}, Fold())
        assert ops(graph) == (["tanh"] if gone else [op, "tanh"])


def test_a_neutral_operand_that_broadcasts_stays() -> None:
    text = "input %x : f32[2]\nconst %c : f32[3x2]\n%y : f32[3x2] = add %x, %c\n%z : f32[3x2] = neg %y\noutput %z\n"
    assert ops(rewritten(HEAD + text, {"c": f32(np.zeros((3, 2)))}, Fold())[0]) == ["add", "neg"]


@pytest.mark.parametrize(
    ("lines", "after"),
    [
        ("%a : f32[2x3x4] = reshape{shape=(2, 3, 4)} %x", []),
        ("%b : f32[6x4] = reshape{shape=(6, 4)} %x\n%a : f32[24] = reshape{shape=(24)} %b", ["reshape"]),
        ("%b : f32[6x4] = reshape{shape=(6, 4)} %x\n%a : f32[2x3x4] = reshape{shape=(2, 3, 4)} %b", []),
        ("%a : f32[2x3x4] = slice{start=(0, 0, 0), size=(2, 3, 4), step=(1, 1, 1)} %x", []),
        (
            "%b : f32[2x2x4] = slice{start=(0, 2, 0), size=(2, 2, 4), step=(1, -2, 1)} %x\n"
            "%a : f32[1x2x2] = slice{start=(1, 1, 3), size=(1, 2, 2), step=(1, -1, -2)} %b",
            ["slice"],
        ),
        ("%a : f32[2x3x4] = expand{shape=(2, 3, 4)} %x", []),
        ("%a : f32[2x3x4] = concat{axis=1} %x", []),
        ("%a : f32[2x3x4] = pad{before=(0, 0, 0), after=(0, 0, 0)} %x", []),
        ("%a : f32[2x3x4] = copy %x", []),
        ('%a : f32[2x3x4] = cast{to="f32"} %x', []),
        ('%b : f64[2x3x4] = cast{to="f64"} %x\n%a : f32[2x3x4] = cast{to="f32"} %b', []),
        ('%b : f64[2x3x4] = cast{to="f64"} %x\n%a : i32[2x3x4] = cast{to="i32"} %b', ["cast"]),
        ('%b : f16[2x3x4] = cast{to="f16"} %x\n%a : f32[2x3x4] = cast{to="f32"} %b', ["cast", "cast"]),
        ("%a : f32[2x3x4] = transpose{perm=(0, 1, 2)} %x", []),
        (
            "%b : f32[3x4x2] = transpose{perm=(1, 2, 0)} %x\n%a : f32[4x2x3] = transpose{perm=(1, 2, 0)} %b",
            ["transpose"],
        ),
        (
            "%b : f32[2x1x3x4] = reshape{shape=(2, 1, 3, 4)} %x\n"
            "%a : f32[1x2x3x4] = transpose{perm=(1, 0, 2, 3)} %b",
            ["reshape"],
        ),
    ],
)  # fmt: skip
def test_views_and_casts_compose(lines: str, after: list[str]) -> None:
    last = lines.splitlines()[-1]
    type = last.split(" : ")[1].split(" ")[0]
    text = f"{HEAD}input %x : f32[2x3x4]\n{lines}\n%y : {type} = neg %a\noutput %y\n"
    graph, _ = rewritten(text, {}, Fold())
    assert ops(graph) == [*after, "neg"]


@pytest.mark.parametrize(("lead", "after"), [("2x3", ["transpose"]), ("3x2", ["reshape", "transpose"])])
def test_axes_swapped_while_heads_are_folded_into_the_batch(lead: str, after: list[str]) -> None:
    text = f"""\
input %x : f32[2x3x4x5]
%a : f32[6x4x5] = reshape{{shape=(6, 4, 5)}} %x
%b : f32[6x5x4] = transpose{{perm=(0, 2, 1)}} %a
%c : f32[{lead}x5x4] = reshape{{shape=({lead.replace("x", ", ")}, 5, 4)}} %b
%y : f32[{lead}x5x4] = neg %c
output %y
"""
    graph, _ = rewritten(HEAD + text, {}, Fold())
    assert ops(graph) == [*after, "neg"]


@pytest.mark.parametrize(("op", "kind"), [('cast{to="f32"}', "i64"), ("exp", "f32")])
def test_elements_that_are_expanded_are_worked_on_once(op: str, kind: str) -> None:
    before = f"""\
input %m : {kind}[1x4x1]
input %x : f32[1x4x8]
%e : {kind}[1x4x8] = expand{{shape=(1, 4, 8)}} %m
%c : f32[1x4x8] = {op} %e
%y : f32[1x4x8] = mul %x, %c
output %y
"""
    after = f"""\
input %m : {kind}[1x4x1]
input %x : f32[1x4x8]
%c.once : f32[1x4x1] = {op} %m
%y : f32[1x4x8] = mul %x, %c.once
output %y
"""
    assert fold(before) == after


def test_outputs_keep_their_names() -> None:
    text = f"{HEAD}input %x : f32[2]\nconst %zero : f32[]\n%y : f32[2] = add %x, %zero\noutput %y\n"
    graph, _ = rewritten(text, {"zero": f32(0)}, Fold())
    assert graph.outputs == ("y",)


def test_select_takes_the_branch_it_always_takes() -> None:
    text = """\
input %a : f32[2x2]
input %b : f32[2x2]
const %c : b8[2]
%s : f32[2x2] = select %c, %a, %b
%y : f32[2x2] = neg %s
output %y
"""
    for value, branch in ((True, "a"), (False, "b")):
        graph, _ = rewritten(HEAD + text, {"c": np.full(2, value)}, Fold())
        assert [(n.op, n.inputs) for n in graph.nodes] == [("neg", (branch,))]
    assert ops(rewritten(HEAD + text, {"c": np.array([True, False])}, Fold())[0]) == ["select", "neg"]


@pytest.mark.parametrize(
    ("index", "after"),
    [
        ([0, 1, 2], "%y : f32[3x1x4] = reshape{shape=(3, 1, 4)} %x"),
        ([0, 2, 1], "%y : f32[3x1x4] = gather %x, %i"),
        ([0, 1, -1], "%y : f32[3x1x4] = gather %x, %i"),
    ],
)
def test_rows_that_are_looked_up_in_order_are_the_table(index: list[int], after: str) -> None:
    text = """\
input %x : f32[3x4]
const %i : i64[3x1x1]
%y : f32[3x1x4] = gather %x, %i
output %y
"""
    assert after in fold(text, i=np.reshape(index, (3, 1, 1)))


def test_equal_constants_and_equal_nodes_become_one() -> None:
    before = """\
input %x : f32[2]
const %a : f32[]
const %b : f32[]
const %c : f32[1]
%p : f32[2] = mul %x, %a
%q : f32[2] = mul %x, %b
%r : f32[2] = mul %x, %c
%s : f32[2] = add %p, %q
%y : f32[2] = add %s, %r
output %y
"""
    after = """\
input %x : f32[2]
const %a : f32[]
const %c : f32[1]
%p : f32[2] = mul %x, %a
%r : f32[2] = mul %x, %c
%s : f32[2] = add %p, %p
%y : f32[2] = add %s, %r
output %y
"""
    assert fold(before, a=f32(3), b=f32(3), c=f32([3])) == after


def test_elementwise_ops_broadcast_by_themselves() -> None:
    text = """\
input %x : f32[4x3]
input %m : f32[1x3]
input %k : f32[1x3]
%e : f32[4x3] = expand{shape=(4, 3)} %m
%f : f32[4x3] = expand{shape=(4, 3)} %k
%a : f32[4x3] = add %x, %e
%b : f32[4x3] = mul %e, %f
output %a
output %b
"""
    graph, _ = rewritten(HEAD + text, {}, Fold())
    assert [(n.op, n.inputs) for n in graph.nodes if n.outputs == ("a",)] == [("add", ("x", "m"))]
    assert sum(n.op == "expand" for n in graph.nodes) == 1  # one of the two has to make the shape


@pytest.mark.parametrize("source", [e for e in Element if not e.quantized])
@pytest.mark.parametrize("target", [e for e in Element if not e.quantized])
def test_lossless_casts_lose_nothing(source: Element, target: Element) -> None:
    if not lossless(source, target) or target is Element.B8:
        return
    old, new = source.dtype(exact=False), target.dtype(exact=False)
    if source.narrow:
        assert source is target
        return
    if np.issubdtype(old, np.integer):
        info = np.iinfo(old)
        values = np.array([info.min, info.max, info.max - 1, info.min + 1, 0, 1], old)
    elif old == np.bool_:
        values = np.array([False, True])
    else:
        import ml_dtypes

        limits = ml_dtypes.finfo(old)
        values = np.array([limits.max, limits.min, limits.eps, limits.smallest_subnormal, 1, np.inf, 0], old)
    assert np.array_equal(values.astype(new).astype(old), values)
