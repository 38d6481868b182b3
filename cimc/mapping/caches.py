"""KV caches of a decoder that was exported with them: which outputs are an input with rows added, and how their heads are
shared among tiles that keep them (``--cache``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as combinations
from math import prod

from cimc import errors
from cimc.ir.graph import Graph, Node
from cimc.mapping.layout import is_view
from cimc.mapping.segment import Range, pieces
from cimc.ops import OPS, Access
from cimc.ops.layout import integer


@dataclass(frozen=True, slots=True)
class Cache:
    """``present`` (an output) = concat of ``past`` (an input, ``rows`` long there) and ``new`` along ``axis``. A *unit* is what
    the axes before that one tell apart: a head of a sample."""

    past: str
    new: str
    present: str
    axis: int
    rows: int
    shape: tuple[int, ...]  # of present
    element_bytes: int

    @property
    def units(self) -> int:
        """How many there are."""
        return prod(self.shape[: self.axis])

    @property
    def unit(self) -> int:
        """Elements of a unit of present."""
        return prod(self.shape[self.axis :])

    @property
    def length(self) -> int:
        """Rows of present: tokens."""
        return self.shape[self.axis]

    @property
    def bytes(self) -> int:
        """Bytes of present."""
        return self.units * self.unit * self.element_bytes

    def rectangles(self, low: int, high: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The units [low, high) as rectangles of the axes before the joined one: first index and extent per axis."""
        lead = self.shape[: self.axis]
        while low < high:
            size, axis = 1, len(lead)
            while axis and low % (size * lead[axis - 1]) == 0 and low + size * lead[axis - 1] <= high:
                axis -= 1
                size *= lead[axis]
            counts = [1] * axis + list(lead[axis:])
            if axis:  # several of these along the axis before, as far as its end
                counts[axis - 1] = min((high - low) // size, lead[axis - 1] - low // size % lead[axis - 1])
            yield _index(low, lead), tuple(counts)
            low += prod(counts)


def _index(flat: int, extents: Sequence[int]) -> tuple[int, ...]:
    found: list[int] = []
    for extent in reversed(extents):
        flat, at = divmod(flat, extent)
        found.append(at)
    return tuple(reversed(found))


def caches(graph: Graph) -> tuple[tuple[Cache, ...], dict[str, str]]:
    """The caches of a graph whose views are settled; and of outputs that are an input with rows added but cannot be kept
    where they are multiplied with, why not."""
    uses = graph.uses()
    found: list[Cache] = []
    refused: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "concat" or not grows(graph, node):
            continue
        why = _obstacle(graph, uses, node)
        if why:
            refused[node.outputs[0]] = why
            continue
        (past, new), present, axis = node.inputs, node.outputs[0], integer(node, "axis")
        type = graph.type(present)
        rows = graph.type(past).shape[axis]
        found.append(Cache(past, new, present, axis, rows, type.shape, type.element.bytes))
    return tuple(found), refused


def grows(graph: Graph, node: Node) -> bool:
    """Whether a concat adds rows to an input, and is an output."""
    past = node.inputs[0]
    return (
        len(node.inputs) == 2
        and past in graph.inputs
        and node.outputs[0] in graph.outputs
        and all(graph.type(v).size for v in node.inputs)
    )


def _obstacle(graph: Graph, uses: Mapping[str, list[Node]], node: Node) -> str:
    """What keeps a cache from the tiles that multiply with it, "" for nothing."""
    (past, new), present = node.inputs, node.outputs[0]
    if integer(node, "axis") == len(graph.type(present).shape) - 1:
        return "it grows along its last axis"
    if past == new or len(uses[past]) > 1 or past in graph.outputs:
        return f"{past} is read by others too"
    work, read = [present], False
    while work:
        value = work.pop()
        for user in uses.get(value, ()):
            if is_view(user):
                work.append(user.outputs[0])
                continue
            whole = all(OPS[user.op].access(user, i) is Access.WHOLE for i, v in enumerate(user.inputs) if v == value)
            if not whole:
                return f"{user.origin} does not multiply with it"
            read = True
    return "" if read else "nothing multiplies with it"


def wanted(graph: Graph, how: str) -> tuple[Cache, ...]:
    """The caches that are to be kept in tiles. Raises CACHE if ``how`` is ``resident`` and one cannot be."""
    if how == "memory":
        return ()
    found, refused = caches(graph)
    if refused and how == "resident":
        name, why = next(iter(refused.items()))
        fix = "--cache fit keeps the others, --cache memory none"
        raise errors.CACHE(how=how, why=f"{name} cannot stay where it is multiplied with: {why}", fix=fix)
    return found


def cut(extents: Sequence[int], most: int) -> list[tuple[Range, ...]]:
    """Axes cut into shares of at most ``most`` positions each: the last axis first, evenly."""
    cuts: list[list[Range]] = []
    for extent in reversed(extents):
        each = max(1, min(extent, most))
        cuts.append(pieces(extent, -(-extent // each)))
        most = most // extent if each == extent else 1
    return list(combinations(*reversed(cuts)))


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of a segment that reads caches: the axes they can be cut along, and the bytes that one takes."""

    extents: tuple[int, ...]
    bytes: int


def spread(heads: Heads, tiles: Sequence[int], room: Mapping[int, int]) -> list[tuple[int, tuple[Range, ...]]] | None:
    """Shares of a segment's heads, and the tile of each, in the order given: on as many tiles as there are heads for, and
    as evenly; a tile with little room takes few. None if they do not fit in ``room`` bytes."""
    least = -(-prod(heads.extents) // len(tiles))
    for most in range(least, prod(heads.extents) + 1):
        shares = cut(heads.extents, most)
        found = _assign(shares, heads.bytes, tiles, room)
        if found is not None:
            return found
    # Not by equal shares: head by head, wherever there is room.
    return _assign(cut(heads.extents, 1), heads.bytes, tiles, room, rounds=prod(heads.extents))


def _assign(
    shares: Sequence[tuple[Range, ...]], bytes: int, tiles: Sequence[int], room: Mapping[int, int], rounds: int = 1
) -> list[tuple[int, tuple[Range, ...]]] | None:
    """Each share on the next tile that has room for it, every tile at most ``rounds`` times."""
    left = dict(room)
    found: list[tuple[int, tuple[Range, ...]]] = []
    waiting = list(shares)
    for _ in range(rounds):
        before = len(waiting)
        for tile in tiles:
            if waiting and left[tile] >= bytes * prod(r.count for r in waiting[0]):
                left[tile] -= bytes * prod(r.count for r in waiting[0])
                found.append((tile, waiting.pop(0)))
        if not waiting:
            return found
        if len(waiting) == before:
            return None
    return None
