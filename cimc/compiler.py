"""ONNX model → program: the whole way, as one function."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cimc import bundle, errors, notes
from cimc.arch import load as hardware_files
from cimc.arch.load import Hardware
from cimc.arch.spec import MOST_TILES, ChipSpec, CoreSpec
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
from cimc.mapping.build import build, matmul_room
from cimc.mapping.choices import DEFAULT, Choices
from cimc.mapping.dump import dump
from cimc.mapping.fit import MOST_CHIPS, fit
from cimc.mapping.json_value import Json
from cimc.mapping.mapping import Mapping as Placed
from cimc.mapping.pinned import Pinned, placement_of, read_placement
from cimc.mapping.treatment import DEFAULT as DIGITAL_ATTENTION
from cimc.mapping.treatment import parse_attention
from cimc.mapping.written import weight_cores
from cimc.passes.copies import Copies
from cimc.passes.digital import Digital
from cimc.passes.halve import Halve
from cimc.passes.outliers import Outliers
from cimc.passes.pipeline_text import parse_pipeline
from cimc.passes.quantize import Quantize
from cimc.passes.smooth import Smooth
from cimc.passes.split import Split
from cimc.pipeline import Watch, default_pipeline, run_pipeline
from cimc.report.progress import stage
from cimc.search.plan import Outcome, Plan

if TYPE_CHECKING:
    from cimc.frontend.importer import Imported

PRECISION = re.compile(r"w([2-8])a8")
Fit = Literal["off", "scales", "rounding", "all"]
"""What of the quantisation is fitted to calibration inputs."""
Values = Literal["f32", "f16", "bf16"]
"""What values between products are kept in, and travel as."""


@dataclass(frozen=True)
class Options:
    """What a user may choose about a compile. ``activations``: scales of activations per row at run time (``dynamic``) or
    constant, measured on calibration inputs (``static``). ``fit``: what else is fitted to them: ``scales`` between activations
    and weights (:class:`Smooth`), the ``rounding`` of weights, or ``all``. ``digital``: static matmuls on the digital matmul
    units, by name or pattern. ``outliers`` and ``copies``: options of the passes of these names, as ``channels=8,
    by=activations`` and ``count=4``; empty: no such pass. ``passes``: a pipeline in place of the usual one; it must end at
    level partitioned. ``calibrate``: whether the program
    begins by calibrating its analog cores. ``auto_chips``: as few of the hardware's chips as the model fits on, whatever
    number of them it says. ``placement``: a file as ``mapping.json`` that says what goes where. ``search``: how long to look
    for a better placement from there on. ``attention``: how products of activations run (:func:`parse_attention`). ``values``: in
    which type values between products are kept and travel (:class:`Halve`). ``lengths``: a dim that stays open, as a parameter
    of the program."""

    hardware: str = hardware_files.DEFAULT
    overrides: tuple[str, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    precision: str = "w8a8"
    activations: Literal["dynamic", "static"] = "dynamic"
    passes: str = ""
    choices: Choices = DEFAULT
    digital: tuple[str, ...] = ()
    outliers: str = ""
    calibrate: Literal["never", "start"] = "never"
    auto_chips: bool = False
    copies: str = ""
    placement: str = ""
    search: Plan | None = None
    attention: str = DIGITAL_ATTENTION
    fit: Fit = "off"
    values: Values = "f32"
    lengths: Lengths | None = None


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
    _agree(options or Options())
    with uncollected():
        asked = options or Options()
        if asked.lengths is not None:
            return _for_lengths(Path(model), asked, asked.lengths, inputs, calibration, watch)
        return _compile(Path(model), asked, inputs, calibration, watch, specialize)


def _for_lengths(
    model: Path,
    options: Options,
    lengths: Lengths,
    inputs: Mapping[str, NDArray[np.generic]] | None,
    calibration: Sequence[Mapping[str, NDArray[np.generic]]],
    watch: Watch | None,
) -> Compiled | None:
    """A program for a range of lengths: decided for the greatest, laid out as there for shorter ones. Raises LENGTHS."""
    if inputs or calibration:
        raise lengths.refused("inputs have one length", "bind the other dims with --dim, and give inputs to run")
    if options.fit != "off" or options.activations == "static":
        raise lengths.refused(
            "scales and weights are fitted to inputs of one length", "leave --fit and --activations out"
        )
    if options.choices.reload:
        raise lengths.refused(
            "weights that take turns in cells are laid out anew for each length", "leave --reload out"
        )

    def at(length: int, chosen: Options, pinned: Pinned | None) -> Compiled | None:
        dims = {**chosen.dims, lengths.name: length}
        return _compile(model, replace(chosen, dims=dims), None, (), None if pinned else watch, False, pinned)

    long = at(lengths.high, options, None)
    if long is None:
        return None
    alike, pinned = replace(long.options, search=None, placement=""), placement_of(long.mapping)
    shorter: list[Made] = []
    for length in lengths.shorter:
        try:
            with stage(f"{lengths.name} = {length}"):
                made = at(length, alike, pinned)
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


def _agree(options: Options) -> None:
    """Raise MAPPING_CHOICE for choices that contradict each other, however they were given."""
    choices, no = options.choices, errors.MAPPING_CHOICE
    if choices.reload and choices.optimize == "throughput":
        why = "weights that take turns in cells, and optimize=throughput keeps all layers in them"
        raise no(text="reload=on", why=why, fix="give one of them")
    if choices.reload and options.auto_chips:
        why = "it does with fewer chips than all weights need, and --chips auto takes as many"
        raise no(text="reload=on", why=why, fix="give one of them, or --chips N")


def _compile(
    model: Path,
    options: Options,
    inputs: Mapping[str, NDArray[np.generic]] | None,
    calibration: Sequence[Mapping[str, NDArray[np.generic]]],
    watch: Watch | None,
    specialize: bool,
    pinned: Pinned | None = None,
) -> Compiled | None:
    asked, hardware = options, hardware_files.load(options.hardware, options.overrides)
    pinned = read_placement(Path(options.placement)) if options.placement else pinned
    text = _pipeline(options, hardware)
    imported, tokens = _imported(model, options, inputs, specialize)
    passes, measured, fitted = calibrated(parse_pipeline(text), imported.graph, imported.fixed, calibration, tokens)
    with stage("passes"):
        outcome = run_pipeline(imported.graph, imported.constants, passes, watch)
    if watch is not None and watch.stop_after:
        return None
    if outcome.graph.level != "partitioned":
        raise errors.PIPELINE_SHORT(level=outcome.graph.level)
    with stage("mapping"):
        if options.auto_chips:
            options, hardware = _enough_chips(outcome.graph, options)
        graph, mapping = build(outcome.graph, hardware.spec, options.precision, options.choices, pinned)
    header = (f"{imported.path.name} for {hardware.name}, {options.precision}", f"passes: {text}")
    mapping, made, searched = _generated(graph, mapping, hardware, header, options.search, pinned is not None)
    program = calibrating(made.program, hardware.spec) if options.calibrate == "start" else made.program
    contents = Contents(program, graph, outcome.constants)
    told = fit(outcome.graph, mapping, hardware.spec, options.precision, _chips(options))
    caches = cache_told(graph, mapping, made.held, hardware.spec)
    with stage("verify"):
        _verified(program, hardware.spec)
    remarks = (
        *(*imported.notes, *fitted, *_remarks(asked, hardware, graph)),
        *([searched.note] if searched else ()),
        *notes.chosen(told, caches, mapping),
    )
    dumped = {**dump(graph, mapping, program, hardware.spec), "fit": told, "cache": caches}
    return Compiled(
        model=imported.path,
        model_hash=imported.model_hash,
        options=options,
        hardware=hardware,
        bindings=tuple(Binding(b.name, b.value, b.source) for b in imported.bindings),
        notes=remarks,
        imported=imported.graph,
        tokens=tokens,
        fixed=imported.fixed,
        graph=graph,
        constants=outcome.constants,
        program=program,
        contents=contents,
        mapping={**dumped, "search": searched.to_json()} if searched else dumped,
        pipeline=text,
        seconds=outcome.seconds,
        placement=pinned.digest if pinned else "",
        searched=searched,
        calibration=measured,
    )


def _imported(
    model: Path, options: Options, inputs: Mapping[str, NDArray[np.generic]] | None, specialize: bool
) -> tuple[Imported, Tokens]:
    """The model at level imported, and what it says about its tokens. A length that nobody gave is one that its tables
    hold; one that was given and that they do not is noted."""
    from cimc.frontend import importer

    tokens = read_tokens(model if model.is_dir() else model.parent)
    misfit = functools.partial(beyond, tokens=tokens)
    with stage("import"):
        found = importer.load(model, dims=options.dims, inputs=inputs, specialize=specialize, misfit=misfit)
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
        *notes.cells(_weight_bits(options.precision), _core(hardware).weight_bits),
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


def _pipeline(options: Options, hardware: Hardware) -> str:
    """The pipeline's text. Raises PASS_OPTION for options that contradict a pipeline of one's own, or no tile can do."""
    apart = parse_pipeline(f"outliers{{{options.outliers}}}", "--outliers") if options.outliers else ()
    several = parse_pipeline(f"copies{{{options.copies}}}", "--copies") if options.copies else ()
    if options.passes and (options.digital or apart or several or options.fit != "off"):
        why = "a pipeline of your own (-p) says itself what is kept out of the cells, in several, or fitted"
        given = "--digital, --outliers, --copies or --fit"
        raise errors.PASS_OPTION(option=given, name="digital", why=why, fix="write it into -p")
    attention = parse_attention(options.attention)
    if options.values not in get_args(Values):
        raise errors.ARGUMENT(name="values", why=f"there is no '{options.values}'", fix="use f32, f16 or bf16")
    if options.passes and options.values != "f32":
        why = "a pipeline of your own (-p) says itself what values are rounded to"
        raise errors.PASS_OPTION(option="--values", name="halve", why=why, fix="write halve{to=f16} into -p")
    if options.passes:
        if options.attention != DIGITAL_ATTENTION:
            why = "a pipeline of your own (-p) says itself how products of activations run"
            raise errors.ATTENTION(text=options.attention, why=why, fix="write decompose or written{cells=nvm} into -p")
        return options.passes
    core = _core(hardware)
    room = matmul_room(hardware.spec)
    if (options.digital or apart) and not room:
        why = f"no tile of {hardware.name} has a matmul unit"
        raise errors.PASS_OPTION(option="layers", name="digital", why=why, fix="choose hardware that has one")
    return default_pipeline(
        core.rows,
        core.cols,
        weight_bits=_weight_bits(options.precision),
        activations=options.activations,
        rounding="fitted" if options.fit in ("rounding", "all") else "nearest",
        smooth=Smooth(weight_bits=_weight_bits(options.precision)) if options.fit in ("scales", "all") else None,
        outliers=next((p for p in apart if isinstance(p, Outliers)), None),
        digital=Digital(",".join(options.digital)) if options.digital else None,
        copies=next((p for p in several if isinstance(p, Copies)), None),
        digital_bytes=room // 2 if options.digital or apart else Quantize.digital_bytes,
        attention=attention.passes(hardware.spec, core.cols),
        halve=Halve(options.values) if options.values != "f32" else None,
        split=Split(max(1, weight_cores(hardware.spec, attention.cells))) if options.choices.reload else None,
    )


def _weight_bits(precision: str) -> int:
    matched = PRECISION.fullmatch(precision)
    if matched is None:
        raise errors.PRECISION(given=precision, why="it names weight and activation bits, as in w8a8")
    return int(matched.group(1))


def _core(hardware: Hardware) -> CoreSpec:
    """The core whose size blocks are cut to: that of the first tile kind with cores."""
    for spec in hardware.spec.tiles.values():
        if spec.core is not None:
            return spec.core
    raise errors.NO_CORES(chip=hardware.name)
