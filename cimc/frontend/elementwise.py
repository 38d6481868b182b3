"""Spellings of elementwise operators: arithmetic, comparison, logic, activations, casts."""

from __future__ import annotations

import math

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Unsupported, Value
from cimc.frontend.call import Call, NeedsHost, Operand, Translate, element_of, spelling
from cimc.frontend.narrow import converted
from cimc.frontend.record import Unreadable
from cimc.frontend.tensors import dtype_name, dtype_of
from cimc.ir.levels import FLOATS
from cimc.isa.operands import Element

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "IsNaN": "isnan",
    "Log": "log", "Neg": "neg", "Not": "not", "Reciprocal": "recip", "Relu": "relu", "Round": "round",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Softplus": "softplus", "Sqrt": "sqrt",
    "Tan": "tan", "Tanh": "tanh", "BitwiseNot": "bitnot",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "And": "and", "Or": "or", "Xor": "xor", "Equal": "eq",
    "Less": "lt", "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge", "BitwiseAnd": "bitand",
    "BitwiseOr": "bitor", "BitwiseXor": "bitxor",
}  # fmt: skip


def _unary(op: str) -> Translate:
    return lambda c: f.unary(c.b, op, c.x())


def _binary(op: str) -> Translate:
    return lambda c: f.binary(c.b, op, c.x(0), c.x(1))


for _name, _op in _UNARY.items():
    spelling(_name)(_unary(_op))
for _name, _op in _BINARY.items():
    spelling(_name)(_binary(_op))


def _fold_pairs(op: str) -> Translate:
    def translate(c: Call) -> Value:
        result = c.x(0)
        for other in c.tensors()[1:]:
            result = f.binary(c.b, op, result, other)
        return result

    return translate


for _name, _op in (("Min", "min"), ("Max", "max"), ("Sum", "add")):
    spelling(_name)(_fold_pairs(_op))


@spelling("Mean")
def mean(c: Call) -> Value:
    """The sum of all inputs over their number."""
    total = _fold_pairs("add")(c)
    assert isinstance(total, Value)
    return f.binary(c.b, "div", total, c.b.scalar(len(c), total.element))


@spelling("Pow")
def power(c: Call) -> Value:
    """``x ** y``; small whole exponents are left to the pow kernel too, so that values are NumPy's."""
    return f.binary(c.b, "pow", c.x(0), c.x(1))


@spelling("Mod")
def modulo(c: Call) -> Value:
    """``fmod`` = 1 takes the sign of the dividend."""
    return f.binary(c.b, "fmod" if c.int("fmod", 0) else "mod", c.x(0), c.x(1))


