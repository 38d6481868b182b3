"""Pipelines as text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc import errors
from cimc.passes.contract import Pass
from cimc.passes.fold import Fold
from cimc.passes.partition import Partition
from cimc.passes.pipeline_text import PASSES, options, parse_pipeline, print_pipeline
from cimc.passes.quantize import Quantize

VALUES: dict[str, st.SearchStrategy[object]] = {
    "keep_blocks": st.booleans(),
    "bytes": st.integers(1, 1 << 30),
    "digital_bytes": st.integers(1, 1 << 30),
    "layers": st.text("ab/.*?-, 0", max_size=12),
    "channels": st.integers(1, 1024),
    "count": st.sampled_from([2, 4, 8]),
    "above": st.floats(0, 1e6),
    "by": st.sampled_from(["weights", "activations"]),
    "activations": st.sampled_from(["dynamic", "static"]),
    "rounding": st.sampled_from(["nearest", "fitted"]),
    "where": st.sampled_from(["free", "anywhere"]),
    "cells": st.sampled_from(["sram", "nvm"]),
    "to": st.sampled_from(["f16", "bf16"]),
    "weight_bits": st.integers(2, 8),
    "rows": st.integers(1, 1 << 16),
    "cols": st.integers(1, 1 << 16),
    "cores": st.integers(1, 1 << 16),
}
"""Values for every option that a pass has."""


@st.composite
def passes(draw: st.DrawFn) -> Pass:
    kind = PASSES[draw(st.sampled_from(sorted(PASSES)))]
    return kind(**{name: draw(VALUES[name]) for name in options(kind)})


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(passes(), max_size=6))
def test_what_prints_parses(given: list[Pass]) -> None:
    text = print_pipeline(given)
    assert parse_pipeline(text) == tuple(given)
    assert print_pipeline(parse_pipeline(text)) == text


def test_text_says_options_by_name() -> None:
    text = " fold , quantize{ activations = static, weight_bits=4 },partition{rows=64}"
    want = (Fold(), Quantize(activations="static", weight_bits=4), Partition(rows=64))
    assert parse_pipeline(text) == want
    assert print_pipeline(want) == "fold,quantize{activations=static, weight_bits=4},partition{rows=64}"


@pytest.mark.parametrize(
    ("text", "code", "column", "words"),
    [
        ("fold,fuze", "pass-unknown", 6, "did you mean 'fuse'"),
        ("fold,", "pipeline-syntax", 6, "expected the name of a pass"),
        ("fold fuse", "pipeline-syntax", 6, "expected ',' and another pass"),
        ("partition{rows}", "pipeline-syntax", 16, "expected '=' and a value"),
        ("partition{rows=1", "pipeline-syntax", 17, "expected ',' or '}'"),
        ("partition{row=1}", "pass-option", 11, "did you mean 'rows'"),
        ("partition{rows=big}", "pass-option", 16, "'big' is no int"),
        ("fold{x=1}", "pass-option", 6, "it has no options"),
        ("fold;fuse", "pipeline-syntax", 5, "expected a name or one of"),
    ],
)
def test_errors_point_at_the_place(text: str, code: str, column: int, words: str) -> None:
    with pytest.raises(errors.CimcError) as caught:
        parse_pipeline(text)
    assert caught.value.code == code
    assert caught.value.source is not None
    assert caught.value.source.column == column
    assert words in caught.value.render()


def test_option_values_are_checked() -> None:
    with pytest.raises(errors.CimcError, match="option rows of pass partition: 0 is below 1"):
        parse_pipeline("partition{rows=0}")
