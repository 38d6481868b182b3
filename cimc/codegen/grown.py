"""One program for a range of lengths, of the programs for two: what differs between them follows the length.

Both programs are made alike, for the greatest length and for a shorter one, and do the same in the same order. What may
differ are arrays (those of the longer one are taken), and the extents and offsets of views:

    length 1023:  matmul s, q, k[0; 64x1024; 1,64]      load k[65472; 64], new
    length 1022:  matmul s, q, k[0; 64x1023; 1,64]      load k[65408; 64], new
    both:         matmul s, q, k[0; 64x(n+1); 1,64]     load k[n*64; 64], new

Tiles, addresses and strides are those of the longer program, and a view of an array that is longer there is told by indices
(:mod:`cimc.codegen.corner`), which mean the same in both. That instructions together work on all elements, and on none twice,
are equations between offsets and extents; equations that hold for two lengths hold, affine as they are, for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TypeVar

from cimc.codegen.corner import steps_of
from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.operands import Affine, Extent, View, dense_strides, plain
from cimc.isa.printer import instruction_text
from cimc.isa.program import Buffer, GlobalBuffer, Param, Port, Program, TileProgram
from cimc.isa.ranges import Box


class Differs(Exception):
    """The programs differ in what does not follow the length: where, and in what."""


@dataclass(frozen=True)
class Line:
    """Numbers that follow a length: the param of that name, its range, and the shorter length."""

    param: Param
    short: int

    def through(self, long: int, short: int) -> Affine:
        """What is ``long`` at the greatest length and ``short`` at the shorter one. Raises Differs if it is no whole number
        between."""
        rise, rest = divmod(long - short, self.param.high - self.short)
        if rest:
            raise Differs(
                f"{short} at length {self.short} and {long} at {self.param.high} are on no line of whole numbers"
            )
        return Affine.of(long - rise * self.param.high, {self.param.name: rise})


T = TypeVar("T")
Array = Buffer | GlobalBuffer
Both = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""The shapes of an array in both programs."""
Boxes = tuple[Box, Box]
"""The variables of the repeats around a step in both."""


def grown(long: Program, short: Program, line: Line) -> Program:
    """The program of which both are what it is at the two lengths. Raises Differs."""
    shapes = _shapes("global buffer", long.globals, short.globals)
    tiles = _pairs("tile", [(str(t.tile), t) for t in long.tiles], [(str(t.tile), t) for t in short.tiles])
    return replace(
        long,
        params=(*long.params, line.param),
        inputs=_ports(long.inputs, short.inputs, shapes, line),
        outputs=_ports(long.outputs, short.outputs, shapes, line),
        tiles=tuple(_Tile(a, b, shapes, line).grown() for a, b in tiles),
    )


def _pairs(what: str, long: Sequence[tuple[str, T]], short: Sequence[tuple[str, T]]) -> list[tuple[T, T]]:
    """What has the same names in both, in the longer one's order."""
    there = dict(short)
    lost = next((n for n, _ in long if n not in there), None) or next(
        (n for n, _ in short if n not in dict(long)), None
    )
    if lost is not None:
        raise Differs(f"only one has a {what} {lost}")
    return [(found, there[name]) for name, found in long]


def _shapes(what: str, long: Sequence[Array], short: Sequence[Array]) -> Both:
    found: Both = {}
    for a, b in _pairs(what, [(x.name, x) for x in long], [(x.name, x) for x in short]):
        # What only a run works with may have more places than it needs, how many follows estimates of time: an axis in front.
        lasting = isinstance(a, GlobalBuffer) or a.state or a.key
        rank = max(len(a.shape), len(b.shape))
        shapes = tuple((1,) * (0 if lasting else rank - len(x.shape)) + x.shape for x in (a, b))
        alike = a.element is b.element and a.state == b.state and bool(a.key) == bool(b.key)
        alike = alike and len(shapes[0]) == len(shapes[1])
        if not alike or (lasting and any(n < m for n, m in zip(*shapes, strict=True))):
            raise Differs(f"{what} {a.name} is {_told(b)} in one and {_told(a)} in the other")
        found[a.name] = (shapes[0], shapes[1])
    return found


def _told(buffer: Array) -> str:
    return f"{buffer.element.value}[{'x'.join(map(str, buffer.shape))}]"


def _ports(long: Sequence[Port], short: Sequence[Port], shapes: Both, line: Line) -> tuple[Port, ...]:
    found: list[Port] = []
    for a, b in _pairs("input or output", [(p.name, p) for p in long], [(p.name, p) for p in short]):
        if a.buffer != b.buffer:
            raise Differs(f"{a.name} lies in {b.buffer} in one and in {a.buffer} in the other")
        shape = tuple(plain(line.through(n, m)) for n, m in zip(*shapes[a.buffer], strict=True))
        found.append(a if shape == shapes[a.buffer][0] else replace(a, shape=shape))
    return tuple(found)


