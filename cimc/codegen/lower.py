"""Mapping → Program: segments lowered tile by tile, ordered by tokens where values cross, buffers given addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.codegen import ahead
from cimc.codegen.balance import exceeded, plans
from cimc.codegen.caches import SHARES, plan
from cimc.codegen.context import Context
from cimc.codegen.dealt import deal
from cimc.codegen.exchange import exchanged, exchanged_region
from cimc.codegen.flow import Flow
from cimc.codegen.held import Held
from cimc.codegen.links import Links, sent
from cimc.codegen.parts import Access, Division, accesses, cut, rewritten
from cimc.codegen.pushed import Crowded
from cimc.codegen.reload import one_by_one, reloads
from cimc.codegen.residence import Stored, settle
from cimc.codegen.rows import RowChooser, Tried, addresses
from cimc.codegen.serving import better_away
from cimc.codegen.sizes import Size
from cimc.codegen.stages import Plan, by_stage
from cimc.codegen.tilecode import TileCode, instruction
from cimc.codegen.tokens import Chunk, order
from cimc.ir.graph import Graph
from cimc.isa.instruction import Repeat, Step
from cimc.isa.program import Buffer, GlobalBuffer, Port, Program, TileProgram
from cimc.mapping.allocate import aligned
from cimc.mapping.mapping import Mapping as Placed
from cimc.mapping.placement import Placement, Segment
from cimc.mapping.region import Region

TURNS = 2
"""How often stages of a region are put, and tiles exchanged (1 to 4 tried on MiniLM, BERT-base and ViT-base: the second time
gains 0.1 to 7 %, then as much is lost as is gained)."""


def lower(
    graph: Graph,
    placed: Placed,
    chip: ChipSpec,
    header: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Program:
    """The program of a mapped graph. Raises the does-not-fit diagnostic if a block of one row exceeds a local buffer."""
    return lowered(graph, placed, chip, header, progress).program


@dataclass(frozen=True)
class Drafts:
    """What was written before the whole program. ``segments``: by segment, its code; ``plans``: those of the region that a batch
    streams through, none if there are none yet."""

    segments: Mapping[int, Tried] = field(default_factory=dict[int, Tried])
    plans: Sequence[Plan] = ()


NO_DRAFTS = Drafts()


def arranged(graph: Graph, placed: Placed, chip: ChipSpec) -> tuple[Placed, Drafts]:
    """The mapping with tiles exchanged where that makes links carry more evenly; and what was written to know it: the code of
    the segments that stay where they are, the plans of a batch that streams (whose other segments stay). Raises STREAM_ROOM."""
    if not placed.choices.exchange:
        return placed, NO_DRAFTS
    if placed.region is not None:
        return _region_arranged(graph, placed, placed.region, chip)
    chooser = RowChooser(Context(graph, placed, chip), chip, frozenset())
    found = exchanged(placed, chip, chooser.draft)
    return found, NO_DRAFTS if placed.caches else Drafts(chooser.unmoved(found.placement))


def _region_arranged(graph: Graph, placed: Placed, region: Region, chip: ChipSpec) -> tuple[Placed, Drafts]:
    """The mapping with tiles of the region exchanged, and its plans. Stages are put by where products are, and tiles exchanged by
    what stages send, so both are done ``TURNS`` times. Raises STREAM_ROOM."""
    context = Context(graph, placed, chip)
    taken = RowChooser(context, chip, frozenset(region.segments)).constants()
    flows = plans(context, region, chip, taken)
    drafts = Drafts(plans=flows)
    sizes = [Size(flows[0].rows, flows[0].group)]
    for turn in range(TURNS):
        if turn:
            context = Context(graph, placed, chip)
            try:
                flows = plans(context, region, chip, taken, sizes)
            except errors.CimcError as e:
                if e.code != errors.STREAM_ROOM.code:
                    raise
                break
        found, moved = exchanged_region(placed, chip, context, flows, taken)
        if found is placed or exceeded(Context(graph, found, chip), chip, moved, taken):
            break
        placed, drafts = found, Drafts(plans=moved)
    return placed, drafts


@dataclass(frozen=True)
class Lowered:
    """A program and what code generation decided. ``rows``: of the blocks of each segment; ``residents``: values between
    segments, and the tile that holds each, None: global memory; ``steps``: each segment's, tile by tile, without tokens;
    ``values``: global buffers, and the values they hold; ``held``: caches in tiles; ``streamed``: as of a
    placement."""

    program: Program
    rows: Mapping[int, int]
    residents: Mapping[str, int | None]
    steps: Mapping[int, Mapping[int, tuple[Step, ...]]]
    values: Mapping[str, str]
    held: Held
    streamed: Mapping[int, tuple[tuple[int, ...], ...]]

    def decided(self, placement: Placement) -> Placement:
        """A placement with what code generation decided beside it."""
        return replace(placement, rows=self.rows, residents=self.residents, streamed=self.streamed)


def lowered(
    graph: Graph,
    placed: Placed,
    chip: ChipSpec,
    header: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
    quick: bool = False,
    drafts: Drafts = NO_DRAFTS,
) -> Lowered:
    """As :func:`lower`, with what was decided. ``quick``: the placement says the rows of all segments, and what does not fit
    need not be told by segment. ``drafts``: of :func:`arranged`. Raises RESIDENT_ROOM and ROWS_TOO_MANY for what a placement
    says, CACHE_ROOM."""

    def attempt(placed: Placed, share: float) -> Lowered:
        return _lowered(graph, placed, chip, header, progress, quick, share, drafts)

    try:
        return _with_caches(placed, attempt)
    except Crowded:
        return _with_caches(replace(placed, choices=replace(placed.choices, push=False)), attempt)


def _with_caches(placed: Placed, attempt: Callable[[Placed, float], Lowered]) -> Lowered:
    """With as much room for caches as there is. Raises Crowded where what is sent to tiles does not fit."""
    for share in SHARES if placed.caches else ():
        try:
            return attempt(placed, share)
        except errors.CimcError as e:
            if e.code != errors.BUFFER_TOO_SMALL.code or share == SHARES[-1]:
                raise
    return attempt(placed, 0)


def _lowered(
    graph: Graph,
    placed: Placed,
    chip: ChipSpec,
    header: Sequence[str],
    progress: Callable[[str], None] | None,
    quick: bool,
    share: float,
    drafts: Drafts,
) -> Lowered:
    """``share``: of a tile's local memory, what caches may take."""
    context = Context(graph, placed, chip)
    if placed.caches:
        context.held = plan(context, chip, share)
    streamed = frozenset(placed.region.segments if placed.region else ())
    pinned = placed.placement.rows
    chooser = RowChooser(context, chip, streamed, drafts.segments)
    flows: Sequence[Plan] = drafts.plans
    if placed.region and not flows:
        flows = plans(context, placed.region, chip, chooser.constants())
    reload = placed.placement.reload is not None
    rows = [pinned[s.index] for s in placed.segments] if quick and not reload else chooser.choose()
    chunks, producers = _emitted(context, chooser, rows, flows, progress)
    try:
        program = _program(context, chip, chunks, producers, header)
    except errors.CimcError as e:
        if e.code == errors.BUFFER_TOO_SMALL.code and any(context.pushes.values()):
            raise Crowded from None
        raise
    values = {name: value for value, name in context.names.items()}
    movable = _movable(context)  # those that were cut are other arrays now
    residents = {values[b.name]: b.tile if b.resident else None for b in program.globals if b.name in movable}
    chosen = {s.index: n for s, n in zip(placed.segments, rows, strict=True)}
    chosen.update((s, plan.rows) for plan in flows for s in streamed)
    return Lowered(program, chosen, residents, _by_segment(chunks), values, context.held, by_stage(flows))


