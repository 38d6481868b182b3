"""Variants of hardware and compile side by side: the table of ``cimc sweep``, its JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from cimc.report import units
from cimc.report.jsontext import JsonObject
from cimc.report.render import Block, Facts, Table

HEADER = (
    ">cycles", ">latency", ">energy", ">area, mm²", ">of the bound", "set by", ">crossbars used", ">global memory",
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """What a variant comes to. ``area_mm2``: of all chips. ``cosine_similarity``: the worst output's, beside onnxruntime;
    None without values."""

    cycles: int
    latency_ns: float
    energy_pj: float
    area_mm2: float
    attainment: float
    bound_by: str
    crossbars_used: int
    crossbars: int
    global_memory_bytes: int
    cosine_similarity: float | None

    @property
    def costs(self) -> tuple[float, ...]:
        """Latency, energy, area and, with values, how far the cosine is from 1: less is better."""
        error = () if self.cosine_similarity is None else (1.0 - self.cosine_similarity,)
        return self.latency_ns, self.energy_pj, self.area_mm2, *error


@dataclass(frozen=True)
class Row:
    """A variant: its settings, and its figures or why there are none."""

    setting: dict[str, str]
    figures: Figures | None
    refused: str = ""


@dataclass(frozen=True)
class SweepReport:
    """All variants, in the order of the axes' values. ``numerics``: how values were computed, None if they were not.
    ``notes``: dims that nobody bound, each once."""

    model: str
    keys: tuple[str, ...]
    rows: Sequence[Row]
    numerics: str | None
    notes: tuple[str, ...] = ()
    front: frozenset[int] = field(init=False)
    """Places of the rows that no other row equals or beats in everything and beats in something."""

    def __post_init__(self) -> None:
        costs = {i: row.figures.costs for i, row in enumerate(self.rows) if row.figures is not None}
        kept = (i for i, mine in costs.items() if not any(_beats(other, mine) for other in costs.values()))
        object.__setattr__(self, "front", frozenset(kept))

    def to_json(self) -> JsonObject:
        """The object of ``sweep --json``."""
        points = [
            {
                "setting": row.setting,
                "on_front": i in self.front,
                "figures": None if row.figures is None else asdict(row.figures),
                "refused": row.refused,
            }
            for i, row in enumerate(self.rows)
        ]
        return {"model": self.model, "keys": list(self.keys), "numerics": self.numerics, "points": points}


def _beats(other: tuple[float, ...], mine: tuple[float, ...]) -> bool:
    return other != mine and all(a <= b for a, b in zip(other, mine, strict=True))


def blocks(report: SweepReport) -> list[Block]:
    """The table, `*` on the Pareto front, and which variant has the least of each figure."""
    values = report.numerics is not None
    header = ("", *report.keys, *HEADER, *((">cosine",) if values else ()))
    ran = [(row, row.figures) for row in report.rows if row.figures is not None]
    least = [
        ("latency", min(ran, key=lambda r: r[1].latency_ns)),
        ("energy", min(ran, key=lambda r: r[1].energy_pj)),
        ("energy × latency", min(ran, key=lambda r: r[1].energy_pj * r[1].latency_ns)),
        ("latency × area", min(ran, key=lambda r: r[1].latency_ns * r[1].area_mm2)),
    ]
    facts = [(f"least {name}", named(row), _told(figures)) for name, (row, figures) in least]
    table = Table(
        f"{report.model}: {len(report.rows)} variants; * on the Pareto front",
        header,
        [_cells(row, i in report.front, values) for i, row in enumerate(report.rows) if row.figures is not None],
    )
    refused = [(named(row), row.refused) for row in report.rows if row.figures is None]
    return [table, Facts("Best", facts), *([Facts("Not run", refused)] if refused else [])]


def named(row: Row) -> str:
    """A variant's settings in a line."""
    return " ".join(f"{key}={value}" for key, value in row.setting.items())


def _told(figures: Figures) -> str:
    return f"{units.time_ns(figures.latency_ns)}, {units.energy_pj(figures.energy_pj)}, {units.area_mm2(figures.area_mm2)} mm²"


def _cells(row: Row, front: bool, values: bool) -> list[str]:
    f = row.figures
    assert f is not None
    cosine = "–" if f.cosine_similarity is None else f"{f.cosine_similarity:.6f}"
    return [
        "*" if front else "",
        *row.setting.values(),
        units.whole(f.cycles),
        units.time_ns(f.latency_ns),
        units.energy_pj(f.energy_pj),
        units.area_mm2(f.area_mm2),
        units.percent(f.attainment),
        f.bound_by,
        units.percent(f.crossbars_used / f.crossbars if f.crossbars else None),
        units.size_bytes(f.global_memory_bytes),
        *([cosine] if values else []),
    ]


def csv_text(report: SweepReport) -> str:
    """A row a variant, plain numbers in the units that the names say; empty cells where it was refused."""
    names = list(Figures.__dataclass_fields__)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*report.keys, "on_front", *names, "refused"])
    for i, row in enumerate(report.rows):
        told = {} if row.figures is None else asdict(row.figures)
        cells = ["" if told.get(name) is None else told[name] for name in names]
        writer.writerow([*row.setting.values(), int(i in report.front), *cells, row.refused])
    return out.getvalue()
