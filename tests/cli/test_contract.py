"""What users, scripts and outside tests may rely on: JSON keys, files, exit codes, quiet imports."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cimc import bundle
from cimc.arch.spec import ChipSpec
from cimc.isa.printer import print_program
from cimc.isa.program import Program
from cimc.isa.text import parse_program
from cimc.mapping.choices import Choices
from models import small
from models.graph import save as save_model
from tests.cli.command import ROOT, Cimc, process
from tests.report.test_run_report import validate

EXAMPLES = sorted((ROOT / "isa" / "examples").glob("*.cim"))
FILES = {"program.cim", "weights.safetensors", "mapping.json", "manifest.json", "hardware.yaml"}

CHECK = {"model", "hardware", "numerics", "seed", "passed", "outputs", "seconds", "fallbacks", "run"}
OUTPUT = {
    "name", "shape", "dtype", "max_abs_error", "rms_error", "cosine_similarity", "sqnr_db", "argmax_agreement", "passed"
}  # fmt: skip
RUN = {
    "cycles", "latency_ns", "instructions", "energy_pj", "bound", "utilization", "traffic_bytes", "macs", "seconds"
}  # fmt: skip


def has_run_keys(run: Mapping[str, Any]) -> None:
    validate(run, "run")
    assert run.keys() >= RUN
    assert run["bound"].keys() >= {"cycles", "by", "attainment"}
    assert run["macs"].keys() >= {"static", "dynamic"}
    assert run["seconds"].keys() >= {"values", "timing"}
    assert run["energy_pj"]["total"] == pytest.approx(sum(v for k, v in run["energy_pj"].items() if k != "total"))
    assert run["bound"]["cycles"] <= run["cycles"]


@pytest.mark.parametrize("numerics", ["float", "integer", "analog"])
def test_check_json(numerics: str, model: Path, cimc: Cimc) -> None:
    done = cimc("check", model, "--dim", "n=3", "--numerics", numerics, "--seed", "4", "--json", "-", "--hw", "toy")
    assert done.exit == 0
    found = json.loads(done.out)
    validate(found, "check")
    assert found.keys() >= CHECK
    assert [o.keys() >= OUTPUT for o in found["outputs"]] == [True]
    assert found["seconds"].keys() >= {"compile", "run", "reference"}
    assert (found["hardware"], found["numerics"], found["seed"], found["passed"]) == ("toy", numerics, 4, True)
    has_run_keys(found["run"])
    assert done.err.splitlines()[-1].startswith("PASSED cimc check: ")


def test_check_ends_with_one_line_to_search_for(model: Path, cimc: Cimc) -> None:
    done = cimc("check", model, "--dim", "n=3", "--no-timing", "--hw", "toy")
    assert done.exit == 0
    assert [line for line in done.out.splitlines() if "cimc check:" in line] == [done.out.splitlines()[-1]]
    assert done.out.splitlines()[-1].startswith("PASSED cimc check: max_abs_error")


def test_check_fails_with_exit_code_1(model: Path, cimc: Cimc) -> None:
    """Two-bit weights are not what the model says."""
    options = ("--hw", "toy", "--numerics", "integer", "--precision", "w2a8", "--min-cosine", "0.9999", "--no-timing")
    done = cimc("check", model, "--dim", "n=3", *options)
    assert done.exit == 1
    assert done.out.splitlines()[-1].startswith("FAILED cimc check: ")
    assert "'y'" in done.out.splitlines()[-1]


def test_run_json(folder: Path, tmp_path: Path, cimc: Cimc) -> None:
    done = cimc("run", folder, "--json", "-")
    assert done.exit == 0
    has_run_keys(json.loads(done.out))
    again = cimc("run", folder, "--json", tmp_path / "run.json", "-q")
    assert again.exit == 0
    first, second = json.loads(done.out), json.loads((tmp_path / "run.json").read_text())
    del first["seconds"], second["seconds"]
    assert first == second


def test_a_compiled_model_is_set_beside_a_baseline(folder: Path, cimc: Cimc) -> None:
    """x (n × 4) times W (4 × 4): 16 bytes of weights; another machine without another compile; none for a bare program."""
    found = json.loads(cimc("run", folder, "--json", "-").out)["baseline"]
    assert (found["bytes"]["weights"], found["bytes"]["activations"], found["assumptions"]["memory"]) == (16, 0, "hbm2")
    slow = "baseline={memory: ddr4, bytes_per_ns: 1.0, batch: 4}"
    other = json.loads(cimc("run", folder, "-c", slow, "--json", "-").out)["baseline"]
    assert other["bytes"]["weights"] == 4
    assert other["latency_ns"] == other["bytes"]["total"]
    assert other["sources"]["bytes_per_ns"] == "the hardware file"
    assert json.loads(cimc("run", EXAMPLES[-1], "--no-values", "--json", "-").out)["baseline"] is None
    assert "Beside a von-Neumann machine" in cimc("inspect", folder).out
    assert cimc("run", folder, "-c", "baseline={memory: tape}").exit == 2


def test_values_alone_and_time_alone(folder: Path, tmp_path: Path, cimc: Cimc) -> None:
    np.savez(tmp_path / "in.npz", x=np.eye(3, 4, dtype=np.float32))
    both = cimc("run", folder, "--json", "-")
    time = cimc("run", folder, "--no-values", "--json", "-")
    values = cimc(
        "run", folder, "--no-timing", "--inputs", tmp_path / "in.npz", "--outputs", tmp_path / "out.npz", "--json", "-"
    )
    assert (time.exit, values.exit) == (0, 0)
    assert json.loads(time.out)["cycles"] == json.loads(both.out)["cycles"]
    validate(json.loads(values.out), "run")
    w = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["y"], w[:3], atol=1e-6)


def test_compile_writes_the_contracts_files(folder: Path) -> None:
    assert {p.name for p in folder.iterdir()} == FILES
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"].keys() == FILES - {"manifest.json"}
    assert manifest["options"]["dims"] == {"n": 3}
    assert str(folder.parent) not in (folder / "manifest.json").read_text()


def test_mapping_json(folder: Path, model: Path, cimc: Cimc) -> None:
    mapping = json.loads((folder / "mapping.json").read_text())
    validate(mapping, "mapping")
    (weight,) = mapping["static"]
    assert (weight["rows"], weight["cols"], weight["precision"]) == (4, 4, "w8a8")
    assert mapping["totals"]["crossbars_used"] == sum(t["crossbars_used"] for t in mapping["tiles"])
    assert mapping["totals"]["crossbars"] == sum(t["crossbars"] for t in mapping["tiles"])
    done = cimc("compile", model, "-o", folder, "--dim", "n=3", "--json", "-")
    assert json.loads(done.out) == mapping


def test_the_same_compile_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bert.onnx"
    save_model(small.bert(layers=1, hidden=16, heads=2, ffn=24, vocab=20, positions=8), path)
    for seed, name in ((1, "a"), (2, "b")):
        done = process(
            "compile", path, "-o", tmp_path / name, "--dim", "batch=1", "--dim", "sequence=4", "-q", hash_seed=seed
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("command", ["compile", "check", "run", "inspect", "diff"])
def test_nothing_but_json_on_stdout(command: str, folder: Path, model: Path, tmp_path: Path, cimc: Cimc) -> None:
    arguments = {
        "compile": (model, "-o", tmp_path / "o", "--print-after", "*", "--time-passes", "--print-pipeline", "-v"),
        "check": (model, "-o", tmp_path / "o", "-v"),
        "run": (folder, "-v"),
        "inspect": (folder, "--html", tmp_path / "page.html"),
        "diff": (folder, folder),
    }[command]
    done = cimc(command, *arguments, "--json", "-")
    assert done.exit == 0, done.err
    assert isinstance(json.loads(done.out), dict)


HEAVY = "onnx onnxruntime sympy numba numpy scipy networkx jinja2"
LOADED = f"import sys; print([m for m in '{HEAVY}'.split() if m in sys.modules])"


def test_help_and_import_are_light() -> None:
    shown = process("--help", code=f"from cimc.cli.main import run; run(['--help']); {LOADED}")
    assert shown.returncode == 0
    assert "Example:" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "[]"
    assert (
        process(code=f"import cimc; {LOADED.replace('sys.modules', 'sys.modules and m or 0')}").stdout.strip() == "[]"
    )
    assert process(code="import cimc, sys; print('numpy' in sys.modules)").stdout.strip() == "False"


def test_asm_prints_a_compiled_program_back(folder: Path, tmp_path: Path, cimc: Cimc) -> None:
    text = (folder / "program.cim").read_text()
    assert print_program(parse_program(text, "p")) == text
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    done = cimc("asm", folder / "program.cim")
    assert (done.exit, done.out) == (0, text)
    assert cimc("asm", folder / "program.cim", "-o", tmp_path / "again.cim").exit == 0
    assert (tmp_path / "again.cim").read_text() == text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run_from_the_bare_file(path: Path, cimc: Cimc) -> None:
    params = ("--param", "pos=3") if ".param pos" in path.read_text() else ()
    done = cimc("run", path, *params, "--json", "-")
    assert done.exit == 0, done.err
    has_run_keys(json.loads(done.out))


def test_a_program_file_runs_with_its_weights_beside_it(folder: Path, tmp_path: Path, cimc: Cimc) -> None:
    (tmp_path / "mine.cim").write_bytes((folder / "program.cim").read_bytes())
    (tmp_path / "mine.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    for source, outputs in ((folder, "a.npz"), (tmp_path / "mine.cim", "b.npz")):
        assert cimc("run", source, "--outputs", tmp_path / outputs, "--no-timing", "-q").exit == 0
    assert np.array_equal(np.load(tmp_path / "a.npz")["y"], np.load(tmp_path / "b.npz")["y"])


def test_diff_tells_what_differs(folder: Path, model: Path, tmp_path: Path, cimc: Cimc) -> None:
    assert cimc("compile", model, "-o", tmp_path / "other", "--dim", "n=5", "--hw", "sram-digital", "-q").exit == 0
    done = cimc("diff", folder, tmp_path / "other")
    assert done.exit == 0
    assert "sram-digital" in done.out
    assert cimc("diff", folder, folder).out.count("no difference") >= 1


def test_hw(tmp_path: Path, cimc: Cimc) -> None:
    listed = cimc("hw", "list")
    assert all(name in listed.out for name in ("isaac", "sram-digital", "toy"))
    shown = cimc("hw", "show", "toy", "-c", "clock_ghz=2.0", "--json", "-")
    assert shown.exit == 0
    json.loads(shown.out)
    preset = ROOT / "cimc" / "arch" / "presets" / "toy.yaml"
    assert cimc("hw", "validate", preset).out.endswith("valid, 2 tiles\n")


def test_inspect(folder: Path, tmp_path: Path, cimc: Cimc) -> None:
    assert cimc("inspect", folder).exit == 0
    done = cimc("inspect", folder, "--html", tmp_path / "p.html", "--csv", tmp_path / "t.csv", "--layer", "product")
    assert done.exit == 0
    assert "product" in done.out
    page = (tmp_path / "p.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert 'src="http' not in page
    assert "product" in (tmp_path / "t.csv").read_text()
    tile = json.loads((folder / "mapping.json").read_text())["static"][0]["blocks"][0]["tile"]
    assert "product" in cimc("inspect", folder, "--tile", tile).out
    both = cimc("inspect", folder, "--layer", "product", "--tile", tile).out
    assert "\n\nTile\n" in both, "blocks stand apart"


def test_graphs_between_passes(model: Path, tmp_path: Path, cimc: Cimc) -> None:
    stopped = cimc("compile", model, "--dim", "n=2", "--stop-after", "classify")
    assert stopped.exit == 0
    assert stopped.out.startswith("# after classify\ngraph g : ")
    assert "linear %x, %w from product MatMul" in stopped.out
    dumped = tmp_path / "phases"
    done = cimc(
        "compile", model, "-o", tmp_path / "o", "--dim", "n=2", "--print-after", "quantize", "--dump-phases", dumped,
        "--time-passes", "--print-pipeline",
    )  # fmt: skip
    assert done.exit == 0
    assert "# after quantize" in done.out
    assert "# after fold" not in done.out
    assert sorted(p.name for p in dumped.iterdir())[0] == "00-imported.ir"
    assert " ms  fold.2" in done.err
    (pipeline,) = [line for line in done.out.splitlines() if line.startswith("integers,fold,fuse")]
    again = cimc("compile", model, "-o", tmp_path / "o2", "--dim", "n=2", "-p", pipeline, "-q")
    assert again.exit == 0
    assert (tmp_path / "o2" / "program.cim").read_bytes() == (tmp_path / "o" / "program.cim").read_bytes()


def test_fits_take_calibration_inputs(model: Path, tmp_path: Path, cimc: Cimc) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "cal.npz", x=rng.standard_normal((3, 2, 4)).astype(np.float32))
    options = ("--hw", "toy", "--dim", "n=2", "--fit", "all", "-o", tmp_path / "o")
    done = cimc("compile", model, *options, "--calibration", tmp_path / "cal.npz")
    assert done.exit == 0
    assert "drawn" not in done.err
    chosen = json.loads((tmp_path / "o" / "manifest.json").read_text())["options"]
    assert chosen["fit"] == "all"
    assert "smooth,quantize{rounding=fitted" in chosen["pipeline"]
    assert chosen["calibration"]["runs"] == 3
    np.savez(tmp_path / "other.npz", x=rng.standard_normal((3, 2, 4)).astype(np.float32))
    assert cimc("compile", model, *options, "--calibration", tmp_path / "other.npz").exit == 0
    again = json.loads((tmp_path / "o" / "manifest.json").read_text())["options"]
    assert again["calibration"]["sha256"] != chosen["calibration"]["sha256"]
    assert "fitted to drawn inputs" in cimc("compile", model, *options).err
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["options"]["calibration"] == "drawn"
    np.savez(tmp_path / "bad.npz", y=np.zeros((2, 4), np.float32))
    done = cimc("check", model, *options[:-2], "--numerics", "integer", "--calibration", tmp_path / "bad.npz")
    assert done.exit == 2
    assert "input" in done.err
    done = cimc("check", model, *options[:-2], "--numerics", "integer", "--calibration", tmp_path / "cal.npz")
    assert done.exit == 0


def test_static_activations_come_from_the_inputs(model: Path, tmp_path: Path, cimc: Cimc) -> None:
    np.savez(tmp_path / "in.npz", x=np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4))
    options = ("--inputs", tmp_path / "in.npz", "--activations", "static", "--hw", "toy", "--numerics", "integer")
    done = cimc("check", model, *options, "-o", tmp_path / "o", "--no-timing")
    assert done.exit == 0, done.err
    assert "quantize_static" in (tmp_path / "o" / "program.cim").read_text()
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["options"]["activations"] == "static"


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_compile_that_is_cut_short_leaves_nothing(
    fault: BaseException, model: Path, tmp_path: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise fault

    monkeypatch.setattr(bundle, "_parts", cut)
    done = cimc("compile", model, "-o", tmp_path / "out", "--dim", "n=2", "-q")
    assert done.exit == (130 if isinstance(fault, KeyboardInterrupt) else 2)
    assert {p.name for p in tmp_path.iterdir()} == {"linear.onnx"}


def test_a_failed_compile_leaves_the_earlier_one(
    folder: Path, model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "_parts", cut)
    assert cimc("compile", model, "-o", folder, "--dim", "n=9", "-q").exit == 130
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert {p.name for p in folder.parent.iterdir()} == {"linear.onnx", folder.name}


def test_a_bug_is_told_as_one(model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("never so")

    monkeypatch.setattr("cimc.compiler.build", broken)
    done = cimc("compile", model, "-o", tmp_path / "out", "--dim", "n=2", "-q")
    assert done.exit == 70
    assert "AssertionError: never so" in done.err
    assert "This is a bug in cimc" in done.err
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_told(model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("cimc.compiler.build", full)
    done = cimc("compile", model, "-o", tmp_path / "out", "--dim", "n=2", "-q")
    assert (done.exit, done.out) == (3, "")
    assert "error[memory]: this machine has not enough memory\nhelp: bind smaller dims" in done.err


def test_a_program_that_its_own_verifier_refuses_is_a_bug(
    model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever gave the model cannot put that right; a program by hand with the same fault is bad input."""

    def sends_to_nobody(program: Program, chip: ChipSpec) -> Program:
        del program, chip
        return parse_program('.cim 1\n.hardware "toy"\n.tile 0\n.buffer a f32 4 @0\nsend a, to=[1]\nhalt\n', "made")

    monkeypatch.setattr("cimc.compiler.calibrating", sends_to_nobody)
    done = cimc("compile", model, "-o", tmp_path / "out", "--dim", "n=2", "--calibrate", "start", "-q")
    assert done.exit == 70
    assert "InvalidProgram: " in done.err
    assert "error[" in done.err
    assert "This is a bug in cimc" in done.err
    assert not (tmp_path / "out").exists()


