"""A placement that somebody gives (placement_file.py), held against a model and a chip.

What it says is done exactly or refused, with one message that names the entry. ``static`` must hold every block of every
matrix; a segment or a resident value that it leaves out stays as the compiler chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Graph, Node
from cimc.isa.instruction import Unit
from cimc.mapping.beside import columns_aside, companions
from cimc.mapping.dump import first_node
from cimc.mapping.layout import stored_outputs
from cimc.mapping.parts import CoreBlock, parts
from cimc.mapping.placement import PlacedMatrix, Placement, Segment, Style
from cimc.mapping.placement_file import Pinned, SaidBlock, SaidMatrix, SaidSegment
from cimc.mapping.segment import MATRIX_OPS, shares
from cimc.mapping.traffic import Traffic
from cimc.mapping.units import tiles_with, units_needed
from cimc.mapping.written import unfit
from cimc.ops.layout import integer


def apply(
    pinned: Pinned, graph: Graph, segments: Sequence[Segment], chip: ChipSpec, precision: str, base: Placement
) -> Placement:
    """The placement that the file says, of a graph that has been placed (``base``) and whose ``segments`` are in order of
    execution. Raises PLACEMENT, naming the entry, for everything that is not a placement of this model on this chip."""
    if pinned.file.hardware != chip.name:
        why = f"it was made for {pinned.file.hardware}, and this compile is for {chip.name}"
        raise pinned.refused(why, "choose the hardware it was made for (--hw)")
    matrices = _Matrices(pinned, graph, chip, precision).read(segments)
    return _Work(pinned, graph, chip, segments, replace(base, matrices=matrices, reload=None)).read()


class _Matrices:
    """Blocks on cores."""

    def __init__(self, pinned: Pinned, graph: Graph, chip: ChipSpec, precision: str) -> None:
        self.pinned = pinned
        self.graph = graph
        self.chip = chip
        self.precision = precision
        self.taken: dict[tuple[int, int], str] = {}  # (tile, core) → the block there
        self.refused = pinned.refused

    def read(self, segments: Sequence[Segment]) -> dict[str, tuple[PlacedMatrix, ...]]:
        """By value, the copies of every static matmul. Raises PLACEMENT."""
        nodes = {n.outputs[0]: n for s in segments if s.style is Style.STREAM for n in s.nodes if n.op in MATRIX_OPS}
        asked: dict[str, SaidMatrix] = {}
        for entry in self.pinned.file.static:
            if entry.value not in nodes:
                raise self.refused(f"no static matmul of this model makes '{entry.value}'", "is it of another model?")
            if entry.value in asked:
                raise self.refused(f"static '{entry.value}' stands there twice", "leave one out")
            if entry.reloaded:
                why = f"static '{entry.value}' is reloaded there, and a placement says where weights stay"
                raise self.refused(
                    why, "take that of a compile whose weights fit (--chips, --hw), or leave --placement out"
                )
            asked[entry.value] = entry
        missing = next((v for v in nodes if v not in asked), None)
        if missing is not None:
            raise self.refused(f"static '{missing}' is missing", "name every static matmul of the model")
        blocks = {value: self._blocks(nodes[value], asked[value]) for value in nodes}
        return {value: self._copies(nodes[value], blocks[value]) for value in nodes}

    def _blocks(self, node: Node, entry: SaidMatrix) -> list[tuple[SaidBlock, int]]:
        """The blocks and their cores: first those that are said."""
        value, (rows, cols) = entry.value, self.graph.type(node.inputs[1]).shape
        said = (entry.rows or rows, entry.cols or cols, entry.precision or self.precision)
        if said != (rows, cols, self.precision) or entry.weight not in ("", node.inputs[1]):
            why = f"static '{value}' is {entry.rows}×{entry.cols} {entry.precision} of weight '{entry.weight}' there"
            raise self.refused(f"{why}, and {rows}×{cols} {self.precision} of '{node.inputs[1]}' here", "compile alike")
        cores = [self._said(f"static '{value}', block {i}", b) for i, b in enumerate(entry.blocks)]
        return list(zip(entry.blocks, cores, strict=True))

    def _said(self, what: str, block: SaidBlock) -> int:
        """The core that a block names; -1: none."""
        spec = self.chip.tile(block.tile) if block.tile < self.chip.tile_count else None
        if spec is None or spec.core is None:
            why = (
                f"{what}: there is no tile {block.tile}" if spec is None else f"{what}: tile {block.tile} has no cores"
            )
            raise self.refused(why, f"tiles are 0 to {self.chip.tile_count - 1}; `cimc hw show` draws them")
        if block.crossbars is None:
            return -1
        each = spec.core.crossbars
        core = block.crossbars[0] // each if block.crossbars else 0
        if block.crossbars != list(range(core * each, (core + 1) * each)):
            why = f"{what}: crossbars {block.crossbars} are not the {each} of a core"
            raise self.refused(why, f"{each} from a multiple of {each} on, or leave `crossbars` out")
        if core >= spec.cores:
            why = f"{what}: core {core} of tile {block.tile}, which has {spec.cores}"
            raise self.refused(why, f"crossbars of it are 0 to {each * spec.cores - 1}")
        return self._take(what, block.tile, core)

    def _take(self, what: str, tile: int, core: int) -> int:
        other = self.taken.setdefault((tile, core), what)
        if other != what:
            why = f"core {core} of tile {tile} is used twice: by {other}, and by {what}"
            raise self.refused(why, "give one of them another core, or leave its `crossbars` out")
        return core

    def _copies(self, node: Node, blocks: Sequence[tuple[SaidBlock, int]]) -> tuple[PlacedMatrix, ...]:
        value = node.outputs[0]
        rows, cols = self.graph.type(node.inputs[1]).shape
        high, wide = integer(node, "rows"), integer(node, "cols")
        found: dict[int, dict[tuple[int, int], CoreBlock]] = {}
        for number, (block, core) in enumerate(blocks):
            what = f"static '{value}', block {number}"
            i, j = self._at(what, block.rows, rows, high), self._at(what, block.cols, cols, wide)
            copy = found.setdefault(block.replica, {})
            if (i, j) in copy:
                raise self.refused(f"{what} stands there before, in replica {block.replica}", "leave one out")
            self._holds(what, block.tile, (min(high, rows), min(wide, cols)))
            copy[(i, j)] = CoreBlock(block.tile, core if core >= 0 else self._free(what, block.tile))
        self._whole(value, found, (-(-rows // high), -(-cols // wide)), (high, wide))
        weight = node.inputs[1]
        return tuple(
            PlacedMatrix(value, r, weight, rows, cols, self.precision, parts(found[r], (rows, cols), (high, wide)))
            for r in sorted(found)
        )

    def _holds(self, what: str, tile: int, block: tuple[int, int]) -> None:
        """Kinds of tiles may have cores of other sizes than the kind that the matrix was cut for."""
        core = self.chip.tile(tile).core
        if core is not None and (block[0] > core.crossbar.rows or block[1] > core.crossbar.cols):
            size, cells = f"{block[0]}×{block[1]}", f"{core.crossbar.rows}×{core.crossbar.cols}"
            why = f"{what}: {size} weights in a core of tile {tile} ({self.chip.kind(tile)}), which holds {cells}"
            raise self.refused(why, "choose a tile of the kind that weights are cut for: the first one with cores")

    def _at(self, what: str, said: Sequence[int], extent: int, size: int) -> int:
        first, last = said
        if first % size or first >= extent or last != min(first + size, extent):
            why = f"{what}: [{first}, {last}] is no block of {extent} cut by {size}"
            raise self.refused(why, "blocks are as large as a core's crossbars, and the last as what is left")
        return first // size

    def _free(self, what: str, tile: int) -> int:
        cores = self.chip.tile(tile).cores
        free = next((c for c in range(cores) if (tile, c) not in self.taken), None)
        if free is None:
            raise self.refused(f"{what}: all {cores} cores of tile {tile} are taken", "choose another tile")
        return self._take(what, tile, free)

    def _whole(
        self,
        value: str,
        found: Mapping[int, Mapping[tuple[int, int], CoreBlock]],
        grid: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        """Every replica from 0 on has every block."""
        fix = "a matrix needs every block, in every replica from 0 on"
        for replica in range(max(len(found), 1)):
            copy = found.get(replica, {})
            gaps = ((i, j) for i in range(grid[0]) for j in range(grid[1]) if (i, j) not in copy)
            gap = next(gaps, None)
            if gap is not None:
                rows, cols = (f"from {at * step} on" for at, step in zip(gap, size, strict=True))
                raise self.refused(f"static '{value}', replica {replica} has no block of rows {rows}, cols {cols}", fix)


class _Work:
    """Tiles of vector work, rows of blocks, homes of values."""

    def __init__(
        self, pinned: Pinned, graph: Graph, chip: ChipSpec, segments: Sequence[Segment], placement: Placement
    ) -> None:
        self.pinned = pinned
        self.graph = graph
        self.chip = chip
        self.segments = {s.index: s for s in segments}
        self.placement = placement
        self.taken = placement.occupied()
        self.refused = pinned.refused

    def read(self) -> Placement:
        """The placement that was given, with what the file says in place of its own. Raises PLACEMENT."""
        homes, tiles, rows = dict(self.placement.homes), dict(self.placement.tiles), dict[int, int]()
        seen: set[int] = set()
        for entry in self.pinned.file.segments:
            what = f"segment {entry.index}"
            if entry.index in seen:
                raise self.refused(f"{what} stands there twice", "leave one out")
            seen.add(entry.index)
            segment = self._segment(entry, what)
            if entry.streamed is not None:  # balanced anew every time
                continue
            if segment.style is Style.STREAM:
                homes[segment.index] = self._stages(segment, entry, what)
            else:
                tiles[segment.index] = self._tiles(segment, entry, what)
            if entry.rows is not None:
                rows[segment.index] = self._rows(segment, entry.rows, what)
        loading = frozenset(entry.index for entry in self.pinned.file.segments if not entry.push)
        placement = replace(self.placement, homes=homes, tiles=tiles, rows=rows, residents=dict(self._residents()))
        placement = replace(placement, loading=loading)
        for segment in self.segments.values():
            self._agree(segment, placement)
        return replace(placement, beside=dict(self._beside(placement)))

    def _beside(self, placement: Placement) -> Iterator[tuple[int, tuple[Mapping[int, int], ...]]]:
        """By segment and copy, the tiles beside those of products: those that the file gives all of these, or the compiler, if
        products have not moved; others where they have."""
        entries = {entry.index: entry for entry in self.pinned.file.segments}
        for i, segment in self.segments.items():
            columns: list[dict[int, float]] = []
            if segment.style is Style.STREAM:
                columns = columns_aside(segment, placement.aside, placement.shards, placement.matrices)
            able = self._able_beside(segment, placement) if columns else []
            given = self._given(entries[i], able) if columns and i in entries else []
            for known in (given, placement.beside.get(i, ())):
                if len(known) >= len(columns) and all(
                    c.keys() <= k.keys() for c, k in zip(columns, known, strict=False)
                ):
                    break
            else:
                seats = placement.seats(i)
                free, traffic = [t for t in able if t not in seats] or able, Traffic(self.chip)
                known = [companions(copy, free, 0, traffic) for copy in columns]
            if columns:
                yield i, tuple(known[: len(columns)])

    def _able_beside(self, segment: Segment, placement: Placement) -> list[int]:
        """The tiles that can do what those of a segment's products have no unit for."""
        return tiles_with(self.chip, units_needed(_whole(segment, placement.shards.keys() - placement.aside)))

    def _given(self, entry: SaidSegment, able: Sequence[int]) -> list[dict[int, int]]:
        """The tiles beside others that the file names, by copy."""
        what = f"segment {entry.index}"
        for replica, copy in enumerate(entry.beside):
            for aside in copy:
                if aside.tile not in able:
                    why = f"{what}, replica {replica}: tile {aside.tile} cannot do what stands beside tile {aside.of}"
                    raise self.refused(why, "choose one that has the units, or leave `beside` out")
            if len({aside.of for aside in copy}) < len(copy):
                raise self.refused(f"{what}, replica {replica}: two tiles are beside one", "leave one out")
        return [{aside.of: aside.tile for aside in copy} for copy in entry.beside]

    def _segment(self, entry: SaidSegment, what: str) -> Segment:
        segment = self.segments.get(entry.index)
        if segment is None or (segment.style.value, first_node(segment)) != (entry.style, entry.node):
            here = (
                f"{segment.style.value} from '{first_node(segment)}' on" if segment else f"one of {len(self.segments)}"
            )
            why = f"{what} is {entry.style} from '{entry.node}' on there, and {here} here"
            raise self.refused(why, "is it of another model, version or other options?")
        return segment

    def _stages(self, segment: Segment, entry: SaidSegment, what: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
        if entry.stages is None or entry.tiles is not None:
            raise self.refused(f"{what} is a stream, and has {_has(entry)}", "give it `stages`, and no `tiles`")
        count = len(self.placement.homes[segment.index][0])
        for replica, stages in enumerate(entry.stages):
            if len(stages) != count:
                why = f"{what}, replica {replica} has {len(stages)} stages; there are {count}"
                raise self.refused(why, "give each its tiles")
            for stage, lanes in enumerate(stages):
                self._able(segment, lanes, f"{what}, replica {replica}, stage {stage}")
        return tuple(tuple(tuple(lanes) for lanes in stages) for stages in entry.stages)

    def _tiles(self, segment: Segment, entry: SaidSegment, what: str) -> tuple[int, ...]:
        if entry.tiles is None or entry.stages is not None:
            raise self.refused(f"{what} is {entry.style}, and has {_has(entry)}", "give it `tiles`, and no `stages`")
        if segment.style is Style.HOST and len(entry.tiles) != 1:
            raise self.refused(f"{what} is driven by one tile, not by {len(entry.tiles)}", "name one")
        self._able(segment, entry.tiles, what)
        if segment.style is Style.HOST and not self.chip.tile(entry.tiles[0]).memory_port:
            raise self.refused(
                f"{what} calls the host, and tile {entry.tiles[0]} has no memory port", "choose one that has"
            )
        return tuple(entry.tiles)

    def _able(self, segment: Segment, tiles: Sequence[int], what: str) -> None:
        for at, tile in enumerate(tiles):
            if tile >= self.chip.tile_count:
                fix = f"tiles are 0 to {self.chip.tile_count - 1}; `cimc hw show` draws them"
                raise self.refused(f"{what}: there is no tile {tile}", fix)
            if tile in tiles[:at]:
                raise self.refused(f"{what}: tile {tile} stands there twice", "leave one out")
            short = lacking(segment, self.placement, self.chip, tile) if segment.style is not Style.HOST else ""
            if short:
                raise self.refused(
                    f"{what}: tile {tile} ({self.chip.kind(tile)}) has no {short} unit", "choose one that has"
                )
            why = unfit(segment, self.placement.written, self.chip, tile, self.taken)
            if why:
                raise self.refused(
                    f"{what} writes operands: tile {tile} ({self.chip.kind(tile)}) {why}", "choose another"
                )

    def _rows(self, segment: Segment, rows: int, what: str) -> int:
        if segment.style not in (Style.STREAM, Style.SPREAD):
            raise self.refused(f"{what} is {segment.style.value} and has no blocks of rows", "leave `rows` out")
        if rows > segment.rows:
            raise self.refused(f"{what}: blocks of {rows} rows of the {segment.rows} it has", f"at most {segment.rows}")
        return rows

    def _agree(self, segment: Segment, placement: Placement) -> None:
        """As many copies of all matrices of a segment as of its stages, and rows for each."""
        if segment.style is not Style.STREAM:
            return
        what, wanted = f"segment {segment.index}", len(placement.homes[segment.index])
        for node in segment.nodes:
            if node.op in MATRIX_OPS and len(placement.matrices[node.outputs[0]]) != wanted:
                have = len(placement.matrices[node.outputs[0]])
                why = f"{what} has stages for {wanted} replicas, and static '{node.outputs[0]}' has {have}"
                raise self.refused(why, "give all matrices and the stages of a segment as many")
        possible = len(shares(segment.domain, max(wanted, 1)))
        if not 1 <= wanted == possible:
            raise self.refused(f"{what}: {wanted} replicas for rows that {possible} can share", f"at most {possible}")

    def _residents(self) -> Iterator[tuple[str, int | None]]:
        seen: set[str] = set()
        inside = {o for s in self.segments.values() for n in s.nodes for o in n.outputs if o} - stored_outputs(
            self.graph
        )
        for entry in self.pinned.file.residents:
            if entry.value not in inside or entry.value in seen:
                why = "stands there twice" if entry.value in seen else "is no value between segments of this model"
                raise self.refused(f"resident '{entry.value}' {why}", "leave it out")
            seen.add(entry.value)
            if entry.tile is not None and entry.tile >= self.chip.tile_count:
                why = f"resident '{entry.value}': there is no tile {entry.tile}"
                raise self.refused(why, f"tiles are 0 to {self.chip.tile_count - 1}")
            yield entry.value, entry.tile


def lacking(segment: Segment, placement: Placement, chip: ChipSpec, tile: int) -> str:
    """The first unit that a tile would need for a segment's vector work and has not, or ""."""
    local = _whole(segment, placement.shards.keys())
    spec = chip.tile(tile)
    present = {Unit.VECTOR: spec.vector, Unit.SPECIAL: spec.special, Unit.MATMUL: spec.matmul}
    return min((u.value for u in units_needed(local) if present[u] is None), default="")


def _whole(segment: Segment, columns: Collection[str]) -> list[Node]:
    """A segment's vector work but that on columns, on the tiles of their products."""
    return [n for n in segment.nodes if n.op not in MATRIX_OPS and n.outputs[0] not in columns]


def _has(entry: SaidSegment) -> str:
    given = [name for name, value in (("`stages`", entry.stages), ("`tiles`", entry.tiles)) if value is not None]
    return " and ".join(given) or "neither `stages` nor `tiles`"
