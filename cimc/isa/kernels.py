"""The arithmetic of the vector, special-function and matmul units on NumPy arrays.

One definition serves the meaning of an instruction and the reference of the op that lowers to it, so that an
evaluated graph and an executed program agree bit for bit. Every kernel gives the same result for a row whatever rows
stand beside it: inputs are made contiguous first, because NumPy picks other loops (with other rounding) for strided
data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Whether elements are floating-point numbers; NumPy does not count bfloat16 among them."""
    return np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16


HALVES = frozenset((np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)))


def widened(x: Array) -> Array:
    """Floats of 16 bits as float32, in which units compute; everything else as it is."""
    return x.astype(np.float32) if x.dtype in HALVES else x


def exact_product(a: Array, b: Array) -> Array:
    """``a @ b``: float32 in float32, everything else exact (integers through float64 while it holds them exactly)."""
    if a.dtype == np.float32:
        return np.matmul(a, b.astype(np.float32, copy=False))
    if is_float(a.dtype):
        return np.matmul(a.astype(np.float64), b.astype(np.float64))
    if a.itemsize + b.itemsize <= 4:
        # |product| <= 2^31 and a sum of up to 2^22 of them stays below 2^53: float64 BLAS is exact.
        return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)
    return np.matmul(a.astype(np.int64), b.astype(np.int64))


def symmetric_codes(x: Array, bits: int, axis: int) -> tuple[Array, Array]:
    """Round ``x`` (float) to integers of ``bits`` with one scale per vector along ``axis``: (codes, scales), both
    float32; codes hold integers of at most ``2^(bits-1) - 1`` in size; scales keep ``axis`` with extent 1; an
    all-zero vector gets scale 1."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    scale = symmetric_scales(np.maximum.reduce(np.abs(x), axis=axis, keepdims=True, initial=0), bits)
    return codes_by(x, scale, bits), scale


def symmetric_scales(peak: Array, bits: int) -> Array:
    """The scales of :func:`symmetric_codes`, by the largest size in each vector."""
    top = np.float32(2 ** (bits - 1) - 1)
    scale = np.where(peak > 0, peak / top, np.float32(1)).astype(np.float32)
    # A peak among the smallest denormals divides to zero: such a vector rounds to zeros.
    return np.where(scale > 0, scale, np.float32(1))


def codes_by(x: Array, scale: Array, bits: int) -> Array:
    """The codes of :func:`symmetric_codes`, by the scales (float32; of a shape that broadcasts)."""
    top = np.float32(2 ** (bits - 1) - 1)
    found = x / scale
    np.rint(found, out=found)
    np.minimum(found, top, out=found)
    return np.maximum(found, -top, out=found)


def quantized_product(a: Array, b: Array, bits: int) -> Array:
    """``a @ b`` (… × m × k, … × k × n) with both operands rounded to ``bits``, one scale per row of a and per column of
    b; float32. The integer sum is exact, so it does not depend on how the product is cut into blocks."""
    qa, sa = symmetric_codes(a, bits, -1)
    qb, sb = symmetric_codes(b, bits, -2)
    small = a.shape[-1] * 4 ** (bits - 1) < 2**24
    dtype = np.float32 if small else np.float64
    acc = np.matmul(qa.astype(dtype, copy=False), qb.astype(dtype, copy=False)).astype(np.float32)
    return acc * (sa * sb)


def coded_product(a: Array, a_scale: Array, b: Array, b_scale: Array, scale: float = 1.0) -> Array:
    """``scale · (a @ b) · (a_scale · b_scale)`` of codes: what :func:`quantized_product` makes of the values that they were
    rounded from, bit for bit; of float32 in place of codes (``float`` numerics) their product. float32."""
    product = exact_product(a, b).astype(np.float32, copy=False) * (a_scale * b_scale)
    return product * np.float32(scale) if scale != 1.0 else product


def softmax(x: Array) -> Array:
    """Softmax along the last axis: exponentials of the difference to the row's maximum, over their sum (summed in
    float64)."""
    work = np.ascontiguousarray(x, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    peak = np.max(work, axis=-1, keepdims=True)
    # A row that is all -inf has no finite difference: 0/0 is NaN there, as in onnxruntime.
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.exp(work - peak)
        return e / np.sum(e, axis=-1, keepdims=True, dtype=np.float64).astype(work.dtype)


def log_softmax(x: Array) -> Array:
    """Logarithm of the softmax along the last axis."""
    work = np.ascontiguousarray(x, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    shifted = work - np.max(work, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True, dtype=np.float64)).astype(work.dtype)


def _row_mean(x: Array) -> Array:
    """``np.mean`` of rows of float64, which takes longer to find out how to do that than to do it."""
    return np.add.reduce(x, axis=-1, keepdims=True) / x.shape[-1]


def layer_norm(x: Array, epsilon: float) -> Array:
    """``(x - mean) / sqrt(variance + epsilon)`` along the last axis; moments in float64."""
    work = np.ascontiguousarray(x, dtype=np.float64)
    centred = work - _row_mean(work)
    variance = _row_mean(centred * centred)
    return centred / np.sqrt(variance + epsilon)


def rms_norm(x: Array, epsilon: float) -> Array:
    """``x / sqrt(mean(x²) + epsilon)`` along the last axis; the moment in float64."""
    work = np.ascontiguousarray(x, dtype=np.float64)
    return work / np.sqrt(_row_mean(work * work) + epsilon)


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return erf(x)


def _gelu(x: Array) -> Array:
    wide = x.astype(np.float64)
    return 0.5 * wide * (1 + _erf(wide * np.sqrt(0.5)))


def _gelu_tanh(x: Array) -> Array:
    wide = x.astype(np.float64)
    return 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))


def _sigmoid(x: Array) -> Array:
    from scipy.special import expit

    return expit(x)


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, x.dtype.type(0))


def _reciprocal(x: Array) -> Array:
    return x.dtype.type(1) / x


def _rsqrt(x: Array) -> Array:
    return x.dtype.type(1) / np.sqrt(x)


def _relu(x: Array) -> Array:
    return np.maximum(x, x.dtype.type(0))


_Unary = tuple[str, Callable[[Array], Array], str]
_Binary = tuple[str, Callable[[Array, Array], Array], str]


def _one(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A function whose operand is widened; what is of 16 bits is looked for first, for this is called for every instruction."""

    def wide(x: Array) -> Array:
        return function(widened(x) if x.itemsize == 2 else x)

    return wide


