"""Bad input, one test each: the contract's exit code, one clear message, no traceback, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.cli.command import IN, Cimc, Done, external, linear, save

Make = Callable[[Path], Path]


def refused(done: Done, code: int, *words: str) -> None:
    """One message that holds all the words, and nothing else."""
    assert done.exit == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.count("error[") == 1 or (done.err.count("Error: ") == 1 and "error[" not in done.err)
    for word in words:
        assert word in done.err


def snapshot(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def not_onnx(p: Path) -> Path:
    p.write_text("hello, I am a text\n")
    return p


def truncated(p: Path) -> Path:
    whole = linear(p).read_bytes()
    p.write_bytes(whole[: len(whole) // 2])
    return p


def cyclic(p: Path) -> Path:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    return save(p, [*nodes, helper.make_node("Neg", ["b"], ["y"])])


MODELS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "not onnx": (not_onnx, ("model-not-onnx", "help: ")),
    "empty": (lambda p: (p.touch(), p)[1], ("model-",)),
    "truncated": (truncated, ("model-not-onnx", "cut short")),
    "cycle": (cyclic, ("model-malformed", "cycle", "Add_0")),
    "external data missing": (lambda p: external(p, "gone.bin"), ("model-external-data", "'w'", "gone.bin", "missing")),
    "external data outside": (
        lambda p: external(p, "../up.bin"),
        ("model-external-data", "outside the model's folder"),
    ),
    "external data is the folder": (lambda p: external(p, "."), ("model-external-data", "is not a file")),
    "external data absolute": (lambda p: external(p, "/etc/passwd"), ("model-external-data", "outside the model's")),
    "unknown op": (
        lambda p: save(p, [helper.make_node("Frobnicate", ["x"], ["y"], name="odd")]),
        ("model-unsupported", "'odd'", "Frobnicate"),
    ),
    "unknown domain": (
        lambda p: save(p, [helper.make_node("Odd", ["x"], ["y"], name="o", domain="com.example")]),
        ("model-unsupported", "com.example"),
    ),
    "value nobody makes": (
        lambda p: save(p, [helper.make_node("Neg", ["z"], ["y"])]),
        ("model-node", "'Neg_0'", "'z'", "nothing produces"),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("command", ["compile", "check"])
def test_models(name: str, command: str, tmp_path: Path, cimc: Cimc) -> None:
    make, words = MODELS[name]
    path = make(tmp_path / "model.onnx")
    before = snapshot(tmp_path)
    refused(cimc(command, path, "-o", tmp_path / "out", "--dim", "n=2"), 2, *words)
    assert snapshot(tmp_path) == before


def test_all_unsupported_nodes_are_told_at_once(tmp_path: Path, cimc: Cimc) -> None:
    odd = [helper.make_node("Foo", ["x"], ["a"], name="one"), helper.make_node("Bar", ["x"], ["b"], name="two")]
    nodes = [*odd, helper.make_node("Add", ["a", "b"], ["y"])]
    done = cimc("compile", save(tmp_path / "m.onnx", nodes), "-o", tmp_path / "out")
    assert done.exit == 2
    assert "'one' (Foo)" in done.err
    assert "'two' (Bar)" in done.err


OPTIONS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "unknown dim": (("--dim", "nn=3"), 2, ("model-dim-unknown", "'n'?", "n")),
    "dim given twice": (("--dim", "n=2", "--dim", "n=3"), 2, ("'n' is given both 2 and 3",)),
    "dim that is no number": (("--dim", "n=many"), 2, ("'n=many' is not NAME=INT",)),
    "dim out of range": (("--dim", "n=99999999999"), 2, ("model-dim-value",)),
    "no chips": (("--chips", "0"), 2, ("'0' is neither a number of chips from 1 on nor auto",)),
    "fewer chips than none": (("--chips", "-3"), 2, ("'-3' is neither",)),
    "chips in words": (("--chips", "two"), 2, ("'two' is neither",)),
    "more chips than a number": (("--chips", "9" * 60), 2, ("hw-", "chips")),
    "more chips than tiles": (("--chips", "400"), 2, ("chips", "76800 tiles on 400 chips", "65536", "341 chips")),
    "chips without links": (("--hw", "toy", "--chips", "2"), 2, ("link", "2 chips need a link")),
    "no chips by key": (("-c", "chips=0"), 2, ("chips", "0")),
    "unknown preset": (("--hw", "isac"), 2, ("unknown-hardware", "did you mean 'isaac'?", "sram-digital")),
    "unknown hardware key": (("-c", "tiles.cim.corez=4"), 2, ("hw-override", "did you mean 'tiles.cim.cores'?")),
    "impossible hardware": (("-c", "crossbar.rows=-1"), 2, ("crossbar.rows", "-1")),
    "precision": (("--precision", "w9a8"), 2, ("precision", "w9a8")),
    "unknown pass": (("-p", "fold,fuze"), 2, ("pass-unknown", "fuze", "did you mean 'fuse'?")),
    "pipeline syntax": (("-p", "fold,{"), 2, ("pipeline-syntax", "pipeline:1:6")),
    "pipeline that stops early": (("-p", "fold"), 2, ("pipeline-short", "imported")),
    "passes in the wrong order": (("-p", "quantize"), 2, ("pass-level", "quantize")),
    "stop after nothing": (("--stop-after", "fuze"), 2, ("pass-unknown", "fuze")),
    "mistyped flag": (("--dims", "n=2"), 2, ("No such option", "--dim")),
    "placement not there": (("--placement", "nowhere.json"), 2, ("file-not-found", "nowhere.json")),
    "placement that is a folder": (("--placement", "."), 2, ("file-unreadable", "placement .")),
    "placement that is none": (
        ("--placement", "/dev/null"),
        2,
        ("error[file-unreadable]", "placement /dev/null", "no regular file"),
    ),
    "search in words": (("--search", "long"), 2, ("search-option", "'long' is no number", "--search 200")),
    "search of fewer than none": (("--search", "-1"), 2, ("search-option", "'-1'")),
    "links without bandwidth": (("-c", "noc.link_bytes_per_cycle=0"), 2, ("noc.link_bytes_per_cycle", "at least 1")),
    "memory without bandwidth": (("-c", "memory.bytes_per_cycle=0"), 2, ("memory.bytes_per_cycle", "at least 1e-06")),
    "a unit taken away": (("-c", "tiles.digital.matmul=null"), 2, ("hw-override", "it holds keys", "hardware file")),
    "a buffer smaller than a row": (("-c", "tiles.cim.local_bytes=4"), 3, ("buffer-too-small", "has 4", "local_bytes")),
    "inputs not there": (("--inputs", "nowhere.npz"), 2, ("file-not-found", "nowhere.npz")),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, tmp_path: Path, model: Path, cimc: Cimc) -> None:
    options, code, words = OPTIONS[name]
    before = snapshot(tmp_path)
    refused(cimc("compile", model, "-o", tmp_path / "out", *options), code, *words)
    assert snapshot(tmp_path) == before


def test_a_mistyped_command(cimc: Cimc) -> None:
    refused(cimc("compil", "m.onnx"), 2, "no command is called 'compil'", "did you mean 'compile'?")


def test_compile_without_a_folder(model: Path, cimc: Cimc) -> None:
    refused(cimc("compile", model), 2, "-o DIR")


def test_a_model_that_is_too_big_for_the_chip(tmp_path: Path, cimc: Cimc) -> None:
    w = helper.make_tensor("w", 1, [32, 32], np.ones(1024, np.float32))
    x, y = (helper.make_tensor_value_info(n, 1, [2, 32]) for n in "xy")
    path = save(tmp_path / "big.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [x], [w], [y])
    before = snapshot(tmp_path)
    done = cimc("compile", path, "-o", tmp_path / "out", "--hw", "toy")
    # 32 × 32 weights are 16 blocks of 8 × 8; toy has 2 tiles of 2 cores.
    refused(done, 3, "does-not-fit", "needs 16 cores", "has 4", "12 short", "--hw")
    assert snapshot(tmp_path) == before


def test_a_chip_without_cores(tmp_path: Path, model: Path, cimc: Cimc) -> None:
    hardware = tmp_path / "bare.yaml"
    hardware.write_text("extends: toy\nname: bare\ntiles: {all: {core: null, cores: 0}}\n")
    done = cimc("compile", model, "-o", tmp_path / "out", "--hw", hardware)
    refused(done, 3, "no-cores", "no tile kind of bare.yaml has cores", "docs/hardware.md")


def test_a_block_that_is_too_big_for_a_buffer(tmp_path: Path, cimc: Cimc) -> None:
    x, y = (helper.make_tensor_value_info(n, 1, [1, 8192]) for n in "xy")
    path = save(tmp_path / "wide.onnx", [helper.make_node("Neg", ["x"], ["y"])], [x], [], [y])
    done = cimc("compile", path, "-o", tmp_path / "out", "--hw", "toy")
    # A row of 8192 float32 in and one out: 65536 bytes.
    refused(done, 3, "buffer-too-small", "65536 bytes", "16384", "Neg_0")


def test_a_block_that_is_too_big_beside_constants(tmp_path: Path, cimc: Cimc) -> None:
    """The bytes that are told are those that would do."""
    x, y = (helper.make_tensor_value_info(n, 1, [1, 1000]) for n in "xy")
    c = helper.make_tensor("c", 1, [1000], np.arange(1000, dtype=np.float32))
    path = save(tmp_path / "scaled.onnx", [helper.make_node("Mul", ["x", "c"], ["y"])], [x], [c], [y])

    def given(have: int) -> Done:
        return cimc("compile", path, "-o", tmp_path / "out", "--hw", "toy", "-c", f"tiles.all.local_bytes={have}")

    # x, y and c: three times 4000 bytes, each up to the next multiple of 64.
    refused(given(12000), 3, "buffer-too-small", "need 12096 bytes", "has 12000", "-c tiles.all.local_bytes=")
    assert given(12096).exit == 0


CONFLICTS = {
    "with another input": ((), "dimension 'n' is 2 by input 'x', axis 0 but 3 by input 'z', axis 0"),
    "with --dim": (("--dim", "n=5"), "dimension 'n' is 5 by --dim n=5 but 2 by input 'x', axis 0"),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_contradictory_dims(name: str, tmp_path: Path, cimc: Cimc) -> None:
    options, words = CONFLICTS[name]
    z = helper.make_tensor_value_info("z", 1, ["n", 4])
    path = save(tmp_path / "two.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], [IN, z])
    np.savez(tmp_path / "in.npz", x=np.ones((2, 4), np.float32), z=np.ones((3, 4), np.float32))
    refused(cimc("check", path, "--inputs", tmp_path / "in.npz", *options), 2, "model-dim-conflict", words)


def test_an_unbound_dim_gets_a_default_that_is_told(tmp_path: Path, model: Path, cimc: Cimc) -> None:
    done = cimc("compile", model, "-o", tmp_path / "out")
    assert done.exit == 0
    assert "n = " in done.err
    assert "default" in done.err


INPUTS: dict[str, tuple[dict[str, np.ndarray], tuple[str, ...]]] = {
    "dtype": ({"x": np.ones((3, 4))}, ("input-mismatch", "float64[3, 4]", "float32[3, 4]")),
    "shape": ({"x": np.ones((2, 4), np.float32)}, ("input-mismatch", "float32[2, 4]", "float32[3, 4]")),
    "pickled": ({"x": np.array([{}], object)}, ("file-unreadable", "Python objects")),
    "missing": ({}, ("input-missing", "'x'")),
    "surplus": (
        {"x": np.ones((3, 4), np.float32), "xx": np.ones(1)},
        ("input-unknown", "'xx'", "did you mean 'x'?"),
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str, tmp_path: Path, folder: Path, cimc: Cimc) -> None:
    arrays, words = INPUTS[name]
    np.savez(tmp_path / "in.npz", **arrays)  # pyright: ignore[reportArgumentType]
    before = snapshot(tmp_path)
    refused(cimc("run", folder, "--inputs", tmp_path / "in.npz", "--outputs", tmp_path / "o.npz", "-q"), 2, *words)
    assert snapshot(tmp_path) == before


def test_inputs_that_are_no_npz(tmp_path: Path, folder: Path, model: Path, cimc: Cimc) -> None:
    refused(cimc("run", folder, "--inputs", model), 2, "file-unreadable", "linear.onnx")


def test_a_wrong_name_is_told_with_what_is_missing(tmp_path: Path, folder: Path, cimc: Cimc) -> None:
    np.savez(tmp_path / "in.npz", X=np.ones((3, 4), np.float32))
    done = cimc("run", folder, "--inputs", tmp_path / "in.npz")
    assert done.exit == 2
    assert "no input 'X'" in done.err
    assert "input 'x' is missing" in done.err


@pytest.mark.parametrize("command", ["compile", "check", "sweep"])
def test_inputs_that_the_model_does_not_have_bind_nothing(
    command: str, tmp_path: Path, model: Path, cimc: Cimc
) -> None:
    """A mistyped name must not leave a default in the place of its sizes."""
    np.savez(tmp_path / "in.npz", X=np.ones((3, 4), np.float32))
    more = {"compile": ("-o", tmp_path / "out"), "check": (), "sweep": ("--vary", "hw=toy", "--numerics", "float")}
    options = (*more[command], "--inputs", tmp_path / "in.npz", "-q")
    refused(cimc(command, model, *options), 2, "input-unknown", "there is no input 'X'")
    assert not (tmp_path / "out").exists()


HARDWARE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "wrong key": ("    cores: 2\n", "    coers: 2\n", ("coers", "did you mean 'cores'?", ".yaml:")),
    "impossible size": ("rows: 8,", "rows: 0,", ("rows", ".yaml:")),
    "no yaml": ("layout:", "layout: {", ("hw-yaml", ".yaml:")),
}


@pytest.mark.parametrize("name", HARDWARE)
def test_hardware_files(name: str, tmp_path: Path, model: Path, cimc: Cimc) -> None:
    good, bad, words = HARDWARE[name]
    preset = Path(__file__).parents[2] / "cimc" / "arch" / "presets" / "toy.yaml"
    text = preset.read_text(encoding="utf-8")
    assert good in text
    (tmp_path / "mine.yaml").write_text(text.replace(good, bad, 1), encoding="utf-8")
    done = cimc("compile", model, "-o", tmp_path / "out", "--hw", tmp_path / "mine.yaml")
    assert done.exit == 2
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    assert not (tmp_path / "out").exists()
    assert cimc("hw", "validate", tmp_path / "mine.yaml").exit == 2


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("technology: ideal", "technology: rerm", ("'rerm' is unknown", "did you mean 'reram'?")),
        ("clock_ghz: 1.0", "clock_ghz: 1.0\ndevice: {adc_range: wide}", ("device.adc_range", '"wide"')),
    ],
)
def test_validate_knows_what_analog_runs_refuse(
    good: str, bad: str, words: tuple[str, ...], tmp_path: Path, cimc: Cimc
) -> None:
    text = (Path(__file__).parents[2] / "cimc" / "arch" / "presets" / "toy.yaml").read_text(encoding="utf-8")
    assert good in text
    (tmp_path / "mine.yaml").write_text(text.replace(good, bad, 1), encoding="utf-8")
    refused(cimc("hw", "validate", tmp_path / "mine.yaml"), 2, *words)


PROGRAM = """.cim 1
.hardware "toy"
.global y f32 4
.output "y" y
.tile 0
.buffer a f32 4 @0
fill a, value=1.0
{body}
halt
.tile 1
.buffer b f32 4 @0
{other}
halt
"""
PROGRAMS: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "unknown mnemonic": ("stroe y, a", "", 2, ("unknown-instruction", "'stroe'", "did you mean 'store'?", ":8:1")),
    "out of range": ("store y, a[2; 4; 1]", "", 2, ("out-of-buffer", "a", "2 to 5", "0 to 3", ":8:")),
    "send without receive": ("send a, to=[1], tag=0", "", 2, ("unpaired", ":8:")),
    "receive without send": ("store y, a", "recv b, source=0, tag=0", 2, ("unpaired", ":12:")),
    "deadlock": (
        "recv a, source=1, tag=1\nsend a, to=[1], tag=0",
        "recv b, source=0, tag=0\nsend b, to=[0], tag=1",
        4,
        ("deadlock", "tile 0", "tile 1", "recv"),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, tmp_path: Path, cimc: Cimc) -> None:
    body, other, code, words = PROGRAMS[name]
    path = tmp_path / "bad.cim"
    path.write_text(PROGRAM.format(body=body, other=other), encoding="utf-8")
    before = snapshot(tmp_path)
    refused(cimc("run", path, "--outputs", tmp_path / "o.npz"), code, *words)
    if code == 2:
        refused(cimc("asm", path, "-o", tmp_path / "again.cim"), code, *words)
    assert snapshot(tmp_path) == before


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfenothing")


DAMAGE: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...]]] = {
    "no manifest": ("manifest.json", Path.unlink, ("not-compiled",)),
    "no weights": ("weights.safetensors", Path.unlink, ("file-not-found", "weights")),
    "no program": ("program.cim", Path.unlink, ("file-not-found", "program")),
    "no hardware": ("hardware.yaml", Path.unlink, ("file-not-found", "hardware")),
    "manifest": ("manifest.json", garbage, ("file-unreadable", "manifest")),
    "weights": ("weights.safetensors", garbage, ("file-unreadable", "weights")),
    "program": ("program.cim", garbage, ("file-unreadable", "program")),
    "hardware": ("hardware.yaml", garbage, ("hardware",)),
    "mapping": ("mapping.json", garbage, ("file-unreadable", "mapping")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folders(name: str, folder: Path, cimc: Cimc) -> None:
    file, damage, words = DAMAGE[name]
    damage(folder / file)
    refused(cimc("run", folder, "-q"), 2, *words)


def test_folders_of_others_are_left_alone(tmp_path: Path, model: Path, cimc: Cimc) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    refused(cimc("compile", model, "-o", precious), 2, "output-occupied", "precious")
    refused(cimc("compile", model, "-o", model), 2, "output-occupied")
    refused(cimc("compile", model, "-o", model / "under"), 2, "report-unwritable", f"{model.name} is no folder")
    assert (precious / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "flags",
    [("--no-values", "--no-timing"), ("--no-values", "--outputs", "o.npz"), ("--no-timing", "--trace", "t.json")],
)
def test_flags_that_exclude_each_other(flags: tuple[str, ...], folder: Path, cimc: Cimc) -> None:
    refused(cimc("run", folder, *flags), 2, "Error: --")


def test_things_that_are_not_there(folder: Path, cimc: Cimc) -> None:
    refused(cimc("inspect", folder, "--layer", "nope"), 2, "unknown-layer", "nope")
    refused(cimc("inspect", folder, "--tile", "9999"), 2, "unknown-tile", "9999")
    refused(cimc("diff", folder, folder / "no"), 2, "file-not-found")
    refused(cimc("asm", folder / "no.cim"), 2, "file-not-found")
    refused(cimc("run", folder / "no"), 2, "file-not-found")
    refused(cimc("run", folder, "-q", "--param", "pos=1"), 2, "param-unknown", "pos")
    refused(cimc("hw", "show", "nope"), 2, "unknown-hardware")


@pytest.mark.parametrize(
    "arguments",
    [("compile", "", "-o", "{place}"), ("compile", "{model}", "-o", ""), ("check", ""), ("run", ""), ("asm", ""),
     ("inspect", ""), ("diff", "", ""), ("reduce", "", "-o", "{place}"), ("sweep", "", "--vary", "hw=toy"),
     ("hw", "validate", ""), ("check", "{model}", "--inputs", ""), ("check", "{model}", "--json", "")],
)  # fmt: skip
def test_an_empty_path_is_not_the_current_folder(
    arguments: tuple[str, ...], model: Path, tmp_path: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell makes of a variable that is not set; the model is the only one in the current folder."""
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    refused(cimc(*(a.format(model=model, place="part.onnx") for a in arguments)), 2, "the path is empty")
    assert snapshot(tmp_path) == before


