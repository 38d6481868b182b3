"""Numbers as text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc.report import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.time_ns(12300), "12.3 µs"),
        (units.time_ns(0.25), "250 ps"),
        (units.time_ns(999.6), "1.00 µs"),
        (units.time_ns(7), "7.00 ns"),
        (units.time_ns(0), "0 s"),
        (units.time_ns(None), "–"),
        (units.time_ns(math.inf), "inf s"),
        (units.seconds(90.0), "90 s"),
        (units.energy_pj(4_560_000), "4.56 µJ"),
        (units.energy_pj(1e-3), "1.00 fJ"),
        (units.energy_pj(1e-9), "0.00000100 fJ"),
        (units.years(15.9), "15.9 years"),
        (units.years(1.585e9), "1.58e+09 years"),
        (units.years(0.5), "182 days"),
        (units.years(5000 / 31536000), "1.39 hours"),
        (units.years(90 / 31536000), "1.5 minutes"),
        (units.years(1.608 / 31536000), "1.61 s"),
        (units.years(0.0), "0 s"),
        (units.counted(1, "matrix", "matrices"), "1 matrix"),
        (units.counted(2000, "tile"), "2,000 tiles"),
        (units.area_mm2(0.0308), "0.0308"),
        (units.area_mm2(1234.56), "1,234.6"),
        (units.size_bytes(0), "0 B"),
        (units.size_bytes(512), "512 B"),
        (units.size_bytes(1_230_000), "1.23 MB"),
        (units.size_bytes(999_999), "1.00 MB"),
        (units.large(10.8e6, "MAC"), "10.8 MMAC"),
        (units.whole(1234567), "1,234,567"),
        (units.percent(0.123), "12.3 %"),
        (units.percent(0.0), "0.0 %"),
        (units.percent(1e-6), "<0.1 %"),
        (units.percent(0.99999), ">99.9 %"),
        (units.percent(1.0), "100.0 %"),
        (units.ratio(1.5), "×1.50"),
        (units.ratio(0.995), "×0.995"),
        (units.similarity(0.99999999), "0.999999"),
        (units.decibel(36.94), "36.9 dB"),
        (units.printable("a\x1b[31mb\nc"), "a\\x1b[31mb\\nc"),
    ],
)
def test_text(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(1e-15, 1e17))
def test_prefixes_leave_one_to_three_digits_and_three_significant_ones(value: float) -> None:
    number, unit = units.si(value, "J").split(" ")
    scale = {
        "P": 1e15,
        "T": 1e12,
        "G": 1e9,
        "M": 1e6,
        "k": 1e3,
        "": 1,
        "m": 1e-3,
        "µ": 1e-6,
        "n": 1e-9,
        "p": 1e-12,
        "f": 1e-15,
    }
    assert math.isclose(float(number) * scale[unit.removesuffix("J")], value, rel_tol=0.00501)
    if value < 999e15:
        assert 1 <= float(number) < 1000
