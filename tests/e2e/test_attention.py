"""Every treatment of attention, from the model to the run: the program computes what its graph does, on the chip it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cimc import errors
from cimc.codegen.tags import HANDED
from cimc.compiler import Compiled, compile_model
from cimc.ir.evaluate import evaluate
from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.mapping.choices import Choices
from cimc.ops import Arithmetic
from cimc.options import Options
from cimc.report import device_cost
from cimc.session import InferenceSession
from cimc.sim.interpreter import run
from models.graph import save
from models.inputs import sample_inputs
from tests.e2e.workloads import MODELS, model

TOY = ("tiles.all.cores=4096", "tiles.all.local_bytes=1048576", "adc.bits=0")
TOY_OPTIONS = Options("toy", TOY)
WAYS = ("digital", "nvm-write", "decompose", "decompose+nvm-write")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("attention")
    for name in ("bert", "gpt2", "llama"):
        save(model(name), place / f"{name}.onnx")
    return place


def compiled(folder: Path, name: str, options: Options, **dims: int) -> Compiled:
    made = compile_model(folder / f"{name}.onnx", replace(options, dims=dims))
    assert made is not None
    return made


def flat(steps: tuple[Step, ...], times: int = 1) -> list[tuple[Instruction, int]]:
    found: list[tuple[Instruction, int]] = []
    for step in steps:
        if isinstance(step, Repeat):
            assert isinstance(step.count, int)
            found += flat(step.body, times * step.count)
        else:
            found.append((step, times))
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "dims"), [("bert", {"batch": 2, "sequence": 11}), ("gpt2", {"sequence": 19})])
def test_programs_compute_what_their_graphs_do(folder: Path, name: str, dims: dict[str, int], way: str) -> None:
    dims = {"batch": 1, **dims}
    made = compiled(folder, name, replace(TOY_OPTIONS, attention=way), **dims)
    feeds = sample_inputs(model(name), dims, seed=3)
    wanted = evaluate(made.graph, made.constants, feeds, Arithmetic(exact=False))
    session = InferenceSession(made, numerics="integer", timing=False)
    for got, value in zip(session.run(None, feeds), made.graph.outputs, strict=True):
        np.testing.assert_array_equal(got, wanted[value])


@pytest.mark.parametrize("numerics", ["integer", "analog"])
def test_where_the_operands_go_does_not_change_the_bits(folder: Path, numerics: str) -> None:
    """The matmul unit of the toy has 8 bits, its converters lose nothing."""
    feeds = sample_inputs(model("llama"), {"batch": 1, "sequence": 9}, seed=3)
    found = []
    for way in ("digital", "nvm-write"):
        made = compiled(folder, "llama", replace(TOY_OPTIONS, attention=way), batch=1, sequence=9)
        found.append(InferenceSession(made, numerics=numerics, timing=False).run(None, feeds))  # pyright: ignore
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_converter_that_loses_bits_is_seen_by_written_operands_alone(folder: Path) -> None:
    feeds = sample_inputs(model("bert"), {"batch": 1, "sequence": 9}, seed=3)
    coarse = replace(TOY_OPTIONS, overrides=(*TOY[:2], "adc.bits=3"))
    apart = []
    for way in ("digital", "nvm-write"):
        made = compiled(folder, "bert", replace(coarse, attention=way), batch=1, sequence=9)
        apart.append(InferenceSession(made, numerics="analog", timing=False).run(None, feeds)[0])
    assert not np.array_equal(*apart)


def test_cell_writes_and_wear_are_those_of_the_operands(folder: Path) -> None:
    """BERT of two heads of 16 over 9 tokens: kᵀ is 16 × 9, v is 9 × 16, written once for every tile that shares a head."""
    made = compiled(folder, "bert", replace(TOY_OPTIONS, attention="nvm-write"), batch=1, sequence=9)
    core = made.hardware.spec.tiles["all"].core
    assert core is not None
    writes, busiest = 0, 0
    for tile in made.program.tiles:
        shapes = {m.name: m.rows * m.cols for m in tile.matrices if not m.key}
        of_tile = [(str(s.operands[0]), n) for s, n in flat(tile.steps) if s.mnemonic == "program"]
        writes += sum(n * shapes[name] for name, n in of_tile) * core.crossbars * core.verify_iterations
        busiest = max([busiest, *(n * core.verify_iterations for _, n in of_tile)])
    assert writes >= 2 * (16 * 9 + 9 * 16) * core.crossbars * core.verify_iterations
    result = run(made.program, made.weights, made.hardware.spec, values=False)
    assert result.timing is not None
    assert result.timing.actions["cell.write"] == writes
    assert result.timing.macs["dynamic"] == 2 * (9 * 16 * 9) * 2
    times = [device_cost.written_matrices(t.steps) for t in made.program.tiles]
    assert max(n for found in times for n in found.values()) * core.verify_iterations == busiest


def test_the_hybrid_writes_into_sram_or_reram(folder: Path) -> None:
    found = {}
    for way in ("digital", "sram-write", "nvm-write"):
        made = compiled(folder, "bert", Options("hybrid", attention=way), batch=1, sequence=16)
        kinds = {d["unit"] for d in made.mapping["dynamic"]}  # pyright: ignore
        tiles = {made.hardware.spec.kind(d["tile"]) for d in made.mapping["dynamic"]}  # pyright: ignore
        result = run(made.program, {}, made.hardware.spec, values=False)
        assert result.timing is not None
        written = (result.timing.actions.get("cell.write", 0) > 0, result.timing.actions.get("digital.write", 0) > 0)
        found[way] = (kinds, tiles, written)
        (chosen,) = (a["how"] for a in made.mapping["attention"] if a["chosen"])  # pyright: ignore
        assert chosen == way
        assert made.manifest()["options"]["attention"] == way  # pyright: ignore
    assert found == {
        "digital": ({"matmul"}, {"digital"}, (False, False)),
        "sram-write": ({"sram cells"}, {"sram"}, (False, True)),
        "nvm-write": ({"nvm cells"}, {"cim"}, (True, False)),
    }


def test_tiles_that_operands_are_written_into_hold_no_weights(folder: Path) -> None:
    made = compiled(folder, "bert", Options("hybrid", attention="nvm-write"), batch=1, sequence=16)
    kinds = [frozenset(bool(m.key) for m in tile.matrices) for tile in made.program.tiles if tile.matrices]
    assert set(kinds) == {frozenset({True}), frozenset({False})}


CELLS, OPTION = errors.ATTENTION_CELLS, errors.ATTENTION
REFUSED = [
    ("isaac", (), "sram-write", CELLS, "no tile has cores of sram cells"),
    ("isaac", (), "nvm-write", CELLS, "tiles of kind 'cim' have no special unit"),
    ("sram-digital", (), "nvm-write", CELLS, "no tile has cores of nvm cells"),
    ("toy", (*TOY[1:], "tiles.all.cores=3"), "nvm-write", CELLS, "one head take 8 cores of a tile"),
    ("hybrid", (), "sram-write+nvm-write", OPTION, "one place"),
    ("hybrid", (), "rram", OPTION, "there is no 'rram'"),
]


@pytest.mark.parametrize(("hardware", "overrides", "way", "row", "message"), REFUSED)
def test_hardware_that_cannot_is_refused(
    folder: Path, hardware: str, overrides: tuple[str, ...], way: str, row: errors.Diagnostic, message: str
) -> None:
    with pytest.raises(errors.CimcError, match=message) as fault:
        compiled(folder, "bert", Options(hardware, overrides, attention=way), batch=1, sequence=16)
    assert fault.value.diagnostic is row


def test_a_unit_on_the_command_line_makes_it_possible(folder: Path) -> None:
    given = ("cim.special={lanes: 16, startup_cycles: 8}",)
    made = compiled(folder, "bert", Options("isaac", given, attention="nvm-write"), batch=1, sequence=16)
    assert any(not m.key for t in made.program.tiles for m in t.matrices)


def test_a_model_whose_keys_are_cached_is_not_decomposed(tmp_path: Path) -> None:
    save(MODELS["gpt2-past"](), tmp_path / "past.onnx")
    dims = {"batch": 1, "sequence": 1, "past_sequence": 4}
    with pytest.raises(errors.CimcError, match=r"/attn/MatMul_1: concat \(.*\) stands between"):
        compiled(tmp_path, "past", replace(TOY_OPTIONS, attention="decompose"), **dims)


def test_a_pipeline_of_ones_own_says_it_itself(folder: Path) -> None:
    options = replace(TOY_OPTIONS, attention="nvm-write", passes="fold,fuse,fold,classify,quantize,partition")
    with pytest.raises(errors.CimcError, match="pipeline of your own"):
        compiled(folder, "bert", options, batch=1, sequence=4)


@pytest.mark.slow
def test_keys_and_values_beyond_the_local_buffer(tmp_path: Path) -> None:
    """400 keys and values of two heads of 16 need 51 KB at once beside the rows; the tile has 48 KB."""
    from models import small

    whole = small.gpt2(layers=1, hidden=32, heads=2, ffn=64, vocab=50, positions=512)
    save(whole, tmp_path / "long.onnx")
    feeds = sample_inputs(whole, {"batch": 1, "sequence": 400}, seed=1)
    found = []
    for size in (1048576, 49152):
        options = Options("toy", (TOY[0], f"tiles.all.local_bytes={size}", TOY[2]))
        made = compiled(tmp_path, "long", options, batch=1, sequence=400)
        assert any(n.op == "attention" for n in made.graph.nodes) == (size > 49152)
        found.append(InferenceSession(made, timing=False).run(None, feeds)[0])
        wanted = evaluate(made.graph, made.constants, feeds, Arithmetic(exact=False))
        got = InferenceSession(made, numerics="integer", timing=False).run(None, feeds)[0]
        np.testing.assert_array_equal(got, wanted[made.graph.outputs[0]])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-5 * np.abs(found[0]).max())


def test_cells_come_out_otherwise_every_time_they_are_written(folder: Path) -> None:
    """With programming noise, equal rows of a batch differ: their operands are written one after the other."""
    alone = replace(
        TOY_OPTIONS, attention="nvm-write", choices=Choices(replicas=1)
    )  # weights in one place for all rows
    made = compiled(folder, "bert", alone, batch=2, sequence=6)
    assert len([t for t in made.program.tiles if any(not m.key for m in t.matrices)]) == 1
    one = sample_inputs(model("bert"), {"batch": 1, "sequence": 6}, seed=3)
    feeds = {name: np.concatenate([value, value]) for name, value in one.items()}
    quiet = InferenceSession(made, numerics="analog", timing=False, technology="ideal").run(None, feeds)[0]
    noisy = InferenceSession(made, numerics="analog", timing=False, technology="reram").run(None, feeds)[0]
    np.testing.assert_array_equal(quiet[0], quiet[1])
    assert not np.array_equal(noisy[0], noisy[1])


def test_the_estimates_of_each_way_are_the_units_own(folder: Path) -> None:
    """BERT: two heads of 16 over 9 tokens; the toy has no SRAM."""
    made = compiled(folder, "bert", replace(TOY_OPTIONS, attention="nvm-write"), batch=1, sequence=9)
    core = made.hardware.spec.tiles["all"].core
    assert core is not None
    found = {a["how"]: a for a in made.mapping["attention"]}  # pyright: ignore
    assert {a["macs"] for a in found.values()} == {2 * 2 * 9 * 16 * 9}
    assert found["nvm-write"]["cell_writes"] == 2 * 2 * 16 * 9 * core.crossbars * core.verify_iterations
    assert found["digital"]["cell_writes"] == 0
    assert not found["sram-write"]["possible"]
    assert "sram" in str(found["sram-write"]["why"])


def test_what_tiles_share_is_loaded_by_one_and_written_into_several_cores(folder: Path) -> None:
    """Of x, which all heads read, and of v, whose rows' work several tiles share, each byte leaves its home once; on a tile
    with cores to spare, blocks of rows have copies of the operand, and no cell is in two of them."""
    cores = ("tiles.all.cores=4096", "tiles.all.local_bytes=1048576", "adc.bits=0", "layout=4x4")
    made = compiled(folder, "bert", Options("toy", cores, attention="decompose+nvm-write"), batch=1, sequence=32)
    tiles = [t for t in made.program.tiles if any(m.name.startswith("D") for m in t.matrices)]
    assert len(tiles) > 1
    handed = {"send": 0, "recv": 0}
    for tile in tiles:
        written = [m for m in tile.matrices if not m.key]
        held = [b.core for m in written for b in m.blocks]
        assert len(held) == len(set(held))
        assert any(m.name.endswith("c1") for m in written)
        names = {m.name for m in written}
        programmed = {str(s.operands[0]) for s, _ in flat(tile.steps) if s.mnemonic == "program"}
        multiplied = {str(s.operands[1]) for s, _ in flat(tile.steps) if s.mnemonic == "mvm"} & names
        assert programmed == multiplied == names
        for step, _ in flat(tile.steps):
            words = dict(step.keywords)
            if step.mnemonic in handed and words["tag"] == HANDED:
                to = words.get("to", ())
                handed[step.mnemonic] += len(to) if isinstance(to, tuple) and to else 1
    assert handed["send"] == handed["recv"] > 0
