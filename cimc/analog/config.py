"""What one logical MVM core is made of: typed, frozen and checked before anything runs.

A configuration is read from a mapping by config_keys.py (keys in docs/analog.md); every contradiction is refused with the
name of its key. Conductances are counted in *levels*: a slice of ``b`` bits has levels
``0 .. 2**b - 1``, and its highest level is the device's ``Gmax``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cimc import errors

WeightKind = Literal["offset", "differential"]
InputKind = Literal["unsigned", "twos_complement", "sign_magnitude", "split"]
AdcRule = Literal["LSB", "MAX", "GRANULAR", "CALIBRATED"]


MOST_DEVICES = 16
"""Side by side in one cell: a bound on memory and time, not of a source."""


def refuse(key: str, why: str, fix: str) -> errors.CimcError:
    """The one diagnostic of a bad configuration: which key, why, and what would be accepted."""
    return errors.ANALOG_CONFIG(key=key, why=why, fix=fix)


@dataclass(frozen=True)
class WeightEncoding:
    """How a signed integer weight becomes cells.

    ``offset``: ``W + offset`` is stored, and ``offset * sum(x)`` is subtracted, in digital or with the ADC codes of a
    unit column. ``differential``: ``|W|`` is stored in the plus or the minus column. ``slice_bits`` are the bits of
    each slice, least significant first; they may differ.
    """

    bits: int = 8
    slice_bits: tuple[int, ...] = (2, 2, 2, 2)
    kind: WeightKind = "offset"
    offset: int = 128
    unit_column: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise refuse("weight_bits", f"{self.bits} is outside 1..16", "give 1 to 16 bits")
        if not self.slice_bits or min(self.slice_bits) < 1 or max(self.slice_bits) > 16:
            raise refuse(
                "slice_bits", f"{list(self.slice_bits)} has a width outside 1..16", "give 1 to 16 bits per slice"
            )
        need = self.magnitude_bits
        total = sum(self.slice_bits)
        if total < need or total - self.slice_bits[-1] >= self.bits:
            raise refuse(
                "num_slices",
                f"slices of {list(self.slice_bits)} bits sum up to {total}, but {self.kind} weights of {self.bits} bits"
                f" need {need}",
                "let the slices' bits sum up to what is stored, without a slice that stays empty",
            )
        if self.kind == "differential" and self.unit_column:
            raise refuse("offset_subtraction", "a differential pair has no offset to subtract", "drop the key")

    @property
    def magnitude_bits(self) -> int:
        """Bits that the cells must hold: without the sign for a differential pair."""
        return self.bits if self.kind == "offset" else max(self.bits - 1, 1)

    @property
    def shifts(self) -> tuple[int, ...]:
        """Binary weight of each slice."""
        return tuple(sum(self.slice_bits[:s]) for s in range(len(self.slice_bits)))

    @property
    def max_levels(self) -> tuple[int, ...]:
        """Highest level of each slice, ``2**b - 1``."""
        return tuple((1 << b) - 1 for b in self.slice_bits)


@dataclass(frozen=True)
class InputEncoding:
    """How an integer input is streamed: ``dac_bits`` at a time, least significant first.

    ``twos_complement``: the sign bit is a plane of its own, weight ``-2**(bits-1)``. ``sign_magnitude``: planes of the
    magnitude, driven with the sign. ``split``: the positive inputs in one phase, the negative ones in a second.
    """

    bits: int = 8
    kind: InputKind = "unsigned"
    dac_bits: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise refuse("input_bits", f"{self.bits} is outside 1..16", "give 1 to 16 bits")
        if not 1 <= self.dac_bits <= 16:
            raise refuse("dac_bits", f"{self.dac_bits} is outside 1..16", "give 1 to 16 bits per conversion")
        if self.kind != "unsigned" and self.bits < 2:
            raise refuse("input_bits", "signed inputs need at least 2 bits", "give 2 or more, or unsigned inputs")

    @property
    def signed(self) -> bool:
        """Whether negative inputs can be streamed."""
        return self.kind != "unsigned"

    @property
    def low(self) -> int:
        """Smallest input."""
        if self.kind == "twos_complement":
            return -(1 << (self.bits - 1))
        return 0 if self.kind == "unsigned" else 1 - (1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """Largest input."""
        return (1 << self.bits) - 1 if self.kind == "unsigned" else (1 << (self.bits - 1)) - 1


@dataclass(frozen=True)
class AdcConfig:
    """One conversion per partial sum: range, resolution, and how far it is from ideal.

    ``rule`` says where the range comes from: ``LSB`` (``lsb_units`` levels per code, from ``code_min`` to
    ``code_max``), ``MAX`` and ``GRANULAR`` (CrossSim's rules, from the array's size or its smallest current),
    ``CALIBRATED`` (``ranges``: one (min, max) for all slices or one per slice, in units of Gmax times a full input).
    ``gain`` and ``offset_lsb`` are the converter's own errors; ``inl_lsb`` the height of a parabolic integral
    non-linearity; ``noise_lsb`` Gaussian noise per conversion.
    """

    bits: int = 8
    signed: bool = False
    rule: AdcRule = "LSB"
    lsb_units: float = 1.0
    code_min: int = 0
    code_max: int = 255
    ranges: tuple[tuple[float, float], ...] = ()
    levels: int = 256
    gain: float = 1.0
    offset_lsb: float = 0.0
    inl_lsb: float = 0.0
    noise_lsb: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 24:
            raise refuse("adc.bits", f"{self.bits} is outside 1..24", "give 1 to 24 bits, or no adc for an exact sum")
        if self.rule == "LSB" and not (np.isfinite(self.lsb_units) and self.lsb_units > 0):
            raise refuse("adc.lsb_units", f"{self.lsb_units} is not a positive number", "give levels per code")
        if self.rule == "LSB" and self.code_min >= self.code_max:
            raise refuse(
                "adc.code_max", f"the range {self.code_min}..{self.code_max} has no codes", "let max exceed min"
            )
        if self.rule == "LSB" and self.code_max - self.code_min >= 1 << self.bits:
            raise refuse(
                "adc.code_max",
                f"codes {self.code_min}..{self.code_max} are more than {self.bits} bits hold",
                "raise adc.bits or narrow the codes",
            )
        if self.rule == "CALIBRATED" and not self.ranges:
            raise refuse("adc.ranges", "a calibrated ADC has no range", "give adc_min and adc_max, or calibrate")
        for low, high in self.ranges:
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise refuse("adc_max", f"the range {low}..{high} holds no codes", "let adc_max exceed adc_min")
        if self.levels < 2:
            raise refuse("adc_levels", f"{self.levels} is below 2", "give at least two levels")
        if self.noise_lsb < 0 or not np.isfinite(self.noise_lsb):
            raise refuse("adc.noise_lsb", f"{self.noise_lsb} is negative or not finite", "give a sigma of 0 or more")
        if not (np.isfinite(self.gain) and self.gain > 0):
            raise refuse("adc.gain", f"{self.gain} is not a positive number", "1 is an ideal converter")

    @property
    def ideal(self) -> bool:
        """Whether the converter only rounds and clips."""
        return self.gain == 1.0 and self.offset_lsb == 0.0 and self.inl_lsb == 0.0 and self.noise_lsb == 0.0


@dataclass(frozen=True)
class NoiseModel:
    """A model by name with its numbers; what they mean is the model's own (noise.py, tech/)."""

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    def get(self, key: str, default: float) -> float:
        """The number called ``key``, or ``default``."""
        return dict(self.parameters).get(key, default)


