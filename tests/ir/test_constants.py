"""Derived constants: computed when asked for, kept when small."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.ir.constants import RECENT_BYTES, derived
from cimc.ir.graph import Array, Constants


def test_nothing_is_computed_before_it_is_read() -> None:
    calls: list[str] = []

    def twice(constants: Constants) -> Array:
        calls.append("twice")
        return constants["w"] * 2

    held = derived({"w": np.ones(3, np.float32)})
    held.add("twice", twice)
    held.add("more", lambda constants: constants["twice"] + 1)
    assert sorted(held) == ["more", "twice", "w"]
    assert len(held) == 3
    assert "twice" in held
    assert calls == []
    assert held["more"].tolist() == [3, 3, 3]
    assert held["twice"].tolist() == [2, 2, 2]
    assert calls == ["twice"]


def test_mappings_do_not_stack() -> None:
    first = derived({"w": np.zeros(1, np.float32)})
    first.add("a", lambda constants: constants["w"] + 1)
    second = derived(first)
    second.add("a", lambda constants: constants["w"] + 2)
    assert first["a"] == 1
    assert second["a"] == 2
    assert second["w"] is first["w"]


def test_large_results_are_held_only_as_long_as_somebody_needs_them() -> None:
    calls: list[int] = []

    def large(constants: Constants) -> Array:
        calls.append(1)
        return np.zeros(RECENT_BYTES + 1, np.int8)

    held = derived({})
    held.add("large", large)
    value = held["large"]
    assert held["large"] is value
    assert len(calls) == 1
    del value
    _ = held["large"]
    assert len(calls) == 2


def test_unknown_names() -> None:
    with pytest.raises(KeyError):
        _ = derived({})["w"]
