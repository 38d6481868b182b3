"""Random graphs: what the program computes is what the graph means."""

from __future__ import annotations

import hypothesis
import numpy as np

from cimc.arch.load import load
from cimc.codegen.contents import Contents
from cimc.codegen.lower import lower
from cimc.ir.evaluate import evaluate
from cimc.isa.printer import print_program
from cimc.isa.text import parse_program
from cimc.mapping.build import build
from cimc.ops import Arithmetic
from cimc.sim.interpreter import run
from tests.codegen.random_graphs import Drawn, graphs

CHIP = load("toy", ("tiles.all.cores=64", "tiles.all.local_bytes=65536")).spec


@hypothesis.settings(max_examples=120, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(graphs())
def test_programs_compute_what_graphs_mean(drawn: Drawn) -> None:
    graph, mapping = build(drawn.graph, CHIP, "w8a8")
    program = lower(graph, mapping, CHIP)
    weights = Contents(program, graph, drawn.constants)
    names = drawn.graph.outputs
    for exact in (False, True):
        wanted = evaluate(drawn.graph, drawn.constants, drawn.inputs, Arithmetic(exact=exact))
        result = run(
            program, weights, CHIP, inputs=drawn.inputs, numerics="float" if exact else "integer", timing=False
        )
        assert result.outputs is not None
        for name, port in zip(names, program.outputs, strict=True):
            got, want = result.outputs[port.name], wanted[name]
            if exact:
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(got, want)


@hypothesis.settings(max_examples=25, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(graphs())
def test_compiled_programs_print_and_parse(drawn: Drawn) -> None:
    graph, mapping = build(drawn.graph, CHIP, "w8a8")
    text = print_program(lower(graph, mapping, CHIP))
    assert print_program(parse_program(text, "p")) == text
