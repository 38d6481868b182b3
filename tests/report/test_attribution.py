"""Error by cause, on numbers that can be checked by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cimc.report import jsontext, render
from cimc.report.attribution import attribute, attribution_json, table


def test_every_step_is_told_apart() -> None:
    want = np.array([3.0, 4.0])  # of norm 5
    runs = [{"y": want + d} for d in ([0.0, 0.5], [1.0, 0.5], [1.0, 2.5])]
    (found,) = attribute({"y": want, "z": want}, *runs)
    assert (found.compiler, found.quantization, found.device) == pytest.approx((0.1, 0.2, 0.4))
    assert found.total == pytest.approx(math.hypot(1.0, 2.5) / 5)
    assert "y           0.1           0.2     0.4  0.539" in render.plain([table([found])])


def test_runs_that_were_not_made_and_shapes_that_differ() -> None:
    want = np.array([3.0, 4.0])
    (found,) = attribute({"y": want}, {}, {"y": want}, {})
    assert (found.compiler, found.quantization, found.device, found.total) == (None, None, None, 0.0)
    (found,) = attribute({"y": want}, {"y": want[None]}, {}, {})
    assert (found.compiler, found.total) == (None, None)
    assert attribute({"y": want}, {}, {}, {}) == ()


def test_nothing_to_relate_to_and_what_is_not_finite() -> None:
    (found,) = attribute({"y": np.zeros(2)}, {"y": np.ones(2)}, {"y": np.ones(2)}, {})
    assert (found.compiler, found.quantization) == (math.inf, 0.0)
    assert json.loads(jsontext.dumps(attribution_json(found)))["compiler"] is None
    masked = np.array([-np.inf, 1.0])
    (found,) = attribute({"y": masked}, {"y": masked}, {"y": np.array([-np.inf, 1.5])}, {})
    assert (found.compiler, found.quantization) == (0.0, 0.5)
