"""How many rows the blocks of a segment have: as many as are worth it, as far as buffers allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.codegen.context import Context
from cimc.codegen.overlap import PLACES
from cimc.codegen.push import Push
from cimc.codegen.pushed import Crowded, Taken, receive, takers
from cimc.codegen.regions import assemble, host
from cimc.codegen.spread import Spread, sent_to
from cimc.codegen.stream import Stream
from cimc.codegen.taken import take
from cimc.codegen.tilecode import TileCode
from cimc.codegen.written import Written, wanted_rows
from cimc.isa.instruction import Step
from cimc.isa.program import Buffer
from cimc.mapping.allocate import aligned, allocate, lives
from cimc.mapping.lanes import INPUT_BITS
from cimc.mapping.placement import Placement, Segment, Style
from cimc.mapping.segment import MATRIX_OPS, product

STREAM_BLOCKS = 128
"""Blocks at most that a segment's rows are cut into over all its replicas: more make programs long (64: the same for
MiniLM, whose blocks BLOCK_CYCLES sets)."""

AWAY_BLOCKS = 32
"""The same where all values pass through global memory, whose every access waits (estimated)."""

REPLICA_BLOCKS = 8
"""Blocks that each replica may have in any case: a pipeline of fewer is mostly filled and drained (estimated)."""

BLOCK_CYCLES = 128
"""Cycles that a block's rows are to take in the cores, at least (of 64, 128 and 256 the best on the presets): with fewer,
messages take longer than products; with more, a pipeline's first stage is done long before its last one begins."""

MAX_STREAM_ROWS, MAX_SPREAD_ROWS = 32, 128
"""Rows of a block at most, by the segment's style: buffers hold blocks (estimated)."""

TIGHTEST = {Style.SPREAD: 1, Style.STREAM: len(PLACES) - 1}
"""How often a segment's code can be made to take less memory."""

REGION_SHARE = 4
"""An assembled region moves in pieces of at most a part in so many of the local buffer, beside what is resident (estimated)."""


