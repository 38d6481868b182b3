"""Vector and special-function instructions: elementwise, reductions, softmax, norms, quantize and dequantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cimc.isa import rules
from cimc.isa.instruction import Actions, Array, Keyword, Kind, Machine, Operand, Shape, Spec, Unit, declare
from cimc.isa.kernels import (
    BINARY,
    REDUCE,
    UNARY,
    cast,
    layer_norm,
    log_softmax,
    rms_norm,
    softmax,
    symmetric_codes,
)

if TYPE_CHECKING:  # the rows are read long before a chip is
    from cimc.arch.units import TileUnits

_Y = Operand("y", Kind.WRITE)
_X = Operand("x", Kind.READ)


def _unit(actions: tuple[str, ...]) -> Unit:
    return Unit.SPECIAL if any(a.startswith("special.") for a in actions) else Unit.VECTOR


_LOGICAL = {"not", "and", "or", "xor", "eq", "lt", "le", "gt", "ge"}
_ORDERED = {"min", "max", "reduce_max", "reduce_min", "reduce_argmax", "reduce_argmin"}


def _elements(mnemonic: str, action: str) -> rules.Elements:
    """What an elementwise instruction or a reduction reads."""
    if mnemonic in _LOGICAL or mnemonic in _ORDERED:
        return rules.COMPUTED
    if mnemonic.startswith("bit"):
        return rules.BITS
    if mnemonic in ("shl", "shr"):
        return rules.INTEGER
    if mnemonic == "pow" or mnemonic in ("div", "mod", "fmod"):
        return rules.FLOATING | rules.INTEGER
    return rules.FLOATING if action.startswith("special.") else rules.NUMBER


def _put(y: Array, value: Array) -> None:
    # NumPy makes contiguous copies of scalars one-dimensional: give them y's rank back.
    np.copyto(y, value if value.ndim <= y.ndim else value.reshape(y.shape), casting="unsafe")


def _declare_unary(mnemonic: str, action: str, function: Callable[[Array], Array], doc: str) -> None:
    def meaning(machine: Machine, y: Array, x: Array) -> None:
        _put(y, function(np.ascontiguousarray(x)))

    def bill(units: TileUnits, y: Shape, x: Shape) -> Actions:
        return {action: y.size}

    declare(
        Spec(
            mnemonic,
            (_Y, _X),
            _unit((action,)),
            meaning,
            bill,
            f"y = {doc}, element by element.",
            rule=rules.unary(_elements(mnemonic, action)),
        )
    )


def _declare_binary(mnemonic: str, action: str, function: Callable[[Array, Array], Array], doc: str) -> None:
    def meaning(machine: Machine, y: Array, a: Array, b: Array) -> None:
        _put(y, function(np.ascontiguousarray(a), np.ascontiguousarray(b)))

    def bill(units: TileUnits, y: Shape, a: Shape, b: Shape) -> Actions:
        return {action: y.size}

    operands = (_Y, Operand("a", Kind.READ), Operand("b", Kind.READ))
    text = f"y = {doc}, element by element; extents of 1 broadcast."
    rule = rules.binary(_elements(mnemonic, action), alike=mnemonic != "pow")
    declare(Spec(mnemonic, operands, _unit((action,)), meaning, bill, text, rule=rule))


def _declare_reduce(mnemonic: str, action: str, function: Callable[[Array], Array], doc: str) -> None:
    def meaning(machine: Machine, y: Array, x: Array) -> None:
        _put(y, function(x))

    def bill(units: TileUnits, y: Shape, x: Shape) -> Actions:
        return {action: x.size}

    text = (
        f"y (rows × 1) = {doc} of each row of x (rows × columns). Floating-point sums are carried in double precision."
    )
    rule = rules.reduction(_elements(mnemonic, action))
    declare(Spec(mnemonic, (_Y, _X), _unit((action,)), meaning, bill, text, rule=rule))


for _name, (_action, _function, _doc) in UNARY.items():
    _declare_unary(_name, _action, _function, _doc)
for _name, (_action, _binary, _doc) in BINARY.items():
    _declare_binary(_name, _action, _binary, _doc)
for _name, (_action, _function, _doc) in REDUCE.items():
    _declare_reduce(_name, _action, _function, _doc)


def _select(machine: Machine, y: Array, condition: Array, a: Array, b: Array) -> None:
    _put(y, np.where(condition, a, b))


declare(
    Spec(
        "select",
        (_Y, Operand("condition", Kind.READ), Operand("a", Kind.READ), Operand("b", Kind.READ)),
        Unit.VECTOR,
        _select,
        lambda units, y, condition, a, b: {"vector.alu": y.size},
        "y = a where condition, else b, element by element; extents of 1 broadcast.",
        rule=rules.select,
    )
)


def _cast(machine: Machine, y: Array, x: Array) -> None:
    _put(y, cast(x, y.dtype))


declare(
    Spec(
        "cast",
        (_Y, _X),
        Unit.VECTOR,
        _cast,
        lambda units, y, x: {"vector.alu": y.size},
        "y = x converted to y's element type. To integers it truncates towards zero, NaN to the lowest number; to b8 it"
        " compares with zero.",
        rule=rules.unary(rules.ANY),
    )
)


def _fill(machine: Machine, y: Array, *, value: float) -> None:
    y[...] = value


declare(
    Spec(
        "fill",
        (_Y,),
        Unit.VECTOR,
        _fill,
        lambda units, y, *, value: {"vector.alu": y.size},
        "y = value.",
        (Keyword("value", float, None, "what every element becomes"),),
        rule=rules.fill,
    )
)


def _softmax(machine: Machine, y: Array, x: Array) -> None:
    _put(y, softmax(x))


def _softmax_bill(units: TileUnits, y: Shape, x: Shape) -> Actions:
    # maximum, subtract, sum: three passes of the ALU; one exponential and one division an element.
    return {"vector.alu": 3 * x.size, "special.func": x.size, "special.div": x.size}


declare(
    Spec(
        "softmax",
        (_Y, _X),
        Unit.SPECIAL,
        _softmax,
        _softmax_bill,
        "y = softmax of each row of x (rows × columns).",
        rule=rules.rowwise,
    )
)


def _log_softmax(machine: Machine, y: Array, x: Array) -> None:
    _put(y, log_softmax(x))


def _log_softmax_bill(units: TileUnits, y: Shape, x: Shape) -> Actions:
    return {"vector.alu": 4 * x.size, "special.func": x.size + x.rows}


declare(
    Spec(
        "log_softmax",
        (_Y, _X),
        Unit.SPECIAL,
        _log_softmax,
        _log_softmax_bill,
        "y = logarithm of the softmax of each row of x (rows × columns).",
        rule=rules.rowwise,
    )
)

_EPSILON = (Keyword("epsilon", float, None, "added under the root"),)


def _layer_norm(machine: Machine, y: Array, x: Array, *, epsilon: float) -> None:
    _put(y, layer_norm(x, epsilon))


def _layer_norm_bill(units: TileUnits, y: Shape, x: Shape, *, epsilon: float) -> Actions:
    # mean, subtract, square, mean, scale: three ALU passes and two multiplications an element, one root a row.
    return {"vector.alu": 3 * x.size, "vector.mul": 2 * x.size, "special.func": x.rows}


declare(
    Spec(
        "layer_norm",
        (_Y, _X),
        Unit.SPECIAL,
        _layer_norm,
        _layer_norm_bill,
        "y = (x - mean) / sqrt(variance + epsilon) of each row; gain and bias are a `mul` and an `add`.",
        _EPSILON,
        rule=rules.rowwise,
    )
)


def _rms_norm(machine: Machine, y: Array, x: Array, *, epsilon: float) -> None:
    _put(y, rms_norm(x, epsilon))


def _rms_norm_bill(units: TileUnits, y: Shape, x: Shape, *, epsilon: float) -> Actions:
    return {"vector.alu": x.size, "vector.mul": 2 * x.size, "special.func": x.rows}


declare(
    Spec(
        "rms_norm",
        (_Y, _X),
        Unit.SPECIAL,
        _rms_norm,
        _rms_norm_bill,
        "y = x / sqrt(mean(x²) + epsilon) of each row; the gain is a `mul`.",
        _EPSILON,
        rule=rules.rowwise,
    )
)


def _quantize(machine: Machine, y: Array, scale: Array, x: Array) -> None:
    if machine.exact:
        scale[...] = 1
        _put(y, x)
        return
    codes, scales = symmetric_codes(x, 8 * y.dtype.itemsize, -1)
    _put(scale, scales)
    _put(y, codes)


def _quantize_bill(units: TileUnits, y: Shape, scale: Shape, x: Shape) -> Actions:
    # |x| and maximum, then multiply by the reciprocal and round; one division a row.
    return {"vector.alu": 3 * x.size, "vector.mul": x.size, "special.div": x.rows}


declare(
    Spec(
        "quantize",
        (_Y, Operand("scale", Kind.WRITE), _X),
        Unit.VECTOR,
        _quantize,
        _quantize_bill,
        """Symmetric quantisation with one scale per row, found at run time: scale (rows × 1) = max|x| / (2^(bits-1) -
        1), y = x / scale rounded to the nearest integer, ties to even. `float` numerics: y = x, scale = 1. y is q8 or
        q16, scale f32, x floating-point.""",
        rule=rules.quantize,
    )
)


def _quantize_static(machine: Machine, y: Array, x: Array, scale: Array) -> None:
    if machine.exact:
        _put(y, x)
        return
    top = 2 ** (8 * y.dtype.itemsize - 1) - 1
    _put(y, np.clip(np.rint(np.ascontiguousarray(x) / scale), -top, top))


declare(
    Spec(
        "quantize_static",
        (_Y, _X, Operand("scale", Kind.READ)),
        Unit.VECTOR,
        _quantize_static,
        lambda units, y, x, scale: {"vector.alu": 2 * x.size, "vector.mul": x.size},
        """Symmetric quantisation with a given scale (broadcast): y = x / scale rounded, ties to even, and clipped.
        `float` numerics: y = x.""",
        rule=rules.quantize_static,
    )
)


def _dequantize(machine: Machine, y: Array, x: Array, scale: Array, weight_scale: Array) -> None:
    if machine.exact:
        _put(y, x)
        return
    _put(y, x.astype(np.float32) * (scale * weight_scale))


declare(
    Spec(
        "dequantize",
        (_Y, _X, Operand("scale", Kind.READ), Operand("weight_scale", Kind.READ)),
        Unit.VECTOR,
        _dequantize,
        lambda units, y, x, scale, weight_scale: {"vector.alu": x.size, "vector.mul": 2 * x.size},
        """y = x · (scale · weight_scale), in single precision and in this order: x (rows × columns) the q32 sums of
        an MVM, scale (rows × 1) the activations' scales, weight_scale (1 × columns) the weights'. `float` numerics: y
        = x.""",
        rule=rules.dequantize,
    )
)
