"""Redundant copies of the top slices: what voting and averaging are worth, and what they hold."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import AnalogMatrix
from cimc.analog.config_keys import read_config
from cimc.analog.encoding import slice_levels, stored
from cimc.analog.redundancy import mean_net, top_codes, top_config
from cimc.errors import CimcError

BASE: dict[str, object] = {"cell_bits": 2, "rows": 64, "input_encoding": "twos_complement"}


def matrices() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(-127, 128, (64, 16)), rng.integers(-127, 128, (50, 64))


def variance(config: dict[str, object]) -> float:
    codes, x = matrices()
    runs = [AnalogMatrix(codes, BASE | config, seed=seed).values(x) - x @ codes for seed in range(6)]
    return float(np.square(runs).mean())


@pytest.mark.parametrize("encoding", ["offset", "differential"])
@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_a_copy_holds_exactly_the_top_slices(encoding: str, slices: int) -> None:
    codes, _ = matrices()
    config = read_config(BASE | {"weight_encoding": encoding, "msb_copies": 3, "msb_slices": slices})
    whole = slice_levels(stored(codes, config.weights), config.weights)
    part = top_config(config)
    held = top_codes(codes, config)
    assert np.array_equal(slice_levels(stored(held, part.weights), part.weights), whole[-slices:])
    core = AnalogMatrix(codes, config)
    assert all(np.array_equal(copy.net, core.cells.net[-slices:]) for copy in core.cells.copies)
    assert np.array_equal(mean_net(core.cells), core.cells.net)


def test_averaging_divides_the_top_slices_variance() -> None:
    """Gaussian cells: the error's variance is the sum over slices of 4^(2 s) sigma²; n copies leave 1 / n of the top
    one's. Slices 64, 16, 4, 1: the top one has 4096 of 4369 parts; sigma small enough that nothing is cut at 0."""
    noise: dict[str, object] = {"programming_error": {"model": "NormalIndependent", "sigma": 0.001}, "gmin_us": 0.5,
                                "gmax_us": 1.0, "grid": "fine"}  # fmt: skip
    plain, mean = variance(noise), variance(noise | {"msb_copies": 4, "msb_combine": "mean"})
    assert mean / plain == pytest.approx((4096 / 4 + 273) / 4369, rel=0.1)


def test_voting_outvotes_a_single_faulty_copy() -> None:
    codes, x = matrices()
    stuck = np.zeros((6, 16, 64), int)
    stuck[3] = 1  # the whole top slice of the core itself
    broken = AnalogMatrix(codes, BASE | {"stuck": stuck[:4]})
    voted = AnalogMatrix(codes, BASE | {"stuck": stuck, "msb_copies": 3})
    assert not np.array_equal(broken.values(x), x @ codes)
    assert np.array_equal(voted.values(x), x @ codes)
    stuck[4] = 1  # and of a copy: two of three
    assert np.array_equal(AnalogMatrix(codes, BASE | {"stuck": stuck, "msb_copies": 3}).values(x), broken.values(x))


def test_without_faults_copies_change_nothing_but_the_counts() -> None:
    codes, x = matrices()
    config = BASE | {"adc": {"bits": 8}}
    plain, copied = AnalogMatrix(codes, config), AnalogMatrix(codes, config | {"msb_copies": 5, "msb_slices": 2})
    assert np.array_equal(plain.values(x), copied.values(x))
    assert copied.path == plain.path == "product"
    assert copied.counts.conversions == plain.counts.conversions * (4 + 2 * 4) // 4
    assert copied.counts.cells == plain.counts.cells * 3
    assert copied.counts.crossbar_reads == plain.counts.crossbar_reads * 3


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"msb_copies": 0}, "msb_copies"),
        ({"msb_copies": 2}, "msb_copies"),
        ({"msb_copies": 99}, "msb_copies"),
        ({"msb_copies": 3, "msb_slices": 5}, "msb_slices"),
        ({"msb_copies": 3, "msb_slices": 0}, "msb_slices"),
        ({"msb_combine": "mode"}, "msb_combine"),
        ({"msb_copies": 3, "stuck": np.zeros((4, 16, 64), int)}, "stuck"),
    ],
)
def test_contradictions_are_refused_by_name(config: dict[str, object], key: str) -> None:
    codes, _ = matrices()
    with pytest.raises(CimcError, match=f"'{key}'"):
        AnalogMatrix(codes, BASE | config)
