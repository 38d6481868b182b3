"""Analog cores for the values engine: from what a core is (``CoreSpec``) to what computes it (``cimc.analog``)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cimc.analog import AnalogConfig, AnalogMatrix, calibrate_range, drift_factor, measure_columns
from cimc.analog.config import refuse
from cimc.analog.config_keys import read_config
from cimc.arch.spec import CoreSpec
from cimc.device import Device
from cimc.isa.program import Block, MatrixDecl
from cimc.sim.faults import placed_faults
from cimc.sim.kept import Kept, Programmed
from cimc.sim.rewrite import Strips, rewritten
from cimc.sim.tally import LayerTally, Samples, Tally

Array = NDArray[np.generic]
Bounds = tuple[int, int]
Shared = tuple[object, ...]
WRITING = 1 << 20  # cores of a tile that have streams of their own for each writing
WRITTEN = "written operands"  # what the tally calls cells that hold no weights


@dataclass(frozen=True, slots=True)
class InputKind:
    """What streams into a core: integers of ``bits``, signed (in two's complement) or not."""

    bits: int = 8
    signed: bool = True

    @staticmethod
    def of(x: Array) -> InputKind:
        """The kind of an array of integers."""
        return InputKind(8 * x.dtype.itemsize, bool(np.issubdtype(x.dtype, np.signedinteger)))


def config(core: CoreSpec, device: Device, inputs: InputKind) -> AnalogConfig:
    """A core's physics: its slices, its converters, its device's noise.

    Inputs stream ``dac_bits`` at a time. ``adc.bits`` 0 is a lossless converter. Raises ANALOG_CONFIG for weights in two's
    complement: there the top bit counts negative, and cells of several bits hold it together with others."""
    if core.encoding == "twos_complement":
        why = "'twos_complement' is known of digital cores only, whose sums are exact"
        raise refuse("encoding", why, "give the core encoding: offset or differential, or take its adc away")
    mapping: dict[str, object] = {
        "weight_bits": core.weight_bits,
        "slice_bits": slice_bits(core),
        "weight_encoding": core.encoding,
        "input_bits": inputs.bits,
        "input_encoding": _input_encoding(core) if inputs.signed else "unsigned",
        "dac_bits": core.dac_bits,
        "rows": core.crossbar.rows,
        "active_rows": core.crossbar.active_rows,
        "devices": core.crossbar.devices,
        "msb_copies": core.msb_copies,
        "msb_slices": core.msb_slices,
        "msb_combine": core.msb_combine,
        **device.keys(core),
    }
    if core.adc is not None and core.adc.bits and device.adc:
        full = device.adc_range == "full"
        leak = device.model.gmin_us / device.model.gmax_us if device.on_off else 0.0
        mapping["adc"] = {**converter(core, core.adc.bits, full=full, leak=leak), **device.converter()}
    return read_config(mapping)


def _input_encoding(core: CoreSpec) -> str:
    """Signed inputs: ternary drivers apply the magnitude's bits with the sign."""
    return "sign_magnitude" if core.input_sign == "ternary" else "twos_complement"


def slice_bits(core: CoreSpec) -> list[int]:
    """Bits of each slice, least significant first; the last one holds what is left."""
    bits = core.weight_bits - 1 if core.encoding == "differential" else core.weight_bits
    cell = core.crossbar.cell_bits
    return [min(cell, bits - start) for start in range(0, bits, cell)]


def converter(core: CoreSpec, bits: int, *, full: bool = False, leak: float = 0.0) -> dict[str, object]:
    """Step and range of an ADC of ``bits``.

    The largest partial sum is active_rows · (2^cell_bits - 1) · (2^dac_bits - 1). Sums in its upper half are rare
    (about half of all cell and input bits are zero), so the range is the lower half (for differential pairs, of both
    signs), as ISAAC saves its ninth bit (Shafiee et al., ISCA 2016, section V); ``full``: the whole of it. The step is
    the smallest power of two with which ``bits`` reach that far; what lies beyond saturates and is counted.

    ``leak`` is what a cell at its lowest level conducts, over what it does at its highest. Neighbouring levels are then
    closer by 1 - leak, and so are the converter's steps; an offset column carries the leak of its driven rows (half of
    them) on top, a pair takes it off itself. Raises ANALOG_CONFIG for pairs and 1 bit."""
    largest = core.crossbar.active_rows * ((1 << core.crossbar.cell_bits) - 1) * ((1 << core.dac_bits) - 1)
    signed = core.encoding == "differential"
    codes = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    if codes < 1:
        why = "a converter of 1 bit tells the sign of a pair's current and nothing of its size"
        raise refuse("adc.bits", why, "give it 2 bits or more, or encoding: offset")
    reach = largest if full else (1 << largest.bit_length()) // 2 - 1
    step = 1
    leaked = 0 if signed else int(leak / (1 - leak) * largest / 2)
    while codes * step < reach + leaked - step + 1:
        step *= 2
    low = -codes if signed else 0
    return {"bits": bits, "signed": signed, "lsb_units": step * (1 - leak), "code_min": low, "code_max": codes}


@dataclass
class AnalogCores:
    """The analog cores of a run. Random streams are keyed by seed, tile and core, so they do not depend on the order in
    which tiles run. Where nothing is random, copies of a matrix in several tiles (replicas) are one."""

    device: Device
    seed: int
    tally: Tally = field(default_factory=Tally)
    samples: Samples | None = None
    kept: Kept | None = None
    _shared: dict[Shared, list[AnalogMatrix]] = field(default_factory=dict[Shared, list[AnalogMatrix]])
    _ranges: dict[Shared, AnalogConfig] = field(default_factory=dict[Shared, AnalogConfig])
    _configs: dict[Shared, AnalogConfig] = field(default_factory=dict[Shared, AnalogConfig])
    _writings: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])  # by tile and core

    def build(self, codes: Array, core: CoreSpec, tile: int, decl: MatrixDecl, *, rewritten: bool) -> AnalogUnit:
        """The cores of a matrix that hold ``codes``."""
        return AnalogUnit(codes, core, tile, decl, self, shared=not rewritten and not self.device.random(core))

    def matrices(self, unit: AnalogUnit, inputs: InputKind) -> list[AnalogMatrix]:
        """The programmed cores of a unit for inputs of a kind, one per part."""
        decl = unit.decl
        key = (decl.key, decl.row_offset, decl.col_offset, decl.rows, decl.cols, tuple(unit.parts), inputs, unit.core)
        if unit.shared and key in self._shared:
            return self._shared[key]
        made = [self._program(unit, part, inputs, key) for part in unit.parts]
        unit.layer.built += made
        if unit.vectors:
            self.calibrate(unit, made)
        if unit.shared:
            self._shared[key] = made
        return made

    def _program(self, unit: AnalogUnit, part: Part, inputs: InputKind, key: Shared) -> AnalogMatrix:
        """A core as it is when nothing was read yet: programmed now, or by an earlier run that kept it."""
        stream = (unit.tile, part.core + unit.writing(part) * WRITING)
        seen = self._seen(unit, part)
        if self.kept is None or unit.written:
            found = self._programmed(unit, part, inputs, (stream, key), seen)
        else:
            name = (self.seed, self.device, stream, part, unit.digest, *key)
            found = self.kept.find(name)
            if found is None or not found.ranged_by(seen):
                found = self._programmed(unit, part, inputs, (stream, key), seen, found)
                self.kept.keep(name, found)
        matrix = found.matrix.again()
        if found.faults is not None:
            unit.layer.faults.add(found.faults)
        unit.layer.tables.append((matrix, found.table_bits))
        return matrix

    def _programmed(
        self,
        unit: AnalogUnit,
        part: Part,
        inputs: InputKind,
        place: tuple[tuple[int, int], Shared],
        seen: Array | None,
        old: Programmed | None = None,
    ) -> Programmed:
        """A core programmed now; ``old``: the same one with other ranges of its converters, whose cells it takes.
        ``place``: its random numbers, and what tells it from others; ``seen``: what its ranges are calibrated on."""
        (stream, key), codes = place, unit.held(part)
        device = replace(self.device, seconds=0.0) if unit.written else self.device  # written just now: nothing drifted
        physics = replace(self._config(unit.core, device, inputs), row_blocks=part.blocks)
        bits, faults = 0, None
        if self.device.faulty:
            stuck, faults = placed_faults(part, codes, physics, unit.core, self.device, (self.seed, unit.tile))
            bits, physics = faults.table_bits, replace(physics, stuck=stuck)
        if physics.adc is not None and seen is not None:
            physics = self._calibrated(codes, physics, seen, (*key, part))
        matrix = AnalogMatrix(codes, physics, self.seed, stream, None if old is None else old.matrix.cells)
        if self.device.drift_compensation != "none" and physics.device.ages:
            per = "core" if self.device.drift_compensation == "global" else "column"
            gain = None if old is None else old.matrix.gain
            matrix.gain = drift_factor(codes, physics, self.seed, stream, per, matrix.cells) if gain is None else gain
        return Programmed(matrix, faults, bits, seen)

    def _config(self, core: CoreSpec, device: Device, inputs: InputKind) -> AnalogConfig:
        """:func:`config`, made once for all cores of a kind."""
        key = (core, device.seconds, inputs)
        if key not in self._configs:
            self._configs[key] = config(core, device, inputs)
        return self._configs[key]

    def calibrate(self, unit: AnalogUnit, matrices: Sequence[AnalogMatrix]) -> None:
        """Correct the columns of a unit's matrices, measured on their cells as they are, or as they were
        ``calibration_age`` seconds ago."""
        for part, matrix in zip(unit.parts, matrices, strict=True):
            codes = unit.held(part)
            found = measure_columns(self._earlier(unit, matrix, codes), codes, unit.vectors)
            matrix.gain, matrix.bias = found.gain, found.bias

    def _earlier(self, unit: AnalogUnit, matrix: AnalogMatrix, codes: Array) -> AnalogMatrix:
        """A matrix when it was last calibrated: the same cells, less drifted."""
        physics, age = matrix.config, self.device.calibration_age
        if not age or not physics.device.ages:
            return matrix
        then = replace(physics, device=replace(physics.device, seconds=max(physics.device.seconds - age, 0.0)))
        streams = matrix.streams
        found = AnalogMatrix(codes, then, streams.seed, (streams.tile, streams.core))
        unit.layer.built.append(found)
        return found

    def _seen(self, unit: AnalogUnit, part: Part) -> Array | None:
        """The inputs of a part that a calibration run saw; None where ranges are not calibrated, or it saw none."""
        if not self.device.calibrated or self.samples is None:
            return None
        seen = self.samples.of(unit.decl)
        return None if seen is None else seen[:, part.rows[0] : part.rows[1]]

    def _calibrated(self, codes: Array, physics: AnalogConfig, seen: Array, key: Shared) -> AnalogConfig:
        """The converter's range from what a calibration run saw."""
        if key not in self._ranges:
            per = "slice" if self.device.adc_range == "calibrated_slice" else "core"
            self._ranges[key] = calibrate_range(codes, physics, seen, self.device.adc_coverage, per)
        return self._ranges[key]

    def next_writing(self, tile: int, part: Part) -> int:
        """How often other weights, or these before, were in use on the cores of a part: what was written later has cells with
        a noise of their own."""
        cores = [(tile, block.core) for block in part.held]
        number = max(self._writings.get(core, 0) for core in cores)
        self._writings.update(dict.fromkeys(cores, number + 1))
        return number

    def counts(self) -> dict[str, int]:
        """Conversions, how many of them saturated, reads and cells, over all cores."""
        total: Counter[str] = Counter()
        for layer in self.tally.layers.values():
            total.update(layer.counts())
        return dict(total)