def _emitted(
    context: Context,
    chooser: RowChooser,
    rows: Sequence[int],
    flows: Sequence[Plan],
    progress: Callable[[str], None] | None,
) -> tuple[dict[int, list[Chunk]], dict[str, dict[int, list[int]]]]:
    """The code of all segments, by tile; and by global buffer and segment the tiles that store into it. ``rows``: of a block,
    by segment; ``flows``: the region's."""
    placed = context.mapping
    streamed = placed.region.segments if placed.region else ()
    chunks: dict[int, list[Chunk]] = {}
    producers: dict[str, dict[int, list[int]]] = {}
    for segment in placed.segments:
        if progress:
            progress(f"segment {segment.index + 1} of {len(placed.segments)}")
        marks = {t: len(c.steps) for t, c in context.codes.items()}
        awaited: Mapping[int, Mapping[int, int]] = {}
        if segment.index in streamed:
            stored, awaited = _flow(context, segment, flows, chunks)
        else:
            stored = chooser.emit(context, segment, rows[segment.index])
        for tile, steps in reloads(context, segment, context.chip, chooser.room):
            _insert(chunks.setdefault(tile, []), Chunk(segment.index, steps, reload=True))
        for tile, code in context.codes.items():
            steps = tuple(code.steps[marks.get(tile, 0) :])
            if not steps:
                continue  # values without elements take no instructions
            chunks.setdefault(tile, []).append(Chunk(segment.index, steps, awaited=awaited.get(tile, {})))
            for value in stored.get(tile, ()):
                into = producers.setdefault(context.global_name(value), {})
                into.setdefault(segment.index, []).append(tile)
    begin = [(tile, found[0]) for tile, found in chunks.items() if found[0].reload]
    begin.sort(key=lambda first: first[1].segment)
    for tile, steps in one_by_one([(tile, chunk.steps) for tile, chunk in begin]).items():
        chunks[tile][0].steps = steps
    return chunks, producers


