"""Weights to slices and back, inputs to planes and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cimc.analog.core as core_module
from cimc import errors
from cimc.analog import AnalogConfig, AnalogMatrix, mvm
from cimc.analog.config import InputEncoding, WeightEncoding, WeightKind
from cimc.analog.encoding import check_inputs, drive, planes, slice_levels, stored, unit_levels
from cimc.analog.exact import exact_product
from tests.analog.decoding import merge


@given(st.sampled_from([(8,), (4, 4), (2, 2, 2, 2), (1,) * 8, (1, 2, 5), (3, 3, 2), (3, 3, 3)]), st.integers(-128, 127))
def test_offset_slices_decode(widths: tuple[int, ...], value: int) -> None:
    encoding = WeightEncoding(8, widths)
    held = stored(np.array([[value]]), encoding)
    levels = slice_levels(held, encoding)
    assert np.all(levels <= np.array(encoding.max_levels)[:, None, None])
    assert merge(levels, encoding)[0, 0] - encoding.offset == value


@pytest.mark.parametrize("kind", ["offset", "differential"])
@pytest.mark.parametrize("held", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("bits", range(2, 17))
def test_codes_of_any_type_are_held_by_cells_of_any_bits(
    bits: int, held: type[np.signedinteger], kind: WeightKind
) -> None:
    """The largest and smallest codes of both: nothing wraps, however narrow the array that brings them."""
    top = min((1 << (bits - 1)) - 1, np.iinfo(held).max)
    codes = np.array([-top, -1, 0, 1, top], held)
    half = 1 << (bits - 1) if kind == "offset" else 0
    encoding = WeightEncoding(bits, (1,) * bits, kind, half)
    value = stored(codes, encoding)
    plain = [int(code) for code in codes]
    assert value.tolist() == [code + half if kind == "offset" else abs(code) for code in plain]
    assert merge(slice_levels(value, encoding), encoding).tolist() == value.tolist()


@given(
    st.sampled_from(["unsigned", "twos_complement", "sign_magnitude", "split"]),
    st.integers(2, 9),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_planes_decode(kind: str, bits: int, dac: int, seed: int) -> None:
    encoding = InputEncoding(bits, kind, dac)
    x = np.random.default_rng(seed).integers(encoding.low, encoding.high + 1, (3, 11))
    driven = [drive(x, plane) for plane in planes(encoding)]
    worth = [plane.weight for plane in planes(encoding)]
    assert np.array_equal(sum(w * chunk for w, chunk in zip(worth, driven, strict=True)), x)
    for chunk, plane in zip(driven, planes(encoding), strict=True):
        assert np.abs(chunk).max() < 1 << plane.bits
        assert plane.sign == "signed" or chunk.min() >= 0


def test_a_bit_serial_plane_is_a_bit() -> None:
    x = np.array([0b1011, -0b0110])
    twos = InputEncoding(5, "twos_complement")
    assert [p.weight for p in planes(twos)] == [1, 2, 4, 8, -16]
    assert [int(drive(x, p)[0]) for p in planes(twos)] == [1, 1, 0, 1, 0]
    assert [int(drive(x, p)[1]) for p in planes(twos)] == [0, 1, 0, 1, 1]
    magnitude = InputEncoding(5, "sign_magnitude")
    assert [int(drive(x, p)[1]) for p in planes(magnitude)] == [0, -1, -1, 0]


def test_the_unit_column_holds_half_the_range_on_top() -> None:
    assert unit_levels(WeightEncoding(8, (2, 2, 2, 2))) == (0, 0, 0, 2)
    assert unit_levels(WeightEncoding(8, (1,) * 8)) == (0,) * 7 + (1,)


def test_the_unit_column_subtracts_its_own_codes() -> None:
    """By hand: one row, one input bit, 2-bit cells, LSB 2: codes of both columns round before they are subtracted."""
    config = {"weight_bits": 4, "cell_bits": 2, "input_bits": 1, "offset_subtraction": "unit_column",
              "adc": {"bits": 2, "lsb_units": 2}}  # fmt: skip
    # W = 5: U = 13 = (1, 3): codes rint(1/2) = 0, rint(3/2) = 2. Unit: (0, 2): 0, 1.
    y = mvm(np.array([[5]]), np.array([[1]]), config)
    assert y[0, 0] == (0 + 2 * 2 * 4) - (0 + 1 * 2 * 4)


def test_multi_bit_dac_sums_more_per_conversion() -> None:
    """By hand: two rows of level 3 and inputs 3 in one 2-bit step make 18, which a 4-bit converter clips to 15."""
    config = {"weight_bits": 2, "cell_bits": 2, "input_bits": 2, "offset": 0, "adc": {"bits": 4}}
    ones, threes = np.array([[3, 3]]), np.array([[3], [3]])
    assert mvm(ones, threes, config)[0, 0] == 18
    assert mvm(ones, threes, {**config, "dac_bits": 2})[0, 0] == 15


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3000))
def test_lossless_equals_integer_product(seed: int, inputs: int) -> None:
    """Without an ADC, or with one of enough bits, the result is the integer product, whatever the encoding."""
    rng = np.random.default_rng(seed)
    codes, x = rng.integers(-127, 128, (inputs, 3)), rng.integers(-127, 128, (12, inputs))
    exact = x @ codes
    for kind in ("offset", "differential"):
        config = {"weight_encoding": kind, "cell_bits": 2, "input_encoding": "twos_complement"}
        wide = {"bits": 10, "signed": kind == "differential"}
        for adc in (None, wide):
            core = AnalogMatrix(codes, {**config, "adc": adc})
            assert core.path == "product"
            assert np.array_equal(core.mvm(x), exact)
            assert core.counts.saturated == 0


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 3), (300, 130), (4000, 2)])
@pytest.mark.parametrize("kind", ["unsigned", "twos_complement", "sign_magnitude"])
def test_lossless_for_few_vectors(inputs: int, outputs: int, kind: str) -> None:
    """Up to eight vectors take another kernel; extremes of weights and inputs among them."""
    rng = np.random.default_rng(inputs)
    codes = rng.integers(-128, 128, (inputs, outputs))
    codes[0, 0] = -128
    core = AnalogMatrix(codes, {"cell_bits": 4, "input_encoding": kind})
    x = rng.integers(core.config.inputs.low, core.config.inputs.high + 1, (3, inputs))
    x[0] = core.config.inputs.low
    x[1] = core.config.inputs.high
    for count in (0, 1, 3):
        assert np.array_equal(core.mvm(x[:count]), x[:count] @ codes)
        assert core.mvm(x[:count]).shape == (count, outputs)


@pytest.mark.parametrize("adc", [None, {"bits": 4}, {"bits": 4, "adc_rule": "GRANULAR"}, {"bits": 4, "noise_lsb": 0.1}])
def test_no_vectors_give_no_results(adc: dict[str, object] | None) -> None:
    core = AnalogMatrix(np.full((40, 3), 90), {"cell_bits": 2, "adc": adc})
    assert core.mvm(np.zeros((0, 40), dtype=np.uint8)).shape == (0, 3)


@pytest.mark.parametrize("upright", [True, False])
def test_a_column_that_could_clip_is_not_collapsed(upright: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 rows of level 3 sum to 384: an 8-bit converter clips them, so only the other column may be a product."""
    if not upright:
        monkeypatch.setattr(core_module, "sliced_spec", lambda *_: None)
    codes = np.zeros((128, 2), dtype=np.int64)
    codes[:, 0] = 127  # stored 255: every slice at level 3
    codes[:, 1] = -128  # stored 0
    core = AnalogMatrix(codes, {"cell_bits": 2, "adc": {"bits": 8}})
    assert core.path in ("bits", "tables and product") if upright else core.path == "tables and product"
    ones = np.full((40, 128), 255)
    y = core.mvm(ones)
    assert np.array_equal(y[:, 1], np.full(40, -128 * 128 * 255))
    clipped = 255 * (1 + 4 + 16 + 64) * 255 - 128 * 128 * 255
    assert np.array_equal(y[:, 0], np.full(40, clipped))
    assert core.counts.saturated == 40 * 8 * 4


