"""What of the device a run models: effects switched on or off, their numbers, the time since programming.

A :class:`Device` comes from a chip's ``device`` section and from ``--device``, ``--technology`` and ``--time``; it is
checked whole, against the technology too, before anything runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import ValidationError

from cimc import errors
from cimc.analog.config import refuse
from cimc.analog.faults import CoreShape, StuckMaps, read_maps
from cimc.analog.noise import check_temperature, conductances
from cimc.analog.technology import Technology, technology
from cimc.arch.device import AdcRange, Compensation, DeviceSpec, Remap
from cimc.arch.spec import ChipSpec, CoreSpec

EFFECTS = ("adc", "on_off", "programming", "drift", "read_noise", "temperature", "faults", "ir_drop")
"""In the order in which an attribution switches them on."""

MODELS = {"programming": "programming_error", "drift": "drift", "read_noise": "read_noise"}
"""Effects that a technology's cell model may lack, and what cimc.analog calls them."""

UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "mo": 2592000.0, "y": 31536000.0}
"""Seconds in a unit of time; a month is 30 days and a year 365."""

MOST_RATE = 1e12
"""Inferences a second."""

WORDS = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class Device:
    """The device model of a run. An effect that is on has no effect where the technology or the numbers give none
    (:meth:`active`). ``write_verify`` 0 is what the core's hardware file says. ``numbers`` are those of the
    technology's own model."""

    technology: str
    adc: bool = True
    on_off: bool = True
    programming: bool = True
    drift: bool = True
    read_noise: bool = True
    temperature: bool = True
    faults: bool = True
    ir_drop: bool = True
    seconds: float = 0.0
    write_verify: int = 0
    stuck_off_rate: float = 0.0
    stuck_on_rate: float = 0.0
    stuck_map: str = ""
    remap: Remap = "none"
    wire_ohm: float = 0.0
    adc_range: AdcRange = "fixed"
    adc_coverage: float = 1.0
    adc_gain: float = 1.0
    adc_offset_lsb: float = 0.0
    adc_inl_lsb: float = 0.0
    adc_noise_lsb: float = 0.0
    read_mode: str = "conversion"
    drift_compensation: Compensation = "none"
    calibration_age: float = 0.0
    calibration_interval: int = 1
    temperature_c: float | None = None
    numbers: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(
        cls, chip: ChipSpec, settings: Sequence[str] = (), tech: str | None = None, seconds: float | None = None
    ) -> Device:
        """A chip's device, with ``KEY=VALUE`` settings (later ones win), and a technology and a time since programming in
        place of the file's.

        Raises ANALOG_CONFIG naming the key that is unknown, impossible or contradicts the technology."""
        given: dict[str, object] = {} if chip.device is None else chip.device.model_dump(exclude_none=True)
        asked = dict(map(_setting, settings))
        given |= asked
        if tech is not None:
            given["technology"] = tech
            if "drift_compensation" not in asked and technology(tech).default_model("drift") is None:
                given.pop("drift_compensation", None)  # a repair of the file's own technology, which is not there now
            _check_analog(chip, tech)
        if seconds is not None:
            given["seconds"] = seconds
        try:
            spec = DeviceSpec.model_validate(given)
        except ValidationError as fault:
            row = fault.errors(include_url=False)[0]
            key = str(row["loc"][0])
            raise refuse(f"device.{key}", f"{given[key]!r}: {row['msg']}", "docs/device.md lists the keys") from None
        return _checked(spec, chip)

    @property
    def model(self) -> Technology:
        """The technology itself."""
        return technology(self.technology)

    @property
    def calibrated(self) -> bool:
        """Whether ADC ranges are fitted to a calibration run."""
        return self.adc and self.adc_range.startswith("calibrated")

    @property
    def faulty(self) -> bool:
        """Whether cells may be stuck, by rate or by a map."""
        return self.faults and (self.stuck_off_rate + self.stuck_on_rate > 0 or bool(self.stuck_map))

    @property
    def warm(self) -> bool:
        """Whether a temperature was given that changes anything: by its loss over time, or by the noise of reads."""
        model = self.model.model
        lost = model.retention is not None and self.seconds > 0
        return self.temperature and self.temperature_c is not None and (lost or self._reads_warm)

    @property
    def _reads_warm(self) -> bool:
        return self.read_noise and bool(self.model.model.thermal) and self.model.model.read is not None

    def at(self, seconds: float) -> Device:
        """The same device at another time since programming. Raises ANALOG_CONFIG beyond what the technology's source
        measured."""
        moved = replace(self, seconds=seconds)
        if moved.drift and seconds > 0 and self.model.default_model("drift") is not None:
            conductances(self.model.model.name, np.array([self.model.gmax_us]), seconds)  # refuses a time out of range
        return moved

    def only(self, effects: Sequence[str]) -> Device:
        """The same device with no other effects than these (and of these, those that are on)."""
        off = {name: False for name in EFFECTS if name not in effects}
        return replace(self, **off)  # pyright: ignore[reportArgumentType]  # every effect is a bool

    def active(self, core: CoreSpec) -> tuple[str, ...]:
        """The effects that can change a result of this core."""
        tech = self.model
        real = {
            "adc": core.adc is not None and core.adc.bits > 0,
            "on_off": tech.gmin_us > 0,
            "programming": tech.default_model("programming_error") is not None,
            "drift": tech.default_model("drift") is not None and self.seconds > 0,
            "read_noise": tech.default_model("read_noise") is not None,
            "temperature": self.warm,
            "faults": self.faulty,
            "ir_drop": self.wire_ohm > 0,
        }
        return tuple(name for name in EFFECTS if getattr(self, name) and real[name])

    def random(self, core: CoreSpec) -> bool:
        """Whether another seed can give another result."""
        drawn = {"programming", "drift", "read_noise", "faults"} & set(self.active(core))
        # Measured faults are not random, but copies in other tiles meet others.
        return bool(drawn) or (self.adc and self.adc_noise_lsb > 0)

    def keys(self, core: CoreSpec) -> dict[str, object]:
        """The part of an analog core's configuration (docs/analog.md) that the device decides."""
        found: dict[str, object] = {
            "technology": self.technology,
            "seconds": self.seconds,
            "write_verify": self.write_verify or core.verify_iterations,
            "read_mode": self.read_mode,
        }
        numbers = dict(self.numbers)
        for name, key in MODELS.items():
            part = self.model.default_model(key)
            if not getattr(self, name):
                found[key] = None
            elif part is not None and numbers:
                found[key] = {"model": part.name, **numbers}
        if self.warm:
            found["temperature_c"] = self.temperature_c
        if not self.on_off:
            found["Gmin_norm"] = 0.0
        if self.faults:  # a run draws them core by core (cimc.sim.faults); this is what one matrix alone would do
            found |= {"stuck_off_rate": self.stuck_off_rate, "stuck_on_rate": self.stuck_on_rate}
        if self.ir_drop and self.wire_ohm:
            found |= {"Rp_row_ohm": self.wire_ohm, "Rp_col_ohm": self.wire_ohm}
        return found

    def converter(self) -> dict[str, object]:
        """The converter's own errors, as keys of ``adc``."""
        return {
            "gain": self.adc_gain,
            "offset_lsb": self.adc_offset_lsb,
            "inl_lsb": self.adc_inl_lsb,
            "noise_lsb": self.adc_noise_lsb,
        }


