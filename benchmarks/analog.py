"""How fast one core simulates, beside a plain baseline in the same process: CPU time of one thread.

    python benchmarks/analog.py [--quick] [--json FILE]

The baseline is what one would write first: a float32 GEMM per row block, slice and input plane, then round and clip in
numpy. Rates are logical 8-bit multiply-adds per CPU second; each figure is the best of a few runs, as the machine may
be shared. Every configuration's result is compared with the baseline's before it is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.putenv(name, "1")  # before numpy loads its BLAS: this is a measurement of one thread

import numpy as np  # noqa: E402

from benchmarks.figures import cpu  # noqa: E402
from cimc.analog import AnalogMatrix  # noqa: E402
from cimc.analog.adc import transfers  # noqa: E402
from cimc.analog.config_keys import read_config  # noqa: E402
from cimc.analog.encoding import drive, planes  # noqa: E402
from cimc.analog.iomodel import IoMatrix, IoModel  # noqa: E402
from cimc.analog.rng import Streams  # noqa: E402


def baseline(core: AnalogMatrix, x: np.ndarray) -> np.ndarray:
    """One float32 GEMM per row block, slice and plane, rounded and clipped; offset taken off."""
    config = core.config
    table = transfers(config, core.inputs)
    net = [np.ascontiguousarray(part, dtype=np.float32) for part in core.cells.net]
    driven = [drive(x.astype(np.int64), plane).astype(np.float32) for plane in planes(config.inputs)]

    def run() -> np.ndarray:
        total = np.zeros((len(x), core.cells.shape[2]), dtype=np.float32)
        wide = np.zeros(total.shape, dtype=np.float64)
        for b, (first, past) in enumerate(core.blocks):
            for s, shift in enumerate(config.weights.shifts):
                t = table[b][s]
                total[:] = 0
                for chunk, plane in zip(driven, planes(config.inputs), strict=True):
                    sums = chunk[:, first:past] @ net[s][first:past]
                    sums /= np.float32(t.step)
                    np.rint(sums - np.float32(t.low), out=sums)
                    np.clip(sums, 0, t.top, out=sums)
                    total += (sums + np.float32(t.low)) * np.float32(plane.weight)
                wide += total.astype(np.float64) * (t.step * 2.0**shift)
        return wide

    result = run()
    baseline.run = run
    return core._finish(result, x)


def mapping(cell: int, rows: int, encoding: str, lsb: int, **more: object) -> dict[str, object]:
    """A configuration of the figures: 8-bit inputs and weights, 8-bit ADC per partial sum."""
    signed = encoding == "differential"
    config: dict[str, object] = {
        "weight_bits": 8, "cell_bits": cell, "num_slices": 8 // cell, "input_bits": 8, "rows": rows,
        "input_encoding": "twos_complement" if signed else "unsigned", "weight_encoding": encoding,
        "adc": {"bits": 8, "signed": signed, "lsb_units": lsb, "code_min": -127 if signed else 0,
                "code_max": 127 if signed else 255},
    }  # fmt: skip
    return {**config, **more}


def operands(rows: int, columns: int, batch: int, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Seeded uniform weights and inputs."""
    rng = Streams(7).generator("calibration")
    weights = rng.integers(-127, 128, (rows, columns)).astype(np.int8)
    low, high = (-128, 128) if signed else (0, 256)
    return weights, rng.integers(low, high, (batch, rows)).astype(np.int8 if signed else np.uint8)


def line(label: str, macs: float, ours: float, theirs: float, aim: float) -> dict[str, object]:
    """Print and return one comparison."""
    ratio = theirs / ours
    print(f"{label:58s} {macs / ours / 1e9:7.2f} {macs / theirs / 1e9:7.2f} {ratio:7.1f}x  (aim {aim:g}x)", flush=True)
    return {
        "case": label,
        "gmacs": macs / ours / 1e9,
        "baseline_gmacs": macs / theirs / 1e9,
        "ratio": ratio,
        "aim": aim,
    }


def compare(
    label: str, config: dict[str, object], size: tuple[int, int], batch: int, aim: float, repeats: int
) -> dict[str, object]:
    """One configuration beside the baseline; where nothing is random the results must be equal."""
    weights, x = operands(*size, batch, config["input_encoding"] != "unsigned")
    start = time.process_time()
    core = AnalogMatrix(weights, config, seed=1)
    programmed = time.process_time() - start
    expected = baseline(core, x)
    got = core.mvm(x)
    if "read_noise" not in config:
        assert np.array_equal(got, np.rint(expected)), label
    theirs = cpu(baseline.run, 2)
    ours = cpu(lambda: core.mvm(x), repeats)
    row = line(label, size[0] * size[1] * batch, ours, theirs, aim)
    return {**row, "program_seconds": programmed, "table_bytes": core.nbytes}


