"""A table over a folder of ONNX models: ``python -m benchmarks.corpus FOLDER [-o TABLE.md] [--only TEXT]``.

FOLDER holds a ``manifest.json``: a list with one object a model, of which this reads ``name``, ``file``, ``route``,
``expect`` ("ok", "reject" or "ok-or-clear-reject") and ``cases``, each with an ``npz`` that has inputs under
``in::NAME`` and expected outputs under ``out::NAME``. Every case of every model is checked in float and in integer
numerics; figures are the worst over the cases, times those of the first. Ends with exit code 1 if a model is not as
expected.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc.checker import CheckOptions, check_model
from cimc.errors import CimcError
from cimc.options import Options
from cimc.report.compare import Tolerance, compare
from cimc.session import InferenceSession

Array = NDArray[np.generic]

HEAD = """# Models of many exporters

Written by `python -m benchmarks.corpus FOLDER -o docs/results-corpus.md`: {models} models, {cases} cases of inputs, each
in `float` and in `integer` numerics on the default hardware; {passed} as expected. Nodes before: in the file; after: in
the compiled graph. Host share: of the cycles of a run. Float error: largest, over the largest value of the output; the
reference is onnxruntime, for quantised graphs an exact evaluation. Reference error: how far float results are from the
outputs stored with the model. Integer cosine: against `float`. Errors and cosines are the worst over the cases;
compile seconds are those of the first, from file to program, on a shared virtual machine: they vary by a factor of two.

"""
GOOD = ("ok", "refused, as expected")
HEADER = (
    "model",
    "route",
    "nodes before",
    "nodes after",
    "host share",
    "float error / range",
    "reference error / range",
    "integer cosine",
    "compile s",
    "s per million weights",
    "result",
)


@dataclass
class Row:
    """One line of the table; None: not reached."""

    name: str
    route: str
    before: int | None = None
    after: int | None = None
    host: float | None = None
    error: float | None = None
    reference: float | None = None
    cosine: float | None = None
    seconds: float | None = None
    weights: int = 0
    result: str = "ok"

    def cells(self) -> tuple[str, ...]:
        """As text."""
        per = None if self.seconds is None or not self.weights else self.seconds / (self.weights / 1e6)
        return (
            self.name,
            self.route.replace("|", "/"),
            _whole(self.before),
            _whole(self.after),
            "–" if self.host is None else f"{100 * self.host:.1f} %",
            "–" if self.error is None else f"{self.error:.1e}",
            "–" if self.reference is None else f"{self.reference:.1e}",
            "–" if self.cosine is None else f"{self.cosine:.6f}",
            "–" if self.seconds is None else f"{self.seconds:.2f}",
            "–" if per is None else f"{per:.2f}",
            self.result,
        )


def _whole(value: int | None) -> str:
    return "–" if value is None else str(value)


def _case(folder: Path, npz: str) -> tuple[dict[str, Array], dict[str, Array]]:
    with np.load(folder / npz) as found:
        inputs = {k.removeprefix("in::"): found[k] for k in found.files if k.startswith("in::")}
        outputs = {k.removeprefix("out::"): found[k] for k in found.files if k.startswith("out::")}
    return inputs, outputs


def measure(folder: Path, entry: Mapping[str, object], cases: Sequence[str]) -> Row:
    """Check one model on all its cases."""
    row = Row(str(entry["name"]), str(entry.get("route", "")))
    path = folder / str(entry["file"])
    errors: list[float] = []
    apart: list[float] = []
    cosines: list[float] = []
    try:
        for number, npz in enumerate(cases):
            inputs, expected = _case(folder, npz)
            start = time.perf_counter()
            checked = check_model(str(path), Options(), CheckOptions("float", 0, inputs, timing=number == 0))
            whole = time.perf_counter() - start
            if number == 0:
                compiled, figures = checked.compiled, checked.report.run
                row.before, row.after = int(str(entry.get("nodes", 0))) or None, len(compiled.graph.nodes)
                row.seconds = checked.report.seconds.compile
                types = compiled.graph.types
                row.weights = sum(types[c].size for c in compiled.graph.constants if c in types)
                row.host = (figures.host_cycles or 0) / figures.cycles if figures.cycles else None
            if not checked.report.passed:
                row.result = f"float differs (case {number})"
            errors += [_share(a.max_abs_error, a.max_abs_want) for a in checked.report.outputs]
            for name, want in expected.items():
                a = compare(name, checked.outputs[name], want)
                apart.append(_share(a.max_abs_error, a.max_abs_want))
            again = InferenceSession(checked.compiled, "integer", timing=False)
            names = [o.name for o in again.get_outputs()]
            taken = {n: v for n, v in inputs.items() if n not in checked.compiled.fixed}
            found = dict(zip(names, again.run(names, taken), strict=True))
            results = [compare(n, found[n], checked.outputs[n], Tolerance("integer")) for n in names]
            cosines += [a.cosine_similarity for a in results]
            if not all(a.passed for a in results) and row.result == "ok":
                row.result = f"integer differs (case {number})"
            print(f"{row.name} case {number}: {whole:.1f} s, {row.result}", file=sys.stderr)
    except CimcError as e:
        wanted = str(entry.get("expect", "ok")) != "ok"
        row.result = f"{'refused, as expected' if wanted else 'refused'}: {e.code}"
        print(f"{row.name}: {e.render().splitlines()[0]}", file=sys.stderr)
    except (AssertionError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        row.result = f"bug: {type(e).__name__}"
        print(f"{row.name}: {type(e).__name__}: {e}", file=sys.stderr)
    row.error, row.reference = max(errors, default=None), max(apart, default=None)
    row.cosine = min(cosines, default=None)
    return row


def _share(error: float, largest: float) -> float:
    return error / largest if largest else error


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [HEADER, tuple("---" for _ in HEADER), *(r.cells() for r in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="write the table there instead of printing it")
    parser.add_argument("--only", default="", help="models whose name contains this")
    options = parser.parse_args(arguments)
    try:
        manifest = json.loads((options.folder / "manifest.json").read_text(encoding="utf-8"))
        entries = [e for e in manifest if options.only in e["name"]]
        work = [(e, [c["npz"] for c in e["cases"]]) for e in entries]
    except (OSError, ValueError, KeyError, TypeError) as e:
        parser.error(f"{options.folder / 'manifest.json'}: {type(e).__name__}: {e}")
    rows = [measure(options.folder, entry, cases) for entry, cases in work]
    passed = sum(r.result.startswith(GOOD) for r in rows)
    text = HEAD.format(models=len(rows), cases=sum(len(c) for _, c in work), passed=passed) + table(rows)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0 if passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
