"""What a mapping decides, piece by piece: homes of values, segments of nodes, matrices on cores, vector work on tiles.

A *segment* is a set of nodes over the same rows that run together, block of rows by block of rows, without their values between
leaving the tiles. Values that cross segments live in global memory (their *home*).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field, replace

from cimc.ir.graph import Node
from cimc.isa.operands import Element
from cimc.isa.program import Block
from cimc.ops.op import Layout


class Style(enum.Enum):
    """How a segment runs."""

    STREAM = "stream"  # with static matmuls: row blocks flow through the tiles that hold the weights
    SPREAD = "spread"  # without: the rows are spread over digital tiles, each runs the whole chain
    ASSEMBLE = "assemble"  # regions copied through a tile
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Home:
    """Where a value lies in global memory."""

    buffer: str
    element: Element
    layout: Layout


@dataclass(frozen=True)
class Segment:
    """Nodes that run together, in order; ``domain`` are the extents of their common rows."""

    index: int
    style: Style
    nodes: tuple[Node, ...]
    domain: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of rows of the domain."""
        n = 1
        for d in self.domain:
            n *= d
        return n


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A core's block: rows and cols are ranges of the whole weight matrix."""

    core: int
    rows: tuple[int, int]
    cols: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """The rectangle of a weight matrix that one tile holds, and its blocks."""

    tile: int
    rows: tuple[int, int]
    cols: tuple[int, int]
    blocks: tuple[PlacedBlock, ...]


@dataclass(frozen=True)
class PlacedMatrix:
    """A static matmul on cores, or one of its copies. ``value`` is the node's output, ``weight`` the key of the codes."""

    value: str
    replica: int
    weight: str
    rows: int
    cols: int
    precision: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Cells:
    """The cores that an operand is written into as the model runs, the same on every tile that takes part; ``name`` is the
    matrix there. ``copies``: how often it may be written into further cores, each copy ``step`` cores on, so that several
    blocks of rows go through at the same time."""

    name: str
    rows: int
    cols: int
    blocks: tuple[Block, ...]
    copies: int = 1
    step: int = 0

    def copy(self, number: int) -> Cells:
        """One of the copies, as it stands."""
        moved = tuple(replace(b, core=b.core + number * self.step) for b in self.blocks)
        return Cells(f"{self.name}c{number}" if number else self.name, self.rows, self.cols, moved)


@dataclass(frozen=True)
class Reload:
    """Matrices that are written in every inference because the cells do not suffice for all. ``values``: theirs.
    ``pool``: cores that they take turns on; ``rounds``: how often one of these is written at most, per inference;
    ``cell_writes``: pulses per inference; ``weights``: how many are written. ``considered``: pools that were tried, as
    (cores, pulses, estimated cycles of the products)."""

    values: frozenset[str]
    pool: int
    rounds: int
    cell_writes: int
    weights: int
    considered: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Placement:
    """Which tiles do what. ``matrices``: by output value, a copy per replica of the segment. ``tiles``: per segment those of
    its rows (SPREAD) or regions (ASSEMBLE), or the one that drives it (HOST). ``homes``: per STREAM segment, for every
    replica and every vector stage, the tiles that take turns with the stage's blocks of rows: 1, 2, 4 ... of them.
    ``beside``: per STREAM segment, for every replica, the tile beside each tile of products that does what it has no unit
    for. ``written``: by output value, the cores of products whose second operand is written into cells; ``least_rows``: per
    segment with such products, the rows of one operand that are worth a tile.

    ``rows`` and ``residents`` are empty unless a search or a user says them: code generation chooses what is not named."""

    matrices: MappingABC[str, tuple[PlacedMatrix, ...]]
    homes: MappingABC[int, tuple[tuple[tuple[int, ...], ...], ...]]  # segment → replica → stage → lanes
    stages: MappingABC[str, int]  # output value → vector stage of its segment (STREAM)
    shards: MappingABC[str, str]  # output value that stays on the matrix's tiles, by columns → the mvm's output value
    reads: MappingABC[str, tuple[str, ...]]  # output value → values inside its segment that its node reads (STREAM)
    tiles: MappingABC[int, tuple[int, ...]]  # segment → tiles
    aside: frozenset[str] = frozenset()  # of the shards, values that are on the tiles beside
    beside: MappingABC[int, tuple[MappingABC[int, int], ...]] = field(
        default_factory=dict[int, tuple[MappingABC[int, int], ...]]
    )
    written: MappingABC[str, Cells] = field(default_factory=dict[str, Cells])
    least_rows: MappingABC[int, int] = field(default_factory=dict[int, int])
    rows: MappingABC[int, int] = field(default_factory=dict[int, int])  # segment → rows of its blocks, exactly
    loading: frozenset[int] = frozenset()
    """SPREAD segments that load the operands that they read whole, though these could be sent to their tiles."""
    residents: MappingABC[str, int | None] = field(default_factory=dict[str, int | None])
    """Value between segments → the tile whose local memory is its home, None: global memory."""
    reload: Reload | None = None  # None: all weights stay in their cells
    busy: bool = False
    """Whether columns of products are brought to codes on tiles that may have more of them than they can work off."""
    time: int = 0
    """Cycles of all rows of products, estimated by what their tiles have to work off."""
    streamed: MappingABC[int, tuple[tuple[int, ...], ...]] = field(
        default_factory=dict[int, tuple[tuple[int, ...], ...]]
    )
    """By segment that a batch streams through, the tiles of each of its stages: what code generation chose."""

    def occupied(self) -> frozenset[tuple[int, int]]:
        """The cores with static weights, as (tile, core)."""
        parts = (p for copies in self.matrices.values() for m in copies for p in m.parts)
        return frozenset((p.tile, b.core) for p in parts for b in p.blocks)

    def matrix_tiles(self, segment: Segment) -> set[int]:
        """The tiles of a segment's matrices, all copies of them."""
        copies = (m for n in segment.nodes for o in n.outputs for m in self.matrices.get(o, ()))
        return {part.tile for copy in copies for part in copy.parts}

    def seats(self, segment: int) -> dict[int, None]:
        """The tiles of a STREAM segment's vector stages, of all replicas, each once and in order."""
        return dict.fromkeys(t for stages in self.homes.get(segment, ()) for lanes in stages for t in lanes)

    def written_tiles(self) -> frozenset[int]:
        """The tiles whose cores operands are written into as the model runs."""
        return frozenset(t for s in self.least_rows for t in self.tiles.get(s, ()))
