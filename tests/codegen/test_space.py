"""Where operands lie for a row of the domain: against counting with NumPy."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np

from cimc.isa.operands import dense_strides
from cimc.mapping.space import spread_strides


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A raw domain, an operand's leading shape that broadcasts against it, a refinement of the axes that are not 1."""
    raw = tuple(draw(st.lists(st.sampled_from((1, 2, 3, 4, 6)), min_size=1, max_size=4)))
    rank = draw(st.integers(0, len(raw)))
    shape = tuple(n if draw(st.booleans()) else 1 for n in raw[len(raw) - rank :])
    fine: list[int] = []
    for extent in (n for n in raw if n != 1):
        cut = draw(st.sampled_from([d for d in range(1, extent + 1) if extent % d == 0]))
        fine.extend(n for n in (cut, extent // cut) if n != 1)
    return raw, shape, tuple(fine) or (1,)


@hypothesis.settings(max_examples=200)
@hypothesis.given(cases())
def test_strides_reach_the_element_that_broadcasting_does(
    case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> None:
    raw, shape, fine = case
    axes = tuple(i for i, n in enumerate(raw) if n != 1)
    extents = tuple(raw[i] for i in axes) or (1,)
    strides = spread_strides(shape, dense_strides(shape), len(raw), axes, extents, fine)
    elements = np.arange(math.prod(shape)).reshape(shape)
    wanted = np.broadcast_to(elements, raw).reshape(fine)
    assert len(strides) == len(fine)
    for at in np.ndindex(*fine):
        assert sum(i * s for i, s in zip(at, strides, strict=True)) == wanted[at]
