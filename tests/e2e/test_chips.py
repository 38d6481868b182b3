"""A model on several chips: the smallest number that holds it, the same answers, and what the way between them costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cimc import errors
from cimc.checker import Checked, CheckOptions, check_model
from cimc.compiler import compile_model
from cimc.options import Options
from cimc.sim.timing import run_timing
from models import small
from models.graph import save

DIMS = {"batch": 1, "sequence": 8}
HARDWARE = "extends: isaac\nname: {name}\nlayout: [{layout}]\ntiles: {{cim: {{cores: 1}}}}\n"
ROWS = ("CICC", "CDCC", "CDCC")  # nine cores; the model has 13 matrices


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chips")
    save(small.bert(layers=2, hidden=32, heads=2, ffn=64, vocab=50, positions=32), made / "bert.onnx")
    for name, times in (("small", 1), ("twice", 2)):
        text = HARDWARE.format(name=name, layout=", ".join(row * times for row in ROWS))
        (made / f"{name}.yaml").write_text(text)
    return made


def checked(folder: Path, hardware: str, numerics, **options) -> Checked:
    chosen = Options(hardware=str(folder / hardware), dims=DIMS, **options)
    return check_model(str(folder / "bert.onnx"), chosen, CheckOptions(numerics=numerics))


def test_one_chip_is_too_small_and_auto_takes_two(folder: Path) -> None:
    with pytest.raises(errors.CimcError, match="needs 13 cores of 128×128 weights, small has 9: 4 short") as caught:
        compile_model(folder / "bert.onnx", Options(hardware=str(folder / "small.yaml"), dims=DIMS))
    assert "--chips auto" in caught.value.hint
    options = Options(hardware=str(folder / "small.yaml"), dims=DIMS, auto_chips=True)
    made = compile_model(folder / "bert.onnx", options)
    assert made is not None
    assert made.hardware.spec.chips == 2
    assert made.options.overrides == ("chips=2",)  # the compile can be repeated
    assert "chips: 2, as few as the model fits on" in made.notes
    mapping = made.mapping
    assert mapping["chips"] == 2
    places = [(t["chip"], t["x"], t["y"]) for t in mapping["tiles"]]  # pyright: ignore
    assert sorted(places) == [(c, x, y) for c in range(2) for x in range(4) for y in range(3)]
    held = {b["tile"] % 8 // 4 for m in mapping["static"] for b in m["blocks"]}  # pyright: ignore
    assert held == {0, 1}


@pytest.mark.parametrize("numerics", ["float", "integer"])
def test_two_chips_compute_what_one_of_twice_the_size_does_and_pay_for_the_way(folder: Path, numerics) -> None:
    two = checked(folder, "small.yaml", numerics, auto_chips=True)
    one = checked(folder, "twice.yaml", numerics)
    assert two.report.passed  # float: onnxruntime's values
    assert two.result.outputs is not None
    assert one.result.outputs is not None
    for name, values in one.result.outputs.items():
        np.testing.assert_array_equal(two.result.outputs[name], values)
    slow = two.result.timing
    assert slow is not None
    crossed = slow.actions["link.byte"]
    assert crossed > 0
    assert slow.energy_pj["link"] == pytest.approx(406.25 * crossed)
    assert slow.traffic_bytes["chip_links"] == crossed

    assert one.result.timing is not None
    assert "link" not in one.result.timing.energy_pj
    assert slow.bound.cycles <= slow.cycles
    assert two.compiled.hardware.spec.tile_count == one.compiled.hardware.spec.tile_count


def test_a_program_on_two_chips_waits_for_the_link_between_them(folder: Path) -> None:
    """The same program, as the compiler places values elsewhere on a single chip."""
    made = compile_model(folder / "bert.onnx", Options(str(folder / "small.yaml"), dims=DIMS, auto_chips=True))
    spec = made.hardware.spec
    assert spec.link is not None
    wide = {"bytes_per_cycle": spec.noc.link_bytes_per_cycle, "latency_cycles": spec.noc.router_cycles}
    near = spec.model_copy(update={"link": spec.link.model_copy(update=wide)})
    slow, fast = (run_timing(made.program, chip).cycles for chip in (spec, near))
    assert slow > fast


def test_what_fits_on_one_of_two_chips_stays_there(folder: Path) -> None:
    got = check_model(str(folder / "bert.onnx"), Options("isaac", ("chips=2",), DIMS), CheckOptions(numerics="integer"))
    alone = check_model(str(folder / "bert.onnx"), Options("isaac", (), DIMS), CheckOptions(numerics="integer"))
    assert got.result.timing is not None
    assert alone.result.timing is not None
    assert "link.byte" not in got.result.timing.actions
    assert got.result.timing.actions == alone.result.timing.actions
    assert got.result.timing.cycles == alone.result.timing.cycles
    assert got.result.timing.energy_pj["leakage"] == pytest.approx(2 * alone.result.timing.energy_pj["leakage"])


def test_the_tiles_there_may_be_end_the_search(folder: Path) -> None:
    # 3 chips of 128 x 128 tiles are 49152; a fourth makes 65536, a fifth would be too many
    wide = ", ".join(["I" + "D" * 127] + ["D" * 128] * 126 + ["C" + "D" * 127])
    (folder / "wide.yaml").write_text(HARDWARE.format(name="wide", layout=wide))
    options = Options(hardware=str(folder / "wide.yaml"), dims=DIMS, auto_chips=True)
    with pytest.raises(errors.CimcError, match="wide on 4 chips has 4: 9 short"):
        compile_model(folder / "bert.onnx", options)
