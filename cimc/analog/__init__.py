"""The physics of one logical MVM core: encodings, cells, converters, noise. Knows no instruction set and no
compiler."""

from cimc.analog.calibrate import calibrate_range, drift_factor, measure_columns
from cimc.analog.config import AnalogConfig
from cimc.analog.core import AnalogMatrix, Counts, mvm
from cimc.analog.noise import conductances
from cimc.analog.technology import Fact, Technology, technologies, technology

__all__ = [
    "AnalogConfig",
    "AnalogMatrix",
    "Counts",
    "Fact",
    "Technology",
    "calibrate_range",
    "conductances",
    "drift_factor",
    "measure_columns",
    "mvm",
    "technologies",
    "technology",
]
