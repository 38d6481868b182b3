"""Values that cross segments, dealt out by blocks of rows: those that one tile takes turns with are an array of their own.

Where vector stages of streams hand rows to each other (a residual), tiles take turns with the blocks of both segments in the same
way: what one of them stores, one tile loads again. Cut by columns (:mod:`cimc.codegen.parts`) every block would go to the
homes of all parts and come back from there; dealt out, it lies where it is loaded, and does not travel at all if the same
tile stores it. Whether a value can be dealt out follows from the accesses alone: all take whole blocks, of one size, and each
those of one turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cimc.codegen.parts import MIN_BYTES, Access
from cimc.isa.instruction import Instruction
from cimc.isa.operands import Affine, View, static_shape
from cimc.isa.program import GlobalBuffer

MOST_TURNS = 8
"""Parts that a range of rows is dealt out to at most: as many as tiles take turns with a stage, and some more."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The blocks of an access: ``size`` elements from ``low`` on, and every ``step`` elements further up to ``high``; 0: one
    block only."""

    low: int
    high: int
    size: int
    step: int


@dataclass(frozen=True, slots=True)
class Deal:
    """How an array is dealt out: ``ranges`` of its elements, none of which meet, each in blocks of ``block`` elements; of
    ``turns`` parts of each range one has every ``turns``-th block."""

    block: int
    turns: int
    ranges: tuple[tuple[int, int], ...]

    def arrays(self, buffer: GlobalBuffer) -> tuple[GlobalBuffer, ...]:
        """The arrays of the parts. Block b lies ``b · block / turns`` elements behind the first of its part, so that the way to
        it follows the number of the block."""
        found: list[GlobalBuffer] = []
        for low, high in self.ranges:
            for _ in range(self.turns):
                found.append(GlobalBuffer(f"{buffer.name}.{len(found)}", buffer.element, (self._size(low, high),)))
        return tuple(found)

    def holds(self, access: Access) -> bool:
        """Whether an access stays within its part in all rounds of its loop, those of other turns too: a program's views are
        checked over all values of their variables (:mod:`cimc.isa.verify_steps`)."""
        of = _blocks(access)
        assert of is not None, "only blocks are dealt out"
        offset = self._moved(access.view, access).offset
        count = access.loops[0][1] if access.loops else 1
        last = offset.constant + (count - 1) * sum(by for _, by in offset.terms) + of.size
        return offset.constant >= 0 and last <= self._size(*self.ranges[self.range_of(of)])

    def range_of(self, of: _Blocks) -> int:
        """The number of the range that an access' blocks are in."""
        return next(i for i, (low, high) in enumerate(self.ranges) if low <= of.low < high)

    def _size(self, low: int, high: int) -> int:
        """Elements of the array of a part of a range."""
        blocks = -(-(high - low) // self.block)
        return self.block // self.turns * (blocks - 1) + self.block

    def split(self, step: Instruction, access: Access) -> Iterator[Instruction]:
        """A load or store of the array, done on the part it meets."""
        operands = (self._moved(access.view, access) if o is access.view else o for o in step.operands)
        yield step.on(tuple(operands))

    def _moved(self, view: View, access: Access) -> View:
        of = _blocks(access)
        assert of is not None, "the deal was made for all accesses"
        number = self.range_of(of)
        base = self.ranges[number][0]
        part = self.turns * number + (of.low - base) // self.block % self.turns
        terms = {name: by // self.turns for name, by in view.offset.terms}
        return View(
            f"{view.buffer}.{part}",
            Affine.of((view.offset.constant - base) // self.turns, terms),
            view.shape,
            view.strides,
        )


def deal(buffer: GlobalBuffer, found: Sequence[Access]) -> Deal | None:
    """How to deal out an array that these accesses, all there are, read and write; None if it cannot be."""
    known = [of for of in map(_blocks, found) if of is not None]
    if buffer.bytes < MIN_BYTES or not known or len(known) < len(found):
        return None
    block = max(of.size for of in known)
    if any(of.step % block for of in known):
        return None
    turns = math.gcd(*(of.step // block for of in known))
    ranges = _apart(known)
    if not 1 <= turns <= MOST_TURNS or block % turns or turns * len(ranges) < 2:
        return None
    made = Deal(block, turns, ranges)
    whole = all((of.low - ranges[made.range_of(of)][0]) % block == 0 for of in known)
    return made if whole and all(map(made.holds, found)) else None


def _blocks(access: Access) -> _Blocks | None:
    """The blocks an access takes, None if they do not lie in one piece each, or a loop inside others moves it."""
    view, size = access.view, 1
    for n, stride in zip(reversed(static_shape(view)), reversed(view.strides), strict=True):
        if n > 1 and stride != size:
            return None
        size *= n
    if len(access.loops) > 1 or len(view.offset.terms) > len(access.loops):
        return None
    count = access.loops[0][1] if access.loops else 1
    by = view.offset.terms[0][1] if view.offset.terms else 0
    rounds = len(range(access.turn, count, access.turns))
    if by < 0 or not rounds:
        return None
    low, step = view.offset.constant + by * access.turn, by * access.turns
    return _Blocks(low, low + step * (rounds - 1) + size, size, step if rounds > 1 else 0)


def _apart(known: Sequence[_Blocks]) -> tuple[tuple[int, int], ...]:
    """The ranges that the blocks of some accesses fill, joined where they meet."""
    found: list[tuple[int, int]] = []
    for of in sorted(known, key=lambda of: of.low):
        if found and of.low < found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], of.high)
        else:
            found.append((of.low, of.high))
    return tuple(found)
