"""The official ONNX node conformance suite against cimc.

    python tests/onnx_suite.py [--op OP]... [--verbose]

Prints the failed cases and the counts per outcome, with --verbose what is refused and why. Ends with exit code
1 if a case fails: a wrong answer, or anything other than a clear refusal.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from cimc import errors
from cimc.frontend import groups
from cimc.onnx_backend import compute


@dataclass(frozen=True)
class Outcome:
    """What became of a case: passed, unsupported (refused with a reason) or failed."""

    name: str
    op: str
    kind: str
    reason: str = ""


def run_case(case: TestCase, folder: Path) -> Outcome:
    """One case with all its data sets; ``folder`` is scratch space."""
    model, data = case.model, case.data_sets
    assert model is not None
    assert data is not None
    op = model.graph.node[0].op_type if model.graph.node else ""
    initializers = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in initializers]
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for inputs, wanted in data:
        try:
            pairs = zip(names, inputs, strict=False)
            found = groups.gathered(
                [o.name for o in model.graph.output], compute(path, {n: value_of(v) for n, v in pairs})
            )
        except errors.CimcError as e:
            return Outcome(case.name, op, "unsupported", e.message)
        except Exception as e:  # whatever it is, cimc crashed: that is what is counted here
            return Outcome(case.name, op, "failed", f"{type(e).__name__}: {e}")
        for info, want in zip(model.graph.output, wanted, strict=True):
            bad = unlike(found[info.name], value_of(want), case.rtol, case.atol)
            if bad:
                return Outcome(case.name, op, "failed", f"output {info.name}: {bad}")
    return Outcome(case.name, op, "passed")


def value_of(value: object) -> np.ndarray | list[np.ndarray] | None:
    """A stored value as an array, a list of arrays, or nothing."""
    if value is None or isinstance(value, list):
        return value if value is None else [array_of(v) for v in value]
    return array_of(value)


def unlike(got: object, want: object, rtol: float, atol: float) -> str:
    """Why two outputs are not the same within tolerance, or nothing. An absent optional is an empty list."""
    if isinstance(got, np.ndarray) and isinstance(want, np.ndarray):
        return differs(got, want, rtol, atol)
    one, other = (list(v) if isinstance(v, list) else [] if v is None else [v] for v in (got, want))
    if len(one) != len(other):
        return f"{len(one)} tensors instead of {len(other)}"
    return next((bad for a, b in zip(one, other, strict=True) if (bad := differs(a, b, rtol, atol))), "")


def array_of(value: object) -> np.ndarray:
    """A stored value as an array."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def differs(got: np.ndarray, want: object, rtol: float, atol: float) -> str:
    """Why two arrays are not the same within tolerance, or nothing."""
    want = array_of(want)
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if want.dtype.kind in "fV":
        # Two units in the last place, as ONNX's own runner has it for bfloat16 (for float16 it asks for 1e-3: one).
        rtol = max(rtol, {"bfloat16": 2**-6, "float16": 2**-9}.get(want.dtype.name, 0.0))
        close = np.isclose(got.astype(np.float64), want.astype(np.float64), rtol, atol, equal_nan=True)
        return "" if close.all() else f"{(~close).sum()} of {close.size} elements differ"
    return "" if np.array_equal(got, want) else f"{(got != want).sum()} of {got.size} elements differ"


def run_suite(ops: set[str] | None = None, prefix: str = "") -> list[Outcome]:
    """All node cases, or those of some ops."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in load_model_tests(kind="node"):
            wanted = ops is None or case.model.graph.node[0].op_type in ops
            if wanted and case.name.startswith(prefix):
                outcomes.append(run_case(case, Path(folder)))
    return outcomes


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="The official ONNX node conformance suite against cimc.")
    parser.add_argument("--op", action="append", help="only cases whose first node is of this op type")
    parser.add_argument("--prefix", default="", help="only cases whose name starts so")
    parser.add_argument("--verbose", action="store_true", help="every unsupported case by name")
    options = parser.parse_args()
    outcomes = run_suite(set(options.op) if options.op else None, options.prefix)
    count = collections.Counter(o.kind for o in outcomes)
    for o in outcomes:
        if o.kind == "failed" or (options.verbose and o.kind == "unsupported"):
            print(f"{o.kind} {o.name}: {o.reason}")
    refused = collections.Counter(o.op for o in outcomes if o.kind == "unsupported")
    print("unsupported by op: " + ", ".join(f"{op} {n}" for op, n in sorted(refused.items())))
    print(
        f"{len(outcomes)} cases: {count['passed']} passed, {count['unsupported']} unsupported, {count['failed']} failed"
    )
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
