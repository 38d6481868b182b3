"""The law of programs: what must hold before one may run. Everything that is wrong is told at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from cimc import errors, files
from cimc.arch.spec import ChipSpec
from cimc.isa.assembler import MAX_NESTING
from cimc.isa.instruction import Repeat
from cimc.isa.lives import Repeats, clashes, lives
from cimc.isa.operands import Element
from cimc.isa.program import Buffer, GlobalBuffer, MatrixDecl, Program, TileProgram, Weights
from cimc.isa.ranges import Box, bounds
from cimc.isa.statement import NAME
from cimc.isa.text import MAX_BYTES, parse_program
from cimc.isa.verify_cells import check_cells
from cimc.isa.verify_channels import check_channels
from cimc.isa.verify_held import check_held
from cimc.isa.verify_homes import check_homes
from cimc.isa.verify_phases import check_phases
from cimc.isa.verify_ports import check_ports
from cimc.isa.verify_steps import StepChecker
from cimc.isa.visit import Faults, Walk, walk_tile

MAX_INSTRUCTIONS = 2**31
"""Instructions a run may execute, over all tiles: more would take days."""

MAX_ARRAY_BYTES = 2**40


def verify(program: Program, chip: ChipSpec | None = None, weights: Weights | None = None, *, text: str = "") -> None:
    """Check a program against the ISA's law (isa/SPEC.md, "What a program must obey"), against a chip and against its
    weights where these are given. ``text``: what it was parsed from, for excerpts in messages.

    Raises CimcError, or CimcErrors with every fault (at most 50)."""
    faults = Faults(program, text)
    params = _params(program, faults)
    _globals(program, chip, weights, faults)
    shared = {g.name: g for g in program.globals if not g.held}
    check_homes(program, chip, faults)
    check_held(program, faults)
    check_ports(program, params, faults)
    _unique("tile", ((str(t.tile), t.line) for t in program.tiles), faults)
    walks: list[tuple[TileProgram, Walk]] = []
    lawful: set[Hashable] = set()
    unphased = check_phases(program, faults)
    for place, tile in enumerate(program.tiles):
        if place in unphased or _too_deep(tile, faults):
            continue
        walk = walk_tile(tile, params)
        walks.append((tile, walk))
        _tile(tile, chip, weights, faults)
        _variables(tile, walk, params, faults)
        checker = StepChecker(tile, shared, faults, chip, weights, lawful)
        checker.check(walk)
        _overlaps(tile, checker, walk, faults)
        check_cells(tile, checker.cells, walk, faults)
    faults.raise_if_any()  # channels and counts are judged only where every instruction makes sense
    check_channels(walks, params, faults)
    _length(walks, params, faults)
    faults.raise_if_any()


def assemble(path: str | Path, chip: ChipSpec | None = None, weights: Weights | None = None) -> Program:
    """Read, parse and verify a program. Raises CimcError(s); the path may come from anywhere."""
    text = files.read_text(Path(path), "program", MAX_BYTES)
    program = parse_program(text, str(path))
    verify(program, chip, weights, text=text)
    return program


# --- what stands before the tiles -------------------------------------------------------------------
def _params(program: Program, faults: Faults) -> Box:
    _unique("param", ((p.name, p.line) for p in program.params), faults)
    for p in program.params:
        _named("param", p.name, p.line, faults)
        if p.low > p.high:
            what = f"the range {p.low}..{p.high} of '{p.name}' is empty"
            faults.report(errors.WRONG_DECLARATION, p.line, f"param {p.name}", what=what, hint="write low..high")
    return {p.name: (p.low, max(p.low, p.high)) for p in program.params}


def _globals(program: Program, chip: ChipSpec | None, weights: Weights | None, faults: Faults) -> None:
    _unique("global buffer", ((g.name, g.line) for g in program.globals), faults)
    _unique("input", ((p.name, p.line) for p in program.inputs), faults)
    _unique("output", ((p.name, p.line) for p in program.outputs), faults)
    for g in program.globals:
        _named("global buffer", g.name, g.line, faults)
        _array(g, f"global buffer {g.name}", weights, faults)
    stored = [g for g in program.globals if not g.resident and not g.held]
    need = sum(g.bytes for g in stored)
    if chip is not None and need > chip.memory.capacity_bytes:
        what = f"global memory of {chip.name}, bytes"
        largest = max(stored, key=lambda g: g.bytes)
        hint = f"the largest global buffer is '{largest.name}' with {largest.bytes} bytes"
        faults.report(
            errors.PROGRAM_TOO_BIG, 0, "program", what=what, need=need, have=chip.memory.capacity_bytes, hint=hint
        )


def _array(buffer: Buffer | GlobalBuffer, place: str, weights: Weights | None, faults: Faults) -> None:
    if any(e < 0 for e in buffer.shape) or buffer.bytes > MAX_ARRAY_BYTES:
        what = f"'{buffer.name}' takes {buffer.bytes} bytes: between 0 and {MAX_ARRAY_BYTES} are possible"
        faults.report(errors.WRONG_DECLARATION, buffer.line, place, buffer.name, what=what, hint="check its extents")
    if not buffer.key or weights is None:
        return
    found = weights.get(buffer.key)
    what = f"'{buffer.name}' takes '{buffer.key}' from the weights, "
    if found is None:
        faults.report(errors.WRONG_WEIGHTS, buffer.line, place, what=what + "which have no such key")
    elif found.shape != buffer.shape or not _stored(buffer.element, found.dtype):
        what += f"{buffer.element.value} {list(buffer.shape)}, which hold {found.dtype} {list(found.shape)} there"
        faults.report(errors.WRONG_WEIGHTS, buffer.line, place, what=what)


def _stored(element: Element, dtype: np.dtype[np.generic]) -> bool:
    """Whether the weights may hold an element so; narrow ones also as the bytes they are in a file."""
    return dtype in (element.dtype(exact=False), element.dtype(exact=True)) or (element.narrow and dtype == np.uint8)


def _unique(kind: str, names: Iterable[tuple[str, int]], faults: Faults) -> None:
    seen: set[str] = set()
    for name, line in names:
        if name in seen:
            faults.report(errors.DUPLICATE_NAME, line, f"{kind} {name}", name, kind=kind, name=name)
        seen.add(name)


def _named(kind: str, name: str, line: int, faults: Faults) -> None:
    if not NAME.fullmatch(name):
        what, hint = f"{name!r} is no name for a {kind}", "letters, digits, '_' and '.', no digit or '.' first"
        faults.report(errors.WRONG_DECLARATION, line, f"{kind} {name!r}", what=what, hint=hint)


# --- tiles ------------------------------------------------------------------------------------------
def _tile(tile: TileProgram, chip: ChipSpec | None, weights: Weights | None, faults: Faults) -> None:
    place = f"tile {tile.tile}"
    if tile.tile < 0 or (chip is not None and tile.tile >= chip.tile_count):
        have = f"{chip.name} has tiles 0 to {chip.tile_count - 1}" if chip else "tiles are numbered from 0"
        what = f"there is no tile {tile.tile}"
        faults.report(errors.WRONG_DECLARATION, tile.line, place, str(tile.tile), what=what, hint=have)
        chip = None
    _unique("buffer", ((b.name, b.line) for b in tile.buffers), faults)
    _unique("matrix", ((m.name, m.line) for m in tile.matrices), faults)
    for b in tile.buffers:
        _named("buffer", b.name, b.line, faults)
        _array(b, f"{place}, buffer {b.name}", weights, faults)
        _address(b, tile, chip, faults)
    for m in tile.matrices:
        _named("matrix", m.name, m.line, faults)
        _matrix(m, tile, chip, weights, faults)


def _address(buffer: Buffer, tile: TileProgram, chip: ChipSpec | None, faults: Faults) -> None:
    place = f"tile {tile.tile}, buffer {buffer.name}"
    if buffer.address < 0 or buffer.address % buffer.element.bytes:
        what = f"'{buffer.name}' stands at byte {buffer.address}"
        hint = f"{buffer.element.value} stands at multiples of {buffer.element.bytes}"
        faults.report(errors.WRONG_DECLARATION, buffer.line, place, buffer.name, what=what, hint=hint)
    if chip is None:
        return
    have, need = chip.tile(tile.tile).local_bytes, buffer.address + buffer.bytes
    if need > have:
        what, hint = f"local memory of tile {tile.tile}, bytes up to the end of '{buffer.name}'", "move or cut it"
        faults.report(
            errors.PROGRAM_TOO_BIG, buffer.line, place, buffer.name, what=what, need=need, have=have, hint=hint
        )


def _matrix(
    matrix: MatrixDecl, tile: TileProgram, chip: ChipSpec | None, weights: Weights | None, faults: Faults
) -> None:
    place = f"tile {tile.tile}, matrix {matrix.name}"
    for what, hint in (*_cut(matrix), *_cores(matrix, tile, chip), *_codes(matrix, weights)):
        faults.report(errors.WRONG_DECLARATION, matrix.line, place, matrix.name, what=what, hint=hint)


def _cut(matrix: MatrixDecl) -> Iterable[tuple[str, str]]:
    """Blocks are not empty, lie in the matrix and cover it exactly once."""
    name, rows, cols = matrix.name, matrix.rows, matrix.cols
    if matrix.element not in (Element.Q8, Element.Q16, Element.I8, Element.I16):
        yield f"the weights of '{name}' are {matrix.element.value}", "cells hold q8, q16, i8 or i16"
    if rows < 1 or cols < 1:
        yield f"'{name}' is {rows}x{cols}", "a matrix has a row and a column at least"
        return
    for b in matrix.blocks:
        if not (0 <= b.row < b.row_end <= rows and 0 <= b.col < b.col_end <= cols):
            cut = f"[{b.row}:{b.row_end}, {b.col}:{b.col_end}]"
            yield f"block {cut} of core {b.core} is empty or outside '{name}' ({rows}x{cols})", "ends are exclusive"
            return
    cells = sum((b.row_end - b.row) * (b.col_end - b.col) for b in matrix.blocks)
    if cells != rows * cols or _doubled(matrix):
        yield f"the blocks of '{name}' do not cover its {rows}x{cols} weights exactly once", "each weight stands in one"


def _doubled(matrix: MatrixDecl) -> bool:
    box = np.array([(b.row, b.row_end, b.col, b.col_end) for b in matrix.blocks], np.int64)
    for i in range(len(box) - 1):
        row, row_end, col, col_end = box[i]
        rest = box[i + 1 :]
        if np.any((rest[:, 0] < row_end) & (row < rest[:, 1]) & (rest[:, 2] < col_end) & (col < rest[:, 3])):
            return True
    return False


def _cores(matrix: MatrixDecl, tile: TileProgram, chip: ChipSpec | None) -> Iterable[tuple[str, str]]:
    """Cores are there, hold one block each, and the block fits."""
    used = [b.core for b in matrix.blocks]
    for core in sorted({c for c in used if used.count(c) > 1}) if len(set(used)) < len(used) else ():
        yield f"core {core} holds two blocks of '{matrix.name}'", "a core holds one block of one matrix"
    if chip is None:
        return
    spec = chip.tile(tile.tile)
    for b in matrix.blocks:
        if spec.core is None or not 0 <= b.core < spec.cores:
            have = f"cores 0 to {spec.cores - 1}" if spec.core else "no cores"
            yield f"there is no core {b.core}", f"tile {tile.tile} ({chip.kind(tile.tile)}) has {have}"
        elif b.row_end - b.row > spec.core.rows or b.col_end - b.col > spec.core.cols:
            size = f"{b.row_end - b.row}x{b.col_end - b.col}"
            yield f"the block of core {b.core} is {size}", f"a core holds {spec.core.rows}x{spec.core.cols}"


def _codes(matrix: MatrixDecl, weights: Weights | None) -> Iterable[tuple[str, str]]:
    """The weights have the matrix's part."""
    if not matrix.key and (matrix.row_offset or matrix.col_offset):
        yield f"'{matrix.name}' has no key but starts at a corner", "a matrix without a key starts as zeros"
    if not matrix.key or weights is None:
        return
    end = (matrix.row_offset + matrix.rows, matrix.col_offset + matrix.cols)
    found = weights.get(matrix.key)
    if found is None:
        yield f"'{matrix.name}' takes '{matrix.key}' from the weights, which have no such key", "check the weights file"
        return
    if found.dtype != matrix.element.dtype(exact=False):
        due = matrix.element.dtype(exact=False)
        yield f"'{matrix.key}' holds {found.dtype}, and '{matrix.name}' takes {due}", "check the weights file"
    for key in (matrix.key, f"{matrix.key}.float"):
        array = weights.get(key)
        if array is not None and (array.ndim != 2 or array.shape[0] < end[0] or array.shape[1] < end[1]):
            yield f"'{key}' is {list(array.shape)}, and '{matrix.name}' reaches {list(end)}", "check the weights file"


