"""From statements to a program: names resolved, repeats nested, origins looked up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from cimc import errors
from cimc.isa.instruction import (
    GLOBAL,
    INSTRUCTIONS,
    MAX_FACTOR,
    Derived,
    Instruction,
    Kind,
    Phase,
    Repeat,
    Spec,
    Step,
    Value,
    complete,
)
from cimc.isa.operands import MAX_RANK, Affine, Element, Extent, View, dense_strides, implied_strides
from cimc.isa.program import Buffer, GlobalBuffer, MatrixDecl, Param, Port, Program, TileProgram
from cimc.isa.statement import (
    NAME,
    NO_PHASE,
    VERSION,
    ArrayLine,
    CloseLine,
    HardwareLine,
    InstructionLine,
    MatrixLine,
    OriginLine,
    ParamLine,
    PortLine,
    RawView,
    RepeatLine,
    Statement,
    TileLine,
    Turns,
    VersionLine,
)
from cimc.isa.usage import unknown_instruction, usage, wrong_count
from cimc.origin import Origin

MAX_NESTING = 16
MAX_STEPS = 4_000_000

_ELEMENTS = {e.value: e for e in Element}


@dataclass
class _Tile:
    number: int
    line: int
    buffers: dict[str, Buffer] = field(default_factory=dict[str, Buffer])
    matrices: dict[str, MatrixDecl] = field(default_factory=dict[str, MatrixDecl])
    bodies: list[list[Step]] = field(default_factory=lambda: [[]])
    open: list[tuple[RepeatLine, int]] = field(default_factory=list[tuple[RepeatLine, int]])

    def build(self) -> TileProgram:
        buffers, matrices = tuple(self.buffers.values()), tuple(self.matrices.values())
        return TileProgram(self.number, buffers, matrices, tuple(self.bodies[0]), self.line)


class Assembler:
    """Takes the statements of a text in order; ``finish`` gives the program or raises every fault at once.

    A name whose declaration was faulty counts as known afterwards, so that one mistake is told once."""

    def __init__(self, path: str) -> None:
        self.faults = errors.Collector()
        self._path = path
        self._line = 0
        self._text = ""
        self._versioned = False
        self._hardware: str | None = None
        self._header: list[str] = []
        self._heading = True
        self._params: dict[str, Param] = {}
        self._globals: dict[str, GlobalBuffer] = {}
        self._inputs: list[Port] = []
        self._outputs: list[Port] = []
        self._origins: dict[int, Origin] = {}
        self._tiles: dict[int, _Tile] = {}
        self._tile: _Tile | None = None
        self._count = 0
        self._doubtful: set[str] = set()

    # --- input -----------------------------------------------------------------------------------
    def comment(self, text: str) -> None:
        """A line that is only a comment; before the first declaration it belongs to the program's header."""
        if self._heading:
            self._header.append(text[2:] if text.startswith("# ") else text[1:])

    def fault(self, error: errors.CimcError, text: str, line: int) -> None:
        """Remember a fault of the line ``text``; what the line would have declared is not complained about later."""
        self.faults.add(error)
        self._versioned = True
        if text.startswith(".tile") and (self._tile is None or self._tile.line != line):
            self._tile = _Tile(-1, line)
        if text.startswith("."):
            self._doubtful.update(NAME.findall(text)[1:])
            self._doubtful.update(re.findall(r"[0-9]+", text.partition('"')[0]))
        elif text.startswith("repeat") and self._tile is not None:
            self._doubtful.update(NAME.findall(text)[1:])
            self._tile.open.append((RepeatLine("", 1), line))
            self._tile.bodies.append([])

    def take(self, statement: Statement, line: int, text: str) -> None:
        """Add one statement. Raises CimcError if it does not fit."""
        self._line, self._text = line, text
        if not self._versioned:
            self._start(statement)
        if not isinstance(statement, VersionLine | HardwareLine):
            self._heading = False
        match statement:
            case InstructionLine():
                self._step(statement)
            case RepeatLine():
                self._repeat(statement)
            case CloseLine():
                self._close()
            case ArrayLine():
                self._array(statement)
            case MatrixLine():
                self._matrix(statement)
            case TileLine():
                self._open_tile(statement)
            case VersionLine() | HardwareLine() | ParamLine() | PortLine() | OriginLine():
                self._head(statement)

    def finish(self) -> Program:
        """The program. Raises CimcError(s) if anything was wrong."""
        if self._tile is not None:
            self._end_tile(self._tile)
        if self._hardware is None and not self.faults.found:
            what = "the program does not say for which hardware it is" if self._versioned else "the text is empty"
            self.faults.add(errors.PROGRAM_VERSION(what=what, source=errors.Source(self._path, 1)))
        self.faults.raise_if_any()
        return Program(
            self._hardware or "",
            tuple(self._globals.values()),
            tuple(self._inputs),
            tuple(self._outputs),
            tuple(t.build() for t in self._tiles.values()),
            tuple(self._params.values()),
            tuple(self._header),
            self._path,
        )

    # --- the head --------------------------------------------------------------------------------
    def _start(self, statement: Statement) -> None:
        self._versioned = True
        if not isinstance(statement, VersionLine):
            raise errors.PROGRAM_VERSION(what="the text does not start with '.cim'", source=self._source())
        if statement.version != VERSION:
            what = f"text version {statement.version} is not known, only {VERSION}"
            raise errors.PROGRAM_VERSION(what=what, source=self._source(str(statement.version)))

    def _head(self, statement: VersionLine | HardwareLine | ParamLine | PortLine | OriginLine) -> None:
        if self._tile is not None:
            self._disorder("this line belongs before the first '.tile'", "declare what tiles share at the top")
        match statement:
            case HardwareLine():
                if self._hardware is not None:
                    self._duplicate("hardware", statement.name)
                self._hardware = statement.name
            case ParamLine():
                self._param(statement)
            case PortLine():
                self._port(statement)
            case OriginLine():
                if statement.index in self._origins:
                    self._duplicate("origin", str(statement.index))
                self._origins[statement.index] = Origin(statement.node, statement.op_type)
            case VersionLine():
                if self._line and (self._hardware is not None or self._params or self._globals):
                    self._disorder("'.cim' is the first line of a program", "one program a file")

    def _param(self, statement: ParamLine) -> None:
        if statement.name in self._params:
            self._duplicate("param", statement.name)
        if statement.low > statement.high:
            self._wrong(f"the range {statement.low}..{statement.high} is empty", "write low..high, both included")
        self._params[statement.name] = Param(statement.name, statement.low, statement.high, self._line)

    def _port(self, statement: PortLine) -> None:
        ports = self._outputs if statement.output else self._inputs
        if any(p.name == statement.name for p in ports):
            self._duplicate("output" if statement.output else "input", statement.name)
        self._known(statement.buffer, "global buffer", self._globals)
        shape = statement.shape
        for e in shape or ():
            if isinstance(e, Affine):
                self._variables(e, params_only=True)
        whole = self._globals[statement.buffer].shape if statement.buffer in self._globals else None
        ports.append(Port(statement.name, statement.buffer, None if shape == whole else shape, self._line))

    def _array(self, statement: ArrayLine) -> None:
        shape = self._fixed(statement.shape)
        element = self._element(statement.element)
        if statement.address is None or statement.tile >= 0:
            if self._tile is not None:
                self._disorder("this line belongs before the first '.tile'", "declare what tiles share at the top")
            if statement.name in self._globals:
                self._duplicate("global buffer", statement.name)
            self._globals[statement.name] = GlobalBuffer(
                statement.name,
                element,
                shape,
                statement.key,
                statement.state,
                self._line,
                statement.tile,
                statement.address or 0,
                statement.pieces,
            )
            return
        tile = self._declaring()
        if statement.name in tile.buffers:
            self._duplicate("buffer", statement.name)
        tile.buffers[statement.name] = Buffer(
            statement.name, element, shape, statement.address, statement.key, statement.state, self._line
        )

    def _matrix(self, statement: MatrixLine) -> None:
        tile = self._declaring()
        shape = self._fixed(statement.shape)
        if len(shape) != 2:
            self._wrong(f"a matrix has rows and columns, not {len(shape)} extents", "write ROWSxCOLS, inputs first")
        if statement.name in tile.matrices:
            self._duplicate("matrix", statement.name)
        element = self._element(statement.element)
        name, key, (row, col) = statement.name, statement.key, statement.corner
        tile.matrices[name] = MatrixDecl(name, element, shape[0], shape[1], key, row, col, statement.blocks, self._line)

    # --- tiles and steps -------------------------------------------------------------------------
    def _open_tile(self, statement: TileLine) -> None:
        if self._tile is not None:
            self._end_tile(self._tile)
        self._tile = _Tile(statement.tile, self._line)
        if statement.tile in self._tiles:
            self._duplicate("tile", str(statement.tile))
        self._tiles[statement.tile] = self._tile

    def _end_tile(self, tile: _Tile) -> None:
        if tile.open:
            line = tile.open[-1][1]
            source = errors.Source(self._path, line)
            self.faults.add(errors.PROGRAM_ORDER(what="this repeat is never closed", hint="add '}'", source=source))

    def _inside(self) -> _Tile:
        if self._tile is None:
            self._disorder("an instruction stands before the first '.tile'", "open a tile with '.tile N'")
        return self._tile

    def _declaring(self) -> _Tile:
        tile = self._tile
        if tile is None:
            self._disorder("a tile's declaration stands before the first '.tile'", "open a tile with '.tile N'")
        if tile.bodies[0] or tile.open:
            self._disorder("declarations stand before a tile's first instruction", "move this line up")
        return tile

    def _repeat(self, statement: RepeatLine) -> None:
        tile = self._inside()
        if len(tile.open) >= MAX_NESTING:
            depth = len(tile.open) + 1
            raise errors.PROGRAM_LIMIT(what="depth of repeats", value=depth, limit=MAX_NESTING, source=self._source())
        known = {*self._params, *self._repeated(tile)}
        for name in (statement.variable, *(d.name for d in statement.derived)):
            if name in known:
                self._duplicate("variable", name)
            known.add(name)
        for d in statement.derived:
            if d.of != statement.variable:
                self._wrong(f"'{d.of}' is not the variable of this repeat", f"derive from '{statement.variable}'")
            if d.divisor < 1 or d.modulus == 0:
                self._wrong(f"'{d.name}' divides by 0", "divisor and modulus are at least 1")
            if not 1 <= d.factor <= MAX_FACTOR:
                self._wrong(f"'{d.name}' cannot follow '{d.of}'", f"the factor is at least 1 and at most {MAX_FACTOR}")
        if isinstance(statement.count, Affine):
            self._variables(statement.count, params_only=True)
        tile.open.append((statement, self._line))
        tile.bodies.append([])

    def _close(self) -> None:
        tile = self._inside()
        if not tile.open:
            self._disorder("no repeat is open", "remove this '}'")
        opened, line = tile.open.pop()
        body = tuple(tile.bodies.pop())
        derived = tuple(Derived(d.name, d.offset, d.divisor, d.modulus or 0, d.factor) for d in opened.derived)
        tile.bodies[-1].append(Repeat(opened.variable, opened.count, body, derived, line))

    def _step(self, statement: InstructionLine) -> None:
        tile = self._inside()
        self._count += 1
        if self._count > MAX_STEPS:
            raise errors.PROGRAM_LIMIT(what="instructions", value=self._count, limit=MAX_STEPS, source=self._source())
        spec = INSTRUCTIONS.get(statement.mnemonic)
        if spec is None:
            raise unknown_instruction(statement.mnemonic, "", self._source(statement.mnemonic))
        wrong = wrong_count(spec, len(statement.operands))
        if wrong:
            raise errors.WRONG_OPERANDS(where="", what=wrong, usage=usage(spec), source=self._source())
        operands = tuple(self._operand(o, spec.operand(i).kind, tile) for i, o in enumerate(statement.operands))
        origin = self._origin(statement.origin)
        for phase, given in self._turns(statement):
            try:
                if len(dict(given)) < len(given):
                    raise TypeError("a keyword stands twice")
                keywords = complete(spec, dict(given))
            except TypeError as fault:
                raise self._keyword_fault(statement, spec, str(fault)) from None
            tile.bodies[-1].append(Instruction(statement.mnemonic, operands, keywords, origin, self._line, phase))

    def _turns(self, statement: InstructionLine) -> Iterator[tuple[Phase | None, list[tuple[str, Value]]]]:
        """The instructions of a line, one for each turn: phase and keywords."""
        counts = {len(value.values) for _, value in statement.keywords if isinstance(value, Turns)}
        stage, turn, turns = statement.phase
        if counts and (len(counts) > 1 or turns != 1):
            self._wrong("the keywords of a line take different turns", "give all of them as many values, and no turn")
        for k in range(max(counts, default=1)):
            given = [(n, v.values[k] if isinstance(v, Turns) else v) for n, v in statement.keywords]
            yield self._phase(stage, *((k, max(counts)) if counts else (turn, turns))), given

    def _phase(self, stage: int, turn: int, turns: int) -> Phase | None:
        if (stage, turn, turns) == NO_PHASE:
            return None
        if self._tile is None or not self._tile.open:
            self._wrong("an instruction with a phase stands outside repeats", "phases belong to the repeat around them")
        try:
            return Phase(stage, turn, turns)
        except ValueError as fault:
            self._wrong(str(fault), "write '+STAGE TURN%TURNS:', or values of a keyword with '|' between")

    def _operand(self, operand: str | RawView, kind: Kind, tile: _Tile) -> View | str:
        name = operand if isinstance(operand, str) else operand.name
        if kind is Kind.MATRIX:
            self._known(name, "matrix", tile.matrices)
            if isinstance(operand, RawView):
                self._wrong(f"'{name}' stands where a whole matrix does", "write the matrix's name alone")
            return name
        shared = kind in GLOBAL
        known = self._globals if shared else tile.buffers
        self._known(name, "global buffer" if shared else "buffer", known)
        if isinstance(operand, RawView):
            return self._view(operand)
        if name not in known:  # its declaration was faulty, and that has been told
            return View(name, Affine(), (), ())
        shape = known[name].shape
        return View(name, Affine(), shape, dense_strides(shape))

    def _view(self, raw: RawView) -> View:
        self._variables(raw.offset)
        for e in raw.shape:
            if isinstance(e, Affine):
                self._variables(e)
        if len(raw.shape) > MAX_RANK:
            self._wrong(f"{len(raw.shape)} extents, at most {MAX_RANK} are possible", "merge extents")
        strides = implied_strides(raw.shape) if raw.strides is None else raw.strides
        if strides is None:
            self._wrong("an extent other than the first varies: the strides must be named", "add '; stride,...'")
        if len(strides) != len(raw.shape):
            self._wrong(f"{len(raw.shape)} extents but {len(strides)} strides", "give one stride for each extent")
        return View(raw.name, raw.offset, raw.shape, strides)

    @staticmethod
    def _repeated(tile: _Tile) -> Iterator[str]:
        """The variables of the open repeats."""
        for line, _ in tile.open:
            yield line.variable
            yield from (d.name for d in line.derived)

    def _variables(self, value: Affine, *, params_only: bool = False) -> None:
        if not value.terms:
            return
        known = {*self._params, *(() if params_only or self._tile is None else self._repeated(self._tile))}
        for name, _ in value.terms:
            if name not in known and name not in self._doubtful:
                told = (
                    "counts are affine in params"
                    if params_only
                    else "variables are those of enclosing repeats, and params"
                )
                hint = errors.did_you_mean(name, known) + told
                kind = "param" if params_only else "variable"
                raise errors.UNKNOWN_NAME(where="", kind=kind, name=name, hint=hint, source=self._source(name))

    def _origin(self, index: int | None) -> Origin | None:
        if index is None:
            return None
        if index not in self._origins and str(index) not in self._doubtful:
            source = self._source(f"@{index}")
            hint = 'declare it above the first tile: .origin NUMBER "node" OpType'
            raise errors.UNKNOWN_NAME(where="", kind="origin", name=index, hint=hint, source=source)
        return self._origins.get(index)

    # --- what every statement needs --------------------------------------------------------------
    def _source(self, word: str = "") -> errors.Source:
        text = self._text.rstrip().replace("\t", " ")
        found = re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", text) if word else None
        column = found.start() + 1 if found else len(text) - len(text.lstrip()) + 1
        return errors.Source(self._path, self._line, column, text if len(text) < 2000 else "")

    def _fixed(self, shape: tuple[Extent, ...]) -> tuple[int, ...]:
        if len(shape) > MAX_RANK:
            self._wrong(f"{len(shape)} extents, at most {MAX_RANK} are possible", "merge extents")
        fixed = tuple(e for e in shape if isinstance(e, int))
        if len(fixed) < len(shape):
            self._wrong("the extents of a declaration do not vary", "declare the largest; views may be smaller")
        return fixed

    def _element(self, name: str) -> Element:
        if name in _ELEMENTS:
            return _ELEMENTS[name]
        hint = errors.did_you_mean(name, _ELEMENTS) + f"known: {', '.join(_ELEMENTS)}"
        raise errors.UNKNOWN_NAME(where="", kind="element type", name=name, hint=hint, source=self._source(name))

    def _known(self, name: str, kind: str, known: Mapping[str, object]) -> None:
        if name in known or name in self._doubtful:
            return
        hint = errors.did_you_mean(name, known) + self._elsewhere(name)
        raise errors.UNKNOWN_NAME(where="", kind=kind, name=name, hint=hint, source=self._source(name))

    def _elsewhere(self, name: str) -> str:
        tile = self._tile
        if name in self._globals:
            return "it is a global buffer: move it with load and store"
        if tile is not None and name in tile.buffers:
            return "it is a buffer of this tile"
        if tile is not None and name in tile.matrices:
            return "it is a matrix of this tile"
        return "declare it above" if tile is None else f"declare it above, in tile {tile.number}'s part of the text"

    def _keyword_fault(self, statement: InstructionLine, spec: Spec, reason: str) -> errors.CimcError:
        known = [k.name for k in spec.keywords]
        quoted = re.search(r"'(\w+)'", reason)
        word = quoted[1] if quoted else ""
        hint = errors.did_you_mean(word, known) if word and word not in known else ""
        return errors.WRONG_OPERANDS(where="", what=reason, usage=hint + usage(spec), source=self._source(word))

    def _duplicate(self, kind: str, name: str) -> NoReturn:
        raise errors.DUPLICATE_NAME(where="", kind=kind, name=name, source=self._source(name))

    def _wrong(self, what: str, hint: str) -> NoReturn:
        raise errors.WRONG_DECLARATION(where="", what=what, hint=hint, source=self._source())

    def _disorder(self, what: str, hint: str) -> NoReturn:
        raise errors.PROGRAM_ORDER(what=what, hint=hint, source=self._source())