def _check_analog(chip: ChipSpec, tech: str) -> None:
    """A technology in place of the chip's changes nothing where no core is analog: refused rather than ignored."""
    cores = [t.core for t in chip.tiles.values() if t.core is not None]
    if cores and all(core.adc is None for core in cores) and technology(tech).name != technology(chip.technology).name:
        why = f"the cores of this chip are digital, exact whatever cells they have: '{tech}' would change nothing"
        raise refuse("technology", why, "drop it, or choose hardware whose cores have converters")


def _setting(text: str) -> tuple[str, object]:
    """``KEY=VALUE``: a switch (on, off), a number or a word."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key or not value:
        raise refuse("--device", f"'{text}' is not KEY=VALUE", "for example --device drift=off")
    fields = DeviceSpec.model_fields
    if key not in fields:
        near = errors.did_you_mean(key, fields)
        raise refuse(f"device.{key}", "there is no such key", f"{near}known: {', '.join(fields)}")
    kind = str(fields[key].annotation)
    if "bool" in kind:
        if value.lower() not in WORDS:
            raise refuse(f"device.{key}", f"'{value}' is neither on nor off", f"--device {key}=on")
        return key, WORDS[value.lower()]
    if key in ("seconds", "calibration_age"):
        return key, duration(value, f"device.{key}")
    if "float" not in kind and "int" not in kind:
        return key, value
    try:
        return key, float(value) if "float" in kind else int(value)
    except ValueError:
        raise refuse(f"device.{key}", f"'{value}' is no number", f"--device {key}=NUMBER") from None


def _checked(spec: DeviceSpec, chip: ChipSpec) -> Device:
    given: dict[str, object] = spec.model_dump(exclude_none=True)
    tech = technology(spec.technology or chip.technology)
    numbers: list[tuple[str, float]] = []
    for key in ("sigma", "acceptance"):
        if key not in given:
            continue
        if key not in tech.model.parameters:
            fix = f"its model '{tech.model.name}' takes: {', '.join(tech.model.parameters) or 'no numbers'}"
            raise refuse(f"device.{key}", f"technology '{tech.name}' has no {key}", fix)
        value = given.pop(key)
        numbers.append((key, float(str(value))))
    _check_models(given, tech)
    _check_temperature(given, tech)
    if float(str(given.get("stuck_off_rate", 0))) + float(str(given.get("stuck_on_rate", 0))) > 1:
        raise refuse("device.stuck_on_rate", "the two rates exceed 1 together", "give fractions of the cells")
    given["technology"] = tech.name
    return _check_parts(Device(**given, numbers=tuple(numbers)), chip)  # pyright: ignore[reportArgumentType]  # checked by DeviceSpec


def _check_models(given: Mapping[str, object], tech: Technology) -> None:
    """What was asked for by name must exist."""
    for name, key in MODELS.items():
        if given.get(name) is True and tech.default_model(key) is None:
            why = f"technology '{tech.name}' has no model of it"
            raise refuse(f"device.{name}", why, "leave it out, or choose another technology (docs/device.md)")
    if given.get("on_off") is True and tech.gmin_us == 0:
        raise refuse("device.on_off", f"technology '{tech.name}' has an infinite on/off ratio", "leave it out")
    compensated = given.get("drift_compensation", "none") != "none"
    warm = given.get("temperature_c") is not None and tech.default_model("retention") is not None
    if compensated and not warm and (given.get("drift") is False or tech.default_model("drift") is None):
        raise refuse("device.drift_compensation", "there is no drift to compensate", "leave it out")


def _check_temperature(given: Mapping[str, object], tech: Technology) -> None:
    """A temperature needs a source that says what it does to the technology, and a part of it that is on."""
    celsius = given.get("temperature_c")
    if celsius is None:
        if given.get("temperature") is True:
            raise refuse("device.temperature", "no temperature is given", "give temperature_c as well")
        return
    check_temperature("device.temperature_c", float(str(celsius)), bool(tech.model.thermal), tech.name)
    if given.get("temperature") is False:
        raise refuse("device.temperature", "off contradicts temperature_c", "drop one of them")
    if tech.model.retention is None and given.get("read_noise") is False:
        why = f"of '{tech.name}' it changes the noise of reads alone, which is off"
        raise refuse("device.temperature_c", why, "drop it, or read_noise=off")


def _check_parts(device: Device, chip: ChipSpec) -> Device:
    """What needs another part of the chip; then the whole configuration of every analog core is built once."""
    _check_faults(device, chip)
    if device.ir_drop is False and device.wire_ohm > 0:
        raise refuse("device.ir_drop", "off contradicts wire_ohm", "drop one of them")
    lossless = all(t.core.adc.bits == 0 for t in chip.tiles.values() if t.core and t.core.adc)
    if device.adc_range != "fixed" and (lossless or not device.adc):
        raise refuse("device.adc_range", "there is no converter to set a range of", "give the cores' adc.bits")
    if device.adc_coverage < 1 and not device.calibrated:
        why = f"adc_range is {device.adc_range}: nothing is fitted to a share of the conversions"
        raise refuse("device.adc_coverage", why, "give adc_range=calibrated as well, or drop it")
    if device.calibration_age > device.seconds:
        why = f"{device.calibration_age:g} s ago lies before programming"
        raise refuse("device.calibration_age", why, f"give at most seconds, {device.seconds:g}")
    return device.at(device.seconds)


def _check_faults(device: Device, chip: ChipSpec) -> None:
    """Faults come from one place, and what is to be repaired must be there."""
    rates = device.stuck_off_rate + device.stuck_on_rate > 0
    if device.faults is False and (rates or device.stuck_map):
        raise refuse("device.faults", "off contradicts a rate or a map of stuck cells", "drop one of them")
    if rates and device.stuck_map:
        raise refuse("device.stuck_map", "it contradicts a rate of stuck cells", "give the map or the rates")
    if device.remap != "none" and not device.faulty:
        why = "there are no stuck cells to place weights around"
        raise refuse("device.remap", why, "give stuck_map, stuck_off_rate or stuck_on_rate")
    if device.remap != "none" and device.wire_ohm > 0:
        why = "the model of IR drop (wire_ohm) has rows and columns in their order"
        raise refuse("device.remap", why, "drop one of them")
    if not device.stuck_map:
        return
    _check_map(read_maps(device.stuck_map), chip)


def _check_map(maps: StuckMaps, chip: ChipSpec) -> None:
    """A map has the shape of the chip's cores, and names none that is not there."""
    cores: dict[int, tuple[CoreSpec, int]] = {}
    for tile in range(chip.tile_count):
        spec = chip.tile(tile)
        if spec.core is not None and spec.core.adc is not None:
            cores[tile] = spec.core, spec.cores
    for tile, (core, count) in cores.items():
        for number in range(count):
            maps.of(core_shape(core), tile, number)  # refuses another shape
    for tile, number in maps.cores:
        if tile not in cores or number >= cores[tile][1]:
            why = f"{maps.path}: the chip has no analog core {number} in tile {tile}"
            raise refuse("device.stuck_map", why, "name cores that are there")


