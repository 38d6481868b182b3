"""Operands that rows of attention read whole (K and V), sent to the tiles that work on a head as their rows are made.

A home would get the rows, and every tile of the head load them when the last one is there: as fast as one link carries them,
while nothing else can be done. Here the tiles that make the rows send each block of them to the tiles of the head, in one
multicast for the head's columns. Those receive them into buffers that live until the head's rows are done, behind all that
they do in the segment that makes them: so none of its stages waits for a receive. What comes before that waits in channels. All
rows of a message's columns fit one (those of a wide operand go by several, each some columns), so no message ever waits for
room: who receives when does not matter, and nothing can deadlock for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cimc.codegen.context import Context
from cimc.codegen.fold import substitute
from cimc.codegen.push import Operand, Push, Pushes
from cimc.codegen.tags import PUSHED
from cimc.codegen.tasks import Task
from cimc.codegen.tilecode import TileCode, instruction
from cimc.ir.graph import Node
from cimc.isa.instruction import Instruction, Phase, Repeat, Step
from cimc.isa.operands import Affine, View, static_shape
from cimc.mapping.placement import Segment, Style
from cimc.mapping.segment import pieces, product, shares
from cimc.mapping.space import Index, Space
from cimc.ops import Access
from cimc.origin import Origin

ROOM_SHARE = 3
"""Operands that are sent to a tile take at most a part in so many of its buffer: it has them beside what it does before
(estimated; 6: the same for MiniLM)."""


class Crowded(Exception):
    """A segment does not fit with what is sent to its tiles."""


def making(context: Context, segment: Segment) -> Segment | None:
    """The STREAM segment before a SPREAD one, if rows of that may be sent to the tiles of this one."""
    mapping, placement = context.mapping, context.placement
    if segment.style is not Style.SPREAD or mapping.region is not None or placement.reload is not None:
        return None
    before = (s for s in mapping.segments[segment.index - 1 :: -1] if s.style is Style.STREAM) if segment.index else ()
    source = next(iter(before), None)
    return source if segment.index not in placement.least_rows and context.whole(segment) else None


def takers(context: Context, source: Segment) -> list[Segment]:
    """The SPREAD segments whose tiles rows of a STREAM segment may be sent to."""
    found: list[Segment] = []
    for segment in context.mapping.segments[source.index + 1 :]:
        if segment.style is Style.STREAM:
            break
        if making(context, segment) is source:
            found.append(segment)
    return found


def pushes(context: Context, segment: Segment, tasks: Mapping[int, Sequence[Task]], space: Space) -> Pushes:
    """What is sent to the tiles of a segment's ``tasks``, whose operands are found in ``space``; nothing if it has no tasks, no
    STREAM segment makes all rows of an operand right before, or they leave too little room."""
    source = making(context, segment)
    if source is None or not tasks:
        return {}
    plan = _Plan(context, segment, tasks, space, source)
    for node, value in context.whole(segment):
        plan.operand(node, value)
    bytes_of: Counter[int] = Counter()
    for push in dict.fromkeys(plan.found.values()):
        bytes_of.update(dict.fromkeys(push.tiles, push.rows * push.cols * push.element.bytes))
    fits = all(size * ROOM_SHARE <= context.chip.tile(tile).local_bytes for tile, size in bytes_of.items())
    return plan.found if fits else {}


@dataclass
class _Plan:
    """What is sent to the tiles of a segment."""

    context: Context
    segment: Segment
    tasks: Mapping[int, Sequence[Task]]
    read: Space  # of the segment
    source: Segment
    found: dict[tuple[Operand, tuple[int, ...]], Push] = field(
        default_factory=dict[tuple[Operand, tuple[int, ...]], Push]
    )
    tag: int = PUSHED

    def __post_init__(self) -> None:
        self.heads: dict[tuple[int, ...], list[int]] = {}
        for tile, tasks in self.tasks.items():
            for at in dict.fromkeys(task.at for task in tasks):
                self.heads.setdefault(at, []).append(tile)
        context, source = self.context, self.source
        homes = context.placement.homes[source.index]
        self.lanes = max(len(lanes) for stages in homes for lanes in stages) if any(homes) else 1
        self.space = Space(
            context.graph, context.homes, source, context.tails(source), context.stored(source), frozenset()
        )

    def operand(self, node: Node, value: str) -> None:
        """Send an operand, if it can be for all heads."""
        root = self.context.homes[value].buffer
        most = self._rows(root)
        columns = {at: self._columns(node, value, at) for at in self.heads}
        same: dict[tuple[int, int, bool], list[tuple[int, ...]]] = {}
        for at, of in columns.items():
            if of is None or not most:
                return
            same.setdefault(of, []).append(at)
        element = self.context.graph.type(value).element
        wide = self.context.chip.noc.channel_bytes // (most * element.bytes)
        if not wide:
            return
        rows = product(self.space.domain)
        for (col, cols, turned), of in same.items():
            parts = [(self.tag + k * self.lanes, part) for k, part in enumerate(pieces(cols, -(-cols // wide)))]
            self.tag += len(parts) * self.lanes
            tiles = tuple(sorted({t for at in of for t in self.heads[at]}))
            name = f"whole{self.segment.index}.{parts[0][0] - PUSHED}"
            push = Push(root, name, element, rows, col, cols, turned, tiles, tuple(parts))
            self.found.update({((node.outputs[0], value), at): push for at in of})

    def _rows(self, root: str) -> int:
        """The most rows of a value that one copy of the source makes; 0 if it does not make all of it, row after row."""
        context = self.context
        if context.segment_of.get(root) != self.source.index or root in context.joined:
            return 0
        node = next(n for n in self.source.nodes if root in n.outputs)
        reach = self.space.reach(node, root, Access.ROWS)
        step = width = reach.inner_shape[-1]
        for extent, stride in zip(self.space.domain[::-1], reach.strides[::-1], strict=True):
            if extent > 1 and stride != step:
                return 0
            step *= extent
        if reach.offset or len(reach.inner_shape) > 1 or (width > 1 and reach.inner_strides != (1,)):
            return 0
        cut = shares(self.space.domain, len(context.placement.homes[self.source.index]))
        outer = any(r.count > 1 for share in cut for r in share[:-1])
        return 0 if outer else max(share[-1].count for share in cut)

    def _columns(self, node: Node, value: str, at: tuple[int, ...]) -> tuple[int, int, bool] | None:
        """The columns of its root (first, count) that an operand of a head is all rows of, and whether it reads these as
        columns; None if it is none."""
        rows = product(self.space.domain)
        width = self.context.graph.type(self.context.homes[value].buffer).size // rows
        view = self.read.whole_view(node, value, Index((*map(Affine, at), Affine()), 1), "")
        first = view.offset.constant
        for turned in (False, True):
            (tokens, cols), (over, across) = static_shape(view), view.strides
            if turned:
                tokens, cols, over, across = cols, tokens, across, over
            if tokens == rows > 1 and over == width and (cols == 1 or across == 1) and first + cols <= width:
                return first, cols, turned
        return None


@dataclass
class Taken:
    """What one copy of a STREAM segment sends of such operands: for each of the variants of its blocks, ``turns`` that take
    turns, and for the rows that are no whole block, who receives what. Offsets name the number of the block."""

    blocks: int = 0
    turns: int = 0
    variants: dict[int, list[tuple[int, Instruction]]] = field(default_factory=dict[int, list[tuple[int, Instruction]]])
    rest: list[tuple[int, Instruction]] = field(default_factory=list[tuple[int, Instruction]])

    def note(self, turn: int, tile: int, view: View, channel: tuple[int, int], origin: Origin) -> None:
        """A receive of a tile on a channel (source, tag) in a block of a turn; those from ``blocks`` on are the rest."""
        source, tag = channel
        of = self.rest if turn >= self.blocks else self.variants.setdefault(turn, [])
        of.append((tile, instruction("recv", view, origin=origin, source=source, tag=tag)))

    def body(self, tile: int) -> list[Instruction]:
        """What a tile receives for a block, each of the variants in its turns: nothing in those in which it makes the rows."""
        mine = [[step for t, step in self.variants.get(k, ()) if t == tile] for k in range(self.turns)]
        if all(of == mine[0] for of in mine[1:]):
            return mine[0] if mine else []
        return [replace(step, phase=Phase(0, k, len(mine))) for k, of in enumerate(mine) for step in of]


def receive(codes: Mapping[int, TileCode], copies: Sequence[Taken]) -> None:
    """Append what tiles receive to their code: copies that make as many blocks in turn, for they do at the same time."""
    tiles = {t for taken in copies for of in (*taken.variants.values(), taken.rest) for t, _ in of}
    for tile in sorted(tiles):
        bodies: dict[int, list[Instruction]] = {}
        for taken in copies:
            bodies.setdefault(taken.blocks, []).extend(taken.body(tile))
        steps = codes[tile].steps
        for blocks, body in bodies.items():
            steps += _repeated(body, blocks)
        steps += [step for taken in copies for t, step in taken.rest if t == tile]


def _repeated(body: Sequence[Instruction], blocks: int) -> list[Step]:
    """The body for all blocks; the number of the block is the only variable that stands in it."""
    if not body or not blocks:
        return []
    found = substitute(body, lambda _: Affine.of(0, {"b": 1}) if blocks > 1 else Affine())
    return [Repeat("b", blocks, tuple(found))] if blocks > 1 else found
