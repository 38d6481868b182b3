"""Variants side by side: each row against a compile of its own, the Pareto front against its definition, bad axes."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest

import cimc
from cimc import variants
from cimc.checker import CheckOptions
from cimc.compiler import compile_model
from cimc.errors import CimcError
from cimc.options import Options
from cimc.report.sweep import Figures, Row, SweepReport
from cimc.sim.timing import run_timing
from tests.cli.command import Cimc, linear
from tests.report.test_run_report import validate


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "linear.onnx")


def figures(*costs: float) -> Figures:
    latency, energy, area = costs
    return Figures(1, latency, energy, area, 1.0, "chain", 1, 2, 0, None)


def test_rows_are_those_of_a_compile_each(model: Path) -> None:
    axes = [variants.parse_axis("hw=toy,isaac"), variants.parse_axis("dim.n=2,5")]
    found = variants.sweep(str(model), Options(), axes)
    assert [tuple(row.setting.values()) for row in found.rows] == [
        ("toy", "2"), ("toy", "5"), ("isaac", "2"), ("isaac", "5")
    ]  # fmt: skip
    for row in found.rows:
        made = compile_model(model, Options(row.setting["hw"], dims={"n": int(row.setting["dim.n"])}))
        assert made is not None
        timing = run_timing(made.program, made.hardware.spec)
        assert row.figures is not None
        assert (row.figures.cycles, row.figures.latency_ns) == (timing.cycles, timing.latency_ns)
        assert row.figures.energy_pj == pytest.approx(sum(timing.energy_pj.values()))
        assert row.figures.cosine_similarity is None


def test_what_each_key_sets() -> None:
    setting = {
        "hw": "puma", "crossbar.rows": "64", "chips": "2", "precision": "w4a8", "activations": "static",
        "attention": "decompose", "values": "bf16", "mapping.replicas": "3", "mapping.lanes": "1", "reload": "on",
        "dim.sequence": "7",
    }  # fmt: skip
    made, how = variants.applied(Options(overrides=("adc.bits=9",)), None, setting)
    assert how is None
    assert (made.hardware, made.precision, made.activations, made.attention) == ("puma", "w4a8", "static", "decompose")
    assert made.values == "bf16"
    assert made.overrides == ("adc.bits=9", "crossbar.rows=64", "chips=2")
    assert (made.choices.replicas, made.choices.lanes, made.choices.reload, made.choices.parts) == (3, 1, True, True)
    assert made.dims == {"sequence": 7}
    analog = variants.applied(Options(), CheckOptions("analog"), {"time": "1d", "device.drift": "off"})[1]
    assert analog is not None
    assert analog.device is not None
    assert (analog.device.times, analog.device.settings) == ((86400.0,), ("drift=off",))


def test_commas_in_brackets_and_quotes_belong_to_the_value() -> None:
    axis = variants.parse_axis("baseline={memory: ddr4, batch: 8},{memory: hbm2}, 'a,b' ")
    assert axis.values == ("{memory: ddr4, batch: 8}", "{memory: hbm2}", "'a,b'")


def test_the_front_is_what_nothing_beats() -> None:
    points = [tuple(map(float, p)) for p in itertools.product((1, 2, 3), repeat=3) if sum(p) >= 5]
    report = SweepReport("m", ("k",), [Row({"k": str(p)}, figures(*p)) for p in points] + [Row({"k": ""}, None)], None)
    wanted = {
        i
        for i, p in enumerate(points)
        if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)
    }
    assert report.front == wanted
    assert 0 < len(wanted) < len(points)


def test_values_make_accuracy_a_cost(model: Path) -> None:
    found = cimc.sweep(model, {"precision": ["w8a8", "w2a8"]}, hardware="toy", dims={"n": 3}, numerics="integer")
    validate(found, "sweep")
    fine, coarse = (p["figures"]["cosine_similarity"] for p in found["points"])  # pyright: ignore
    checked = cimc.check(model, hardware="toy", dims={"n": 3}, numerics="integer")
    assert fine == checked["outputs"][0]["cosine_similarity"]  # pyright: ignore
    assert coarse < fine


def test_what_does_not_fit_is_a_row(model: Path, cimc_command: Cimc, tmp_path: Path) -> None:
    arguments = ("sweep", model, "--hw", "toy", "--vary", "crossbar.active_rows=8,99999", "--dim", "n=2")
    done = cimc_command(*arguments, "--csv", tmp_path / "s.csv", "--html", tmp_path / "s.html", "--json", "-")
    assert done.exit == 0, done.err
    found = json.loads(done.out)
    validate(found, "sweep")
    assert [p["figures"] is None for p in found["points"]] == [False, True]
    assert "active_rows" in found["points"][1]["refused"]
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["cycles"] for row in rows] == [str(found["points"][0]["figures"]["cycles"]), ""]
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert page.count('<circle class="dot') == 1
    assert "http" not in page.replace("http-equiv", "")
    text = cimc_command(*arguments).out
    assert "Not run" in text
    assert "least energy" in text


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (("rows",), "not KEY=VALUE"),
        (("crossbar.rows=",), "not KEY=VALUE"),
        (("crossbar.rows=1,,2",), "not KEY=VALUE"),
        (("hw=toy,toy",), "given twice"),
        (("hw=toy", "hw=isaac"), "varied twice"),
        (("dim.n=two",), "no number from 1"),
        (("activations=moving",), "one of dynamic, static"),
        (("fit=everything",), "scales, rounding, all"),
        (("values=f8",), "one of f32, f16, bf16"),
        (("mapping.replica=2",), "did you mean 'replicas'"),
        (("crossbar.rowz=2",), "neither an option nor a key of the hardware"),
        (("crossbar.rowz=2",), "did you mean the hardware's 'crossbar.rows'?"),
        (("precison=w4a8,w8a8",), "did you mean the option 'precision'?"),
        (("clips=1,2",), "did you mean the option 'chips' or the hardware's 'chips'?"),
        (("rows=8", "xyzzy=2"), "options are hw, chips, precision"),
        (("adc.bits=77",), "adc.bits"),
        (("time=1d",), "--numerics analog"),
        (tuple(f"dim.{c}=" + ",".join(map(str, range(1, 12))) for c in "abc"), "1331 combinations"),
    ],
)
def test_bad_axes(model: Path, cimc_command: Cimc, vary: tuple[str, ...], words: str) -> None:
    done = cimc_command("sweep", model, "--hw", "toy", *(a for v in vary for a in ("--vary", v)))
    assert done.exit == 2
    assert words in done.err
    assert "Traceback" not in done.err


def test_names_from_files_are_escaped(model: Path, cimc_command: Cimc, tmp_path: Path) -> None:
    odd = tmp_path / "<img src=x>.onnx"
    odd.write_bytes(model.read_bytes())
    cimc_command("sweep", odd, "--hw", "toy", "--vary", "dim.n=2,3", "--html", tmp_path / "s.html", "-q")
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "&lt;img src=x&gt;.onnx" in page
    assert "<img" not in page


def test_no_axis_at_all(model: Path) -> None:
    with pytest.raises(CimcError, match="vary"):
        cimc.sweep(model, {}, hardware="toy")


def test_what_nobody_gave_is_said(model: Path, cimc_command: Cimc) -> None:
    done = cimc_command("sweep", model, "--vary", "hw=toy", "--numerics", "float", "--seed", "3", "--json", "-")
    assert done.exit == 0
    assert done.err.splitlines() == ["inputs drawn from seed 3", "n = 1 (default)"]
    assert cimc_command("sweep", model, "--vary", "hw=toy", "-q", "--json", "-").err == ""