@dataclass(frozen=True)
class Part:
    """Rows and columns of a matrix that one :class:`AnalogMatrix` computes; ``blocks``: the row cuts inside it, counted
    from its first row; ``core`` keys its random streams; ``held``: the blocks of the cores in it."""

    rows: Bounds
    cols: Bounds
    blocks: tuple[Bounds, ...]
    core: int
    held: tuple[Block, ...]


def parts(blocks: Sequence[Block], *, apart: bool) -> list[Part]:
    """How the cores of a matrix are computed: together where their blocks form a grid (columns do not influence each
    other, rows are summed by the block), else (or with ``apart``) each for itself."""
    rows = sorted({(b.row, b.row_end) for b in blocks})
    cols = sorted({(b.col, b.col_end) for b in blocks})
    grid = len(blocks) == len(rows) * len(cols) and _contiguous(rows) and _contiguous(cols)
    if grid and not apart:
        first = rows[0][0]
        cuts = tuple((a - first, b - first) for a, b in rows)
        return [Part((first, rows[-1][1]), (cols[0][0], cols[-1][1]), cuts, blocks[0].core, tuple(blocks))]
    return [Part((b.row, b.row_end), (b.col, b.col_end), ((0, b.row_end - b.row),), b.core, (b,)) for b in blocks]