def _by_segment(chunks: Mapping[int, Sequence[Chunk]]) -> dict[int, dict[int, tuple[Step, ...]]]:
    """The steps by segment and tile."""
    found: dict[int, dict[int, tuple[Step, ...]]] = {}
    for tile, of in chunks.items():
        for chunk in of:
            found.setdefault(chunk.segment, {})[tile] = chunk.steps
    return found


def _flow(
    context: Context, segment: Segment, flows: Sequence[Plan], chunks: Mapping[int, Sequence[Chunk]]
) -> tuple[dict[int, frozenset[str]], dict[int, dict[int, int]]]:
    """All of the region, in place of its first segment: what each tile stored, and whose tokens it waits for, of which
    segments."""
    region = context.mapping.region
    stored: dict[int, frozenset[str]] = {}
    awaited: dict[int, dict[int, int]] = {}
    if region is not None and segment.index == region.segments[0]:
        makers = _makers(context, region.waves, chunks)
        for plan in flows:
            flow = Flow(context, plan)
            for tile, values in flow.emit(makers=makers).items():
                stored[tile] = stored.get(tile, frozenset()) | values
            for tile, sources in flow.awaited.items():
                awaited.setdefault(tile, {}).update((s, chunks[s][0].segment) for s in sources)
        for source in sorted(context.ahead):
            if to := [tile for tile, of in awaited.items() if source in of]:
                chunks[source][0].steps = ahead.signalled(chunks[source][0].steps, to)
    return stored, awaited


def _makers(context: Context, samples: int, chunks: Mapping[int, Sequence[Chunk]]) -> dict[str, list[int]]:
    """By global array, the tiles that store it sample by sample before the region."""
    found: dict[str, list[int]] = {}
    sizes = context.sample_sizes(samples)
    for tile in sorted(context.ahead):
        if len(chunks[tile]) == 1:
            for name in ahead.stored(chunks[tile][0].steps, samples, sizes):
                found.setdefault(name, []).append(tile)
    return found


def _insert(chunks: list[Chunk], reload: Chunk) -> None:
    """Put what writes a matrix behind the last steps that use cores, or write them."""
    at = next((i for i in range(len(chunks), 0, -1) if chunks[i - 1].reload or _uses_cores(chunks[i - 1].steps)), 0)
    chunks.insert(at, reload)


def _uses_cores(steps: Sequence[Step]) -> bool:
    return any(_uses_cores(s.body) if isinstance(s, Repeat) else s.mnemonic == "mvm" for s in steps)


