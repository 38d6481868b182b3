"""The outcome of ``cimc check``: the object of ``check --json``, the table, and the one line to grep for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cimc.report import attribution, units
from cimc.report.attribution import Attribution
from cimc.report.compare import Agreement
from cimc.report.figures import HostNode, RunFigures
from cimc.report.jsontext import Json, JsonObject, number
from cimc.report.render import Block, Facts, Table

SHOWN_LAYERS = 24


@dataclass(frozen=True)
class CheckSeconds:
    """Wall-clock seconds of the three steps."""

    compile: float
    run: float
    reference: float


@dataclass(frozen=True)
class LayerNotes:
    """What the layers say together: the numerics of the values inside, the first whose error jumps (its name, the node,
    SQNR before and after in dB; None if none does), and the causes of each error."""

    numerics: str
    jump: tuple[str, str, float, float] | None
    causes: Sequence[Attribution]


@dataclass(frozen=True)
class NotFinite:
    """The first value, in execution order, that holds NaN or infinity where outputs do: its name, the node that makes it
    (empty for an input), and what it holds."""

    value: str
    node: str
    holds: str


@dataclass(frozen=True)
class CheckReport:
    """Everything ``check`` found. ``layers`` is None unless they were compared; ``command`` repeats the check;
    ``reference`` says what the outputs were compared with; ``not_finite``, where NaN or infinity in them comes from."""

    model: str
    hardware: str
    numerics: str
    seed: int
    outputs: Sequence[Agreement]
    layers: Sequence[Agreement] | None
    fallbacks: Sequence[HostNode]
    seconds: CheckSeconds
    run: RunFigures
    command: str
    reference: str = "onnxruntime"
    layer_notes: LayerNotes | None = None
    not_finite: NotFinite | None = None

    @property
    def passed(self) -> bool:
        """Whether every output is near enough. Layers are told, they do not decide."""
        return all(a.passed for a in self.outputs)

    @property
    def worst(self) -> Agreement | None:
        """The output nearest to failing, or that failed by most."""
        return max(self.outputs, key=lambda a: (not a.passed, a.verdict.strain), default=None)

    @property
    def least_cosine(self) -> float | None:
        """The cosine similarity of the output that has least; None if all of them are zero, and so have none."""
        return min((c for a in self.outputs if math.isfinite(c := a.cosine_similarity)), default=None)

    @property
    def first_bad_layer(self) -> Agreement | None:
        """The first compared value, in execution order, that is beyond tolerance."""
        return next((a for a in self.layers or () if not a.passed), None)

    def to_json(self) -> JsonObject:
        """The object as the contract describes it. Infinite errors (nothing to compare) become null."""
        found: JsonObject = {
            "model": self.model,
            "hardware": self.hardware,
            "numerics": self.numerics,
            "seed": self.seed,
            "passed": self.passed,
            "reference": self.reference,
            "outputs": [agreement_json(a) for a in self.outputs],
        }
        if self.layers is not None:
            found["layers"] = [agreement_json(a) for a in self.layers]
        if self.layer_notes is not None:
            found.update(_notes_json(self.layer_notes))
        if self.not_finite is not None:
            found["not_finite"] = asdict(self.not_finite)
        found["seconds"] = {
            "compile": self.seconds.compile,
            "run": self.seconds.run,
            "reference": self.seconds.reference,
        }
        found["fallbacks"] = [{"op_type": f.op_type, "node": f.node, "reason": f.reason} for f in self.fallbacks]
        found["run"] = self.run.to_json()
        found["command"] = self.command
        return found


def _notes_json(notes: LayerNotes) -> JsonObject:
    jump: Json = None
    if notes.jump is not None:
        name, node, before, after = notes.jump
        jump = {"name": name, "node": node, "sqnr_db_before": before, "sqnr_db": after}
    causes: Json = [attribution.attribution_json(a) for a in notes.causes]
    return {"layers_numerics": notes.numerics, "first_jump": jump, "attribution": causes}


def agreement_json(a: Agreement) -> JsonObject:
    """One comparison as the contract describes it, with the rule that decided beside it."""
    worst: Json = None
    if a.worst_index is not None:
        worst = {"index": list(a.worst_index), "got": number(a.worst_got), "want": number(a.worst_want)}
    return {
        "name": a.name,
        "shape": list(a.shape),
        "dtype": a.dtype,
        "max_abs_error": number(a.max_abs_error),
        "rms_error": number(a.rms_error),
        "cosine_similarity": a.cosine_similarity,
        "sqnr_db": a.sqnr_db,
        "argmax_agreement": a.argmax_agreement,
        "passed": a.passed,
        "rule": {"name": a.verdict.rule, "figure": number(a.verdict.figure), "limit": number(a.verdict.limit)},
        "worst": worst,
        "needed_atol": number(a.needed_atol),
        "needed_rtol": number(a.needed_rtol),
        "why": a.verdict.why,
    }


def report(check: CheckReport) -> list[Block]:
    """The blocks of the report, without the closing line (:func:`closing_line`)."""
    setting = Facts(
        "Check",
        [
            ("model", check.model),
            ("hardware", check.hardware),
            ("numerics", check.numerics),
            ("seed", str(check.seed)),
            ("reference", check.reference),
            ("seconds", _seconds(check.seconds)),
        ],
    )
    blocks: list[Block] = [setting, _table("Outputs against onnxruntime", check.outputs)]
    if check.not_finite is not None:
        where = f"made by {check.not_finite.node}" if check.not_finite.node else "given as input"
        rows = [("first", check.not_finite.value, f"{where}: {check.not_finite.holds}")]
        blocks.append(Facts("NaN or infinity in the outputs", rows))
    if check.layers is not None:
        blocks += _layers(check, check.layers)
    if check.fallbacks:
        rows = [(f.node, f.op_type, f.reason) for f in check.fallbacks]
        blocks.append(Table("Nodes the host ran", ("node", "op", "why"), rows))
    failed = [a for a in check.outputs if not a.passed]
    if failed:
        blocks.append(Facts("What is beyond tolerance", [_failure(a) for a in failed]))
    bad = check.first_bad_layer
    if bad is not None:
        blocks.append(Facts("First layer beyond tolerance", [_failure(bad)]))
    return blocks


def _layers(check: CheckReport, layers: Sequence[Agreement]) -> list[Block]:
    """All layers if they are few, else the worst ones; the jump; the causes of the worst errors."""
    title = f"Layers against onnxruntime, in execution order ({len(layers)} compared)"
    shown = list(layers)
    if len(layers) > SHOWN_LAYERS:
        title = f"The {SHOWN_LAYERS} worst of {len(layers)} layers against onnxruntime, in execution order"
        worst = sorted(range(len(layers)), key=lambda i: (layers[i].passed, -layers[i].verdict.strain, i))
        shown = [layers[i] for i in sorted(worst[:SHOWN_LAYERS])]
    blocks: list[Block] = [_table(title, shown)]
    notes = check.layer_notes
    if notes is None:
        return blocks
    if notes.jump is None:
        told = [("none", "no value is much further from the reference than its operands", "")]
    else:
        name, node, before, after = notes.jump
        told = [(name, f"{node}: SQNR {units.decibel(after)} after {units.decibel(before)}", "")]
    blocks.append(Facts("First layer whose error jumps", told))
    if check.numerics == "analog":
        why = "values inside are compared in integer numerics; the device's share is known for outputs only"
        blocks.append(Facts("Device", [("note", why, "")]))
    if check.numerics != "float":
        names = {a.name for a in shown}
        blocks.append(attribution.table([c for c in notes.causes if c.name in names]))
    return blocks


def _seconds(s: CheckSeconds) -> str:
    parts = (("compile", s.compile), ("run", s.run), ("reference", s.reference))
    return ", ".join(f"{name} {units.seconds(value)}" for name, value in parts)


def _table(title: str, agreements: Sequence[Agreement]) -> Table:
    header = ("", "name", "shape", ">max abs error", ">rms error", ">cosine", ">SQNR", ">argmax", "worst at")
    rows = [
        (
            "ok" if a.passed else "FAIL",
            a.name,
            f"{'×'.join(map(str, a.shape)) or 'scalar'} {a.dtype}",
            units.error(a.max_abs_error),
            units.error(a.rms_error),
            units.similarity(a.cosine_similarity),
            units.decibel(a.sqnr_db),
            units.percent(a.argmax_agreement),
            str(list(a.worst_index)) if a.worst_index is not None else units.NOTHING,
        )
        for a in agreements
    ]
    return Table(title, header, rows)


def _failure(a: Agreement) -> tuple[str, str, str]:
    where = ""
    if a.worst_index is not None:
        where = f"at {list(a.worst_index)}: got {a.worst_got:.6g}, expected {a.worst_want:.6g}"
    if a.verdict.rule == "max_abs_error":
        where += f"; would need --atol {a.needed_atol:.3g}"
        where += f" or --rtol {a.needed_rtol:.3g}" if math.isfinite(a.needed_rtol) else ""
    return a.name, a.verdict.why, where


_FIGURE_NAMES = {"equal": "equal share", "shape": "shape differs", "dtype": "dtype differs"}
_LOWER_LIMITS = ("cosine_similarity", "equal")


def closing_line(check: CheckReport) -> str:
    """``PASSED cimc check: …`` or ``FAILED cimc check: …``: worst figure, its limit, where, the command. One line."""
    head = "PASSED" if check.passed else "FAILED"
    worst = check.worst
    if worst is None:
        return f"{head} cimc check: the model has no outputs | {units.printable(check.command)}"
    return f"{head} cimc check: {units.printable(_worst(worst))} | {units.printable(check.command)}"


def _worst(a: Agreement) -> str:
    v = a.verdict
    if v.rule in ("shape", "dtype", "non-finite"):
        figure = v.why
    else:
        below = v.rule in _LOWER_LIMITS
        sign = ("≥" if v.passed else "<") if below else ("≤" if v.passed else ">")
        value = units.similarity(v.figure) if below else units.error(v.figure)
        limit = f"{v.limit:.15g}" if below else f"{v.limit:.3g}"  # 0.99999 is not 1
        figure = f"{_FIGURE_NAMES.get(v.rule, v.rule)} {value} {sign} {limit}"
    index = f" at {list(a.worst_index)}" if a.worst_index is not None else ""
    return f"{figure} in output {a.name!r}{index}"