def _contiguous(bounds: Sequence[Bounds]) -> bool:
    return all(a[1] == b[0] for a, b in pairwise(bounds))


class AnalogUnit:
    """The cores of one matrix: programmed when first used, once per kind of its inputs (the same cells each time)."""

    def __init__(
        self, codes: Array, core: CoreSpec, tile: int, decl: MatrixDecl, cores: AnalogCores, *, shared: bool
    ) -> None:
        self.codes, self.core, self.tile, self.decl, self.shared = codes, core, tile, decl, shared
        # Wires couple the columns of a crossbar, so crossbars must be their true size.
        self.parts = parts(decl.blocks, apart=cores.device.ir_drop and cores.device.wire_ohm > 0)
        self.layer: LayerTally = cores.tally.layer(decl.key or WRITTEN)
        self.layer.cells += decl.rows * decl.cols * core.devices
        self.vectors = 0  # known inputs of the last calibration
        self.written = False  # in this run
        self._writings: dict[Part, int] = {}  # which writing of its cores' the cells are from
        self._cores = cores
        self._matrices: dict[InputKind, list[AnalogMatrix]] = {}

    def mvm(self, x: Array) -> Array:
        """``x`` ([groups ×] rows × inputs) through the crossbars: int32, all rows."""
        x = x.reshape(-1, x.shape[-1])
        kind = InputKind.of(x)
        if kind not in self._matrices:
            self._matrices[kind] = self._cores.matrices(self, kind)
        total = np.zeros((x.shape[0], self.decl.cols), np.int32)
        for part, matrix in zip(self.parts, self._matrices[kind], strict=True):
            inputs = np.ascontiguousarray(x[:, part.rows[0] : part.rows[1]])
            total[:, part.cols[0] : part.cols[1]] += matrix.mvm(inputs)
        if self._cores.tally.measured:
            self.layer.measure(x, self.codes, total)
        return total

    @cached_property
    def digest(self) -> bytes:
        """What tells these integers from others."""
        return hashlib.blake2b(np.ascontiguousarray(self.codes).data, digest_size=16).digest()

    def held(self, part: Part) -> Array:
        """The integers that a part holds."""
        return self.codes[part.rows[0] : part.rows[1], part.cols[0] : part.cols[1]]

    def writing(self, part: Part) -> int:
        """Which writing of its cores the cells of a part are from; the same until they are written again."""
        if self.shared:
            return 0
        if part not in self._writings:
            self._writings[part] = self._cores.next_writing(self.tile, part)
        return self._writings[part]

    def program(self, codes: Array, strips: Strips = ()) -> None:
        """Rewrite the cells, or some of their rows: all then are as if written anew."""
        self.codes = rewritten(self.codes, codes, strips)
        self.shared, self.written = False, True
        self._writings = {}
        self.vectors = 0
        for made in self._matrices.values():
            self.layer.retire(made)
        self._matrices = {}

    def calibrate(self, vectors: int) -> None:
        """Correct the columns from here on, by what ``vectors`` known inputs read."""
        if self.shared:  # what copies elsewhere read is no business of theirs
            self.shared, self._matrices = False, {}
        self.vectors = vectors
        for made in self._matrices.values():
            self._cores.calibrate(self, made)
