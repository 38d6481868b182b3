"""What the machine is: frozen, validated records that a hardware file fills in.

Sizes are in bytes, times in nanoseconds or clock cycles as the name says, energies in picojoules, areas in square
micrometres. Where a number comes from stands beside it in the hardware file (:mod:`cimc.arch.load`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cimc.arch.actions import ACTIONS, PARTS, SCALED, base, well_formed
from cimc.arch.adcs import MOST_BITS
from cimc.arch.baseline import BaselineSpec, NonNegative
from cimc.arch.device import DeviceSpec
from cimc.errors import did_you_mean

Count = Annotated[int, Field(ge=1, le=2**40)]
Whole = Annotated[int, Field(ge=0, le=2**40)]
Rate = Annotated[float, Field(ge=1e-6, le=1e15, allow_inf_nan=False)]
"""Bytes a cycle or a nanosecond: 2^36 bytes, the most that a value has, are a number of cycles that a clock can hold."""
Clock = Annotated[float, Field(gt=0, le=1e3, allow_inf_nan=False)]
Span = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Wait = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""Nanoseconds, of one step: a second at most."""

MOST_TILES = 65536  # on all chips


def _with_default(data: object, key: str, size: object) -> object:
    """A mapping with ``key`` filled in with a size where it is absent; anything else as it is. A size that is itself
    missing or impossible is told once, where it stands, so 1 is filled in for it."""
    if not isinstance(data, Mapping) or key in data:
        return cast("object", data)
    possible = isinstance(size, int) and 1 <= size <= 65536
    return {**cast("Mapping[str, object]", data), key: size if possible else 1}


def _item(data: object, key: str) -> object:
    """``data[key]`` of a mapping, None if there is none."""
    return cast("Mapping[str, object]", data).get(key) if isinstance(data, Mapping) else None


