"""What a use of a unit takes: actions, cycles, energy, area. The only such numbers in the project.

Counts and times follow from the sizes in a :class:`~cimc.arch.spec.ChipSpec`; energies, leakages and areas are the
hardware file's ``costs``, multiplied here and nowhere else. Timing never depends on values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Literal

from cimc.arch.actions import BY_BITS, SCALED, base, component
from cimc.arch.adcs import regression
from cimc.arch.spec import ChipSpec, CoreSpec, LanesSpec, MatmulSpec, TileSpec

__all__ = [
    "TileUnits", "area_by_part", "area_um2", "component", "energy_pj", "host_cycles", "leakage_by_part", "leakage_mw",
    "memory_cycles", "mvm_interval_ns", "part_counts", "peak_power_mw", "peak_tops",
]  # fmt: skip


CALIBRATION_BITS = 8  # of the known inputs that a calibration reads


def mvm_interval_ns(core: CoreSpec, input_bits: int) -> float:
    """Time from one row to the next of an MVM, in ns.

    ``Σ over the input steps of max(drive, conversion, shift_add_ns) · phases · ceil(rows / active_rows)``, where a step
    of b bits is driven for ``step_ns + (2^b - 1) · pulse_ns`` and converted in ``cols_per_adc · conversion_ns`` (nothing
    for a digital core; added to the drive where the ADC is not ``overlapped``). The scheme is ISAAC's pipeline (Shafiee
    et al., ISCA 2016); pulses in proportion to the input are those of HERMES (Khaddam-Aljameh et al., JSSC 2022: width)
    and NeuRRAM (Wan et al., Nature 2022: number). Rows that are not pipelined (``pipelined_rows: false``; PUMA, Ankit
    et al., ASPLOS 2019, whose MVM is one blocking instruction) take ``fill_ns`` each as well."""
    conversion = min(core.adc.cols_per_adc, core.cols) * core.adc.conversion_ns if core.adc else 0.0
    once = sum(_stage(core, bits, conversion) for bits in core.input_steps(input_bits))
    interval = once * core.phases * ceil(core.rows / core.crossbar.active_rows)
    return interval if core.pipelined_rows else interval + core.fill_ns


def _stage(core: CoreSpec, bits: int, conversion: float) -> float:
    drive = core.step_ns + (2**bits - 1) * core.pulse_ns
    if core.adc and not core.adc.overlapped:
        return max(drive + conversion, core.shift_add_ns)
    return max(drive, conversion, core.shift_add_ns)


def _drives(core: CoreSpec, input_bits: int) -> int:
    """Times a wordline is driven for one row: once a step, or once a bit where bits are applied one after another."""
    steps = core.input_steps(input_bits)
    return core.phases * (sum(steps) if core.drive == "planes" else len(steps))


class TileUnits:
    """The units of one tile of a chip. A method of a unit that the tile lacks raises ValueError: programs are verified
    against the hardware before anything is billed."""

    def __init__(self, chip: ChipSpec, tile: int) -> None:
        self.chip = chip
        self.spec: TileSpec = chip.tile(tile)
        self._kind = chip.kind(tile)
        self._intervals: dict[int, int] = {}

    @property
    def core(self) -> CoreSpec:
        """The tile's kind of core. Raises ValueError if it has none."""
        if self.spec.core is None:
            raise ValueError(f"tiles of kind {self._kind} have no cores")
        return self.spec.core

    @property
    def matmul(self) -> MatmulSpec:
        """The tile's dynamic matmul unit. Raises ValueError if it has none."""
        if self.spec.matmul is None:
            raise ValueError(f"tiles of kind {self._kind} have no matmul unit")
        return self.spec.matmul

    def mvm_actions(self, blocks: Sequence[tuple[int, int]], rows: int, input_bits: int) -> dict[str, int]:
        """Actions of ``rows`` rows through weight blocks of (k inputs, n outputs) each.

        With steps = phases · ceil(input_bits / dac_bits), drives = steps (phases · input_bits where the drive is
        ``planes``), groups = ceil(k / active_rows), per block and row:

        - ``crossbar.step``: crossbars · drives · groups (crossbars = slices and copies, twice that for differential pairs)
        - ``dac.drive``: crossbars · drives · k (each driven wordline belongs to one group); once for all crossbars of a
          core with ``shared_dac``
        - ``adc.convert``: slices (and copies of them) · steps · groups · n (the two columns of a differential pair are
          subtracted before one conversion; only columns in use are converted)
        - ``shift_add.op``: one per conversion; with offset encoding k more, for the sum of the inputs that is
          multiplied by the offset and subtracted

        Ternary inputs have one bit less. A digital core bills ``digital.mac_bit``: k · n · weight_bits · input_bits, and
        ``digital.input_bit``: k · n · input_bits, if the hardware file gives it an energy. Row groups that hold no
        weights are stepped through in time (the cores of a matrix run in lockstep) but not driven."""
        core = self.core
        if core.digital:
            bits = rows * input_bits * sum(k * n for k, n in blocks)
            whole = {"digital.input_bit": bits} if "digital.input_bit" in self.chip.costs.energy_pj else {}
            return {"digital.mac_bit": bits * core.weight_bits, **whole}
        steps = core.phases * len(core.input_steps(input_bits)) * rows
        drives = _drives(core, input_bits) * rows
        groups = [ceil(k / core.crossbar.active_rows) for k, _ in blocks]
        inputs = sum(k for k, _ in blocks)
        conversions = core.converted_slices * steps * sum(g * n for g, (_, n) in zip(groups, blocks, strict=True))
        return {
            "crossbar.step": core.crossbars * drives * sum(groups),
            "dac.drive": (1 if core.shared_dac else core.crossbars) * drives * inputs,
            "adc.convert": conversions,
            "shift_add.op": conversions + (rows * inputs if core.encoding == "offset" else 0),
        }

    def calibrate_actions(self, blocks: Sequence[tuple[int, int]], vectors: int) -> dict[str, int]:
        """Actions of a calibration: those of an mvm of ``vectors`` rows of 8-bit inputs, and per vector and column five
        ``shift_add.op`` (estimated) for the sums that the fit needs: of the reading, its square, and its products with
        the sum of the inputs and with what it should be. None on a digital core."""
        if self.core.digital:
            return {}
        found = self.mvm_actions(blocks, vectors, CALIBRATION_BITS)
        found["shift_add.op"] += 5 * vectors * sum(n for _, n in blocks)
        return found

    def calibrate_cycles(self, vectors: int) -> int:
        """As an mvm of ``vectors`` rows of 8-bit inputs; the fit is worked off beside it (estimated)."""
        return 0 if self.core.digital else self.mvm_cycles(vectors, CALIBRATION_BITS)

    def mvm_interval(self, input_bits: int) -> int:
        """Cycles from one row to the next: :func:`mvm_interval_ns` rounded up to the clock."""
        if input_bits not in self._intervals:
            self._intervals[input_bits] = self.chip.cycles(mvm_interval_ns(self.core, input_bits))
        return self._intervals[input_bits]

    def mvm_fill(self, input_bits: int) -> int:
        """Cycles until the first row is done: one interval and ``fill_ns``, which is part of the interval where rows
        are not pipelined."""
        fill = self.chip.cycles(self.core.fill_ns) if self.core.pipelined_rows else 0
        return self.mvm_interval(input_bits) + fill

    def mvm_cycles(self, rows: int, input_bits: int) -> int:
        """``fill + (rows - 1) · interval``; 0 without rows."""
        return self.mvm_fill(input_bits) + (rows - 1) * self.mvm_interval(input_bits) if rows > 0 else 0

    def matmul_actions(self, batch: int, m: int, n: int, k: int) -> dict[str, int]:
        """Actions of ``batch`` products (m × k) · (k × n): one ``matmul.mac`` per multiply-accumulate of the result
        (idle cells of the array are gated), one ``matmul.load_byte`` per byte of the stationary operand (k × n)."""
        loads = sum(count * size for count, size in self._passes(n, k)) if m else 0
        return {"matmul.mac": batch * m * n * k, "matmul.load_byte": batch * loads}

    def matmul_cycles(self, batch: int, m: int, n: int, k: int) -> int:
        """Weight-stationary array of rows × cols MACs:
        ``startup + batch · Σ over ceil(k / rows) · ceil(n / cols) passes of (load + m · row_cycles)``; a pass loads its
        block of the (k × n) operand, then streams the m rows of the other one. Loading takes
        ``ceil(bytes / load_bytes_per_cycle)`` cycles, and at least ``write_row_cycles`` for each row of the array that
        the block fills (cells are written row by row)."""
        unit, bandwidth = self.matmul, self.matmul.load_bytes_per_cycle
        cells = min(k, unit.rows) * unit.write_row_cycles  # of a full block; the last one is charged as much
        passes = self._passes(n, k) if m else ()
        once = sum(count * (max(ceil(size / bandwidth), cells) + m * unit.row_cycles) for count, size in passes)
        return unit.startup_cycles + batch * once

    def _passes(self, n: int, k: int) -> Iterator[tuple[int, int]]:
        """(passes, bytes of their stationary block): whole blocks, and the edges where k or n does not divide."""
        unit = self.matmul
        for deep, height in ((k // unit.rows, unit.rows), (1, k % unit.rows)):
            for wide, width in ((n // unit.cols, unit.cols), (1, n % unit.cols)):
                if deep * wide * height * width:
                    yield deep * wide, ceil(height * width * unit.operand_bits / 8)

    def program_actions(self, blocks: Sequence[tuple[int, int]]) -> dict[str, int]:
        """Write pulses: k · n cells in each of the core's crossbars, each of their devices written and verified
        ``verify_iterations`` times. On a digital core each is a ``digital.write``, if the
        hardware file gives that an energy (its SRAM is not what the chip's other cells are)."""
        core = self.core
        apart = core.digital and "digital.write" in self.chip.costs.energy_pj
        action = "digital.write" if apart else "cell.write"
        return {action: core.devices * core.verify_iterations * sum(k * n for k, n in blocks)}

    def program_cycles(self, blocks: Sequence[tuple[int, int]]) -> int:
        """``max(k) · devices · verify_iterations · write_row_ns``: row after row, in a row one device of every cell after
        the other (estimated), cores and their crossbars in parallel."""
        core = self.core
        deepest = max((k for k, _ in blocks), default=0)
        return self.chip.cycles(deepest * core.crossbar.devices * core.verify_iterations * core.write_row_ns)

    def lane_cycles(self, unit: Literal["vector", "special"] | str, actions: Mapping[str, int]) -> int:
        """``startup + Σ ceil(count / lanes)`` over the actions ``vector.*`` and ``special.*``, whichever of the two
        units works them off: pipelined lanes take one action a cycle (PUMA's ALU and activation unit: puma-simulator
        ``include/constants.py``, 1 cycle; for division and functions of wider elements this is estimated).
        Raises ValueError for a tile without the unit."""
        lanes: LanesSpec | None = {"vector": self.spec.vector, "special": self.spec.special}[unit]
        if lanes is None:
            raise ValueError(f"tiles of kind {self._kind} have no {unit} unit")
        counts = [n for action, n in actions.items() if action.startswith(("vector.", "special."))]
        return lanes.startup_cycles + sum(ceil(n / lanes.lanes) for n in counts)


def memory_cycles(chip: ChipSpec, size: int) -> int:
    """Cycles the shared global memory is busy with ``size`` bytes: ceil(size / bytes_per_cycle). Its latency comes on
    top and is ``chip.memory.latency_cycles``; requests overlap it."""
    return ceil(size / chip.memory.bytes_per_cycle)


def host_cycles(chip: ChipSpec, size: int) -> int:
    """Cycles of one host call that moves ``size`` bytes: launch_ns + size / bytes_per_ns."""
    return chip.cycles(chip.host.launch_ns + size / chip.host.bytes_per_ns)


def _cost(chip: ChipSpec, table: Mapping[str, float], key: str) -> float:
    """A cost, by the bits of the chip's ADCs or scaled to the size of its crossbars where it is given so (they are then
    all the same: :class:`ChipSpec` sees to that); 0 where it is not given."""
    if key in BY_BITS:
        bits = next((t.core.adc_bits for t in chip.tiles.values() if t.core and t.core.adc), 0)
        if bits and chip.costs.adc_model == "regression" and table is not chip.costs.leakage_mw:
            return regression(key, bits)
        return table.get(f"{key}@{bits}", table.get(key, 0.0))
    if key in SCALED and key not in table:
        given = next((name for name in table if base(name) == key), None)
        return table[given] * _scale(chip, key, given.split("@", 1)[1]) * _wider(chip) if given else 0.0
    return table.get(key, 0.0) * (_wider(chip) if key in SCALED else 1.0)


def _wider(chip: ChipSpec) -> float:
    """What spare columns and further devices in a cell make of a crossbar: its columns over those in use (a wordline drives
    and loads all of them) times the devices. Files give a crossbar's registers and sample-and-hold with its cells, so what
    further devices take is an upper bound (estimated)."""
    bars = (t.core.crossbar for t in chip.tiles.values() if t.core)
    return max(((b.cols + b.spare_cols) / b.cols * b.devices for b in bars), default=1.0)


def _scale(chip: ChipSpec, key: str, size: str) -> float:
    """Cells of the chip's crossbars over those of the size a cost was given for: driven cells for a step, else all."""
    crossbar = next((t.core.crossbar for t in chip.tiles.values() if t.core), None)
    if crossbar is None:
        return 0.0
    rows, cols = (int(n) for n in size.split("x"))
    return (crossbar.active_rows if key == "crossbar.step" else crossbar.rows) * crossbar.cols / (rows * cols)


def energy_pj(chip: ChipSpec, action: str) -> float:
    """Energy of one action, in pJ. Raises KeyError for an action that does not exist; one that no unit of the chip can
    do and the hardware file gives no energy for costs nothing."""
    component(action)
    return _cost(chip, chip.costs.energy_pj, action)


def _tile_parts(tile: TileSpec) -> dict[str, float]:
    parts: dict[str, float] = {"tile": 1, "router": 1, "buffer": tile.local_bytes / 1024}
    if tile.core and tile.core.digital:
        parts["digital_crossbar"] = tile.cores * tile.core.crossbars
    elif tile.core:
        adcs = tile.cores * tile.core.adcs
        crossbars = tile.cores * tile.core.crossbars
        drivers = tile.cores * (1 if tile.core.shared_dac else tile.core.crossbars) * tile.core.rows
        parts.update({"crossbar": crossbars, "dac": drivers, "adc": adcs, "shift_add": adcs})
    if tile.core:
        parts["cim_tile"] = 1
    if tile.matmul:
        parts["matmul"] = tile.matmul.rows * tile.matmul.cols
    parts["vector"] = tile.vector.lanes if tile.vector else 0
    parts["special"] = tile.special.lanes if tile.special else 0
    return parts


def part_counts(chip: ChipSpec, kind: str | None = None) -> dict[str, float]:
    """How many of each part of :data:`cimc.arch.actions.PARTS` all chips have, or all their tiles of one kind."""
    counts: dict[str, float] = {} if kind else {"chip": chip.chips}
    for name, tile in chip.tiles.items():
        placed = chip.count(tile) if kind in (None, name) else 0
        for part, n in _tile_parts(tile).items():
            counts[part] = counts.get(part, 0) + n * placed
        if chip.noc.reduce:
            counts["adder"] = counts.get("adder", 0) + chip.noc.reduce.lanes * placed
    return {part: n for part, n in counts.items() if n}


def area_by_part(chip: ChipSpec, kind: str | None = None) -> dict[str, float]:
    """Area in µm² of each part, counts · unit areas; of the chip, or of all its tiles of one kind."""
    return {part: n * _cost(chip, chip.costs.area_um2, part) for part, n in part_counts(chip, kind).items()}


def area_um2(chip: ChipSpec) -> float:
    """Area of all chips in µm²."""
    return sum(area_by_part(chip).values())


def leakage_by_part(chip: ChipSpec, kind: str | None = None) -> dict[str, float]:
    """Leakage in mW of each part, counts · unit leakages; of the chip, or of all its tiles of one kind."""
    return {part: n * _cost(chip, chip.costs.leakage_mw, part) for part, n in part_counts(chip, kind).items()}


def leakage_mw(chip: ChipSpec) -> float:
    """Leakage of all chips in mW; 1 mW for 1 ns is 1 pJ."""
    return sum(leakage_by_part(chip).values())


def peak_tops(chip: ChipSpec, input_bits: int) -> float:
    """Operations per second of all cores at work, in 10¹²: Σ 2 · rows · cols / interval."""
    total = 0.0
    for tile in chip.tiles.values():
        if tile.core:
            placed = chip.count(tile)
            operations = 2 * tile.core.rows * tile.core.cols
            total += placed * tile.cores * operations / mvm_interval_ns(tile.core, input_bits) / 1000
    return total


def peak_power_mw(chip: ChipSpec, input_bits: int, kind: str | None = None) -> dict[str, float]:
    """Power in mW per component when every core takes a row per interval and every MAC and lane the dearest of its
    actions each cycle. Buffers, NoC, memory and host are left out: how much they can be used depends on the program."""
    power: dict[str, float] = {}
    for index in range(chip.tile_count):
        if kind not in (None, chip.kind(index)):
            continue
        for action, rate in _peak_rates(TileUnits(chip, index), input_bits):
            group = component(action)
            power[group] = power.get(group, 0.0) + rate * energy_pj(chip, action)
    return power


def _peak_rates(units: TileUnits, input_bits: int) -> Iterator[tuple[str, float]]:
    """(action, times per ns) of a tile with all its units at work; pJ per ns is mW."""
    tile, chip = units.spec, units.chip
    if tile.core:
        interval = mvm_interval_ns(tile.core, input_bits)
        for action, n in units.mvm_actions([(tile.core.rows, tile.core.cols)] * tile.cores, 1, input_bits).items():
            yield action, n / interval
    if tile.matmul:
        yield "matmul.mac", tile.matmul.rows * tile.matmul.cols * chip.clock_ghz / tile.matmul.row_cycles
    for lanes, names in ((tile.vector, ("vector.alu", "vector.mul")), (tile.special, ("special.div", "special.func"))):
        if lanes:
            yield max(names, key=lambda a: energy_pj(chip, a)), lanes.lanes * chip.clock_ghz