class _Tile:
    """One tile's programs."""

    def __init__(self, long: TileProgram, short: TileProgram, shapes: Both, line: Line) -> None:
        self.long, self.short, self.line = long, short, line
        self.shared = shapes
        self.local = _shapes(f"buffer of tile {long.tile}", long.buffers, short.buffers)
        if [replace(m, line=0) for m in long.matrices] != [replace(m, line=0) for m in short.matrices]:
            raise Differs(f"the matrices of tile {long.tile} are not the same")

    def grown(self) -> TileProgram:
        """The tile's program for all lengths."""
        return replace(self.long, steps=tuple(self._steps(self.long.steps, self.short.steps, ({}, {}))))

    def _steps(self, long: Sequence[Step], short: Sequence[Step], box: Boxes) -> Iterator[Step]:
        for a, b in zip_longest(long, short):
            if isinstance(a, Repeat) and isinstance(b, Repeat):
                yield self._repeat(a, b, box)
            elif isinstance(a, Instruction) and isinstance(b, Instruction):
                yield self._instruction(a, b, box)
            else:
                raise Differs(f"tile {self.long.tile} does {_named(b)} in one and {_named(a)} in the other")

    def _repeat(self, a: Repeat, b: Repeat, box: Boxes) -> Repeat:
        if (a.variable, a.derived) != (b.variable, b.derived):
            raise Differs(f"repeats of tile {self.long.tile} count otherwise")
        inner = (_within(a, box[0]), _within(b, box[1]))
        count = self._extent(a.count, b.count)
        return replace(a, count=count, body=tuple(self._steps(a.body, b.body, inner)))

    def _instruction(self, a: Instruction, b: Instruction, box: Boxes) -> Instruction:
        alike = (a.mnemonic, a.keywords, a.phase) == (b.mnemonic, b.keywords, b.phase)
        if not alike or len(a.operands) != len(b.operands):
            raise Differs(f"tile {self.long.tile} does {_named(b)} in one and {_named(a)} in the other")
        if a.operands == b.operands and all(self._same(o) for o in a.operands):
            return a
        return a.on(tuple(self._operand(x, y, box) for x, y in zip(a.operands, b.operands, strict=True)))

    def _same(self, operand: View | str) -> bool:
        """Whether an array is as long in both."""
        if isinstance(operand, str):
            return True
        long, short = self._shape(operand)
        return long == short

    def _shape(self, view: View) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.local[view.buffer] if view.buffer in self.local else self.shared[view.buffer]

    def _operand(self, a: View | str, b: View | str, box: Boxes) -> View | str:
        if isinstance(a, str) or isinstance(b, str):
            if a != b:
                raise Differs(f"tile {self.long.tile} uses {b} in one and {a} in the other")
            return a
        if a.buffer != b.buffer or len(a.shape) != len(b.shape):
            raise Differs(f"tile {self.long.tile} uses {b.buffer} in one and {a.buffer} in the other")
        long, short = self._shape(a)
        return self._alike(a, b) if long == short else self._longer(a, b, long, short, box)

    def _extent(self, a: Extent, b: Extent) -> Extent:
        if isinstance(a, int) and isinstance(b, int):
            return plain(self.line.through(a, b))
        raise Differs(f"tile {self.long.tile} has extents that vary already")

    def _extents(self, a: View, b: View) -> tuple[Extent, ...]:
        return tuple(self._extent(n, m) for n, m in zip(a.shape, b.shape, strict=True))

    def _alike(self, a: View, b: View) -> View:
        """Views of an array that is as long in both."""
        extents = self._extents(a, b)
        several = [e != 1 for e in extents]
        if a.offset.terms != b.offset.terms or any(
            s != t for s, t, n in zip(a.strides, b.strides, several, strict=True) if n
        ):
            raise Differs(f"tile {self.long.tile} steps through {a.buffer} otherwise")
        return View(a.buffer, self._offset(a.offset, a.offset.constant, b.offset.constant), extents, a.strides)

    def _longer(self, a: View, b: View, long: tuple[int, ...], short: tuple[int, ...], box: Boxes) -> View:
        """Views of an array that is longer in the longer program."""
        there, here = steps_of(a, long, box[0]), steps_of(b, short, box[1])
        if there is None or here is None:
            raise Differs(f"tile {self.long.tile} goes through {a.buffer} from one row into the next")
        if (there.along, there.terms) != (here.along, here.terms):
            raise Differs(f"tile {self.long.tile} steps through {a.buffer} otherwise")
        moved = sum(i * s for i, s in zip(here.first, dense_strides(long), strict=True))
        return View(a.buffer, self._offset(a.offset, a.offset.constant, moved), self._extents(a, b), a.strides)

    def _offset(self, like: Affine, long: int, short: int) -> Affine:
        return Affine(0, like.terms) + self.line.through(long, short)


def _within(repeat: Repeat, box: Box) -> Box:
    """The box of variables in a body."""
    high = repeat.count if isinstance(repeat.count, int) else 0
    return {**box, repeat.variable: (0, max(0, high - 1)), **{d.name: d.bounds(high) for d in repeat.derived}}


def _named(step: Step | None) -> str:
    if step is None:
        return "nothing"
    return f"a repeat of {step.count}" if isinstance(step, Repeat) else f"`{instruction_text(step, {}, {})}`"
