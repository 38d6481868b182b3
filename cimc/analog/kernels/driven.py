"""Lists of driven rows, for the kernels that add up rows plane by plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import InputEncoding
from cimc.analog.encoding import planes
from cimc.analog.kernels.driven_ir import build_driven
from cimc.analog.kernels.jit import address, compile_ir, target

CACHE_LINE = 64


@cache
def _lister(count: int, unit: int, whole: int, compress: bool) -> Callable[..., None]:
    return compile_ir(build_driven(count, unit, whole, compress), "driven", 4, 4)


class DrivenRows:
    """Which rows of every row block each plane of an input drives: their numbers within the block times ``unit``, filled
    up to steps of ``whole`` with the number behind the last. ``room``: numbers in a list."""

    def __init__(self, encoding: InputEncoding, blocks: Sequence[tuple[int, int]], unit: int, whole: int) -> None:
        here = target()
        assert here is not None
        self.two_sided = encoding.kind == "sign_magnitude"
        self.starts = np.array([(a, b - a) for a, b in blocks], dtype=np.int64)
        # Whatever is driven, one more step can be written behind it.
        self.room = -(-int(self.starts[:, 1].max(initial=0)) // whole) * whole + whole
        self._how = (len(planes(encoding)), unit, whole, here.ternary)
        self._blocks, self._at = len(blocks), address(self.starts)

    def _parts(self, vectors: int) -> tuple[int, int]:
        """Bytes of the lists and of the steps of one sign, in whole cache lines."""
        lists = vectors * self._blocks * self._how[0]
        return _whole_lines(lists * self.room * 2), _whole_lines(lists * 4)

    def nbytes(self, vectors: int) -> int:
        """Bytes that ``fill`` writes."""
        return sum(self._parts(vectors)) * (1 + self.two_sided)

    def fill(self, inputs: NDArray[Any], at: int) -> tuple[int, int, int, int]:
        """Write lists and steps of ``inputs`` (vectors, rows) from the address ``at`` on: 16-bit (vectors, blocks,
        planes, room) and 32-bit (vectors, blocks, planes). Returns where they are, and where those of negative inputs
        are; without these the same again."""
        if not self.two_sided:
            found = self._listed(inputs, at)
            return *found, *found
        wide = inputs.astype(np.int16)
        plus, minus = (np.maximum(side, 0).astype(np.uint8) for side in (wide, -wide))
        return *self._listed(plus, at), *self._listed(minus, at + sum(self._parts(len(inputs))))

    def _listed(self, inputs: NDArray[Any], at: int) -> tuple[int, int]:
        held = inputs if inputs.flags.c_contiguous else np.ascontiguousarray(inputs)
        vectors, rows = held.shape
        steps = at + self._parts(vectors)[0]
        _lister(*self._how)(address(held), self._at, at, steps, vectors, self._blocks, rows, self.room)
        return at, steps


def _whole_lines(size: int) -> int:
    return -(-size // CACHE_LINE) * CACHE_LINE
