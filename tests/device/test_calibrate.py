"""The instruction ``calibrate``: what it takes, what it changes, where the compiler puts it, what contradicts it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import save_model

from cimc import inputs as input_files
from cimc.arch.load import load
from cimc.compiler import Compiled, compile_model
from cimc.device import Device
from cimc.errors import CimcError, Exit
from cimc.isa.instruction import Repeat
from cimc.isa.operands import Element
from cimc.isa.printer import print_program
from cimc.isa.program import GlobalBuffer, Program
from cimc.isa.text import parse_program
from cimc.isa.verify import verify
from cimc.options import Options
from cimc.report.device import error_of
from cimc.report.device_cost import cost
from cimc.sim import timing
from cimc.sim.calibration import agree
from cimc.sim.interpreter import run
from cimc.sim.reference import Reference
from cimc.sim.result import RunResult
from cimc.sim.values import Analog
from models.small import bert
from tests.sim.chips import buffers, chip, do, matrix, program, tile, view

VECTORS = 5


def tiny(*steps: object, key: str = "w") -> Program:
    """An 8 x 8 product of one row, behind ``steps``."""
    local = buffers(("x", Element.Q8, (1, 8)), ("acc", Element.I32, (1, 8)), ("codes", Element.Q8, (8, 8)))
    work = tile(
        0,
        *steps,
        do("load", view("x", 1, 8), view("in", 1, 8)),
        do("mvm", view("acc", 1, 8), "A", view("x", 1, 8), accumulate=0),
        do("store", view("y", 1, 8), view("acc", 1, 8)),
        buffers=local,
        matrices=(matrix("A", 8, 8, key, 0),),
    )
    return program(
        work,
        globals=(GlobalBuffer("in", Element.Q8, (1, 8)), GlobalBuffer("y", Element.I32, (1, 8))),
        inputs=("in",),
        outputs=("y",),
    )


def calibrate(vectors: int = VECTORS) -> object:
    return do("calibrate", "A", vectors=vectors)


CODES = np.arange(-32, 32, dtype=np.int8).reshape(8, 8) * 3
X = np.array([[5, -9, 33, 12, -60, 100, -1, 7]], np.int8)


def ran(what: Program, numerics: str = "analog", settings: tuple[str, ...] = (), seed: int = 0) -> RunResult:
    spec = chip(adc_bits=0)
    how = Analog(Device.of(spec, settings, "pcm", 1e6))
    return run(what, {"w": CODES}, spec, inputs={"in": X}, numerics=numerics, seed=seed, analog=how)  # pyright: ignore


def test_cycles_and_actions_by_hand_in_both_engines() -> None:
    """8 bits · 8 columns a converter: 64 cycles a row, 10 to fill. Per row 8 steps: 4 crossbars stepped, 8 columns of 4
    slices converted, 8 inputs summed for the offset; 5 sums a vector and column for the fit."""
    spec = chip(adc_bits=0)
    plain, with_it = tiny(), tiny(calibrate())
    fast = timing.run_timing(with_it, spec, trace=True)
    before = timing.run_timing(plain, spec)
    assert next((e.start, e.end) for e in fast.events if e.mnemonic == "calibrate") == (0, 64 + 10 + 4 * 64)
    slow = Reference(with_it, spec)
    assert slow.run() == fast.cycles
    ended = sorted((e.start, e.end, e.instruction.mnemonic) for e in slow.executed)
    assert ended == sorted((e.start, e.end, e.mnemonic) for e in fast.events)
    more = {k: v - before.actions.get(k, 0) for k, v in fast.actions.items() if v != before.actions.get(k, 0)}
    converted = VECTORS * 8 * 4 * 8
    assert more == {
        "crossbar.step": VECTORS * 8 * 4,
        "dac.drive": VECTORS * 8 * 4 * 8,
        "adc.convert": converted,
        "shift_add.op": converted + VECTORS * 8 + 5 * VECTORS * 8,
    }
    assert before.cycles < fast.cycles <= before.cycles + 64 + 10 + 4 * 64 + 1


def test_digital_cores_take_a_cycle_and_no_energy() -> None:
    spec = chip(adc_bits=None)
    plain, with_it = (timing.run_timing(p, spec) for p in (tiny(), tiny(calibrate())))
    assert plain.actions == with_it.actions
    assert with_it.cycles - plain.cycles <= 1


@pytest.mark.parametrize("numerics", ["float", "integer"])
def test_exact_numerics_are_left_alone(numerics: str) -> None:
    plain, with_it = ran(tiny(), numerics), ran(tiny(calibrate()), numerics)
    assert np.array_equal(plain.outputs["y"], with_it.outputs["y"])


def test_it_corrects_what_follows_and_programming_drops_it() -> None:
    exact = X.astype(np.int64) @ CODES

    def errors(*steps: object) -> float:
        found = [ran(tiny(*steps), seed=s).outputs["y"] - exact for s in range(8)]
        return float(np.sqrt(np.mean(np.square(found))))

    plain, with_it = errors(), errors(calibrate(64))
    assert with_it < 0.5 * plain
    zeros = [ran(tiny(*steps, do("program", "A", view("codes", 8, 8)))).outputs["y"] for steps in ((), (calibrate(),))]
    assert np.array_equal(*zeros)


def test_conversions_of_values_and_timing_agree() -> None:
    result = ran(tiny(calibrate()))
    assert result.timing is not None
    assert result.counts["conversions"] == 0  # a lossless converter has none in values
    spec = chip(adc_bits=6)
    how = Analog(Device.of(spec, (), "pcm", 1e6))
    counted = run(tiny(calibrate()), {"w": CODES}, spec, inputs={"in": X}, numerics="analog", analog=how)
    assert counted.timing is not None
    assert counted.counts["conversions"] == counted.timing.actions["adc.convert"] == (VECTORS + 1) * 8 * 4 * 8


def test_an_older_calibration_repairs_less() -> None:
    exact = X.astype(np.int64) @ CODES
    found = {}
    for age in ("0", "9e5"):
        runs = [ran(tiny(calibrate(64)), settings=(f"calibration_age={age}",), seed=s).outputs["y"] for s in range(8)]
        found[age] = float(np.sqrt(np.mean(np.square(runs - exact))))
    assert found["0"] < found["9e5"]


def test_text_and_law() -> None:
    text = print_program(tiny(calibrate()))
    assert "\ncalibrate A, vectors=5\n" in text
    again = parse_program(text)
    assert again == tiny(calibrate())
    for vectors in (3, -1, 65537):
        with pytest.raises(CimcError, match="vectors"):
            verify(tiny(calibrate(vectors)), chip(), None)


@pytest.mark.parametrize(
    ("settings", "steps", "key"),
    [
        (("calibration_age=1h",), (), "calibration_age"),
        (("calibration_interval=10",), (), "calibration_interval"),
        (("drift_compensation=global",), (calibrate(),), "drift_compensation"),
    ],
)
def test_contradictions_are_refused(settings: tuple[str, ...], steps: tuple[object, ...], key: str) -> None:
    with pytest.raises(CimcError) as caught:
        ran(tiny(*steps), settings=settings)
    assert caught.value.exit is Exit.USAGE
    assert f"'device.{key}'" in str(caught.value)


def test_the_compensation_of_a_hardware_file_gives_way_by_name() -> None:
    """``pcm`` compensates drift by itself: the message says how to turn that off, and that does."""
    with pytest.raises(CimcError, match="--device drift_compensation=none") as caught:
        agree(tiny(calibrate()), Device.of(load("pcm").spec))
    assert caught.value.exit is Exit.USAGE
    agree(tiny(calibrate()), Device.of(load("pcm").spec, ("drift_compensation=none",)))


@pytest.mark.parametrize(
    ("setting", "key"), [("calibration_age=1y", "calibration_age"), ("calibration_interval=0", "calibration_interval")]
)
def test_impossible_numbers_are_refused(setting: str, key: str) -> None:
    with pytest.raises(CimcError, match=f"device.{key}"):
        Device.of(chip(), (setting,), "pcm", 3600.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compiled, Compiled]:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=32, heads=2, vocab=64, positions=16), path)
    found = [
        compile_model(path, Options(overrides=("core.encoding=differential",), dims=dims, calibrate=how))
        for how in ("never", "start")
        for dims in ({"batch": 1, "sequence": 4},)
    ]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def test_the_compiler_calibrates_every_matrix_first(models: tuple[Compiled, Compiled]) -> None:
    plain, with_it = models
    verify(with_it.program, with_it.hardware.spec, with_it.weights)
    for before, after in zip(plain.program.tiles, with_it.program.tiles, strict=True):
        count = len(before.matrices)
        first = after.steps[:count]
        assert [s.mnemonic for s in first if not isinstance(s, Repeat)] == ["calibrate"] * count
        assert {s.operands[0] for s in first if not isinstance(s, Repeat)} == {m.name for m in before.matrices}
        assert all(not isinstance(s, Repeat) and s.origin is not None for s in first)
        assert after.steps[count:] == before.steps
    assert with_it.manifest()["options"]["calibrate"] == "start"  # pyright: ignore


def test_on_a_model_it_repairs_drift_and_its_bill_is_the_engines(models: tuple[Compiled, Compiled]) -> None:
    chip_ = models[0].hardware.spec
    settings = ("adc=off", "read_noise=off", "programming=off")
    feeds = input_files.draw(models[0].program, 0)
    device = Device.of(chip_, settings, "pcm", 86400.0)
    results: list[RunResult] = []
    for one in models:
        how = Analog(device)
        results.append(run(one.program, one.weights, chip_, inputs=feeds, numerics="analog", analog=how))
    want = run(models[0].program, models[0].weights, chip_, inputs=feeds, numerics="integer", timing=False).outputs
    assert want is not None
    errors = [max(error_of(r.outputs[k], v, v).error for k, v in want.items()) for r in results]  # pyright: ignore
    assert errors[1] < 0.5 * errors[0]
    yearly = Device.of(chip_, (*settings, "calibration_interval=1000"), "pcm", 86400.0)
    told = cost(models[1].program, chip_, yearly, results[1], 1.0).repairs.calibration
    assert told is not None
    spent = [r.timing.energy_pj for r in results]  # pyright: ignore
    units = ("adc", "dac", "crossbar", "shift_add")
    assert told.pj == pytest.approx(sum(spent[1][u] - spent[0][u] for u in units))
    assert told.interval == 1000
    later = results[1].timing.cycles - results[0].timing.cycles  # pyright: ignore
    assert 0 < later <= told.cycles
    assert cost(models[0].program, chip_, device, results[0], 1.0).repairs.calibration is None