@dataclass(frozen=True)
class DeviceConfig:
    """The cell's physics: each part is off (None) until named.

    ``programming``, ``drift`` and ``read`` are models by name; ``seconds`` is the time since programming; ``read_mode``
    draws read noise per cell and cycle (``cell``) or one Gaussian per conversion with the summed variance
    (``conversion``). ``gmin_norm`` is Gmin/Gmax (0: infinite on/off ratio); ``gmax_us`` scales physical models.
    ``write_verify`` repeats programming, keeping each cell's closest attempt. ``row_ohm`` and ``col_ohm`` are one
    segment of a crossbar's wires, whose mean IR drop scales the cells (irdrop.py). ``retention`` is what cells lose with
    time at ``temperature_c``; models that know the temperature read at it too (None: at their source's).

    ``devices`` stand side by side in every cell and conduct together (Boybat et al., Nat. Commun. 9, 2514, 2018): each is
    programmed to the cell's level, drifts and scatters by itself, and the cell's Gmax is that of all. A stuck cell is stuck
    with all of them (estimated: the worst case).
    """

    programming: NoiseModel | None = None
    drift: NoiseModel | None = None
    read: NoiseModel | None = None
    read_mode: Literal["cell", "conversion"] = "cell"
    seconds: float = 0.0
    gmin_norm: float = 0.0
    gmax_us: float | None = None
    write_verify: int = 1
    stuck_off_rate: float = 0.0
    stuck_on_rate: float = 0.0
    row_ohm: float = 0.0
    col_ohm: float = 0.0
    retention: NoiseModel | None = None
    temperature_c: float | None = None
    devices: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= MOST_DEVICES:
            raise refuse("devices", f"{self.devices} is outside 1..{MOST_DEVICES}", "give the devices of one cell")
        if not (np.isfinite(self.seconds) and self.seconds >= 0):
            raise refuse(
                "seconds", f"{self.seconds} lies before programming", "give seconds since programming, 0 or more"
            )
        if not 0 <= self.gmin_norm < 1:
            raise refuse(
                "Gmin_norm", f"{self.gmin_norm} is outside 0..1", "give Gmin/Gmax; 0 is an infinite on/off ratio"
            )
        if self.gmax_us is not None and not (np.isfinite(self.gmax_us) and self.gmax_us > 0):
            raise refuse("gmax_us", f"{self.gmax_us} is not a positive conductance", "give microsiemens")
        if self.write_verify < 1:
            raise refuse("write_verify", f"{self.write_verify} is below 1", "give the number of programming attempts")
        for key, rate in (("stuck_off_rate", self.stuck_off_rate), ("stuck_on_rate", self.stuck_on_rate)):
            if not 0 <= rate <= 1:
                raise refuse(key, f"{rate} is no probability", "give a fraction of the cells, 0 to 1")
        if self.stuck_off_rate + self.stuck_on_rate > 1:
            raise refuse("stuck_on_rate", "the two rates exceed 1 together", "give fractions of the cells")
        for key, ohm in (("Rp_row_ohm", self.row_ohm), ("Rp_col_ohm", self.col_ohm)):
            if not (np.isfinite(ohm) and ohm >= 0):
                raise refuse(key, f"{ohm} is negative or not finite", "give ohms of one wire segment, 0 or more")
            if ohm and self.gmax_us is None:
                raise refuse(key, "wires without a cell conductance", "give gmax_us, Rmin or a technology as well")

    @property
    def ages(self) -> bool:
        """Whether cells conduct otherwise than at the time of programming."""
        return self.seconds > 0 and (self.drift is not None or self.retention is not None)

    @property
    def ideal(self) -> bool:
        """Whether every cell holds exactly its level and stays there."""
        return (
            self.programming is None
            and self.drift is None
            and self.retention is None
            and self.read is None
            and self.gmin_norm == 0.0
            and self.row_ohm == 0.0
            and self.col_ohm == 0.0
        )


