"""Segments that a batch streams through together: sample after sample, block of rows by block of rows, all of them at once.

A *region* is a set of segments whose rows are those of a batch: every segment does the same ``rows`` for each of the
``waves`` samples, alone (``axes`` empty) or for each index of some middle axes (attention's heads). What one segment
hands to another never leaves the tiles, so every operand from inside must be found in the rows of the value it comes from:
this is checked here on the strides, not assumed from names of axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cimc.ir.graph import Graph, Node
from cimc.mapping.layout import is_view, stored_outputs
from cimc.mapping.placement import Home, Segment, Style
from cimc.mapping.segment import MATRIX_OPS, Tail, inside, product, refine
from cimc.mapping.space import Reach, Space, shared_row, width
from cimc.ops import OPS, Access
from cimc.ops.written import WRITTEN

LONG = 4
"""A value read more than so many segments later is made before the region, if it does not depend on it: to keep its rows
all that way takes memory, to load them again takes links. (1: MiniLM takes 8.8 % more cycles for a batch of 8 with
`-c layout=42x16`; 16: 0.9 % fewer, and GPT-2 small with two layers the same.)"""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a node finds an operand that is made inside the region: columns ``first``, ``first + step``, ... of the rows
    of ``root``, ``axes[i]`` columns further for every index of middle axis i. ``over``: -1 for row by row; else the
    operand is whole (``shape``) and its axis ``over`` runs over the sample's rows, the other over columns."""

    root: str
    first: int
    step: int
    shape: tuple[int, ...]
    axes: tuple[int, ...] = ()
    over: int = -1


@dataclass(frozen=True)
class Part:
    """A segment of a region. ``sources``: by (first output of a node, position of the operand)."""

    segment: Segment
    axes: tuple[int, ...]
    space: Space
    tails: Mapping[str, Tail]
    sources: Mapping[tuple[str, int], Source]


@dataclass(frozen=True)
class Region:
    """Segments, in order, that ``waves`` samples of ``rows`` rows stream through. ``stored``: values read outside."""

    waves: int
    rows: int
    parts: tuple[Part, ...]
    stored: frozenset[str]
    copies: int = 1  # of all its weights and stages, which share the samples

    @property
    def segments(self) -> tuple[int, ...]:
        """Indices of the segments."""
        return tuple(p.segment.index for p in self.parts)


