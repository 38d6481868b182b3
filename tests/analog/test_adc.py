"""Converters: rounding, clipping, ranges, reciprocals."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import mvm
from cimc.analog.adc import Transfer, codes_of, index_of, saturated, transfers
from cimc.analog.config_keys import read_config
from cimc.analog.kernels.convert_ir import reciprocal


def test_ties_go_to_the_even_index_counted_from_the_lowest_code() -> None:
    unsigned = Transfer(2.0, 0.0, 15)
    assert codes_of(index_of(np.array([1.0, 3.0, 5.0]), unsigned), unsigned).tolist() == [0, 2, 2]
    signed = Transfer(2.0, -7.0, 14)
    assert codes_of(index_of(np.array([1.0, 3.0, -1.0]), signed), signed).tolist() == [1, 1, -1]


def test_clipping_is_counted() -> None:
    transfer = Transfer(1.0, 0.0, 3)
    index = index_of(np.array([-0.4, -0.6, 3.4, 3.6, 100.0]), transfer)
    assert codes_of(index, transfer).tolist() == [0, 0, 3, 3, 3]
    assert saturated(index, transfer) == 3


def read(config: dict[str, object], inputs: int = 128) -> Transfer:
    table = transfers(read_config(config), inputs)
    assert table is not None
    return table[0][0]


def test_granular_carries_crosssims_input_correction() -> None:
    """CrossSim's F02: differential, 2-bit cells, sign-magnitude inputs of 8 bits: +-127/3 * 128/127 = +-42.667 Gmax."""
    config = {"weight_encoding": "differential", "cell_bits": 2, "input_encoding": "sign_magnitude",
              "adc": {"bits": 8, "signed": True, "adc_rule": "GRANULAR"}}  # fmt: skip
    transfer = read(config)
    assert transfer.low * transfer.step / 3 == pytest.approx(-128 / 3)
    assert transfer.step == pytest.approx(128 / 127)
    assert transfer.top == 254


@pytest.mark.parametrize(("rows", "power"), [(128, 128), (100, 128), (90, 64), (73, 64)])
def test_max_brings_rows_to_a_power_of_two(rows: int, power: int) -> None:
    transfer = read({"cell_bits": 2, "rows": 128, "adc": {"bits": 7, "adc_rule": "MAX"}}, rows)
    high = (transfer.low + transfer.top) * transfer.step / 3
    assert high == pytest.approx(power * 4 / 3 * 127 / 128 * 256 / 255)


def test_a_range_may_differ_per_slice_and_start_between_codes() -> None:
    """Ranges in units of Gmax: 0.1..0.9 in 4 codes of one 1-bit cell; a full cell reads 0.9."""
    config = {"weight_bits": 1, "cell_bits": 1, "input_bits": 1, "offset": 0, "adc": {"bits": 2},
              "adc_ranges": [[0.1, 0.9]]}  # fmt: skip
    y = mvm(np.array([[1], [0]]), np.array([[1]]), config)
    assert y[:, 0] == pytest.approx([0.9, 0.1])
    two = {"weight_bits": 2, "cell_bits": 1, "input_bits": 1, "offset": 0, "adc": {"bits": 1},
           "adc_ranges": [[0, 0.5], [0, 1]]}  # fmt: skip
    assert mvm(np.array([[3]]), np.array([[1]]), two)[0, 0] == pytest.approx(0.5 + 2 * 1)


def test_gain_offset_and_inl_move_the_code() -> None:
    sums = np.array([10.0])
    assert index_of(sums, Transfer(1.0, 0.0, 20, gain=1.1))[0] == 11
    assert index_of(sums, Transfer(1.0, 0.0, 20, offset=2.0))[0] == 12
    assert index_of(sums, Transfer(1.0, 0.0, 20, inl=3.0))[0] == 13  # the bow is highest in the middle
    assert index_of(np.array([0.0]), Transfer(1.0, 0.0, 20, inl=3.0))[0] == 0


@pytest.mark.parametrize("step", [2, 3, 5, 6, 7, 9, 10, 11, 13, 96, 101])
def test_reciprocals_divide_exactly(step: int) -> None:
    multiplier = reciprocal(step, 1000)
    assert multiplier is not None
    assert all((t * multiplier) >> 16 == t // step for t in range(1001))


def test_a_reciprocal_that_does_not_exist_is_not_given() -> None:
    assert reciprocal(3, 65535) is None


@pytest.mark.parametrize("lsb", [1, 2, 3, 6, 385])
def test_any_whole_lsb_against_python_integers(lsb: int) -> None:
    """Unsliced 8-bit cells, one plane at a time, computed with Python's own round-half-even on fractions."""
    rng = np.random.default_rng(lsb)
    w, x = rng.integers(-128, 128, (2, 60)), rng.integers(0, 256, (60, 3))
    y = mvm(w, x, {"cell_bits": 0, "rows": 60, "adc": {"bits": 6, "lsb_units": lsb}})
    for o in range(2):
        for v in range(3):
            total = 0
            for k in range(8):
                s = int(((x[:, v] >> k & 1) * (w[o] + 128)).sum())
                double = 2 * s  # compare against half steps in integers
                low = s // lsb
                up = double > (2 * low + 1) * lsb or (double == (2 * low + 1) * lsb and low % 2 == 1)
                total += min(low + up, 63) * lsb << k
            assert y[o, v] == total - 128 * int(x[:, v].sum())
