"""The single-pass I/O model beside the cases: bounds, noise, managements."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import mvm
from cimc.analog.iomodel import IoMatrix, IoModel

RAW = {"inp_res": -1, "out_res": -1, "out_bound": 1e9, "inp_bound": 1e9, "noise_management": "NONE"}


def test_everything_off_is_a_product() -> None:
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((3, 5)), rng.standard_normal((5, 4))
    assert mvm(w, x, RAW) == pytest.approx(w @ x, rel=1e-5, abs=1e-6)


def test_by_hand() -> None:
    """Steps of 2/4 in and 2*2/8 out: x = 0.6 of 1 rounds to 0.5; 1 * 3 + 0.5 * 0.6 = 3.3, clipped to 2."""
    config = {"inp_res": 4, "out_res": 8, "out_bound": 2.0}
    assert mvm(np.array([[3.0, 0.6]]), np.array([[1.0], [0.6]]), config)[0, 0] == pytest.approx(2.0)
    assert mvm(np.array([[1.0, 0.6]]), np.array([[2.0], [1.2]]), config)[0, 0] == pytest.approx(2 * 1.5)


def test_a_resolution_below_one_is_the_step() -> None:
    w, x = np.ones((1, 3)), np.array([[0.9], [0.31], [0.22]])
    assert np.array_equal(mvm(w, x, {"inp_res": 1 / 254}), mvm(w, x, {"inp_res": 254}))


def test_iterative_bound_management_halves_until_nothing_clips() -> None:
    w, x = np.full((2, 16), 1.0), np.ones((16, 1))
    clipped = mvm(w, x, {"out_bound": 10.0, "bound_management": "NONE"})
    managed = mvm(w, x, {"out_bound": 10.0, "bound_management": "ITERATIVE"})
    assert clipped == pytest.approx(10.0)
    assert managed == pytest.approx(16.0, abs=2 * 20 / 254)


@pytest.mark.parametrize(
    ("noise", "sigma"),
    [
        ({"out_noise": 0.1}, 0.1),
        ({"w_noise": 0.05, "w_noise_type": "ADDITIVE_CONSTANT"}, 0.05 * np.sqrt(20)),
        ({"w_noise": 0.05, "w_noise_type": "PCM_READ"}, 0.05 * np.sqrt(20 * 0.5)),
        ({"inp_noise": 0.1}, 0.1 * 0.5 * np.sqrt(20)),
    ],
)
def test_noise_has_its_size(noise: dict[str, object], sigma: float) -> None:
    core = IoMatrix(np.full((400, 20), 0.5), IoModel.from_mapping({**RAW, **noise}), seed=1)
    y = core.mvm(np.ones((50, 20)))
    spread = y.std() if "inp_noise" not in noise else y[:, 0].std()
    assert spread == pytest.approx(sigma, rel=0.03 if "inp_noise" not in noise else 0.3)
    assert not np.array_equal(y, core.mvm(np.ones((50, 20))))