@spelling("BitShift")
def bit_shift(c: Call) -> Value:
    """Left or right by ``direction``."""
    direction = c.text("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise Impossible(f"direction {direction!r}")
    return f.binary(c.b, "shl" if direction == "LEFT" else "shr", c.x(0), c.x(1))


@spelling("IsInf")
def is_inf(c: Call) -> Value:
    """Infinities of the asked-for signs."""
    x, plus, minus = c.x(), c.int("detect_positive", 1), c.int("detect_negative", 1)
    if plus and minus:
        return f.unary(c.b, "isinf", x)
    if not plus and not minus:
        return f.expand(c.b, c.b.scalar(False, Element.B8), x.shape)
    return f.binary(c.b, "eq", x, c.b.scalar(math.inf if plus else -math.inf, x.element))


@spelling("Where")
def where(c: Call) -> Value:
    """Elements of the second input where the first is true, else of the third."""
    return f.select(c.b, c.x(0), c.x(1), c.x(2))


@spelling("Identity", "Dropout", runs="view", note="Dropout: inference mode only")
def identity(c: Call) -> tuple[Operand, ...]:
    """The input, whatever it is; a dropout's mask is all true in inference."""
    if c.node.op_type == "Identity":
        return c.inputs[:1]
    x = c.x()
    if len(c) > 2:
        training = c.known(2, "training_mode")
        ratio = c.known(1, "ratio")
        drops = ratio is None or float(ratio.reshape(-1)[0]) != 0.0
        if training is not None and bool(training.reshape(-1)[0]) and drops:
            raise Unsupported("training mode draws random numbers")
    if not c.wants(1):
        return (x,)
    return (x, f.expand(c.b, c.b.scalar(True, Element.B8), x.shape))


def target_element(c: Call, code: int) -> Element:
    """The element type of a cast's target. Raises Unsupported if there is none."""
    dtype = dtype_of(code)
    if isinstance(dtype, Unreadable):
        raise Unsupported(f"element type {dtype_name(code)} is not supported")
    return element_of(dtype)


@spelling("Cast", note="between all types but text; to float8e8m0 on the host")
def cast(c: Call) -> Value:
    """Elements in another type."""
    x, element = c.x(), target_element(c, c.int("to"))
    if x.element.narrow or element.narrow:
        return converted(c.b, x, element, saturate=bool(c.int("saturate", 1)))
    before, c.b.deferred = c.b.deferred, x.rank >= 2 and x.element in (Element.I8, Element.U8) and element in FLOATS
    try:
        # Weights stored as bytes: their integers stay visible until the passes have looked at them.
        return f.cast(c.b, x, element)
    finally:
        c.b.deferred = before


@spelling("CastLike")
def cast_like(c: Call) -> Value:
    """Elements in the type of the second input."""
    return converted(c.b, c.x(0), c.x(1).element, saturate=bool(c.int("saturate", 1)))


@spelling("Clip")
def clip(c: Call) -> Value:
    """Between a lower and an upper bound, attributes before opset 11 and inputs since."""
    x = c.x()
    low, high = c.opt(1), c.opt(2)
    if c.version < 11:
        low = c.b.scalar(c.float("min"), x.element) if c.has("min") else None
        high = c.b.scalar(c.float("max"), x.element) if c.has("max") else None
    if low is not None:
        x = f.binary(c.b, "max", x, low)
    return x if high is None else f.binary(c.b, "min", x, high)


@spelling("LeakyRelu")
def leaky_relu(c: Call) -> Value:
    """``max(x, 0) + alpha · min(x, 0)``."""
    return _leaky(c, c.x(), c.b.scalar(c.float("alpha", 0.01), c.x().element))


@spelling("PRelu")
def prelu(c: Call) -> Value:
    """Leaky relu with a learnt slope."""
    return _leaky(c, c.x(0), c.x(1))


def _leaky(c: Call, x: Value, slope: Value) -> Value:
    negative = f.binary(c.b, "lt", x, c.b.scalar(0, x.element))
    return f.select(c.b, negative, f.mul(c.b, x, slope), x)


@spelling("ThresholdedRelu")
def thresholded_relu(c: Call) -> Value:
    """x where it is above alpha, else 0."""
    x = c.x()
    above = f.binary(c.b, "gt", x, c.b.scalar(c.float("alpha", 1.0), x.element))
    return f.select(c.b, above, x, c.b.scalar(0, x.element))


def _exp_below(c: Call, x: Value, alpha: Value | None) -> Value:
    """``alpha · (exp(min(x, 0)) - 1)``: the minimum keeps the branch not taken finite."""
    low = f.binary(c.b, "min", x, c.b.scalar(0, x.element))
    return f.mul(c.b, f.shifted(c.b, f.unary(c.b, "exp", low), -1.0), alpha)


@spelling("Elu")
def elu(c: Call) -> Value:
    """x above 0, ``alpha · (exp(x) - 1)`` below."""
    x = c.x()
    below = _exp_below(c, x, c.b.scalar(c.float("alpha", 1.0), x.element))
    return f.select(c.b, f.binary(c.b, "gt", x, c.b.scalar(0, x.element)), x, below)


@spelling("Selu")
def selu(c: Call) -> Value:
    """Scaled elu; the defaults are those of the ONNX standard."""
    x = c.x()
    below = _exp_below(c, x, c.b.scalar(c.float("alpha", 1.67326319217681884765625), x.element))
    y = f.select(c.b, f.binary(c.b, "gt", x, c.b.scalar(0, x.element)), x, below)
    return f.scaled(c.b, y, c.float("gamma", 1.05070102214813232421875))


@spelling("Celu")
def celu(c: Call) -> Value:
    """``max(0, x) + min(0, alpha · (exp(x / alpha) - 1))``."""
    x, alpha = c.x(), c.float("alpha", 1.0)
    below = _exp_below(c, f.scaled(c.b, x, 1.0 / alpha), c.b.scalar(alpha, x.element))
    return f.add(c.b, f.unary(c.b, "relu", x), f.binary(c.b, "min", below, c.b.scalar(0, x.element)))


@spelling("HardSigmoid")
def hard_sigmoid(c: Call) -> Value:
    """``max(0, min(1, alpha · x + beta))``."""
    return _hard_sigmoid(c, c.x(), c.float("alpha", 0.2), c.float("beta", 0.5))


def _hard_sigmoid(c: Call, x: Value, alpha: float, beta: float) -> Value:
    y = f.shifted(c.b, f.scaled(c.b, x, alpha), beta)
    y = f.binary(c.b, "max", y, c.b.scalar(0, x.element))
    return f.binary(c.b, "min", y, c.b.scalar(1, x.element))


@spelling("HardSwish")
def hard_swish(c: Call) -> Value:
    """``x · hard_sigmoid(x)`` with slope 1/6."""
    return f.mul(c.b, c.x(), _hard_sigmoid(c, c.x(), 1 / 6, 0.5))


@spelling("Softsign")
def softsign(c: Call) -> Value:
    """``x / (1 + |x|)``."""
    return f.binary(c.b, "div", c.x(), f.shifted(c.b, f.unary(c.b, "abs", c.x()), 1.0))


@spelling("Mish")
def mish(c: Call) -> Value:
    """``x · tanh(softplus(x))``."""
    return f.mul(c.b, c.x(), f.unary(c.b, "tanh", f.unary(c.b, "softplus", c.x())))


@spelling("Swish")
def swish(c: Call) -> Value:
    """``x · sigmoid(alpha · x)``."""
    x, alpha = c.x(), c.float("alpha", 1.0)
    if alpha == 1.0:
        return f.unary(c.b, "silu", x)
    return f.mul(c.b, x, f.unary(c.b, "sigmoid", f.scaled(c.b, x, alpha)))


@spelling("Gelu")
def gelu(c: Call) -> Value:
    """With the error function, or its tanh approximation."""
    approximate = c.text("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise Impossible(f"approximate {approximate!r}")
    return f.unary(c.b, "gelu" if approximate == "none" else "gelu_tanh", c.x())


@spelling("Shrink")
def shrink(c: Call) -> Value:
    """Towards zero by ``bias`` outside ±``lambd``, zero inside."""
    x, bias, edge = c.x(), c.float("bias", 0.0), c.float("lambd", 0.5)
    if not x.floating:
        raise NeedsHost("Shrink of integers")
    zero = c.b.scalar(0, x.element)
    low = f.binary(c.b, "lt", x, c.b.scalar(-edge, x.element))
    high = f.binary(c.b, "gt", x, c.b.scalar(edge, x.element))
    return f.select(c.b, low, f.shifted(c.b, x, bias), f.select(c.b, high, f.shifted(c.b, x, -bias), zero))