def _two(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """The same of two operands."""

    def wide(a: Array, b: Array) -> Array:
        if a.itemsize == 2 or b.itemsize == 2:
            return function(widened(a), widened(b))
        return function(a, b)

    return wide


_UNARY: dict[str, _Unary] = {
    # mnemonic: (action per element, function, what it is)
    "neg": ("vector.alu", np.negative, "-x"),
    "abs": ("vector.alu", np.abs, "|x|"),
    "sign": ("vector.alu", np.sign, "-1, 0 or 1"),
    "floor": ("vector.alu", np.floor, "largest integer not above x"),
    "ceil": ("vector.alu", np.ceil, "smallest integer not below x"),
    "round": ("vector.alu", np.rint, "nearest integer, ties to even"),
    "not": ("vector.alu", np.logical_not, "logical not"),
    "bitnot": ("vector.alu", np.invert, "bitwise not"),
    "isnan": ("vector.alu", np.isnan, "whether x is NaN"),
    "isinf": ("vector.alu", np.isinf, "whether x is infinite"),
    "relu": ("vector.alu", _relu, "max(x, 0)"),
    "sqrt": ("special.func", np.sqrt, "square root"),
    "rsqrt": ("special.func", _rsqrt, "1 / sqrt(x)"),
    "recip": ("special.div", _reciprocal, "1 / x"),
    "exp": ("special.func", np.exp, "exponential"),
    "log": ("special.func", np.log, "natural logarithm"),
    "sin": ("special.func", np.sin, "sine"),
    "cos": ("special.func", np.cos, "cosine"),
    "tan": ("special.func", np.tan, "tangent"),
    "asin": ("special.func", np.arcsin, "inverse sine"),
    "acos": ("special.func", np.arccos, "inverse cosine"),
    "atan": ("special.func", np.arctan, "inverse tangent"),
    "sinh": ("special.func", np.sinh, "hyperbolic sine"),
    "cosh": ("special.func", np.cosh, "hyperbolic cosine"),
    "asinh": ("special.func", np.arcsinh, "inverse hyperbolic sine"),
    "acosh": ("special.func", np.arccosh, "inverse hyperbolic cosine"),
    "atanh": ("special.func", np.arctanh, "inverse hyperbolic tangent"),
    "tanh": ("special.func", np.tanh, "hyperbolic tangent"),
    "erf": ("special.func", _erf, "error function"),
    "sigmoid": ("special.func", _sigmoid, "1 / (1 + exp(-x))"),
    "softplus": ("special.func", _softplus, "log(1 + exp(x))"),
    "gelu": ("special.func", _gelu, "x · Φ(x), with the error function"),
    "gelu_tanh": ("special.func", _gelu_tanh, "x · Φ(x), tanh approximation"),
    "silu": ("special.func", _silu, "x · sigmoid(x)"),
}


def _divide(a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        # ONNX integer division truncates towards zero; a division by zero has no defined result there.
        safe = np.where(b == 0, 1, b)
        quotient = np.floor_divide(a, safe)
        return quotient + ((np.remainder(a, safe) != 0) & ((a < 0) != (safe < 0)))
    return np.divide(a, b)


def _modulo(a: Array, b: Array) -> Array:
    return np.mod(a, np.where(b == 0, 1, b)) if np.issubdtype(a.dtype, np.integer) else np.mod(a, b)


def _fmod(a: Array, b: Array) -> Array:
    return np.fmod(a, np.where(b == 0, 1, b)) if np.issubdtype(a.dtype, np.integer) else np.fmod(a, b)


def _power(a: Array, b: Array) -> Array:
    # In float64, an exponent for every element: NumPy takes a square root, square or reciprocal where one exponent stands for
    # all, and these round otherwise than its power, so the result would depend on how rows are cut.
    wide, exponents = np.broadcast_arrays(a.astype(np.float64), b.astype(np.float64))
    powers = np.power(wide, np.array(exponents, order="C"))
    return powers if np.issubdtype(a.dtype, np.integer) else powers.astype(a.dtype)


_BINARY: dict[str, _Binary] = {
    "add": ("vector.alu", np.add, "a + b"),
    "sub": ("vector.alu", np.subtract, "a - b"),
    "mul": ("vector.mul", np.multiply, "a · b"),
    "div": ("special.div", _divide, "a / b; integers truncate towards zero"),
    "mod": ("special.div", _modulo, "remainder with the sign of b"),
    "fmod": ("special.div", _fmod, "remainder with the sign of a"),
    "pow": ("special.func", _power, "a to the power b"),
    "min": ("vector.alu", np.minimum, "the smaller"),
    "max": ("vector.alu", np.maximum, "the larger"),
    "and": ("vector.alu", np.logical_and, "logical and"),
    "or": ("vector.alu", np.logical_or, "logical or"),
    "xor": ("vector.alu", np.logical_xor, "logical exclusive or"),
    "bitand": ("vector.alu", np.bitwise_and, "bitwise and"),
    "bitor": ("vector.alu", np.bitwise_or, "bitwise or"),
    "bitxor": ("vector.alu", np.bitwise_xor, "bitwise exclusive or"),
    "shl": ("vector.alu", np.left_shift, "a shifted left by b"),
    "shr": ("vector.alu", np.right_shift, "a shifted right by b"),
    "eq": ("vector.alu", np.equal, "a = b"),
    "lt": ("vector.alu", np.less, "a < b"),
    "le": ("vector.alu", np.less_equal, "a ≤ b"),
    "gt": ("vector.alu", np.greater, "a > b"),
    "ge": ("vector.alu", np.greater_equal, "a ≥ b"),
}


def _sum(x: Array) -> Array:
    wide = np.float64 if is_float(x.dtype) else x.dtype
    return np.sum(np.ascontiguousarray(x), axis=-1, keepdims=True, dtype=wide)


def _mean(x: Array) -> Array:
    return np.asarray(np.mean(np.ascontiguousarray(x), axis=-1, keepdims=True, dtype=np.float64))


def _product(x: Array) -> Array:
    wide = np.float64 if is_float(x.dtype) else x.dtype
    return np.prod(np.ascontiguousarray(x), axis=-1, keepdims=True, dtype=wide)


def _maximum(x: Array) -> Array:
    return np.max(x, axis=-1, keepdims=True)


def _minimum(x: Array) -> Array:
    return np.min(x, axis=-1, keepdims=True)


def _argmax(x: Array) -> Array:
    return np.argmax(x, axis=-1, keepdims=True)


def _argmin(x: Array) -> Array:
    return np.argmin(x, axis=-1, keepdims=True)


_REDUCE: dict[str, _Unary] = {
    "reduce_sum": ("vector.alu", _sum, "sum"),
    "reduce_mean": ("vector.alu", _mean, "mean"),
    "reduce_prod": ("vector.mul", _product, "product"),
    "reduce_max": ("vector.alu", _maximum, "largest"),
    "reduce_min": ("vector.alu", _minimum, "smallest"),
    "reduce_argmax": ("vector.alu", _argmax, "index of the first largest"),
    "reduce_argmin": ("vector.alu", _argmin, "index of the first smallest"),
}

UNARY: dict[str, _Unary] = {name: (action, _one(f), doc) for name, (action, f, doc) in _UNARY.items()}
BINARY: dict[str, _Binary] = {name: (action, _two(f), doc) for name, (action, f, doc) in _BINARY.items()}
REDUCE: dict[str, _Unary] = {name: (action, _one(f), doc) for name, (action, f, doc) in _REDUCE.items()}
"""What elementwise instructions and reductions compute: halves in float32, rounded where the result is written."""


_SMALL = frozenset(np.dtype(t) for t in (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2))
_NARROW = _SMALL | frozenset(
    np.dtype(t)
    for t in (
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
        ml_dtypes.float8_e8m0fnu,
        ml_dtypes.float4_e2m1fn,
    )
)


def _without_nan(x: Array, y: Array) -> Array:
    """y, integers from the numbers x, with the lowest of them where x is NaN."""
    odd = np.isnan(x)
    if not odd.any():
        return y
    lowest = 0 if y.dtype.kind == "u" else -(1 << (8 * y.dtype.itemsize - 1))
    return np.where(odd, np.array(lowest).astype(y.dtype), y)


def cast(x: Array, dtype: np.dtype[np.generic]) -> Array:
    """Convert elements: to bool by comparing with zero, from float to integer truncating; out of range wraps as in
    C; NaN becomes the lowest number, as where codes are clipped by comparisons that it fails (onnxruntime's). To 8-bit and
    4-bit floats to the nearest, ties to even; beyond their range infinity or, where they have none, NaN (4 bits: the
    largest)."""
    if x.dtype in _NARROW:
        x = x.astype(np.float32)  # which has every number of theirs
    if dtype in _SMALL:
        return cast(x, np.dtype(np.int64)).astype(dtype)
    if dtype == np.bool_:
        return x != 0
    with np.errstate(invalid="ignore", over="ignore"):
        if is_float(x.dtype) and np.issubdtype(dtype, np.integer):
            y = np.trunc(x).astype(np.int64).astype(dtype) if dtype.itemsize < 8 else x.astype(dtype)
            return _without_nan(x, y)
        return x.astype(dtype)
