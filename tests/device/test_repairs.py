"""Repairs of stuck cells and of the top slices on a whole model: what they gain, what they cost, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import save_model

from cimc import inputs as input_files
from cimc.arch.load import load
from cimc.arch.units import TileUnits, area_by_part, energy_pj
from cimc.compiler import Compiled, compile_model
from cimc.device import Device, core_shape
from cimc.errors import CimcError, Exit
from cimc.options import Options
from cimc.report.device import error_of
from cimc.report.device_cost import cost
from cimc.sim.interpreter import run
from cimc.sim.result import RunResult
from cimc.sim.tally import Tally
from cimc.sim.values import Analog
from models.small import bert

STUCK = ("stuck_off_rate=0.003", "stuck_on_rate=0.003")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=32, heads=2, vocab=64, positions=16), path)
    return path


def compiled(model: Path, *overrides: str) -> Compiled:
    found = compile_model(model, Options(overrides=overrides, dims={"batch": 1, "sequence": 4}))
    assert found is not None
    return found


def ran(on: Compiled, *settings: str, seed: int = 0) -> tuple[RunResult, Device]:
    chip = on.hardware.spec
    device = Device.of(chip, settings, "ideal")
    feeds = input_files.draw(on.program, 0)
    how = Analog(device, Tally())
    result = run(on.program, on.weights, chip, inputs=feeds, numerics="analog", seed=seed, analog=how)
    return result, device


def exact(on: Compiled) -> Mapping[str, np.ndarray]:
    feeds = input_files.draw(on.program, 0)
    found = run(on.program, on.weights, on.hardware.spec, inputs=feeds, numerics="integer", timing=False)
    assert found.outputs is not None
    return found.outputs


def error(result: RunResult, want: Mapping[str, np.ndarray]) -> float:
    assert result.outputs is not None
    found = [error_of(result.outputs[k], v, v).error for k, v in want.items()]
    return max(f for f in found if f is not None)


def test_remapping_repairs_stuck_cells_and_says_what_it_costs(model: Path) -> None:
    on = compiled(model)
    want = exact(on)
    plain, _ = ran(on, *STUCK)
    placed, device = ran(on, *STUCK, "remap=both")
    again, _ = ran(on, *STUCK, "remap=both")
    assert error(placed, want) < 0.2 * error(plain, want)
    assert all(np.array_equal(again.outputs[k], v) for k, v in placed.outputs.items())
    told = cost(on.program, on.hardware.spec, device, placed, 1.0).repairs
    assert told.faults is not None
    assert told.faults.after < told.faults.before
    before = cost(on.program, on.hardware.spec, device, plain, 1.0).repairs.faults
    assert before is not None
    assert before.before == before.after == pytest.approx(told.faults.before)  # the same faults
    # Index tables by hand: of every block, 7 bits a row and column in use; all are read for every vector.
    blocks = [b for t in on.program.tiles for m in t.matrices for b in m.blocks]
    bits = 7 * sum(b.row_end - b.row + b.col_end - b.col for b in blocks)
    assert told.faults.table_bits == bits
    assert told.faults.table_um2 == pytest.approx(bits / 8192 * on.hardware.spec.costs.area_um2["buffer"])
    assert placed.table_reads == 4 * bits - 3 * 7 * 64  # four tokens; the pooler (32 x 32) sees only the first
    pj = placed.table_reads / 8 * energy_pj(on.hardware.spec, "buffer.read_byte")
    assert told.faults.table_pj == pytest.approx(pj)
    assert plain.table_reads == 0


def test_spare_columns_leave_the_other_faults_and_cost_area(model: Path) -> None:
    plain, spare = compiled(model), compiled(model, "crossbar.spare_cols=16")
    many = ("stuck_off_rate=0.03", "stuck_on_rate=0.03")
    without, _ = ran(plain, *many, "remap=columns")
    placed, device = ran(spare, *many, "remap=columns")
    for name, few in without.faults.items():
        assert placed.faults[name].before == few.before
        assert placed.faults[name].after < few.after
    told = cost(spare.program, spare.hardware.spec, device, placed, 1.0).repairs
    assert told.spare is not None
    assert told.faults is not None
    assert told.faults.spare > 0
    one, other = area_by_part(plain.hardware.spec), area_by_part(spare.hardware.spec)
    assert other["crossbar"] == pytest.approx(one["crossbar"] * 144 / 128)
    assert other["adc"] == one["adc"]
    assert told.spare.um2 == pytest.approx(other["crossbar"] - one["crossbar"])
    step = energy_pj(spare.hardware.spec, "crossbar.step") / energy_pj(plain.hardware.spec, "crossbar.step")
    assert step == pytest.approx(144 / 128)
    # Unused, they change no value.
    assert all(np.array_equal(ran(spare, *many)[0].outputs[k], v) for k, v in ran(plain, *many)[0].outputs.items())


def test_copies_of_the_top_slice_outvote_faults_and_are_counted(model: Path) -> None:
    plain, copied = compiled(model), compiled(model, "core.msb_copies=3")
    want = exact(plain)
    errors = [[error(ran(on, *STUCK, seed=s)[0], want) for s in range(3)] for on in (plain, copied)]
    assert np.mean(errors[1]) < 0.7 * np.mean(errors[0])
    result, device = ran(copied, *STUCK)
    told = cost(copied.program, copied.hardware.spec, device, result, 1.0)
    base = cost(plain.program, plain.hardware.spec, device, ran(plain)[0], 1.0)
    assert told.cells == base.cells * 6 // 4
    assert told.conversions == base.conversions * 6 // 4
    assert result.timing is not None
    assert told.conversions == result.timing.actions["adc.convert"]
    assert told.repairs.copies is not None
    assert told.repairs.copies.cells == told.cells - base.cells
    assert told.repairs.copies.conversions == told.conversions - base.conversions
    core = copied.hardware.spec.tiles["cim"].core
    assert core is not None
    assert (core.slices, core.converted_slices, core.crossbars, core.adcs) == (4, 6, 6, 6)
    units = [TileUnits(c.hardware.spec, 0).mvm_actions([(128, 128)], 1, 8) for c in (plain, copied)]
    assert units[1]["adc.convert"] == units[0]["adc.convert"] * 6 // 4
    static = copied.mapping["static"]
    assert isinstance(static, list)
    assert "mm2" in str(told.repairs.blocks())


def test_a_measured_map_is_used_core_by_core(model: Path, tmp_path: Path) -> None:
    on = compiled(model)
    core = on.hardware.spec.tiles["cim"].core
    assert core is not None
    used = {(t.tile, b.core) for t in on.program.tiles for m in t.matrices for b in m.blocks}
    path = tmp_path / "map.npz"
    shape = core_shape(core).map
    np.savez(path, default=np.zeros(shape, np.int8))
    assert error(ran(on, f"stuck_map={path}")[0], exact(on)) == 0
    tile, number = min(used)
    np.savez(path, **{f"tile{tile}.core{number}": np.full(shape, 1, np.int8)})
    assert error(ran(on, f"stuck_map={path}")[0], exact(on)) > 0
    np.savez(path, **{"tile9999.core0": np.zeros(shape, np.int8)})
    with pytest.raises(CimcError, match=r"device\.stuck_map"):
        ran(on, f"stuck_map={path}")
    np.savez(path, default=np.zeros((1, 4, 128, 127), np.int8))
    with pytest.raises(CimcError, match=r"device\.stuck_map"):
        ran(on, f"stuck_map={path}")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["remap=both"], "device.remap"),
        (["remap=diagonal", "stuck_on_rate=0.1"], "device.remap"),
        (["remap=both", "stuck_on_rate=0.1", "wire_ohm=1"], "device.remap"),
        (["stuck_map=no-such.npz"], "device.stuck_map"),
        (["stuck_map=no-such.npz", "stuck_on_rate=0.1"], "device.stuck_map"),
        (["faults=off", "stuck_map=no-such.npz"], "device.faults"),
    ],
)
def test_contradictions_are_refused_before_anything_runs(settings: list[str], key: str) -> None:
    with pytest.raises(CimcError) as caught:
        Device.of(load("isaac").spec, settings)
    assert caught.value.exit is Exit.USAGE
    assert f"'{key}'" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("core.msb_copies=2", "msb_copies"),
        ("core.msb_copies=0", "msb_copies"),
        ("core.msb_slices=9", "msb_slices"),
        ("core.msb_combine=mode", "msb_combine"),
        ("crossbar.spare_cols=-1", "spare_cols"),
    ],
)
def test_impossible_hardware_is_refused(override: str, key: str) -> None:
    with pytest.raises(CimcError, match=key):
        load("isaac", (override,))
    assert load("isaac", ("core.msb_copies=2", "core.msb_combine=mean")).spec.tiles["cim"].core is not None


def test_a_digital_core_has_nothing_to_repair() -> None:
    for override in ("msb_copies=3", "spare_cols=2"):
        with pytest.raises(CimcError, match="digital"):
            load("sram-digital", (f"core.{override}" if "msb" in override else f"crossbar.{override}",))