@dataclass(frozen=True)
class Redundancy:
    """Copies of the most significant slices: each of the ``slices`` highest stands in ``copies`` crossbars, whose codes
    are combined at the shift-and-add by their median or their mean (redundancy.py). 1 copy: none."""

    copies: int = 1
    slices: int = 1
    combine: Literal["median", "mean"] = "median"

    def __post_init__(self) -> None:
        if not 1 <= self.copies <= 15:
            raise refuse("msb_copies", f"{self.copies} is outside 1..15", "give the crossbars of a top slice")
        if self.slices < 1:
            raise refuse("msb_slices", f"{self.slices} is below 1", "give how many of the top slices have copies")
        if self.copies % 2 == 0 and self.combine == "median":
            why = f"the median of {self.copies} codes is none of them"
            raise refuse("msb_copies", why, "give an odd number, or msb_combine: mean")


@dataclass(frozen=True, eq=False)
class AnalogConfig:
    """One core, complete. ``row_blocks`` are the rows summed by one conversion; without them, blocks of ``active_rows``
    (at most ``rows``) from the top, the last one shorter. ``stuck`` is a map of 0 (healthy), 1 (level 0) and 2 (highest
    level), shape (slices, out, in), or (2, slices, out, in) for plus and minus cells; with ``redundancy`` the crossbars
    of ``crossbar_slices`` in place of the slices."""

    weights: WeightEncoding = field(default_factory=WeightEncoding)
    inputs: InputEncoding = field(default_factory=InputEncoding)
    adc: AdcConfig | None = None
    rows: int = 128
    active_rows: int | None = None
    row_blocks: tuple[tuple[int, int], ...] | None = None
    device: DeviceConfig = field(default_factory=DeviceConfig)
    stuck: NDArray[np.int8] | None = None
    grid: Literal["fast", "fine"] = "fast"
    redundancy: Redundancy = field(default_factory=Redundancy)

    def __post_init__(self) -> None:
        slices = len(self.weights.slice_bits)
        if self.redundancy.slices > slices:
            raise refuse("msb_slices", f"{self.redundancy.slices} of {slices} slices", "copy at most all of them")
        if not 1 <= self.rows <= 1 << 16:
            raise refuse("rows", f"{self.rows} is outside 1..65536", "give the rows of one crossbar")
        if self.active_rows is not None and not 1 <= self.active_rows <= self.rows:
            raise refuse("active_rows", f"{self.active_rows} is outside 1..{self.rows}", "drive at most all rows")
        for a, b in self.row_blocks or ():
            if not 0 <= a < b:
                raise refuse("row_blocks", f"[{a}, {b}] is no range of rows", "give [first, past the last] pairs")
            if b - a > self.rows:
                raise refuse("row_blocks", f"[{a}, {b}] is longer than {self.rows} rows", "raise rows or cut the block")

    @property
    def crossbar_slices(self) -> tuple[int, ...]:
        """The slice that each crossbar of a side holds: every slice once, then the copies of the top ones."""
        slices, extra = len(self.weights.slice_bits), self.redundancy
        return (*range(slices), *(tuple(range(slices - extra.slices, slices)) * (extra.copies - 1)))

    def blocks(self, inputs: int) -> tuple[tuple[int, int], ...]:
        """The row blocks of a matrix with ``inputs`` rows; refused if given ones do not tile it."""
        step = self.active_rows or self.rows
        if self.row_blocks is None:
            return tuple((a, min(a + step, inputs)) for a in range(0, inputs, step))
        ends = [0, *(b for _, b in self.row_blocks)]
        if [a for a, _ in self.row_blocks] != ends[:-1] or ends[-1] != inputs:
            raise refuse("row_blocks", f"they do not tile {inputs} input rows", "cover every row once, in order")
        return tuple(
            (start, min(start + step, b)) for a, b in self.row_blocks for start in range(a, b, min(step, b - a))
        )
