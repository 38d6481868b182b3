"""Converters by resolution: what a regression over published ADCs says, beside the table of a hardware file.

The two agree at 8 bits and differ six times at 10 (ISAAC's scaled converter 2.4 pJ, the regression 13.9 pJ), so the choice
is the user's: ``costs.adc_model: table`` or ``regression``.
"""

from __future__ import annotations

import math

SOURCE = "Accelergy's ADC plug-in, a regression over B. Murmann's ADC survey, evaluated at 32 nm and 1 GS/s"
ENERGY_PJ = {4: 0.92, 6: 1.07, 8: 1.71, 9: 4.70, 10: 13.9, 12: 133.0}
"""pJ a conversion by bits (:data:`SOURCE`)."""

AREA_UM2 = {4: 4964.0, 6: 5180.0, 8: 5972.0, 9: 8074.0, 10: 11180.0, 12: 21959.0}
"""µm² by bits (:data:`SOURCE`)."""

MOST_BITS = max(ENERGY_PJ)


def regression(key: str, bits: int) -> float:
    """Energy in pJ (``adc.convert``) or area in µm² (``adc``) of a converter of 1 to :data:`MOST_BITS` bits. Between the
    points on a straight line of the logarithm, below 4 bits as at 4: ``estimated``."""
    points = ENERGY_PJ if key == "adc.convert" else AREA_UM2
    low = max((b for b in points if b <= bits), default=min(points))
    high = min((b for b in points if b >= bits), default=MOST_BITS)
    if low >= high:
        return points[low]
    share = (bits - low) / (high - low)
    return math.exp((1 - share) * math.log(points[low]) + share * math.log(points[high]))
