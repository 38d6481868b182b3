"""Tokens between a region and what works sample by sample before it (:mod:`cimc.mapping.ahead`): one for every sample, so that
the region begins with the first as soon as that one is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cimc.codegen.fold import When
from cimc.codegen.tilecode import instruction
from cimc.isa.instruction import INSTRUCTIONS, Kind, Repeat, Step, kinds
from cimc.isa.operands import Affine, View
from cimc.isa.program import TileProgram
from cimc.isa.ranges import Box, reach
from cimc.isa.visit import walk_tile

Sizes = Mapping[str, int]
"""Elements that a sample has in global arrays."""


def stored(steps: Sequence[Step], samples: int, sizes: Sizes) -> set[str]:
    """The global arrays of which steps store every sample in a round of its own of one loop over all; none if it is not so of
    all that they store."""
    (loop, *others) = steps or (None,)
    if not isinstance(loop, Repeat) or others or loop.count != samples or loop.derived:
        return set()
    found: set[str] = set()
    for view, box in _views(loop.body, Kind.GLOBAL_WRITE, {}):
        if not _within(view, loop.variable, sizes.get(view.buffer, 0), box):
            return set()
        found.add(view.buffer)
    return found


def signalled(steps: Sequence[Step], to: Sequence[int]) -> tuple[Step, ...]:
    """The one loop of steps that store sample by sample, with a token for some tiles at the end of each round."""
    (loop,) = steps
    assert isinstance(loop, Repeat)
    return (replace(loop, body=(*loop.body, instruction("signal", to=tuple(sorted(to))))),)


def awaited(
    stages: Mapping[When, Sequence[Step]],
    makers: Mapping[str, Sequence[int]],
    sample: str,
    sizes: Sizes,
    box: Box,
) -> dict[int, int]:
    """For whose tokens a tile with these stages must wait, one for every sample, of the tiles ``makers`` that store arrays (their
    names) sample by sample; and the step before which it needs that of the first sample. Stages that read more than their own
    sample's part wait for no token of its makers. ``sample``: the variable that counts samples; ``box``: bounds of the others."""
    found: dict[int, int] = {}
    never: set[int] = set()
    for when, steps in stages.items():
        for view, inner in _views(steps, Kind.GLOBAL_READ, box):
            for source in makers.get(view.buffer, ()):
                found[source] = min(when.start, found.get(source, when.start))
                if not _within(view, sample, sizes[view.buffer], inner):
                    never.add(source)
    return {source: start for source, start in found.items() if source not in never}


def _views(steps: Sequence[Step], kind: Kind, box: Box) -> Iterator[tuple[View, Box]]:
    """What steps read or write of global arrays, and the bounds of variables there."""
    for visit in walk_tile(TileProgram(0, (), (), tuple(steps)), box).visits:
        if INSTRUCTIONS[visit.step.mnemonic].reaches:
            for of, operand in zip(kinds(visit.step), visit.step.operands, strict=True):
                if isinstance(operand, View) and of is kind:
                    yield operand, visit.box


def _within(view: View, sample: str, size: int, box: Box) -> bool:
    """Whether a view lies in the part of an array that its sample has, ``size`` elements."""
    terms = dict(view.offset.terms)
    if terms.pop(sample, 0) != size or not size or not terms.keys() <= box.keys():
        return False
    least, most = reach(view.at(Affine.of(view.offset.constant, terms)), box)
    return least >= 0 and most < size