class Record(BaseModel):
    """Base of all specs: immutable, unknown keys refused, no guessing of types (``true`` is no number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AdcSpec(Record):
    """Converters of one crossbar. ``bits`` 0: lossless (as many as the partial sum needs).

    ``cols_per_adc`` may be left out of a hardware file: all columns of a crossbar then take turns on one ADC."""

    bits: Annotated[int, Field(ge=0, le=24)]
    conversion_ns: Span  # one conversion of one ADC
    cols_per_adc: Count  # columns that take turns on one ADC
    overlapped: bool = True  # converts while the next step is driven; false: one circuit does both, one after the other


class CrossbarSpec(Record):
    """One physical array. ``active_rows`` may be left out: all rows. ``spare_cols`` are further columns, which replace
    faulty ones (docs/device.md); the converters of the others serve them. ``devices`` are the memory devices side by side in
    a cell, whose currents add up on its column: HERMES has two (Le Gallo et al., Nat. Electron. 2023; Khaddam-Aljameh et
    al., JSSC 2022), Boybat et al., Nat. Commun. 9, 2514, 2018 any number."""

    rows: Annotated[int, Field(ge=1, le=65536)]
    cols: Annotated[int, Field(ge=1, le=65536)]
    cell_bits: Annotated[int, Field(ge=1, le=8)]
    active_rows: Annotated[int, Field(ge=1, le=65536)]  # wordlines driven at once
    spare_cols: Annotated[int, Field(ge=0, le=65536)] = 0
    devices: Annotated[int, Field(ge=1, le=16)] = 1

    @model_validator(mode="before")
    @classmethod
    def _all_rows(cls, data: object) -> object:
        return _with_default(data, "active_rows", _item(data, "rows"))


class CoreSpec(Record):
    """The crossbars that together hold one signed weight block, with converters and shift-and-add.

    ``adc`` absent: a digital core, whose adder tree is exact."""

    crossbar: CrossbarSpec
    weight_bits: Annotated[int, Field(ge=2, le=16)]
    encoding: Literal["offset", "differential", "twos_complement"]
    dac_bits: Annotated[int, Field(ge=1, le=16)]  # input bits applied at a time
    drive: Literal["levels", "width", "planes"] = "levels"  # how dac_bits bits are applied at a time
    input_sign: Literal["twos_complement", "ternary"] = "twos_complement"  # ternary: +V, 0, -V, the sign takes no bit
    phases: Annotated[int, Field(ge=1, le=1024)] = (
        1  # times the whole MVM is gone through (signs of inputs and weights apart)
    )
    shared_dac: bool = False  # one set of wordline drivers for all crossbars of the core
    step_ns: Span  # drive and integrate one input step (digital core: one bit step of the adder tree)
    pulse_ns: Wait = 0.0  # added to a step of b bits (2^b - 1) times: pulses of the step, or their width
    pipelined_rows: bool = True  # false: a row starts when the one before has left the pipeline
    shift_add_ns: Wait
    fill_ns: Wait  # the first row's way through the pipeline beyond one interval
    write_row_ns: Wait  # write one row of cells, once
    verify_iterations: Count  # write-verify passes a row
    adc: AdcSpec | None = None
    msb_copies: Annotated[int, Field(ge=1, le=15)] = 1  # crossbars that hold each of the most significant slices
    msb_slices: Annotated[int, Field(ge=1, le=16)] = 1  # how many slices have so many
    msb_combine: Literal["median", "mean"] = "median"  # how the copies' codes become one

    @model_validator(mode="before")
    @classmethod
    def _one_adc_a_crossbar(cls, data: object) -> object:
        adc, cols = _item(data, "adc"), _item(_item(data, "crossbar"), "cols")
        if not isinstance(data, Mapping) or not isinstance(adc, Mapping):
            return cast("object", data)
        return {**cast("Mapping[str, object]", data), "adc": _with_default(cast("object", adc), "cols_per_adc", cols)}

    @model_validator(mode="after")
    def _consistent(self) -> CoreSpec:
        if self.crossbar.active_rows > self.crossbar.rows:
            raise ValueError(
                f"crossbar.active_rows: {self.crossbar.active_rows} exceeds the {self.crossbar.rows} rows there are"
            )
        drive = (self.drive, self.input_sign, self.phases, self.shared_dac, self.pulse_ns)
        if self.adc is None and drive != ("levels", "twos_complement", 1, False, 0.0):
            raise ValueError(
                "drive: a digital core streams bits; drive, input_sign, phases, shared_dac, pulse_ns need an adc"
            )
        for problem in self._redundancy_problems():
            raise ValueError(problem)
        return self

    def _redundancy_problems(self) -> list[str]:
        if self.adc is None:
            bar = self.crossbar
            named = {
                "msb_copies": self.msb_copies > 1,
                "crossbar.spare_cols": bar.spare_cols > 0,
                "crossbar.devices": bar.devices > 1,
            }
            return [
                f"{key}: a digital core is exact and has nothing to repair" for key, given in named.items() if given
            ]
        if self.msb_slices > self.slices:
            return [f"msb_slices: {self.msb_slices} of the {self.slices} slices there are"]
        if self.msb_copies % 2 == 0 and self.msb_combine == "median":
            return [f"msb_copies: the median of {self.msb_copies} codes is none of them; give an odd number, or a mean"]
        return []

    @property
    def slices(self) -> int:
        """Bit slices of a weight: ceil(weight_bits / cell_bits); a differential pair stores the magnitude."""
        magnitude = self.weight_bits - 1 if self.encoding == "differential" else self.weight_bits
        return math.ceil(magnitude / self.crossbar.cell_bits)

    @property
    def converted_slices(self) -> int:
        """Slices with the redundant copies of the top ones: each has converters of its own."""
        return self.slices + self.msb_slices * (self.msb_copies - 1)

    @property
    def crossbars(self) -> int:
        """Physical crossbars of one core: one per slice and copy, twice that for differential pairs."""
        return self.converted_slices * (2 if self.encoding == "differential" else 1)

    @property
    def devices(self) -> int:
        """Memory devices of one weight: those of a cell in every crossbar."""
        return self.crossbars * self.crossbar.devices

    def input_steps(self, input_bits: int) -> tuple[int, ...]:
        """Bits of each input step, the same in every phase: ``dac_bits`` at a time, the last step what is left. With
        ternary inputs the sign is the pulse's own, so an input has one bit less (Wan et al., Nature 2022)."""
        bits = max(1, input_bits - 1) if self.input_sign == "ternary" else input_bits
        return tuple(min(self.dac_bits, bits - start) for start in range(0, bits, self.dac_bits))

    @property
    def digital(self) -> bool:
        """True if the core has no ADC: an exact adder tree."""
        return self.adc is None

    @property
    def adc_bits(self) -> int:
        """Bits of the ADC; where it is lossless, enough for active_rows cells at their top level, driven at the top:
        ceil(log2(active_rows · (2^cell_bits - 1) · (2^dac_bits - 1) + 1)). 0 for a digital core."""
        if self.adc is None or self.adc.bits:
            return self.adc.bits if self.adc else 0
        top = self.crossbar.active_rows * (2**self.crossbar.cell_bits - 1) * (2**self.dac_bits - 1)
        return top.bit_length()

    @property
    def adcs(self) -> int:
        """Converters of one core: per slice and copy (a differential pair shares one), ceil(cols / cols_per_adc)."""
        return self.converted_slices * math.ceil(self.cols / self.adc.cols_per_adc) if self.adc else 0

    @property
    def rows(self) -> int:
        """Inputs of the weight block a core holds."""
        return self.crossbar.rows

    @property
    def cols(self) -> int:
        """Outputs of the weight block a core holds."""
        return self.crossbar.cols