def _too_deep(tile: TileProgram, faults: Faults) -> bool:
    """Refuse repeats nested deeper than a text may nest them: what comes after goes down them recursively."""
    stack = [iter(tile.steps)]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif isinstance(step, Repeat):
            stack.append(iter(step.body))
        if len(stack) > MAX_NESTING + 1:
            what = f"depth of repeats in tile {tile.tile}"
            faults.add(errors.PROGRAM_LIMIT(what=what, value=MAX_NESTING + 1, limit=MAX_NESTING))
            return True
    return False


# --- over all steps ---------------------------------------------------------------------------------
def _variables(tile: TileProgram, walk: Walk, params: Box, faults: Faults) -> None:
    """Repeat variables do not hide one another, counts are not negative."""
    for repeat, _, outer in walk.repeats:
        place = f"tile {tile.tile}, repeat {repeat.variable}"
        known_names = set(outer)
        for name in (repeat.variable, *(d.name for d in repeat.derived)):
            _named("variable", name, repeat.line, faults)
            if name in known_names:
                faults.report(errors.DUPLICATE_NAME, repeat.line, place, name, kind="variable", name=name)
            known_names.add(name)
        known = isinstance(repeat.count, int) or all(n in params for n, _ in repeat.count.terms)
        if known and bounds(repeat.count, params)[0] < 0:
            what, hint = f"the count of '{repeat.variable}' can be negative", "count from 0"
            faults.report(errors.WRONG_DECLARATION, repeat.line, place, repeat.variable, what=what, hint=hint)


def _overlaps(tile: TileProgram, checker: StepChecker, walk: Walk, faults: Faults) -> None:
    spans = lives(tile, checker.uses, Repeats(walk.repeats), max(len(walk.visits) - 1, 0))
    for a, b in clashes(tile, spans):
        faults.report(
            errors.BUFFERS_OVERLAP,
            b.line,
            f"tile {tile.tile}",
            b.name,
            a=a.name,
            b=b.name,
            low=max(a.address, b.address),
            high=min(a.address + a.bytes, b.address + b.bytes) - 1,
            a_life=spans[a.name],
            b_life=spans[b.name],
        )


def _length(walks: Sequence[tuple[TileProgram, Walk]], params: Box, faults: Faults) -> None:
    total = 0
    for _, walk in walks:
        for counts, visits in groupby(walk.visits, key=attrgetter("counts")):
            total += sum(1 for _ in visits) * math.prod(max(bounds(count, params)[1], 0) for count in counts)
    if total > MAX_INSTRUCTIONS:
        faults.add(errors.PROGRAM_LIMIT(what="instructions executed in a run", value=total, limit=MAX_INSTRUCTIONS))
