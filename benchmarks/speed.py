"""How fast the compiler and the engines are: ``python -m benchmarks.speed``.

Wall-clock figures on whatever machine this runs; where they can be, they are ratios to onnxruntime, measured beside in the
same process. The best of several runs counts, because the machine may be shared.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cimc
from benchmarks.accuracy import compiled, sentence
from benchmarks.figures import MINILM, Section, minilm, show, verdict
from benchmarks.timing import measure
from cimc.compiler import compile_model
from cimc.options import Options
from cimc.session import InferenceSession
from cimc.sim.timing import run_timing
from models.graph import save
from models.small import RECIPES, build

COMMAND = "python -m benchmarks.speed"
CALL = """
import re, sys
from pathlib import Path
from cimc.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("\\n" + re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
"""A command, and as the last line its peak memory in KiB: the system's account to the parent counts from before its start."""
CLOCK = """
import re
from pathlib import Path
from benchmarks.timing import measure
measure(50_000)
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
LENGTH = 128
REPEATS = 5

COMPILE_SECONDS = 10.0
VALUES_RATIO = 15.0
INSTRUCTIONS_PER_SECOND = 1_000_000  # executed instructions per CPU second of the timing engine
LOOPS = 50_000  # iterations of the synthetic programs: millions of instructions
CLOCK_BYTES = 2_000_000_000
PROGRAM_BYTES = 2_000_000
PEAK_BYTES = 1_500_000_000
IMPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Child:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@cache
def _bytecode() -> None:
    """Compile the package's modules, as an installer does: else each process would, where writing bytecode is turned off."""
    compileall.compile_dir(Path(cimc.__file__).parent, quiet=2)


def child(*arguments: str) -> Child:
    """Run Python with arguments and wait; raises RuntimeError with what it said if it fails. Modules are there as bytecode, as
    in an installation."""
    _bytecode()
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen([sys.executable, *arguments], stdout=told, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        said = told.read().decode()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {said[-2000:]}")
    last = said.split()[-1] if said.split() else "0"
    peak = 1024 * int(last) if last.isdigit() else 0
    return Child(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, peak)


def best(run: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Least seconds of a call."""
    found = float("inf")
    for _ in range(repeats):
        begun = clock()
        run()
        found = min(found, clock() - begun)
    return found


Row = tuple[str, str, str, str]
SHAPES = (
    ("bert-base", "isaac", "layout=28x16", {"batch": 1, "sequence": 128}),
    ("bert-base", "sram-digital", "layout=42x16", {"batch": 1, "sequence": 128}),
    ("gpt2-small", "isaac", "layout=41x16", {"batch": 1, "sequence": 256}),
)
"""Published shapes with random weights, on floorplans as in benchmarks/attainment.py: programs with little that repeats."""


def commands(folder: Path) -> list[Row]:
    """Whole commands in processes of their own: seconds, memory, size."""
    import numpy as np

    inputs, out = folder / "inputs.npz", folder / "model"
    np.savez(inputs, **sentence(LENGTH))
    bare = min(child("-c", "pass").seconds for _ in range(REPEATS))
    loaded = min(child("-c", "import cimc").seconds for _ in range(REPEATS)) - bare
    made = min(
        (child("-c", CALL, "compile", str(MINILM), "--inputs", str(inputs), "-o", str(out)) for _ in range(3)),
        key=lambda c: c.seconds,
    )
    ran = child("-c", CALL, "run", str(out), "--inputs", str(inputs))
    checked = child("-c", CALL, "check", str(MINILM), "--inputs", str(inputs))
    size = (out / "program.cim").stat().st_size
    rows = [
        _row("`import cimc`, beyond Python's own start", loaded, IMPORT_SECONDS, " s"),
        _row("`cimc compile`, whole command", made.seconds, COMPILE_SECONDS, " s"),
        ("… CPU time of it, all threads", f"{made.cpu_seconds:.3g} s", "–", ""),
        _row("size of `program.cim`", size / 1e6, PROGRAM_BYTES / 1e6, " MB"),
    ]
    for what, taken in (("cimc compile", made), ("cimc run", ran), ("cimc check", checked)):
        rows.append(_row(f"peak memory of `{what}`", taken.peak_bytes / 1e9, PEAK_BYTES / 1e9, " GB"))
    return rows


def _row(what: str, measured: float, limit: float, unit: str) -> Row:
    return what, f"{measured:.3g}{unit}", f"≤ {limit:g}{unit}", verdict(measured <= limit)


def values() -> list[Row]:
    """The values engine against onnxruntime, in turns in this process."""
    import onnxruntime

    inputs = sentence(LENGTH)
    made = compiled(minilm(), inputs)
    reference = onnxruntime.InferenceSession(str(minilm()), providers=["CPUExecutionProvider"])
    rows: list[Row] = []
    for numerics in ("float", "integer"):
        session = InferenceSession(made, numerics, timing=False)
        base = taken = first = second = float("inf")
        for _ in range(REPEATS):
            new = InferenceSession(made, numerics, timing=False)
            first = min(first, best(lambda new=new: new.run(None, inputs), 1))
            second = min(second, best(lambda new=new: new.run(None, inputs), 1))
            base = min(base, best(lambda: reference.run(None, inputs), 4))
            taken = min(taken, best(lambda session=session: session.run(None, inputs), 1))
        ratio = taken / base
        limit, held = (f"≤ {VALUES_RATIO:g} ×", verdict(ratio <= VALUES_RATIO)) if numerics == "float" else ("–", "")
        rows.append(
            (f"values in `{numerics}`, later runs of a session, of onnxruntime's time", f"{ratio:.1f} ×", limit, held)
        )
        rows.append(("… of the first run, which decodes the program", f"{first / base:.1f} ×", "–", ""))
        rows.append(
            ("… of the second run, which records what it does for those after it", f"{second / base:.1f} ×", "–", "")
        )
    return rows


def timing() -> list[Row]:
    """The timing engine: instructions per CPU second (it has one thread), reading the program and the report included."""
    rows: list[Row] = []
    for batch in (1, 8):
        rows.append(_timed(f"batch {batch}", minilm(), Options(dims={"batch": batch, "sequence": LENGTH})))
    with tempfile.TemporaryDirectory() as folder:
        for name, chip, layout, dims in SHAPES:
            path = Path(folder) / f"{name}.onnx"
            if not path.is_file():
                save(build(RECIPES[name].config), path)
            what = f"{name}, {dims['sequence']} tokens on `{chip} -c {layout}`"
            rows.append(_timed(what, path, Options(chip, (layout,), dims)))
    for loop in measure(LOOPS):
        what = f"timing engine, loop of {loop.kind} on 16 tiles: {loop.instructions:,} instructions"
        held = verdict(loop.rate >= INSTRUCTIONS_PER_SECOND)
        rows.append((what, f"{loop.rate:,.0f} instructions/s", f"≥ {INSTRUCTIONS_PER_SECOND:,}", held))
    peak = child("-c", CLOCK).peak_bytes
    rows.append(_row("peak memory of these loops in a process of their own", peak / 1e9, CLOCK_BYTES / 1e9, " GB"))
    return rows


def _timed(what: str, model: Path, options: Options) -> Row:
    """The timing engine on a model's program."""
    made = compile_model(model, options)
    assert made is not None
    program, spec = made.program, made.hardware.spec
    executed = run_timing(program, spec).instructions
    rate = executed / best(lambda: run_timing(program, spec), REPEATS, time.process_time)
    held = verdict(rate >= INSTRUCTIONS_PER_SECOND)
    limit = f"≥ {INSTRUCTIONS_PER_SECOND:,}"
    return f"timing engine, {what}: {executed:,} instructions", f"{rate:,.0f} instructions/s", limit, held


def sections() -> list[Section]:
    """Everything measured here."""
    minilm()
    with tempfile.TemporaryDirectory() as folder:
        rows = (*commands(Path(folder)), *values(), *timing())
    return [
        Section(
            "Speed",
            COMMAND,
            f"MiniLM, batch 1, {LENGTH} tokens, on `isaac`. Commands run in processes of their own; ratios to onnxruntime "
            "(its default threads) are measured beside it in one process; the best of several runs counts.",
            ("figure", "measured", "target", ""),
            rows,
            remarks=(
                "The timing engine decodes every instruction of a program's text once, then executes it as often as loops say; "
                "both count here. Short programs are mostly decoding (some µs for an instruction of the text): hence the "
                "difference between the batches.",
                "The first run after an installation or an update also compiles the timing engine to machine code, once; it is "
                "kept on disk afterwards.",
            ),
        )
    ]


if __name__ == "__main__":
    show(sections())
