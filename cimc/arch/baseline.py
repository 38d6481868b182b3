"""The ``baseline`` section of a hardware file: the von-Neumann machine that a run is set beside.

Every key may be left out. What is then meant stands in :data:`MEMORIES` and :data:`DEFAULTS`, with its source;
:mod:`cimc.report.baseline` does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
MemoryName = Literal["hbm2", "lpddr4", "ddr4"]


@dataclass(frozen=True)
class Number:
    """A number and where it is from."""

    value: float
    source: str


@dataclass(frozen=True)
class Memory:
    """A kind of main memory: bandwidth in bytes per ns (GB/s) and energy in pJ per bit moved."""

    bytes_per_ns: Number
    pj_per_bit: Number


MEMORIES: Mapping[MemoryName, Memory] = {
    "hbm2": Memory(
        Number(256.0, "one stack: JEDEC JESD235B, 1024 pins of 2 Gb/s"),
        Number(3.9, "estimated: as quoted for HBM2 after O'Connor et al., MICRO 2017; without the controller"),
    ),
    "lpddr4": Memory(
        Number(25.6, "64 pins of 3.2 Gb/s (LPDDR4-3200)"),
        Number(7.0, "estimated: 4 to 8 pJ/bit are quoted for LPDDR4"),
    ),
    "ddr4": Memory(
        Number(25.6, "one channel of 64 pins of 3.2 Gb/s (DDR4-3200)"),
        Number(20.0, "Horowitz, ISSCC 2014: 1.3 to 2.6 nJ a 64-bit DRAM access, the lower end"),
    ),
}

DEFAULTS: Mapping[str, Number] = {
    "macs_per_ns": Number(45875.2, "TPU v1: 256 x 256 8-bit MACs at 0.7 GHz (Jouppi et al., ISCA 2017)"),
    "mac_pj": Number(0.3, "Horowitz, ISSCC 2014, 45 nm: 8-bit multiplication 0.2, 32-bit addition 0.1"),
    "cache_bytes": Number(25165824, "TPU v1: 24 MiB unified buffer (Jouppi et al., ISCA 2017)"),
    "cache_pj_per_byte": Number(12.5, "Horowitz, ISSCC 2014, 45 nm: 100 pJ a 64-bit access of a 1 MB SRAM"),
    "batch": Number(1, "one inference at a time"),
    "weight_bits": Number(8, "8-bit inference"),
    "activation_bits": Number(8, "8-bit inference"),
}


class BaselineSpec(BaseModel):
    """The keys, all optional; docs/hardware.md says what each does."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    memory: MemoryName | None = None
    bytes_per_ns: Positive | None = None  # in place of the memory's
    pj_per_bit: NonNegative | None = None  # in place of the memory's
    macs_per_ns: Positive | None = None
    mac_pj: NonNegative | None = None
    cache_bytes: Annotated[int, Field(ge=0, le=2**50)] | None = None
    cache_pj_per_byte: NonNegative | None = None
    batch: Annotated[int, Field(ge=1, le=2**30)] | None = None
    weight_bits: Annotated[int, Field(ge=1, le=64)] | None = None
    activation_bits: Annotated[int, Field(ge=1, le=64)] | None = None


@dataclass(frozen=True)
class Baseline:
    """The machine with every number filled in. ``sources``: key → where its number is from."""

    memory: MemoryName
    bytes_per_ns: float
    pj_per_bit: float
    macs_per_ns: float
    mac_pj: float
    cache_bytes: float
    cache_pj_per_byte: float
    batch: float
    weight_bits: float
    activation_bits: float
    sources: Mapping[str, str]


def baseline_machine(spec: BaselineSpec | None) -> Baseline:
    """The machine a hardware file describes: its own numbers, and the defaults for what it leaves out."""
    given = spec.model_dump(exclude_none=True) if spec else {}
    name: MemoryName = given.pop("memory", "hbm2")
    memory = MEMORIES[name]
    usual = {"bytes_per_ns": memory.bytes_per_ns, "pj_per_bit": memory.pj_per_bit, **DEFAULTS}
    numbers = {key: float(given.get(key, number.value)) for key, number in usual.items()}
    sources = {key: "the hardware file" if key in given else number.source for key, number in usual.items()}
    return Baseline(name, **numbers, sources=sources)