class _Finder:
    """Finds the region of some segments for given numbers of samples and rows."""

    def __init__(
        self,
        graph: Graph,
        homes: Mapping[str, Home],
        segments: Sequence[Segment],
        waves: int,
        rows: int,
        outside: frozenset[int] = frozenset(),
    ) -> None:
        self.graph, self.homes = graph, dict(homes)
        self.segments, self.waves, self.rows = segments, waves, rows
        self.uses = graph.uses()
        self.outputs = stored_outputs(graph)
        self.maker = {o: s.index for s in segments for n in s.nodes for o in n.outputs if o}
        self.viewed: dict[
            str, str
        ] = {}  # view → the value it is of; what lies in a concat's buffer is not made by the concat
        for node in filter(is_view, graph.nodes):
            self.viewed[node.outputs[0]] = self.viewed.get(node.inputs[0], node.inputs[0])
        self.axes = {s.index: axes for s in segments if (axes := self._axes(s)) is not None and s.index not in outside}

    def _axes(self, segment: Segment) -> tuple[int, ...] | None:
        """Extents of a segment's middle axes if its rows are the batch's, else None."""
        if segment.style not in (Style.STREAM, Style.SPREAD) or any(n.op == WRITTEN for n in segment.nodes):
            return None  # what writes operands into cells runs on the tiles that have them, head by head
        if refine((self.waves, self.rows), segment.domain) == (self.waves, self.rows):
            return ()
        domain = segment.domain
        if segment.style is Style.STREAM or len(domain) < 2 or domain[-1] != self.rows or domain[0] % self.waves:
            return None
        return tuple(d for d in (domain[0] // self.waves, *domain[1:-1]) if d > 1) or None

    def region(self) -> Region | None:
        """The region, or None if less than two segments are in it."""
        chosen = set(self.axes)
        while True:
            admitted = self._convex(chosen)
            parts = {i: self._part(self.segments[i], admitted) for i in sorted(admitted)}
            good = {i for i, p in parts.items() if p is not None}
            if good == chosen:
                break
            chosen = good
        found = tuple(p for p in parts.values() if p is not None)
        return Region(self.waves, self.rows, found, self._stored(chosen)) if len(found) > 1 else None

    def _convex(self, chosen: set[int]) -> set[int]:
        """Those of the chosen ones that depend on nothing outside which depends on one of them."""
        admitted: set[int] = set()
        after: set[int] = set()  # outside, and depending on what is inside
        for segment in self.segments:
            needs = self._needs(segment)
            if segment.index in chosen and not needs & after:
                admitted.add(segment.index)
            elif needs & (admitted | after):
                after.add(segment.index)
        return admitted

    def around(self, chosen: set[int]) -> tuple[list[Segment], list[Segment]]:
        """The other segments, in order: those that do not depend on the chosen ones, and those that do."""
        before: list[Segment] = []
        after: dict[int, Segment] = {}
        for segment in self.segments:
            needs = self._needs(segment)
            if segment.index in chosen:
                continue
            if needs & (chosen | after.keys()):
                after[segment.index] = segment
            else:
                before.append(segment)
        return before, list(after.values())

    def _needs(self, segment: Segment) -> set[int]:
        """The other segments that make what a segment reads."""
        makers = (self._maker(value) for node in segment.nodes for value in node.inputs)
        return {index for index in makers if index not in (None, segment.index)}

    def _maker(self, value: str) -> int | None:
        return self.maker.get(self.viewed.get(value, value))

    def _stored(self, chosen: set[int]) -> frozenset[str]:
        """Values made inside that something outside reads, and outputs of the graph."""
        made = [o for i in sorted(chosen) for n in self.segments[i].nodes for o in n.outputs if o]
        return frozenset(v for v in made if v in self.outputs or not self._readers(v) <= chosen)

    def _readers(self, value: str) -> set[int]:
        """Segments that read a value, through views too."""
        found: set[int] = set()
        for node in self.uses.get(value, []):
            found |= self._readers(node.outputs[0]) if is_view(node) else {self.maker[node.outputs[0]]}
        return found

    # --- one segment ----------------------------------------------------------------------------
    def _part(self, segment: Segment, chosen: set[int]) -> Part | None:
        axes = self.axes[segment.index]
        tails = inside(self.graph, self.uses, segment)
        own = replace(segment, domain=(self.waves, *axes, self.rows))
        local = frozenset(v for n in segment.nodes for v in n.inputs if v and shared_row(self.graph, v))
        made = [o for n in segment.nodes for o in n.outputs if o]
        away = frozenset(v for v in made if v in self.outputs or self._readers(v) - {segment.index})
        space = Space(self.graph, self.homes, own, dict(tails), away, local, merged=False)
        sources: dict[tuple[str, int], Source] = {}
        for node in segment.nodes:
            if not all(self._even(space, node, out, axes) for out in node.outputs if out in away):
                return None
            for i, value in enumerate(node.inputs):
                if not self._operand(space, node, i, value, tails, local, chosen, sources):
                    return None
        return Part(own, axes, space, tails, sources)

    def _operand(
        self,
        space: Space,
        node: Node,
        index: int,
        value: str,
        tails: Mapping[str, Tail],
        local: frozenset[str],
        chosen: set[int],
        sources: dict[tuple[str, int], Source],
    ) -> bool:
        """Whether an operand can be had; enters its source if it is made inside."""
        access = OPS[node.op].access(node, index) if value else Access.CELLS
        if access is Access.CELLS or value in tails or (value in local and access is Access.ROWS):
            return True
        made = self._maker(value) in chosen
        if access is Access.TABLE or not made:
            return not made and access is not Access.WHOLE
        if self.homes[value].buffer != self.viewed.get(value, value):
            return False
        reach = space.reach(node, value, access)
        found = self._source(self.homes[value].buffer, reach, access, space.domain[1:-1])
        if found is not None:
            sources[node.outputs[0], index] = found
        return found is not None

    def _columns(self, root: str) -> int:
        """Elements that each row of the batch has in a value; 0 if they are not the same for all."""
        whole, rest = divmod(self.graph.type(root).size, self.waves * self.rows)
        return 0 if rest else whole

    def _source(self, root: str, reach: Reach, access: Access, extents: tuple[int, ...]) -> Source | None:
        columns = self._columns(root)
        wave, *axes, row = reach.strides
        over = -1
        if access is Access.WHOLE:
            over = next((a for a, s in enumerate(reach.inner_strides) if s == columns), -2)
            if row or over < 0 or reach.inner_shape[over] != self.rows:
                return None
        elif row != columns:
            return None
        other = 1 - over if over >= 0 else 0
        count, step = reach.inner_shape[other], reach.inner_strides[other] if reach.inner_shape[other] > 1 else 1
        last = reach.offset + (count - 1) * step + sum(s * (n - 1) for s, n in zip(axes, extents, strict=True))
        if wave != columns * self.rows or min(step, *axes, 0) < 0 or last >= columns:
            return None
        return Source(root, reach.offset, step, reach.inner_shape, tuple(axes), over)

    def _even(self, space: Space, node: Node, out: str, axes: tuple[int, ...]) -> bool:
        """Whether a result's rows lie one behind the other, the middle axes side by side in them."""
        reach = space.reach(node, out, Access.ROWS)
        columns, inner = self._columns(out), width(self.graph, out)
        due = [inner * product(axes[i + 1 :]) for i in range(len(axes))]
        dense = reach.inner_strides[-1] == 1 or inner == 1
        return reach.strides == (columns * self.rows, *due, columns) and reach.offset == 0 and dense


def _samples(graph: Graph) -> int:
    """The extent that most inputs begin with: the batch; 1 if there is none."""
    leading = Counter(t.shape[0] for t in (graph.type(v) for v in graph.inputs) if len(t.shape) > 1)
    return max(leading, key=lambda n: (leading[n], n), default=1)


def _lengths(graph: Graph, segments: Iterable[Segment], waves: int) -> int:
    """Rows of a sample in most of the work with static weights; 0 if there is none."""
    work: Counter[int] = Counter()
    for segment in segments:
        for node in segment.nodes:
            if node.op in MATRIX_OPS and segment.rows % waves == 0:
                work[segment.rows // waves] += segment.rows * graph.type(node.inputs[1]).size
    return max(work, key=lambda n: work[n], default=0)


def find(
    graph: Graph, homes: Mapping[str, Home], segments: Sequence[Segment]
) -> tuple[tuple[Segment, ...], Region | None]:
    """The region of a graph whose batch is more than one sample, or None if there is none that streams; and the segments,
    with what the region reads much later than it is made taken out of it where that can be."""
    waves = _samples(graph)
    rows = _lengths(graph, segments, waves) if waves > 1 else 0
    found = _Finder(graph, homes, segments, waves, rows).region() if rows > 1 else None
    if found is None:
        return tuple(segments), None
    split, early = _prelude(segments, found)
    finder = _Finder(graph, homes, split, waves, rows, early)
    region = finder.region()
    if region is None:
        return tuple(segments), None
    before, after = finder.around(set(region.segments))
    parts = [split[i] for i in region.segments]
    ordered = tuple(replace(s, index=i) for i, s in enumerate((*before, *parts, *after)))
    outside = frozenset((*range(len(before)), *range(len(before) + len(parts), len(ordered))))
    return ordered, _Finder(graph, homes, ordered, waves, rows, outside).region()


def _prelude(segments: Sequence[Segment], region: Region) -> tuple[tuple[Segment, ...], frozenset[int]]:
    """The segments with what the region reads much later than it is made taken out of where it is made, if it does not
    depend on the region: done where it is read, if that is one segment over the same rows, else in a segment of its own
    before the region. And the places of those."""
    place = {s: k for k, s in enumerate(region.segments)}
    maker = {o: (p.segment.index, n) for p in region.parts for n in p.segment.nodes for o in n.outputs if o}
    parts = {p.segment.index: p for p in region.parts}
    readers: dict[str, set[int]] = {}
    for part in region.parts:
        for source in part.sources.values():
            readers.setdefault(source.root, set()).add(part.segment.index)
    moved: dict[str, int] = {}  # first output of a node → the segment that does it, -1 for one of its own
    for root, found in readers.items():
        index, node = maker[root]
        if place[max(found)] - place[index] > LONG:
            to = max(found) if len(found) == 1 and not parts[max(found)].axes else -1
            moved.update({n.outputs[0]: min(to, moved.get(n.outputs[0], to)) for n in _free(parts[index], node)})
    _settle(region, maker, moved)
    result: list[Segment] = []
    outside: list[int] = []
    taken: dict[int, list[Node]] = {}
    for segment in segments:
        early = [n for n in segment.nodes if moved.get(n.outputs[0]) == -1]
        for node in segment.nodes:
            if moved.get(node.outputs[0], -1) >= 0:
                taken.setdefault(moved[node.outputs[0]], []).append(node)
        rest = [n for n in segment.nodes if n.outputs[0] not in moved]
        if early:
            outside.append(len(result))
            result.append(replace(segment, style=Style.SPREAD, nodes=tuple(early)))
        nodes = (*taken.get(segment.index, ()), *rest)
        result += [replace(segment, nodes=nodes)] if nodes else []
    return tuple(replace(s, index=i) for i, s in enumerate(result)), frozenset(outside)


def _settle(region: Region, maker: Mapping[str, tuple[int, Node]], moved: dict[str, int]) -> None:
    """Give what is moved to a segment, but read in one before it too, a place before the region."""
    for part in reversed(region.parts):
        for node in reversed(part.segment.nodes):
            at = moved.get(node.outputs[0], part.segment.index)
            for i, value in enumerate(node.inputs):
                source = part.tails.get(value) or part.sources.get((node.outputs[0], i))
                made = source and maker[source.root][1].outputs[0]
                if made is not None and moved.get(made, -1) > at:
                    moved[made] = -1


def _free(part: Part, node: Node) -> list[Node]:
    """A node and all it depends on in its segment; none if that takes the region."""
    makers = {o: n for n in part.segment.nodes for o in n.outputs if o}
    found: dict[str, Node] = {}
    work = [node]
    while work:
        now = work.pop()
        inner = any((now.outputs[0], i) in part.sources for i in range(len(now.inputs)))
        if inner or now.op in MATRIX_OPS:
            return []
        found[now.outputs[0]] = now
        work += [makers[part.tails[v].root] for v in now.inputs if v in part.tails]
    return list(found.values())
