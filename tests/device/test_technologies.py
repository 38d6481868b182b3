"""A transformer block on each technology preset of the common floorplan, and a core's design choices side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx import save_model

import cimc
from cimc import tradeoff
from cimc.analog.calibrate import calibrate_range
from cimc.arch import units
from cimc.arch.load import load
from cimc.device import Device
from cimc.errors import CimcError
from cimc.sim.analog import InputKind, config, converter
from cimc.tradeoff import Choices
from models.small import bert
from tests.cli.command import Cimc
from tests.report.test_run_report import validate

PRESETS = ("sram", "sram-dcim", "reram", "pcm", "fefet", "mram")


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=64, heads=2, vocab=64, positions=16), path)
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_a_block_on_each(block: Path, preset: str) -> None:
    """Fresh cells: as good as integer numerics where rounding takes the spread off, still the model's answer for PCM."""
    dims = {"batch": 1, "sequence": 8}
    found = cimc.check(block, hardware=preset, dims=dims, numerics="analog", timing=preset in ("sram", "pcm"))
    validate(found, "check")
    exact = cimc.check(block, hardware=preset, dims=dims, numerics="integer", timing=False)
    pairs = list(zip(found["outputs"], exact["outputs"], strict=True))  # pyright: ignore[reportArgumentType]
    for got, want in pairs:
        near = got["cosine_similarity"] - want["cosine_similarity"]  # pyright: ignore[reportArgumentType, reportIndexIssue, reportOperatorIssue, reportCallIssue]
        assert abs(near) < (0.15 if preset == "pcm" else 1e-3)


@pytest.mark.parametrize("preset", PRESETS[1:])
def test_the_floorplan_is_common(preset: str) -> None:
    """Only cores and what cells cost differ."""
    base, other = load("sram").spec, load(preset).spec
    assert other.layout == base.layout
    assert (other.noc, other.memory, other.host, other.clock_ghz) == (base.noc, base.memory, base.host, base.clock_ghz)
    for kind, tile in base.tiles.items():
        assert other.tiles[kind].model_copy(update={"core": None}) == tile.model_copy(update={"core": None})
    ours, theirs = (c.tiles["cim"].core for c in (base, other))
    assert ours is not None
    assert theirs is not None
    assert (theirs.rows, theirs.cols, theirs.weight_bits) == (ours.rows, ours.cols, ours.weight_bits)
    own = {"crossbar.step@128x128", "cell.write"}
    assert {k: v for k, v in other.costs.energy_pj.items() if k not in own} == {
        k: v for k, v in base.costs.energy_pj.items() if k not in own
    }


def test_the_converter_follows_the_on_off_ratio() -> None:
    """Two levels of MRAM are half a Gmax apart: a step is half a level, and pairs lose nothing."""
    chip = load("mram").spec
    core = chip.tiles["cim"].core
    assert core is not None
    assert converter(core, 4, leak=0.5)["lsb_units"] == 0.5
    assert converter(core, 4)["lsb_units"] == 1
    still = Device.of(chip).only(("adc", "on_off"))
    for encoding, bits in (("differential", 4), ("offset", 5)):
        with_leak = core.model_copy(update={"encoding": encoding, "adc": core.adc.model_copy(update={"bits": bits})})  # pyright: ignore[reportOptionalMemberAccess]
        assert tradeoff._error(with_leak, still, 0)[0] < 1e-12  # pyright: ignore[reportPrivateUsage]
    physics = config(core, still, InputKind())
    fitted = calibrate_range(tradeoff._codes((64, 8), 30, 0), physics, tradeoff._codes((4, 64), 20, 1))  # pyright: ignore[reportPrivateUsage]
    assert fitted.adc is not None
    assert fitted.adc.lsb_units == 0.5


