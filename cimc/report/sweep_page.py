"""The page of ``cimc sweep --html``: every variant as a dot, latency against energy, and the table below. One self-contained
file without scripts; the template escapes all names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cimc.report import units
from cimc.report.palette import layer_colour
from cimc.report.render import Facts, Table
from cimc.report.sweep import Figures, Row, SweepReport, blocks, named
from cimc.report.template import render

WIDTH, HEIGHT = 900.0, 460.0
LEFT, RIGHT, TOP, BOTTOM = 84.0, 24.0, 18.0, 52.0
"""Of the drawing, and the margins around its plot."""
SMALLEST, LARGEST = 5.0, 13.0
"""Radius of the dots of the smallest and the largest chip."""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A variant."""

    x: float
    y: float
    radius: float
    colour: str
    front: bool
    hint: str


@dataclass(frozen=True)
class Scale:
    """From values to places: even from ``low`` to ``high``, with room at both ends."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Scale:
        """A scale that holds the values; begins at 0 if they are far apart."""
        least, most = min(values), max(values)
        room = 0.08 * ((most - least) or most or 1.0)
        return cls(0.0 if least < 0.4 * most else max(0.0, least - room), most + room, start, end)

    def at(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, label: Callable[[float], str]) -> list[Tick]:
        """Four to nine round numbers."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough)
        first = math.ceil(self.low / step)
        return [Tick(self.at(n * step), label(n * step)) for n in range(first, math.floor(self.high / step) + 1)]


def page(report: SweepReport) -> str:
    """The page as text."""
    ran = [(i, row, row.figures) for i, row in enumerate(report.rows) if row.figures is not None]
    x = Scale.over([f.latency_ns for _, _, f in ran], LEFT, WIDTH - RIGHT)
    y = Scale.over([f.energy_pj for _, _, f in ran], HEIGHT - BOTTOM, TOP)
    table, best, *_ = blocks(report)
    assert isinstance(table, Table)
    assert isinstance(best, Facts)
    values = list(dict.fromkeys(next(iter(row.setting.values())) for row in report.rows))
    return render(
        "sweep.html",
        model=units.printable(report.model),
        key=units.printable(report.keys[0]),
        legend=[(units.printable(v), _colour(values, v)) for v in values],
        width=WIDTH,
        height=HEIGHT,
        plot=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
        xs=x.ticks(units.time_ns),
        ys=y.ticks(units.energy_pj),
        dots=_dots(report, ran, x, y, values),
        header=[(name.lstrip(">"), name.startswith(">")) for name in table.header],
        rows=table.rows,
        best=best.rows,
        refused=[(named(row), row.refused) for row in report.rows if row.figures is None],
        count=len(report.rows),
    )


def _colour(values: Sequence[str], value: str) -> str:
    return layer_colour(values.index(value), len(values))


def _dots(
    report: SweepReport, ran: Sequence[tuple[int, Row, Figures]], x: Scale, y: Scale, values: Sequence[str]
) -> list[Dot]:
    """The variants, larger ones first so that they cover no other."""
    areas = [f.area_mm2 for _, _, f in ran]
    span = (max(areas) - min(areas)) or 1.0
    found: list[Dot] = []
    for i, row, f in sorted(ran, key=lambda r: -r[2].area_mm2):
        radius = SMALLEST + (LARGEST - SMALLEST) * (f.area_mm2 - min(areas)) / span
        hint = f"{named(row)}: {units.time_ns(f.latency_ns)}, {units.energy_pj(f.energy_pj)}, {units.area_mm2(f.area_mm2)} mm²"
        colour = _colour(values, next(iter(row.setting.values())))
        found.append(
            Dot(x.at(f.latency_ns), y.at(f.energy_pj), radius, colour, i in report.front, units.printable(hint))
        )
    return found
