"""Programs drawn from the instruction table: well-formed as text, not necessarily sensible to run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from cimc.isa import (
    INSTRUCTIONS,
    Affine,
    Block,
    Buffer,
    Derived,
    Element,
    GlobalBuffer,
    Instruction,
    Keyword,
    Kind,
    MatrixDecl,
    Param,
    Piece,
    Port,
    Program,
    Repeat,
    Spec,
    TileProgram,
    View,
    dense_strides,
)
from cimc.isa.instruction import GLOBAL, Phase
from cimc.isa.operands import implied_strides, plain
from cimc.origin import Origin

# Names that could be mistaken for something else: keywords of the text, shapes, mnemonics.
NAMES = st.sampled_from(
    [
        "x",
        "x8",
        "repeat",
        "state",
        "in",
        "scalar",
        "halt",
        "add",
        "i",
        "j",
        "pos",
        "inf",
        "nan",
        "a.b",
        "L0.q_1",
        "_",
        "to",
        "W0",
    ]
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SIZES = st.integers(0, 10**18 - 1) | st.integers(0, 40)
SIGNED = st.integers(-(10**18) + 1, 10**18 - 1) | st.integers(-9, 9)
SHAPES = st.lists(st.integers(0, 4096), max_size=4).map(tuple)
ELEMENTS = st.sampled_from(list(Element))
ORIGINS = st.none() | st.builds(Origin, TEXTS, st.sampled_from(["", "MatMul", "com.ms.Attention", "a b", "\u2028"]))


def affines(variables: list[str]) -> st.SearchStrategy[Affine]:
    if not variables:
        return SIGNED.map(Affine)
    terms = st.dictionaries(st.sampled_from(variables), SIGNED, max_size=3)
    return st.builds(Affine.of, SIGNED, terms)


@st.composite
def views(draw: st.DrawFn, shapes: dict[str, tuple[int, ...]], variables: list[str]) -> View:
    name = draw(st.sampled_from(sorted(shapes)))
    if draw(st.booleans()):
        return View(name, Affine(), shapes[name], dense_strides(shapes[name]))
    extents = SIZES | affines(variables) if variables else SIZES
    shape = tuple(draw(st.lists(extents, max_size=3)))
    strides = implied_strides(View("", Affine(), shape, ()).shape)
    if strides is None or draw(st.booleans()):
        strides = tuple(draw(st.lists(SIGNED, min_size=len(shape), max_size=len(shape))))
    return View(name, draw(affines(variables)), shape, strides)


def keyword_values(keyword: Keyword) -> st.SearchStrategy[object]:
    drawn = {
        int: SIGNED,
        float: st.floats(allow_nan=False) | st.just(math.nan),
        str: TEXTS,
        tuple: st.lists(SIGNED, max_size=3).map(tuple),
    }[keyword.type]
    return drawn if keyword.default is None else drawn | st.just(keyword.default)


@st.composite
def instructions(
    draw: st.DrawFn,
    spec: Spec,
    local: dict[str, tuple[int, ...]],
    shared: dict[str, tuple[int, ...]],
    matrices: list[str],
    variables: list[str],
) -> Instruction:
    count = len(spec.operands) + (draw(st.integers(0, 2)) if spec.variadic else 0)
    operands: list[View | str] = []
    for i in range(count):
        kind = spec.operand(i).kind
        if kind is Kind.MATRIX:
            operands.append(draw(st.sampled_from(matrices)))
        else:
            operands.append(draw(views(shared if kind in GLOBAL else local, variables)))
    keywords = tuple((k.name, draw(keyword_values(k))) for k in spec.keywords)
    return Instruction(spec.mnemonic, tuple(operands), keywords, draw(ORIGINS))


@st.composite
def steps(
    draw: st.DrawFn,
    local: dict[str, tuple[int, ...]],
    shared: dict[str, tuple[int, ...]],
    matrices: list[str],
    params: list[str],
    around: list[str],
) -> tuple[Instruction | Repeat, ...]:
    out: list[Instruction | Repeat] = []
    for _ in range(draw(st.integers(0, 3))):
        if len(around) < 3 and draw(st.integers(0, 3)) == 0:
            variable = draw(NAMES.filter(lambda n: n not in around and n not in params))
            known = {*around, *params, variable}
            names = draw(st.lists(NAMES.filter(lambda n, known=known: n not in known), max_size=2, unique=True))
            derived = tuple(
                Derived(n, draw(SIZES), draw(st.integers(1, 99)), draw(SIZES), draw(st.integers(1, 99))) for n in names
            )
            inner = draw(steps(local, shared, matrices, params, [*around, variable, *names]))
            count = draw(SIZES | affines(params)) if params else draw(SIZES)
            out.append(Repeat(variable, count, inner, derived))
            continue
        spec = draw(st.sampled_from(_writable(local, shared, matrices)))
        step = draw(instructions(spec, local, shared, matrices, [*around, *params]))
        out += draw(_in_turns(spec, step)) if around else [step]
    return tuple(out)


@st.composite
def _in_turns(draw: st.DrawFn, spec: Spec, step: Instruction) -> list[Instruction]:
    """The instruction of a repeat's body, perhaps late, perhaps in some rounds only, or with other keywords in each turn."""
    stage, turns = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    if draw(st.booleans()):
        phase = Phase(stage, draw(st.integers(0, turns - 1)), turns)
        return [replace(step, phase=None if phase == Phase() else phase)]
    if turns == 1:
        return [step]
    words = [tuple((k.name, draw(keyword_values(k))) for k in spec.keywords) for _ in range(turns)]
    return [replace(step, keywords=w, phase=Phase(stage, k, turns)) for k, w in enumerate(words)]