def test_a_model_of_no_rows_takes_no_time(model: Path, cimc: Cimc) -> None:
    """A dimension may be 0: no tile has anything to do, which is no program to fail on."""
    done = cimc("check", model, "--dim", "n=0", "--hw", "toy", "--json", "-", "-q")
    assert done.exit == 0, done.err
    found = json.loads(done.out)
    validate(found, "check")
    assert found["outputs"][0]["shape"] == [0, 4]
    assert (found["run"]["cycles"], found["run"]["instructions"], found["run"]["energy_pj"]["total"]) == (0, 0, 0)


def test_the_technology_that_was_used_is_told(folder: Path, cimc: Cimc) -> None:
    def told(*options: str) -> list[str]:
        lines = cimc("run", folder, "--no-timing", *options).out.splitlines()
        return [line.split()[1] for line in lines if line.startswith("  technology")]

    assert told() == ["reram_isaac"]
    assert told("--numerics", "analog", "--technology", "pcm") == ["pcm", "pcm"]  # the configuration, and the device


def test_a_trace_opens(folder: Path, tmp_path: Path, cimc: Cimc) -> None:
    assert cimc("run", folder, "--trace", tmp_path / "t.json", "-q").exit == 0
    trace = json.loads((tmp_path / "t.json").read_text())
    assert any(e.get("name") == "mvm" for e in trace["traceEvents"])