def single(label: str, config: dict[str, object], repeats: int) -> dict[str, object]:
    """Speed per vector of a batch of 1 over that of a batch of 32."""
    weights, x = operands(768, 768, 32, config["input_encoding"] != "unsigned")
    core = AnalogMatrix(weights, config)
    together = core.mvm(x)
    if "read_noise" not in config:
        assert all(np.array_equal(core.mvm(x[v : v + 1])[0], together[v]) for v in range(4)), label
    alone = batch = float("inf")
    for _ in range(repeats * 4):  # in turns: both meet the same neighbours
        alone = min(alone, cpu(lambda: [core.mvm(x[v : v + 1]) for v in range(8)], 1) / 8)
        batch = min(batch, cpu(lambda: core.mvm(x), 1) / 32)
    print(f"{label:58s} {alone * 1e6:7.0f} {batch * 1e6:7.0f} µs  {batch / alone:5.2f}x  (aim 0.5x)", flush=True)
    return {"case": label, "us_alone": alone * 1e6, "us_batched": batch * 1e6, "ratio": batch / alone, "aim": 0.5}


def copied(label: str, config: dict[str, object], repeats: int) -> dict[str, object]:
    """Time with three copies of the top slice over that without."""
    weights, x = operands(768, 768, 32, config["input_encoding"] != "unsigned")
    plain, three = (AnalogMatrix(weights, {**config, "msb_copies": copies}, seed=1) for copies in (1, 3))
    spent = [cpu(lambda core=core: core.mvm(x), repeats * 2) / 32 for core in (plain, three)]
    print(f"{label:58s} {spent[0] * 1e6:7.0f} {spent[1] * 1e6:7.0f} µs  {spent[1] / spent[0]:5.1f}x", flush=True)
    return {"case": label, "us_plain": spent[0] * 1e6, "us_copies": spent[1] * 1e6, "ratio": spent[1] / spent[0]}


NOISE = {"programming_error": {"model": "NormalIndependent", "sigma": 0.01}}
READ = {"read_noise": {"model": "NormalIndependent", "sigma": 0.02}, "read_mode": "conversion"}
PROGRAMMED: dict[str, dict[str, object]] = {
    "lossless": mapping(2, 128, "offset", 1),
    "whole levels, lossy": mapping(2, 256, "offset", 3),
    "differential, lossy": mapping(2, 256, "differential", 3),
    "static noise": mapping(2, 128, "offset", 1, **NOISE),
    "static and read noise": mapping(2, 128, "offset", 1, **NOISE, **READ),
    **{
        name: mapping(2, 128, "offset", 1, technology=name, read_mode="conversion")
        for name in ("reram", "pcm", "fefet", "mram")
    },
}


def first_use(label: str, config: dict[str, object]) -> dict[str, object]:
    """Seconds that the first call of a kernel takes beyond the next one: LLVM at work. Later cores share the kernel."""
    weights, x = operands(256, 64, 64, config["input_encoding"] != "unsigned")
    row: dict[str, object] = {"case": label}
    core = AnalogMatrix(weights, config)
    for name, batch in (("one vector", x[:1]), ("64 vectors", x)):
        spent: list[float] = []
        for _ in range(2):
            start = time.process_time()
            core.mvm(batch)
            spent.append(time.process_time() - start)
        row[name] = spent[0] - spent[1]
    print(f"{label:58s} {row['one vector']:7.2f} {row['64 vectors']:7.2f} s", flush=True)
    return row


def programming(label: str, config: dict[str, object]) -> dict[str, object]:
    """Time to program a core of 768x768, and the bytes per weight that it holds before and after it was used."""
    weights, x = operands(768, 768, 128, config["input_encoding"] != "unsigned")
    seconds = cpu(lambda: AnalogMatrix(weights, config, seed=1), 3)
    core = AnalogMatrix(weights, config, seed=1)
    held = [core.nbytes]
    for batch in (x[:4], x):
        core.mvm(batch)
        held.append(core.nbytes)
    per_weight = [size / weights.size for size in held]
    figures = " ".join(f"{size:7.1f}" for size in per_weight)
    print(f"{label:58s} {seconds * 1e9 / weights.size:7.1f} {figures}", flush=True)
    return {"case": label, "ns_per_weight": seconds * 1e9 / weights.size, "bytes_per_weight": per_weight}


