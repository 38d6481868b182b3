"""What one execution of an instruction asks of the machine: unit, cycles, bytes, byte ranges, actions.

Both timing engines and the bound read it here, and it reads the instruction's row: cost is said once."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits, host_cycles, memory_cycles
from cimc.isa.cells import contended, spans
from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, LOCAL, Carries, Instruction, Kind, Shape, Spec, Unit, Value
from cimc.isa.messages import destinations, keywords, parts
from cimc.isa.operands import View, extent
from cimc.isa.program import GlobalBuffer, MatrixDecl, Program, TileProgram

CELLS = 1 << 48
"""Where the cells of a tile's cores lie among its bytes: a place for each core, beyond every local buffer."""

SUM_BYTES = 4
"""A core's accumulators are 32 bits wide."""


class Action(enum.IntEnum):
    """How the engines carry out an instruction."""

    COMPUTE = 0
    SEND = 1
    RECEIVE = 2
    MEMORY = 3
    HOST = 4
    WAIT = 5
    HALT = 6
    REDUCE = 7
    COLLECT = 8


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes [low, high) of the local buffer that a view spans, or cores, from :data:`CELLS` on. ``accumulates``: by
    additions, in any order."""

    low: int
    high: int
    reads: bool
    writes: bool
    accumulates: bool


@dataclass(frozen=True)
class Job:
    """One execution. ``cycles``: how long the unit works (transfers: how long a link or the memory is occupied). ``busy``:
    how long the unit is taken; the next instruction may start then.
    ``request`` and ``response`` are the bytes of the two packets of a memory access; ``bytes`` of a message. ``home``:
    the tile whose local memory is accessed, -1 for global memory."""

    cycles: int
    ranges: tuple[Range, ...]
    actions: Mapping[str, int]
    bytes: int = 0
    request: int = 0
    response: int = 0
    static_macs: int = 0
    written_macs: int = 0  # with operands that were written into cells, in place of static ones
    cores: int = 0  # that work in it
    core_bytes: int = 0  # into the cores' input registers and out of their accumulators
    home: int = -1
    busy: int = 0
    added: int = 0  # cycles that a router takes to add a part of a sum to another

    @property
    def remote_bytes(self) -> int:
        """Bytes read or written in a resident buffer, at its home."""
        return self.request + self.response if self.home >= 0 else 0


MESSAGES = (Action.SEND, Action.RECEIVE, Action.REDUCE, Action.COLLECT)
"""Those whose operand is a message."""

ACTIONS: dict[Unit, Action] = {
    Unit.PORT: Action.SEND,
    Unit.RECEIVE: Action.RECEIVE,
    Unit.MEMORY: Action.MEMORY,
    Unit.HOST: Action.HOST,
}


def action(instruction: Instruction) -> Action:
    """How an instruction is carried out. On the control unit, one that names a source waits for it, and one that names
    nothing is the end."""
    return action_of(instruction.mnemonic)


def action_of(mnemonic: str) -> Action:
    """How all instructions of a mnemonic are carried out."""
    spec = INSTRUCTIONS[mnemonic]
    if any(k.name == "of" for k in spec.keywords):
        return Action.REDUCE if spec.unit is Unit.PORT else Action.COLLECT
    if spec.unit is Unit.CONTROL:
        return Action.WAIT if any(k.name == "source" for k in spec.keywords) else Action.HALT
    return ACTIONS.get(spec.unit, Action.COMPUTE)


def unit(instruction: Instruction) -> str:
    """The unit of the tile that it occupies: ``vector``, ``core:W0`` … A host call takes the tile's memory path: within
    a tile, loads, stores and host calls keep their order."""
    spec = INSTRUCTIONS[instruction.mnemonic]
    if spec.unit is Unit.CORE:
        return f"core:{next(o for o in instruction.operands if isinstance(o, str))}"
    return Unit.MEMORY.value if spec.unit is Unit.HOST else spec.unit.value


def is_token(instruction: Instruction) -> bool:
    """Whether its messages are tokens: instructions without operands carry no data."""
    return not INSTRUCTIONS[instruction.mnemonic].operands


def carries(instruction: Instruction) -> Carries:
    """What its channels carry."""
    if action(instruction) in (Action.REDUCE, Action.COLLECT):
        return Carries.PARTS
    return Carries.TOKENS if is_token(instruction) else Carries.DATA


class Foreman:
    """Makes out the jobs of one tile's instructions."""

    def __init__(
        self,
        program: Program,
        tile: TileProgram,
        chip: ChipSpec,
        shared: Mapping[str, GlobalBuffer] | None = None,
        units: TileUnits | None = None,
    ) -> None:
        """``shared``: the program's global buffers by name, ``units``: those of the tile, where somebody has them so."""
        self._chip = chip
        self._tile = tile.tile
        self._units = TileUnits(chip, tile.tile) if units is None else units
        self._local = {b.name: b for b in tile.buffers}
        self._global = {g.name: g for g in program.globals} if shared is None else shared
        self._matrices = {m.name: m for m in tile.matrices}
        self._contended = contended(tile)

    @cached_property
    def port(self) -> int:
        """The tile through which this one reaches global memory."""
        return noc.nearest(self._chip, self._tile, noc.memory_ports(self._chip))

    def job(self, instruction: Instruction, env: Mapping[str, int], *, ways: bool = True) -> Job:
        """The job for the variables in ``env``; without ``ways``, no link is billed: :func:`over` does that."""
        spec = INSTRUCTIONS[instruction.mnemonic]
        words = keywords(instruction)
        operands = [self._operand(spec, i, o, env) for i, o in enumerate(instruction.operands)]
        bill = Counter(spec.bill(self._units, *operands, **words))
        shapes = [o for o in operands if isinstance(o, Shape)]
        ranges = self._ranges(spec, instruction, words, env)
        self._bill_buffers(spec, operands, words, bill)
        kind = action(instruction)
        size = shapes[0].bytes if shapes and kind in MESSAGES else 0
        if kind is Action.SEND and ways:
            self._bill_links(bill, size, noc.tree(self._chip, self._tile, destinations(instruction)).links)
        if kind is Action.REDUCE:
            return self._part(instruction, bill, ranges, shapes[0], ways=ways)
        if kind in MESSAGES:
            return Job(noc.packet_cycles(self._chip, size), ranges, bill, bytes=size)
        if kind is Action.MEMORY:
            return self._memory(bill, ranges, self.home(instruction), ways=ways)
        if kind is Action.HOST:
            return Job(max(1, host_cycles(self._chip, bill["host.byte"])), ranges, bill)
        if kind is not Action.COMPUTE:
            return Job(0, ranges, bill)
        cycles = max(1, self._cycles(spec, operands, words, bill))
        busy = spec.busy(self._units, *operands, **words) if spec.busy else cycles
        cores = len({b.core for o in operands if isinstance(o, MatrixDecl) for b in o.blocks})
        macs, moved = _cell_macs(operands), _core_bytes(operands)
        taken = max(1, min(busy, cycles))
        kept = any(isinstance(o, MatrixDecl) and o.key for o in operands)
        counted = (macs, 0) if kept else (0, macs)
        return Job(cycles, ranges, bill, 0, 0, 0, *counted, cores=cores, core_bytes=moved, busy=taken)

    def _part(
        self, instruction: Instruction, bill: Counter[str], ranges: tuple[Range, ...], x: Shape, *, ways: bool
    ) -> Job:
        """A part of a sum. Of the links that carry the sum each is billed to the first of the tiles whose part takes it."""
        of = parts(instruction)
        if ways:
            meeting = noc.meeting(self._chip, of, destinations(instruction)[0])
            self._bill_links(bill, x.bytes, meeting.fresh[of.index(self._tile)])
        lanes = self._chip.noc.reduce.lanes if self._chip.noc.reduce else 1
        added = -(-x.size // lanes)
        return Job(noc.packet_cycles(self._chip, x.bytes), ranges, bill, bytes=x.bytes, added=added)

    def _cycles(
        self, spec: Spec, operands: list[Shape | MatrixDecl], words: dict[str, Value], bill: Counter[str]
    ) -> int:
        if spec.cycles is not None:
            return spec.cycles(self._units, *operands, **words)
        return self._units.lane_cycles(spec.unit.value, bill)

    def home(self, instruction: Instruction) -> int:
        """The tile whose local memory a load, store or gather reaches; -1 if it is global memory."""
        spec = INSTRUCTIONS[instruction.mnemonic]
        views = (o for i, o in enumerate(instruction.operands) if spec.operand(i).kind in GLOBAL)
        return next((self._global[o.buffer].tile for o in views if isinstance(o, View)), -1)

    def _memory(self, bill: Counter[str], ranges: tuple[Range, ...], home: int, *, ways: bool) -> Job:
        """An access to global memory through the nearest port, or to a resident buffer in the tile ``home``: billed
        there as reads and writes of a local buffer, and served at the width of a link."""
        request, response = bill["memory.write"], bill["memory.read"]
        size = request + response
        if ways:
            self._bill_links(bill, size, noc.route(self._chip, self._tile, self.port if home < 0 else home))
        if home < 0:
            cycles = max(1, memory_cycles(self._chip, size))
            return Job(cycles, ranges, bill, request=request, response=response)
        bill["buffer.write_byte"] += bill.pop("memory.write", 0)
        bill["buffer.read_byte"] += bill.pop("memory.read", 0)
        cycles = noc.packet_cycles(self._chip, size)
        return Job(cycles, ranges, bill, request=request, response=response, home=home)

    def _bill_links(self, bill: Counter[str], size: int, links: Sequence[int]) -> None:
        """Bytes over links: within chips by the mesh, from chip to chip by the links between them."""
        crossings = noc.crossings(noc.mesh(self._chip), links)
        bill.update(_carried(size, len(links) - crossings, crossings))

    def _operand(self, spec: Spec, index: int, operand: View | str, env: Mapping[str, int]) -> Shape | MatrixDecl:
        if isinstance(operand, str):
            return self._matrices[operand]
        buffers = self._global if spec.operand(index).kind in GLOBAL else self._local
        return Shape(tuple(max(0, extent(e, env)) for e in operand.shape), buffers[operand.buffer].element)

    def _bill_buffers(
        self, spec: Spec, operands: list[Shape | MatrixDecl], words: dict[str, Value], bill: Counter[str]
    ) -> None:
        for i, shape in enumerate(operands):
            kind = spec.operand(i).kind
            if kind not in LOCAL or not isinstance(shape, Shape):
                continue
            if kind is Kind.READ or (kind is Kind.UPDATE and words.get("accumulate", 1)):
                bill["buffer.read_byte"] += shape.bytes
            if kind is not Kind.READ:
                bill["buffer.write_byte"] += shape.bytes

    def _ranges(
        self, spec: Spec, instruction: Instruction, words: dict[str, Value], env: Mapping[str, int]
    ) -> tuple[Range, ...]:
        found: list[Range] = []
        for i, operand in enumerate(instruction.operands):
            kind = spec.operand(i).kind
            if isinstance(operand, str) and operand in self._contended:
                writes = spec.writes_cells
                places = spans([b.core for b in self._matrices[operand].blocks])
                found += [Range(CELLS + a, CELLS + b, not writes, writes, False) for a, b in places]
            if not isinstance(operand, View) or kind not in LOCAL:
                continue
            buffer = self._local[operand.buffer]
            low, high = span(operand, env)
            item = buffer.element.bytes
            adds = kind is Kind.UPDATE and bool(words.get("accumulate", 0))
            base = buffer.address
            reads = kind is Kind.READ or (kind is Kind.UPDATE and bool(words.get("accumulate", 1)))
            found.append(Range(base + low * item, base + high * item, reads, kind is not Kind.READ, adds))
        return tuple(found)


def over(job: Job, links: int, crossings: int) -> dict[str, int]:
    """The actions of a job of which no link is billed yet, over links within chips and between them."""
    return {**job.actions, **_carried(job.bytes or job.request + job.response, links, crossings)}


def _carried(size: int, links: int, crossings: int) -> dict[str, int]:
    """Actions of bytes that are carried over links."""
    return {"noc.byte_hop": size * links, **({"link.byte": size * crossings} if crossings else {})}


def span(view: View, env: Mapping[str, int]) -> tuple[int, int]:
    """The elements [low, high) between which a view lies in its buffer: its bounding range, not the elements it
    touches. Empty (low = high) if it has none."""
    low = high = view.offset.evaluate(env)
    for size, stride in zip((extent(e, env) for e in view.shape), view.strides, strict=True):
        if size <= 0:
            return low, low
        reach = (size - 1) * stride
        low, high = low + min(0, reach), high + max(0, reach)
    return low, high + 1


def _cell_macs(operands: list[Shape | MatrixDecl]) -> int:
    """rows · inputs · outputs where rows of x go through a matrix: it stands between the accumulator and x."""
    if len(operands) != 3 or not isinstance(operands[1], MatrixDecl) or not isinstance(operands[2], Shape):
        return 0
    return operands[2].rows * operands[1].rows * operands[1].cols


def _core_bytes(operands: list[Shape | MatrixDecl]) -> int:
    """Of an MVM: each block takes its inputs and gives its 32-bit sums, row by row."""
    if not _cell_macs(operands):
        return 0
    matrix, x = operands[1], operands[2]
    assert isinstance(matrix, MatrixDecl)
    assert isinstance(x, Shape)
    taken = sum((b.row_end - b.row) * x.element.bytes + (b.col_end - b.col) * SUM_BYTES for b in matrix.blocks)
    return x.rows * taken
