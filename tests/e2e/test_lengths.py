"""One program for every position of a decoder: bit for bit what a program of its own computes there, and onnxruntime's tokens
one after the other with what the step before left in the tiles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import cimc
from cimc import bundle
from cimc.compiler import Compiled, compile_model
from cimc.errors import CimcError, Exit
from cimc.isa import parse_program, print_program
from cimc.lengths import Lengths
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.session import InferenceSession, Numerics
from models.graph import save
from models.inputs import sample_inputs
from tests.cli.command import Cimc
from tests.e2e.test_cache import CHIPS
from tests.e2e.workloads import MODELS, model
from tests.report.test_run_report import validate

MOST = 24
STEP = {"batch": 1, "sequence": 1}
RESIDENT = Choices(cache="resident")
DECODERS = ("gpt2-past", "llama-past")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lengths")
    for name in (*DECODERS, "gpt2"):
        save(MODELS[name](), place / f"{name}.onnx")
    return place


def compiled(folder: Path, name: str, chip: Options, low: int = 0, high: int = MOST, **dims: int) -> Compiled:
    lengths = Lengths("past_sequence", low, high)
    chosen = replace(chip, dims={**STEP, **dims}, lengths=lengths, choices=RESIDENT)
    made = compile_model(folder / f"{name}.onnx", chosen)
    assert made is not None
    return made


def one(folder: Path, name: str, chip: Options, past: int) -> Compiled:
    made = compile_model(folder / f"{name}.onnx", replace(chip, dims={**STEP, "past_sequence": past}, choices=RESIDENT))
    assert made is not None
    return made


@pytest.mark.parametrize("chip", ["isaac", "sram-digital"])
@pytest.mark.parametrize("name", DECODERS)
def test_at_each_length_it_computes_what_a_program_for_it_does(folder: Path, name: str, chip: str) -> None:
    session = InferenceSession(compiled(folder, name, CHIPS[chip]), "integer", timing=False)
    for past in (1, 2, 3, 8, 13, 23, 24):
        feeds = sample_inputs(model(name), {**STEP, "past_sequence": past}, seed=past)
        wanted = InferenceSession(one(folder, name, CHIPS[chip], past), "integer", timing=False).run(None, feeds)
        for w, f in zip(wanted, session.run(None, feeds), strict=True):
            np.testing.assert_array_equal(f, w)


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_one_after_the_other_are_those_of_onnxruntime(folder: Path, name: str) -> None:
    """From the first token on, and no cache is given: each step finds what those before it left."""
    session = InferenceSession(compiled(folder, name, Options("isaac")), timing=False)
    reference = ort.InferenceSession(folder / f"{name}.onnx")
    names = [o.name for o in reference.get_outputs()]
    caches = [i for i in reference.get_inputs() if i.name.startswith("past")]
    past = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in caches}
    token = np.array([[7]])
    for step in range(MOST + 1):
        feeds = {"input_ids": token, "attention_mask": np.ones((1, step + 1), np.int64)}
        feeds["position_ids"] = np.array([[step]])
        wanted = reference.run(None, {**feeds, **past})
        found = session.run(None, feeds)
        for w, f in zip(wanted, found, strict=True):
            np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-5)
        past = {
            n.replace("present", "past_key_values"): v for n, v in zip(names, wanted, strict=True) if "present" in n
        }
        token = wanted[0][:, -1:].argmax(-1)


def test_time_and_energy_are_those_of_the_length(folder: Path) -> None:
    """At the greatest length the program is that of a compile for it; before, steps are shorter, and the reports tell the work
    of the step."""
    made = compiled(folder, "gpt2-past", Options("isaac"))
    session = InferenceSession(made)
    cycles: list[int] = []
    for past in (1, 12, MOST):
        feeds = sample_inputs(model("gpt2-past"), {**STEP, "past_sequence": past}, seed=1)
        session.run(["logits"], feeds)
        alone = InferenceSession(one(folder, "gpt2-past", Options("isaac"), past))
        alone.run(["logits"], feeds)
        found, wanted = session.report, alone.report
        assert found is not None
        assert wanted is not None
        assert found.params == {"past_sequence": past}
        assert found.baseline is not None
        assert wanted.baseline is not None
        assert found.baseline.bytes == wanted.baseline.bytes
        assert found.macs == wanted.macs
        assert found.cache is not None
        assert wanted.cache is not None
        assert (found.cache.given_bytes, found.cache.read_bytes) == (wanted.cache.given_bytes, wanted.cache.read_bytes)
        assert found.cycles is not None
        cycles.append(found.cycles)
        if past == MOST:
            assert (found.cycles, found.energy_pj) == (wanted.cycles, wanted.energy_pj)
    assert cycles == sorted(set(cycles))


def test_inputs_and_outputs_say_what_follows_the_length(folder: Path) -> None:
    session = InferenceSession(compiled(folder, "gpt2-past", Options("isaac")), timing=False)
    shapes = {a.name: a.shape for a in (*session.get_inputs(), *session.get_outputs())}
    assert shapes["input_ids"] == (1, 1)
    assert shapes["attention_mask"] == (1, "past_sequence+1")
    assert shapes["past_key_values.0.key"] == (1, 2, "past_sequence", 16)
    assert shapes["present.0.key"] == (1, 2, "past_sequence+1", 16)


def test_a_cache_that_is_not_there_has_to_be_given(folder: Path) -> None:
    session = InferenceSession(compiled(folder, "gpt2-past", Options("isaac")), timing=False)

    def feeds(past: int, *, cache: bool) -> dict[str, np.ndarray]:
        found = sample_inputs(model("gpt2-past"), {**STEP, "past_sequence": past}, seed=2)
        return {n: v for n, v in found.items() if cache or not n.startswith("past")}

    with pytest.raises(CimcError, match="tiles hold 0 of its 96 elements") as caught:
        session.run(None, feeds(3, cache=False))
    assert (caught.value.code, caught.value.exit) == ("state-short", Exit.USAGE)
    session.run(None, feeds(3, cache=True))
    session.run(None, feeds(4, cache=False))
    session.run(None, feeds(2, cache=False))  # back to an earlier position: its rows are there
    with pytest.raises(CimcError, match="tiles hold 96 of its 160 elements"):
        session.run(None, feeds(5, cache=False))
    with pytest.raises(CimcError, match="past_sequence"):  # no input tells the length
        session.run(None, {n: v for n, v in feeds(3, cache=False).items() if n != "attention_mask"})


def test_analog_numerics_go_on_from_token_to_token(folder: Path) -> None:
    """With a lossless converter they are integer ones, bit for bit; ranges that are fitted to inputs are fitted in the first
    step, which is none of the generation's."""

    def logits(chip: Options, numerics: Numerics) -> list[np.ndarray]:
        session = InferenceSession(compiled(folder, "llama-past", chip), numerics, timing=False)
        found: list[np.ndarray] = []
        for step in range(4):
            feeds = {"input_ids": np.array([[3 + step]]), "attention_mask": np.ones((1, step + 1), np.int64)}
            found += session.run(["logits"], {**feeds, "position_ids": np.array([[step]])})
        return found

    lossless = Options("isaac", ("adc.bits=0",))
    for a, b in zip(logits(lossless, "analog"), logits(lossless, "integer"), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(logits(Options("pcm"), "analog"), logits(Options("pcm"), "integer"), strict=True):
        cosine = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
        assert 0.8 < cosine < 1


def test_a_folder_is_the_same_program(folder: Path, tmp_path: Path) -> None:
    made = compiled(folder, "gpt2-past", Options("isaac"), low=1)
    assert parse_program(print_program(made.program)) == made.program
    made.write(tmp_path / "a")
    compiled(folder, "gpt2-past", Options("isaac"), low=1).write(tmp_path / "b")
    for name in ("program.cim", "mapping.json", "manifest.json", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    validate(json.loads((tmp_path / "a" / "mapping.json").read_text()), "mapping")
    options = json.loads((tmp_path / "a" / "manifest.json").read_text())["options"]
    assert options["lengths"] == {"name": "past_sequence", "low": 1, "high": MOST}
    assert [p.name for p in bundle.read(tmp_path / "a").program.params] == ["past_sequence"]


def test_the_commands(folder: Path, tmp_path: Path, cimc_command: Cimc) -> None:
    path, out = folder / "gpt2-past.onnx", tmp_path / "out"
    dims = ("--dim", "batch=1", "--dim", "sequence=1", "--dim", f"past_sequence=0..{MOST}", "--cache", "resident")
    assert cimc_command("compile", path, "-o", out, *dims, "-q").exit == 0
    missing = cimc_command("run", out, "-q")
    assert (missing.exit, "'past_sequence' has no value" in missing.err) == (2, True)
    feeds = sample_inputs(model("gpt2-past"), {**STEP, "past_sequence": 5}, seed=2)
    np.savez(tmp_path / "inputs.npz", **feeds)
    told = [
        json.loads(cimc_command("run", out, *how, "--json", "-", "-q").out)
        for how in (("--inputs", tmp_path / "inputs.npz"), ("--param", "past_sequence=5", "--no-values"))
    ]
    validate(told[0], "run")
    assert told[0]["cycles"] == told[1]["cycles"]
    assert told[0]["params"] == told[1]["params"] == {"past_sequence": 5}
    swept = cimc_command("sweep", path, *dims, "--vary", "param.past_sequence=0,5,24", "--json", "-", "-q")
    points = json.loads(swept.out)["points"]
    assert [p["setting"]["param.past_sequence"] for p in points] == ["0", "5", "24"]
    assert points[1]["figures"]["cycles"] == told[0]["cycles"]
    assert points[0]["figures"]["cycles"] < points[1]["figures"]["cycles"] < points[2]["figures"]["cycles"]
    for refused, why in (
        (cimc_command("check", path, *dims, "-q"), "a check compares at one length"),
        (cimc_command("reduce", path, *dims, "-o", tmp_path / "part.onnx"), "a check compares at one length"),
        (
            cimc_command("compile", path, "-o", tmp_path / "x", *dims, "--reload", "on", "-q"),
            "laid out anew for each length",
        ),
        (
            cimc_command("compile", path, "-o", tmp_path / "x", *dims, "--fit", "scales", "-q"),
            "fitted to inputs of one length",
        ),
        (cimc_command("sweep", path, "--vary", "param.n=1", "-q"), "the program has no parameter"),
        (
            cimc_command("compile", path, "-o", tmp_path / "x", *dims, "--dim", "batch=1..2"),
            "one dimension may stay open",
        ),
        (cimc_command("compile", path, "-o", tmp_path / "x", "--dim", "past_sequence=5..5"), "no range of lengths"),
    ):
        assert refused.exit == 2
        assert why in refused.err


def test_python_takes_a_range_as_two_numbers(folder: Path) -> None:
    made = cimc.compile(folder / "llama-past.onnx", dims={**STEP, "past_sequence": (0, MOST)}, cache="resident")
    assert made.program == compiled(folder, "llama-past", Options()).program
    swept = cimc.sweep(
        folder / "llama-past.onnx",
        {"param.past_sequence": [0, MOST]},
        dims={**STEP, "past_sequence": (0, MOST)},
        mapping=["cache=resident"],
    )
    assert isinstance(swept["points"], list)
    assert [p["refused"] for p in swept["points"] if isinstance(p, dict)] == ["", ""]
    with pytest.raises(CimcError, match=r"past_sequence is \(1, 2, 3\)"):
        cimc.compile(folder / "llama-past.onnx", dims={"past_sequence": (1, 2, 3)})  # pyright: ignore[reportArgumentType]
    feeds = sample_inputs(model("llama-past"), {**STEP, "past_sequence": 3})
    with pytest.raises(CimcError, match="inputs have one length"):
        cimc.compile(folder / "llama-past.onnx", dims={"past_sequence": (0, MOST)}, inputs=feeds)


@pytest.mark.parametrize(
    ("name", "dims", "choices"),
    [
        ("gpt2", {"sequence": (1, 24), "batch": 1}, RESIDENT),  # products of lengths
        ("gpt2-past", {**STEP, "sequence": 3, "past_sequence": (0, 24)}, RESIDENT),  # a mask is made of the length
    ],
)
def test_what_needs_other_programs_is_refused(
    folder: Path, name: str, dims: dict[str, int | tuple[int, int]], choices: Choices
) -> None:
    with pytest.raises(CimcError, match="no one program serves") as caught:
        cimc.compile(folder / f"{name}.onnx", dims=dims, cache=choices.cache, hardware="isaac")
    assert (caught.value.code, caught.value.exit) == ("lengths", Exit.USAGE)


def test_a_constant_that_is_made_of_the_length_is_refused(tmp_path: Path) -> None:
    """Scores are divided by the number of tokens: nothing but a constant differs."""
    head = 4
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 1, head]) for n in ("q", "k")]
    inputs.append(helper.make_tensor_value_info("past", TensorProto.FLOAT, [1, 2, "past_sequence", head]))
    outputs = [helper.make_tensor_value_info("present", TensorProto.FLOAT, [1, 2, "tokens", head])]
    outputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 1, "tokens"]))
    nodes = [
        helper.make_node("Concat", ["past", "k"], ["present"], axis=2),
        helper.make_node("Transpose", ["present"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "turned"], ["scores"]),
        helper.make_node("Shape", ["present"], ["shape"]),
        helper.make_node("Gather", ["shape", "two"], ["length"]),
        helper.make_node("Cast", ["length"], ["tokens"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["scores", "tokens"], ["y"]),
    ]
    two = numpy_helper.from_array(np.array(2), "two")
    graph = helper.make_graph(nodes, "divided", inputs, outputs, [two])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "model.onnx")
    with pytest.raises(CimcError, match=r"no one program serves past_sequence = 1\.\.16") as caught:
        cimc.compile(tmp_path / "model.onnx", dims={"past_sequence": (1, 16)}, cache="resident")
    assert "the constant 'tokens[0:1]' is another one" in caught.value.message


def test_the_lengths_that_are_looked_at() -> None:
    """The least and one between, which leaves another rest when it is divided by small numbers."""
    assert Lengths("n", 0, 2).shorter == (1,)
    assert Lengths("n", 1, 3).shorter == (1, 2)
    for high in range(3, 300):
        least, middle = Lengths("n", 0, high).shorter
        assert least == 1 < middle < high
        assert all(middle % d != least % d for d in (2, 3, 4, 5, 6, 7, 8, 16))