@pytest.mark.parametrize(
    ("precision", "bits", "words"),
    [("w4a8", 8, "-c weight_bits=4"), ("w8a8", 4, "use --precision w4a8"), ("w8a8", 8, "")],
)
def test_bits_of_weights_and_of_cores_are_compared(
    precision: str, bits: int, words: str, model: Path, cimc: Cimc, tmp_path: Path
) -> None:
    settings = ("--hw", "toy", "-c", f"weight_bits={bits}", "--precision", precision)
    done = cimc("compile", model, "-o", tmp_path / "out", "--dim", "n=2", *settings)
    assert done.exit == 0
    assert ("-bit weights" in done.err) == bool(words)
    assert words in done.err


@pytest.mark.parametrize("options", [("--activations", "static"), ("--outliers", "channels=1, by=activations")])
def test_what_is_measured_takes_drawn_inputs_too(
    options: tuple[str, ...], model: Path, tmp_path: Path, cimc: Cimc
) -> None:
    done = cimc("compile", model, "--dim", "n=2", "-o", tmp_path / "o", *options)
    assert done.exit == 0, done.err
    assert "fitted to drawn inputs of 16 runs; --calibration FILE" in done.err
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["options"]["calibration"] == "drawn"


@pytest.mark.parametrize("command", ["check", "reduce", "compile", "sweep"])
def test_help_offers_ranges_of_lengths_where_they_are_taken(
    command: str, model: Path, tmp_path: Path, cimc: Cimc
) -> None:
    offered = "LOW..HIGH: one program" in cimc(command, "--help").out.replace(
        "\n                                  ", " "
    )
    done = cimc(command, model, "--dim", "n=1..4", "--vary" if command == "sweep" else "-o", tmp_path / "o", "-q")
    assert ("a check compares at one length" not in done.err) == (command in ("compile", "sweep")) == offered


def test_help_names_every_choice_about_the_mapping(cimc: Cimc) -> None:
    names = {f.name for f in fields(Choices)}
    told = " ".join(cimc("compile", "--help").out.split("--mapping KEY=VALUE")[1].split("--placement")[0].split())
    row = next(line for line in (ROOT / "docs" / "contract.md").read_text().splitlines() if "`--mapping`" in line)
    assert all(re.search(rf"\b{name}\b", told) and re.search(rf"`{name}\b", row) for name in names)
    done = cimc("compile", "m.onnx", "-o", "o", "-m", "foo=1")
    assert done.exit == 2
    assert all(re.search(rf"\b{name}\b", done.err) for name in names)
