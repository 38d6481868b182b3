"""Masks computed again where they are read: the same values, fewer bytes."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.arch.load import load
from cimc.codegen.contents import Contents
from cimc.codegen.lower import lower
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.isa.program import Program
from cimc.mapping.build import build
from cimc.mapping.recompute import recomputed
from cimc.mapping.segment import segments
from cimc.ops import Arithmetic
from cimc.sim.interpreter import run
from tests.passes.graph_builder import Build, random

CHIP = load("sram-digital").spec
HEADS, TOKENS, DEPTH = 12, 64, 16
KEPT = 1 << 16


def masked(layers: int) -> tuple[Build, Graph]:
    """Attention layers under one mask: a constant triangle and tokens that count."""
    b = Build("partitioned")
    shape = f"f32[1x{HEADS}x{TOKENS}x{DEPTH}]"
    triangle = b.const(np.tril(np.ones((1, 1, TOKENS, TOKENS), bool)), "triangle")
    seen = b("cast", b.input("tokens", f"f32[1x1x1x{TOKENS}]"), to="b8")
    mask = b("select", b("and", triangle, seen), b.const(0.0), b.const(-1e30))
    x = b.input("x", shape)
    k, v = b("transpose", b.input("k", shape), perm=(0, 1, 3, 2)), b.input("v", shape)
    for _ in range(layers):
        x = b("attention", x, k, v, mask, scale=0.25)
    return b, b.graph(x)


def inputs() -> dict[str, np.ndarray]:
    tokens = np.ones((1, 1, 1, TOKENS), np.float32)
    tokens[..., -5:] = 0
    shape = (1, HEADS, TOKENS, DEPTH)
    return {"tokens": tokens, **{name: random(shape, i) for i, name in enumerate(("x", "k", "v"))}}


def test_each_reader_computes_the_mask_of_its_rows() -> None:
    _, graph = masked(2)
    found, parts = recomputed(graph, segments(graph), KEPT)
    assert [n.op for n in parts[-1].nodes] == ["and", "select", "attention"] * 2
    assert [s.index for s in parts] == list(range(len(parts)))
    mask = parts[-1].nodes[1].outputs[0]
    assert found.type(mask).shape == (1, HEADS, TOKENS, TOKENS)
    assert sum(n.op == "select" for n in found.nodes) == 2, "the one that all shared is gone"


def test_what_is_computed_of_as_many_bytes_is_fetched() -> None:
    """A constant too large to stay in a tile costs its bytes: of the two nodes one is worth it."""
    _, graph = masked(1)
    _, parts = recomputed(graph, segments(graph), KEPT // 64)
    assert [n.op for n in parts[-1].nodes] == ["select", "attention"]


def test_a_mask_that_is_an_input_is_left_alone() -> None:
    b = Build("partitioned")
    x = b.input("x", f"f32[1x{HEADS}x{TOKENS}x{DEPTH}]")
    mask = b.input("mask", f"f32[1x1x{TOKENS}x{TOKENS}]")
    graph = b.graph(b("attention", x, b("transpose", x, perm=(0, 1, 3, 2)), x, mask, scale=1.0))
    before = segments(graph)
    assert recomputed(graph, before, KEPT) == (graph, before)


@pytest.mark.parametrize("tiles", ["1", "16"])
def test_programs_compute_what_the_graph_means(tiles: str) -> None:
    """On one digital tile, whose loops go over the heads, and on many, which have tasks."""
    b, graph = masked(2)
    chip = CHIP if tiles == "16" else load("toy", ("tiles.all.local_bytes=1048576",)).spec
    mapped, mapping = build(graph, chip, "w8a8")
    program = lower(mapped, mapping, chip)
    assert any(local.key.startswith("triangle") for tile in program.tiles for local in tile.buffers)
    for exact in (False, True):
        wanted = evaluate(graph, b.constants, inputs(), Arithmetic(exact=exact))[graph.outputs[0]]
        got = computed(program, Contents(program, mapped, b.constants), "float" if exact else "integer", chip)
        np.testing.assert_allclose(got, wanted, rtol=1e-5 if exact else 0, atol=1e-5 if exact else 0)


def computed(program: Program, weights: Contents, numerics: str, chip: object) -> np.ndarray:
    result = run(program, weights, chip, inputs=inputs(), numerics=numerics, timing=False)  # type: ignore[arg-type]
    assert result.outputs is not None
    return result.outputs[program.outputs[0].name]
