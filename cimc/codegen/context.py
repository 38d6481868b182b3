"""What all of code generation shares: the graph, the mapping, the tiles' code, names in global memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field

from cimc.arch.spec import ChipSpec
from cimc.codegen.held import Held
from cimc.codegen.push import Operand, Pushes
from cimc.codegen.tilecode import TileCode
from cimc.ir.graph import Graph, Node
from cimc.isa.operands import Affine, View, dense_strides, static_shape
from cimc.mapping.ahead import ahead_tiles
from cimc.mapping.layout import is_view, stored_outputs
from cimc.mapping.mapping import Mapping
from cimc.mapping.placement import Home, Placement, Segment
from cimc.mapping.recompute import KEPT_SHARE
from cimc.mapping.segment import Range, Tail, inside, product
from cimc.mapping.space import Index, Space, shared_row, width
from cimc.ops import OPS, Access


@dataclass
class Context:
    """State of one lowering."""

    graph: Graph
    mapping: Mapping
    chip: ChipSpec
    codes: dict[int, TileCode] = field(default_factory=dict[int, TileCode])
    names: dict[str, str] = field(default_factory=dict[str, str])  # stored value → global buffer
    sums: dict[tuple[int, int, int], tuple[int, ...]] = field(
        default_factory=dict[tuple[int, int, int], tuple[int, ...]]
    )
    """Tiles whose parts routers add, by channel: tile that sends one, tile that takes the sum, tag."""

    def __post_init__(self) -> None:
        self.uses = self.graph.uses()
        self.homes: dict[str, Home] = dict(self.mapping.homes)
        self.placement: Placement = self.mapping.placement
        self.segment_of = {o: s.index for s in self.mapping.segments for n in s.nodes for o in n.outputs if o}
        self.outputs = stored_outputs(self.graph)
        # Segments whose code is to take less memory: SPREAD ones load whole operands for each block of rows, where they are
        # read; blocks of STREAM ones have no more places to take turns with than PLACES says.
        self.tight: dict[int, int] = {}
        self.held = Held()  # caches in tiles
        self.pushing = self.mapping.choices.push
        self.pushes: dict[int, Pushes] = {}  # by SPREAD segment, once known
        makers = self.graph.producers()
        self.joined = frozenset(  # buffers that hold several values
            home.buffer
            for value, home in self.homes.items()
            if value != home.buffer and value in makers and not is_view(makers[value])
        )
        placed = self.mapping
        self.ahead = ahead_tiles(self.graph, placed.segments, placed.region, placed.placement, self.chip)
        self._tails: dict[int, dict[str, Tail]] = {}
        self._whole: dict[int, list[tuple[Node, str]]] = {}
        self._beside: dict[int, list[int]] = {}  # by segment

    def apart(self) -> Context:
        """A context without code or names of its own; what was found out about the graph is shared, because finding it
        out for every segment again would take time quadratic in the number of layers."""
        fresh = copy.copy(self)
        fresh.codes, fresh.names, fresh.sums = {}, {}, {}
        return fresh

    def sum_tag(self, of: tuple[int, ...], to: int, tag: int) -> int:
        """A tag for sums of these tiles, the first from ``tag`` on: all parts that go through a channel belong to sums of
        the same tiles, and another segment's sums may have one of these tiles and the same tile that takes them."""
        while any(self.sums.get((tile, to, tag), of) != of for tile in of):
            tag += 1
        self.sums.update({(tile, to, tag): of for tile in of})
        return tag

    def take_sums(self, sums: MappingABC[tuple[int, int, int], tuple[int, ...]]) -> int:
        """Note another segment's sums, all of them with tags so much later as is returned: 0, if none stands in the way."""
        later = 0
        while any(self.sums.get((tile, to, tag + later), of) != of for (tile, to, tag), of in sums.items()):
            later += 1
        self.sums.update({(tile, to, tag + later): of for (tile, to, tag), of in sums.items()})
        return later

    def code(self, tile: int) -> TileCode:
        """The code of a tile, begun if it has none."""
        found = self.codes.get(tile)
        if found is None:
            found = self.codes[tile] = TileCode(tile)
        return found

    def tails(self, segment: Segment) -> dict[str, Tail]:
        """Values a segment's nodes read without leaving the tiles."""
        if segment.index not in self._tails:
            self._tails[segment.index] = inside(self.graph, self.uses, segment)
        return self._tails[segment.index]

    def whole(self, segment: Segment) -> list[tuple[Node, str]]:
        """Operands that nodes of a segment read whole, and in no other way."""
        if segment.index not in self._whole:
            found = self._whole[segment.index] = list[tuple[Node, str]]()
            for node in segment.nodes:
                for value in dict.fromkeys(v for v in node.inputs if v):
                    how = {OPS[node.op].access(node, i) for i, v in enumerate(node.inputs) if v == value}
                    if how == {Access.WHOLE}:
                        found.append((node, value))
        return self._whole[segment.index]

    def position(self, tile: int) -> tuple[int, int]:
        """Column and row of a tile on the mesh."""
        return self.chip.position(tile)

    def neighbours(self, segment: Segment) -> list[int]:
        """Tiles that hold the matrices of the nearest STREAM segments before and after, each once."""
        if not self._beside:
            order = self.mapping.segments
            before, after = ({s.index: t for s, t in self._last(way)} for way in (order, order[::-1]))
            self._beside.update({i: [*before[i], *after[i]] for i in before})
        return self._beside[segment.index]

    def taking(self, segment: Segment) -> frozenset[int]:
        """Tiles that take what a segment stores: those of the first stage of the next segment, if that streams."""
        homes = self.placement.homes.get(segment.index + 1, ())
        return frozenset(tile for stages in homes for tile in stages[0])

    def _last(self, order: Sequence[Segment]) -> Iterator[tuple[Segment, list[int]]]:
        """Each segment with the tiles of the last matrices before it."""
        last: list[int] = []
        for segment in order:
            yield segment, last
            copies = (m for n in segment.nodes for m in self.placement.matrices.get(n.outputs[0], ()))
            last = list(dict.fromkeys(p.tile for m in copies for p in m.parts)) or last

    def stored(self, segment: Segment) -> frozenset[str]:
        """Outputs of a segment's nodes that something outside it reads, directly or through views, and graph outputs."""
        tails = self.tails(segment)
        return frozenset(
            out
            for node in segment.nodes
            for out in node.outputs
            if out and (out in self.outputs or self._leaves(out, segment, tails))
        )

    def dying(self, segment: Segment) -> frozenset[str]:
        """Values of a segment that one node inside reads, once, and nothing outside."""
        tails = self.tails(segment)
        reads = Counter(tails[v].root for n in segment.nodes for v in n.inputs if v in tails)
        return frozenset(v for v, count in reads.items() if count == 1) - self.stored(segment)

    def _leaves(self, value: str, segment: Segment, tails: dict[str, Tail]) -> bool:
        for node in self.uses.get(value, []):
            if is_view(node):
                if self._leaves(node.outputs[0], segment, tails):
                    return True
            elif self.segment_of[node.outputs[0]] != segment.index or value not in tails:
                return True
        return False

    def columns_out(self, value: str, segment: Segment, sent: Collection[Operand] = ()) -> tuple[int, int]:
        """The first and the end of the columns of a segment's value that are read outside it, directly or through views that show
        rows; none if only operands that are ``sent`` are."""
        tails = self.tails(segment)
        whole = tails[value]
        found: list[Tail] = [whole] if value in self.outputs else []
        work = [value]
        while work:
            seen = work.pop()
            for node in self.uses.get(seen, []):
                out = node.outputs[0]
                if is_view(node) and out in tails:
                    work.append(out)
                elif self._read(out, sent) if is_view(node) else self._outside(node, seen, segment, sent):
                    found.append(tails[seen])
        if sent and not found:
            return 0, 0
        low = min((t.start for t in found), default=0)
        return low, max((t.start + t.step * (t.width - 1) + 1 for t in found), default=whole.width)

    def _outside(self, node: Node, value: str, segment: Segment, sent: Collection[Operand]) -> bool:
        """Whether a node outside a segment reads a value, not as an operand that is ``sent``."""
        return self.segment_of[node.outputs[0]] != segment.index and (node.outputs[0], value) not in sent

    def _read(self, value: str, sent: Collection[Operand]) -> bool:
        """Whether something reads a view, not as an operand that is ``sent``."""
        if not sent or value in self.graph.outputs:
            return True
        return any(
            self._read(node.outputs[0], sent) if is_view(node) else (node.outputs[0], value) not in sent
            for node in self.uses.get(value, [])
        )

    def global_name(self, value: str) -> str:
        """The global buffer that holds a value (or what it is a view of)."""
        root = self.homes[value].buffer
        if root not in self.names:
            stem = "in" if root in self.graph.inputs else "k" if root in self.graph.constants else "t"
            self.names[root] = f"{stem}{len(self.names)}"
        return self.names[root]

    def table(self, value: str) -> View:
        """All of a value in global memory."""
        layout = self.homes[value].layout
        return View(self.global_name(value), Affine(layout.offset), layout.shape, layout.strides)

    def sample_sizes(self, samples: int) -> dict[str, int]:
        """Elements that each of so many samples has in the global arrays; 0 if they have no even parts."""
        sizes = {name: divmod(self.graph.type(value).size, samples) for value, name in self.names.items()}
        return {name: 0 if rest else each for name, (each, rest) in sizes.items()}

    def external(
        self, code: TileCode, space: Space, node: Node, value: str, index: Index, loaded: dict[View, View]
    ) -> View:
        """Rows of a value from outside the segment, on the tile: constants that all rows share are kept there, everything
        else is loaded once per block (``loaded``: what the block has already)."""
        cols = width(self.graph, value)
        element = self.graph.type(value).element
        if shared_row(self.graph, value):
            return code.constant(value, element, 0, cols)
        view = space.rows_view(node, value, index, (0, cols), self.global_name(value))
        if view not in loaded:
            rows = view.shape[0]
            assert isinstance(rows, int)
            loaded[view] = code.buffer(element, (rows, cols), "x")
            target = View(loaded[view].buffer, Affine(), view.shape, dense_strides(tuple(static_shape(view))))
            code.emit("load", target, view, origin=node.origin)
        return loaded[view]

    def constant_rows(
        self, code: TileCode, space: Space, node: Node, value: str, index: Index, here: Range
    ) -> View | None:
        """A block's rows of a constant that all positions of the outer axes share: the rows ``here`` of it stay in the tile, if
        they are not too many. None for other operands."""
        root = self.homes[value].buffer
        if root not in self.graph.constants or shared_row(self.graph, value):
            return None
        reach = space.reach(node, value, Access.ROWS)
        if len(reach.inner_shape) != 1 or product(space.domain[:-1]) == 1:
            return None
        cols, element = reach.inner_shape[0], self.graph.type(value).element
        if any(reach.strides[:-1]) or reach.inner_strides != (1,) or reach.strides[-1] != cols:
            return None
        if here.count * cols * element.bytes > self.chip.tile(code.tile).local_bytes // KEPT_SHARE:
            return None
        whole = code.constant(root, element, reach.offset + here.low * cols, here.count * cols)
        return View(whole.buffer, (index.axes[-1] + -here.low) * cols, (index.rows, cols), (cols, 1))
