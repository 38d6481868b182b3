"""Every benchmark, written into docs/results.md: ``python -m benchmarks.all [PART ...]``, or ``make bench``."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from benchmarks import (
    accuracy,
    architectures,
    attainment,
    attention,
    cache,
    codesign,
    field,
    links,
    memory,
    movement,
    passes,
    precision,
    reload,
    repairs,
    scaling,
    search,
    speed,
    sums,
    technologies,
    values,
)
from benchmarks.figures import Section
from benchmarks.validation import __main__ as validation

RESULTS = Path("docs/results.md")
HEAD = """# Results

Written by `python -m benchmarks.all`; every section names the command that makes it alone. Accuracy, cycles and energy do not
depend on the computer; speed does: measured on a shared virtual machine with {cores} cores. Targets are those the
project was given; what is missed says so.

Model by model, for the files of many exporters (nodes before and after, host share, float error, integer cosine,
compile seconds): [results-corpus.md](results-corpus.md), by `python -m benchmarks.corpus`. ONNX's own cases for nodes:
`PYTHONPATH=. python tests/onnx_suite.py`.
"""
PARTS: dict[str, ModuleType] = {
    "accuracy": accuracy,
    "precision": precision,
    "architectures": architectures,
    "attainment": attainment,
    "links": links,
    "values": values,
    "attention": attention,
    "codesign": codesign,
    "movement": movement,
    "cache": cache,
    "field": field,
    "search": search,
    "sums": sums,
    "technologies": technologies,
    "reload": reload,
    "repairs": repairs,
    "validation": validation,
    "speed": speed,
    "scaling": scaling,
    "memory": memory,
    "passes": passes,
}
SCRIPTS = {
    "timing": ("The timing engine on long programs", "Synthetic loops on 16 tiles; see the script."),
    "analog": ("The analog core", "One core, beside a plain NumPy baseline in one process; see the script."),
    "io_model": ("The I/O model beside aihwkit", "The same weights, inputs and settings in both, one process."),
}


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


def on_page() -> dict[str, str]:
    """The sections that the page has, by title."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    return {
        part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything, or the parts that are named, and write the page; sections of other parts stay as they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS, *SCRIPTS], help="default: all, in about an hour")
    wanted = parser.parse_args(arguments).parts
    old, new = on_page(), list[tuple[str, str]]()
    for name, module in PARTS.items():
        if not wanted or name in wanted:
            print(f"{name} ...", file=sys.stderr, flush=True)
            new += [(s.title, s.markdown()) for s in module.sections()]
    for name, (title, about) in SCRIPTS.items():
        if not wanted or name in wanted:
            print(f"{name} ...", file=sys.stderr, flush=True)
            section = script(title, f"{name}.py", about)
            new += [(section.title, section.markdown())] if section is not None else []
    sections = {**old, **dict(new)} if wanted else dict(new)
    RESULTS.write_text("\n".join([HEAD.format(cores=os.cpu_count()), *sections.values()]), encoding="utf-8")
    print(f"wrote {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
