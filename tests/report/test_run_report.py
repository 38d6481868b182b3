"""What ``run`` and ``check`` say: their objects against the schemas, the text against the figures."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from cimc.cli import put
from cimc.errors import CimcError, Exit
from cimc.report import check, figures, jsontext, mapping_file, render, run, terminal
from cimc.report.compare import Tolerance, compare
from cimc.sim.result import Bound, RunResult
from tests.report import synthetic

SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"


def validate(value: Any, name: str) -> None:
    """As an outside test would: with that one file, and no other at hand."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(value)


def a_check(got: float = 1.0, numerics: str = "float", **changes: Any) -> check.CheckReport:
    want = np.linspace(-1, 1, 12).reshape(3, 4)
    outputs = [compare(n, want * s, want, Tolerance(numerics)) for n, s in (("logits", 1.0), ("pooled", got))]
    report = check.CheckReport(
        model="bert.onnx",
        hardware="isaac",
        numerics=numerics,
        seed=7,
        outputs=outputs,
        layers=None,
        fallbacks=[figures.HostNode(node="/embeddings/Where", op_type="Where", reason="no tile unit does it")],
        seconds=check.CheckSeconds(1.5, 2.5, 0.25),
        run=figures.from_result(synthetic.result()),
        command="cimc check bert.onnx --hw isaac",
    )
    return dataclasses.replace(report, **changes)


def test_run_object() -> None:
    timing = synthetic.timing()
    found = json.loads(jsontext.dumps(figures.from_result(synthetic.result()).to_json()))
    validate(found, "run")
    assert found["cycles"] == timing.cycles
    parts = {k: v for k, v in found["energy_pj"].items() if k != "total"}
    assert found["energy_pj"]["total"] == pytest.approx(math.fsum(parts.values()))
    assert found["bound"]["attainment"] == pytest.approx(timing.bound.cycles / timing.cycles)
    assert found["macs"] == timing.macs
    assert found["seconds"] == {"values": 0.0, "timing": 1.25}


def test_run_object_without_timing() -> None:
    found = figures.from_result(RunResult(None, None, 0.5, 0.0, {"conversions": 12})).to_json()
    validate(found, "run")
    assert (found["cycles"], found["counts"]) == (None, {"conversions": 12})


def test_run_object_takes_numpy_numbers() -> None:
    timing = dataclasses.replace(synthetic.timing(), cycles=np.int64(120_000), latency_ns=np.float64(5.0))
    result = RunResult(None, timing, 0.0, 0.0, {"conversions": np.int64(3)})
    validate(json.loads(jsontext.dumps(figures.from_result(result).to_json())), "run")


def test_a_run_of_no_cycles_attains_its_bound() -> None:
    timing = dataclasses.replace(synthetic.timing(), cycles=0, latency_ns=0.0, energy_pj={}, layers={})
    timing = dataclasses.replace(timing, bound=dataclasses.replace(timing.bound, cycles=0))
    found = figures.from_result(RunResult(None, timing, 0.0, 0.0))
    assert found.bound is not None
    assert found.bound.attainment == 1.0
    assert "cycles        0" in render.plain(run.report(found, run.Setting("p.cim", "toy")))


def test_run_figures_survive_the_file(tmp_path: Path) -> None:
    run_figures = figures.from_result(synthetic.result())
    jsontext.write(run_figures.to_json(), tmp_path / "run.json")
    assert figures.read_run(tmp_path / "run.json") == run_figures
    jsontext.write(a_check().to_json(), tmp_path / "check.json")
    assert figures.read_run(tmp_path / "check.json") == run_figures


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "object"),
        ("{}", "cycles: Field required (and 8 more)"),
        ('{"cycles": -1}', "cycles: Input should be greater than or equal to 0"),
        ('{"cycles": NaN}', "cycles: Input should be a valid integer"),
    ],
)
def test_a_bad_run_file_is_told_in_one_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CimcError) as caught:
        figures.read_run(tmp_path / "run.json")
    assert caught.value.exit == Exit.USAGE
    assert message in str(caught.value)


