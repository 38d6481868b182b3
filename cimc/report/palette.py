"""A colour per layer: the hue follows the depth of the network, neighbours differ in lightness."""

from __future__ import annotations

import math

_HUES = (255.0, 530.0)  # degrees in OKLCH: blue over violet, red and amber to green
_LIGHTNESS = (0.66, 0.76, 0.58)
_CHROMA = 0.135


def layer_colour(index: int, count: int) -> str:
    """``#rrggbb`` of layer ``index`` of ``count``; readable on white and on black."""
    share = index / max(1, count - 1)
    hue = _HUES[0] + (_HUES[1] - _HUES[0]) * share
    return srgb_hex(_LIGHTNESS[index % len(_LIGHTNESS)], _CHROMA, math.radians(hue))


def srgb_hex(lightness: float, chroma: float, hue: float) -> str:
    """OKLCH (hue in radians) to sRGB, clipped (B. Ottosson, "A perceptual color space for image processing", 2020)."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )
    return "#" + "".join(f"{round(_gamma(min(1.0, max(0.0, c))) * 255):02x}" for c in linear)


def _gamma(c: float) -> float:
    """The sRGB transfer function (IEC 61966-2-1)."""
    return 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055