def _writable(local: dict[str, tuple[int, ...]], shared: dict[str, tuple[int, ...]], matrices: list[str]) -> list[Spec]:
    def fits(kind: Kind) -> bool:
        return bool(matrices if kind is Kind.MATRIX else shared if kind in GLOBAL else local)

    return [s for s in INSTRUCTIONS.values() if all(fits(o.kind) for o in s.operands)]


@st.composite
def tiles(draw: st.DrawFn, number: int, shared: dict[str, tuple[int, ...]], params: list[str]) -> TileProgram:
    buffers = draw(
        st.lists(
            st.builds(Buffer, NAMES, ELEMENTS, SHAPES, SIZES, TEXTS, st.booleans()),
            max_size=3,
            unique_by=lambda b: b.name,
        )
    )
    blocks = st.lists(st.builds(Block, SIZES, SIZES, SIZES, SIZES, SIZES), min_size=1, max_size=3).map(tuple)
    matrices = draw(
        st.lists(
            st.builds(MatrixDecl, NAMES, ELEMENTS, SIZES, SIZES, TEXTS, SIZES, SIZES, blocks),
            max_size=2,
            unique_by=lambda m: m.name,
        )
    )
    local = {b.name: b.shape for b in buffers}
    body = draw(steps(local, shared, [m.name for m in matrices], params, []))
    return TileProgram(number, tuple(buffers), tuple(matrices), body)


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    rank = draw(st.integers(1, 3))
    extents = st.lists(SIZES, min_size=rank, max_size=rank).map(tuple)
    strides = draw(st.lists(SIGNED, min_size=rank, max_size=rank).map(tuple))
    return Piece(draw(SIZES), draw(extents), draw(NAMES), draw(SIZES), draw(extents), strides)


@st.composite
def port(
    draw: st.DrawFn, buffers: st.SearchStrategy[str], params: Sequence[Param], shared: Sequence[GlobalBuffer]
) -> Port:
    """All of a buffer, or a corner of it, lawful or not."""
    found = Port(draw(TEXTS), draw(buffers))
    grown = st.builds(lambda n, p, k: plain(Affine.of(n, {p.name: k})), SIGNED, st.sampled_from(params), SIGNED)
    extents = st.lists(SIZES | grown if params else SIZES, min_size=1, max_size=3).map(tuple)
    shape = draw(st.none() | extents)
    whole = next(g.shape for g in shared if g.name == found.buffer)
    return found if shape == whole else replace(found, shape=shape)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    shared = draw(
        st.lists(
            st.builds(GlobalBuffer, NAMES, ELEMENTS, SHAPES, TEXTS, st.booleans())
            | st.builds(GlobalBuffer, NAMES, ELEMENTS, SHAPES, TEXTS, st.booleans(), tile=SIZES, address=SIZES)
            | st.builds(GlobalBuffer, NAMES, ELEMENTS, SHAPES, pieces=st.lists(pieces(), max_size=3).map(tuple)),
            max_size=3,
            unique_by=lambda g: g.name,
        )
    )
    limits = st.tuples(SIGNED, SIGNED).map(sorted)
    names = draw(st.lists(NAMES, max_size=2, unique=True))
    params = tuple(Param(n, *draw(limits)) for n in names)
    buffers = st.sampled_from([g.name for g in shared]) if shared else st.nothing()
    ports = st.lists(port(buffers, params, shared), max_size=2 if shared else 0, unique_by=lambda p: p.name)
    numbers = draw(st.lists(SIZES, max_size=2, unique=True))
    shapes = {g.name: g.shape for g in shared}
    header = draw(st.lists(st.sampled_from(["", "pipeline: a, b", "# nested", "  indented", ".tile 3"]), max_size=2))
    return Program(
        draw(TEXTS),
        tuple(shared),
        tuple(draw(ports)),
        tuple(draw(ports)),
        tuple(draw(tiles(n, shapes, list(names))) for n in numbers),
        params,
        tuple(header),
    )
