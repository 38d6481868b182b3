"""The presets: complete, sourced, and ISAAC against what its paper publishes."""

import pytest

from cimc.arch import units
from cimc.arch.load import DEFAULT, load, presets
from cimc.report.hardware import keys


def test_presets_are_found():
    assert {"isaac", "puma", "sram-digital", "toy"} <= set(presets())
    assert DEFAULT in presets()


@pytest.mark.parametrize("name", presets())
def test_every_number_has_a_source(name):
    """Every number in the file; what the file leaves out (active_rows ...) is derived from numbers that have one, or is
    the neutral value (an absent core counts 0, an MVM has one phase, there are no spare columns, one device to a cell, one
    chip)."""
    hardware = load(name)
    derived = (
        *("active_rows", "cols_per_adc", "cores", "phases", "pulse_ns", "row_cycles", "write_row_cycles"),
        *("spare_cols", "devices", "msb_copies", "msb_slices", "chips"),
    )
    bare = [
        key
        for key, value in keys(hardware).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in hardware.sources
    ]
    assert [key for key in bare if not key.endswith(derived)] == []
    assert all(len(source) >= len("estimated") for source in hardware.sources.values())


@pytest.mark.parametrize("name", presets())
def test_layout_and_capacity(name):
    chip = load(name).spec
    kinds = {chip.kind(i) for i in range(chip.tile_count)}
    assert kinds == set(chip.tiles)
    assert any(chip.tile(i).matmul for i in range(chip.tile_count))
    assert any(chip.tile(i).special for i in range(chip.tile_count))
    assert any(chip.tile(i).memory_port for i in range(chip.tile_count))


@pytest.mark.parametrize("name", ["isaac", "sram-digital"])
def test_minilm_fits(name):
    """all-MiniLM-L6-v2: 6 layers x (4 of 384 x 384, 2 of 384 x 1536) = 648 blocks of 128 x 128."""
    chip = load(name).spec
    cores = sum(chip.tile(i).cores for i in range(chip.tile_count))
    assert 6 * (4 * 3 * 3 + 2 * 3 * 12) == 648
    assert cores >= 2 * 648
    assert sum(chip.kind(i) == "digital" for i in range(chip.tile_count)) >= 16


@pytest.fixture
def chip():
    """ISAAC at the paper's precision: 16-bit weights, so that an IMA's 8 crossbars are one core."""
    return load("isaac", ["cim.cores=12", "weight_bits=16"]).spec


class TestIsaacAsPublished:
    """ISAAC-CE: 65.8 W, 85.4 mm2, 41.29 TOPS for 16-bit weights and inputs.

    Built from: the component rows of Table 6 (power, area, count), as energies per action and areas per part in the
    preset. Validated: that actions counted for an MVM, at the interval computed for it, add up again to the table's
    IMA, tile and chip totals, and the published peak. Taken as they stand in the table, because their use depends on
    the program: the power of the rest of a tile (eDRAM, bus, router ...: 40.85 mW) and of HyperTransport (10.4 W)."""

    TILE_REST_MW = 20.7 + 7 + 10.5 + 0.52 + 0.05 + 0.4 + 1.68
    HYPERTRANSPORT_MW = 10_400
    TILES = 168

    def test_peak(self, chip):
        assert units.peak_tops(chip, 16) == pytest.approx(41.29, abs=0.005)
        assert units.TileUnits(chip, 0).mvm_interval(16) == 1600 * 1.2

    def test_power(self, chip):
        power = units.peak_power_mw(chip, 16, "cim")
        power.pop("vector")  # the lanes are an addition of the preset
        ima = sum(power.values()) / self.TILES / 12
        assert ima == pytest.approx(24.08, abs=0.01)
        assert power["adc"] / self.TILES / 12 == pytest.approx(16)
        tile = 12 * ima + self.TILE_REST_MW
        assert tile == pytest.approx(330, abs=0.5)
        assert (self.TILES * tile + self.HYPERTRANSPORT_MW) / 1000 == pytest.approx(65.8, abs=0.05)

    def test_area(self, chip):
        area = units.area_by_part(chip, "cim")
        area.pop("vector")
        tile = sum(area.values()) / self.TILES / 1e6
        assert tile == pytest.approx(0.372, abs=0.0005)
        whole = self.TILES * tile + units.area_by_part(chip)["chip"] / 1e6
        assert whole == pytest.approx(85.4, abs=0.05)

    def test_efficiency(self, chip):
        """627.5 GOPS/W follows from the published figures; ours within their rounding (0.1 %)."""
        power = units.peak_power_mw(chip, 16, "cim")
        power.pop("vector")
        watts = (sum(power.values()) + self.TILES * self.TILE_REST_MW + self.HYPERTRANSPORT_MW) / 1000
        assert units.peak_tops(chip, 16) * 1000 / watts == pytest.approx(627.5, rel=0.001)

    def test_hypertransport_at_full_rate(self, chip):
        assert chip.host.bytes_per_ns * units.energy_pj(chip, "host.byte") == pytest.approx(self.HYPERTRANSPORT_MW)

    def test_pipeline_depth(self, chip):
        """22 stages of 100 ns for a 16-bit dot product."""
        assert units.TileUnits(chip, 0).mvm_cycles(1, 16) == 22 * 120