def test_float32_parts_stay_exact() -> None:
    """Worst-case sums: cut so that no partial sum reaches 2**24."""
    weights = np.full((4096, 2), 127.0)
    product = exact_product(weights, 255)
    assert len(product.parts) > 1
    x = np.full((3, 4096), 255)
    assert np.array_equal(product(x), np.full((3, 2), 4096 * 127 * 255))


@pytest.mark.parametrize(
    ("kind", "value"), [("unsigned", -1), ("unsigned", 256), ("twos_complement", 128), ("sign_magnitude", -128)]
)
def test_inputs_that_do_not_fit_are_refused(kind: str, value: int) -> None:
    with pytest.raises(errors.CimcError, match="input_bits"):
        check_inputs(np.array([[value]]), InputEncoding(8, kind))
    with pytest.raises(errors.CimcError, match="input_bits"):
        AnalogMatrix(np.ones((1, 1), dtype=int), AnalogConfig(inputs=InputEncoding(8, kind))).mvm(np.array([[value]]))


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(errors.CimcError, match="weight_bits"):
        mvm(np.array([[128]]), np.array([[1]]), {})
    with pytest.raises(errors.CimcError, match="weight_bits"):
        mvm(np.array([[-128]]), np.array([[1]]), {"weight_encoding": "differential", "cell_bits": 7})
