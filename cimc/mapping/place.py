"""Blocks to cores, vector work to tiles: greedy, in the order of execution, along a snake through the mesh.

A matrix is placed column block by column block, so that the partial sums of a column are added inside one tile wherever its
row blocks fit. Each vector stage of a segment starts on tiles of its own while there are enough, because a tile's stream is
in order and would make one stage wait for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from cimc import errors
from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.ir.graph import Graph, Node
from cimc.isa.instruction import Unit
from cimc.isa.operands import Element
from cimc.mapping.beside import column_tiles, columns_aside, companions
from cimc.mapping.brought import Brought
from cimc.mapping.chips import between, chips_of, near_memory, on_chips, snake
from cimc.mapping.choices import Choices
from cimc.mapping.fill import LOOSE, Cores, Grid, Packing, fill
from cimc.mapping.lanes import bands, columns_each, columns_time, lanes, lanes_together, pace, sharing, worked_off
from cimc.mapping.layout import stored_outputs
from cimc.mapping.patches import Pace
from cimc.mapping.placement import PlacedMatrix, Placement, Segment, Style
from cimc.mapping.regions import assembling, of_other_copies, off_matrices
from cimc.mapping.replicas import further, grown
from cimc.mapping.rounds import in_turns
from cimc.mapping.segment import MATRIX_OPS, shares
from cimc.mapping.short import too_few_cores
from cimc.mapping.staging import Staging
from cimc.mapping.stretch import stretched
from cimc.mapping.sums import SumsAt
from cimc.mapping.traffic import FreeTiles, Traffic
from cimc.mapping.units import tiles_with, units_needed
from cimc.mapping.written import Writing, weight_tiles
from cimc.ops.layout import integer

MIN_REPLICA_ROWS = 8
"""Rows of a segment that are worth a copy of its weights: with fewer, filling the pipeline takes longer than it saves
(estimated; 4 and 16: the same for MiniLM)."""

LEAVING = 8
"""Times as long as a matrix takes for its products that one link takes to carry them: then it stands where many links lead to
global memory (estimated: of the models here only vocabularies' logits do; 4 and 16: the
same for GPT-2)."""

MAX_REPLICAS = 64
"""Copies of a segment's weights (estimated: they all read what one tile or memory serves; 16 and 256: the same for
MiniLM)."""

EMPTY: Mapping[int, int] = MappingProxyType({})


class _Placer:
    """Places the matrices of all segments."""

    def __init__(
        self,
        graph: Graph,
        segments: Sequence[Segment],
        chip: ChipSpec,
        precision: str,
        choices: Choices,
        inside_only: frozenset[int],
        brought: Brought,
    ) -> None:
        self.graph = graph
        self.lanes = choices.lanes
        self.sums: SumsAt = choices.sums
        self.across = choices.optimize == "throughput"
        self.segments = segments
        self.chip = chip
        self.precision = precision
        self.tiles_by_units: dict[frozenset[Unit], list[int]] = {}
        self.staging = Staging(graph, segments, chip, inside_only, brought)
        self.beside: dict[int, tuple[dict[int, int], ...]] = {}
        self.crowded: set[int] = set()
        self.said: Mapping[int, int] = EMPTY
        self.writing = Writing(graph, segments, chip, units_needed)
        # The products of each segment and stage: it sends to their tiles, and the next stage receives from them.
        self.products: dict[int, dict[int, list[Node]]] = {}
        for segment, node in self.mvms():
            of = self.products.setdefault(segment.index, {})
            of.setdefault(self.staging.stages[node.outputs[0]], []).append(node)
        self.leaving = {self.staging.shards.get(o) for o in stored_outputs(graph)}

    def replicas(self, wanted: int) -> dict[int, int]:
        """Copies of each STREAM segment: as many as wanted, but none with fewer rows than are worth a copy."""
        return {s.index: self._possible(s, wanted) for s in self.segments if s.style is Style.STREAM}

    def _possible(self, segment: Segment, wanted: int) -> int:
        said = self.said.get(segment.index)
        return said or len(shares(segment.domain, max(1, min(wanted, segment.rows // MIN_REPLICA_ROWS))))

    def growth(self, copies: Mapping[int, int]) -> list[tuple[int, int]]:
        """Further copies, in the order in which they pay (:func:`cimc.mapping.replicas.further`). No more than can have tiles
        of their own for their vector stages: those would wait for each other."""
        cores: dict[int, int] = {}
        for segment, node in self.mvms():
            cores[segment.index] = cores.get(segment.index, 0) + self._blocks(node)
        have = sum(self.chip.tile(t).cores for t in self.weight_tiles())
        budget = have - sum(cores[s] * n for s, n in copies.items() if s in cores)
        most = {s.index: self.most_copies(s) for s in self.segments if s.index in cores}
        return further(self.segments, copies, cores, budget, most, self._possible)

    def most_copies(self, segment: Segment) -> int:
        """Copies of a segment at most whose vector stages have tiles of their own."""
        return min(MAX_REPLICAS, len(self._able(segment)) // self._tiles_each(segment))

    def matrices(self, replicas: Mapping[int, int], packing: Packing) -> dict[str, tuple[PlacedMatrix, ...]] | None:
        """All matrices on cores, copy by copy, or None if the tiles run out."""
        cim = self.weight_tiles()
        if not cim:
            return None if self.mvms() else {}
        capacity = self.chip.tile(cim[0]).cores
        beside = Cores(near_memory(self.chip, snake(self.chip, cim)), capacity)
        grids = self._leaving(replicas, beside) if packing in LOOSE else {}
        taken = frozenset(beside.tiles[: beside.at + 1] if grids else ())
        cores = Cores(snake(self.chip, (t for t in cim if t not in taken), self.across, self._bands()), capacity)
        placed: dict[str, list[PlacedMatrix]] = {}
        need = sum(replicas[s.index] * self._blocks(n) for s, n in self.mvms())
        last = (-1, -1, -1)
        for segment, replica, node in self._copies(replicas):
            out, grid = node.outputs[0], self.grid(node)
            if (out, replica) in grids:
                placed.setdefault(out, []).append(self._placed(node, replica, grids[out, replica]))
                need -= self._blocks(node)
                continue
            now = (segment.index, replica, self.staging.stages[out])
            room = packing in LOOSE or (packing is Packing.CLOSE and cores.left >= need)
            fresh = now != last and cores.used and room
            if (fresh or not cores.free) and not cores.next_tile():
                return None
            if packing in LOOSE and now != last and not self.across:
                of = self.products[segment.index][now[2]]
                most = worked_off(self.chip, cim[0]) if packing is Packing.WIDE else 0
                grids_of = [(self.grid(n), self.staging.work.get(n.outputs[0], 1.0)) for n in of]
                cores.most, cores.columns = columns_each(grids_of, capacity, most), 0
            last = now
            need -= self._blocks(node)
            if cores.at >= len(cores.tiles) or not fill(cores, grid, packing is Packing.TIGHT, self._pace(grid)):
                return None
            placed.setdefault(out, []).append(self._placed(node, replica, grid))
        return {value: tuple(copies) for value, copies in placed.items()}

    def _pace(self, grid: Grid) -> Pace:
        """How soon rows of a matrix may follow each other."""
        return pace(self.chip, self.weight_tiles()[0], (grid.block_rows, grid.block_cols), self.sums, self.across)

    def _bands(self) -> int:
        """Columns of the mesh that the snake goes down together."""
        found = [self.grid(n) for _, n in self.mvms()]
        return bands(self.chip, self.weight_tiles()[0], found, self._pace(found[0])) if found else 1

    def _placed(self, node: Node, replica: int, grid: Grid) -> PlacedMatrix:
        return PlacedMatrix(
            node.outputs[0], replica, node.inputs[1], grid.rows, grid.cols, self.precision, tuple(grid.parts)
        )

    def _leaving(self, replicas: Mapping[int, int], cores: Cores) -> dict[tuple[str, int], Grid]:
        """The copies of matrices whose products leave for global memory by so many bytes that one link takes far longer
        than the cores, on tiles of their own; none if these do not suffice."""
        found: dict[tuple[str, int], Grid] = {}
        for segment, replica, node in self._copies(replicas):
            if node.outputs[0] not in self.leaving:
                continue
            cycles = self.graph.type(node.outputs[0]).size * Element.F32.bytes / self.chip.noc.link_bytes_per_cycle
            interval = TileUnits(self.chip, cores.tiles[0]).mvm_interval(
                self.graph.type(node.inputs[0]).element.bytes * 8
            )
            if cycles > LEAVING * segment.rows * interval:
                grid = found[node.outputs[0], replica] = self.grid(node)
                if not fill(cores, grid, False, self._pace(grid)):
                    return {}
        return found

    def at_ports(self, replicas: Mapping[int, int], matrices: Mapping[str, Sequence[PlacedMatrix]]) -> frozenset[str]:
        """Of placed matrices those that stand near memory ports because their products leave for global memory."""
        cim = self.weight_tiles()
        beside = Cores(near_memory(self.chip, snake(self.chip, cim)), self.chip.tile(cim[0]).cores if cim else 0)
        grids = self._leaving(replicas, beside) if cim else {}
        names = frozenset(out for out, _ in grids)
        there = {part.tile for name in names for m in matrices[name] for part in m.parts}
        return names if there == {part.tile for grid in grids.values() for part in grid.parts} else frozenset()

    def weight_tiles(self) -> list[int]:
        """Tiles with cores that weights may be on."""
        return [t for t in weight_tiles(self.chip) if t not in self.writing.reserved]

    def reserve(self, replicas: Mapping[int, int]) -> None:
        """Keep tiles free of weights for operands that are written, if both could be on the same ones: as many as keep busy,
        but no more than half of those that are left, and those at the end of the snake."""
        tiles, count = self.writing.shared(), self.writing.wanted()
        if not tiles:
            return
        alone = self.matrices(replicas, Packing.APART) or {}
        used = {part.tile for copies in alone.values() for m in copies for part in m.parts}
        count = min(count, max(1, (len(tiles) - len(used)) // 2))
        for packing in Packing:
            for kept in (count >> k for k in range(count.bit_length())):
                self.writing.reserved = frozenset(tiles[-kept:])
                if self.matrices(replicas, packing) is not None:
                    return

    def _copies(self, replicas: Mapping[int, int]) -> Iterator[tuple[Segment, int, Node]]:
        for segment in self.segments:
            nodes = [n for n in segment.nodes if n.op in MATRIX_OPS]
            for replica in range(replicas.get(segment.index, 0)):
                yield from ((segment, replica, n) for n in nodes)

    def mvms(self) -> list[tuple[Segment, Node]]:
        """The static matmuls with their segments; one of no rows stands in none, and needs no cells."""
        streams = [s for s in self.segments if s.style is Style.STREAM]
        return [(s, n) for s in streams for n in s.nodes if n.op in MATRIX_OPS]

    def grid(self, node: Node) -> Grid:
        """A static matmul's weights, cut into blocks."""
        rows, cols = self.graph.type(node.inputs[1]).shape
        return Grid(rows, cols, integer(node, "rows"), integer(node, "cols"))

    def _blocks(self, node: Node) -> int:
        grid = self.grid(node)
        return grid.down * grid.across

    def tiles(self, matrices: Mapping[str, tuple[PlacedMatrix, ...]]) -> dict[int, tuple[int, ...]]:
        """Tiles of the segments that are no STREAM, on the chips of the matrices before and after if there are any."""
        found: dict[int, tuple[int, ...]] = {}
        turn = 0
        beside = between(self.chip, self.segments, matrices)
        for segment in self.segments:
            if segment.style is Style.HOST:
                found[segment.index] = (on_chips(self.chip, noc.memory_ports(self.chip), beside[segment.index])[0],)
                continue
            if segment.style is Style.STREAM:
                continue
            if segment.index in self.writing.tiles:
                found[segment.index] = tuple(on_chips(self.chip, self.writing.of(segment), beside[segment.index]))
                continue
            able = on_chips(self.chip, self._able(segment), beside[segment.index])
            if segment.style is Style.SPREAD:
                count = sharing(
                    self.graph, segment, self.chip.tile(able[0]), len(able), self.chip.memory.bytes_per_cycle
                )
                first = turn if count < len(able) else 0
                found[segment.index] = tuple(able[(first + i) % len(able)] for i in range(count))
                turn += count % len(able)
                continue
            found[segment.index] = assembling(self.graph, segment, able, turn)
            turn += len(found[segment.index])
        return found

    def homes(
        self, replicas: Mapping[int, int], matrices: Mapping[str, tuple[PlacedMatrix, ...]]
    ) -> dict[int, tuple[tuple[tuple[int, ...], ...], ...]]:
        """Tiles of the vector stages of STREAM segments."""
        indexed = ((s.index, s) for s in self.segments if s.style is Style.STREAM)
        return {i: tuple(self._stage_tiles(s, replicas[i], matrices)) for i, s in indexed}

    def _stage_tiles(
        self, segment: Segment, replicas: int, matrices: Mapping[str, tuple[PlacedMatrix, ...]]
    ) -> Iterator[tuple[tuple[int, ...], ...]]:
        """For each replica the tiles of its stages: those free ones to which rows come over links that carry least;
        when they run out, all are free again."""
        least = replicas * self.staging.count(segment)
        able = on_chips(self.chip, self._able(segment), chips_of(self.chip, segment, matrices), least)
        able = off_matrices(able, segment, matrices, least)
        columns = columns_aside(segment, self.staging.aside, self.staging.shards, matrices)
        others, stage_count = max((len(c) for c in columns), default=0), self.staging.count(segment)
        if others and len(able) < least + (replicas * others if replicas > 1 else 1):
            self.crowded.add(segment.index)
        products = {stage: [n.outputs[0] for n in of] for stage, of in self.products.get(segment.index, {}).items()}
        each = len(able) // replicas - others
        counts = lanes(self.staging.elements(segment), max(stage_count, each), self.lanes)
        apart = self.across or self.chip.tile(self._able(segment)[0]).cores > 0
        together = 0 if apart else lanes_together(stage_count, each, self.lanes)
        others_of = of_other_copies(segment, matrices, replicas)
        traffic = Traffic(self.chip)
        free = FreeTiles(able, traffic)
        companies: list[dict[int, int]] = []
        for replica in range(replicas):
            if others:
                free.refill(stage_count + 1)
                partners = companions(columns[replica], free.left, stage_count, traffic)
                free.left = [t for t in free.left if t not in partners.values()]
                companies.append(partners)
            made = {stage: [matrices[v][replica] for v in of] for stage, of in products.items()}
            if together:
                flows = column_tiles(matrix for of in made.values() for matrix in of)
                yield (free.take(flows, together),) * stage_count
                continue
            sources = {stage: column_tiles(of) for stage, of in made.items()}
            yield tuple(
                free.take(sources.get(stage - 1) or sources.get(stage, {}), count, others_of[replica])
                for stage, count in enumerate(counts)
            )
        if companies:
            self.beside[segment.index] = tuple(companies)

    def narrows(self) -> bool:
        """Whether tiles may get less columns of products, so that they can work them off."""
        return not self.across and self.overworked()

    def overworked(self) -> bool:
        """Whether a tile may have more columns of products than it can work off while its cores do the next row."""
        tiles = self.weight_tiles()
        grids = [(self.grid(n), self.staging.work.get(n.outputs[0], 1.0)) for _, n in self.mvms()]
        if not tiles or not grids:
            return False
        widest = max(self.chip.tile(tiles[0]).cores // grid.down * grid.block_cols * work for grid, work in grids)
        return widest > worked_off(self.chip, tiles[0])

    def time(self, matrices: Mapping[str, tuple[PlacedMatrix, ...]], copies: Mapping[int, int]) -> int:
        """Cycles of all segments' rows, estimated by what tiles have to work off."""
        return columns_time(
            self.chip, self.weight_tiles()[0], self.segments, self.staging.stages, matrices, copies, self.staging.work
        )

    def _able(self, segment: Segment) -> list[int]:
        """Tiles that can do a segment's vector work, and that on columns beside their products."""
        there = self.staging.shards.keys() - self.staging.aside
        local = [n for n in segment.nodes if n.op not in MATRIX_OPS and n.outputs[0] not in there]
        units = units_needed(local)
        if units not in self.tiles_by_units:
            self.tiles_by_units[units] = snake(self.chip, tiles_with(self.chip, units), self.across)
        return self.tiles_by_units[units]

    def _tiles_each(self, segment: Segment) -> int:
        """Tiles one copy takes of those able to do its vector work, so that its matrices need not share theirs."""
        shared = self.chip.tile(self._able(segment)[0]).cores
        return self.staging.count(segment) + (len(self.products.get(segment.index, {})) if shared else 0)


def place(
    graph: Graph,
    segments: Sequence[Segment],
    chip: ChipSpec,
    precision: str,
    choices: Choices,
    inside_only: frozenset[int] = frozenset(),
    said: Mapping[int, int] = EMPTY,
    brought: Brought = frozenset(),
) -> Placement:
    """Tiles and cores for everything. ``inside_only``: segments in which no columns go to tiles beside their own; those
    without tiles to spare for it join them. ``said``: segments with exactly so many copies of their weights. ``brought``:
    operands that tiles of products are brought. Raises the does-not-fit diagnostic with what is short."""
    inside_only = inside_only if choices.aside and not choices.reload else frozenset(s.index for s in segments)
    placer = _Placer(graph, segments, chip, precision, choices, inside_only, brought)
    placer.said = said
    single = placer.replicas(choices.replicas or 1)
    placer.reserve(single)
    more = [] if choices.replicas else placer.growth(single)
    best, copies = _most_copies(placer, single, more, Packing.APART)
    wide, fewer = _most_copies(placer, single, more, Packing.WIDE) if placer.narrows() else (None, copies)
    if best is not None and wide is not None and placer.time(wide, fewer) < placer.time(best, copies):
        best, copies = wide, fewer
    attempts = (placer.matrices(single, packing) for packing in (Packing.CLOSE, Packing.TIGHT))
    matrices = best if best is not None else next((m for m in attempts if m is not None), None)
    if matrices is not None:
        if choices.optimize == "throughput":
            way = snake(chip, placer.weight_tiles(), across=True)
            streaming = [node.outputs[0] for segment, node in placer.mvms() if segment.index in said]
            matrices = stretched(matrices, way, chip, streaming, placer.at_ports(copies, matrices))
        homes = placer.homes(copies, matrices)
        if placer.crowded:
            return place(graph, segments, chip, precision, choices, inside_only | placer.crowded, said, brought)
        staging = placer.staging
        found = matrices, homes, staging.stages, staging.shards, staging.reads, placer.tiles(matrices)
        cells, least = placer.writing.cells, placer.writing.least_rows
        busy, time = bool(staging.work) and placer.overworked(), placer.time(matrices, copies) if matrices else 0
        return Placement(*found, frozenset(staging.aside), placer.beside, cells, least, busy=busy, time=time)
    if choices.reload and weight_tiles(chip):
        placer.writing.spare()
        turns = in_turns(placer, precision, choices.pool, choices.replicas)
        return replace(turns, written=placer.writing.cells, least_rows=placer.writing.least_rows)
    raise _does_not_fit(placer, single, choices)


def _does_not_fit(placer: _Placer, copies: Mapping[int, int], choices: Choices) -> errors.CimcError:
    """The diagnostic of a chip that has fewer cores than all blocks of so many copies take."""
    chip, grids = placer.chip, [(placer.grid(n), copies[s.index]) for s, n in placer.mvms()]
    block = f"{grids[0][0].block_rows}×{grids[0][0].block_cols}"
    need = sum(g.down * g.across * n for g, n in grids)
    have = sum(chip.tile(t).cores for t in placer.weight_tiles())
    return too_few_cores(chip, choices, need, have, block)


def _most_copies(
    placer: _Placer, single: Mapping[int, int], more: Sequence[tuple[int, int]], packing: Packing
) -> tuple[dict[str, tuple[PlacedMatrix, ...]] | None, dict[int, int]]:
    """The matrices with the longest start of the list of further copies that finds room, and those copies: which do is
    nearly always a matter of their number."""
    best = placer.matrices(single, packing)
    low, high = 0, len(more)
    while best is not None and low < high:
        middle = (low + high + 1) // 2
        found = placer.matrices(grown(single, more[:middle]), packing)
        if found is None:
            high = middle - 1
        else:
            low, best = middle, found
    return best, grown(single, more[:low])
