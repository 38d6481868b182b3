"""How long to search, and what a search came to."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field

from cimc import errors
from cimc.mapping.json_value import Json

MOST_TRIALS = 1_000_000
MOST_SECONDS = 7 * 86_400.0
"""A week; what asks for more than either is taken for a slip of the pen."""


@dataclass(frozen=True)
class Plan:
    """``trials``: programs that are made and timed at most. ``seconds``: no trial begins later (None: no limit); a search
    that they end is repeated, to the byte, by giving the number of trials it says. ``seed``: of what is drawn."""

    trials: int = MOST_TRIALS
    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Kind:
    """Trials of one kind of change, and how many lowered the cycles."""

    tried: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class Step:
    """A change that was accepted: what (as :class:`cimc.search.moves.Change` tells it), and the cycles since."""

    change: str
    cycles: int


@dataclass(frozen=True)
class Outcome:
    """What a search tried and gained. ``begun``: cycles of the placement it started from; ``cycles``: of the one it found;
    ``out_of_time``: it was ended by its seconds."""

    trials: int
    seed: int
    begun: int
    cycles: int
    out_of_time: bool = False
    kinds: dict[str, Kind] = field(default_factory=dict[str, Kind])
    accepted: tuple[Step, ...] = ()

    @property
    def note(self) -> str:
        """The outcome in a line."""
        gain = 1 - self.cycles / self.begun if self.begun else 0.0
        accepted = sum(k.accepted for k in self.kinds.values())
        cycles = f"{self.begun:,} → {self.cycles:,} cycles ({100 * gain:.1f} % fewer)"
        told = f"search: {cycles}, {self.trials} trials, {accepted} accepted"
        repeat = f"--search {self.trials}" + (f",seed={self.seed}" if self.seed else "")
        return f"{told}; out of time: `{repeat}` gives the same program" if self.out_of_time else told

    def to_json(self) -> dict[str, Json]:
        """As in ``mapping.json``: nothing in it depends on the computer's speed."""
        kinds: dict[str, Json] = {name: asdict(kind) for name, kind in self.kinds.items()}
        return {
            "trials": self.trials,
            "seed": self.seed,
            "cycles_before": self.begun,
            "cycles": self.cycles,
            "kinds": kinds,
            "accepted": [asdict(step) for step in self.accepted],
        }


def parse_plan(text: str) -> Plan:
    """``200``, ``30s``, ``200,30s,seed=1``: trials, seconds, seed. Raises SEARCH."""
    found: dict[str, int | float] = {}
    for part in (p.strip() for p in text.split(",")):
        name, value = _part(text, part)
        if name in found:
            raise errors.SEARCH(text=text, why=f"it gives {name} twice", fix="give one of them")
        found[name] = value
    if not found.keys() & {"trials", "seconds"}:
        raise errors.SEARCH(text=text, why="it does not say how long", fix="--search 200 (trials) or --search 60s")
    seconds = found.get("seconds")
    trials, seed = int(found.get("trials", MOST_TRIALS)), int(found.get("seed", 0))
    return Plan(trials, None if seconds is None else float(seconds), seed)


def _part(text: str, part: str) -> tuple[str, int | float]:
    name, equals, value = (p.strip() for p in part.partition("="))
    if not equals:
        name, value = ("seconds", part.removesuffix("s")) if part.endswith("s") else ("trials", part)
    limits = {"trials": MOST_TRIALS, "seconds": MOST_SECONDS, "seed": 2**31}
    if name not in limits:
        close = difflib.get_close_matches(name, limits, n=1)
        fix = f"did you mean '{close[0]}'?" if close else "trials, seconds with an s, seed=N: --search 200,60s,seed=1"
        raise errors.SEARCH(text=text, why=f"there is no key '{name}'", fix=fix)
    plain = value.isascii() and value.replace(".", "", name == "seconds").isdigit()
    if not plain or len(value) > 12 or not float(value) <= limits[name]:
        why = f"'{value}' is no number from 0 to {limits[name]:.0f}"
        raise errors.SEARCH(
            text=text, why=why, fix="--search 200 (trials), --search 60s (seconds), --search 200,seed=1"
        )
    return name, float(value) if name == "seconds" else int(value)
