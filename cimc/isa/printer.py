"""A program as canonical text: the same program always prints as the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Instruction, Phase, Repeat, Step, Value
from cimc.isa.operands import Affine, Extent, View, dense_strides, implied_strides
from cimc.isa.program import Buffer, GlobalBuffer, MatrixDecl, Piece, Port, Program, TileProgram
from cimc.isa.statement import NAME, SCALAR, VERSION
from cimc.isa.steps import walk
from cimc.origin import Origin

Shapes = Mapping[str, tuple[int, ...]]


def quoted(text: str) -> str:
    """A string as the text holds it: JSON's escapes, characters beyond ASCII as they are."""
    return json.dumps(text, ensure_ascii=False)


def affine_text(value: Affine) -> str:
    """``i*8+pos-4``: terms by name, then the constant unless it is zero and not alone."""
    out = ""
    for name, coefficient in value.terms:
        sign = "-" if coefficient < 0 else "+" if out else ""
        size = abs(coefficient)
        out += sign + name + (f"*{size}" if size != 1 else "")
    if not out:
        return str(value.constant)
    return out + (f"{value.constant:+d}" if value.constant else "")


def extent_text(value: Extent) -> str:
    """``16`` or ``(pos+1)``."""
    if isinstance(value, int):
        return str(value) if value >= 0 else f"({value})"
    return f"({affine_text(value)})"


def derived_texts(repeat: Repeat) -> Iterator[str]:
    """``w=(i*2+8)/16%4``; a factor or divisor of 1 and no modulus are left out."""
    for d in repeat.derived:
        divisor, modulus = f"/{d.divisor}" if d.divisor != 1 else "", f"%{d.modulus}" if d.modulus else ""
        factor = f"*{d.factor}" if d.factor != 1 else ""
        yield f"{d.name}=({repeat.variable}{factor}+{d.offset}){divisor}{modulus}"


def shape_text(shape: Iterable[Extent]) -> str:
    """``8x384``, ``(pos+1)x32``; ``scalar`` if there are no extents."""
    return "x".join(extent_text(e) for e in shape) or SCALAR


def view_text(view: View, shapes: Shapes) -> str:
    """The name alone for all of the buffer; strides only where they are not row-major."""
    whole = shapes.get(view.buffer)
    if whole is not None and view.shape == whole and view.offset == Affine() and view.strides == dense_strides(whole):
        return view.buffer
    body = f"{affine_text(view.offset)}; {shape_text(view.shape)}"
    if view.strides != implied_strides(view.shape):
        body += "; " + ",".join(str(s) for s in view.strides)
    return f"{view.buffer}[{body}]"


