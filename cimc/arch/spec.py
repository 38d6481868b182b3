"""What the machine is: frozen, validated records that a hardware file fills in.

Sizes are in bytes, times in nanoseconds or clock cycles as the name says, energies in picojoules, areas in square
micrometres. Where a number comes from stands beside it in the hardware file (:mod:`cimc.arch.load`).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, le=2**40)]
Whole = Annotated[int, Field(ge=0, le=2**40)]
Positive = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class Record(BaseModel):
    """Base of all specs: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AdcSpec(Record):
    """Converters of one crossbar. ``bits`` 0: lossless (as many as the partial sum needs)."""

    bits: Annotated[int, Field(ge=0, le=24)]
    conversion_ns: Positive  # one conversion of one ADC
    cols_per_adc: Count  # columns that take turns on one ADC


class CrossbarSpec(Record):
    """One physical array."""

    rows: Annotated[int, Field(ge=1, le=65536)]
    cols: Annotated[int, Field(ge=1, le=65536)]
    cell_bits: Annotated[int, Field(ge=1, le=8)]
    active_rows: Annotated[int, Field(ge=1, le=65536)]  # wordlines driven at once


class CoreSpec(Record):
    """The crossbars that together hold one signed weight block, with converters and shift-and-add.

    ``adc`` absent: a digital core, whose adder tree is exact."""

    crossbar: CrossbarSpec
    weight_bits: Annotated[int, Field(ge=2, le=16)]
    encoding: Literal["offset", "differential", "twos_complement"]
    dac_bits: Annotated[int, Field(ge=1, le=16)]  # input bits applied at a time
    step_ns: Positive  # drive and integrate one input step (digital core: one bit step of the adder tree)
    shift_add_ns: NonNegative
    fill_ns: NonNegative  # the first row's way through the pipeline beyond one interval
    write_row_ns: NonNegative  # write one row of cells, once
    verify_iterations: Count  # write-verify passes a row
    adc: AdcSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CoreSpec:
        if self.crossbar.active_rows > self.crossbar.rows:
            raise ValueError(f"active_rows {self.crossbar.active_rows} exceeds rows {self.crossbar.rows}")
        return self

    @property
    def slices(self) -> int:
        """Bit slices of a weight: ceil(weight_bits / cell_bits); a differential pair stores the magnitude."""
        magnitude = self.weight_bits - 1 if self.encoding == "differential" else self.weight_bits
        return math.ceil(magnitude / self.crossbar.cell_bits)

    @property
    def crossbars(self) -> int:
        """Physical crossbars of one core: one per slice, twice that for differential pairs."""
        return self.slices * (2 if self.encoding == "differential" else 1)

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

    lanes: Count
    startup_cycles: Whole


class MatmulSpec(Record):
    """The dynamic matmul unit: a weight-stationary array of MACs, ``rows`` along k and ``cols`` along n."""

    rows: Count
    cols: Count
    operand_bits: Literal[4, 8, 16]
    load_bytes_per_cycle: Count  # stationary operand into the array
    startup_cycles: Whole


class TileSpec(Record):
    """One kind of tile. A unit that is absent cannot be used; tiles may combine them."""

    letter: Annotated[str, Field(min_length=1, max_length=1)]  # how the layout draws it
    local_bytes: Count
    cores: Whole = 0
    core: CoreSpec | None = None
    vector: LanesSpec | None = None
    special: LanesSpec | None = None
    matmul: MatmulSpec | None = None
    memory_port: bool = False  # an I/O tile: global memory hangs here

    @model_validator(mode="after")
    def _consistent(self) -> TileSpec:
        if (self.cores > 0) != (self.core is not None):
            raise ValueError("'cores' and 'core' go together: give both or neither")
        return self


class NocSpec(Record):
    """A mesh with XY routing. ``channel_bytes`` is the receive buffer of one channel."""

    flit_bytes: Count
    router_cycles: Count
    link_bytes_per_cycle: Count
    channel_bytes: Count


class MemorySpec(Record):
    """Global memory: a shared queue behind the I/O tiles."""

    capacity_bytes: Count
    bytes_per_cycle: Positive
    latency_cycles: Whole


class HostSpec(Record):
    """The host controller that runs what no tile unit can."""

    launch_ns: NonNegative
    bytes_per_ns: Positive


class CostSpec(Record):
    """Energy per action and leakage and area per component: the hardware file's ``costs``."""

    energy_pj: dict[str, NonNegative]
    leakage_mw: dict[str, NonNegative]
    area_um2: dict[str, NonNegative]


class ChipSpec(Record):
    """A chip: a mesh of tiles. ``layout`` has a string per mesh row, a tile kind's letter per tile."""

    name: str
    description: str
    technology: str
    clock_ghz: Positive
    layout: tuple[str, ...]
    tiles: dict[str, TileSpec]
    noc: NocSpec
    memory: MemorySpec
    host: HostSpec
    costs: CostSpec

    @model_validator(mode="after")
    def _consistent(self) -> ChipSpec:
        if not self.layout or not self.layout[0] or any(len(r) != len(self.layout[0]) for r in self.layout):
            raise ValueError("layout: rows of equal, non-zero length are needed")
        if len(self.layout) * len(self.layout[0]) > 65536:
            raise ValueError("layout: at most 65536 tiles")
        letters = [t.letter for t in self.tiles.values()]
        if len(set(letters)) != len(letters):
            raise ValueError("tiles: each kind needs a letter of its own")
        unknown = sorted({c for row in self.layout for c in row} - set(letters))
        if unknown:
            raise ValueError(f"layout: no tile kind has the letter {unknown[0]!r}")
        if not any(self.tile(i).memory_port for i in range(self.tile_count)):
            raise ValueError("layout: at least one tile needs memory_port: true")
        return self

    @property
    def columns(self) -> int:
        """Tiles in a mesh row."""
        return len(self.layout[0])

    @property
    def tile_count(self) -> int:
        """Tiles of the chip."""
        return len(self.layout) * self.columns

    def position(self, tile: int) -> tuple[int, int]:
        """(x, y) of a tile in the mesh; tiles are numbered along the rows."""
        return tile % self.columns, tile // self.columns

    def kind(self, tile: int) -> str:
        """Name of a tile's kind."""
        x, y = self.position(tile)
        letter = self.layout[y][x]
        return next(name for name, spec in self.tiles.items() if spec.letter == letter)

    def tile(self, tile: int) -> TileSpec:
        """The spec of a tile."""
        return self.tiles[self.kind(tile)]

    def cycles(self, ns: float) -> int:
        """Whole clock cycles that cover a time in ns."""
        return max(0, math.ceil(ns * self.clock_ghz - 1e-9))