def device_calibrates(device: Device | None, given: bool, key: str = "--calibration") -> None:
    """Refuse calibration inputs (``given``) for a device whose ADC ranges are not calibrated."""
    if given and (device is None or not device.calibrated):
        rule = "float or integer numerics" if device is None else f"adc_range is {device.adc_range}"
        fix = "give --numerics analog --device adc_range=calibrated (or calibrated_slice)"
        raise refuse(key, f"there is no range to calibrate: {rule}", fix)


def checked_rate(rate: float) -> float:
    """Inferences a second, as ``--rate`` takes them. Raises ANALOG_CONFIG."""
    if not 0 < rate <= MOST_RATE:
        raise refuse("rate", f"{rate} is no rate of inferences", f"give a number above 0, up to {MOST_RATE:g}")
    return rate


def core_shape(core: CoreSpec) -> CoreShape:
    """The cells of one core, as its fault map has them."""
    bar = core.crossbar
    sides = 2 if core.encoding == "differential" else 1
    return CoreShape(sides, core.slices, core.msb_slices, core.msb_copies, bar.cols, bar.spare_cols, bar.rows)


def duration(text: str, key: str = "--time") -> float:
    """Seconds of ``90``, ``90s``, ``10min``, ``1h``, ``1d``, ``1w``, ``1mo``, ``1y``. Raises ANALOG_CONFIG."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)([a-z]*)", text.strip().lower())
    if found is None or found[2] not in UNITS:
        raise refuse(key, f"'{text}' is no time since programming", "for example 3600, 1h, 1d, 1mo, 1y")
    seconds = float(found[1]) * UNITS[found[2]]
    if not seconds <= 1e12:
        raise refuse(key, f"{text} is beyond 1e12 seconds", "give a shorter time")
    return seconds


def durations(text: str) -> tuple[float, ...]:
    """Times separated by commas, in seconds, as :func:`duration` reads them."""
    return tuple(duration(part) for part in text.split(","))
