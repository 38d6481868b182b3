"""``cimc diff``: two compiled directories side by side: options, mapping totals, figures of the runs, with ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cimc.report import units
from cimc.report.figures import RunFigures
from cimc.report.jsontext import Json, JsonObject
from cimc.report.layers import Inspection, load
from cimc.report.manifest_file import read_manifest
from cimc.report.render import Block, Facts, Table, text

Number = int | float
Format = Callable[[float], str]


@dataclass(frozen=True)
class Figure:
    """One figure of both sides; None where a side does not have it."""

    group: str
    name: str
    a: float | None
    b: float | None
    show: Format

    @property
    def ratio(self) -> float | None:
        """b / a."""
        if self.a is None or self.b is None or self.a == 0:
            return None
        return self.b / self.a


@dataclass(frozen=True)
class Side:
    """One directory: its manifest, flat, and what lies in it."""

    path: Path
    manifest: Mapping[str, str]
    inspection: Inspection


@dataclass(frozen=True)
class Difference:
    """Both sides and what was compared."""

    a: Side
    b: Side
    options: tuple[tuple[str, str | None, str | None], ...]  # manifest keys that differ
    figures: tuple[Figure, ...]


def diff(directory_a: Path, directory_b: Path) -> Difference:
    """Compare two directories that ``compile`` wrote; with ``run.json`` in both, the runs as well.

    Raises FILE_NOT_FOUND, FILE_UNREADABLE, REPORT_FILE.
    """
    a, b = (Side(d, read_manifest(d / "manifest.json"), load(d)) for d in (directory_a, directory_b))
    keys = dict.fromkeys((*a.manifest, *b.manifest))
    options = tuple((k, a.manifest.get(k), b.manifest.get(k)) for k in keys if a.manifest.get(k) != b.manifest.get(k))
    return Difference(a, b, options, (*_mapping_figures(a, b), *_run_figures(a.inspection.run, b.inspection.run)))


def _whole(value: float) -> str:
    return units.whole(int(value))


def _mapping_figures(a: Side, b: Side) -> list[Figure]:
    one, other = a.inspection.mapping, b.inspection.mapping

    def figure(name: str, x: float, y: float, show: Format = _whole) -> Figure:
        return Figure("mapping", name, x, y, show)

    return [
        figure("tiles used", one.totals.tiles_used, other.totals.tiles_used),
        figure("crossbars used", one.totals.crossbars_used, other.totals.crossbars_used),
        figure("crossbars", one.totals.crossbars, other.totals.crossbars),
        figure("cell utilization", one.totals.cell_utilization, other.totals.cell_utilization, units.percent),
        figure("matrices", len(one.static), len(other.static)),
        figure("blocks", sum(len(m.blocks) for m in one.static), sum(len(m.blocks) for m in other.static)),
        figure("dynamic products", len(one.dynamic), len(other.dynamic)),
        figure("host nodes", len(one.host), len(other.host)),
    ]


def _run_figures(a: RunFigures | None, b: RunFigures | None) -> list[Figure]:
    if a is None and b is None:
        return []

    def single(name: str, get: Callable[[RunFigures], float | None], show: Format) -> Figure:
        return Figure("run", name, get(a) if a else None, get(b) if b else None, show)

    def several(group: str, get: Callable[[RunFigures], Mapping[str, Number] | None], show: Format) -> list[Figure]:
        one, other = ((get(r) or {}) if r else {} for r in (a, b))
        return [Figure(group, k, one.get(k), other.get(k), show) for k in dict.fromkeys((*one, *other))]

    return [
        single("cycles", lambda r: r.cycles, _whole),
        single("latency", lambda r: r.latency_ns, units.time_ns),
        single("energy", lambda r: r.total_pj, units.energy_pj),
        single("instructions", lambda r: r.instructions, _whole),
        single("bound", lambda r: r.bound.cycles if r.bound else None, _whole),
        single("attainment", lambda r: r.bound.attainment if r.bound else None, units.percent),
        single("host cycles", lambda r: r.host_cycles, _whole),
        *several("energy", lambda r: r.components, units.energy_pj),
        *several("utilization", lambda r: r.utilization, units.percent),
        *several("traffic", lambda r: r.traffic_bytes, units.size_bytes),
        *several("macs", lambda r: r.macs, units.large),
    ]


def report(found: Difference) -> list[Block]:
    """Directories, options that differ, a table of figures per group."""
    blocks: list[Block] = [Facts("Compared", [("A", str(found.a.path)), ("B", str(found.b.path))])]
    if found.options:
        rows = [(k, units.NOTHING if x is None else x, units.NOTHING if y is None else y) for k, x, y in found.options]
        blocks.append(Table("Manifest: what differs", ("key", "A", "B"), rows))
    else:
        blocks.append(text("Manifest", "no difference"))
    for group in dict.fromkeys(f.group for f in found.figures):
        table = [_row(f) for f in found.figures if f.group == group]
        blocks.append(Table(group.capitalize(), ("", ">A", ">B", ">B / A"), table))
    if found.a.inspection.run is None or found.b.inspection.run is None:
        without = [s.path for s in (found.a, found.b) if s.inspection.run is None]
        blocks.append(text("", *(f"no run.json in {path}: `cimc run {path}` writes it" for path in without)))
    return blocks


def _row(figure: Figure) -> tuple[str, str, str, str]:
    a, b = (units.NOTHING if v is None else figure.show(v) for v in (figure.a, figure.b))
    return figure.name, a, b, "=" if figure.a == figure.b else units.ratio(figure.ratio)


def to_json(found: Difference) -> JsonObject:
    """The same as an object."""
    options: list[Json] = [{"key": k, "a": x, "b": y} for k, x, y in found.options]
    figures: list[Json] = [
        {"group": f.group, "name": f.name, "a": f.a, "b": f.b, "ratio": f.ratio} for f in found.figures
    ]
    return {"a": str(found.a.path), "b": str(found.b.path), "manifest": options, "figures": figures}
