"""Actions and cycles against slow definitions (every step of every row walked) and against the toy machine by hand."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.arch import units
from cimc.arch.actions import ACTIONS, PARTS
from cimc.arch.load import load
from cimc.arch.spec import ChipSpec, CoreSpec
from cimc.arch.units import TileUnits
from cimc.errors import CimcError

TOY = load("toy").spec


def toy_with(**core: object) -> ChipSpec:
    """The toy machine with fields of its core changed; None takes a field away."""
    data = TOY.model_dump()
    changed = {**data["tiles"]["all"]["core"], **core}
    data["tiles"]["all"]["core"] = {k: v for k, v in changed.items() if v is not None}
    data["costs"]["energy_pj"]["digital.mac_bit"] = 0.5
    return ChipSpec.model_validate(data)


def walk(core: CoreSpec, blocks: list[tuple[int, int]], rows: int, input_bits: int) -> dict[str, int]:
    """The definition: go through rows, blocks, phases, input steps, row groups, crossbars and columns one at a time."""
    bill = {"crossbar.step": 0, "dac.drive": 0, "adc.convert": 0, "shift_add.op": 0}
    magnitude = max(1, input_bits - 1) if core.input_sign == "ternary" else input_bits
    for _ in range(rows):
        for k, n in blocks:
            for _, first_bit in itertools.product(range(core.phases), range(0, magnitude, core.dac_bits)):
                pulses = min(core.dac_bits, magnitude - first_bit) if core.drive == "planes" else 1
                for first in range(0, k, core.crossbar.active_rows):
                    driven = min(core.crossbar.active_rows, k - first)
                    for crossbar, _ in itertools.product(range(core.crossbars), range(pulses)):
                        bill["crossbar.step"] += 1
                        bill["dac.drive"] += driven if crossbar == 0 or not core.shared_dac else 0
                    for _ in range(core.slices):
                        bill["adc.convert"] += n
                        bill["shift_add.op"] += n
            if core.encoding == "offset":
                bill["shift_add.op"] += k
    return bill


cores = st.builds(
    dict,
    encoding=st.sampled_from(["offset", "differential", "twos_complement"]),
    weight_bits=st.integers(2, 9),
    dac_bits=st.integers(1, 4),
    drive=st.sampled_from(["levels", "width", "planes"]),
    input_sign=st.sampled_from(["twos_complement", "ternary"]),
    phases=st.integers(1, 4),
    shared_dac=st.booleans(),
    crossbar=st.builds(
        dict, rows=st.just(8), cols=st.just(8), cell_bits=st.integers(1, 4), active_rows=st.integers(1, 8)
    ),
)
blocks = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(core=cores, blocks=blocks, rows=st.integers(0, 4), input_bits=st.sampled_from([4, 8, 16]))
def test_mvm_actions_are_the_walk(core, blocks, rows, input_bits):
    chip = toy_with(**core)
    tile = TileUnits(chip, 0)
    assert tile.mvm_actions(blocks, rows, input_bits) == walk(tile.core, blocks, rows, input_bits)


@settings(deadline=None, max_examples=60)
@given(batch=st.integers(0, 3), m=st.integers(1, 9), n=st.integers(1, 13), k=st.integers(1, 13))
def test_matmul_cycles_are_the_walk(batch, m, n, k):
    tile = TileUnits(TOY, 1)  # a 4 x 4 array, 4 bytes loaded a cycle, 2 cycles to start
    cycles, loaded = 2, 0
    for _ in range(batch):
        for i in range(0, k, 4):
            for j in range(0, n, 4):
                size = min(4, k - i) * min(4, n - j)
                cycles += (size + 3) // 4 + m
                loaded += size
    assert tile.matmul_cycles(batch, m, n, k) == cycles
    assert tile.matmul_actions(batch, m, n, k) == {"matmul.mac": batch * m * n * k, "matmul.load_byte": loaded}


def test_toy_mvm_by_hand():
    """2 ns a step (drive 2, convert 2 columns x 1, shift 1) x 8 input bits = 16 cycles a row; 4 to fill."""
    tile = TileUnits(TOY, 0)
    assert tile.mvm_interval(8) == 16
    assert [tile.mvm_cycles(rows, 8) for rows in (0, 1, 2, 10)] == [0, 20, 36, 164]
    # One full block and one of 4 x 8: 4 slices x 8 steps x 1 group = 32 steps each.
    assert tile.mvm_actions([(8, 8), (4, 8)], 1, 8) == {
        "crossbar.step": 64,
        "dac.drive": 4 * 8 * 12,
        "adc.convert": 4 * 8 * 16,
        "shift_add.op": 4 * 8 * 16 + 12,
    }


@pytest.mark.parametrize(
    ("changes", "interval"),
    [
        ({"step_ns": 5.0}, 40),  # drive is the slowest
        ({"adc": {"bits": 5, "conversion_ns": 1.0, "cols_per_adc": 8}}, 64),  # conversion is
        ({"adc": {"bits": 5, "conversion_ns": 1.0, "cols_per_adc": 100}}, 64),  # no more columns than there are
        ({"shift_add_ns": 3.0}, 24),  # shift-and-add is
        ({"dac_bits": 3}, 6),  # 3 steps of 3 bits cover 8
        ({"crossbar": {"rows": 8, "cols": 8, "cell_bits": 2, "active_rows": 3}}, 48),  # 3 row groups
        ({"adc": None, "encoding": "twos_complement", "step_ns": 0.5}, 8),  # digital: shift-and-add, no conversion
        ({"step_ns": 2.01}, 17),  # 16.08 ns round up to whole cycles
        ({"dac_bits": 8, "step_ns": 3.0, "pulse_ns": 0.5}, 131),  # a pulse of up to 255 x 0.5 ns: 130.5
        ({"dac_bits": 3, "pulse_ns": 1.0}, 2 + 7 + 2 + 7 + 2 + 3),  # steps of 3, 3 and 2 bits
        ({"dac_bits": 3, "pulse_ns": 1.0, "input_sign": "ternary"}, 2 + 7 + 2 + 7 + 2 + 1),  # 7 bits: 3, 3 and 1
        ({"phases": 4}, 64),  # the whole MVM four times
        ({"adc": {"bits": 5, "conversion_ns": 1.0, "cols_per_adc": 2, "overlapped": False}}, 32),  # 2 + 2 ns a step
        ({"pipelined_rows": False}, 20),  # the 4 ns of fill are part of every row
    ],
)
def test_interval_is_the_slowest_stage(changes, interval):
    assert TileUnits(toy_with(**changes), 0).mvm_interval(8) == interval


def test_rows_that_are_not_pipelined():
    """Each row takes fill and interval; so does the first."""
    tile = TileUnits(toy_with(pipelined_rows=False), 0)
    assert [tile.mvm_cycles(rows, 8) for rows in (0, 1, 2, 10)] == [0, 20, 40, 200]


def test_digital_core_bills_bit_products():
    chip = toy_with(adc=None, encoding="twos_complement")
    products = {"digital.mac_bit": 2 * 8 * 8 * (64 + 15)}
    assert TileUnits(chip, 0).mvm_actions([(8, 8), (3, 5)], 2, 8) == products
    data = chip.model_dump()
    data["costs"]["energy_pj"]["digital.input_bit"] = 0.25  # billed where it has an energy
    both = TileUnits(ChipSpec.model_validate(data), 0).mvm_actions([(8, 8), (3, 5)], 2, 8)
    assert both == {**products, "digital.input_bit": 2 * 8 * (64 + 15)}


def test_matmul_in_memory():
    """A row streams in 8 cycles, and a row of cells is written in 5: 4 rows of a block, 20 cycles, more than loading."""
    data = TOY.model_dump()
    data["tiles"]["all"]["matmul"] |= {"row_cycles": 8, "write_row_cycles": 5}
    tile = TileUnits(ChipSpec.model_validate(data), 0)
    assert tile.matmul_cycles(2, 3, 4, 8) == 2 + 2 * 2 * (20 + 3 * 8)


def test_program_by_hand():
    """Rows of 10 ns written twice, the two blocks at once; every cell of 4 crossbars twice."""
    tile = TileUnits(TOY, 0)
    assert tile.program_cycles([(8, 8), (5, 8)]) == 8 * 2 * 10
    assert tile.program_actions([(8, 8), (5, 8)]) == {"cell.write": (64 + 40) * 4 * 2}


def test_lanes_by_hand():
    tile = TileUnits(TOY, 0)
    assert tile.lane_cycles("vector", {"vector.alu": 9, "vector.mul": 4, "memory.read": 99}) == 1 + 3 + 1
    assert tile.lane_cycles("special", {"vector.alu": 9, "special.func": 3}) == 2 + 5 + 2


def test_memory_and_host_by_hand():
    assert [units.memory_cycles(TOY, n) for n in (0, 1, 8, 9)] == [0, 1, 1, 2]
    assert units.host_cycles(TOY, 50) == 150


def test_area_and_leakage_by_hand():
    """A toy tile: 8 crossbars of 8 wordlines, 16 ADCs (4 slices x 8 columns / 2, two cores = 32), 16 KiB, one
    adder in the router."""
    tile = 8 * 10 + 64 * 1 + 32 * (100 + 10) + 16 * 10 + 4 * 100 + 2 * 200 + 16 * 100 + 1000 + 10 + 500
    assert units.area_um2(TOY) == 2 * tile + 10000
    assert sum(units.area_by_part(TOY, "all").values()) == 2 * tile
    assert units.leakage_mw(TOY) == 2 * 1.0 + 2.0


def test_peaks_by_hand():
    assert units.peak_tops(TOY, 8) == pytest.approx(4 * 2 * 64 / 16 / 1000)
    power = units.peak_power_mw(TOY, 8)
    # 4 cores: 32 crossbar steps of 1 pJ, 256 drives of 0.5, 256 conversions of 1 and (256 + 8) shifts of 0.25 in 16 ns.
    assert power["crossbar"] == pytest.approx(4 * 32 / 16)
    assert power["dac"] == pytest.approx(4 * 256 * 0.5 / 16)
    assert power["adc"] == pytest.approx(4 * 256 / 16)
    assert power["shift_add"] == pytest.approx(4 * 264 * 0.25 / 16)
    assert (power["matmul"], power["vector"], power["special"]) == (2 * 16 * 0.5, 2 * 4 * 2.0, 2 * 2 * 8.0)


def test_a_unit_the_tile_lacks():
    isaac = load("isaac").spec
    digital = TileUnits(isaac, next(i for i in range(isaac.tile_count) if isaac.kind(i) == "digital"))
    cim = TileUnits(isaac, 0)
    for call in (
        lambda: digital.mvm_cycles(1, 8),
        lambda: cim.matmul_cycles(1, 1, 1, 1),
        lambda: cim.lane_cycles("special", {}),
    ):
        with pytest.raises(ValueError, match="have no"):
            call()


def test_several_chips_are_counted_together():
    one = load("isaac").spec
    three = load("isaac", ("chips=3",)).spec
    assert (three.columns, three.tile_count) == (3 * one.columns, 3 * one.tile_count)
    assert units.part_counts(three) == {part: 3 * n for part, n in units.part_counts(one).items()}
    assert units.part_counts(three, "cim") == {part: 3 * n for part, n in units.part_counts(one, "cim").items()}
    assert units.area_um2(three) == pytest.approx(3 * units.area_um2(one))
    assert units.leakage_mw(three) == pytest.approx(3 * units.leakage_mw(one))
    assert units.peak_tops(three, 8) == pytest.approx(3 * units.peak_tops(one, 8))
    assert sum(units.peak_power_mw(three, 8).values()) == pytest.approx(3 * sum(units.peak_power_mw(one, 8).values()))
    for tile in range(three.tile_count):
        x, y = three.position(tile)
        assert three.chip_of(tile) == x // 16
        assert three.kind(tile) == one.kind(16 * y + x % 16)


def test_vocabulary():
    assert all(units.energy_pj(TOY, a) > 0 for a, row in ACTIONS.items() if row.unit not in ("digital core", "link"))
    with pytest.raises(KeyError):
        units.energy_pj(TOY, "adc.divide")
    assert set(units.part_counts(TOY)) < set(PARTS)


def test_costs_follow_resolution_and_size():
    isaac = load("isaac").spec
    assert units.energy_pj(isaac, "adc.convert") == 1.5625
    assert units.energy_pj(load("isaac", ["adc.bits=6"]).spec, "adc.convert") == 1.125
    # bits 0: lossless. 128 rows x 3 levels = 384 = 9 bits
    assert units.energy_pj(load("isaac", ["adc.bits=0"]).spec, "adc.convert") == 1.846875
    tall = load("isaac", ["crossbar.rows=256"]).spec
    assert units.energy_pj(tall, "crossbar.step") == 2 * units.energy_pj(isaac, "crossbar.step")
    assert units.area_by_part(tall)["crossbar"] == 2 * units.area_by_part(isaac)["crossbar"]
    half_driven = load("isaac", ["crossbar.active_rows=64"]).spec
    assert units.energy_pj(half_driven, "crossbar.step") == units.energy_pj(isaac, "crossbar.step") / 2
    assert units.area_by_part(half_driven) == units.area_by_part(isaac)


@pytest.mark.parametrize(
    ("rows", "cell_bits", "dac_bits", "bits"), [(8, 2, 1, 5), (128, 2, 1, 9), (1, 1, 1, 1), (4, 1, 2, 4)]
)
def test_lossless_adc_bits_hold_the_largest_sum(rows, cell_bits, dac_bits, bits):
    chip = toy_with(crossbar={"rows": rows, "cols": 8, "cell_bits": cell_bits}, dac_bits=dac_bits)
    assert chip.tile(0).core.adc_bits == bits
    assert 2 ** (bits - 1) <= rows * (2**cell_bits - 1) * (2**dac_bits - 1) < 2**bits


def test_a_digital_core_has_no_drivers_to_describe():
    for change in (
        {"phases": 2},
        {"drive": "planes"},
        {"input_sign": "ternary"},
        {"shared_dac": True},
        {"pulse_ns": 1.0},
    ):
        with pytest.raises(ValueError, match="a digital core streams bits"):
            toy_with(adc=None, encoding="twos_complement", **change)


# --- several devices in a cell --------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["pcm", "reram", "isaac"])
def test_devices_side_by_side_take_cells_and_writes_but_no_conversions(preset: str) -> None:
    """Three in a cell: three times what cells take (with their registers, an upper bound), the converters as before."""
    one, three = load(preset).spec, load(preset, ("crossbar.devices=3",)).spec
    tile = next(i for i in range(one.tile_count) if one.tile(i).core)
    a, b = TileUnits(one, tile), TileUnits(three, tile)
    block = [(100, 60)]
    assert b.mvm_actions(block, 5, 8) == a.mvm_actions(block, 5, 8)
    assert b.mvm_cycles(5, 8) == a.mvm_cycles(5, 8)
    assert units.energy_pj(three, "crossbar.step") == pytest.approx(3 * units.energy_pj(one, "crossbar.step"))
    assert units.energy_pj(three, "adc.convert") == units.energy_pj(one, "adc.convert")
    areas = units.area_by_part(one), units.area_by_part(three)
    assert areas[1]["crossbar"] == pytest.approx(3 * areas[0]["crossbar"])
    assert {k: v for k, v in areas[1].items() if k != "crossbar"} == {
        k: v for k, v in areas[0].items() if k != "crossbar"
    }
    assert b.program_actions(block)["cell.write"] == 3 * a.program_actions(block)["cell.write"]
    core = a.core
    assert b.program_cycles(block) == one.cycles(3 * 100 * core.verify_iterations * core.write_row_ns)
    assert b.core.devices == 3 * a.core.devices == 3 * core.crossbars


@pytest.mark.parametrize(
    ("hardware", "setting", "words"),
    [
        ("pcm", "crossbar.devices=0", "at least 1"),
        ("pcm", "crossbar.devices=17", "at most 16"),
        ("sram-dcim", "crossbar.devices=2", "a digital core is exact"),
    ],
)
def test_impossible_devices_are_refused(hardware: str, setting: str, words: str) -> None:
    with pytest.raises(CimcError, match=words):
        load(hardware, (setting,))
