"""One thread for matrix products, and as many as before afterwards."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import pytest

from cimc import blas
from cimc.sim.matrices import FloatMatrix
from cimc.sim.values import run_values
from tests.sim.chips import chip
from tests.sim.test_values import linear, weights

found = blas._threads()
pytestmark = pytest.mark.skipif(found is None, reason="NumPy multiplies with another library than OpenBLAS")


@pytest.fixture(autouse=True)
def three() -> Generator[None]:
    assert found is not None
    tell, put = found
    before = tell()
    put(3)
    yield
    put(before)


def threads() -> int:
    assert found is not None
    return found[0]()


def test_one_within_and_as_many_as_before_afterwards() -> None:
    within: list[int] = []

    @blas.one_thread()
    def fails() -> None:
        within.append(threads())
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert within == [1]
    assert threads() == 3


def test_calls_that_overlap_end_with_the_last() -> None:
    first, second = blas.one_thread(), blas.one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads() == 1
    second.__exit__(None, None, None)
    assert threads() == 3


def test_values_are_computed_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    mvm = FloatMatrix.mvm

    def watched(self: FloatMatrix, x: np.ndarray) -> np.ndarray:
        seen.append(threads())
        return mvm(self, x)

    monkeypatch.setattr(FloatMatrix, "mvm", watched)
    x = np.ones((4, 20), np.float32)
    run_values(linear(), weights(), {"x": x}, chip())
    assert set(seen) == {1}
