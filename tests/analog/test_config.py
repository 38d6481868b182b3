"""Contradictions are refused before anything runs, with the key's name and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from cimc import errors
from cimc.analog import AnalogMatrix, conductances, mvm
from cimc.analog.config_keys import read_config

REFUSED = [
    ({"cell_bits": 2, "num_slices": 3}, "num_slices"),
    ({"slice_bits": [2, 2], "weight_bits": 8}, "num_slices"),
    ({"slice_bits": [4, 4], "num_slices": 3}, "num_slices"),
    ({"slice_bits": [4, 4, 4, 4]}, "num_slices"),
    ({"slice_bits": [9, 0]}, "slice_bits"),
    ({"cell_bits": "two"}, "cell_bits"),
    ({"cell_bits": True}, "cell_bits"),
    ({"weight_bits": 99}, "weight_bits"),
    ({"input_bits": 0}, "input_bits"),
    ({"input_encoding": "unary"}, "input_encoding"),
    ({"weight_encoding": "offset_column"}, "weight_encoding"),
    ({"weight_encoding": "differential", "offset": 128}, "offset"),
    ({"weight_encoding": "differential", "offset_subtraction": "digital"}, "offset_subtraction"),
    ({"offset": 100, "offset_subtraction": "unit_column"}, "offset"),
    ({"rows": 0}, "rows"),
    ({"rows": 8, "active_rows": 9}, "active_rows"),
    ({"row_blocks": [[0, 4], [5, 8]]}, "row_blocks"),
    ({"row_blocks": [[0, 300]]}, "row_blocks"),
    ({"row_blocks": "all"}, "row_blocks"),
    ({"adc": {"bits": 8, "code_min": 5, "code_max": 5}}, "adc.code_max"),
    ({"adc": {"bits": 4, "code_max": 255}}, "adc.code_max"),
    ({"adc": {"bits": 8, "lsb_units": 0}}, "adc.lsb_units"),
    ({"adc": {"bits": 8, "lsb_units": float("nan")}}, "adc.lsb_units"),
    ({"adc": {"bits": 99}}, "adc.bits"),
    ({"adc": {"bits": 8, "noise_lsb": -1.0}}, "adc.noise_lsb"),
    ({"adc": {"bits": 8, "lsb": 1}}, "adc.lsb"),
    ({"adc": 8}, "adc"),
    ({"adc": {"bits": 8}, "adc_rule": "CALIBRATED"}, "adc.ranges"),
    ({"adc": {"bits": 8}, "adc_rule": "WIDE"}, "adc_rule"),
    ({"adc": {"bits": 8}, "adc_min": 1.0, "adc_max": 1.0}, "adc_max"),
    ({"adc": {"bits": 8}, "adc_min": 1.0}, "adc_max"),
    ({"adc": {"bits": 8, "lsb_units": 1}, "adc_max": 5.0}, "adc.lsb_units"),
    ({"adc_max": 10.0}, "adc_max"),
    ({"adc": {"bits": 8}, "adc_ranges": [[0, 1], [0, 2]], "cell_bits": 8}, "adc_ranges"),
    ({"programming_error": {"model": "NormalIndependent", "sigma": -0.01}}, "programming_error.sigma"),
    ({"programming_error": {"model": "NormalIndependent"}}, "programming_error.sigma"),
    ({"programming_error": {"model": "NormalIndependant", "sigma": 0.1}}, "programming_error.model"),
    ({"programming_error": {"sigma": 0.1}}, "programming_error.model"),
    ({"drift": "RRAMMilo"}, "drift.model"),
    ({"read_noise": "pcm_joshi"}, "read_noise.model"),
    ({"technology": "flash"}, "technology"),
    ({"technology": "pcm", "gmax_us": 60.0}, "gmax_us"),
    ({"technology": "pcm", "seconds": -1.0}, "seconds"),
    ({"technology": "sonos", "seconds": 1e6}, "seconds"),
    ({"Gmin_norm": 1.0}, "Gmin_norm"),
    ({"Rmin": -5.0}, "Rmin"),
    ({"stuck_on_rate": 1.5}, "stuck_on_rate"),
    ({"stuck_on_rate": 0.6, "stuck_off_rate": 0.6}, "stuck_on_rate"),
    ({"stuck": np.zeros((4, 3, 8), dtype=int), "cell_bits": 2}, "stuck"),
    ({"stuck": np.full((4, 2, 8), 3), "cell_bits": 2}, "stuck"),
    ({"stuck": np.zeros((4, 2, 8)), "cell_bits": 2}, "stuck"),
    ({"stuck": np.zeros((4, 2, 8), dtype=int), "cell_bits": 2, "weight_encoding": "differential"}, "stuck"),
    ({"wieght_bits": 8}, "wieght_bits"),
    ({"dac_bits": 2, "slice_size": 2}, "slice_size"),
    ({"grid": "coarse"}, "grid"),
    ({"inp_res": 254, "outres": 254}, "outres"),
    ({"inp_res": 254, "out_noise": -0.1}, "out_noise"),
    ({"inp_res": "1/0"}, "inp_res"),
    ({"Rp_row_ohm": -1.0}, "Rp_row_ohm"),
    ({"Rp_row_ohm": 1.0, "Rmin": 1e6, "Rmax": 1e4}, "Rmax"),
    ({"Rp_row_ohm": 1.0, "topology": "ring"}, "topology"),
]


@pytest.mark.parametrize(("config", "key"), REFUSED, ids=[f"{i}-{key}" for i, (_, key) in enumerate(REFUSED)])
def test_refused_by_name(config: dict[str, object], key: str) -> None:
    with pytest.raises(errors.CimcError) as found:
        mvm(np.zeros((2, 8), dtype=np.int64), np.zeros((8, 1), dtype=np.int64), config)
    assert found.value.exit == errors.Exit.USAGE
    assert found.value.code == "analog-config"
    assert f"key '{key}'" in found.value.message
    assert found.value.hint


@pytest.mark.parametrize(
    ("weights", "inputs", "key"),
    [
        (np.array([[np.nan]]), np.array([[1]]), "weights"),
        (np.array([[0.5]]), np.array([[1]]), "weights"),
        (np.array([[1]]), np.array([[np.inf]]), "inputs"),
        (np.array([1]), np.array([[1]]), "weights"),
        (np.array([[1, 2]]), np.array([[1]]), "inputs"),
    ],
)
def test_operands(weights: np.ndarray, inputs: np.ndarray, key: str) -> None:
    with pytest.raises(errors.CimcError, match=key):
        mvm(weights, inputs, {})


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: conductances("pcmm", np.ones(2)), "technology"),
        (lambda: conductances("pcm", np.array([-1.0])), "target_us"),
        (lambda: conductances("pcm", np.array([np.nan])), "target_us"),
        (lambda: conductances("pcm", np.ones(2), seconds=-1.0), "seconds"),
        (lambda: conductances("pcm", np.ones(2), seed=-1), "seed"),
        (lambda: conductances("pcm", np.ones(2), sigma=0.1), "sigma"),
        (lambda: AnalogMatrix(np.ones((2, 2), dtype=int), {}, key=(-1, 0)), "seed"),
    ],
)
def test_other_calls(call: Callable[[], object], key: str) -> None:
    with pytest.raises(errors.CimcError, match=key):
        call()


def test_numpy_scalars_and_null_are_fine() -> None:
    config = read_config({"weight_bits": np.int64(8), "adc": None, "offset_subtraction": None,
                                        "adc_rule": None, "row_blocks": np.array([[0, 3]])})  # fmt: skip
    assert config.weights.bits == 8
    assert config.adc is None
    assert config.blocks(3) == ((0, 3),)


def test_active_rows_cut_blocks() -> None:
    config = read_config({"rows": 8, "active_rows": 3, "row_blocks": [[0, 8], [8, 10]]})
    assert config.blocks(10) == ((0, 3), (3, 6), (6, 8), (8, 10))


def test_importing_is_light() -> None:
    code = "import sys, cimc.analog; print([m for m in ('numba', 'llvmlite', 'scipy', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