def value_text(value: Value) -> str:
    """A keyword's value. Floats print the shortest digits that read back the same."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, tuple):
        return f"[{','.join(str(v) for v in value)}]"
    return repr(value)


def phase_text(phase: Phase) -> str:
    """``+1 0%4: ``; what it does not say is left out."""
    late = f"+{phase.stage}" if phase.stage else ""
    turn = f"{phase.turn}%{phase.turns}" if phase.turns > 1 else ""
    return f"{late} {turn}".strip() + ": "


def instruction_text(step: Instruction, local: Shapes, globals: Shapes, others: Sequence[Instruction] = ()) -> str:
    """One instruction without its origin; keywords at their default are left out. ``others``: what is executed in its place in
    the turns that follow its own, the first."""
    spec = INSTRUCTIONS.get(step.mnemonic)
    parts: list[str] = []
    for i, operand in enumerate(step.operands):
        shared = spec is not None and spec.operands and spec.operand(i).kind in GLOBAL
        parts.append(operand if isinstance(operand, str) else view_text(operand, globals if shared else local))
    defaults = {k.name: k.default for k in spec.keywords} if spec else {}
    phase = step.phase
    if not others:
        parts += [f"{name}={value_text(v)}" for name, v in step.keywords if defaults.get(name) != v]
    else:
        phase = Phase(phase.stage) if phase and phase.stage else None
        for (name, v), *more in zip(step.keywords, *(o.keywords for o in others), strict=True):
            if any(w != v for _, w in more):
                parts.append(f"{name}={'|'.join(map(value_text, (v, *(w for _, w in more))))}")
            elif defaults.get(name) != v:
                parts.append(f"{name}={value_text(v)}")
    return f"{phase_text(phase) if phase else ''}{step.mnemonic}" + (f" {', '.join(parts)}" if parts else "")


def _tail(key: str, state: bool) -> str:
    return (f" = {quoted(key)}" if key else "") + (" state" if state else "")


def _global(g: GlobalBuffer) -> str:
    home = f" tile={g.tile} @{g.address}" if g.resident else ""
    held = f" in {{ {'; '.join(map(_piece, g.pieces))} }}" if g.held else ""
    return f".global {g.name} {g.element.value} {shape_text(g.shape)}{home}{_tail(g.key, g.state)}{held}"


def _piece(p: Piece) -> str:
    strides = "; " + ",".join(map(str, p.strides)) if p.strides != implied_strides(p.shape) else ""
    return f"{p.tile} [{','.join(map(str, p.corner))}] {p.buffer}[{p.offset}; {shape_text(p.shape)}{strides}]"


def _buffer(b: Buffer) -> str:
    return f".buffer {b.name} {b.element.value} {shape_text(b.shape)} @{b.address}{_tail(b.key, b.state)}"


def _matrix(m: MatrixDecl) -> str:
    corner = f"[{m.row_offset},{m.col_offset}]" if m.row_offset or m.col_offset else ""
    key = f" = {quoted(m.key)}{corner}" if m.key or corner else ""
    blocks = "; ".join(f"{b.core} [{b.row}:{b.row_end}, {b.col}:{b.col_end}]" for b in m.blocks)
    return f".matrix {m.name} {m.element.value} {m.rows}x{m.cols}{key} {{ {blocks} }}"


def _origins(program: Program) -> dict[Origin, int]:
    table: dict[Origin, int] = {}
    for tile in program.tiles:
        for step in walk(tile.steps):
            if step.origin is not None:
                table.setdefault(step.origin, len(table))
    return table


def _origin(origin: Origin, index: int) -> str:
    kind = origin.op_type
    named = "" if not kind else " " + (kind if NAME.fullmatch(kind) else quoted(kind))
    return f".origin {index} {quoted(origin.node)}{named}"


def _header(lines: Iterable[str]) -> Iterator[str]:
    for text in lines:
        for line in text.splitlines() or [""]:
            yield f"# {line}".rstrip()


def _lines_of(steps: Sequence[Step]) -> Iterator[tuple[Step, Sequence[Instruction]]]:
    """What stands in a line each: steps, and of instructions that only differ in turn and keywords the first with the others."""
    at = 0
    while at < len(steps):
        step = steps[at]
        others = _others(step, steps, at) if isinstance(step, Instruction) and step.phase is not None else ()
        yield step, others
        at += 1 + len(others)


def _others(step: Instruction, steps: Sequence[Step], at: int) -> Sequence[Instruction]:
    """The instructions behind one that are the same in the other turns but for keywords; none if one is missing."""
    phase = step.phase
    if phase is None or phase.turn or phase.turns == 1:
        return ()
    others: list[Instruction] = []
    for k, other in enumerate(steps[at + 1 : at + phase.turns], start=1):
        if not isinstance(other, Instruction) or other.phase != Phase(phase.stage, k, phase.turns):
            return ()
        if (other.mnemonic, other.operands, other.origin) != (step.mnemonic, step.operands, step.origin):
            return ()
        others.append(other)
    complete = len(others) == phase.turns - 1 and all(
        [n for n, _ in o.keywords] == [n for n, _ in step.keywords] for o in others
    )
    return others if complete and any(o.keywords != step.keywords for o in others) else ()


def _steps(
    tile: TileProgram, globals: Shapes, origins: Mapping[Origin, int], known: dict[tuple[str, int], str]
) -> Iterator[str]:
    """``known``: texts of instructions without operands, most of which are the same waits again, by mnemonic and the identity
    of the keywords."""
    local = {b.name: b.shape for b in tile.buffers}

    def text(step: Instruction, others: Sequence[Instruction]) -> str:
        if step.operands or step.phase or others:
            return instruction_text(step, local, globals, others)
        key = step.mnemonic, id(step.keywords)
        return known.get(key) or known.setdefault(key, instruction_text(step, local, globals))

    stack = [_lines_of(tile.steps)]
    while stack:
        indent = "  " * (len(stack) - 1)
        step, others = next(stack[-1], (None, ()))
        if isinstance(step, Repeat):
            head = ", ".join((f"{step.variable} {extent_text(step.count)}", *derived_texts(step)))
            yield f"{indent}repeat {head} {{"
            stack.append(_lines_of(step.body))
        elif step is not None:
            tail = "" if step.origin is None else f"  @{origins[step.origin]}"
            yield f"{indent}{text(step, others)}{tail}"
        else:
            stack.pop()
            if stack:
                yield "  " * (len(stack) - 1) + "}"


def _lines(program: Program) -> Iterator[str]:
    yield f".cim {VERSION}"
    yield f".hardware {quoted(program.hardware)}"
    yield from _header(program.header)
    yield from (f".param {p.name} {p.low}..{p.high}" for p in program.params)
    yield from map(_global, program.globals)
    yield from (f".input {_port(p)}" for p in program.inputs)
    yield from (f".output {_port(p)}" for p in program.outputs)
    origins = _origins(program)
    yield from (_origin(origin, index) for origin, index in origins.items())
    shapes = {g.name: g.shape for g in program.globals}
    known: dict[tuple[str, int], str] = {}
    for tile in program.tiles:
        yield ""
        yield f".tile {tile.tile}"
        yield from map(_buffer, tile.buffers)
        yield from map(_matrix, tile.matrices)
        yield from _steps(tile, shapes, origins, known)


def _port(port: Port) -> str:
    corner = "" if port.shape is None else f" {shape_text(port.shape)}"
    return f"{quoted(port.name)} {port.buffer}{corner}"


def print_program(program: Program) -> str:
    """The program's canonical text (isa/SPEC.md): deterministic, keywords at their default and row-major strides left
    out. ``parse_program`` gives an equal program back."""
    return "\n".join(_lines(program)) + "\n"
