"""``extends``: what a file leaves out comes from the preset, with its source; what it says wins."""

import pytest

from cimc.arch.load import load, parse
from cimc.errors import CimcError

SMALL = """
extends: sram
name: mine
tiles:
  cim:
    cores: 2
    core:
      crossbar: {rows: 64, active_rows: 64}
costs:
  energy_pj:
    crossbar.step@64x128: {value: 5.0, source: "my own"}
    adc.convert: {value: 2.0, source: "my own"}
"""


def test_a_file_says_only_what_differs():
    base, mine = load("sram"), parse(SMALL, "mine.yaml")
    assert mine.spec.name == "mine"
    assert mine.spec.tiles["cim"].cores == 2
    core = mine.spec.tiles["cim"].core
    assert core is not None
    assert (core.crossbar.rows, core.crossbar.cols, core.crossbar.active_rows) == (64, 128, 64)
    assert mine.spec.noc == base.spec.noc
    assert mine.spec.layout == base.spec.layout


def test_a_cost_replaces_all_of_the_same_action():
    energies = parse(SMALL, "mine.yaml").spec.costs.energy_pj
    assert [k for k in energies if k.startswith(("crossbar.step", "adc.convert"))] == [
        "crossbar.step@64x128",
        "adc.convert",
    ]
    assert energies["dac.drive"] == load("sram").spec.costs.energy_pj["dac.drive"]


def test_sources_go_with_their_numbers():
    sources = parse(SMALL, "mine.yaml").sources
    assert sources["costs.energy_pj.adc.convert"] == "my own"
    assert "tiles.cim.cores" not in sources  # a bare number has no source, and not the preset's
    assert sources["noc.flit_bytes"] == load("sram").sources["noc.flit_bytes"]


def test_a_part_can_be_taken_away():
    core = load("sram-dcim").spec.tiles["cim"].core
    assert core is not None
    assert core.digital


def test_faults_stand_where_they_are():
    with pytest.raises(CimcError) as caught:
        parse(SMALL.replace("cores: 2", "cores: two"), "mine.yaml")
    assert caught.value.source is not None
    assert (caught.value.source.path, caught.value.source.line) == ("mine.yaml", 6)
    with pytest.raises(CimcError, match="64") as caught:  # 128 active rows of the preset, 64 rows of the file
        parse(SMALL.replace(", active_rows: 64", ""), "mine.yaml")
    assert caught.value.source is not None
    assert caught.value.source.path == "sram.yaml"


@pytest.mark.parametrize("name", ["sramm", "3", "[a]", "mine.yaml"])
def test_only_presets_can_be_extended(name):
    with pytest.raises(CimcError, match="extends") as caught:
        parse(SMALL.replace("extends: sram", f"extends: {name}"), "mine.yaml")
    assert "no preset" in caught.value.message
    assert caught.value.source is not None
    assert caught.value.source.line == 2
