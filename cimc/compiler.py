"""ONNX model → program: the whole way, as one function."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cimc import bundle, errors, notes
from cimc.arch import load as hardware_files
from cimc.arch.load import Hardware
from cimc.arch.spec import MOST_TILES, ChipSpec
from cimc.calibration import Calibration, calibrated
from cimc.codegen.caches import told as cache_told
from cimc.codegen.calibrate import calibrating
from cimc.codegen.contents import Contents
from cimc.codegen.lower import NO_DRAFTS, Lowered, arranged, lowered
from cimc.collecting import uncollected
from cimc.inputs import Tokens, read_tokens
from cimc.ir.graph import Array, Constants, Graph
from cimc.isa.printer import print_program
from cimc.isa.program import Program
from cimc.isa.verify import verify
from cimc.lengths import Lengths, Made, mapped, one_program
from cimc.lookups import beyond
from cimc.mapping.build import build
from cimc.mapping.dump import dump
from cimc.mapping.fit import fit
from cimc.mapping.json_value import Json
from cimc.mapping.mapping import Mapping as Placed
from cimc.mapping.placement_file import Pinned, placement_of, read_placement
from cimc.mapping.short import MOST_CHIPS
from cimc.options import Options, agree, core_of, pipeline_text, weight_bits
from cimc.passes.pipeline_text import parse_pipeline
from cimc.pipeline import Outcome as Passes
from cimc.pipeline import Watch, run_pipeline
from cimc.report.progress import stage
from cimc.search.plan import Outcome, Plan

if TYPE_CHECKING:
    from cimc.frontend.importer import Imported


class InvalidProgram(AssertionError):
    """Code generation made a program that the verifier refuses: a bug in cimc, whatever the input."""


@dataclass(frozen=True)
class Binding:
    """A symbolic dim of the model, its value, and who said so."""

    name: str
    value: int
    source: str


@dataclass(frozen=True)
class Compiled:
    """A compiled model. ``graph`` and ``constants`` are those the program was made from (level partitioned)."""

    model: Path
    model_hash: str
    options: Options
    hardware: Hardware
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...]
    imported: Graph
    tokens: Tokens
    fixed: frozenset[str]  # inputs compiled in at their values, which the program takes no more
    graph: Graph
    constants: Constants
    program: Program
    contents: Contents
    mapping: Mapping[str, Json]
    pipeline: str
    seconds: tuple[tuple[str, float], ...]
    placement: str = ""  # SHA-256 of the file that the placement came from
    searched: Outcome | None = None
    calibration: Calibration | None = None  # where a pass measured or fitted something

    @property
    def defaults(self) -> tuple[str, ...]:
        """The dims that nobody bound, as ``batch = 1 (default: batch)``."""
        return tuple(f"{b.name} = {b.value} ({b.source})" for b in self.bindings if b.source.startswith("default"))

    @functools.cached_property
    def weights(self) -> Mapping[str, Array]:
        """The arrays of the program by its keys, all in memory, computed when this is first asked for: what a run needs, and
        writing does not."""
        return dict(self.contents)

    def manifest(self) -> dict[str, object]:
        """Enough to repeat the compile bit for bit; no times, no paths of this machine."""
        return {
            "cimc": importlib.metadata.version("cimc"),
            "model": {"file": self.model.name, "sha256": self.model_hash},
            "options": {
                "hardware": self.options.hardware if self.hardware.path is None else Path(self.options.hardware).name,
                "overrides": list(self.options.overrides),
                "dims": {b.name: b.value for b in self.bindings},
                "precision": self.options.precision,
                "activations": self.options.activations,
                "fit": self.options.fit,
                "digital": list(self.options.digital),
                "outliers": self.options.outliers,
                "copies": self.options.copies,
                "attention": self.options.attention,
                "values": self.options.values,
                "pipeline": self.pipeline,
                "calibrate": self.options.calibrate,
                "mapping": asdict(self.options.choices),
                **(self.calibration.manifest() if self.calibration else {}),
                **self._placement(),
                **({"lengths": asdict(self.options.lengths)} if self.options.lengths else {}),
            },
            "tokens": {
                "vocab_size": self.tokens.vocabulary,
                "bos_token_id": self.tokens.first,
                "eos_token_id": self.tokens.last,
            },
            "bindings": [{"name": b.name, "value": b.value, "source": b.source} for b in self.bindings],
            "versions": {name: importlib.metadata.version(name) for name in ("numpy", "onnx", "onnxruntime")},
        }

    def _placement(self) -> dict[str, object]:
        """What was said about the placement; a search by the trials it made, which repeat it."""
        found: dict[str, object] = {}
        if self.placement:
            found["placement"] = {"file": Path(self.options.placement).name, "sha256": self.placement}
        if self.searched is not None:
            found["search"] = {"trials": self.searched.trials, "seed": self.searched.seed}
        return found

    def write(self, folder: Path) -> None:
        """Write program, weights, mapping, hardware and manifest into a folder, all at once or not at all."""
        texts = {
            bundle.PROGRAM: print_program(self.program),
            bundle.MAPPING: json.dumps(self.mapping, indent=1, ensure_ascii=False) + "\n",
            bundle.HARDWARE: self.hardware.text,
        }
        bundle.write(folder, texts, self.contents, self.manifest())


def compile_model(
    model: Path | str,
    options: Options | None = None,
    *,
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
    calibration: Sequence[Mapping[str, NDArray[np.generic]]] = (),
    watch: Watch | None = None,
    specialize: bool = False,
) -> Compiled | None:
    """Compile a model file (or a folder with ``model.onnx``). ``inputs`` bind symbolic dims by their shapes. None if
    ``watch`` stops the pipeline early. Raises CimcError for everything a user can put right."""
    if not str(model):
        raise errors.ARGUMENT(
            name="model", why="the path is empty", fix="name an ONNX file, or a folder with model.onnx"
        )
    agree(options or Options())
    with uncollected():
        given = _Given(Path(model), options or Options(), inputs, calibration, watch, specialize)
        lengths = given.options.lengths
        return _compile(given) if lengths is None else _for_lengths(given, lengths)


def _for_lengths(given: _Given, lengths: Lengths) -> Compiled | None:
    """A program for a range of lengths: decided for the greatest, laid out as there for shorter ones. Raises LENGTHS."""
    _one_length(given, lengths)

    def bound(length: int, options: Options) -> Options:
        return replace(options, dims={**options.dims, lengths.name: length})

    long = _compile(replace(given, options=bound(lengths.high, given.options)))
    if long is None:
        return None
    alike = replace(long.options, search=None, placement="")
    followed = replace(given, watch=None, pinned=placement_of(long.mapping))
    shorter: list[Made] = []
    for length in lengths.shorter:
        try:
            with stage(f"{lengths.name} = {length}"):
                made = _compile(replace(followed, options=bound(length, alike)))
        except errors.CimcError as e:
            raise lengths.unlike(length, e.message) from None
        assert made is not None
        shorter.append(Made(length, made.program, made.contents, made.mapping))
    with stage("one program"):
        whole = Made(lengths.high, long.program, long.contents, long.mapping)
        program = one_program(lengths, whole, shorter)
        try:
            verify(program, long.hardware.spec)
        except errors.CimcError as e:
            raise lengths.refused(f"of some, {e.message}", "a higher least length may do, or one length") from None
    return replace(long, program=program, mapping=mapped(lengths, whole, shorter))


def _one_length(given: _Given, lengths: Lengths) -> None:
    """Raise LENGTHS for what makes sense for one length only."""
    if given.inputs or given.calibration:
        raise lengths.refused("inputs have one length", "bind the other dims with --dim, and give inputs to run")
    if given.options.fit != "off" or given.options.activations == "static":
        why = "scales and weights are fitted to inputs of one length"
        raise lengths.refused(why, "leave --fit and --activations out")
    if given.options.choices.reload:
        raise lengths.refused(
            "weights that take turns in cells are laid out anew for each length", "leave --reload out"
        )


@dataclass(frozen=True)
class _Given:
    """A model file, and what is given with it: options, arrays, whom to tell, a placement that is not in a file."""

    model: Path
    options: Options
    inputs: Mapping[str, NDArray[np.generic]] | None = None
    calibration: Sequence[Mapping[str, NDArray[np.generic]]] = ()
    watch: Watch | None = None
    specialize: bool = False
    pinned: Pinned | None = None


@dataclass(frozen=True)
class _Passed:
    """A model behind the passes, at level partitioned. ``fitted``: notes on what was fitted to which inputs."""

    imported: Imported
    tokens: Tokens
    pipeline: str
    outcome: Passes
    calibration: Calibration | None
    fitted: tuple[str, ...]


def _compile(given: _Given) -> Compiled | None:
    """The whole way for one model of one length. None if ``watch`` stops the pipeline early."""
    options, hardware = given.options, hardware_files.load(given.options.hardware, given.options.overrides)
    pinned = read_placement(Path(options.placement)) if options.placement else given.pinned
    passed = _passed(given, hardware)
    if passed is None:
        return None
    before = passed.outcome.graph
    with stage("mapping"):
        if options.auto_chips:
            options, hardware = _enough_chips(before, options)
        graph, mapping = build(before, hardware.spec, options.precision, options.choices, pinned)
    header = (f"{passed.imported.path.name} for {hardware.name}, {options.precision}", f"passes: {passed.pipeline}")
    mapping, made, searched = _generated(graph, mapping, hardware, header, options.search, pinned is not None)
    program = calibrating(made.program, hardware.spec) if options.calibrate == "start" else made.program
    fits = fit(before, mapping, hardware.spec, options.precision, _chips(options))
    caches = cache_told(graph, mapping, made.held, hardware.spec)
    with stage("verify"):
        _verified(program, hardware.spec)
    dumped = {**dump(graph, mapping, program, hardware.spec), "fit": fits, "cache": caches}
    return Compiled(
        model=passed.imported.path,
        model_hash=passed.imported.model_hash,
        options=options,
        hardware=hardware,
        bindings=tuple(Binding(b.name, b.value, b.source) for b in passed.imported.bindings),
        notes=(
            *(*passed.imported.notes, *passed.fitted, *_remarks(given.options, hardware, graph)),
            *([searched.note] if searched else ()),
            *notes.chosen(fits, caches, mapping),
        ),
        imported=passed.imported.graph,
        tokens=passed.tokens,
        fixed=passed.imported.fixed,
        graph=graph,
        constants=passed.outcome.constants,
        program=program,
        contents=Contents(program, graph, passed.outcome.constants),
        mapping={**dumped, "search": searched.to_json()} if searched else dumped,
        pipeline=passed.pipeline,
        seconds=passed.outcome.seconds,
        placement=pinned.digest if pinned else "",
        searched=searched,
        calibration=passed.calibration,
    )


def _passed(given: _Given, hardware: Hardware) -> _Passed | None:
    """Import the model, and run the passes that the options ask for. None if ``watch`` stops them early. Raises
    PIPELINE_SHORT for passes that end before level partitioned."""
    text = pipeline_text(given.options, hardware)
    imported, tokens = _imported(given)
    passes, measured, fitted = calibrated(
        parse_pipeline(text), imported.graph, imported.fixed, given.calibration, tokens
    )
    with stage("passes"):
        outcome = run_pipeline(imported.graph, imported.constants, passes, given.watch)
    if given.watch is not None and given.watch.stop_after:
        return None
    if outcome.graph.level != "partitioned":
        raise errors.PIPELINE_SHORT(level=outcome.graph.level)
    return _Passed(imported, tokens, text, outcome, measured, fitted)


def _imported(given: _Given) -> tuple[Imported, Tokens]:
    """The model at level imported, and what it says about its tokens. A length that nobody gave is one that its tables
    hold; one that was given and that they do not is noted."""
    from cimc.frontend import importer

    model, inputs = given.model, given.inputs
    tokens = read_tokens(model if model.is_dir() else model.parent)
    misfit = functools.partial(beyond, tokens=tokens)
    with stage("import"):
        found = importer.load(model, dims=given.options.dims, inputs=inputs, specialize=given.specialize, misfit=misfit)
    if inputs or not (why := misfit(found.graph, found.constants)):
        return found, tokens
    told = f"drawn inputs will fail: {why}; bind less with --dim, or give --inputs"
    return replace(found, notes=(*found.notes, told)), tokens


def _verified(program: Program, chip: ChipSpec) -> None:
    """Raises InvalidProgram, PROGRAM_TOO_BIG for a chip without the room, PROGRAM_LIMIT for a run without end."""
    try:
        verify(program, chip, None)
    except errors.CimcError as e:
        if e.diagnostic in (errors.PROGRAM_TOO_BIG, errors.PROGRAM_LIMIT):
            raise
        raise InvalidProgram(e.render()) from None


def _remarks(options: Options, hardware: Hardware, graph: Graph) -> tuple[str, ...]:
    """What became of the options, in a graph on hardware."""
    return (
        *notes.kept(graph),
        *notes.halved(graph, options.values),
        *notes.cells(weight_bits(options.precision), core_of(hardware).weight_bits),
        *([f"chips: {hardware.spec.chips}, as few as the model fits on"] if options.auto_chips else ()),
    )


def _generated(
    graph: Graph, mapping: Placed, hardware: Hardware, header: Sequence[str], plan: Plan | None, pinned: bool
) -> tuple[Placed, Lowered, Outcome | None]:
    """The mapping with all that code generation decided, and the program; better ones, if a search finds them. ``pinned``: the
    placement is somebody's, and tiles stay where they are."""
    with stage("code generation"):
        mapping, drafts = (mapping, NO_DRAFTS) if pinned else arranged(graph, mapping, hardware.spec)
        made = lowered(graph, mapping, hardware.spec, header, drafts=drafts)
    if plan is None:
        decided = made.decided(mapping.placement)
        return replace(mapping, placement=decided), made, None
    from cimc.search.climb import search  # the timing engine takes longer to load than a small model to compile

    with stage("search"):
        found = search(graph, mapping, hardware.spec, header, plan, made)
    return found.mapping, found.made, found.outcome


def _enough_chips(graph: Graph, options: Options) -> tuple[Options, Hardware]:
    """The fewest chips on which a partitioned graph finds room, and the options that ask for that number. Raises the
    does-not-fit diagnostic of the most that are tried, and HW_INVALID for hardware whose chips have no link."""
    for count in range(1, MOST_CHIPS + 1):
        overrides = (*options.overrides, f"chips={count}")
        hardware = hardware_files.load(options.hardware, overrides)
        tiles = hardware.spec.tile_count // count
        try:
            build(graph, hardware.spec, options.precision, options.choices)
        except errors.CimcError as e:
            if e.code != errors.DOES_NOT_FIT.code or count == MOST_CHIPS or (count + 1) * tiles > MOST_TILES:
                raise
            continue
        return replace(options, overrides=overrides, auto_chips=False), hardware
    raise AssertionError


def _chips(options: Options) -> Callable[[int], ChipSpec | None]:
    """The hardware asked for with another number of chips, None where it cannot be."""

    def spec(count: int) -> ChipSpec | None:
        try:
            return hardware_files.load(options.hardware, (*options.overrides, f"chips={count}")).spec
        except errors.CimcError:
            return None

    return spec
