"""Random programs for the timing engines, drawn from the instruction table: every row takes part.

Messages are paired and drawn in one global order, so that only finite channels can make a program deadlock. Shapes need
not fit each other: timing looks at each operand alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from cimc.isa.instruction import (
    GLOBAL,
    INSTRUCTIONS,
    Derived,
    Instruction,
    Kind,
    Phase,
    Repeat,
    Spec,
    Step,
    Unit,
    Value,
    complete,
)
from cimc.isa.operands import Affine, Element, Extent, View
from cimc.isa.program import Buffer, GlobalBuffer, Program, TileProgram
from cimc.origin import Origin
from tests.sim.chips import do, matrix

TILES = 4
SIZE = 64  # elements of every buffer
LOCAL_BUFFERS = (
    Buffer("a", Element.F32, (SIZE,), 0),
    Buffer("b", Element.Q8, (SIZE,), 4 * SIZE),
    Buffer("c", Element.Q32, (SIZE,), 4 * SIZE + 32),  # shares addresses with b
)
GLOBALS = (
    GlobalBuffer("g", Element.F32, (SIZE,)),
    GlobalBuffer("h", Element.F32, (SIZE,), tile=1, address=1024),
    GlobalBuffer("k", Element.F32, (SIZE,), tile=3, address=1024),
)
MATRICES = (matrix("W", 8, 8, core=0), matrix("V", 8, 8, core=1), matrix("U", 8, 8, core=0))  # U shares W's core
WORK = tuple(s for s in INSTRUCTIONS.values() if s.unit not in (Unit.PORT, Unit.RECEIVE, Unit.CONTROL))

_PHASES = st.sampled_from(
    [None, Phase(1), Phase(3), *(Phase(s, t, n) for s in (0, 2) for n in (2, 3, 4) for t in range(n))]
)


@st.composite
def _views(draw: st.DrawFn, buffer: str, variable: str, *, fixed: bool = False) -> View:
    rows, cols = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    stride = draw(st.sampled_from([0, 4, 5]))
    grows = bool(variable) and not fixed and draw(st.booleans())
    first: Extent = Affine(1, ((variable, 1),)) if grows else rows
    shift = draw(st.sampled_from([0, 0, 4, 8])) if variable else 0
    offset = Affine.of(draw(st.integers(0, 20)), {variable: shift} if variable else {})
    return View(buffer, offset, (first, cols), (stride, 1))


@st.composite
def _work(draw: st.DrawFn, variable: str) -> Instruction:
    spec: Spec = draw(st.sampled_from(WORK))
    count = len(spec.operands) + (draw(st.integers(0, 2)) if spec.variadic else 0)
    operands: list[View | str] = []
    for i in range(count):
        kind = spec.operand(i).kind
        if kind is Kind.MATRIX:
            operands.append(draw(st.sampled_from([m.name for m in MATRICES])))
        elif kind in GLOBAL:
            operands.append(draw(_views(draw(st.sampled_from("ghk")), variable)))
        else:
            operands.append(draw(_views(draw(st.sampled_from("abc")), variable)))
    words: dict[str, Value] = {}
    for keyword in spec.keywords:
        if keyword.type is int:
            words[keyword.name] = draw(st.integers(0, 1))
        elif keyword.default is None:
            words[keyword.name] = {float: 1.0, str: "k", tuple: (0,)}[keyword.type]
    origin = Origin(draw(st.sampled_from(["l0", "l1", "l2"])))
    return Instruction(spec.mnemonic, tuple(operands), complete(spec, words), origin)


@st.composite
def _sum(draw: st.DrawFn, variable: str, to: int, sources: tuple[int, ...]) -> list[tuple[int, Instruction]]:
    """Parts of several tiles and the sum in one, which may be one of them. Sums of other tiles have other tags."""
    of = tuple(sorted({*sources, draw(st.integers(0, TILES - 1)), (sources[0] + 1) % TILES}))
    tag = draw(st.integers(0, 1)) * 16 + sum(1 << t for t in of)
    part = draw(_views("c", variable, fixed=True))
    taken = View("c", draw(_views("c", variable)).offset, part.shape, part.strides)
    parts = [(t, do("reduce", part, of=of, to=to, tag=tag, origin="l0")) for t in draw(st.permutations(of))]
    return [*parts, (to, do("collect", taken, of=of, tag=tag, origin="l2"))]


@st.composite
def _message(draw: st.DrawFn, variable: str) -> list[tuple[int, Instruction]]:
    source = draw(st.integers(0, TILES - 1))
    to = tuple(draw(st.lists(st.integers(0, TILES - 1), min_size=1, max_size=3, unique=True)))
    tag = draw(st.integers(0, 1))
    if draw(st.integers(0, 3)) == 0:
        token = do("signal", to=to, tag=tag)
        return [(source, token), *((t, do("wait", source=source, tag=tag)) for t in to)]
    if draw(st.integers(0, 2)) == 0:
        return draw(_sum(variable, source, to))
    sent = draw(_views("a", variable, fixed=True))
    received = View(draw(st.sampled_from("ac")), draw(_views("a", variable)).offset, sent.shape, sent.strides)
    sends = do("send", sent, to=to, tag=tag, origin="l0")
    return [(source, sends), *((t, do("recv", received, source=source, tag=tag, origin="l1")) for t in to)]


@st.composite
def _block(draw: st.DrawFn, variable: str, depth: int) -> list[list[Step]]:
    """Steps for every tile; nested blocks repeat the same number of times on all of them, so that messages pair."""
    streams: list[list[Step]] = [[] for _ in range(TILES)]
    for _ in range(draw(st.integers(4, 20) if variable == "" else st.integers(1, 6))):
        what = draw(st.integers(0, 5))
        if what <= 2:
            streams[draw(st.integers(0, TILES - 1))].append(draw(_work(variable)))
        elif what <= 4 or depth == 0:
            for tile, instruction in draw(_message(variable)):
                streams[tile].append(instruction)
        else:
            inner = f"i{depth}"
            times = draw(st.sampled_from([0, 1, 3, 12, 40]))
            offset, *numbers = (draw(st.integers(low, high)) for low, high in ((0, 9), (1, 3), (1, 6), (1, 4)))
            derived = draw(st.sampled_from([(), (Derived(f"d{depth}", offset, *numbers),)]))
            used = derived[0].name if derived else inner
            for stream, body in zip(streams, draw(_overlapping(draw(_block(used, depth - 1)))), strict=True):
                if body:
                    stream.append(Repeat(inner, times, tuple(body), derived))
    return streams


@st.composite
def _overlapping(draw: st.DrawFn, bodies: list[list[Step]]) -> list[list[Step]]:
    """Bodies of repeats, perhaps with phases. All messages have the same one, so that they come in the order they are taken."""
    if any(isinstance(step, Repeat) for body in bodies for step in body) or draw(st.booleans()):
        return bodies
    phases = [draw(_PHASES) for _ in range(4)]
    found: list[list[Step]] = [[] for _ in bodies]
    for made, body in zip(found, bodies, strict=True):
        for step in body:
            assert isinstance(step, Instruction)
            among = phases if INSTRUCTIONS[step.mnemonic] in WORK else phases[:1]
            made.append(replace(step, phase=draw(st.sampled_from(among))))
    return found


@st.composite
def programs(draw: st.DrawFn, *, sound: bool = True) -> Program:
    """Programs for a chip of four tiles; unless ``sound``, one tile's steps may be out of order, which makes messages
    miss each other."""
    streams = draw(_block("", 2))
    if not sound:
        victim = draw(st.integers(0, TILES - 1))
        streams[victim] = draw(st.permutations(streams[victim]))
    tiles = [TileProgram(n, LOCAL_BUFFERS, MATRICES, (*steps, do("halt"))) for n, steps in enumerate(streams) if steps]
    return Program("tiny", GLOBALS, (), (), tuple(tiles))
