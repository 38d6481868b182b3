"""How the rows of a segment are cut among tiles where each position of the outer axes, a head, has operands that all its rows
read whole (attention's K and V).

A *task* is some rows of one head. A tile does its tasks one after the other, the operands of the next one coming in meanwhile.
More tiles for a head work off its rows sooner, but each loads its K and V, from a tile that serves one load after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product as positions
from math import ceil

from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.ir.graph import Graph, Node
from cimc.mapping.segment import Range, pieces, product, rows_shape
from cimc.ops import OPS, Access

LEAST_ROWS = 8
"""Of a task: with fewer, the matmul unit spends most of its time on loading blocks of K and V (estimated)."""

MOST_TASKS = 8
"""For a tile, which has the text of each; where there are more, loops go over the heads (estimated)."""

ROOM_SHARE = 6
"""Operands of one head take at most a part in so many of a tile's buffer: those of two are there, and what is computed (12: the
same for MiniLM, 3: 0.9 % more cycles)."""

FIRST = (0.33, 0.8)
"""Of the first parts of a head's rows, in parts of an even share: what comes next begins with these ((0.2, 0.6): BERT-base takes
0.5 % more cycles, even parts 1.2 %)."""

SHARED = 3
"""Tiles with tasks of a head from which on one of them loads an operand and hands it on to the others in one multicast: a home
would serve them one after the other. Each could also load ahead by itself (2 and 5: the same for MiniLM and
BERT-base)."""

HANDED = 1.5
"""Times that an operand takes until it is on all of them: the first pieces come twice, on their way to and from that tile
(estimated; 1 and 2: the same for MiniLM and BERT-base)."""

TASK = 100
"""Cycles of a task's accesses and messages beside their bytes (estimated; 50 and 200: the same for MiniLM and BERT-base)."""

SOFTMAX = {"vector.alu": 3, "special.func": 1, "special.div": 1}  # actions an element, as its instruction is billed


@dataclass(frozen=True, slots=True)
class Task:
    """Rows of one head: a position of each outer axis, and a range of the last one."""

    at: tuple[int, ...]
    rows: Range