def test_an_empty_name_is_not_the_default_hardware(model: Path, folder: Path, cimc: Cimc) -> None:
    refused(cimc("check", model, "--dim", "n=2", "--hw", "", "-q"), 2, "unknown-hardware")
    refused(cimc("run", folder, "--hw", "", "-q"), 2, "unknown-hardware")


@pytest.mark.parametrize(
    "flags",
    [("-m", "reload=on", "--optimize", "throughput"), ("-m", "reload=on", "-m", "optimize=throughput"),
     ("--reload", "on", "-m", "optimize=throughput"), ("--reload", "on", "--optimize", "throughput"),
     ("-m", "reload=on", "--chips", "auto"), ("--reload", "on", "--chips", "auto")],
)  # fmt: skip
def test_choices_that_contradict_each_other(flags: tuple[str, ...], model: Path, cimc: Cimc) -> None:
    refused(cimc("check", model, "--dim", "n=2", *flags, "-q"), 2, "mapping-choice", "reload=on", "give one of them")


def test_designs_with_a_converter_for_signs_alone(cimc: Cimc) -> None:
    """Two rows of one bit need two bits of converter; one less is a sign for pairs of columns, and left out."""
    done = cimc("hw", "trade", "toy", "--rows", "2", "--cell-bits", "1", "--json", "-")
    assert done.exit == 0
    made = {(v["encoding"], v["adc_bits"]) for v in json.loads(done.out)["variants"]}
    assert made == {("offset", 2), ("offset", 1), ("differential", 2)}
    asked = ("hw", "trade", "toy", "--encoding", "differential", "--adc-bits", "1")
    refused(cimc(*asked), 2, "analog-config", "'adc.bits'", "2 bits or more")


