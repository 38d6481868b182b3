"""Running a program by one call: values, time, both, and what is refused before anything runs."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.errors import CimcError
from cimc.sim.interpreter import run
from tests.sim.chips import chip, do, program, tile, view
from tests.sim.test_values import linear, weights


def test_values_and_time_of_one_program():
    x = np.random.default_rng(2).normal(size=(4, 20)).astype(np.float32)
    w = weights()
    seen: set[str] = set()
    got = run(linear(), w, chip(), inputs={"x": x}, trace=True, progress=lambda engine, done, total: seen.add(engine))
    assert got.outputs is not None
    assert got.timing is not None
    np.testing.assert_allclose(got.outputs["y"], x @ w["w.float"], rtol=1e-5, atol=1e-4)
    assert got.timing.instructions == len(got.timing.events) == 1 + 4 * 5 + 1
    assert got.timing.macs["static"] == 4 * 20 * 12
    assert seen - {"compile"} == {"values", "timing"}  # compile: where no test of this process ran the loop before


def test_each_engine_runs_alone():
    only_time = run(linear(), {}, chip(), values=False)  # needs neither weights nor inputs
    assert only_time.outputs is None
    assert only_time.timing is not None
    x = np.ones((4, 20), np.float32)
    only_values = run(linear(), weights(), chip(), inputs={"x": x}, timing=False)
    assert only_values.timing is None
    assert only_values.outputs is not None


def test_time_does_not_depend_on_values():
    times = {
        run(linear(), weights(), chip(), inputs={"x": np.full((4, 20), v, np.float32)}, numerics=n).timing.cycles
        for v in (0.0, 3.5)
        for n in ("float", "integer", "analog")
    }
    assert times == {run(linear(), {}, chip(), values=False).timing.cycles}


def test_a_program_against_the_law_is_refused_before_it_runs():
    bad = program(tile(0, do("fill", view("nowhere", 4), value=0.0)))
    with pytest.raises(CimcError) as caught:
        run(bad, {}, chip())
    assert caught.value.exit == 2