def _emit(context: Context, segment: Segment, rows: int, chip: ChipSpec) -> dict[int, frozenset[str]]:
    if segment.nodes[0].outputs[0] in context.held.values:
        return {}  # whoever reads the cache adds its rows
    if segment.style is Style.STREAM:
        stored: dict[int, frozenset[str]] = {}
        copies: list[Taken] = []
        for replica in range(len(context.placement.homes[segment.index])):
            stream = Stream(context, segment, context.tails(segment), rows, replica)
            for tile, values in stream.emit().items():
                stored[tile] = stored.get(tile, frozenset()) | values
            copies.append(stream.taken)
        receive(context.codes, copies)
        return stored
    if segment.index in context.placement.least_rows:
        return Written(context, segment, context.tails(segment), rows).emit()
    if segment.style is Style.SPREAD:
        return Spread(context, segment, context.tails(segment), rows).emit()
    if segment.style is Style.HOST:
        return host(context, segment)
    tile = context.placement.tiles[segment.index][0]
    return assemble(context, segment, chip.tile(tile).local_bytes // REGION_SHARE)


@dataclass(frozen=True)
class Tried:
    """A segment's code in a context of its own, in blocks of so many rows; what each tile stores, and operands that are sent."""

    rows: int
    context: Context
    stored: dict[int, frozenset[str]]
    sent: tuple[Push, ...] = ()


class RowChooser:
    """Rows per block of each segment: as many as wanted, halved until every tile's buffers fit. ``drafts``: by segment, what a
    first trial would come to."""

    def __init__(
        self,
        shared: Context,
        chip: ChipSpec,
        streamed: frozenset[int],
        drafts: Mapping[int, Tried] = MappingProxyType({}),
    ) -> None:
        self.shared = shared
        self.drafts = dict(drafts)
        self.streamed = streamed
        self.placed = shared.mapping
        self.chip = chip
        self.room: dict[int, int] = {}  # bytes of local buffers beside the constants
        self.tried: dict[int, Tried] = {}  # by segment: the last trial

    def constants(self) -> dict[int, int]:
        """Bytes that constants of the segments that do not stream take on each tile."""
        return _kept(self._trial(segment, 1) for segment in self.placed.segments)

    def choose(self) -> list[int]:
        """The rows of each segment's blocks. Raises BUFFER_TOO_SMALL for a segment that does not fit with blocks of one row,
        ROWS_TOO_MANY for rows that a placement says, Crowded where what is sent to tiles does not fit."""
        trials = [self._trial(s, self._wanted(s)) for s in self.placed.segments]
        self.room = room = {t: self.chip.tile(t).local_bytes - size for t, size in _kept(trials).items()}
        return [self._rows(s, trial, room) for s, trial in zip(self.placed.segments, trials, strict=True)]

    def _trial(self, segment: Segment, rows: int) -> Context:
        draft = self.drafts.pop(segment.index, None)
        if draft is not None and draft.rows == rows and draft.sent == self._sent(segment):
            self.tried[segment.index] = draft
            return draft.context
        context = self.shared.apart()
        if segment.index not in self.streamed:
            stored = _emit(context, segment, rows, self.chip)
            self.tried[segment.index] = Tried(rows, context, stored, self._sent(segment))
        return context

    def draft(self, segment: Segment) -> Context:
        """A segment's code alone, with as many rows in a block as it is to have."""
        return self._trial(segment, self._wanted(segment))

    def unmoved(self, placement: Placement) -> dict[int, Tried]:
        """The drafts of segments that a placement leaves where they were drafted: their code stays the same, unless tiles that
        they send operands to are others."""
        segments = (s for s in self.placed.segments if s.index in self.tried)
        return {s.index: self.tried[s.index] for s in segments if _stays(s, self.placed.placement, placement)}

    def emit(self, context: Context, segment: Segment, rows: int) -> dict[int, frozenset[str]]:
        """Append a segment's code in blocks of so many rows; returns what each tile stored."""
        tried = self.tried.pop(segment.index, None)
        if tried is None or tried.rows != rows:
            return _emit(context, segment, rows, self.chip)
        take(tried.context, context)
        return tried.stored

    def _rows(self, segment: Segment, first: Context, room: Mapping[int, int]) -> int:
        wanted = self.placed.placement.rows.get(segment.index, 0)
        if wanted:
            return self._exactly(segment, wanted, room)
        wanted = self._wanted(segment)
        for apart in (True, False):
            rows = wanted
            while rows > (self._least(segment, wanted) if apart else 1):
                if not self._over(first if rows == wanted else self._trial(segment, rows), room, apart):
                    return rows
                rows //= 2
        over = self._over(self._trial(segment, 1), room, False)
        if over and self._tightened(segment):
            return self._rows(segment, self._trial(segment, wanted), room)
        if over:
            tile, need = over
            have = self.chip.tile(tile).local_bytes
            raise errors.BUFFER_TOO_SMALL(
                chip=self.chip.name,
                tile=tile,
                kind=self.chip.kind(tile),
                need=need + have - room.get(tile, have),  # beside the constants of all segments
                have=have,
                layer=segment.nodes[0].origin,
            )
        return 1

    def _tightened(self, segment: Segment) -> bool:
        """Make a segment's code take less memory, if it can be."""
        if self._sent(segment) or sent_to(self.shared, segment):
            raise Crowded
        level = self.shared.tight.get(segment.index, 0) + 1
        if level > TIGHTEST.get(segment.style, 0):
            return False
        self.shared.tight[segment.index] = level
        return True

    def _sent(self, segment: Segment) -> tuple[Push, ...]:
        """Operands that a segment sends to the tiles of the next."""
        found = takers(self.shared, segment) if segment.style is Style.STREAM else []
        return tuple(push for s in found for push in sent_to(self.shared, s).values())

    def _least(self, segment: Segment, wanted: int) -> int:
        """Rows that must be exceeded by blocks whose buffers share no bytes. Where operands are written into cells, the
        cores' pipeline fills anew for each block: there, few rows soon cost more than buffers that wait for each other."""
        return wanted // (4 if segment.index in self.placed.placement.least_rows else 8)

    def _exactly(self, segment: Segment, rows: int, room: Mapping[int, int]) -> int:
        """The rows that the placement says, if they fit."""
        over = self._over(self._trial(segment, rows), room, False)
        if over and self._tightened(segment):
            return self._exactly(segment, rows, room)
        if over:
            tile, need = over
            have = room.get(tile, 0)
            raise errors.ROWS_TOO_MANY(segment=segment.index, rows=rows, tile=tile, need=need, have=have)
        return rows

    def _wanted(self, segment: Segment) -> int:
        if segment.style is Style.STREAM:
            replicas = len(self.placed.placement.homes[segment.index])
            most_blocks = STREAM_BLOCKS if self.placed.choices.residence else AWAY_BLOCKS
            blocks = max(REPLICA_BLOCKS, most_blocks // replicas)
            wanted = max(product(segment.domain) // replicas // blocks, self._worth(segment))
            wanted, most = min(wanted, product(segment.domain) // replicas // REPLICA_BLOCKS), MAX_STREAM_ROWS
        elif segment.index in self.placed.placement.least_rows:
            wanted, most = wanted_rows(self.placed.placement, segment), MAX_STREAM_ROWS
        elif segment.style is Style.SPREAD:
            wanted, most = product(segment.domain), MAX_SPREAD_ROWS
        else:
            return 1
        return 1 << (max(1, min(wanted, most)).bit_length() - 1)

    def _worth(self, segment: Segment) -> int:
        """Rows that keep a core of a segment busy for BLOCK_CYCLES."""
        placement = self.placed.placement
        matrix = next(n for n in segment.nodes if n.op in MATRIX_OPS).outputs[0]
        units = TileUnits(self.chip, placement.matrices[matrix][0].parts[0].tile)
        return -(-BLOCK_CYCLES // max(1, units.mvm_interval(INPUT_BITS)))

    @staticmethod
    def _over(trial: Context, room: Mapping[int, int], apart: bool) -> tuple[int, int] | None:
        """The first tile whose buffers exceed its room, and the bytes it would need beside the constants. ``apart``: each
        buffer with bytes of its own."""
        for tile, code in sorted(trial.codes.items()):
            if apart:
                peak = sum(aligned(room.bytes) for room in code.rooms.values() if not room.kept)
            else:
                peak = addresses(code, code.steps, [], 0)[1]
            if peak > room.get(tile, 0):
                return tile, peak
        return None


def _kept(trials: Iterable[Context]) -> dict[int, int]:
    """Bytes that the constants of all segments take on each tile: those that several read, once."""
    found: dict[int, dict[str, int]] = {}
    for trial in trials:
        for tile, code in trial.codes.items():
            kept = ((room.key or name, aligned(room.bytes)) for name, room in code.rooms.items() if room.kept)
            found.setdefault(tile, {}).update(kept)
    return {tile: sum(kept.values()) for tile, kept in found.items()}


def _stays(segment: Segment, before: Placement, after: Placement) -> bool:
    """Whether all of a segment's work is on the tiles it was on."""
    index = segment.index
    if before.homes[index] != after.homes[index] or before.beside.get(index) != after.beside.get(index):
        return False
    matrices = (n.outputs[0] for n in segment.nodes if n.op in MATRIX_OPS)
    return all(before.matrices[m] == after.matrices[m] for m in matrices)


def addresses(code: TileCode, steps: Sequence[Step], ends: Sequence[int], base: int) -> tuple[dict[str, int], int]:
    """Addresses of a tile's buffers other than constants, and the peak. ``ends``: where segments end in the steps; buffers
    of one segment share no bytes then, so that nothing has to wait for a buffer to be done with."""
    buffers = [Buffer(n, r.element, r.shape, 0) for n, r in code.rooms.items() if not r.kept]
    return allocate({b.name: b.bytes for b in buffers}, lives(steps, buffers, ends), base)