class LanesSpec(Record):
    """A vector or special-function unit: elements worked on at a time."""

    lanes: Annotated[int, Field(ge=1, le=65536)]
    startup_cycles: Whole


class MatmulSpec(Record):
    """The dynamic matmul unit: a weight-stationary array of MACs, ``rows`` along k and ``cols`` along n."""

    rows: Annotated[int, Field(ge=1, le=65536)]
    cols: Annotated[int, Field(ge=1, le=65536)]
    operand_bits: Literal[4, 8, 16]
    load_bytes_per_cycle: Count  # stationary operand into the array
    startup_cycles: Whole
    row_cycles: Count = 1  # cycles per row streamed through (a bit-serial in-memory array takes one per bit or more)
    write_row_cycles: Whole = 0  # cycles to write a row of the stationary block into cells; 0: none beyond loading


class TileSpec(Record):
    """One kind of tile. A unit that is absent cannot be used; tiles may combine them."""

    letter: Annotated[str, Field(min_length=1, max_length=1)]  # how the layout draws it
    local_bytes: Annotated[int, Field(ge=1, le=2**32)]
    cores: Annotated[int, Field(ge=0, le=65536)] = 0
    core: CoreSpec | None = None
    vector: LanesSpec | None = None
    special: LanesSpec | None = None
    matmul: MatmulSpec | None = None
    memory_port: bool = False  # an I/O tile: global memory hangs here

    @model_validator(mode="after")
    def _consistent(self) -> TileSpec:
        if (self.cores > 0) != (self.core is not None):
            raise ValueError("cores: 'cores' and 'core' go together, give both or neither")
        return self


class ReduceSpec(Record):
    """Adders in every router: packets that go to the same tile are added where their ways meet (``reduce``, ``collect``), as
    in-network accumulation does (Tiwari et al., arXiv 2209.10056, whose routers add within their pipeline: 0 cycles)."""

    lanes: Annotated[int, Field(ge=1, le=65536)]  # 32-bit elements that a router adds each cycle
    cycles: Whole  # by which the header of a sum leaves later than the last of its parts' headers came


class NocSpec(Record):
    """A mesh with XY routing. ``channel_bytes`` is the receive buffer of one channel."""

    flit_bytes: Count
    router_cycles: Count
    link_bytes_per_cycle: Count
    channel_bytes: Count
    reduce: ReduceSpec | None = None  # routers that add; None: they only pass on


class LinkSpec(Record):
    """The connection between a chip and its neighbour: each direction is one link, shared by all that crosses that way."""

    bytes_per_cycle: Rate
    latency_cycles: Count  # of a header, in place of the router's of a hop within the chip


class MemorySpec(Record):
    """Global memory: a shared queue behind the I/O tiles."""

    capacity_bytes: Count
    bytes_per_cycle: Rate
    latency_cycles: Whole