def tasks(
    graph: Graph, nodes: Sequence[Node], domain: tuple[int, ...], chip: ChipSpec, tiles: Sequence[int]
) -> list[tuple[Task, ...]]:
    """The tasks of each tile that takes part, of some of one kind; none if loops over heads are better, or nothing is read
    whole but constants."""
    whole = _whole(graph, nodes)
    spec = chip.tile(tiles[0])
    if not whole or spec.matmul is None or spec.vector is None or spec.special is None:
        return []
    if sum(_bytes(graph, value) for value in whole) * ROOM_SHARE > spec.local_bytes:
        return []
    heads, rows = product(domain[:-1]), domain[-1]
    if heads > MOST_TASKS * len(tiles):
        return []
    most = max(1, min(rows // LEAST_ROWS, MOST_TASKS * len(tiles) // heads))
    work = _Work(graph, nodes, chip, tiles[0], whole)
    parts = min(range(1, most + 1), key=lambda p: work.cycles(heads, rows, p, len(tiles)))
    if work.looped(heads, rows, len(tiles)) < work.served(heads, parts, len(tiles)):
        return []
    ranges = graded(rows, parts) if heads * parts <= len(tiles) else pieces(rows, parts)
    every = [Task(at, r) for at in positions(*(range(n) for n in domain[:-1])) for r in ranges]
    count = min(len(tiles), len(every))
    return [_first_rows_first(every[r.low : r.low + r.count]) for r in pieces(len(every), count)]


def _first_rows_first(found: Sequence[Task]) -> tuple[Task, ...]:
    """Tasks of a tile in the order of their rows, if it has room for the operands of all their heads."""
    few = len({task.at for task in found}) <= ROOM_SHARE // 2
    return tuple(sorted(found, key=lambda task: task.rows.low) if few else found)


def graded(rows: int, parts: int) -> list[Range]:
    """Rows of a head in parts, the first ones smaller: what comes next begins with them, and needs the others only when it is
    done with these."""
    if rows // parts < 2 * LEAST_ROWS:
        return pieces(rows, parts)
    first = [max(LEAST_ROWS, int(rows / parts * share)) for share in FIRST[: parts - 1]]
    found: list[Range] = []
    for size in first:
        found.append(Range(found[-1].low + found[-1].count if found else 0, size))
    low = sum(first)
    return [*found, *(Range(low + r.low, r.count) for r in pieces(rows - low, parts - len(first)))]


def takers(found: Mapping[int, Sequence[Task]]) -> dict[tuple[int, ...], list[int]]:
    """By head, the tiles that share its operands, SHARED at least: one loads and hands on. A head is left out if one of its tiles
    begins with another: there the operands would be late, and the others wait."""
    heads: dict[tuple[int, ...], list[int]] = {}
    late: set[tuple[int, ...]] = set()
    for tile, mine in found.items():
        for at in dict.fromkeys(task.at for task in mine):
            heads.setdefault(at, []).append(tile)
            late.update(() if at == mine[0].at else (at,))
    return {at: tiles for at, tiles in heads.items() if len(tiles) >= SHARED and at not in late}


def _whole(graph: Graph, nodes: Sequence[Node]) -> list[str]:
    """The operands that are read whole, node by node; none if one of them is a constant."""
    found = [
        value for n in nodes for i, value in enumerate(n.inputs) if value and OPS[n.op].access(n, i) is Access.WHOLE
    ]
    return [] if any(value in graph.constants for value in found) else found


def _bytes(graph: Graph, value: str) -> int:
    """Bytes that a head has of an operand that is read whole."""
    kind = graph.type(value)
    return product(kind.shape[-2:]) * kind.element.bytes


def _loads(parts: int, each: int) -> float:
    """Times that the operands of a head are loaded, one after the other, for so many parts of its rows, ``each`` to a tile."""
    takers = ceil(parts / each)  # tiles that load the same K and V
    if takers < SHARED:
        return takers
    return (
        HANDED * 2 if parts % each else HANDED
    )  # tiles with tasks of two heads are handed those of the second one as well


class _Work:
    """What tasks of a segment take, in cycles; estimated: messages of others do not count."""

    def __init__(self, graph: Graph, nodes: Sequence[Node], chip: ChipSpec, tile: int, whole: Sequence[str]) -> None:
        self.graph = graph
        self.nodes = nodes
        self.units = TileUnits(chip, tile)
        self.link = chip.noc.link_bytes_per_cycle
        self.whole = sum(_bytes(graph, value) for value in whole) / self.link
        self.kinds = max(product(graph.type(value).shape[:-2]) for value in whole)  # heads with operands of their own
        inside = {o for n in nodes for o in n.outputs}
        moved = (v for n in nodes for v in (*n.inputs, *n.outputs) if v and self._travels(v, inside))
        widths = [rows_shape(graph.type(v).shape)[-1] * graph.type(v).element.bytes for v in dict.fromkeys(moved)]
        self.row = sum(widths) / self.link

    def _travels(self, value: str, inside: set[str]) -> bool:
        """Whether rows of a value are loaded, or stored at the end of the segment."""
        kind = self.graph.type(value)
        last = value in self.nodes[-1].outputs
        return last or (value not in inside and value not in self.graph.constants and product(kind.shape[:-1]) > 1)

    def cycles(self, heads: int, rows: int, parts: int, tiles: int) -> float:
        """Until the last of ``tiles`` is done, with the rows of each head in so many parts."""
        count = ceil(rows / parts)
        each = ceil(heads * parts / min(tiles, heads * parts))
        begin = _loads(parts, each) * self.whole + count * self.row  # those of one head come over the same links
        compute = self._compute(count)
        return begin + each * (compute + TASK) + (each - 1) * max(0.0, count * self.row - compute)

    def served(self, heads: int, parts: int, tiles: int) -> float:
        """Until the homes have served the tasks of all heads that have the same operands; 0 if each has its own."""
        each = ceil(heads * parts / min(tiles, heads * parts))
        sharing = heads // self.kinds
        return sharing * _loads(parts, each) * self.whole if sharing > 1 else 0.0

    def looped(self, heads: int, rows: int, tiles: int) -> float:
        """Until the last of ``tiles`` is done, with loops over the heads instead: those that have the same operands wait for
        what one tile loads for all of them."""
        used = min(tiles, heads)
        operands = HANDED * self.whole * ceil(self.kinds / used)
        return operands + ceil(heads / used) * (rows * self.row + self._compute(rows) + TASK)

    def _compute(self, rows: int) -> float:
        return sum(self._node(node, rows) for node in self.nodes)

    def _node(self, node: Node, rows: int) -> float:
        width = rows_shape(self.graph.type(node.outputs[0]).shape)[-1]
        if node.op == "attention":
            (d, t), (_, e) = (self.graph.type(v).shape[-2:] for v in node.inputs[1:3])
            scores = self.units.matmul_cycles(1, rows, t, d) + self.units.matmul_cycles(1, rows, e, t)
            add = self._lanes("vector", {"vector.alu": 1}, rows * t) if len(node.inputs) > 3 and node.inputs[3] else 0
            return scores + add + self._lanes("special", SOFTMAX, rows * t)
        wholes = [v for i, v in enumerate(node.inputs) if v and OPS[node.op].access(node, i) is Access.WHOLE]
        if wholes:
            k, n = self.graph.type(wholes[0]).shape[-2:]
            return self.units.matmul_cycles(1, rows, n, k)
        if node.op == "softmax":
            return self._lanes("special", SOFTMAX, rows * width)
        return self._lanes("vector", {"vector.alu": 1}, rows * width)

    def _lanes(self, unit: str, actions: dict[str, int], elements: int) -> int:
        return self.units.lane_cycles(unit, {name: n * elements for name, n in actions.items()})
