"""Layers kept digital: sensitivities, the search, and the product's side of it (check --budget, --digital, --outliers)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx import save_model

import cimc
from cimc import inputs as input_files
from cimc import mixed
from cimc.compiler import Compiled, compile_model
from cimc.device import Device
from cimc.errors import CimcError
from cimc.options import Options
from cimc.report.device import error_of
from cimc.sim.interpreter import run
from cimc.sim.kept import Kept
from cimc.sim.values import Analog, run_values
from cimc.study import Subject
from models.small import bert
from tests.cli.command import Cimc
from tests.report.test_run_report import validate

DIMS = {"batch": 1, "sequence": 4}
NOISY = "reram_wan_crosssim"  # in the offset 2-bit cells of `isaac`: a large spread


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=32, heads=2, vocab=64, positions=16), path)
    return path


def made(model: Path, **options: object) -> Compiled:
    found = compile_model(model, Options(dims=DIMS, **options))  # pyright: ignore[reportArgumentType]
    assert found is not None
    return found


def subject(compiled: Compiled, seed: int = 0) -> Subject:
    feeds = input_files.draw(compiled.program, 0)
    program, weights, chip = compiled.program, compiled.weights, compiled.hardware.spec
    wanted = run_values(program, weights, feeds, chip, numerics="float")[0]
    return Subject(program, weights, chip, feeds, wanted, seed)


def device(compiled: Compiled, tech: str = NOISY) -> Device:
    return Device.of(compiled.hardware.spec, (), tech)


def names(compiled: Compiled) -> list[str]:
    return list(mixed.layers_of(compiled.graph))


def values(compiled: Compiled, numerics: str, how: Analog | None = None) -> Mapping[str, np.ndarray]:
    feeds = input_files.draw(compiled.program, 0)
    chip = compiled.hardware.spec
    return run_values(compiled.program, compiled.weights, feeds, chip, numerics=numerics, analog=how)[0]  # pyright: ignore[reportArgumentType, reportReturnType]


def test_digital_layers_run_as_instructions_and_change_no_integer(model: Path) -> None:
    cells = made(model)
    some = names(cells)[:2]
    apart = made(model, digital=tuple(some))
    assert [n for n in names(cells) if n not in names(apart)] == some
    want, got = values(cells, "integer"), values(apart, "integer")
    assert all(np.array_equal(got[k], want[k]) for k in want)
    feeds = input_files.draw(cells.program, 0)
    actions = [
        run(c.program, c.weights, c.hardware.spec, inputs=feeds, numerics="integer").timing for c in (cells, apart)
    ]
    assert actions[0] is not None
    assert actions[1] is not None
    # 4 rows of two 32 x 32 matrices move from the cores to the matmul units
    assert actions[1].actions["matmul.mac"] - actions[0].actions["matmul.mac"] == 2 * 4 * 32 * 32
    assert actions[1].actions["adc.convert"] < actions[0].actions["adc.convert"]
    assert "digital" in str(apart.manifest()["options"])


def test_everything_digital_is_integer_numerics(model: Path) -> None:
    apart = made(model, digital=("*",))
    assert names(apart) == []
    got = values(apart, "analog", Analog(device(apart)))
    want = values(made(model), "integer")
    assert all(np.array_equal(got[k], want[k]) for k in want)


def test_outliers_change_no_float(model: Path) -> None:
    plain, split = made(model), made(model, outliers="channels=3")
    want, got = values(plain, "float"), values(split, "float")
    for k in want:
        np.testing.assert_allclose(got[k], want[k], atol=1e-5)
    assert "outliers{channels=3}" in split.pipeline


def test_sensitivity_is_the_error_of_one_layer_alone(model: Path) -> None:
    compiled = made(model)
    about, noisy = subject(compiled), device(compiled)
    layers = mixed.sensitivities(about, noisy, mixed.layers_of(compiled.graph), (0, 1))
    assert sorted(x.name for x in layers) == sorted(names(compiled))
    assert all(a.error >= b.error for a, b in pairwise(layers))
    exact, first = values(compiled, "integer"), layers[0]
    alone = [values(compiled, "analog", Analog(noisy, only=first.keys))]
    worst = max(error_of(alone[0][k], exact[k], exact[k]).error or 0.0 for k in exact)
    seed1 = mixed.errors_of(about, noisy, first.keys, 1, None, exact)
    assert first.error == pytest.approx((worst + max(e.error or 0.0 for e in seed1)) / 2)
    none = values(compiled, "analog", Analog(noisy, only=frozenset()))
    assert all(np.array_equal(none[k], exact[k]) for k in exact)


@pytest.mark.parametrize("budget", [0.0, 0.9, 0.97, 1.0])
def test_the_search_keeps_as_few_as_the_budget_needs(model: Path, budget: float) -> None:
    compiled = made(model)
    about, noisy = subject(compiled), device(compiled)
    layers = mixed.sensitivities(about, noisy, mixed.layers_of(compiled.graph), (0,))
    found = mixed.search(about, noisy, layers, budget, (0,))

    def cosine(digital: int) -> float:
        left = frozenset(k for x in layers[digital:] for k in x.keys)
        return min(e.cosine or 0.0 for e in mixed.errors_of(about, noisy, left, 0, None))

    assert found.cosine == cosine(found.digital)
    assert found.names == tuple(x.name for x in layers[: found.digital])
    if budget == 1.0:  # quantisation alone misses it: everything digital
        assert found.digital == len(layers)
    else:
        assert found.cosine >= budget
        assert found.digital == 0 or cosine(found.digital - 1) < budget


def test_check_with_a_budget(model: Path, cimc_command: Cimc) -> None:
    done = cimc_command(
        *("check", model, "--dim", "batch=1", "--dim", "sequence=4", "--numerics", "analog", "--technology", NOISY),
        *("--budget", "0.97", "--json", "-"),
    )
    found = json.loads(done.out)
    validate(found, "check")
    told = found["mixed"]
    assert told["held"]
    assert told["before"]["cosine"] < 0.97 <= told["after"]["cosine"]
    assert told["digital"] == [x["node"] for x in told["layers"] if x["digital"]]
    assert 0 < len(told["digital"]) < len(told["layers"])
    assert told["after"]["adc_conversions"] < told["before"]["adc_conversions"]
    assert told["after"]["cosine"] == min(o["cosine_similarity"] for o in found["outputs"])
    again = cimc.check(
        model, dims=DIMS, numerics="analog", technology=NOISY, digital=told["digital"], trials=2, attribute=True
    )
    validate(again, "check")
    assert again["outputs"] == found["outputs"]


@pytest.mark.parametrize(
    ("count", "reached", "want"),
    [
        (5, lambda d, m: True, (0, 0)),
        (5, lambda d, m: d >= 5, (5, 0)),
        (5, lambda d, m: 3 * d + m >= 7, (1, 4)),
        (0, lambda d, m: False, (0, 0)),
        (9, lambda d, m: m >= 6, (0, 6)),
        (9, lambda d, m: d >= 2 and d + m >= 7, (2, 5)),
    ],
)
def test_levels_are_the_fewest_that_hold(
    count: int, reached: Callable[[int, int], bool], want: tuple[int, int]
) -> None:
    tried: list[tuple[int, int]] = []

    def held(digital: int, copied: int) -> bool:
        assert 0 <= digital <= digital + copied <= count
        tried.append((digital, copied))
        return reached(digital, copied)

    assert mixed.levels(count, held) == want
    assert len(tried) <= 2 * (count.bit_length() + 1)


def test_a_budget_uses_copies_before_digital_units(model: Path, cimc_command: Cimc) -> None:
    arguments = (
        *("check", model, "--dim", "batch=1", "--dim", "sequence=4", "--numerics", "analog", "--technology", "pcm"),
        *("--min-cosine", "0.97", "--budget", "0.97", "--json", "-"),
    )
    found = json.loads(cimc_command(*arguments, "--copies", "count=4").out)
    validate(found, "check")
    told, alone = found["mixed"], json.loads(cimc_command(*arguments).out)["mixed"]
    assert told["held"]
    assert found["passed"]
    assert len(told["digital"]) < len(alone["digital"])
    assert told["copied"] == [x["node"] for x in told["layers"] if x["copies"] == 4]
    assert told["before"] == alone["before"]
    # What is told is what the options compile to.
    layers = ",".join(told["copied"])
    again = cimc.check(
        model, dims=DIMS, numerics="analog", technology="pcm", digital=told["digital"],
        copies=f'count=4, layers="{layers}"',
    )  # fmt: skip
    same = [[o["max_abs_error"] for o in one["outputs"]] for one in (found, again)]  # pyright: ignore  # JSON
    assert same[0] == same[1]


def test_copies_average_independent_cells(model: Path) -> None:
    """Four sets of cells: the spread of the programming error is half, within what 20 seeds tell."""
    one, four = made(model), made(model, copies="count=4")
    assert all(np.array_equal(values(one, "integer")[k], values(four, "integer")[k]) for k in values(one, "integer"))
    errors: list[float] = []
    for compiled in (one, four):
        exact = values(compiled, "integer")["last_hidden_state"]
        device_of = Device.of(compiled.hardware.spec, ("adc=off", "read_noise=off"), "pcm")
        feeds, chip = input_files.draw(compiled.program, 0), compiled.hardware.spec
        square = 0.0
        for seed in range(20):
            got, _ = run_values(
                compiled.program, compiled.weights, feeds, chip, numerics="analog", seed=seed, analog=Analog(device_of)
            )
            square += float(np.square(got["last_hidden_state"] - exact).mean())
        errors.append(float(np.sqrt(square)))
    assert errors[1] / errors[0] == pytest.approx(0.5, rel=0.1)


def test_digital_from_a_file_and_by_pattern(model: Path, tmp_path: Path, cimc_command: Cimc) -> None:
    chosen = names(made(model))[0]
    listed = tmp_path / "layers.txt"
    listed.write_text(f"# the first\n{chosen}  # of them\n\n")
    arguments = ("compile", model, "--dim", "batch=1", "--dim", "sequence=4", "-o", tmp_path / "out", "--json", "-")
    by_file = json.loads(cimc_command(*arguments, "--digital", f"@{listed}").out)
    by_name = json.loads(cimc_command(*arguments, "--digital", chosen).out)
    assert by_file == by_name
    assert chosen not in [m["node"] for m in by_file["static"]]
    assert json.loads(cimc_command(*arguments, "--digital", "*").out)["static"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--digital", "nobody"), "no static matmul is called 'nobody'"),
        (("--digital", "@missing.txt"), "missing.txt"),
        (("--outliers", "channels=0"), "1..1024"),
        (("--outliers", "chanels=3"), "did you mean 'channels'"),
        (("--digital", "*", "-p", "fold"), "pipeline of your own"),
        (("--copies", "count=3"), "power of two"),
        (("--copies", "layers=nobody"), "no static matmul is called 'nobody'"),
        (("--copies", "cout=2"), "did you mean 'count'"),
        (("--copies", "count=2", "-p", "fold"), "pipeline of your own"),
        (
            ("--copies", "layers=w", "--budget", "0.9", "--numerics", "analog"),
            "--budget finds the layers by itself",
        ),
        (("--budget", "0.9"), "--budget needs --numerics analog"),
    ],
)
def test_bad_options_are_told(model: Path, cimc_command: Cimc, arguments: tuple[str, ...], words: str) -> None:
    done = cimc_command("check", model, "--dim", "batch=1", "--dim", "sequence=4", *arguments)
    assert done.exit == 2
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_session_takes_a_device(model: Path) -> None:
    compiled = made(model)
    feeds = input_files.draw(compiled.program, 0)

    def outputs(**given: object) -> list[np.ndarray]:
        return cimc.InferenceSession(compiled, "analog", timing=False, **given).run(None, feeds)  # pyright: ignore[reportArgumentType, reportReturnType]

    plain = outputs(technology="pcm")
    assert all(np.array_equal(a, b) for a, b in zip(plain, outputs(technology="pcm", time=0), strict=True))
    assert not np.array_equal(plain[0], outputs(technology="pcm", time="1d")[0])
    assert not np.array_equal(plain[0], outputs(technology="pcm", seed=1)[0])
    ideal = outputs(technology="pcm", device=("programming=off", "read_noise=off"))
    assert all(np.array_equal(a, b) for a, b in zip(ideal, outputs(technology="ideal"), strict=True))
    assert len(outputs(technology="ideal", device=("adc_range=calibrated",))) == len(plain)
    with pytest.raises(CimcError, match="no such key"):
        outputs(device=("drfit=off",))
    with pytest.raises(CimcError, match="numerics"):
        cimc.InferenceSession(compiled, "integer", technology="pcm")
    with pytest.raises(CimcError, match="numerics"):
        cimc.check(model, dims=DIMS, budget=0.9)


def test_a_session_keeps_its_cells(model: Path) -> None:
    """The next run reads the cells of the first one, and says what a session of its own says."""
    compiled = made(model)
    session = cimc.InferenceSession(compiled, "analog", timing=False, technology=NOISY)
    inputs = [input_files.draw(compiled.program, seed) for seed in (0, 1)]
    found = [session.run(None, feeds) for feeds in inputs]
    for feeds, got in zip(inputs, found, strict=True):
        fresh = cimc.InferenceSession(compiled, "analog", timing=False, technology=NOISY).run(None, feeds)
        assert all(np.array_equal(a, b) for a, b in zip(fresh, got, strict=True))
    chip, kept = compiled.hardware.spec, Kept()
    how = Analog(Device.of(chip, tech=NOISY), kept=kept)
    first = run_values(compiled.program, compiled.weights, inputs[0], chip, numerics="analog", analog=how)[0]
    count, size = len(kept), kept.nbytes
    assert count, "nothing was kept"
    again = run_values(compiled.program, compiled.weights, inputs[0], chip, numerics="analog", analog=how)[0]
    assert (len(kept), kept.nbytes) == (count, size)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    other = run_values(compiled.program, compiled.weights, inputs[0], chip, numerics="analog", seed=1, analog=how)[0]
    assert any(not np.array_equal(first[name], other[name]) for name in first), "another seed has other cells"
