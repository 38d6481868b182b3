"""Device options: what is refused, with which key; where they come from; what they switch."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import AnalogMatrix
from cimc.analog.rng import Streams
from cimc.arch.load import load, parse
from cimc.arch.spec import ChipSpec, CoreSpec
from cimc.device import EFFECTS, Device, duration, durations
from cimc.errors import CimcError, Exit
from cimc.sim.analog import InputKind, config, converter


def isaac() -> ChipSpec:
    return load("isaac").spec


def core() -> CoreSpec:
    found = isaac().tiles["cim"].core
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("settings", "tech", "key"),
    [
        (["drfit=off"], None, "device.drfit"),
        (["drift"], None, "--device"),
        (["drift=maybe"], None, "device.drift"),
        (["stuck_on_rate=x"], None, "device.stuck_on_rate"),
        (["stuck_on_rate=1.5"], None, "device.stuck_on_rate"),
        (["stuck_on_rate=nan"], None, "device.stuck_on_rate"),
        (["stuck_on_rate=0.6", "stuck_off_rate=0.6"], None, "device.stuck_on_rate"),
        (["write_verify=0"], None, "device.write_verify"),
        (["write_verify=1.5"], None, "device.write_verify"),
        (["adc_range=wide"], None, "device.adc_range"),
        (["adc=off", "adc_range=full"], None, "device.adc_range"),
        (["wire_ohm=-1"], None, "device.wire_ohm"),
        (["ir_drop=off", "wire_ohm=1"], None, "device.ir_drop"),
        (["faults=off", "stuck_on_rate=0.1"], None, "device.faults"),
        (["seconds=-1"], None, "device.seconds"),
        (["temperature_c=85"], "pcm", "device.temperature_c"),
        (["temperature_c=85"], "reram_isaac", "device.temperature_c"),
        (["temperature_c=warm"], "reram", "device.temperature_c"),
        (["temperature_c=-300"], "reram", "device.temperature_c"),
        (["temperature_c=nan"], "reram", "device.temperature_c"),
        (["temperature=on"], "reram", "device.temperature"),
        (["temperature=300"], "reram", "device.temperature"),
        (["temperature=off", "temperature_c=85"], "reram", "device.temperature"),
        (["read_noise=off", "temperature_c=85"], "sram_analog", "device.temperature_c"),
        (["adc_coverage=0.9"], None, "device.adc_coverage"),
        (["sigma=0.1"], "pcm", "device.sigma"),
        (["sigma=-0.1"], "mram", "device.sigma"),
        (["drift=on"], "mram", "device.drift"),
        (["programming=on"], "ideal", "device.programming"),
        (["on_off=on"], "pcm", "device.on_off"),
        (["drift_compensation=global"], "mram", "device.drift_compensation"),
        (["drift=off", "drift_compensation=global"], "pcm", "device.drift_compensation"),
        (["seconds=30d"], "sonos", "seconds"),
        ([], "flash-gordon", "technology"),
    ],
)
def test_refused_with_the_keys_name(settings: list[str], tech: str | None, key: str) -> None:
    with pytest.raises(CimcError) as caught:
        Device.of(isaac(), settings, tech)
    assert caught.value.exit is Exit.USAGE
    assert f"'{key}'" in str(caught.value)


def test_a_repair_of_the_files_own_technology_goes_with_it() -> None:
    """PCM's preset compensates drift; cells that have none in their place need nothing."""
    chip = load("pcm").spec
    assert Device.of(chip).drift_compensation == "global"
    assert Device.of(chip, tech="pcm_hermes_2dev").drift_compensation == "global"
    assert Device.of(chip, tech="ideal").drift_compensation == "none"
    with pytest.raises(CimcError, match="no drift to compensate"):
        Device.of(chip, ["drift_compensation=column"], "ideal")


def test_digital_cores_take_no_other_technology() -> None:
    chip = load("sram-dcim").spec
    assert Device.of(chip, tech=chip.technology).technology == chip.technology
    with pytest.raises(CimcError, match=r"'technology'.*digital"):
        Device.of(chip, tech="pcm")


def test_a_time_beyond_the_measured_is_refused_for_every_time() -> None:
    device = Device.of(isaac(), tech="sonos")
    device.at(5 * 86400)
    with pytest.raises(CimcError, match="seconds"):
        device.at(6 * 86400)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("2min", 120), ("1h", 3600), ("1d", 86400), ("1w", 604800), ("1mo", 2592000)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_several_durations_and_bad_ones() -> None:
    assert durations("1h,1.5d,1Y") == (3600, 129600, 31536000)
    for bad in ("-1h", "1 fortnight", "", "h", "1e99y", "nan"):
        with pytest.raises(CimcError, match="--time"):
            durations(bad)


def test_hardware_file_section_and_what_overrides_it() -> None:
    text = load("isaac").text + "device:\n  technology: pcm\n  drift: false\n  stuck_off_rate: 0.01\n"
    chip = parse(text, "own.yaml").spec
    device = Device.of(chip)
    assert (device.technology, device.drift, device.stuck_off_rate) == ("pcm", False, 0.01)
    assert Device.of(chip, ["drift=on", "stuck_off_rate=0"], "pcm_hermes").technology == "pcm_hermes_2dev"
    assert Device.of(chip, ["drift=on"]).drift
    assert parse(parse(text, "own.yaml").text, "again.yaml").spec.device == chip.device
    changed = parse(text, "own.yaml", ("device.drift=true", "stuck_on_rate=0.5")).spec
    assert (Device.of(changed).drift, Device.of(changed).stuck_on_rate) == (True, 0.5)