def main() -> int:
    """All figures of docs/analog.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="768x768 only, fewer repeats")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    repeats = 3 if args.quick else 7
    sizes = [(768, 768)] if args.quick else [(768, 768), (3072, 768)]
    rows: list[dict[str, object]] = []
    print(f"{'first use of a kernel: compile time':58s} {'1 vec':>7s} {'64 vec':>7s}")
    rows += [first_use(label, config) for label, config in PROGRAMMED.items()]
    print(f"{'configuration':58s} {'GMAC/s':>7s} {'plain':>7s}")
    for size in sizes:
        for cell in (2, 1):
            for height in (128, 256):
                for encoding, lsb in (("offset", 1), ("offset", 3), ("offset", 2), ("differential", 3)):
                    label = f"{size[0]}x{size[1]} {cell} b, {height} rows, {encoding}, LSB {lsb}"
                    rows.append(compare(label, mapping(cell, height, encoding, lsb), size, 128, 5, repeats))
    for cell in (2, 1):
        for height in (128, 256):
            config = mapping(cell, height, "offset", 1)
            rows.append(
                compare(f"static noise, {cell} b, {height} rows", {**config, **NOISE}, (768, 768), 128, 1.5, repeats)
            )
            label = f"static and read noise, {cell} b, {height} rows"
            rows.append(compare(label, {**config, **NOISE, **READ}, (768, 768), 128, 1, repeats))
    rows.append(lossless(repeats))
    rows.append(io_model(repeats))
    print(f"{'one vector against a batch of 32':58s} {'alone':>7s} {'in 32':>7s}")
    for cell in (2, 1):
        for encoding, lsb in (("offset", 1), ("offset", 3), ("differential", 3)):
            rows.append(
                single(f"{cell} b, 256 rows, {encoding}, LSB {lsb}", mapping(cell, 256, encoding, lsb), repeats)
            )
    for label, more in (("static noise", NOISE), ("static and read noise", {**NOISE, **READ})):
        rows.append(single(f"2 b, 128 rows, {label}", mapping(2, 128, "offset", 1, **more), repeats))
    print(f"{'three copies of the top slice, a vector of 32':58s} {'one':>7s} {'three':>7s}")
    for label, more in (("static noise", NOISE), ("static and read noise", {**NOISE, **READ})):
        rows.append(copied(f"2 b, 128 rows, {label}", mapping(2, 128, "offset", 1, **more), repeats))
    print(
        f"{'programming 768x768: ns, then bytes per weight':58s} {'ns':>7s} {'fresh':>7s} {'4 vec':>7s} {'128 vec':>7s}"
    )
    rows += [programming(label, config) for label, config in PROGRAMMED.items()]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def lossless(repeats: int) -> dict[str, object]:
    """Lossless ADC: one integer product, beside numpy's float32 product of the same size."""
    weights, x = operands(768, 768, 128, True)
    core = AnalogMatrix(weights, read_config({"input_encoding": "twos_complement"}))
    assert np.array_equal(core.mvm(x), x.astype(np.int64) @ weights.astype(np.int64))
    a, b = x.astype(np.float32), weights.astype(np.float32)
    return line(
        "lossless, beside sgemm",
        768 * 768 * 128,
        cpu(lambda: core.mvm(x), repeats * 3),
        cpu(lambda: a @ b, repeats * 3),
        0.6,
    )


def io_model(repeats: int) -> dict[str, object]:
    """aihwkit's single-pass model; its own CPU tile was measured at 1.9-5.4 GMAC/s (docs/analog.md)."""
    rng = Streams(3).generator("calibration")
    weights, x = rng.standard_normal((768, 768)) * 0.1, rng.standard_normal((128, 768))
    core = IoMatrix(weights, IoModel())
    a, b = x.astype(np.float32), weights.astype(np.float32)
    return line(
        "I/O model, beside sgemm",
        768 * 768 * 128,
        cpu(lambda: core.mvm(a), repeats * 3),
        cpu(lambda: a @ b, repeats * 3),
        0.3,
    )


if __name__ == "__main__":
    sys.exit(main())
