"""How long analog numerics take beside integer ones, on a whole model: CPU seconds of the values engine.

    python benchmarks/device.py MODEL.onnx [--dim sequence=128] [--hw isaac] [--technology NAME ...] [--json FILE]

The programming of cells is part of the first figure, as ``cimc run`` does it; the second keeps the cells of an earlier
run, as an ``InferenceSession`` does. MiniLM's model: models/README.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cimc import inputs as input_files
from cimc.compiler import compile_model
from cimc.device import Device
from cimc.options import Options
from cimc.sim.kept import Kept
from cimc.sim.values import Analog, run_values


def cpu(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=INT")
    parser.add_argument("--hw", default="isaac")
    parser.add_argument("--technology", nargs="+", default=["ideal", "reram", "pcm", "fefet", "mram"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    dims = {name: int(value) for name, _, value in (pair.partition("=") for pair in chosen.dim)}
    compiled = compile_model(chosen.model, Options(chosen.hw, dims=dims))
    assert compiled is not None
    program, weights, chip = compiled.program, compiled.weights, compiled.hardware.spec
    feeds = input_files.draw(program, 0)

    def run_analog(how: Analog) -> None:
        run_values(program, weights, feeds, chip, numerics="analog", analog=how)

    def run_integer() -> None:
        run_values(program, weights, feeds, chip, numerics="integer")

    run_integer()
    found: dict[str, dict[str, float]] = {}
    print(f"{'':20s} {'integer':>10s} {'run':>10s} {'next run':>10s}")
    for name in chosen.technology:
        device = Device.of(chip, tech=name)
        integer = spent = again = float("inf")
        # Beside each other, as a shared machine is not equally fast at all times; the best of each counts. The first turn
        # also compiles kernels.
        for _ in range(chosen.repeats + 1):
            integer = min(integer, cpu(run_integer))
            kept = Kept()
            spent = min(spent, cpu(partial(run_analog, Analog(device, kept=kept))))
            again = min(again, cpu(partial(run_analog, Analog(device, kept=kept))))
        found[name] = {"integer": integer, "run": spent, "next_run": again}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        ratios = f"{spent / integer:6.1f} x, {again / integer:6.1f} x integer"
        print(
            f"{name:20s} {integer:8.2f} s {spent:8.2f} s {again:8.2f} s {ratios}  peak so far {peak:.2f} GiB",
            flush=True,
        )
    if chosen.json:
        chosen.json.write_text(json.dumps({"model": chosen.model.name, "cpu_seconds": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
