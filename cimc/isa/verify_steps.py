"""The law of single instructions: names, operand kinds, units, views inside their buffers, the row's own rule."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Instruction, Kind, Shape, Spec, Unit, complete, kinds
from cimc.isa.operands import MAX_RANK, Affine, Extent, View, extent
from cimc.isa.program import Buffer, GlobalBuffer, MatrixDecl, TileProgram, Weights
from cimc.isa.ranges import bounds, corners, reach
from cimc.isa.usage import unknown_instruction, usage, wrong_count
from cimc.isa.visit import Faults, Visit, Walk


@dataclass
class Uses:
    """Local buffer, or matrix → (step, kind) of every access, in program order."""

    of: dict[str, list[tuple[int, Kind]]] = field(default_factory=dict[str, list[tuple[int, Kind]]])

    def add(self, buffer: str, step: int, kind: Kind) -> None:
        """Remember one access."""
        self.of.setdefault(buffer, []).append((step, kind))


class StepChecker:
    """Checks the instructions of one tile."""

    def __init__(
        self,
        tile: TileProgram,
        globals: Mapping[str, GlobalBuffer],
        faults: Faults,
        chip: ChipSpec | None,
        weights: Weights | None,
        lawful: set[Hashable],
    ) -> None:
        """``lawful``: what is known to have the keywords of its row and to obey its rule, over all tiles: by identity, as the
        program lives for longer than this."""
        self._tile = tile
        self._globals = globals
        self._buffers = {b.name: b for b in tile.buffers}
        self._matrices = {m.name: m for m in tile.matrices}
        self._faults = faults
        self._chip = chip
        self._weights = weights
        self._lawful = lawful
        self._able: dict[str, bool] = {}  # mnemonic → whether the tile has its unit
        self.uses = Uses()
        self.cells = Uses()  # of matrices: writing their cells, or reading them

    def check(self, walk: Walk) -> None:
        """Report every fault of every instruction; gathers ``uses``."""
        for repeat, name in walk.unknown:
            hint = "counts are integers or affine in params"
            place = f"tile {self._tile.tile}, repeat {repeat.variable}"
            self._faults.report(errors.UNKNOWN_NAME, repeat.line, place, name, kind="param", name=name, hint=hint)
        for visit in walk.visits:
            self._instruction(visit)
        self._halt(walk)

    def _instruction(self, visit: Visit) -> None:
        step = visit.step
        spec = INSTRUCTIONS.get(step.mnemonic)
        if spec is None:
            source = self._faults.source(step.line, step.mnemonic)
            where = "" if source else f"{self._faults.place(self._tile, visit)}: "
            self._faults.add(unknown_instruction(step.mnemonic, where, source))
            return
        words = (step.mnemonic, id(step.keywords), len(step.operands))  # thousands of steps share their keywords
        if words not in self._lawful:
            wrong = wrong_count(spec, len(step.operands)) or _wrong_keywords(spec, step)
            if wrong:
                self._faults.step(errors.WRONG_OPERANDS, self._tile, visit, what=wrong, usage=usage(spec))
                return
            self._lawful.add(words)
        able = self._able.get(spec.mnemonic)
        if able is None:
            able = self._able[spec.mnemonic] = self._has(spec)
        if not able:
            self._unit(spec, visit)
        of = kinds(step)
        sound = True
        for index, operand in enumerate(step.operands):
            sound &= self._operand(spec, index, operand, of[index], visit)
        if sound:
            self._rule(spec, of, visit)
        if "call" in spec.names:
            self._call(str(dict(step.keywords)["call"]), visit)

    def _has(self, spec: Spec) -> bool:
        """Whether the tile has what an instruction needs, if the chip is known."""
        if self._chip is None or not 0 <= self._tile.tile < self._chip.tile_count:
            return True
        unit = spec.unit not in UNITS or _has(self._chip, self._tile.tile, spec.unit)
        return unit and not _lacks_adders(self._chip, spec)

    def _unit(self, spec: Spec, visit: Visit) -> None:
        assert self._chip is not None
        if _lacks_adders(self._chip, spec):
            words = {"mnemonic": spec.mnemonic, "chip": self._chip.name}
            self._faults.step(errors.NO_ADDERS, self._tile, visit, spec.mnemonic, **words)
            return
        kind = self._chip.kind(self._tile.tile)
        fit = sorted({self._chip.kind(t) for t in range(self._chip.tile_count) if _has(self._chip, t, spec.unit)})
        hint = f"kinds that have one: {', '.join(fit)}" if fit else "no tile of this chip has one"
        self._faults.step(
            errors.NO_SUCH_UNIT,
            self._tile,
            visit,
            spec.mnemonic,
            mnemonic=spec.mnemonic,
            unit=spec.unit.value,
            at=self._tile.tile,
            kind=kind,
            hint=hint,
        )

    def _operand(self, spec: Spec, index: int, operand: View | str, kind: Kind, visit: Visit) -> bool:
        if kind is Kind.MATRIX:
            name = operand if isinstance(operand, str) else operand.buffer
            self.cells.add(name, visit.index, Kind.WRITE if spec.writes_cells else Kind.READ)
            return self._known(name, "matrix", self._matrices, visit) and isinstance(operand, str)
        if isinstance(operand, str):
            what = f"'{operand}' stands where a view of a buffer does"
            self._faults.step(errors.WRONG_OPERANDS, self._tile, visit, operand, what=what, usage=usage(spec))
            return False
        shared = kind in GLOBAL
        known = self._globals if shared else self._buffers
        buffer = known.get(operand.buffer)
        if buffer is None:
            return self._known(operand.buffer, "global buffer" if shared else "buffer", known, visit)
        if not shared:
            self.uses.add(operand.buffer, visit.index, kind)
        return _within(operand, buffer, visit) or self._view(operand, buffer, 0 if shared else 1, visit)

    def _known(self, name: str, kind: str, known: Mapping[str, object], visit: Visit) -> bool:
        if name in known:
            return True
        hint = errors.did_you_mean(name, known) + f"tile {self._tile.tile} has: {', '.join(sorted(known)[:12])}"
        self._faults.step(errors.UNKNOWN_NAME, self._tile, visit, name, kind=kind, name=name, hint=hint)
        return False

    def _view(self, view: View, buffer: Buffer | GlobalBuffer, least: int, visit: Visit) -> bool:
        wrong = _wrong_view(view, visit)
        if wrong:
            hint = "variables are those of enclosing repeats, and params"
            self._faults.step(errors.WRONG_DECLARATION, self._tile, visit, view.buffer, what=wrong, hint=hint)
            return False
        small = min((bounds(e, visit.box)[0] for e in view.shape), default=1)
        if small < least:
            self._faults.step(
                errors.EMPTY_VIEW, self._tile, visit, view.buffer, name=view.buffer, low=small, least=least
            )
            return False
        if any(bounds(e, visit.box)[1] == 0 for e in view.shape):
            return True
        low, high = reach(view, visit.box)
        if low >= 0 and high < buffer.size:
            return True
        self._faults.step(
            errors.OUT_OF_BUFFER,
            self._tile,
            visit,
            view.buffer,
            name=f"'{view.buffer}'",
            low=low,
            high=high,
            last=buffer.size - 1,
        )
        return False

    def _rule(self, spec: Spec, of: Sequence[Kind], visit: Visit) -> None:
        """``of``: the kinds of its operands."""
        form = self._form(of, visit.step)
        if form in self._lawful:
            return
        names = frozenset(_variables(visit.step))
        for env in corners(visit.box, names) if names else ({},):
            shapes = [self._shape(spec, i, o, env) for i, o in enumerate(visit.step.operands)]
            what = spec.rule(*shapes, **dict(visit.step.keywords))
            if not what:
                continue
            at = "".join(f", {n}={env[n]}" for n in sorted(names))
            what = f"{spec.mnemonic}: {what}{at}"
            self._faults.step(errors.WRONG_OPERANDS, self._tile, visit, spec.mnemonic, what=what, usage=usage(spec))
            return
        if form is not None and not names:
            self._lawful.add(form)

    def _form(self, of: Sequence[Kind], step: Instruction) -> Hashable:
        """All that a rule sees of an instruction; None if it has a matrix."""
        if not step.operands:
            return step.mnemonic, id(step.keywords)
        found: list[Hashable] = [step.mnemonic, id(step.keywords)]
        for kind, operand in zip(of, step.operands, strict=True):
            if isinstance(operand, str):
                return None
            known = self._globals if kind in GLOBAL else self._buffers
            found += (id(operand.shape), known[operand.buffer].element)
        return tuple(found)

    def _shape(self, spec: Spec, index: int, operand: View | str, env: Mapping[str, int]) -> Shape | MatrixDecl:
        if isinstance(operand, str):
            return self._matrices[operand]
        known = self._globals if spec.operand(index).kind in GLOBAL else self._buffers
        element = known[operand.buffer].element
        return Shape(tuple([e if isinstance(e, int) else extent(e, env) for e in operand.shape]), element)

    def _call(self, key: str, visit: Visit) -> None:
        if self._weights is None:
            return
        found = self._weights.get(key)
        if found is not None and found.ndim == 1 and found.dtype == "uint8":
            return
        shown = key if len(key) <= 200 else key[:200] + "..."
        what = f"no host call '{shown}' in the weights" if found is None else f"host call '{shown}' is no list of bytes"
        self._faults.step(errors.WRONG_WEIGHTS, self._tile, visit, what=what)

    def _halt(self, walk: Walk) -> None:
        last = self._tile.steps[-1] if self._tile.steps else None
        ended = isinstance(last, Instruction) and last.mnemonic == "halt"
        if not ended:
            what = f"the stream of tile {self._tile.tile} does not end with 'halt'"
            self._faults.report(errors.NO_HALT, self._tile.line, f"tile {self._tile.tile}", what=what)
        for visit in walk.visits[:-1] if ended else walk.visits:
            if visit.step.mnemonic == "halt":
                self._faults.step(errors.NO_HALT, self._tile, visit, what="'halt' before the end of the stream")


UNITS = (Unit.CORE, Unit.VECTOR, Unit.SPECIAL, Unit.MATMUL)
"""Units that not every tile has."""


def _lacks_adders(chip: ChipSpec, spec: Spec) -> bool:
    """Whether an instruction wants sums added in a network that cannot."""
    return chip.noc.reduce is None and any(k.name == "of" for k in spec.keywords)


def _has(chip: ChipSpec, tile: int, unit: Unit) -> bool:
    spec = chip.tile(tile)
    units = {Unit.CORE: spec.core, Unit.VECTOR: spec.vector, Unit.SPECIAL: spec.special, Unit.MATMUL: spec.matmul}
    return units[unit] is not None


def _complete(spec: Spec, step: Instruction) -> bool:
    """Whether all keywords are plainly there, in the row's order and of its types."""
    if len(step.keywords) != len(spec.keywords):
        return False
    for keyword, (name, value) in zip(spec.keywords, step.keywords, strict=True):
        if keyword.name != name or keyword.type is not type(value):
            return False
    return True


