"""What a benchmark hands on: sections of rows, written as Markdown. No dates, no machine's paths."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MINILM = Path("out/minilm.onnx")
CHIPS = ("isaac", "sram-digital")
"""The two chips that most tables compare: one analog, one digital in memory."""
SENTENCE = "The capital of France is Paris, a city on the Seine."


@dataclass(frozen=True)
class Section:
    """A table (``rows`` of cells under ``header``), or ``text`` as it was printed; and what a reader should know."""

    title: str
    command: str
    about: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: str = ""
    remarks: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The section as Markdown."""
        lines = [f"## {self.title}", "", f"`{self.command}`", ""]
        if self.about:
            lines += [self.about, ""]
        if self.rows:
            lines += [_row(self.header), _row(["---"] * len(self.header)), *map(_row, self.rows), ""]
        if self.text:
            lines += ["```", self.text.rstrip(), "```", ""]
        for remark in self.remarks:
            lines += [f"- {remark}"]
        return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def cpu(run: Callable[[], object], repeats: int) -> float:
    """Best CPU seconds of a call."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def verdict(held: bool) -> str:
    """How a target is marked in a table."""
    return "reached" if held else "**missed**"


def minilm() -> Path:
    """The trained model of the README, built if it is not there."""
    from models import minilm as recipe
    from models.graph import save

    if not MINILM.is_file():
        MINILM.parent.mkdir(parents=True, exist_ok=True)
        save(recipe.model(), MINILM)
    return MINILM


def show(sections: Sequence[Section]) -> None:
    """Print sections."""
    print("\n".join(s.markdown() for s in sections))
