"""Every benchmark, written into docs/results.md: ``python -m benchmarks.all``, or ``make bench``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import (
    accuracy,
    architectures,
    field,
    memory,
    movement,
    passes,
    repairs,
    scaling,
    speed,
    technologies,
)
from benchmarks.figures import Section
from benchmarks.validation import __main__ as validation

RESULTS = Path("docs/results.md")
HEAD = """# Results

Written by `python -m benchmarks.all`; every section names the command that makes it alone. Accuracy, cycles and energy do not
depend on the computer; speed does: measured on a shared virtual machine with {cores} cores. Targets are those the
project was given; what is missed says so.
"""
SCRIPTS = (
    ("The timing engine on long programs", "timing.py", "Synthetic loops on 16 tiles; see the script."),
    ("The analog core", "analog.py", "One core, beside a plain NumPy baseline in one process; see the script."),
    ("The I/O model beside aihwkit", "io_model.py", "The same weights, inputs and settings in both, one process."),
)


def script(title: str, name: str, about: str) -> Section | None:
    """What a stand-alone benchmark prints, if it is there."""
    path = Path(__file__).parent / name
    if not path.is_file():
        return None
    command = [sys.executable, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return Section(title, f"python benchmarks/{name}", about, text=done.stdout)


def main() -> None:
    """Run everything and write the page."""
    found: list[Section] = []
    parts = (
        accuracy,
        architectures,
        technologies,
        repairs,
        validation,
        movement,
        field,
        speed,
        scaling,
        memory,
        passes,
    )
    for part in parts:
        print(f"{part.__name__} ...", file=sys.stderr, flush=True)
        found += part.sections()
    for title, name, about in SCRIPTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        section = script(title, name, about)
        if section is not None:
            found.append(section)
    text = "\n".join([HEAD.format(cores=os.cpu_count()), *(s.markdown() for s in found)])
    RESULTS.write_text(text, encoding="utf-8")
    print(f"wrote {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
