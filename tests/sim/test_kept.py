"""Programmed cores kept from run to run: the same results as without, in no more room than is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import save_model

from cimc import inputs as input_files
from cimc import mixed, study
from cimc.analog import AnalogMatrix
from cimc.compiler import Compiled, compile_model
from cimc.device import Device
from cimc.options import Options
from cimc.sim.kept import Kept, Programmed
from cimc.sim.tally import Tally
from cimc.sim.values import Analog, run_values
from cimc.study import Subject
from models.small import bert


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=32, heads=2, vocab=64, positions=16), path)
    found = compile_model(path, Options("pcm", dims={"batch": 1, "sequence": 4}))
    assert found is not None
    return found


def core(seed: int, size: int = 8) -> Programmed:
    codes = np.arange(size * size, dtype=np.int8).reshape(size, size)
    return Programmed(AnalogMatrix(codes, {"rows": size}, seed), None, 0, None)


def test_what_an_earlier_program_left_makes_room() -> None:
    one = core(0)
    kept = Kept(most=2 * one.matrix.nbytes)
    for n in range(3):
        kept.keep((n,), core(n))
    assert [kept.find((n,)) is not None for n in range(3)] == [True, True, False]  # all in use: no room
    kept.begin()
    assert kept.find((1,)) is not None
    kept.keep((3,), core(3))
    assert [kept.find((n,)) is not None for n in range(4)] == [False, True, False, True]
    kept.keep((3,), core(4))  # in place of the other
    assert (len(kept), kept.nbytes) == (2, 2 * one.matrix.nbytes)


def test_a_core_starts_anew() -> None:
    """Its read noise is numbered from the first vector, and counts from none."""
    codes = np.arange(64, dtype=np.int8).reshape(8, 8)
    noisy = {"rows": 8, "adc": {"bits": 6}, "technology": "fefet", "read_mode": "conversion", "grid": "fast"}
    matrix = AnalogMatrix(codes, noisy, 3)
    x = np.ones((4, 8), np.uint8)
    first = matrix.again()
    want = first.values(x)
    assert first.counts.vectors == 4
    again = matrix.again()
    assert again.counts.vectors == matrix.counts.vectors == 0
    assert np.array_equal(again.values(x), want)
    assert again.counts == first.counts


def test_studies_say_the_same_with_kept_cells(compiled: Compiled) -> None:
    """Calibrated ranges, drift compensation, stuck cells placed around: outputs and tallies are those of cells programmed
    for every run; and one program's cells are not another's."""
    chip, feeds = compiled.hardware.spec, input_files.draw(compiled.program, 0)
    program, weights = compiled.program, compiled.weights
    device = Device.of(chip, ("stuck_off_rate=0.01", "remap=rows"), None, 86400.0)
    samples = study.calibration(program, weights, chip, feeds)
    wanted = run_values(program, weights, feeds, chip, numerics="float")[0]
    plain = Subject(program, weights, chip, feeds, wanted)
    kept = Kept()
    layers = mixed.layers_of(compiled.graph)
    found = [mixed.sensitivities(replace(plain, kept=k), device, layers, range(2), samples) for k in (None, kept)]
    assert found[0] == found[1]
    count = len(kept)
    assert count
    tallies = []
    for k in (None, kept):
        tally = Tally()
        analog = Analog(device, tally, samples, kept=k)
        outputs = run_values(program, weights, feeds, chip, numerics="analog", analog=analog)[0]
        told = {key: (t.counts(), t.faults) for key, t in tally.layers.items()}
        tallies.append((told, {n: y.tobytes() for n, y in outputs.items()}))
    assert tallies[0] == tallies[1]
    assert len(kept) == count, "the sensitivities programmed all there is"
    other = {key: np.roll(w, 1) if w.dtype == np.int8 and w.ndim == 2 else w for key, w in weights.items()}
    both = [
        run_values(program, other, feeds, chip, numerics="analog", analog=Analog(device, samples=samples, kept=k))[0]
        for k in (None, kept)
    ]
    assert all(np.array_equal(both[0][n], both[1][n]) for n in both[0])
    assert len(kept) > count


def test_other_calibration_inputs_give_other_ranges(compiled: Compiled) -> None:
    chip, program, weights = compiled.hardware.spec, compiled.program, compiled.weights
    device, kept = Device.of(chip, (), None, 3600.0), Kept()
    for seed in (0, 1):
        feeds = input_files.draw(program, seed)
        samples = study.calibration(program, weights, chip, feeds)
        runs = [
            run_values(program, weights, feeds, chip, numerics="analog", analog=Analog(device, samples=samples, kept=k))
            for k in (None, kept)
        ]
        assert all(np.array_equal(runs[0][0][n], runs[1][0][n]) for n in runs[0][0])
        assert runs[0][1] == runs[1][1]


def test_a_budget_programs_no_core_twice(compiled: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensitivities and search on one program: every core is programmed once per seed (and once for its drift, once for
    its range)."""
    from cimc.sim import analog as cores

    made: list[tuple[object, ...]] = []
    plain = cores.AnalogCores._programmed  # pyright: ignore[reportPrivateUsage]

    def counted(self: cores.AnalogCores, unit: cores.AnalogUnit, part: cores.Part, *rest: object) -> Programmed:
        made.append((self.seed, unit.tile, part))
        return plain(self, unit, part, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(cores.AnalogCores, "_programmed", counted)
    chip, feeds = compiled.hardware.spec, input_files.draw(compiled.program, 0)
    device = Device.of(chip, (), None, 86400.0)
    samples = study.calibration(compiled.program, compiled.weights, chip, feeds)
    wanted = run_values(compiled.program, compiled.weights, feeds, chip, numerics="integer")[0]
    subject = Subject(compiled.program, compiled.weights, chip, feeds, wanted, kept=Kept())
    layers = mixed.sensitivities(subject, device, mixed.layers_of(compiled.graph), range(2), samples)
    mixed.search(subject, device, layers, 0.99, range(2), samples)
    assert made
    assert len(made) == len(set(made))
