"""Geometry of windows: padding and output extents of convolutions and pooling, as the standard gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value
from cimc.frontend.call import Call

_AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Frame:
    """Windows over the spatial axes of an input. ``excess``: elements beyond ``after`` that ``ceil_mode`` reaches."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    excess: tuple[int, ...]

    @property
    def taps(self) -> int:
        """Elements of one window."""
        return math.prod(self.kernel)

    @property
    def padded(self) -> bool:
        """Whether windows reach outside the input."""
        return any((*self.before, *self.after, *self.excess))


def frame(c: Call, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Frame:
    """The node's windows over an input of these spatial extents. Raises Impossible if the attributes do not fit."""
    n = len(spatial)
    stride, dilation = c.ints("strides") or (1,) * n, c.ints("dilations") or (1,) * n
    pads, auto = c.ints("pads") or (0,) * (2 * n), c.text("auto_pad", "NOTSET")
    if (
        not len(kernel) == len(stride) == len(dilation) == n
        or len(pads) != 2 * n
        or min((*stride, *dilation, *kernel)) < 1
    ):
        raise Impossible(f"windows {kernel} by {stride}, dilated {dilation}, padded {pads}, over {spatial}")
    if auto not in _AUTO:
        raise Impossible(f"auto_pad {auto}")
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    before, after = pads[:n], pads[n:]
    if auto.startswith("SAME"):
        need = [max((-(-x // s) - 1) * s + r - x, 0) for x, s, r in zip(spatial, stride, reach, strict=True)]
        small, large = tuple(v // 2 for v in need), tuple(v - v // 2 for v in need)
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    elif auto == "VALID":
        before, after = (0,) * n, (0,) * n
    excess = [0] * n
    for i in range(n):
        whole = spatial[i] + before[i] + after[i]
        ceil = bool(c.int("ceil_mode", 0))
        if whole < reach[i] and not (ceil and whole > reach[i] - stride[i]):
            raise Impossible(f"a window of {reach[i]} over {whole} elements")
        if ceil:
            # A window that would start in the padding behind the input is left out.
            steps = -(-(whole - reach[i]) // stride[i])
            steps -= steps * stride[i] >= spatial[i] + before[i]
            excess[i] = max(steps * stride[i] + reach[i] - whole, 0)
    return Frame(kernel, stride, dilation, before, after, tuple(excess))


def windows(c: Call, x: Value, fr: Frame, value: float) -> Value:
    """x (n × c × spatial…) padded with ``value``, as (n × out… × c × kernel…)."""
    before = (0, 0, *fr.before)
    after = (0, 0, *(a + e for a, e in zip(fr.after, fr.excess, strict=True)))
    padded = f.pad(c.b, x, before, after, value)
    return c.b.emit("window", (padded,), kernel=fr.kernel, stride=fr.stride, dilation=fr.dilation)[0]


def channels_second(c: Call, y: Value) -> Value:
    """(n × out… × c) as (n × c × out…)."""
    return f.move_axis(c.b, y, -1, 1)
