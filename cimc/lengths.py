"""One program for a range of lengths (``--dim past_sequence=1..1023``): which lengths are compiled for it, and whether what they
come to is one program with one set of constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from cimc import errors
from cimc.codegen.contents import Contents
from cimc.codegen.grown import Differs, Line, grown
from cimc.ir.evaluate import FLOAT_COMPANION
from cimc.ir.graph import Array
from cimc.isa.program import Param, Program
from cimc.isa.statement import MAX_NAME, NAME
from cimc.mapping.json_value import Json
from cimc.report.mapping_file import Work

RESTS = 2 * 3 * 5 * 7


@dataclass(frozen=True)
class Lengths:
    """A symbolic dim of the model that stays open: the program's parameter of that name, from ``low`` to ``high``.

    Raises LENGTHS for a range or name that no parameter can have."""

    name: str
    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high or self.high < 2:
            raise self.refused("that is no range of lengths", "write NAME=LOW..HIGH, as in past_sequence=1..511")
        if not NAME.fullmatch(self.name) or len(self.name) > MAX_NAME:
            raise self.refused(
                "a parameter's name has letters, digits and _ alone", "rename the dimension in the model"
            )

    def refused(self, why: str, fix: str) -> errors.CimcError:
        """The diagnostic of a range that one program does not serve."""
        return errors.LENGTHS(name=self.name, low=self.low, high=self.high, why=why, fix=fix)

    def unlike(self, length: int, why: str) -> errors.CimcError:
        """The diagnostic of a length at which another program would be needed."""
        told = f"at {length} it is not the program of {self.high}: {why}"
        fix = "steps of one token with --cache resident have one program; else a narrower range may do, or one length"
        return self.refused(told, fix)

    def unchecked(self) -> errors.CimcError:
        """The diagnostic of a range where outputs are to be compared with onnxruntime's."""
        return self.refused("a check compares at one length", f"give --dim {self.name}=N; compile takes the range")

    @property
    def shorter(self) -> tuple[int, ...]:
        """The lengths that are compiled beside the greatest: the least (1 in place of 0, at which arrays vanish), and one in
        the middle, which tells numbers that follow the length from others: it leaves another rest than the least when it is
        divided by 2, 3, 5, 7 or a multiple of these, so that what is rounded to multiples shows."""
        least = max(self.low, 1)
        half = range((least + self.high) // 2, least, -1)
        middle = next((n for n in half if gcd(n - least, RESTS) == 1), least)
        return tuple(sorted({least, middle} - {self.high}))


@dataclass(frozen=True)
class Made:
    """What a compile for one length came to."""

    length: int
    program: Program
    contents: Contents
    mapping: Mapping[str, Json]


def one_program(lengths: Lengths, long: Made, shorter: Sequence[Made]) -> Program:
    """The program that is each of these at its length. ``long``: of the greatest length. Raises LENGTHS."""
    param = Param(lengths.name, lengths.low, lengths.high)
    found: Program | None = None
    for short in shorter:
        try:
            one = grown(long.program, short.program, Line(param, short.length))
            if found is not None and one != found:
                raise Differs("what differs between three lengths is on no line")
            _check_constants(long, short)
        except Differs as why:
            raise lengths.unlike(short.length, str(why)) from None
        found = one
    assert found is not None
    return found


def mapped(lengths: Lengths, long: Made, shorter: Sequence[Made]) -> dict[str, Json]:
    """The mapping of the greatest length, with what the model multiplies at another one as well, so that reports know it at
    any; without any of it where that is on no line."""
    first, *others = shorter
    rest = {key: value for key, value in long.mapping.items() if key != "work"}
    here, there = long.mapping["work"], first.mapping["work"]
    assert isinstance(here, Mapping)
    assert isinstance(there, Mapping)
    work: dict[str, Json] = {
        **here,
        "shorter": {"name": lengths.name, "at": long.length, "length": first.length, **there},
    }
    try:
        found = Work.model_validate(work)
    except ValueError:
        return rest
    straight = all(found.at({lengths.name: m.length}) == Work.model_validate(m.mapping["work"]) for m in others)
    return {**long.mapping, "work": work} if straight else rest


def _check_constants(long: Made, short: Made) -> None:
    """Raise Differs if a constant of the shorter program is not the longer one's, or the corner of it."""
    other = dict(_renamed(long.program, short.program))
    for key in long.contents:
        there = other.get(key, key)
        if there not in short.contents or not _corner(long.contents[key], short.contents[there]):
            raise Differs(f"the constant '{key}' is another one: what is made of the length has to be an input")
        long.contents.release()
        short.contents.release()


def _renamed(long: Program, short: Program) -> Iterator[tuple[str, str]]:
    """The keys of arrays in the longer program, and those of the same arrays in the shorter one."""
    shared: Mapping[str, str] = {g.name: g.key for g in short.globals}
    local = {(t.tile, b.name): b.key for t in short.tiles for b in t.buffers}
    arrays = [(g.key, shared[g.name]) for g in long.globals if g.key]
    arrays += [(b.key, local[t.tile, b.name]) for t in long.tiles for b in t.buffers if b.key]
    for key, there in arrays:
        yield key, there
        yield f"{key}{FLOAT_COMPANION}", f"{there}{FLOAT_COMPANION}"


def _corner(long: Array, short: Array) -> bool:
    """Whether one array is the corner of the other."""
    fits = long.dtype == short.dtype and long.ndim == short.ndim
    if not fits or any(n < m for n, m in zip(long.shape, short.shape, strict=True)):
        return False
    part = long[(*(slice(n) for n in short.shape), ...)]
    return part.tobytes() == short.tobytes() if part.shape == long.shape else bool(np.array_equal(part, short))
