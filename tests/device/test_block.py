"""A transformer block on every technology: finite, seeded, equal to integer numerics where nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from onnx import save_model

from cimc import inputs as input_files
from cimc.analog import technologies
from cimc.compiler import Compiled, compile_model
from cimc.device import Device
from cimc.errors import CimcError, Exit
from cimc.options import Options
from cimc.report.device import error_of, spread
from cimc.sim.tally import Tally
from cimc.sim.values import Analog, run_values
from cimc.study import Subject, analog_core, attribution, calibration, over_time, trials
from models.small import bert

Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=32, heads=2, vocab=64, positions=16), path)
    found = compile_model(path, Options(dims={"batch": 1, "sequence": 4}))
    assert found is not None
    return found


def feeds(compiled: Compiled) -> Arrays:
    return input_files.draw(compiled.program, 0)


def run(compiled: Compiled, device: Device | None, seed: int = 0, tally: Tally | None = None) -> Arrays:
    numerics = "analog" if device else "integer"
    how = Analog(device, tally or Tally())
    chip = compiled.hardware.spec
    return run_values(
        compiled.program, compiled.weights, feeds(compiled), chip, numerics=numerics, seed=seed, analog=how
    )[0]


def same(a: Arrays, b: Arrays) -> bool:
    return all(np.array_equal(a[k], b[k]) for k in a)


def device(compiled: Compiled, tech: str, *settings: str) -> Device:
    return Device.of(compiled.hardware.spec, settings, tech)


@cache
def names() -> tuple[str, ...]:
    return tuple(technologies())


@pytest.mark.parametrize("tech", names())
def test_block_on_each_technology(compiled: Compiled, tech: str) -> None:
    noisy = device(compiled, tech, "seconds=1h")
    core = analog_core(compiled.hardware.spec)
    assert core is not None
    first, again = run(compiled, noisy), run(compiled, noisy)
    assert all(np.isfinite(v).all() for v in first.values())
    assert same(first, again)
    # Without converters: whole steps of an ADC can absorb a small noise.
    bare = replace(noisy, adc=False)
    assert same(run(compiled, bare), run(compiled, bare, seed=1)) != noisy.random(core)
    assert same(run(compiled, noisy.only(())), run(compiled, None))


def test_ideal_cells_with_a_wide_converter_equal_integer(compiled: Compiled) -> None:
    """Eight bits reach 255 of at most 3 · 32 rows: nothing clips, nothing is rounded."""
    assert same(run(compiled, device(compiled, "ideal")), run(compiled, None))


def test_faults_and_wires_change_the_result_and_are_seeded(compiled: Compiled) -> None:
    exact = run(compiled, None)
    stuck = device(compiled, "ideal", "stuck_off_rate=0.02")
    assert not same(run(compiled, stuck), exact)
    assert same(run(compiled, stuck, seed=3), run(compiled, stuck, seed=3))
    assert not same(run(compiled, stuck, seed=3), run(compiled, stuck, seed=4))
    wires = device(compiled, "reram_isaac", "wire_ohm=5")
    assert not same(run(compiled, wires), run(compiled, wires.only(("adc", "on_off"))))
    assert same(run(compiled, wires), run(compiled, wires, seed=9))


def test_converter_errors_are_counted_by_layer(compiled: Compiled) -> None:
    tally = Tally(measured=True)
    run(compiled, device(compiled, "ideal", "adc_gain=4"), tally=tally)
    counts = {name: layer.counts() for name, layer in tally.layers.items()}
    assert len(counts) == 7  # query, key, value, attention output, two of the feed-forward, pooler
    assert all(c["conversions"] > 0 for c in counts.values())
    assert sum(c["saturated"] for c in counts.values()) > 0
    weights = sum(t.rows * t.cols for tile in compiled.program.tiles for t in tile.matrices)
    assert sum(c["cells"] for c in counts.values()) == 4 * weights  # four 2-bit slices
    assert all(layer.relative_error > 0 for layer in tally.layers.values())


def subject(compiled: Compiled) -> Subject:
    wanted = run_values(compiled.program, compiled.weights, feeds(compiled), compiled.hardware.spec, numerics="float")[
        0
    ]
    return Subject(compiled.program, compiled.weights, compiled.hardware.spec, feeds(compiled), wanted)


def test_attribution_ends_at_the_whole_device(compiled: Compiled) -> None:
    about = subject(compiled)
    whole = device(compiled, "pcm", "seconds=1d", "stuck_on_rate=0.01")
    steps = attribution(about, whole)
    names = [s.name for s in steps]
    assert names == ["quantization", "adc", "programming", "drift", "read_noise", "faults"]
    exact, last = run(compiled, None), run(compiled, whole)
    for name, want in about.wanted.items():
        assert steps[0].errors[name] == error_of(exact[name], want, want)
        assert steps[-1].errors[name].error == error_of(last[name], want, want).error
        assert all(s.errors[name].added for s in steps[2:])
    assert set(steps[0].layers) == set()
    assert all(v == 0 for v in steps[1].layers.values())  # these converters lose nothing
    assert all(v > 0 for v in steps[2].layers.values())


def test_trials_differ_and_time_hurts(compiled: Compiled) -> None:
    about = subject(compiled)
    pcm = device(compiled, "pcm")
    found = trials(about, pcm, 3)
    assert [t.seed for t in found] == [0, 1, 2]
    assert len({t.errors["last_hidden_state"].error for t in found}) == 3
    moments = over_time(about, pcm, (0.0, 3.2e7), 3)
    early, late = (spread([t.errors["last_hidden_state"].error for t in m.trials]) for m in moments)
    assert early is not None
    assert late is not None
    assert late.mean > early.mean
    assert moments[0].trials == tuple(found)


def distance(a: Arrays, b: Arrays) -> float:
    found = error_of(a["last_hidden_state"], b["last_hidden_state"], b["last_hidden_state"]).error
    assert found is not None
    return found


@pytest.mark.parametrize("encoding", ["offset", "differential"])
def test_drift_compensation_helps(compiled: Compiled, encoding: str) -> None:
    """A factor takes the mean loss of a year off; what cells differ by stays."""
    made = compile_model(
        compiled.model, Options(overrides=(f"core.encoding={encoding}",), dims={"batch": 1, "sequence": 4})
    )
    assert made is not None
    exact = run(made, None)
    drift = ("seconds=1y", "programming=off", "read_noise=off", "adc=off")
    found = {
        how: distance(run(made, device(made, "pcm", *drift, f"drift_compensation={how}")), exact)
        for how in ("none", "global", "column")
    }
    assert found["none"] == distance(run(made, device(made, "pcm", *drift)), exact)
    assert found["global"] < found["none"]
    assert found["column"] < found["none"]


@pytest.mark.parametrize("rule", ["calibrated", "calibrated_slice"])
def test_calibrated_range_beats_the_full_one(compiled: Compiled, rule: str) -> None:
    """A five-bit converter over all of 384 levels has steps of 16; the sums of 32 rows need less than 100."""
    low = compile_model(compiled.model, Options(overrides=("adc.bits=5",), dims={"batch": 1, "sequence": 4}))
    assert low is not None
    chip, given = low.hardware.spec, feeds(low)
    samples = calibration(low.program, low.weights, chip, given)
    exact = run(low, None)
    full = run(low, Device.of(chip, ["adc_range=full"], "ideal"))
    how = Analog(Device.of(chip, [f"adc_range={rule}"], "ideal"), samples=samples)
    fitted = run_values(low.program, low.weights, given, chip, numerics="analog", analog=how)[0]
    assert distance(fitted, exact) < 0.5 * distance(full, exact)


def test_not_finite_weights_and_activations_are_told_with_their_layer(tmp_path: Path) -> None:
    model = bert(layers=1, hidden=32, heads=2, vocab=64, positions=16)
    weight = next(t for t in model.graph.initializer if "query.weight" in t.name)
    broken = np.frombuffer(weight.raw_data, np.float32).copy()
    broken[5] = np.nan
    weight.raw_data = broken.tobytes()
    path = tmp_path / "nan.onnx"
    save_model(model, path)
    made = compile_model(path, Options(dims={"batch": 1, "sequence": 4}))
    assert made is not None
    with pytest.raises(CimcError, match="query") as caught:  # weights are computed when they are first wanted
        made.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert caught.value.exit is Exit.USAGE

    gain = next(t for t in model.graph.initializer if "embeddings.LayerNorm.weight" in t.name)
    broken[5] = 0.0
    weight.raw_data = broken.tobytes()
    scale = np.frombuffer(gain.raw_data, np.float32).copy()
    scale[3] = np.inf
    gain.raw_data = scale.tobytes()
    save_model(model, path)
    found = compile_model(path, Options(dims={"batch": 1, "sequence": 4}))
    assert found is not None
    with pytest.raises(CimcError, match=r"infinity|NaN") as caught:
        run(found, Device.of(found.hardware.spec))
    assert caught.value.exit is Exit.PROGRAM_FAILED
    assert "layer" in str(caught.value)
