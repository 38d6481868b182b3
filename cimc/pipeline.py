"""The order of passes, and running them: check, time, print, dump, stop, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cimc import debug, errors, files
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Array, Constants, Graph
from cimc.ir.levels import check
from cimc.ir.text import print_graph
from cimc.ops import Arithmetic
from cimc.passes.codes import Codes
from cimc.passes.contract import Pass
from cimc.passes.copies import Copies
from cimc.passes.decompose import Decompose
from cimc.passes.digital import Digital
from cimc.passes.halve import Halve
from cimc.passes.online import Online
from cimc.passes.outliers import Outliers
from cimc.passes.partition import Partition
from cimc.passes.pipeline_text import parse_pipeline, print_pipeline
from cimc.passes.quantize import Quantize
from cimc.passes.smooth import Smooth
from cimc.passes.split import Split
from cimc.passes.written import Written

CANONICAL = "integers,fold,fuse,sink,fold,classify,dce"
"""imported → canonical. The second ``fold`` takes up what fusing and sinking left: masks on constants, views of views."""

ALL = "*"
"""Among ``print_after``: after every pass."""

TOLERANCE = 1e-3
"""How far re-evaluated outputs may move, in units of the output's largest value: float32 sums in another order move
by some 1e-6 a layer; a wrong pass moves them by about 1."""


def default_pipeline(
    rows: int,
    cols: int,
    *,
    weight_bits: int = 8,
    activations: str = "dynamic",
    rounding: str = "nearest",
    smooth: Smooth | None = None,
    outliers: Outliers | None = None,
    digital: Digital | None = None,
    copies: Copies | None = None,
    digital_bytes: int = Quantize.digital_bytes,
    attention: tuple[Decompose | Online | Codes | Written, ...] = (),
    halve: Halve | None = None,
    split: Split | None = None,
) -> str:
    """The usual pipeline, as text, for cores of ``rows`` × ``cols`` weights. ``outliers`` and ``digital``: what is kept out
    of the cells; ``smooth``: ranges evened out before they are quantised; ``copies``: what is in several sets of cells;
    ``digital_bytes``: the largest piece of digital weights that a tile with a matmul unit takes at once. ``attention``: passes
    for the products of activations. ``halve``: values between products in 16 bits. ``split``: products that the chip's cells do
    not hold at once, in pieces."""
    quantize = parse_pipeline(
        f"quantize{{activations={activations}, weight_bits={weight_bits}, rounding={rounding}, digital_bytes={digital_bytes}}}"
    )
    early = [one for one in attention if not isinstance(one, Codes | Written)]
    late = [one for one in attention if isinstance(one, Codes | Written)]
    chosen = (*early, outliers, digital, copies, smooth, *quantize, *late, halve, Partition(rows, cols), split)
    return ",".join((CANONICAL, *(print_pipeline((one,)) for one in chosen if one is not None)))


def with_calibration(passes: Sequence[Pass], samples: Sequence[Mapping[str, Array]]) -> tuple[Pass, ...]:
    """The passes, with calibration inputs for those that measure activations."""
    return tuple(
        replace(p, calibration=tuple(samples)) if isinstance(p, Quantize | Outliers | Smooth) else p for p in passes
    )


def measures(passes: Sequence[Pass]) -> bool:
    """Whether a pass needs calibration inputs."""
    return fits(passes) or any(
        (isinstance(p, Quantize) and p.activations == "static") or (isinstance(p, Outliers) and p.by == "activations")
        for p in passes
    )


def fits(passes: Sequence[Pass]) -> bool:
    """Whether a pass fits scales or weights to calibration inputs, for which drawn ones will do."""
    return any(isinstance(p, Smooth) or (isinstance(p, Quantize) and p.rounding == "fitted") for p in passes)


def labels(passes: Sequence[Pass]) -> tuple[str, ...]:
    """A name for each run of a pass: ``fold``, ``fuse``, ``fold.2`` ..."""
    count: dict[str, int] = {}
    found: list[str] = []
    for one in passes:
        count[one.name] = count.get(one.name, 0) + 1
        found.append(one.name if count[one.name] == 1 else f"{one.name}.{count[one.name]}")
    return tuple(found)


class AnswerChanged(AssertionError):
    """A pass changed what the graph computes: a bug in that pass."""


@dataclass(frozen=True)
class Watch:
    """What to do around passes. ``print_after`` and ``stop_after`` take labels (:func:`labels`), ``print_after`` also
    :data:`ALL`; texts go to ``write``. ``dump_phases``: a folder that gets ``00-imported.ir``, ``01-fold.ir`` and so
    on. ``verify``: as :func:`cimc.debug.verify`; ``samples`` are the inputs that level 2 evaluates with (without:
    made up)."""

    print_after: frozenset[str] = frozenset()
    stop_after: str = ""
    dump_phases: Path | None = None
    verify: int = field(default_factory=debug.verify)
    samples: Mapping[str, Array] | None = None
    write: Callable[[str], None] = print


@dataclass(frozen=True)
class Outcome:
    """What a pipeline made. ``seconds``: label and wall time of each pass that ran."""

    graph: Graph
    constants: Constants
    seconds: tuple[tuple[str, float], ...]


def run_pipeline(
    graph: Graph, constants: Constants, passes: Sequence[Pass] | str, watch: Watch | None = None
) -> Outcome:
    """Run passes (or a pipeline's text) one after another.

    Raises CimcError: pass-unknown for labels that name no pass, pass-level for a pass at the wrong level, and what
    passes raise. LawBroken and AnswerChanged tell a bug in a pass.
    """
    passes = parse_pipeline(passes) if isinstance(passes, str) else tuple(passes)
    watch = watch if watch is not None else Watch()
    names = labels(passes)
    _known(names, watch)
    reference = _Reference(graph, constants, watch.samples) if watch.verify >= 2 else None
    _show(graph, 0, graph.level, watch)
    seconds: list[tuple[str, float]] = []
    if watch.verify >= 1:
        check(graph, constants, f"before {names[0] if names else 'any pass'}")
    for index, (label, one) in enumerate(zip(names, passes, strict=True), 1):
        if graph.level not in one.takes:
            raise errors.PASS_LEVEL(name=label, takes=" or ".join(one.takes), level=graph.level)
        start = time.perf_counter()
        graph, constants = one.run(graph, constants)
        seconds.append((label, time.perf_counter() - start))
        _show(graph, index, label, watch)
        if watch.verify >= 1:
            check(graph, constants, f"after {label}")
        if reference is not None:
            reference.compare(label, graph, constants, rounds=isinstance(one, Halve))
        if label == watch.stop_after:
            break
    return Outcome(graph, constants, tuple(seconds))


def _known(names: Sequence[str], watch: Watch) -> None:
    asked = [("stop after", watch.stop_after)] if watch.stop_after else []
    asked += [("print after", name) for name in sorted(watch.print_after) if name != ALL]
    for where, name in asked:
        if name not in names:
            meant = errors.did_you_mean(name, names)
            raise errors.PASS_UNKNOWN(where=where, name=name, meant=meant, known=", ".join(names))


def _show(graph: Graph, index: int, label: str, watch: Watch) -> None:
    if watch.dump_phases is not None:
        try:
            watch.dump_phases.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise errors.REPORT_UNWRITABLE(path=watch.dump_phases, why=e.strerror or str(e)) from None
        path = watch.dump_phases / f"{index:02}-{label}.ir"
        files.write(path, print_graph(graph))
    if index and (ALL in watch.print_after or label in watch.print_after):
        watch.write(f"# after {label}\n{print_graph(graph)}")


def made_up_inputs(graph: Graph) -> dict[str, Array]:
    """Inputs for a graph when nobody gave any: waves for numbers, 0 and 1 in turn for indices and flags."""
    found: dict[str, Array] = {}
    for place, name in enumerate(graph.inputs):
        type = graph.types[name]
        dtype = type.element.dtype(exact=True)
        count = np.arange(type.size)
        whole = dtype == np.bool_ or np.issubdtype(dtype, np.integer)
        found[name] = (count % 2 if whole else np.sin(count + place)).astype(dtype).reshape(type.shape)
    return found


class _Reference:
    """The answers to compare with: in float numerics those of the first graph, in integer numerics those of the first
    graph at level quantized, from where on they are exact but for a pass that rounds values (``rounds``)."""

    def __init__(self, graph: Graph, constants: Constants, samples: Mapping[str, Array] | None) -> None:
        self.inputs = samples if samples is not None else made_up_inputs(graph)
        self.float = evaluate(graph, constants, self.inputs, Arithmetic(exact=True))
        self.integer: dict[str, Array] | None = None

    def compare(self, label: str, graph: Graph, constants: Constants, *, rounds: bool = False) -> None:
        """Raise AnswerChanged if the graph computes something else."""
        found = evaluate(graph, constants, self.inputs, Arithmetic(exact=True))
        for name, wanted in self.float.items():
            worst = _worst(wanted, found[name])
            if not worst <= TOLERANCE:
                raise AnswerChanged(f"{label} changed output {name} by {worst:.3g} of its largest value")
        if graph.level not in ("quantized", "partitioned"):
            return
        whole = evaluate(graph, constants, self.inputs, Arithmetic(exact=False))
        for name, wanted in ((not rounds and self.integer) or whole).items():
            if not np.array_equal(wanted, whole[name], equal_nan=True):
                raise AnswerChanged(f"{label} changed output {name} in integer numerics, where it must be exact")
        self.integer = whole


def _worst(wanted: Array, found: Array) -> float:
    """The largest difference in units of the largest finite value; infinite if NaNs or infinities stand elsewhere."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if a.shape != b.shape or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    size = float(np.max(np.abs(a[finite]), initial=0))
    return float(np.max(np.abs(a[finite] - b[finite]), initial=0)) / (size or 1)