def test_energy_needs_its_total(tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(jsontext.dumps(figures.from_result(synthetic.result()).to_json()))
    del found["layers"]["/pooler/dense/Gemm"]["energy_pj"]["total"]
    jsontext.write(found, tmp_path / "run.json")
    with pytest.raises(CimcError, match=r"layers\./pooler/dense/Gemm\.energy_pj: 'total' is missing"):
        figures.read_run(tmp_path / "run.json")


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    for path, code in (
        (tmp_path / "none", "file-not-found"),
        (tmp_path, "file-unreadable"),
        (tmp_path / "latin", "file-unreadable"),
    ):
        with pytest.raises(CimcError) as caught:
            figures.read_run(path)
        assert caught.value.code == code


def test_run_report_order_and_units() -> None:
    mapping = mapping_file.parse_mapping(json.dumps(synthetic.mapping()))
    run_figures = figures.from_result(synthetic.result(), mapping.host)
    blocks = run.report(
        run_figures, run.Setting("out/program.cim", "synthetic", "analog", 0), synthetic.chip(), mapping
    )
    assert [b.title.split(" that")[0] for b in blocks] == [
        "Configuration",
        "Memory and cells",
        "What runs where",
        "Traffic",
        "Multiply-accumulates",
        "Cycles by resource",
        "Time",
        "Energy",
        "Layers",
        "Waiting, by cause",
        "Waiting: the 2 of 3 tiles",
        "Bound",
    ]
    text = render.plain(blocks)
    for line in (
        "mesh        13 rows of 16 tiles: 2 io, 180 cim, 26 digital",
        "global memory     1.00 GB",
        "local buffers     213 kB",
        "clock       1.00 GHz",
    ):
        assert line in text
    for line in ("latency       119 µs", "noc     48.3 MB", "static   1.38 GMAC", "37 matrices", "attains 50.0 %"):
        assert line in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "/encoder/layer.0/intermediate/dense/MatMul" in text


def test_check_object() -> None:
    found = json.loads(jsontext.dumps(a_check().to_json()))
    validate(found, "check")
    assert found["passed"] is True
    assert "layers" not in found
    assert [o["name"] for o in found["outputs"]] == ["logits", "pooled"]


def test_check_object_with_layers_and_what_json_cannot_hold() -> None:
    nan = compare("scores", np.array([np.nan]), np.array([1.0]))
    found = json.loads(jsontext.dumps(a_check(layers=[nan], outputs=[nan]).to_json()))
    validate(found, "check")
    assert (found["passed"], found["layers"][0]["max_abs_error"]) == (False, None)


def test_layers_do_not_decide() -> None:
    bad = compare("scores", np.array([2.0]), np.array([1.0]))
    report = a_check(layers=[bad])
    assert report.passed
    assert report.first_bad_layer is bad
    assert "First layer beyond tolerance" in render.plain(check.report(report))


def test_closing_line() -> None:
    assert check.closing_line(a_check(1.0005)) == (
        "PASSED cimc check: max_abs_error 0.0005 ≤ 0.001 in output 'pooled' at [0, 0] | cimc check bert.onnx --hw isaac"
    )
    assert check.closing_line(a_check(1.5)).startswith(
        "FAILED cimc check: max_abs_error 0.5 > 0.001 in output 'pooled' at"
    )
    analog = check.closing_line(a_check(-1.0, "analog"))
    assert analog.startswith("FAILED cimc check: cosine_similarity -1.000000 < 0.98 in output 'pooled'")
    close = compare("y", np.array([1.0, 0.003]), np.array([1.0, -0.003]), Tolerance("analog", min_cosine=0.99999))
    assert "cosine_similarity 0.999982 < 0.99999 in" in check.closing_line(a_check(outputs=[close]))
    assert check.closing_line(a_check(outputs=[])).startswith("PASSED cimc check: the model has no outputs")
    refused = compare("y\n", np.ones(3), np.ones(2))
    line = check.closing_line(a_check(outputs=[refused], command="cimc check 'a\nb'"))
    assert line.startswith("FAILED cimc check: shape [3] instead of [2] in output")
    assert "\n" not in line


def test_failure_says_what_tolerance_would_be_needed() -> None:
    text = render.plain(check.report(a_check(1.5)))
    assert "would need --atol 0.5 or --rtol 0.5" in text
    assert "got -1.5, expected -1" in text


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    blocks = check.report(a_check(1.5, model="[red]x\x1b[2J"))
    plain, coloured, uncoloured = io.StringIO(), Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", plain)
    put.show(blocks)
    assert "[red]x" in plain.getvalue()
    assert "\x1b" not in plain.getvalue()
    monkeypatch.setattr(sys, "stdout", coloured)
    put.show(blocks)
    assert "\x1b[" in coloured.getvalue()
    assert "\x1b[2J" not in coloured.getvalue()
    assert "[red]x" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.write_terminal(run.report(figures.from_result(synthetic.result()), run.Setting("p", "toy")), uncoloured)
    assert "Energy" in uncoloured.getvalue()
    assert "\x1b[36m" not in uncoloured.getvalue()


def test_json_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jsontext.write({"µ": 1.5}, "-")
    assert json.loads(capsys.readouterr().out) == {"µ": 1.5}
    with pytest.raises(ValueError):
        jsontext.write({"x": math.nan}, tmp_path / "x.json")
    with pytest.raises(CimcError, match="cannot be written: Is a directory"):
        jsontext.write({}, tmp_path)


def test_bars_show_what_is_not_zero() -> None:
    assert (render.bar(0.0), render.bar(1e-9), render.bar(1.0)) == ("", "▏", "█" * render.BAR_WIDTH)


def test_resources_stand_in_one_order() -> None:
    """By how busy they are, then by the cycles they need; not as a set happens to hold them."""
    told = figures.from_result(synthetic.result())
    assert told.bound is not None
    several = {"noc": 7, "bisection": 9, "adc": 7, "chain": 1}
    bound = told.bound.model_copy(update={"resources": several})
    ran = told.model_copy(update={"bound": bound, "utilization": {"core": 0.5, "vector": 0.25}})
    table = next(b for b in run.report(ran, run.Setting("m", "toy", "float", 0)) if b.title == "Cycles by resource")
    assert isinstance(table, render.Table)
    names = [row[0] for row in table.rows if not row[0].startswith("waiting")]
    assert names == ["core", "vector", "bisection", "adc", "noc", "chain"]


def test_what_nearly_sets_the_bound_is_named() -> None:
    resources = {"chain": 100_000, "matmul": 99_800, "adc": 98_500, "core": 90_000}
    timing = dataclasses.replace(synthetic.timing(), bound=Bound(100_000, "chain", resources))
    found = figures.from_result(RunResult(None, timing, 0.0, 0.0))
    assert found.bound is not None
    assert found.bound.setters == "chain; nearly as long: matmul (0.2 % less), adc (1.5 % less)"
    assert f"set by: {found.bound.setters}" in render.plain(run.report(found, run.Setting("p.cim", "toy")))
    alone = dataclasses.replace(timing, bound=Bound(100_000, "chain", {"chain": 100_000, "core": 90_000}))
    again = figures.from_result(RunResult(None, alone, 0.0, 0.0)).bound
    assert again is not None
    assert again.setters == "chain"
