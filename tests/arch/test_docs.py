"""docs/hardware.md: its example is a hardware file, and its tables name every action and part."""

import pathlib
import re

import pytest

from cimc.arch.actions import ACTIONS, PARTS
from cimc.arch.document import MAX_BYTES
from cimc.arch.load import parse, presets
from cimc.arch.units import TileUnits

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "hardware.md").read_text(encoding="utf-8")


def test_the_example_reads():
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    hardware = parse(example, "docs/hardware.md")
    assert hardware.spec.tile_count == 8
    assert hardware.sources["tiles.cim.core.adc.conversion_ns"] == "1.28 GS/s, data sheet of the ADC"
    assert hardware.sources["noc.flit_bytes"] == "estimated"
    # "In the example: max(10, 12.5, 1) · 8 steps · 2 row groups = 200 ns"
    assert TileUnits(hardware.spec, 0).mvm_interval(8) == 200
    assert TileUnits(hardware.spec, 0).mvm_cycles(3, 8) == pytest.approx(3 * 200 + 20)


def test_tables_name_everything():
    tables = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`([a-z_.]+)`", tables))
    assert set(ACTIONS) <= named
    assert set(PARTS) <= named
    assert {action.component for action in ACTIONS.values()} <= {
        line.split("|")[-2].strip() for line in tables.splitlines()
    }


def test_presets_and_limits_are_told():
    assert all(f"`{name}`" in TEXT for name in presets())
    assert f"at most {MAX_BYTES // 1024} KiB" in TEXT
