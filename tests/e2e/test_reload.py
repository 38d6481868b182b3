"""A model with more weights than cells: weights that take turns compute what a larger chip does; what it costs by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cimc
from cimc import errors, inputs
from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, compile_model
from cimc.isa.reloads import reloading, without_reloads
from cimc.isa.text import parse_program, print_program
from cimc.isa.verify import verify
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.report.figures import from_result
from cimc.report.reload import covered, with_reload
from cimc.report.units import YEAR
from cimc.sim.interpreter import run
from cimc.sim.reference import Reference
from cimc.sim.timing import run_timing
from models import small
from models.graph import save
from tests.cli.command import Cimc

DIMS = {"batch": 1, "sequence": 8}
LONG = {"batch": 1, "sequence": 32}
HARDWARE = "extends: isaac\nname: {name}\nlayout: [{layout}]\ntiles: {{cim: {{cores: {cores}}}}}\n"
ROWS = ("CICC", "CDCC", "CDCC")  # nine cores a chip with one core a tile; the model has 13 matrices
RELOAD = Choices(reload=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("reload")
    save(small.bert(layers=2, hidden=32, heads=2, ffn=64, vocab=50, positions=32), made / "bert.onnx")
    save(small.bert(layers=2, hidden=192, heads=4, ffn=300, vocab=50, positions=32), made / "wide.onnx")
    for name, times, cores in (("small", 1, 1), ("twice", 2, 1), ("blocks", 1, 4), ("many", 2, 16)):
        text = HARDWARE.format(name=name, layout=", ".join(row * times for row in ROWS), cores=cores)
        (made / f"{name}.yaml").write_text(text)
    link = "link: {bytes_per_cycle: 25.6, latency_cycles: 50}\ncosts: {energy_pj: {link.byte: 100.0}}\n"
    for name, layout in (("few", "DICI, CDDD, CDCD"), ("one", "CI, DD"), ("roomy", "CICDDD, CCCDDD, CCCDDD, DDDDDD")):
        (made / f"{name}.yaml").write_text(HARDWARE.format(name=name, layout=layout, cores=1) + link)
    return made


def compiled(folder: Path, hardware: str, model: str = "bert", **options) -> Compiled:
    chosen = Options(hardware=str(folder / f"{hardware}.yaml"), **{"dims": DIMS, **options})
    made = compile_model(folder / f"{model}.onnx", chosen)
    assert made is not None
    return made


def outputs(made: Compiled, numerics, seed: int = 0) -> dict[str, np.ndarray]:
    feeds = inputs.draw(made.program, 0, made.tokens)
    found = run(
        made.program, made.weights, made.hardware.spec, inputs=feeds, numerics=numerics, seed=seed, timing=False
    )
    assert found.outputs is not None
    return dict(found.outputs)


def test_refused_unless_asked_for_and_the_refusal_names_both_ways(folder: Path) -> None:
    with pytest.raises(errors.CimcError, match="needs 13 cores of 128×128 weights, small has 9: 4 short") as caught:
        compiled(folder, "small")
    assert "--reload on" in caught.value.hint
    assert "--chips auto" in caught.value.hint


@pytest.mark.parametrize(("model", "hardware", "larger"), [("bert", "small", "twice"), ("wide", "blocks", "many")])
def test_it_computes_bit_for_bit_what_a_larger_chip_does(folder: Path, model: str, hardware: str, larger: str) -> None:
    """``wide`` has matrices of several blocks, the last ones of fewer rows and columns."""
    small_one = compiled(folder, hardware, model, choices=RELOAD)
    large_one = compiled(folder, larger, model)
    assert small_one.mapping["fit"]["choice"] == "reload"  # pyright: ignore
    assert large_one.mapping["fit"]["choice"] == "resident"  # pyright: ignore
    mine, other = outputs(small_one, "integer"), outputs(large_one, "integer")
    assert all(np.array_equal(mine[name], other[name]) for name in other)
    # In float32, sums depend on how many blocks of a column are on one tile.
    mine, other = outputs(small_one, "float"), outputs(large_one, "float")
    assert all(np.allclose(mine[name], other[name], rtol=0, atol=1e-5 * np.abs(other[name]).max()) for name in other)


@pytest.mark.parametrize("chips", [1, 2])
@pytest.mark.parametrize("hardware", ["one", "few"])
def test_layers_larger_than_the_chip_turn_in_pieces(folder: Path, hardware: str, chips: int) -> None:
    """A chip of a single core takes all 60 blocks one after the other; several chips share them."""
    small_one = compiled(folder, hardware, "wide", choices=RELOAD, overrides=(f"chips={chips}",))
    verify(small_one.program, small_one.hardware.spec, small_one.weights)
    fit = small_one.mapping["fit"]
    assert fit["choice"] == "reload"  # pyright: ignore
    assert fit["cores_needed"] == 60  # pyright: ignore
    mine, other = outputs(small_one, "integer"), outputs(compiled(folder, "many", "wide"), "integer")
    assert all(np.array_equal(mine[name], other[name]) for name in other)


def test_copies_share_the_rows_where_writing_is_cheap_and_products_are_slow(folder: Path) -> None:
    """Two copies of all weights are written; they do the rows in fewer cycles, and the same outputs come out."""
    fast = ("tiles.cim.core.write_row_ns=1", "tiles.cim.core.step_ns=4000")
    one, several = (
        compiled(folder, "roomy", choices=replace(RELOAD, replicas=n), overrides=fast, dims=LONG) for n in (1, None)
    )
    assert max(_copies(several)) > 1
    assert max(_copies(one)) == 1
    late, soon = (run_timing(m.program, m.hardware.spec).cycles for m in (one, several))
    assert soon < 0.8 * late
    verify(several.program, several.hardware.spec, several.weights)
    mine, other = outputs(several, "integer"), outputs(one, "integer")
    assert all(np.array_equal(mine[name], other[name]) for name in other)


def _copies(made: Compiled) -> list[int]:
    """Of each weight, the copies that the program declares."""
    found: dict[str, set[str]] = {}
    for tile in made.program.tiles:
        for matrix in tile.matrices:
            found.setdefault(matrix.key, set()).add(matrix.name.split("_")[2])
    return [len(replicas) for replicas in found.values()]


def test_the_ladder_holds_and_the_text_is_the_program(folder: Path) -> None:
    options = Options(hardware=str(folder / "small.yaml"), dims=DIMS, choices=RELOAD)
    checked = check_model(str(folder / "bert.onnx"), options, CheckOptions(numerics="float"))
    assert checked.report.passed  # onnxruntime's values
    assert checked.report.run.reload is not None
    made = compiled(folder, "small", choices=RELOAD)
    again = parse_program(print_program(made.program))
    assert again == made.program
    verify(again, made.hardware.spec, made.weights)


def test_both_timing_engines_agree_and_the_bound_holds(folder: Path) -> None:
    made = compiled(folder, "small", choices=RELOAD)
    for program in (made.program, without_reloads(made.program)):
        found = run_timing(program, made.hardware.spec)
        assert Reference(program, made.hardware.spec).run() == found.cycles
        assert found.bound.cycles <= found.cycles


def test_costs_by_hand(folder: Path) -> None:
    """Every matrix that turns is written once: its weights, in four 2-bit cells each (isaac), one pulse a cell."""
    made = compiled(folder, "small", choices=RELOAD)
    turning = [m for t in made.program.tiles for m in t.matrices if m.name in reloading(t)[0]]
    weights = sum(m.rows * m.cols for m in turning)
    assert weights > 0
    spec = made.hardware.spec
    result = run(made.program, {}, spec, values=False)
    figures = with_reload(from_result(result), made.program, result.timing, spec, rate=4.0).reload
    assert figures is not None
    assert figures.matrices == len(turning)
    assert (figures.bytes, figures.cell_writes) == (weights, 4 * weights)
    assert figures.energy_pj["writing"] == pytest.approx(4 * weights * 1.29)
    cores = [(t.tile, b.core) for t in made.program.tiles for m in t.matrices if m in turning for b in m.blocks]
    most = max(cores.count(c) for c in cores)
    assert (figures.cores, figures.writes_per_cell) == (len(set(cores)), most)
    assert most > 1
    assert figures.endurance_writes is not None
    assert figures.years_to_wear_out is not None
    assert figures.years_to_wear_out[0] == pytest.approx(figures.endurance_writes[0] / (4.0 * most) / YEAR)
    fit = made.mapping["fit"]["reload"]  # pyright: ignore
    assert (fit["weights"], fit["cell_writes"], fit["rounds"]) == (weights, 4 * weights, most)  # pyright: ignore
    plain = run_timing(without_reloads(made.program), spec)
    assert result.timing is not None
    assert figures.exposed_cycles == result.timing.cycles - plain.cycles
    # A row takes 85.7 ns; a matrix of 64 rows cannot be written in less.
    assert figures.writing_cycles >= spec.cycles(64 * 85.7)


def test_a_matrix_in_parts_on_several_tiles_is_one(folder: Path) -> None:
    made = compiled(folder, "blocks", "wide", choices=RELOAD)
    parts = sum(len(reloading(t)[0]) for t in made.program.tiles)
    spec = made.hardware.spec
    result = run(made.program, {}, spec, values=False)
    figures = with_reload(from_result(result), made.program, result.timing, spec).reload
    assert figures is not None
    assert figures.matrices == made.mapping["fit"]["reload"]["matrices"] < parts  # pyright: ignore


def test_cycles_covered_by_spans() -> None:
    assert covered([(5, 9), (0, 3), (2, 4), (6, 7)]) == 8


def test_slow_cells_cost_time_and_fast_ones_hide(folder: Path) -> None:
    slow, fast = (
        compiled(folder, "small", choices=RELOAD, overrides=(f"tiles.cim.core.write_row_ns={ns}",)) for ns in (20000, 1)
    )
    late, soon = (run_timing(m.program, m.hardware.spec).cycles for m in (slow, fast))
    assert late > soon + slow.hardware.spec.cycles(2 * 32 * 20000) - slow.hardware.spec.cycles(32 * 20000)


def test_a_larger_pool_writes_more(folder: Path) -> None:
    small_pool, large_pool = (
        compiled(folder, "small", choices=replace(RELOAD, pool=n)).mapping["fit"]["reload"]  # pyright: ignore
        for n in (6, 9)
    )
    assert small_pool["pool_cores"] == 6  # pyright: ignore
    assert large_pool["cell_writes"] > small_pool["cell_writes"]  # pyright: ignore
    assert large_pool["rounds"] <= small_pool["rounds"]  # pyright: ignore
    with pytest.raises(errors.CimcError, match="do not fit into so few cores"):
        compiled(folder, "small", choices=replace(RELOAD, pool=1))


def test_analog_cells_have_noise_of_their_own_for_every_writing(folder: Path) -> None:
    """Same seed, same outputs; and not those of another seed."""
    made = compiled(folder, "small", choices=RELOAD, overrides=("technology=reram",))
    one, two, other = (outputs(made, "analog", seed) for seed in (0, 0, 1))
    assert all(np.array_equal(one[n], two[n]) for n in one)
    assert any(not np.array_equal(one[n], other[n]) for n in one)


def test_what_fits_stays(folder: Path) -> None:
    plain, asked = compiled(folder, "twice"), compiled(folder, "twice", choices=RELOAD)
    assert plain.program == replace(asked.program, header=plain.program.header)  # that one names the passes
    assert any(note.startswith("reload: not needed") for note in asked.notes)


def test_bad_hardware_is_refused_with_what_helps(folder: Path) -> None:
    with pytest.raises(errors.CimcError, match="no write_row_ns in its hardware file") as caught:
        compiled(folder, "small", choices=RELOAD, overrides=("tiles.cim.core.write_row_ns=0",))
    assert (caught.value.code, caught.value.exit) == ("reload-hardware", 2)
    own = "integers,fold,fuse,sink,fold,classify,dce,quantize,partition"
    with pytest.raises(errors.CimcError, match="alone needs 6 cores at the same time, few has 4") as caught:
        compiled(folder, "few", "wide", choices=RELOAD, passes=own)
    assert (caught.value.code, caught.value.exit) == ("reload-too-large", 3)
    assert "--chips auto" in caught.value.hint
    assert "split{cores=4}" in caught.value.hint
    compiled(folder, "few", "wide", choices=RELOAD, passes=f"{own},split{{cores=4}}")


def test_the_commands(folder: Path, cimc_command: Cimc, tmp_path: Path) -> None:
    made = tmp_path / "made"
    options = ("--hw", str(folder / "small.yaml"), "--dim", "batch=1", "--dim", "sequence=8", "--reload", "on")
    code, _, said = cimc_command("compile", str(folder / "bert.onnx"), "-o", str(made), *options)
    assert code == 0
    assert "take turns on" in said
    assert "--chips 2" in said
    code, told, _ = cimc_command("run", str(made), "--no-values", "--rate", "10", "--json", "-")
    assert code == 0
    reload = json.loads(told)["reload"]
    assert reload["inferences_per_second"] == 10
    assert 0 <= reload["hidden"] <= 1
    code, text, _ = cimc_command("run", str(made), "--no-values")
    assert "of it is hidden" in text
    code, _, said = cimc_command("compile", str(folder / "bert.onnx"), "-o", str(made), *options, "--chips", "auto")
    assert code == 2
    assert "give one" in said
    program = cimc.compile(folder / "bert.onnx", hardware=str(folder / "small.yaml"), dims=DIMS, reload=True)
    assert program.mapping["fit"]["choice"] == "reload"  # pyright: ignore