# --- assembly ----------------------------------------------------------------------------------
def _program(
    context: Context,
    chip: ChipSpec,
    chunks: dict[int, list[Chunk]],
    producers: Mapping[str, Mapping[int, Sequence[int]]],
    header: Sequence[str],
) -> Program:
    graph = context.graph
    inputs = tuple(Port(v, context.global_name(v)) for v in graph.inputs)
    names = graph.output_names or graph.outputs
    outputs = tuple(Port(n, context.global_name(v)) for n, v in zip(names, graph.outputs, strict=True))
    movable, said = _movable(context), context.placement.residents
    shapes = {context.homes[v].buffer: graph.type(v).shape for v in graph.outputs}
    pinned = {name: said[v] for v, name in context.names.items() if v in said and name in movable}
    buffers = [
        GlobalBuffer(
            name,
            graph.type(value).element,
            shapes.get(value, graph.type(value).shape),
            value if value in graph.constants else "",
            pieces=context.held.pieces(value),
        )
        for value, name in context.names.items()
    ]
    free = [b for b in buffers if b.name in movable and b.name not in pinned]
    plans = _cuts(free, chunks) if context.mapping.choices.parts else {}
    arrays: list[GlobalBuffer] = []
    for buffer in buffers:
        arrays += (buffer,) if buffer.name not in plans else plans[buffer.name].arrays(buffer)
    for tile, found in chunks.items():
        for chunk in found:
            chunk.steps = rewritten(tile, chunk.steps, plans)
    order(chunks, producers)
    movable = frozenset(b.name for b in arrays if b.name in movable or b.name.partition(".")[0] in plans)
    tiles = tuple(_tile(context.codes[t], chunks[t], chip) for t in sorted(chunks))
    movable -= better_away([b for b in arrays if b.name in movable and b.name not in pinned], tiles, chip)
    known = _accesses(chunks)
    arrays = [b for b in arrays if b.name in known or b.name.partition(".")[0] not in plans]  # nobody wants the others
    stored = [Stored(b, tuple(a for a in known.get(b.name, ()) if a)) for b in arrays]
    arrays = list(settle(stored, movable, tiles, chip, pinned, _links(context, chunks)))
    return Program(chip.name, tuple(arrays), inputs, outputs, tiles, (), tuple(header))


def _links(context: Context, chunks: Mapping[int, Sequence[Chunk]]) -> dict[int, Links]:
    """What messages the links carry, by segment."""
    found: dict[int, Links] = {}
    for tile in sorted(chunks):
        sizes = {name: room.element.bytes for name, room in context.codes[tile].rooms.items()}
        for chunk in chunks[tile]:
            sent(found.setdefault(chunk.segment, Links(context.chip)), tile, chunk.steps, sizes)
    return found


def _accesses(chunks: Mapping[int, Sequence[Chunk]]) -> dict[str, list[Access | None]]:
    """All accesses to global arrays, by the arrays' names."""
    found: dict[str, list[Access | None]] = {}
    for tile in sorted(chunks):
        for chunk in chunks[tile]:
            for name, access in accesses(tile, chunk.steps, chunk.segment):
                found.setdefault(name, []).append(access)
    return found


def _cuts(buffers: Sequence[GlobalBuffer], chunks: Mapping[int, Sequence[Chunk]]) -> dict[str, Division]:
    """The arrays that are dealt out or cut, by name."""
    known = _accesses(chunks)
    found: dict[str, Division] = {}
    for buffer in buffers:
        of_buffer = [a for a in known.get(buffer.name, ()) if a is not None]
        if len(of_buffer) < len(known.get(buffer.name, ())):
            continue
        plan = deal(buffer, of_buffer) or cut(buffer, of_buffer)
        if plan is not None:
            found[buffer.name] = plan
    return found


def _movable(context: Context) -> frozenset[str]:
    """Global buffers of values between segments: they may lie in tiles."""
    fixed = {*context.graph.inputs, *context.outputs, *context.graph.constants}
    kept = context.mapping.choices.residence
    return frozenset(name for value, name in context.names.items() if kept and value not in fixed)


def _tile(code: TileCode, chunks: Sequence[Chunk], chip: ChipSpec) -> TileProgram:
    steps: list[Step] = []
    ends: list[int] = []
    for chunk in chunks:
        steps.extend(chunk.ordered())
        ends.append(len(steps))
    steps.append(instruction("halt"))
    address = 0
    found: list[Buffer] = []
    for name, room in code.rooms.items():
        if room.kept:
            found.append(Buffer(name, room.element, room.shape, address, room.key, room.state))
            address += aligned(room.bytes)
    placed, peak = addresses(code, steps, ends, address)
    if peak > chip.tile(code.tile).local_bytes:
        placed, peak = addresses(code, steps, [], address)
    if peak > chip.tile(code.tile).local_bytes:
        raise errors.BUFFER_TOO_SMALL(
            chip=chip.name,
            tile=code.tile,
            kind=chip.kind(code.tile),
            need=peak,
            have=chip.tile(code.tile).local_bytes,
            layer="several layers",
        )
    found += [Buffer(n, code.rooms[n].element, code.rooms[n].shape, a) for n, a in placed.items()]
    return TileProgram(code.tile, tuple(found), tuple(code.matrices.values()), tuple(steps))