def test_inputs_that_are_a_folder(model: Path, tmp_path: Path, cimc: Cimc) -> None:
    refused(cimc("check", model, "--inputs", tmp_path, "-q"), 2, "file-unreadable", "no regular file")


def test_a_layer_without_a_name(folder: Path, cimc: Cimc) -> None:
    refused(cimc("inspect", folder, "--layer", ""), 2, "unknown-layer")


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"x": np.zeros((1 << 18, 5), np.float32)}, "model-input"),
        ({"x": np.zeros((1 << 18, 4), np.float64)}, "input-mismatch"),
        ({"x": np.zeros((3, 4), np.float32), "huge": np.zeros(1 << 20, np.float32)}, "input-unknown"),
    ],
    ids=("shape", "type", "name"),
)
def test_inputs_that_do_not_fit_are_refused_unread(
    arrays: dict[str, np.ndarray], word: str, tmp_path: Path, model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compressed to little may be large: shapes and types are looked at before memory is taken."""
    np.savez_compressed(tmp_path / "in.npz", **arrays)  # pyright: ignore[reportArgumentType]

    def read(*_: object, **__: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(np, "load", read)
    for command in (("check", model), ("check", model, "--dim", "n=3", "--numerics", "integer", "--fit", "all")):
        done = cimc(*command, "--inputs", tmp_path / "in.npz")
        assert done.exit == 2, done.err
        assert "error[" in done.err
    assert f"error[{word}]" in cimc("check", model, "--inputs", tmp_path / "in.npz").err


def test_inputs_whose_numbers_are_damaged(tmp_path: Path, folder: Path, cimc: Cimc) -> None:
    """Found when the numbers are read, after the shapes: told like everything else about the file."""
    np.savez(tmp_path / "in.npz", x=np.arange(12, dtype=np.float32).reshape(3, 4))
    whole = bytearray((tmp_path / "in.npz").read_bytes())
    at = whole.index(np.arange(12, dtype=np.float32).tobytes())
    whole[at + 8] ^= 1
    (tmp_path / "in.npz").write_bytes(whole)
    refused(cimc("run", folder, "--inputs", tmp_path / "in.npz", "-q"), 2, "file-unreadable", "CRC")
