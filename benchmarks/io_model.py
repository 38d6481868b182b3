"""aihwkit's single-pass I/O model beside ours, in one process on one thread: equal results, and CPU time.

    python benchmarks/io_model.py [--repeats 7] [--json FILE]

Needs aihwkit and torch beside what cimc needs (``pip install aihwkit``); says so where they are missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.putenv(name, "1")  # before any BLAS is loaded: this is a measurement of one thread
    os.environ[name] = "1"

import numpy as np  # noqa: E402

from benchmarks.figures import cpu  # noqa: E402
from cimc.analog.iomodel import IoMatrix, IoModel  # noqa: E402
from cimc.analog.rng import Streams  # noqa: E402

SIZE, BATCH = 768, 128
CASES: dict[str, dict[str, object]] = {
    "8-bit DAC and ADC": {},
    "7-bit DAC, 9-bit ADC, bound 6": {"inp_res": 126.0, "out_res": 510.0, "out_bound": 6.0},
    "with IR drop": {"ir_drop": 1.0},
    "iterative bound management": {"out_bound": 0.5, "bound_management": "ITERATIVE"},
    "PCM read noise 0.0175": {"w_noise": 0.0175, "w_noise_type": "PCM_READ"},
    "output noise 0.06": {"out_noise": 0.06},
}


def peer(weights: np.ndarray, model: IoModel) -> Callable[[np.ndarray], np.ndarray]:
    """aihwkit's inference tile with the same weights and settings."""
    import torch
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.configs import InferenceRPUConfig, IOParameters
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType, WeightNoiseType

    torch.set_num_threads(1)
    given = {key: getattr(model, key) for key in ("inp_bound", "out_bound", "inp_noise", "out_noise", "w_noise")}
    # Its resolutions are fractions of the range.
    forward = IOParameters(
        **given, inp_res=1.0 / model.inp_res, out_res=1.0 / model.out_res, ir_drop=model.ir_drop,
        ir_drop_g_ratio=model.ir_drop_g_ratio, w_noise_type=WeightNoiseType[model.w_noise_type],
        noise_management=NoiseManagementType[model.noise_management],
        bound_management=BoundManagementType[model.bound_management],
    )  # fmt: skip
    config = InferenceRPUConfig(forward=forward)
    config.mapping.weight_scaling_omega = 0.0
    config.mapping.max_input_size = config.mapping.max_output_size = 0
    config.mapping.digital_bias = False
    rows, columns = weights.shape
    layer = AnalogLinear(columns, rows, bias=False, rpu_config=config)
    layer.set_weights(torch.from_numpy(weights), None)
    layer.eval()

    def run(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return layer(torch.from_numpy(x)).numpy()

    return run


def compare(label: str, settings: dict[str, object], repeats: int) -> dict[str, object]:
    """One case: how far results are apart, and the rates of both."""
    rng = Streams(3).generator("calibration")
    weights = (rng.standard_normal((SIZE, SIZE)) * 0.03).clip(-1, 1).astype(np.float32)
    x = rng.standard_normal((BATCH, SIZE)).astype(np.float32)
    model = IoModel.from_mapping(settings)
    ours, theirs = IoMatrix(weights, model), peer(weights, model)
    a, b = ours.mvm(x), theirs(x)
    exact = IoMatrix(weights, IoModel.from_mapping({**settings, "w_noise": 0, "out_noise": 0})).mvm(x)
    step = 2 * model.out_bound / model.out_res * np.abs(x).max(axis=1, keepdims=True)
    noisy = bool(model.w_noise or model.out_noise)
    apart = (
        float(abs(np.std(a - exact) / np.std(b - exact) - 1)) if noisy else float(np.mean(np.abs(a - b) > 1e-4 * step))
    )
    mine, other = cpu(lambda: ours.mvm(x), repeats), cpu(lambda: theirs(x), repeats)
    macs = SIZE * SIZE * BATCH / 1e9
    what = f"spread differs by {apart:.2%}" if noisy else f"{apart:.4%} of outputs differ"
    print(f"{label:32s} {macs / mine:7.2f} {macs / other:7.2f} {other / mine:7.1f}x   {what}", flush=True)
    return {"case": label, "gmacs": macs / mine, "aihwkit_gmacs": macs / other, "ratio": other / mine, "apart": apart}


def main() -> int:
    """All cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures there")
    chosen = parser.parse_args()
    if importlib.util.find_spec("aihwkit") is None:
        print("aihwkit is not installed in this environment: nothing to compare with (pip install aihwkit).")
        return 0
    import aihwkit

    print(f"aihwkit {aihwkit.__version__}; {SIZE}x{SIZE}, batch {BATCH}, GMAC/s of CPU time, one thread")
    print(f"{'case':32s} {'cimc':>7s} {'aihwkit':>7s}")
    rows = [compare(label, settings, chosen.repeats) for label, settings in CASES.items()]
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
