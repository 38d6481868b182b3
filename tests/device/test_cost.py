"""Cells, writes and wear by hand on the tiny chip; the same through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import save_model

from cimc.device import Device
from cimc.isa.operands import Element
from cimc.isa.program import GlobalBuffer
from cimc.report import units
from cimc.report.device import error_of, spread
from cimc.report.device_cost import Wear, cost
from cimc.sim.interpreter import run
from cimc.sim.values import Analog
from models.small import bert
from tests.cli.command import Cimc
from tests.sim.chips import buffers, chip, do, matrix, program, repeat, tile, view

YEAR = 365 * 86400


def test_cells_and_writes_by_hand() -> None:
    """Two 8 x 8 matrices of four 2-bit cells a weight; one is rewritten three times a run."""
    local = buffers(("x", Element.Q8, (1, 8)), ("acc", Element.I32, (1, 8)), ("codes", Element.Q8, (8, 8)))
    work = tile(
        0,
        do("load", view("x", 1, 8), view("ids", 1, 8)),
        repeat("i", 3, do("program", "B", view("codes", 8, 8))),
        do("mvm", view("acc", 1, 8), "A", view("x", 1, 8), accumulate=0),
        do("mvm", view("acc", 1, 8), "B", view("x", 1, 8), accumulate=1),
        do("store", view("y", 1, 8), view("acc", 1, 8)),
        buffers=local,
        matrices=(matrix("A", 8, 8, "w", 0), matrix("B", 8, 8, "", 1)),
    )
    parts = program(
        work,
        globals=(GlobalBuffer("ids", Element.Q8, (1, 8)), GlobalBuffer("y", Element.I32, (1, 8))),
        inputs=("ids",),
        outputs=("y",),
    )
    spec = chip(adc_bits=8)
    device = Device.of(spec, tech="mram")
    codes = np.arange(64, dtype=np.int8).reshape(8, 8)
    x = np.ones((1, 8), np.int8)
    result = run(parts, {"w": codes}, spec, inputs={"ids": x}, numerics="analog", analog=Analog(device))
    found = cost(parts, spec, device, result, rate=10.0)
    assert found.cells == 2 * 64 * 4
    assert found.wear.programming == 64 * 4  # B holds no weights
    assert (found.wear.inference, found.wear.busiest, found.wear.sram) == (3 * 64 * 4, 3, 0)
    assert found.wear.tokens == 8
    assert found.wear.per_token == 3 * 64 * 4 / 8
    # 8 input steps, 4 slices, 8 columns, 2 matrices
    assert found.conversions == 8 * 4 * 8 * 2
    assert {x.name: (x.conversions, x.cells) for x in found.layers} == {"w": (256, 256), "written operands": (256, 256)}
    # 3 writes a cell and run, 10 runs a second: 1e6 writes last 1e6 / 30 seconds
    assert found.wear.years(1e6) == pytest.approx(1e6 / 30 / YEAR)
    assert found.adc_energy is not None
    assert result.timing is not None
    assert found.adc_energy == pytest.approx(512 * 2.0 / sum(result.timing.energy_pj.values()))
    told = found.to_json()
    assert told["adc_conversions"] == 512
    json.dumps(told, allow_nan=False)


def test_weights_that_stay_never_wear_out() -> None:
    assert Wear(100, 0, 0, 0, None, 1.0, None).years(1e5) is None
    assert Wear(100, 0, 0, 0, None, 1.0, None).per_token is None


def test_spread_and_errors_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0, None])
    assert found is not None
    assert (found.mean, found.std, found.low, found.high) == (2.0, 1.0, 1.0, 3.0)
    assert spread([]) is None
    error = error_of(np.array([3.0, 5.0]), np.array([3.0, 4.0]), np.array([3.0, 3.0]))
    assert error.error == pytest.approx(1 / 5)
    assert error.added == pytest.approx(2 / 5)
    assert error.cosine == pytest.approx(29 / (5 * 34**0.5))
    nothing = error_of(np.ones(2), np.zeros(2), np.zeros(2))
    assert (nothing.error, nothing.cosine) == (None, None)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (90, "1.5 min"), (86400, "1 d"), (2592000, "1 mo")])
def test_ages(seconds: float, text: str) -> None:
    assert units.age(seconds) == text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=16, heads=2, vocab=32, positions=8), path)
    return str(path)


def test_check_tells_the_device_in_json(cimc_command: Cimc, model: str) -> None:
    options = ("--numerics", "analog", "--technology", "pcm", "--time", "1h,1d", "--attribute", "--trials", "2")
    code, out, _ = cimc_command(
        "check", model, "--dim", "sequence=4", "--seed", "5", *options, "--rate", "50", "--json", "-"
    )
    found = json.loads(out)["device"]
    assert code in (0, 1)
    assert next(s["effect"] for s in found["attribution"]) == "quantization"
    assert found["trials"]["seeds"] == [5, 6]
    assert [m["seconds"] for m in found["over_time"]] == [3600, 86400]
    assert (found["seconds"], found["wear"]["inferences_per_second"]) == (3600, 50)
    again = json.loads(cimc_command("check", model, "--dim", "sequence=4", "--seed", "5", *options, "--json", "-")[1])[
        "device"
    ]
    assert again["attribution"] == found["attribution"]
    assert again["trials"] == found["trials"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "drift=off"), "--device needs --numerics analog"),
        (("--time", "1h"), "--time needs --numerics analog"),
        (("--attribute",), "--attribute needs --numerics analog"),
        (("--numerics", "analog", "--device", "drfit=off"), "device.drfit"),
        (("--numerics", "analog", "--time", "1x"), "--time"),
        (("--numerics", "analog", "--technology", "sonos", "--time", "1h,1y"), "seconds"),
    ],
)
def test_bad_device_options_end_with_2(cimc_command: Cimc, model: str, options: tuple[str, ...], told: str) -> None:
    code, out, err = cimc_command("check", model, "--dim", "sequence=4", *options)
    assert code == 2
    assert told in err
    assert out == ""


def test_run_takes_device_options(cimc_command: Cimc, model: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    assert cimc_command("compile", model, "--dim", "sequence=4", "-o", folder)[0] == 0
    code, out, _ = cimc_command("run", folder, "--numerics", "analog", "--technology", "mram", "--json", "-")
    found = json.loads(out)
    assert code == 0
    assert found["device"]["technology"] == "mram"
    assert found["device"]["adc_conversions"] == found["counts"]["conversions"]
    assert found["device"]["wear"]["writes_per_inference"] == 0
    code, _, err = cimc_command("run", folder, "--numerics", "analog", "--time", "1h,1d")
    assert code == 2
    assert "one --time" in err
