"""KV caches in tiles: the same values as in global memory and as onnxruntime, nothing but new rows moved, room told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cimc
from cimc import bundle
from cimc.compiler import Compiled, compile_model
from cimc.errors import CimcError, Exit
from cimc.isa import parse_program, print_program
from cimc.mapping.choices import CacheHome, Choices
from cimc.options import Options
from cimc.session import InferenceSession, Numerics
from models import small
from models.graph import save
from models.inputs import sample_inputs
from tests.e2e.workloads import MODELS, model
from tests.report.test_run_report import validate

TOY = Options("toy", ("tiles.all.cores=4096", "tiles.all.local_bytes=1048576", "adc.bits=0"))
STEP = {"batch": 1, "sequence": 1, "past_sequence": 9}
SHAPES = (STEP, {"batch": 2, "sequence": 3, "past_sequence": 5})
CHIPS = {
    "isaac": Options("isaac"),
    "sram-digital": Options("sram-digital"),
    "toy": TOY,
    "hybrid, written": Options("hybrid", attention="nvm-write"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cache")
    for name in ("gpt2-past", "llama-past", "gpt2"):
        save(MODELS[name](), place / f"{name}.onnx")
    return place


def compiled(folder: Path, name: str, options: Options, how: CacheHome, dims: dict[str, int]) -> Compiled:
    chosen = replace(options, dims=dims, choices=replace(options.choices, cache=how))
    made = compile_model(folder / f"{name}.onnx", chosen)
    assert made is not None
    return made


def outputs(made: Compiled, feeds: dict[str, np.ndarray], numerics: Numerics) -> list[np.ndarray]:
    return InferenceSession(made, numerics, timing=False).run(None, feeds)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dims", SHAPES, ids=("step", "three tokens of two"))
@pytest.mark.parametrize("name", ["gpt2-past", "llama-past"])
def test_where_a_cache_lies_changes_no_value(folder: Path, name: str, dims: dict[str, int], chip: str) -> None:
    made = {how: compiled(folder, name, CHIPS[chip], how, dims) for how in ("memory", "resident")}
    feeds = sample_inputs(model(name), dims, seed=5)
    wanted, found = (outputs(made[how], feeds, "integer") for how in ("memory", "resident"))
    for w, f in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(f, w)
    held = {p.name for p in made["resident"].program.outputs if _held(made["resident"], p.buffer)}
    assert held == {"present.0.key", "present.0.value"}
    assert not any(g.held for g in made["memory"].program.globals)


def _held(made: Compiled, buffer: str) -> bool:
    return next(g for g in made.program.globals if g.name == buffer).held


@pytest.mark.parametrize("name", ["gpt2-past", "llama-past"])
def test_a_resident_cache_agrees_with_onnxruntime(folder: Path, name: str) -> None:
    report = cimc.check(folder / f"{name}.onnx", dims=STEP, cache="resident")
    assert report["passed"]
    run = report["run"]
    assert isinstance(run, dict)
    assert isinstance(run["cache"], dict)
    assert run["cache"]["tiles"] == 2
    validate(report, "check")


@pytest.mark.parametrize("dims", SHAPES, ids=("step", "three tokens of two"))
def test_nothing_but_new_rows_moves(folder: Path, dims: dict[str, int]) -> None:
    """Beside the memory of a model without a cache, only what the new rows take: the cache's length makes no difference to
    what is loaded and stored."""
    moved: list[dict[str, int]] = []
    for past in (dims["past_sequence"], 3 * dims["past_sequence"]):
        made = compiled(folder, "gpt2-past", Options("isaac"), "resident", {**dims, "past_sequence": past})
        session = InferenceSession(made)
        session.run(None, sample_inputs(model("gpt2-past"), {**dims, "past_sequence": past}, seed=1))
        report = session.report
        assert report is not None
        assert report.traffic_bytes is not None
        assert report.cache is not None
        rows, heads, head = dims["batch"] * dims["sequence"], 2, 16
        assert report.cache.added_bytes == 2 * rows * heads * head * 4
        assert report.cache.given_bytes == report.cache.added_bytes // dims["sequence"] * past
        assert report.cache.read_bytes == report.cache.given_bytes + report.cache.added_bytes == report.cache.bytes
        mask = 8 * dims["batch"] * (past + dims["sequence"])  # the only input beside it that grows
        moved.append({k: v for k, v in report.traffic_bytes.items() if k == "global_memory"} | {"mask": mask})
    grown = moved[1]["global_memory"] - moved[0]["global_memory"]
    # the mask, and what is made of it: read for every tile that needs it
    assert grown <= 8 * (moved[1]["mask"] - moved[0]["mask"])
    assert moved[0]["global_memory"] < _memory(folder, dims)


def _memory(folder: Path, dims: dict[str, int]) -> int:
    session = InferenceSession(compiled(folder, "gpt2-past", Options("isaac"), "memory", dims))
    session.run(None, sample_inputs(model("gpt2-past"), dims, seed=1))
    report = session.report
    assert report is not None
    assert report.traffic_bytes is not None
    return report.traffic_bytes["global_memory"]


def test_programs_with_caches_are_self_contained(folder: Path, tmp_path: Path) -> None:
    """What is written is read back and runs alike, with the states where ``mapping.json`` says."""
    made = compiled(folder, "gpt2-past", Options("isaac"), "resident", STEP)
    assert parse_program(print_program(made.program)) == made.program
    made.write(tmp_path / "out")
    read = bundle.read(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "mapping.json").read_text())
    validate(told, "mapping")
    states = {t.tile: sum(b.bytes for b in t.buffers if b.state) for t in read.program.tiles}
    assert {t["tile"]: t["bytes"] for t in told["cache"]["tiles"]} == {t: n for t, n in states.items() if n}
    assert told["cache"]["bytes"] == sum(states.values()) == sum(v["bytes"] for v in told["cache"]["values"])
    feeds = sample_inputs(model("gpt2-past"), STEP, seed=2)
    again = InferenceSession(tmp_path / "out", "integer", timing=False).run(None, feeds)
    for a, b in zip(again, outputs(made, feeds, "integer"), strict=True):
        np.testing.assert_array_equal(a, b)


def decoder(layers: int) -> small.Config:
    return replace(small.RECIPES["gpt2"].config, layers=layers, hidden=32, heads=2, ffn=32, vocab=20, with_past=True)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deep") / "model.onnx"
    save(small.build(replace(decoder(3), positions=512)), path)
    return path


SMALL = Options("toy", ("tiles.all.cores=4096", "tiles.all.local_bytes=65536", "adc.bits=0"))


def _deep(path: Path, how: CacheHome, tokens: int) -> Compiled:
    dims = {"batch": 1, "sequence": 1, "past_sequence": tokens - 1}
    made = compile_model(path, replace(SMALL, dims=dims, choices=Choices(cache=how)))
    assert made is not None
    return made


def capacity(made: Compiled) -> int:
    told = made.mapping["cache"]
    assert isinstance(told, dict)
    tokens = told["capacity_tokens"]
    assert isinstance(tokens, int)
    return tokens


def test_the_room_that_is_told_is_there(deep: Path) -> None:
    """3 layers × 2 heads on two tiles of 64 KiB, 128 bytes a token and head: 7/8 of a tile has room for three heads of 149
    tokens, and no more."""
    tokens = capacity(_deep(deep, "resident", 20))
    assert tokens == 65536 * 7 // 8 // (3 * 128) == 149
    made = _deep(deep, "resident", tokens)
    told = made.mapping["cache"]
    assert isinstance(told, dict)
    assert told["bytes"] == 3 * 2 * 2 * tokens * 16 * 4
    with pytest.raises(CimcError, match="tokens") as caught:
        _deep(deep, "resident", 2 * tokens)
    assert (caught.value.code, caught.value.exit) == ("cache-room", Exit.DOES_NOT_FIT)
    assert "--cache fit" in caught.value.render()


def test_some_layers_stay_where_not_all_can(deep: Path) -> None:
    tokens = capacity(_deep(deep, "resident", 20)) + 11
    made, memory = _deep(deep, "fit", tokens), _deep(deep, "memory", tokens)
    told = made.mapping["cache"]
    assert isinstance(told, dict)
    values = told["values"]
    assert isinstance(values, list)
    homes = [v["home"] for v in values if isinstance(v, dict)]
    assert 0 < homes.count("tiles") < len(homes)
    assert any("no room" in note for note in made.notes)
    dims = {"batch": 1, "sequence": 1, "past_sequence": tokens - 1}
    feeds = sample_inputs(small.build(replace(decoder(3), positions=512)), dims, seed=4)
    for a, b in zip(outputs(made, feeds, "integer"), outputs(memory, feeds, "integer"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("op", "groups"), [("MultiHeadAttention", 4), ("GroupQueryAttention", 2)])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_nodes_that_onnxruntime_has_fused(tmp_path: Path, op: str, groups: int, kind: int) -> None:
    past, heads, head = 7, 4, 16

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [value("q", 1, 1, heads * head), value("k", 1, 1, groups * head), value("v", 1, 1, groups * head)]
    inputs += [value(n, 1, groups, past, head) for n in ("past_k", "past_v")]
    outputs = [value("y", 1, 1, heads * head)]
    outputs += [value(n, 1, groups, past + 1, head) for n in ("present_k", "present_v")]
    lengths = [
        numpy_helper.from_array(np.array([past], np.int32), "before"),
        numpy_helper.from_array(np.array(past + 1, np.int32), "total"),
    ]
    grouped = op == "GroupQueryAttention"
    names = ["past_k", "past_v", "before", "total"] if grouped else ["", "", "", "past_k", "past_v"]
    attributes = {"num_heads": heads} | ({"kv_num_heads": groups} if grouped else {})
    node = helper.make_node(
        op, ["q", "k", "v", *names], [o.name for o in outputs], domain="com.microsoft", **attributes
    )
    graph = helper.make_graph([node], "fused", inputs, outputs, lengths if grouped else [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "model.onnx")
    report = cimc.check(tmp_path / "model.onnx", cache="resident")
    assert report["passed"]
    run = report["run"]
    assert isinstance(run, dict)
    assert isinstance(run["cache"], dict)
    assert run["cache"]["bytes"] == 2 * groups * (past + 1) * head * (4 if kind == TensorProto.FLOAT else 2)


def test_a_model_without_a_cache_is_told_so(folder: Path) -> None:
    made = compiled(folder, "gpt2", Options("isaac"), "resident", {"batch": 1, "sequence": 4})
    assert made.mapping["cache"] is None
    assert any("no KV cache" in note for note in made.notes)


def test_a_batch_that_streams_keeps_no_cache(folder: Path) -> None:
    with pytest.raises(CimcError, match="streams") as caught:
        cimc.compile(folder / "gpt2-past.onnx", dims=STEP, cache="resident", optimize="throughput")
    assert caught.value.exit is Exit.USAGE


def test_a_search_keeps_caches_in_tiles(folder: Path) -> None:
    made = cimc.compile(folder / "gpt2-past.onnx", dims=STEP, cache="resident", search=3)
    assert any(g.held for g in made.program.globals)
    feeds = sample_inputs(model("gpt2-past"), STEP, seed=2)
    plain = cimc.compile(folder / "gpt2-past.onnx", dims=STEP)
    for a, b in zip(outputs(made, feeds, "integer"), outputs(plain, feeds, "integer"), strict=True):
        np.testing.assert_array_equal(a, b)


def repeats(
    how: str, groups: int, each: int, past: int, head: int
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes that make keys ``K`` and values ``V`` of all heads from ``present_k``, ``present_v``, as exporters spell it."""
    nodes: list[onnx.NodeProto] = []
    arrays = {
        "two": np.array([2]),
        "wide": np.array([1, groups, each, past + 1, head]),
        "heads": np.array([1, groups * each, past + 1, head]),
        "times": np.array([1, 1, each, 1, 1]),
        "over": np.array([1, each, 1, 1]),
        "index": np.arange(groups * each) // each,
        "around": np.arange(groups * each) % groups,
    }
    for present, whole in (("present_k", "K"), ("present_v", "V")):
        if how == "tile blocks":
            nodes.append(helper.make_node("Tile", [present, "over"], [whole]))
        elif how in ("index", "around"):
            nodes.append(helper.make_node("Gather", [present, how], [whole], axis=1))
        else:
            apart, spread = f"{whole}.apart", f"{whole}.spread"
            nodes.append(helper.make_node("Unsqueeze", [present, "two"], [apart]))
            nodes.append(
                helper.make_node("Concat", [apart] * each, [spread], axis=2)
                if how == "stack"
                else helper.make_node(
                    *(("Tile", [apart, "times"]) if how == "tile" else ("Expand", [apart, "wide"])), [spread]
                )
            )
            nodes.append(helper.make_node("Reshape", [spread, "heads"], [whole]))
    used = {name for n in nodes for name in n.input}
    return nodes, {name: a.astype(np.int64) for name, a in arrays.items() if name in used}