class HostSpec(Record):
    """The host controller that runs what no tile unit can."""

    launch_ns: Wait
    bytes_per_ns: Rate


class CostSpec(Record):
    """Energy per action, leakage and area per part: the hardware file's ``costs``. The names are those of
    :mod:`cimc.arch.actions`, some with a qualifier: ``adc.convert@8``, ``crossbar@128x128``."""

    adc_model: Literal["table", "regression"] = "table"  # energy and area of converters: given below, or by resolution
    energy_pj: dict[str, NonNegative]
    leakage_mw: dict[str, NonNegative]
    area_um2: dict[str, NonNegative]

    @model_validator(mode="after")
    def _known(self) -> CostSpec:
        problems = [
            f"{table}.{key}: there is no {what} of that name. {did_you_mean(key, known)}".rstrip()
            for table, given, known, what in (
                ("energy_pj", self.energy_pj, ACTIONS, "action"),
                ("leakage_mw", self.leakage_mw, PARTS, "part"),
                ("area_um2", self.area_um2, PARTS, "part"),
            )
            for key in given
            if base(key) not in known or not well_formed(key)
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self


class ChipSpec(Record):
    """A chip: a mesh of tiles. ``layout`` has a string per mesh row, a tile kind's letter per tile. Several such chips
    stand side by side in a line, and their meshes make one that is ``chips`` times as wide."""

    name: str
    description: str
    technology: str
    clock_ghz: Clock
    layout: Annotated[tuple[str, ...], Field(strict=False)]
    tiles: dict[str, TileSpec]
    noc: NocSpec
    memory: MemorySpec
    host: HostSpec
    costs: CostSpec
    chips: Annotated[int, Field(ge=1, le=65536)] = 1
    link: LinkSpec | None = None  # from each chip to the next
    device: DeviceSpec | None = None  # what analog numerics model
    baseline: BaselineSpec | None = None  # the von-Neumann machine a run is set beside

    @model_validator(mode="after")
    def _consistent(self) -> ChipSpec:
        problems = [*self._layout_problems(), *self._cost_problems()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _layout_problems(self) -> list[str]:
        if not self.layout or not self.layout[0] or any(len(r) != len(self.layout[0]) for r in self.layout):
            return ["layout: rows of equal, non-zero length are needed"]
        if self.tile_count > MOST_TILES:
            if self.chips == 1:
                return [f"layout: {self.tile_count} tiles; at most {MOST_TILES}"]
            most = MOST_TILES // (self.tile_count // self.chips)
            return [
                f"chips: {self.tile_count} tiles on {self.chips} chips; at most {MOST_TILES}, those of {most} chips"
            ]
        if self.chips > 1 and self.link is None:
            return [f"link: {self.chips} chips need a link (bytes_per_cycle, latency_cycles) from each to the next"]
        letters = [t.letter for t in self.tiles.values()]
        if len(set(letters)) != len(letters):
            return ["tiles: each kind needs a letter of its own"]
        placed = {c for row in self.layout for c in row}
        unknown = sorted(placed - set(letters))
        if unknown:
            return [f"layout: no tile kind has the letter {unknown[0]!r}"]
        if not any(t.memory_port for t in self.tiles.values() if t.letter in placed):
            return ["layout: at least one tile needs memory_port: true"]
        cores = sum(self.count(t) * t.cores for t in self.tiles.values())
        return [f"layout: {cores} cores; at most {2**24}"] if cores > 2**24 else []

    def _cost_problems(self) -> list[str]:
        given = self.costs.energy_pj
        needed = {"chip", *(["link"] if self.link else []), *(["adders"] if self.noc.reduce else [])}
        for tile in self.tiles.values():
            core = ["core", "digital core" if tile.core.digital else "analog core"] if tile.core else []
            needed |= {*core, *(["matmul"] if tile.matmul else []), *(["lanes"] if tile.vector or tile.special else [])}
        wanted = [a for a, row in ACTIONS.items() if row.unit in needed and not row.optional]
        missing = [a for a in wanted if a not in {base(key) for key in given}]
        problems = [f"costs.energy_pj: no energy for '{a}' ({ACTIONS[a].doc})" for a in missing]
        return problems + self._resolution_problems() + self._scaling_problems() + self._spare_problems()

    def _spare_problems(self) -> list[str]:
        bars = [t.core.crossbar for t in self.tiles.values() if t.core]
        mixed = len({(b.cols, b.spare_cols) for b in bars}) > 1
        if mixed and any(b.spare_cols for b in bars):
            return ["tiles: spare_cols needs all crossbars of the chip to have the same columns"]
        if len({t.core.crossbar.devices for t in self.tiles.values() if t.core and t.core.adc}) > 1:
            return ["tiles: all analog crossbars of the chip need as many devices in a cell"]
        return []

    def _cost_tables(self) -> dict[str, dict[str, float]]:
        costs = self.costs
        return {"energy_pj": costs.energy_pj, "leakage_mw": costs.leakage_mw, "area_um2": costs.area_um2}

    def _scaling_problems(self) -> list[str]:
        cores = [t.core.crossbar for t in self.tiles.values() if t.core]
        mixed = len({(c.rows, c.cols, c.active_rows) for c in cores}) > 1
        problems: list[str] = []
        for name, table in self._cost_tables().items():
            scaled = [base(key) for key in table if "@" in key and base(key) in SCALED]
            if scaled and mixed:
                problems.append(f"costs.{name}: '{scaled[0]}@SIZE' needs all crossbars of the chip to be of one size")
            if len(set(scaled)) < len(scaled) or any(key in table for key in scaled):
                problems.append(f"costs.{name}: one of these is given twice: {', '.join(sorted(set(scaled)))}")
        return problems

    def _resolution_problems(self) -> list[str]:
        kinds = {name: t.core.adc_bits for name, t in self.tiles.items() if t.core and t.core.adc}
        bits = sorted(set(kinds.values()))
        if self.costs.adc_model == "regression":
            most = max(bits, default=0)
            return [f"costs.adc_model: the regression ends at {MOST_BITS} bits, not {most}"] if most > MOST_BITS else []
        problems: list[str] = []
        for name, table in self._cost_tables().items():
            key = "adc.convert" if name == "energy_pj" else "adc"
            given = [k.split("@", 1)[1] for k in table if k.startswith(f"{key}@")]
            if given and len(bits) > 1:
                problems.append(f"costs.{name}: '{key}@BITS' needs all ADCs of the chip to have the same bits")
            elif given and bits and str(bits[0]) not in given and key not in table:
                why = f"costs.{name} has no '{key}@{bits[0]}', only for {', '.join(given)} bits"
                problems.append(f"tiles.{next(iter(kinds))}.core.adc.bits: {why}")
        return problems

    @cached_property
    def chip_columns(self) -> int:
        """Tiles in a row of one chip."""
        return len(self.layout[0])

    @cached_property
    def columns(self) -> int:
        """Tiles in a mesh row, of all chips."""
        return self.chips * self.chip_columns

    @cached_property
    def tile_count(self) -> int:
        """Tiles of all chips."""
        return len(self.layout) * self.columns

    def count(self, tile: TileSpec) -> int:
        """Tiles of one kind, on all chips."""
        return self.chips * sum(row.count(tile.letter) for row in self.layout)

    def position(self, tile: int) -> tuple[int, int]:
        """(x, y) of a tile in the mesh; tiles are numbered along the rows."""
        return tile % self.columns, tile // self.columns

    def chip_of(self, tile: int) -> int:
        """The chip on which a tile is, from 0 at the left."""
        return tile % self.columns // self.chip_columns

    def kind(self, tile: int) -> str:
        """Name of a tile's kind."""
        return self.kinds[tile]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of all tiles."""
        names = {spec.letter: name for name, spec in reversed(self.tiles.items())}
        return tuple(names[letter] for row in self.layout for letter in row * self.chips)

    def tile(self, tile: int) -> TileSpec:
        """The spec of a tile."""
        return self.tiles[self.kind(tile)]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without what was computed of the fields that are replaced."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("chip_columns", "columns", "tile_count", "kinds"):
            vars(copied).pop(name, None)
        return copied

    def cycles(self, ns: float) -> int:
        """Whole clock cycles that cover a time in ns."""
        return max(0, math.ceil(ns * self.clock_ghz - 1e-9))
