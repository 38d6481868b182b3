"""Which layers a budget keeps out of the analog cells, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cimc.report import units
from cimc.report.jsontext import Json, JsonObject, number
from cimc.report.render import Block, Facts, Table

SHOWN_LAYERS = 24


@dataclass(frozen=True)
class Sensitivity:
    """A static matmul: its ONNX node, its number of weights, the outputs' relative error with the device in it alone, and
    whether it ends up digital, or with how many copies in cells."""

    node: str
    weights: int
    error: float
    digital: bool
    copies: int = 1

    @property
    def kept(self) -> str:
        """How it ends up, for people."""
        return "digital" if self.digital else "analog" if self.copies == 1 else f"{self.copies} copies"


@dataclass(frozen=True)
class Outcome:
    """One program's figures: the worst output's cosine; without timing the others are None."""

    cosine: float | None
    cycles: int | None
    energy_pj: float | None
    conversions: int


@dataclass(frozen=True)
class MixedReport:
    """What ``--budget`` found: ``layers``, most sensitive first; all layers analog ``before``, the program that was
    compiled in the end ``after``; ``programs``: how many were compiled until the budget held."""

    budget: float
    seeds: Sequence[int]
    layers: Sequence[Sensitivity]
    before: Outcome
    after: Outcome
    programs: int

    @property
    def held(self) -> bool:
        """Whether the program reaches the budget."""
        return self.after.cosine is None or self.after.cosine >= self.budget

    @property
    def names(self) -> list[str]:
        """The nodes that are digital: what ``--digital`` takes."""
        return [layer.node for layer in self.layers if layer.digital]

    def to_json(self) -> JsonObject:
        """The object ``mixed`` of ``check --json``."""
        layers: Json = [
            {
                "node": x.node,
                "weights": x.weights,
                "error": number(x.error),
                "digital": x.digital,
                "copies": x.copies,
            }
            for x in self.layers
        ]
        return {
            "budget": self.budget,
            "held": self.held,
            "seeds": list(self.seeds),
            "digital": list(self.names),
            "copied": [x.node for x in self.layers if x.copies > 1],
            "layers": layers,
            "before": _outcome(self.before),
            "after": _outcome(self.after),
            "programs": self.programs,
        }


def _outcome(o: Outcome) -> JsonObject:
    energy = None if o.energy_pj is None else number(o.energy_pj)
    return {"cosine": o.cosine, "cycles": o.cycles, "energy_pj": energy, "adc_conversions": o.conversions}


def blocks(found: MixedReport) -> list[Block]:
    """The report as text."""
    apart = sum(layer.digital for layer in found.layers)
    share = sum(x.weights for x in found.layers if x.digital) / max(sum(x.weights for x in found.layers), 1)
    facts: list[tuple[str, str] | tuple[str, str, str]] = [
        ("budget", f"cosine {found.budget:g}", "held" if found.held else "NOT held, with every layer digital"),
        ("digital layers", f"{apart} of {len(found.layers)}", f"{units.percent(share)} of the weights"),
    ]
    several = [x for x in found.layers if x.copies > 1]
    if several:
        part = sum(x.weights for x in several) / max(sum(x.weights for x in found.layers), 1)
        told = f"{len(several)} of {len(found.layers)}"
        facts.append(("layers with copies", told, f"{several[0].copies} each, {units.percent(part)} of the weights"))
    rows = [_row("all analog", found.before), _row("mixed", found.after)]
    shown = found.layers[:SHOWN_LAYERS]
    layers = [(x.node, units.whole(x.weights), f"{100 * x.error:.3g} %", x.kept) for x in shown]
    title = f"Sensitivity: error with the device in one layer alone ({len(shown)} worst of {len(found.layers)})"
    return [
        Facts("Accuracy budget", facts),
        Table("What it costs", ("", ">cosine", ">cycles", ">energy", ">ADC conversions"), rows),
        Table(title, ("layer", ">weights", ">error", "kept"), layers),
    ]


def _row(name: str, o: Outcome) -> tuple[str, ...]:
    cycles = units.NOTHING if o.cycles is None else units.whole(o.cycles)
    energy = units.energy_pj(o.energy_pj)
    return name, units.similarity(o.cosine), cycles, energy, units.whole(o.conversions)