def test_hardware_file_section_is_checked_with_the_line() -> None:
    text = load("isaac").text + "device:\n  driftt: false\n"
    with pytest.raises(CimcError) as caught:
        parse(text, "own.yaml")
    assert caught.value.source is not None
    assert caught.value.source.line == len(text.splitlines())


def test_active_effects() -> None:
    assert Device.of(isaac()).active(core()) == ("adc",)
    pcm = Device.of(isaac(), ["stuck_on_rate=0.1", "wire_ohm=1"], "pcm", 3600.0)
    assert pcm.active(core()) == ("adc", "programming", "drift", "read_noise", "faults", "ir_drop")
    assert pcm.at(0).active(core()) == ("adc", "programming", "read_noise", "faults", "ir_drop")
    assert pcm.only(()).active(core()) == ()
    assert pcm.only(("drift",)).active(core()) == ("drift",)
    assert set(EFFECTS) >= set(pcm.active(core()))


def test_configuration_of_a_core_follows_the_switches() -> None:
    full = config(core(), Device.of(isaac(), ["stuck_on_rate=0.1", "wire_ohm=2"], "mram"), InputKind())
    assert full.adc is not None
    assert full.device.programming is not None
    assert full.device.gmin_norm == pytest.approx(0.5)  # 3 kΩ over 6 kΩ
    assert (full.device.row_ohm, full.device.stuck_on_rate, full.device.read_mode) == (2.0, 0.1, "conversion")
    none = config(core(), Device.of(isaac(), ["stuck_on_rate=0.1", "wire_ohm=2"], "mram").only(()), InputKind())
    assert none.adc is None
    assert none.device.ideal
    assert none.device.stuck_on_rate == 0.0
    sigma = config(core(), Device.of(isaac(), ["sigma=0.125"], "mram"), InputKind()).device.programming
    assert sigma is not None
    assert sigma.get("sigma", 0.0) == 0.125


def test_full_range_covers_the_largest_sum() -> None:
    """ISAAC: 128 rows of 2-bit cells sum to at most 384; 8 bits have 256 codes."""
    assert converter(core(), 8)["lsb_units"] == 1
    assert converter(core(), 8, full=True)["lsb_units"] == 2
    assert converter(core(), 6)["lsb_units"] == 4
    assert converter(core(), 6, full=True)["lsb_units"] == 8  # 63 codes of 4 reach 252, of 8 reach 504


def test_programming_error_of_a_product_has_its_closed_form() -> None:
    """FeFET: a Gaussian of 2 % of Gmax, 0.06 of three levels, in slices of weight 1, 4, 16, 64. No conductance is
    negative, so the cells at level 0 keep half of their mean square. 384 · 384 cells a slice: within 2 %."""
    rng = Streams(7).generator("inputs")
    weights = rng.integers(-120, 121, (384, 384))
    x = rng.integers(-60, 61, (64, 384)).astype(np.int8)
    physics = config(core(), Device.of(isaac(), ["adc=off", "read_noise=off", "on_off=off"], "fefet"), InputKind())
    got = AnalogMatrix(weights, physics, seed=1).values(x)
    error = (got - x.astype(np.int64) @ weights).std()
    size = np.sqrt(np.square(x.astype(np.float64)).sum(axis=1).mean())
    square = sum(16**s * (1 - 0.5 * float(((((weights + 128) >> 2 * s) & 3) == 0).mean())) for s in range(4))
    assert error / size == pytest.approx(0.06 * np.sqrt(square), rel=0.02)


def test_temperature_is_an_effect_of_its_own() -> None:
    hot = Device.of(isaac(), ["temperature_c=250"], "reram", 86400.0)
    assert hot.active(core()) == ("adc", "programming", "drift", "temperature")
    assert "temperature" not in hot.at(0).active(core())  # what is lost takes time
    assert config(core(), hot.only(("programming", "temperature")), InputKind()).device.temperature_c == 250
    assert config(core(), hot.only(("programming",)), InputKind()).device.retention is None
    capacitor = Device.of(isaac(), ["temperature_c=85"], "sram_analog")
    assert capacitor.active(core()) == ("adc", "programming", "read_noise", "temperature")
    assert (
        Device.of(isaac(), ["temperature_c=250", "drift_compensation=global"], "reram_milo").drift_compensation
        == "global"
    )


def test_weights_in_twos_complement_are_for_digital_cores() -> None:
    """The key is the hardware file's, and what is told to do gives a configuration."""
    signed = core().model_copy(update={"encoding": "twos_complement"})
    with pytest.raises(CimcError, match="encoding") as caught:
        config(signed, Device.of(isaac(), [], None), InputKind())
    assert (caught.value.code, caught.value.exit) == ("analog-config", Exit.USAGE)
    assert "key 'encoding'" in caught.value.message
    for encoding in ("offset", "differential"):
        assert encoding in caught.value.hint
        config(core().model_copy(update={"encoding": encoding}), Device.of(isaac(), [], None), InputKind())