@pytest.mark.parametrize("numerics", ["float", "integer"])
@pytest.mark.parametrize("how", ["expand", "tile", "tile blocks", "stack", "index", "around"])
def test_shared_keys_may_be_repeated_in_any_spelling(tmp_path: Path, how: str, numerics: Numerics) -> None:
    groups, each, past, head = 2, 3, 6, 8

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [helper.make_node("Concat", [f"past_{x}", f"new_{x}"], [f"present_{x}"], axis=2) for x in "kv"]
    more, arrays = repeats(how, groups, each, past, head)
    nodes += [
        *more,
        helper.make_node("Transpose", ["K"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "turned"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "V"], ["y"]),
    ]
    inputs = [value("q", 1, groups * each, 1, head)]
    inputs += [value(f"{n}_{x}", 1, groups, rows, head) for x in "kv" for n, rows in (("past", past), ("new", 1))]
    outputs = [value("y", 1, groups * each, 1, head), *(value(f"present_{x}", 1, groups, past + 1, head) for x in "kv")]
    weights = [numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "step", inputs, outputs, weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx"
    )
    report = cimc.check(tmp_path / "model.onnx", cache="resident", numerics=numerics)
    assert report["passed"]
    run = report["run"]
    assert isinstance(run, dict)
    assert isinstance(run["cache"], dict)
    assert run["cache"]["bytes"] == 2 * groups * (past + 1) * head * 4
