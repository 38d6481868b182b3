"""What a row's rule lets through, its meaning computes: no exception, no warning, in every numerics. And the rows are
sound."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.isa import INSTRUCTIONS, Element, Kind, Shape, Spec, TileBuilder, complete, manual
from cimc.isa.instruction import Unit
from tests.golden import ROOT

Array = NDArray[np.generic]


@dataclass
class _Machine:
    """A machine of one tile that talks to itself."""

    exact: bool
    operand_bits: int = 8
    messages: list[Array] = field(default_factory=list[Array])

    def send(self, data: Array, to: tuple[int, ...], tag: int) -> None:
        self.messages.append(np.array(data))

    def receive(self, source: int, tag: int) -> Array | None:
        return self.messages.pop(0) if self.messages else None

    def host(self, call: str, inputs: list[Array]) -> list[Array]:
        raise AssertionError("no host here")


def _array(element: Element, extents: tuple[int, ...], exact: bool) -> Array:
    values = np.resize(np.array([3, 0, 1, 7, 2, 5]), extents)
    return values.astype(element.dtype(exact=exact))


def _pointwise() -> list[Spec]:
    """Rows whose operands are views that are computed with, without required keywords."""
    units = (Unit.VECTOR, Unit.SPECIAL, Unit.MATMUL)
    return [s for s in INSTRUCTIONS.values() if s.unit in units and all(k.default is not None for k in s.keywords)]


SHAPES: dict[int, list[tuple[tuple[int, ...], ...]]] = {
    2: [((2, 3), (2, 3)), ((2, 3), (1, 3)), ((2, 1), (2, 3)), ((), ())],
    3: [((2, 3),) * 3, ((2, 3), (2, 1), (3,)), ((2, 4), (2, 3), (3, 4)), ((2, 3), (2, 1), (2, 3)), ((), (), ())],
    4: [((2, 3),) * 4, ((2, 3), (2, 3), (2, 1), (1, 3)), ((),) * 4],
    5: [((2, 4), (2, 3), (2, 1), (3, 4), (1, 4)), ((2, 4), (2, 3), (2, 1), (3, 4), (4,)), ((2, 3),) * 5],
}


@pytest.mark.parametrize("spec", _pointwise(), ids=lambda s: s.mnemonic)
def test_what_the_rule_allows_the_meaning_computes(spec: Spec) -> None:
    ran = 0
    keywords = dict(complete(spec, {}))
    few = [Element.F32, Element.I32, Element.Q32, Element.Q8, Element.BF16, Element.B8]
    inner = [*Element] if len(spec.operands) < 4 else few
    alike = len(spec.operands) >= 4
    for y, *rest in SHAPES[len(spec.operands)]:
        for out, x, last in itertools.product(inner, inner, inner if alike else [None]):
            elements = [out, *((x, last, x, last) if len(rest) == 4 else (x, *([last or x] * (len(rest) - 1))))]
            shapes = [Shape(e, t) for e, t in zip((y, *rest), elements, strict=True)]
            if spec.rule(*shapes, **keywords):
                continue
            ran += 1
            for exact in (False, True):
                arrays = [_array(s.element, s.extents, exact) for s in shapes]
                with np.errstate(all="ignore"):  # as in the engine
                    spec.meaning(_Machine(exact), *arrays, **keywords)
    assert ran


@pytest.mark.parametrize("element", list(Element))
def test_fill_takes_what_its_element_holds(element: Element) -> None:
    spec = INSTRUCTIONS["fill"]
    for value in (0.0, 1.0, -1.0, 255.0, 1e6, 0.5, float("nan"), float("inf"), -(2.0**63), 2.0**64):
        y = _array(element, (3,), exact=False)
        if not spec.rule(Shape((3,), element), value=value):
            with np.errstate(all="ignore"):
                spec.meaning(_Machine(False), y, value=value)
            assert np.array_equal(y.astype(np.float64), [value] * 3, equal_nan=True) or abs(value) > 6e4
        else:
            assert element not in (Element.F64, Element.F32, Element.F16, Element.BF16)


def test_quantize_then_dequantize_is_near() -> None:
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    q, scale, y = np.zeros((3, 16), np.int8), np.zeros((3, 1), np.float32), np.zeros((3, 16), np.float32)
    INSTRUCTIONS["quantize"].meaning(_Machine(False), q, scale, x)
    one = np.ones((1, 16), np.float32)
    INSTRUCTIONS["dequantize"].meaning(_Machine(False), y, q.astype(np.int32), scale, one)
    assert np.abs(q).max(axis=-1).tolist() == [127, 127, 127]
    assert np.all(np.abs(x - y) <= scale / 2 * 1.0001)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_product_of_codes_is_that_of_the_values_they_were_rounded_from(exact: bool, scale: float) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 5, 48), (2, 48, 7)))
    b[0, :, 3] = 0  # a column of zeros has scale 1
    a[1] *= 1e6
    code = np.float32 if exact else np.int8
    machine, quantize = _Machine(exact), INSTRUCTIONS["quantize"].meaning
    qa, sa = np.zeros(a.shape, code), np.zeros((2, 5, 1), np.float32)
    qb, sb = np.zeros((2, 7, 48), code), np.zeros((2, 7, 1), np.float32)
    quantize(machine, qa, sa, a)
    quantize(machine, qb, sb, np.swapaxes(b, 1, 2))
    want, got = np.zeros((2, 5, 7), np.float32), np.zeros((2, 5, 7), np.float32)
    INSTRUCTIONS["matmul"].meaning(machine, want, a, b, scale=scale)
    turned = np.swapaxes(qb, 1, 2), np.swapaxes(sb, 1, 2)
    INSTRUCTIONS["matmul_codes"].meaning(machine, got, qa, sa, *turned, scale=scale)
    assert np.array_equal(want, got)


@pytest.mark.parametrize("spec", INSTRUCTIONS.values(), ids=lambda s: s.mnemonic)
def test_rows_are_sound(spec: Spec) -> None:
    assert spec.doc.rstrip().endswith(".")
    names = [o.name for o in spec.operands] + [k.name for k in spec.keywords]
    assert len(set(names)) == len(names)
    for keyword in spec.keywords:
        assert keyword.default is None or isinstance(keyword.default, keyword.type)
        assert keyword.doc
    for call in (spec.meaning, spec.bill, *([spec.cycles] if spec.cycles else [])):
        required = {n for n, p in inspect.signature(call).parameters.items() if p.kind is p.KEYWORD_ONLY}
        assert required == {k.name for k in spec.keywords}, call
    if spec.unit is Unit.CORE:
        assert any(o.kind is Kind.MATRIX for o in spec.operands)


def test_the_manual_is_up_to_date_and_complete() -> None:
    text = (ROOT.parent / "isa" / "INSTRUCTIONS.md").read_text(encoding="utf-8")
    assert text == manual.manual(), "python -m cimc.isa.manual > isa/INSTRUCTIONS.md"
    assert all(f"### {m}\n" in text for m in INSTRUCTIONS)


def test_the_builder_refuses_what_the_row_does_not_know() -> None:
    tile = TileBuilder(0)
    a = tile.buffer("a", Element.F32, (8,), 0)
    tile.matrix("W", 8, 8, [(0, 0, 8, 0, 8)])
    faults: list[tuple[type[Exception], str, tuple[object, ...], dict[str, object]]] = [
        (ValueError, "nge", (a, a), {}),
        (ValueError, "neg", (a,), {}),
        (ValueError, "neg", (a, "b"), {}),
        (ValueError, "load", (a, "a"), {}),
        (ValueError, "program", (a, a), {}),
        (TypeError, "fill", (a,), {}),
        (TypeError, "fill", (a,), {"value": "x"}),
        (TypeError, "neg", (a, a), {"value": 1}),
    ]
    for kind, mnemonic, operands, keywords in faults:
        with pytest.raises(kind):
            tile.emit(mnemonic, *operands, **keywords)  # pyright: ignore[reportArgumentType] - faults on purpose
    with pytest.raises(ValueError), tile.repeat("i", 2), tile.repeat("i", 2):
        pass
    tile = TileBuilder(0)
    tile.buffer("a", Element.F32, (8,), 0)
    with pytest.raises(ValueError):
        tile.buffer("a", Element.F32, (8,), 0)
    tile.emit("halt")
    assert len(tile.build().steps) == 1
