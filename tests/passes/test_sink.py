"""sink: a transpose goes behind what works element by element; the answers stay."""

from __future__ import annotations

import numpy as np
from rewriting import body, ops, rewritten

from cimc.passes.fold import Fold
from cimc.passes.sink import Sink

HEAD = "graph test : imported\n"


def test_behind_elementwise_nodes_and_pads() -> None:
    before = """\
input %x : f32[1x8x8x16]
%t : f32[1x16x8x8] = transpose{perm=(0, 3, 1, 2)} %x
%r : f32[1x16x8x8] = relu %t
%p : f32[1x16x10x9] = pad{after=(0, 0, 1, 0), before=(0, 0, 1, 1)} %r
output %p
"""
    after = """\
input %x : f32[1x8x8x16]
%r.rows : f32[1x8x8x16] = relu %x
%p.rows : f32[1x10x9x16] = pad{after=(0, 1, 0, 0), before=(0, 1, 1, 0)} %r.rows
%p : f32[1x16x10x9] = transpose{perm=(0, 3, 1, 2)} %p.rows
output %p
"""
    assert body(rewritten(HEAD + before, {}, Sink())[0]) == after


def test_two_operands_a_constant_and_a_concat() -> None:
    text = """\
input %x : f32[2x3x4]
input %y : f32[2x3x4]
const %slope : f32[4x1]
%a : f32[2x4x3] = transpose{perm=(0, 2, 1)} %x
%b : f32[2x4x3] = transpose{perm=(0, 2, 1)} %y
%c : f32[2x4x3] = mul %a, %slope
%d : f32[2x4x3] = add %c, %b
%e : f32[2x8x3] = concat{axis=1} %d, %b
output %e
"""
    constants = {"slope": np.arange(4, dtype=np.float32).reshape(4, 1)}
    graph, held = rewritten(HEAD + text, constants, Sink(), Fold())
    assert ops(graph) == ["mul", "add", "concat", "transpose"]
    assert {held[c].shape for c in graph.constants} == {(1, 1, 4)}


def test_what_differs_stays() -> None:
    """Another transpose, none at all, rows that stay rows, an operand that is broadcast."""
    text = """\
input %x : f32[2x3x4]
input %y : f32[2x4x3]
input %z : f32[3]
%a : f32[2x4x3] = transpose{perm=(0, 2, 1)} %x
%b : f32[2x4x3] = add %a, %y
%c : f32[2x4x3] = add %a, %z
%d : f32[3x2x4] = transpose{perm=(1, 0, 2)} %x
%e : f32[3x2x4] = relu %d
output %b
output %c
output %e
"""
    graph, _ = rewritten(HEAD + text, {}, Sink())
    assert ops(graph) == ["transpose", "add", "add", "transpose", "relu"]


def test_columns_that_come_back_stay() -> None:
    """Pixels that become tokens: channels are columns of the product, rows for a while, and columns again; a token is joined
    along the rows then, in its place."""
    text = """\
input %x : f32[2x3x3x8]
%a : f32[2x8x3x3] = transpose{perm=(0, 3, 1, 2)} %x
%b : f32[2x8x9] = reshape{shape=(2, 8, 9)} %a
%c : f32[2x9x8] = transpose{perm=(0, 2, 1)} %b
%d : f32[2x9x8] = relu %c
output %d
"""
    graph, _ = rewritten(HEAD + text, {}, Sink())
    assert ops(graph) == ["transpose", "reshape", "transpose", "relu"]