def test_choices_by_hand() -> None:
    """1-bit pairs of 128 rows: 7 slices, 8 steps, one conversion a column and step."""
    choices = Choices(("differential",), (1,), (128, 32), (0, 6))
    wide, wide6, narrow = tradeoff.variants("fefet", (), choices)
    assert (wide.adc_bits, wide6.adc_bits, narrow.adc_bits) == (8, 6, 6)
    assert (wide.cells, wide.conversions, narrow.conversions) == (14, 7 * 8 / 128, 4 * 7 * 8 / 128)
    assert narrow.error < wide.error < wide6.error
    chip = load("fefet", ("active_rows=128", "adc.bits=8")).spec
    actions = units.TileUnits(chip, 0).mvm_actions([(128, 128)], 1, 8)
    spent = {a: n * units.energy_pj(chip, a) for a, n in actions.items()}
    assert wide.energy_fj == pytest.approx(1000 * sum(spent.values()) / 128**2)
    assert wide.adc_share == pytest.approx(spent["adc.convert"] / sum(spent.values()))
    assert wide.row_ns == units.mvm_interval_ns(chip.tiles["cim"].core, 8)  # pyright: ignore[reportArgumentType]
    assert not any(v.chosen for v in (wide, wide6, narrow))


def test_whole_levels_without_noise_err_by_nothing() -> None:
    quiet = Device.of(load("reram").spec, (), "ideal")
    found = tradeoff.variants("reram", (), Choices(cell_bits=(1, 2), active_rows=(64, 16), adc_bits=(0,)), quiet)
    assert len(found) == 8
    assert all(v.error == 0 for v in found if v.saturated == 0)


def test_trade_on_the_command_line(cimc_command: Cimc) -> None:
    arguments = ("hw", "trade", "reram", "--cell-bits", "1", "--rows", "128,16", "--time", "1d")
    done = cimc_command(*arguments, "--json", "-")
    found = json.loads(done.out)
    validate(found, "trade")
    assert (found["seconds"], found["technology"]) == (86400.0, "reram")
    assert sum(v["chosen"] for v in found["variants"]) == 1
    text = cimc_command(*arguments).out
    assert "least energy" in text
    assert len([line for line in text.splitlines() if "differential " in line]) >= 3


def test_devices_side_by_side_buy_accuracy_with_cells_alone() -> None:
    """Independent errors shrink with the root of the devices; conversions and time stay."""
    choices = Choices(("differential",), (7,), (128,), (10,), (1, 4))
    device = Device.of(load("pcm").spec, (), None, 86400.0)
    one, four = tradeoff.variants("pcm", (), choices, device, range(3))
    assert (one.devices, one.cells, one.chosen) == (1, 2, True)
    assert (four.devices, four.cells, four.chosen) == (4, 8, False)
    assert four.error == pytest.approx(one.error / 2, rel=0.15)
    assert (four.conversions, four.row_ns) == (one.conversions, one.row_ns)
    assert one.energy_fj < four.energy_fj < 4 * one.energy_fj
    assert one.area_um2 < four.area_um2 < 4 * one.area_um2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sram-dcim",), "no analog core"),
        (("reram", "--rows", "x"), "no list of whole numbers"),
        (("reram", "--devices", "two"), "no list of whole numbers"),
        (("reram", "--devices", "17"), "outside 1..16"),
        (("reram", "--encoding", "ternary"), "no 'ternary'"),
        (("reram", "--rows", "999"), "costs for none"),
        (("reram", "--rows", ",".join(map(str, range(1, 120)))), "at most 400"),
        (("reram", "--technology", "rram9"), "unknown"),
    ],
)
def test_bad_choices(cimc_command: Cimc, arguments: tuple[str, ...], words: str) -> None:
    done = cimc_command("hw", "trade", *arguments)
    assert done.exit == 2
    assert words in done.err


def test_the_energy_of_converters_can_be_chosen() -> None:
    """A table from ISAAC and a regression over published ADCs: alike at 8 bits, six times apart at 10."""
    by_bits = {}
    for bits in (8, 9, 10):
        chips = [load("sram", (f"adc.bits={bits}", f"adc_model={m}")).spec for m in ("table", "regression")]
        by_bits[bits] = tuple(units.energy_pj(chip, "adc.convert") for chip in chips)
    assert by_bits == {8: (1.5625, 1.71), 9: (1.846875, 4.70), 10: (2.23125, 13.9)}
    chip = load("sram", ("adc.bits=7", "adc_model=regression")).spec
    assert units.energy_pj(chip, "adc.convert") == pytest.approx((1.07 * 1.71) ** 0.5)
    areas = [units.area_by_part(load("sram", (f"adc_model={m}",)).spec)["adc"] for m in ("table", "regression")]
    assert areas[1] / areas[0] == pytest.approx(5972 / 1200)
    with pytest.raises(CimcError, match="12 bits"):
        load("sram", ("adc.bits=13", "adc_model=regression"))
