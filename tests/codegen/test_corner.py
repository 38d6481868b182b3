"""Views told by indices: the elements they reach keep their index in a larger array."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cimc.codegen.corner import steps_of
from cimc.isa.operands import Affine, View, dense_strides


@st.composite
def boxes(draw: st.DrawFn) -> tuple[View, tuple[int, ...]]:
    """A view that goes through its array axis by axis, and the array's shape."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    first = [draw(st.integers(0, n - 1)) for n in shape]
    steps = [draw(st.integers(1, 2)) for _ in shape]
    most = [(n - 1 - at) // by + 1 for n, at, by in zip(shape, first, steps, strict=True)]
    extents = [draw(st.integers(1, n)) for n in most]
    dense = dense_strides(shape)
    order = draw(st.permutations(range(len(shape))))
    offset = sum(i * s for i, s in zip(first, dense, strict=True))
    strides = tuple(steps[a] * dense[a] for a in order)
    return View("x", Affine(offset), tuple(extents[a] for a in order), strides), shape


def reached(view: View, shape: tuple[int, ...]) -> np.ndarray:
    """The indices of the elements of a view, in its order."""
    extents = [n for n in view.shape if isinstance(n, int)]
    flat = [
        view.offset.constant + sum(i * s for i, s in zip(at, view.strides, strict=True))
        for at in product(*map(range, extents))
    ]
    return np.array(np.unravel_index(flat, shape)).T


@given(boxes())
def test_indices_are_those_that_are_reached(case: tuple[View, tuple[int, ...]]) -> None:
    view, shape = case
    found = steps_of(view, shape, {})
    assert found is not None
    extents = [n for n in view.shape if isinstance(n, int)]
    told = [
        [b + sum(i * by[axis] for i, by in zip(at, found.along, strict=True)) for axis, b in enumerate(found.first)]
        for at in product(*map(range, extents))
    ]
    np.testing.assert_array_equal(np.array(told), reached(view, shape))


@given(st.integers(2, 5), st.integers(2, 5))
def test_over_the_end_of_a_row_there_are_no_indices(rows: int, cols: int) -> None:
    """As many elements as an array has, one after the other: in a longer array they would be others."""
    flat = View("x", Affine(), (rows * cols,), (1,))
    assert steps_of(flat, (rows, cols), {}) is None
    assert steps_of(flat, (rows * cols,), {}) is not None
    assert steps_of(View("x", Affine(cols - 1), (cols,), (-1,)), (rows, cols), {}) is None


def test_variables_count_along_axes() -> None:
    rows = View("x", Affine.of(2, {"i": 8}), (1, 4), (8, 1))
    found = steps_of(rows, (6, 8), {"i": (0, 5)})
    assert found is not None
    assert (found.first, found.terms) == ((0, 2), (("i", (1, 0)),))
    assert steps_of(rows, (6, 8), {"i": (0, 6)}) is None