def _wrong_keywords(spec: Spec, step: Instruction) -> str:
    if _complete(spec, step):
        return ""
    try:
        complete(spec, dict(step.keywords))
    except TypeError as fault:
        return str(fault)
    missing = {k.name for k in spec.keywords} - {name for name, _ in step.keywords}
    return f"the keyword '{min(missing)}' is not filled in" if missing else ""


@lru_cache(1 << 12)
def _span(shape: tuple[Extent, ...], strides: tuple[int, ...]) -> tuple[int, int] | None:
    """The first and the last element that a view touches, from its offset on; None for one with extents that vary, none at
    all, or not as many as strides: those are looked at one by one."""
    if len(shape) != len(strides) or len(shape) > MAX_RANK:
        return None
    low = high = 0
    for e, stride in zip(shape, strides, strict=True):
        if not isinstance(e, int) or e < 1:
            return None
        low, high = low + min(0, (e - 1) * stride), high + max(0, (e - 1) * stride)
    return low, high


def _within(view: View, buffer: Buffer | GlobalBuffer, visit: Visit) -> bool:
    """Whether it is plain that a view has elements, all of them of its buffer."""
    span = _span(view.shape, view.strides)
    if span is None:
        return False
    low = high = view.offset.constant
    for name, factor in view.offset.terms:
        limits = visit.box.get(name)
        if limits is None:
            return False
        a, b = factor * limits[0], factor * limits[1]
        low, high = (low + a, high + b) if a < b else (low + b, high + a)
    return low + span[0] >= 0 and high + span[1] < buffer.size


def _wrong_view(view: View, visit: Visit) -> str:
    if len(view.shape) != len(view.strides) or len(view.shape) > MAX_RANK:
        return f"view of '{view.buffer}' has {len(view.shape)} extents and {len(view.strides)} strides"
    strangers = [n for n in _terms(view) if n not in visit.box]
    return f"view of '{view.buffer}' uses '{strangers[0]}', which is no variable here" if strangers else ""


def _terms(view: View) -> Iterator[str]:
    for value in (view.offset, *view.shape):
        if isinstance(value, Affine):
            yield from (name for name, _ in value.terms)


def _variables(step: Instruction) -> Iterator[str]:
    """Variables the extents of an instruction's views depend on."""
    for operand in step.operands:
        for e in operand.shape if isinstance(operand, View) else ():
            if isinstance(e, Affine):
                yield from (name for name, _ in e.terms)
