"""From a mapping with the keys of docs/analog.md to ``AnalogConfig``: every key known, every value checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.analog.config import (
    AdcConfig,
    AdcRule,
    AnalogConfig,
    DeviceConfig,
    InputEncoding,
    InputKind,
    NoiseModel,
    Redundancy,
    WeightEncoding,
    WeightKind,
    refuse,
)
from cimc.analog.noise import check_model, check_temperature, find_model
from cimc.analog.technology import Technology, technology

# Keys that mean the same: the first is ours, the others are what the field writes.
ALIASES = {
    "slice_size": "dac_bits",
    "input_slice_size": "dac_bits",
    "input_slice_bits": "dac_bits",
    "dac_slice_bits": "dac_bits",
    "bits_per_cycle": "dac_bits",
    "gmin_norm": "Gmin_norm",
    "programming": "programming_error",
    "programming_noise": "programming_error",
    "drift_error": "drift",
    "time": "seconds",
    "stuck_at": "stuck",
    "rule": "adc_rule",
}
KNOWN = {
    "weight_bits", "cell_bits", "num_slices", "slice_bits", "input_bits", "input_encoding", "dac_bits",
    "input_bitslicing", "weight_encoding", "offset", "offset_subtraction", "rows", "active_rows", "row_blocks", "adc",
    "adc_rule", "adc_min", "adc_max", "adc_levels", "adc_ranges", "Gmin_norm", "on_off_ratio", "Rmin", "Rmax",
    "gmin_us", "gmax_us", "stuck", "stuck_off_rate", "stuck_on_rate", "programming_error", "drift", "read_noise",
    "read_mode", "seconds", "write_verify", "technology", "device", "Rp_row_ohm", "Rp_col_ohm", "grid",
    "temperature_c", "retention", "msb_copies", "msb_slices", "msb_combine", "devices",
}  # fmt: skip
ADC_KEYS = {
    "bits", "signed", "lsb_units", "code_min", "code_max", "adc_rule", "min", "max", "levels", "ranges", "gain",
    "offset_lsb", "inl_lsb", "noise_lsb", "adc_min", "adc_max", "adc_levels",
}  # fmt: skip
Section = Mapping[str, object]


def read_config(mapping: Section, grid: Literal["fast", "fine"] = "fast") -> AnalogConfig:
    """The configuration of one core; ``grid`` where the mapping says none. Raises ANALOG_CONFIG naming the first key at
    fault."""
    keys = _canonical(mapping, KNOWN, "")
    weights = _weights(keys)
    inputs = _inputs(keys)
    grid_text = _word(keys, "grid", grid, ("fast", "fine"))
    return AnalogConfig(
        weights=weights,
        inputs=inputs,
        adc=_adc(keys, inputs),
        rows=_integer(keys, "rows", 128),
        active_rows=_integer(keys, "active_rows", 0) or None,
        row_blocks=_row_blocks(keys.get("row_blocks")),
        device=_device(keys, "cell" if grid_text == "fine" else "conversion"),
        stuck=_stuck(keys.get("stuck")),
        grid=cast("Literal['fast', 'fine']", grid_text),
        redundancy=_redundancy(keys),
    )


def _redundancy(keys: Section) -> Redundancy:
    combine = _word(keys, "msb_combine", "median", ("median", "mean"))
    return Redundancy(
        _integer(keys, "msb_copies", 1),
        _integer(keys, "msb_slices", 1),
        cast("Literal['median', 'mean']", combine),
    )


def _canonical(mapping: Section, known: Iterable[str], prefix: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in mapping.items():
        name = ALIASES.get(key, key)
        if name not in known:
            hint = errors.did_you_mean(name, known)
            raise refuse(f"{prefix}{key}", "there is no such key", f"{hint}docs/analog.md lists the keys")
        if name in found:
            raise refuse(f"{prefix}{key}", f"given twice, also as another name of '{name}'", "give it once")
        found[name] = value
    return found


def _weights(keys: Section) -> WeightEncoding:
    bits = _integer(keys, "weight_bits", 8)
    if not 1 <= bits <= 16:
        raise refuse("weight_bits", f"{bits} is outside 1..16", "give 1 to 16 bits")
    kind = cast("WeightKind", _word(keys, "weight_encoding", "offset", ("offset", "differential")))
    subtraction = keys.get("offset_subtraction")
    if subtraction not in (None, "digital", "unit_column"):
        raise refuse("offset_subtraction", f"{subtraction!r} is unknown", "give digital or unit_column")
    if kind == "differential" and subtraction is not None:
        raise refuse("offset_subtraction", "a differential pair has no offset to subtract", "give null or drop the key")
    offset = _integer(keys, "offset", 1 << (bits - 1) if kind == "offset" else 0)
    if kind == "differential" and offset:
        raise refuse("offset", "a differential pair has no offset", "give 0 or drop the key")
    if kind == "offset" and not 0 <= offset < 1 << bits:
        raise refuse("offset", f"{offset} does not fit {bits} bits", f"give 0..{(1 << bits) - 1}")
    if subtraction == "unit_column" and offset != 1 << (bits - 1):
        raise refuse("offset", f"a unit column holds {1 << (bits - 1)}, not {offset}", "drop the key")
    widths = _slice_bits(keys, bits if kind == "offset" else max(bits - 1, 1))
    return WeightEncoding(bits, widths, kind, offset, subtraction == "unit_column")


def _slice_bits(keys: Section, need: int) -> tuple[int, ...]:
    cell_bits = _integer(keys, "cell_bits", 0)
    if not 0 <= cell_bits <= 16:
        raise refuse("cell_bits", f"{cell_bits} is outside 0..16", "give the bits of one cell, 0 for an unsliced cell")
    given = keys.get("slice_bits")
    if given is None:
        cell = cell_bits or need
        count = _integer(keys, "num_slices", -(-need // cell))
        if not 1 <= count <= 16:
            raise refuse("num_slices", f"{count} is outside 1..16", "give the number of slices")
        return (cell,) * count
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise refuse("slice_bits", f"{given!r} is no list", "give the bits of each slice, least significant first")
    widths = tuple(_as_int("slice_bits", item) for item in cast("Sequence[object]", given))
    if len(widths) != _integer(keys, "num_slices", len(widths)):
        raise refuse("num_slices", f"{keys['num_slices']} contradicts {len(widths)} slice_bits", "drop one of them")
    if cell_bits and max(widths, default=0) > cell_bits:
        raise refuse("slice_bits", f"a slice of {max(widths)} bits exceeds cell_bits {cell_bits}", "narrow the slices")
    return widths


def _inputs(keys: Section) -> InputEncoding:
    bits = _integer(keys, "input_bits", 8)
    kinds = ("unsigned", "twos_complement", "sign_magnitude", "split")
    kind = cast("InputKind", _word(keys, "input_encoding", "unsigned", kinds))
    dac = _integer(keys, "dac_bits", 1)
    if keys.get("input_bitslicing") is False:
        if "dac_bits" in keys:
            raise refuse("dac_bits", "contradicts input_bitslicing false", "drop one of them")
        dac = bits if kind == "unsigned" else bits - 1
    return InputEncoding(bits, kind, dac)


def _adc(keys: Section, inputs: InputEncoding) -> AdcConfig | None:
    given = keys.get("adc")
    if given is None or given == "none":
        for key in ("adc_rule", "adc_min", "adc_max", "adc_levels", "adc_ranges"):
            if keys.get(key) is not None:
                raise refuse(key, "a range without an adc", "give adc: {bits: ...} as well")
        return None
    if not isinstance(given, Mapping):
        raise refuse("adc", f"{given!r} is no mapping", "give bits, signed, lsb_units, code_min, code_max; or null")
    adc = _canonical(cast("Section", given), ADC_KEYS, "adc.")
    merged = {name: adc.get(name, adc.get(name.removeprefix("adc_"), keys.get(name))) for name in
              ("adc_rule", "adc_min", "adc_max", "adc_levels", "adc_ranges")}  # fmt: skip
    bits = _integer(adc, "bits", 8, "adc.")
    if not 1 <= bits <= 24:
        raise refuse("adc.bits", f"{bits} is outside 1..24", "give 1 to 24 bits, or no adc for an exact sum")
    signed = adc.get("signed", False)
    if not isinstance(signed, bool):
        raise refuse("adc.signed", f"{signed!r} is neither true nor false", "give true or false")
    ranges = _ranges(merged)
    rule = _rule(merged["adc_rule"], adc, bool(ranges))
    full = (1 << bits) - 1
    high = full // 2 if signed else full
    return AdcConfig(
        bits=bits,
        signed=signed,
        rule=rule,
        lsb_units=_number(adc, "lsb_units", 1.0, "adc."),
        code_min=_integer(adc, "code_min", -high if signed else 0, "adc."),
        code_max=_integer(adc, "code_max", high, "adc."),
        ranges=ranges if rule == "CALIBRATED" else (),
        levels=_integer(merged, "adc_levels", full if signed else full + 1),
        gain=_number(adc, "gain", 1.0, "adc."),
        offset_lsb=_number(adc, "offset_lsb", 0.0, "adc."),
        inl_lsb=_number(adc, "inl_lsb", 0.0, "adc."),
        noise_lsb=_number(adc, "noise_lsb", 0.0, "adc."),
    )


def _rule(given: object, adc: Section, has_range: bool) -> AdcRule:
    lsb = "lsb_units" in adc or "code_min" in adc or "code_max" in adc
    if has_range and lsb:
        raise refuse("adc.lsb_units", "contradicts adc_min and adc_max", "give the step or the range, not both")
    if given is None:
        return "CALIBRATED" if has_range else "LSB"
    rule = str(given).upper()
    if rule not in ("LSB", "MAX", "GRANULAR", "CALIBRATED"):
        raise refuse("adc_rule", f"{given!r} is unknown", "give MAX, GRANULAR or CALIBRATED")
    if lsb and rule != "LSB":
        raise refuse("adc_rule", f"{rule} contradicts adc.lsb_units", "give the step or the rule, not both")
    # A rule given together with its resulting range: the range is the definite one.
    return "CALIBRATED" if has_range else rule


def _ranges(merged: Section) -> tuple[tuple[float, float], ...]:
    low, high, several = merged["adc_min"], merged["adc_max"], merged["adc_ranges"]
    if several is not None:
        try:
            pairs = np.asarray(several, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            raise refuse("adc_ranges", "no list of [min, max] pairs", "give one pair per slice") from None
        return tuple((float(a), float(b)) for a, b in pairs)
    if low is None and high is None:
        return ()
    if high is None:
        raise refuse("adc_max", "adc_min without adc_max", "give both")
    return ((_as_float("adc_min", 0.0 if low is None else low), _as_float("adc_max", high)),)


def _device(keys: Section, mode: str) -> DeviceConfig:
    named = keys.get("technology", keys.get("device"))
    tech = technology(str(named)) if named is not None else None

    def model(key: str) -> NoiseModel | None:
        return _model(key, keys[key]) if key in keys else None if tech is None else tech.default_model(key)

    programming, drift, read = model("programming_error"), model("drift"), model("read_noise")
    gmin_norm, gmax_us = _cell_range(keys, tech, programming)
    celsius = _optional(keys, "temperature_c")
    retention = model("retention") if "retention" in keys or celsius is not None else None
    _check_heat(celsius, retention, read, tech)
    return DeviceConfig(
        programming=programming,
        drift=drift,
        read=read,
        read_mode=cast("Literal['cell', 'conversion']", _word(keys, "read_mode", mode, ("cell", "conversion"))),
        seconds=_number(keys, "seconds", 0.0),
        gmin_norm=gmin_norm or 0.0,
        gmax_us=gmax_us,
        write_verify=_integer(keys, "write_verify", 1),
        stuck_off_rate=_number(keys, "stuck_off_rate", 0.0),
        stuck_on_rate=_number(keys, "stuck_on_rate", 0.0),
        row_ohm=_number(keys, "Rp_row_ohm", 0.0),
        col_ohm=_number(keys, "Rp_col_ohm", 0.0),
        retention=retention,
        temperature_c=celsius,
        devices=_integer(keys, "devices", 1),
    )


def _cell_range(
    keys: Section, tech: Technology | None, programming: NoiseModel | None
) -> tuple[float | None, float | None]:
    """Gmin / Gmax, and Gmax in µS: as the keys say, else as the technology or a published device's model does, which brings
    its own conductances; a generic model has none."""
    gmin_norm, gmax_us = _conductance_range(keys)
    if tech is not None:
        gmax_us = gmax_us or tech.gmax_us
        return tech.gmin_us / tech.gmax_us if gmin_norm is None else gmin_norm, gmax_us
    if programming is None or gmax_us is not None:
        return gmin_norm, gmax_us
    cell = find_model("programming_error", programming.name)
    if cell.gmax_us == 1.0:
        return gmin_norm, None
    return cell.gmin_us / cell.gmax_us if gmin_norm is None else gmin_norm, cell.gmax_us


def _check_heat(
    celsius: float | None, retention: NoiseModel | None, read: NoiseModel | None, tech: Technology | None
) -> None:
    """Refuse a temperature of which no part of the cell knows what it does, and a part that needs one without it."""
    if celsius is not None:
        known = retention is not None or (read is not None and bool(find_model("read_noise", read.name).thermal))
        check_temperature("temperature_c", celsius, known, "the cell" if tech is None else tech.name)
    elif retention is not None:
        raise refuse("retention", "it depends on a temperature", "give temperature_c as well")


def _conductance_range(keys: Section) -> tuple[float | None, float | None]:
    """Gmin / Gmax, and Gmax in µS, as far as the keys say them, as conductances, resistances or their ratio."""
    gmax = _optional(keys, "gmax_us")
    gmin = _optional(keys, "gmin_us")
    if "Rmin" in keys:
        gmax = 1e6 / _positive(keys, "Rmin")
    if "Rmax" in keys:
        gmin = 1e6 / _positive(keys, "Rmax")
    norm = _optional(keys, "Gmin_norm")
    if "on_off_ratio" in keys:
        ratio = _positive(keys, "on_off_ratio")
        norm = 0.0 if math.isinf(ratio) else 1.0 / ratio
    if norm is None and gmin is not None and gmax is not None:
        norm = gmin / gmax
    return norm, gmax


def _model(key: str, given: object) -> NoiseModel | None:
    """``"NormalIndependent"`` or ``{"model": "NormalIndependent", "sigma": 0.01}``; None and "none" switch it off."""
    if given is None or given == "none":
        return None
    if isinstance(given, str):
        return check_model(key, NoiseModel(given))
    if not isinstance(given, Mapping):
        raise refuse(key, f"{given!r} is no model", "give a name or {model: NAME, sigma: ...}")
    section = dict(cast("Section", given))
    name = section.pop("model", section.pop("name", None))
    if not isinstance(name, str):
        raise refuse(f"{key}.model", "the model has no name", "give model: NAME")
    numbers = tuple((k, _as_float(f"{key}.{k}", v)) for k, v in section.items())
    return check_model(key, NoiseModel(name, numbers))


def _row_blocks(given: object) -> tuple[tuple[int, int], ...] | None:
    if given is None:
        return None
    try:
        pairs = np.asarray(given)
        blocks = pairs.astype(np.int64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise refuse("row_blocks", "no list of [first, past the last] pairs", "give pairs of row numbers") from None
    if not np.array_equal(blocks.ravel(), pairs.ravel()):
        raise refuse("row_blocks", "not whole numbers", "give pairs of row numbers")
    return tuple((int(a), int(b)) for a, b in blocks)


def _stuck(given: object) -> NDArray[np.int8] | None:
    if given is None:
        return None
    stuck = np.asarray(given)
    if stuck.ndim not in (3, 4) or stuck.dtype.kind not in "iu":
        raise refuse("stuck", f"a map of shape {stuck.shape} and type {stuck.dtype}", "give integers (slices, out, in)")
    if stuck.size and (stuck.min() < 0 or stuck.max() > 2):
        raise refuse(
            "stuck", "a value outside 0, 1, 2", "0 is healthy, 1 stuck at level 0, 2 stuck at the highest level"
        )
    return stuck.astype(np.int8)


def _word(keys: Section, key: str, default: str, known: tuple[str, ...]) -> str:
    value = keys.get(key, default)
    if value not in known:
        hint = errors.did_you_mean(str(value), known)
        raise refuse(key, f"{value!r} is unknown", f"{hint}give one of {', '.join(known)}")
    return str(value)


def _integer(keys: Section, key: str, default: int, prefix: str = "") -> int:
    value = keys.get(key)
    return default if value is None else _as_int(prefix + key, value)


def _number(keys: Section, key: str, default: float, prefix: str = "") -> float:
    value = keys.get(key)
    return default if value is None else _as_float(prefix + key, value)


def _optional(keys: Section, key: str) -> float | None:
    value = keys.get(key)
    return None if value is None else _as_float(key, value)


def _positive(keys: Section, key: str) -> float:
    value = _as_float(key, keys[key], finite=False)
    if not value > 0:
        raise refuse(key, f"{value} is not positive", "give a positive number")
    return value


def _as_int(key: str, value: object) -> int:
    number: object = cast("Any", value).item() if isinstance(value, np.generic) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise refuse(key, f"{value!r} is no whole number", "give a whole number")
    return number


def _as_float(key: str, value: object, finite: bool = True) -> float:
    plain: object = cast("Any", value).item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise refuse(key, f"{value!r} is no number", "give a number")
    number = float(plain)
    if finite and not math.isfinite(number):
        raise refuse(key, f"{number} is not finite", "give a finite number")
    return number
