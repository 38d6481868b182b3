"""One input vector times whole weights of 8 bits: a product that reads a quarter of the bytes of a float32 one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.kernels.ir import PAIRWISE, Values, Writer, function
from cimc.analog.kernels.jit import Shuffle, address, aligned, compile_ir, target

CHAINS = 4
MOST_INPUTS = 1 << 15  # 255 * 128 * this stays below 2**31


def build(width: int) -> str:
    """IR of ``vector(inputs, weights, out; pairs, tiles)``: ``inputs`` pairs of 16-bit numbers, ``weights`` bytes laid
    out
    (tile, pair, output, two), ``width`` outputs to a tile."""
    w, lanes = Writer(), width // 4
    narrow, wide, sums = f"<{2 * lanes} x i8>", f"<{2 * lanes} x i16>", f"<{lanes} x i32>"

    def tile_body(tile: str, _: Values) -> Values:
        base = w.do(f"mul i64 {w.do(f'mul i64 {tile}, %pairs')}, {2 * width}")

        def pair_body(pair: str, acc: Values) -> Values:
            both = w.do(f"load i32, ptr {w.at('i32', '%inputs', pair)}")
            single = w.do(f"insertelement {sums} poison, i32 {both}, i64 0")
            spread = w.do(f"shufflevector {sums} {single}, {sums} poison, <{lanes} x i32> zeroinitializer")
            x = w.do(f"bitcast {sums} {spread} to {wide}")
            place = w.do(f"mul i64 {pair}, {2 * width}")
            result: Values = []
            for chain, total in enumerate(acc):
                weights = w.load(narrow, "%weights", base, place, str(chain * 2 * lanes))
                signed = w.do(f"sext {narrow} {weights} to {wide}")
                product = w.do(f"call {sums} @{PAIRWISE[width]}({wide} {signed}, {wide} {x})")
                result.append(w.do(f"add {sums} {total}, {product}"))
            return result

        totals = w.loop("0", "%pairs", "1", [(sums, "zeroinitializer")] * CHAINS, pair_body)
        first = w.do(f"mul i64 {tile}, {width}")
        for chain, total in enumerate(totals):
            w.store(sums, total, "%out", first, str(chain * lanes), unit="i32")
        return []

    w.loop("0", "%tiles", "1", [], tile_body)
    declared = f"declare {sums} @{PAIRWISE[width]}({wide}, {wide})\n"
    return function("vector", "ptr %inputs, ptr %weights, ptr %out, i64 %pairs, i64 %tiles", w, declared)


@cache
def _kernel(width: int) -> Callable[..., None]:
    return compile_ir(build(width), "vector", 3, 2)


class VectorProduct:
    """``weights`` (in, columns), whole numbers of 8 bits, times few vectors."""

    def __init__(self, weights: NDArray[Any], shuffle: Shuffle) -> None:
        inputs, self.columns = weights.shape
        self.width = shuffle.width
        self.pairs, self.tiles = -(-inputs // 2), -(-self.columns // self.width)
        padded = np.zeros((self.pairs * 2, self.tiles * self.width), dtype=np.int8)
        padded[:inputs, : self.columns] = weights
        self._weights = aligned((self.tiles, self.pairs, self.width, 2), np.int8)
        self._weights[:] = padded.reshape(self.pairs, 2, self.tiles, self.width).transpose(2, 0, 3, 1)
        self._inputs = np.zeros(self.pairs * 2, dtype=np.int16)
        self._fixed = (address(self._inputs), address(self._weights))
        self._run = _kernel(self.width)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as held."""
        return self._weights.nbytes

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.int32]:
        """``inputs`` (vectors, in) of at most 9 bits to (vectors, columns)."""
        out = np.empty((len(inputs), self.tiles * self.width), dtype=np.int32)
        start = address(out)
        for v, vector in enumerate(inputs):
            self._inputs[: len(vector)] = vector
            self._run(*self._fixed, start + v * out.shape[1] * 4, self.pairs, self.tiles)
        return out[:, : self.columns]


def vector_product(weights: NDArray[Any], largest_input: int) -> VectorProduct | None:
    """The product for few vectors, or None where it does not apply: wide weights, wide inputs, another machine."""
    here = target()
    if here is None or here.shuffles[0].intrinsic.startswith("llvm.aarch64"):
        return None
    if len(weights) > MOST_INPUTS or largest_input > 255:
        return None
    if weights.size == 0 or weights.min() < -128 or weights.max() > 127:
        return None
    return VectorProduct(weights, here.shuffles[0])
