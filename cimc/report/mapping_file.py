"""``mapping.json`` read back: which weight block lies in which crossbars, which unit does what.

The file may have been edited by hand, so it is checked before it is believed: types, ranges, that every tile and block
it speaks of exists, that nothing overflows. The reports work on these records and never on the mapper's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from cimc import errors, files
from cimc.report.figures import MAX_FILE_BYTES, HostNode, Name, Record, first_fault

Index = Annotated[int, Field(ge=0, le=2**40)]
Extent = Annotated[int, Field(ge=1, le=2**40)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TilePlace(Record):
    """A tile: where it sits in the mesh of its chip, its kind, physical crossbars in use and present."""

    id: Index
    chip: Index
    x: Annotated[int, Field(ge=0, lt=65536)]
    y: Annotated[int, Field(ge=0, lt=65536)]
    kind: Name
    crossbars_used: Index
    crossbars: Index

    @property
    def fill(self) -> float:
        """Share of the crossbars that is in use; 0 for a tile without any."""
        return self.crossbars_used / self.crossbars if self.crossbars else 0.0


class Block(Record):
    """A piece of a weight matrix: half-open row and column ranges, the tile and the crossbars that hold its slices."""

    rows: Annotated[list[Index], Field(min_length=2, max_length=2)]
    cols: Annotated[list[Index], Field(min_length=2, max_length=2)]
    slices: Extent
    replica: Index
    tile: Index
    crossbars: list[Index]

    @property
    def height(self) -> int:
        """Rows, the matrix's inputs."""
        return self.rows[1] - self.rows[0]

    @property
    def width(self) -> int:
        """Columns, the matrix's outputs."""
        return self.cols[1] - self.cols[0]


class StaticMatrix(Record):
    """A weight matrix that lies in cells. ``origin`` is the ONNX node it belongs to."""

    node: Name
    weight: Name
    rows: Extent
    cols: Extent
    precision: Name
    blocks: list[Block]
    origin: Name = ""

    @property
    def layer(self) -> str:
        """The name the reports use: the ONNX node's."""
        return self.origin or self.node


class DynamicOp(Record):
    """A product of two activations: which unit of which tile does it, how many multiply-accumulates."""

    node: Name
    kind: Name
    tile: Index
    unit: Name
    macs: Index
    origin: Name = ""

    @property
    def layer(self) -> str:
        """The name the reports use: the ONNX node's."""
        return self.origin or self.node


class Product(Record):
    """A matrix product of the model, however it is mapped: batch · (m × k) · (k × n). ``a``, ``b`` and ``y`` are the
    elements of operands and result that exist only once (windows of a convolution overlap)."""

    node: Name
    kind: Name
    batch: Extent
    m: Extent
    k: Extent
    n: Extent
    a: Index
    b: Index
    y: Index
    weight: Name = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.m * self.k * self.n


class Shorter(Record):
    """What the model multiplies where a length that stays open has another value: ``at`` that of the work around this one,
    ``length`` here."""

    name: Name
    at: Index
    length: Index
    io_bytes: Index
    products: list[Product]


class Work(Record):
    """What the model multiplies, in order, and the bytes of its inputs and outputs. ``shorter``: the same at another length,
    of a program for a range of them; every number follows the length along the line through both."""

    io_bytes: Index
    products: list[Product]
    shorter: Shorter | None = None

    @model_validator(mode="after")
    def _alike(self) -> Work:
        other = self.shorter
        if other and (other.at == other.length or [p.node for p in other.products] != [p.node for p in self.products]):
            raise ValueError("work.shorter is not of the same products at another length")
        return self

    def at(self, params: Mapping[str, int]) -> Work:
        """The work at the value that one of these parameters has."""
        other = self.shorter
        if other is None or other.name not in params:
            return self

        def line(here: int, there: int) -> int:
            return max(0, here + (here - there) * (params[other.name] - other.at) // (other.at - other.length))

        products = [
            p.model_copy(
                update={k: line(getattr(p, k), getattr(q, k)) for k in ("batch", "m", "k", "n", "a", "b", "y")}
            )
            for p, q in zip(self.products, other.products, strict=True)
        ]
        return Work(io_bytes=line(self.io_bytes, other.io_bytes), products=products)

    @property
    def weights(self) -> int:
        """Elements of all weight matrices, each counted once however often it is used."""
        once = {p.weight or f"{i}": p.b for i, p in enumerate(self.products) if p.kind == "static"}
        return sum(once.values())


class Alternative(Record):
    """One way to treat the products of activations: whether the chip can, and an estimate of what the units alone take."""

    how: Name
    chosen: bool
    possible: bool
    why: str
    macs: Index
    cell_writes: Index | None
    cycles: Index | None
    energy_pj: float | None


class CachedValue(Record):
    """A KV cache, an input that comes back with rows added: where it lies, and why if not in tiles."""

    input: Name
    output: Name
    bytes: Index
    tokens: Index | None
    home: Literal["tiles", "memory"]
    tiles: list[Index]
    why: str


class CacheTile(Record):
    """Bytes of caches in a tile, of those it has."""

    tile: Index
    bytes: Index
    local_bytes: Index


class Caches(Record):
    """The KV caches of a model. ``capacity_tokens``: rows for which tiles have room, None if they were not to lie there."""

    how: Name
    capacity_tokens: Index | None
    bytes: Index
    tiles: list[CacheTile]
    values: list[CachedValue]


class Totals(Record):
    """Sums over the chip."""

    crossbars_used: Index
    crossbars: Index
    cell_utilization: Share
    tiles_used: Index


class MappingFile(Record):
    """The whole file."""

    hardware: Name
    chips: Extent
    tiles: list[TilePlace]
    static: list[StaticMatrix]
    dynamic: list[DynamicOp]
    host: list[HostNode]
    totals: Totals
    work: Work | None = None  # absent in files of older versions
    attention: tuple[Alternative, ...] = ()  # so too
    cache: Caches | None = None  # of a model with KV caches

    @model_validator(mode="after")
    def _consistent(self) -> MappingFile:
        tiles = _checked_tiles(self)
        for matrix in self.static:
            for number, block in enumerate(matrix.blocks):
                _check_block(matrix, f"static {matrix.node!r}, block {number}", block, tiles)
        for op in self.dynamic:
            if op.tile not in tiles:
                raise ValueError(f"dynamic {op.node!r}: there is no tile {op.tile}")
        for place in self.cache.tiles if self.cache else ():
            if place.tile not in tiles:
                raise ValueError(f"cache: there is no tile {place.tile}")
        return self

    @property
    def capacity_tokens(self) -> int | None:
        """Rows of KV caches for which tiles have room, as far as the compile tells."""
        return self.cache.capacity_tokens if self.cache else None

    def tile(self, number: int) -> TilePlace | None:
        """The tile of that id."""
        return next((t for t in self.tiles if t.id == number), None)


def _checked_tiles(mapping: MappingFile) -> dict[int, TilePlace]:
    tiles: dict[int, TilePlace] = {}
    places: dict[tuple[int, int, int], int] = {}
    for tile in mapping.tiles:
        if tile.id in tiles:
            raise ValueError(f"tiles: id {tile.id} stands there twice")
        if tile.chip >= mapping.chips:
            raise ValueError(f"tile {tile.id}: on chip {tile.chip}, but there are {mapping.chips}")
        if tile.crossbars_used > tile.crossbars:
            raise ValueError(f"tile {tile.id}: {tile.crossbars_used} crossbars used of {tile.crossbars}")
        other = places.setdefault((tile.chip, tile.x, tile.y), tile.id)
        if other != tile.id:
            raise ValueError(f"tile {tile.id}: at ({tile.x}, {tile.y}) of chip {tile.chip}, where tile {other} is")
        tiles[tile.id] = tile
    used, present = sum(t.crossbars_used for t in tiles.values()), sum(t.crossbars for t in tiles.values())
    totals = mapping.totals
    if (totals.crossbars_used, totals.crossbars) != (used, present):
        stated = f"{totals.crossbars_used} of {totals.crossbars}"
        raise ValueError(f"totals: {stated} crossbars used, but the tiles add up to {used} of {present}")
    return tiles


def _check_block(matrix: StaticMatrix, what: str, block: Block, tiles: dict[int, TilePlace]) -> None:
    for axis, (a, b), extent in (("rows", block.rows, matrix.rows), ("cols", block.cols, matrix.cols)):
        if not a < b <= extent:
            raise ValueError(f"{what}: {axis} [{a}, {b}] of a matrix that has {extent}")
    if block.tile not in tiles:
        raise ValueError(f"{what}: there is no tile {block.tile}")
    present = tiles[block.tile].crossbars
    outside = next((c for c in block.crossbars if c >= present), None)
    if outside is not None:
        raise ValueError(f"{what}: crossbar {outside} of tile {block.tile}, which has {present}")


def parse_mapping(text: str, path: str | Path = "mapping.json") -> MappingFile:
    """The records of a mapping dump's text. Raises REPORT_FILE, naming the key or the entry that is wrong."""
    try:
        return MappingFile.model_validate_json(text)
    except ValidationError as fault:
        why = first_fault(fault)
        raise errors.REPORT_FILE(what="mapping", path=path, why=why, command="compile") from None


def work_of(mapping: Mapping[str, object]) -> Work | None:
    """The work in a mapping that was made in this process; None if it has none."""
    found = mapping.get("work")
    return Work.model_validate(found) if found is not None else None


def capacity_of(mapping: Mapping[str, object]) -> int | None:
    """Rows of KV caches for which tiles have room, in a mapping that was made in this process."""
    found = mapping.get("cache")
    return Caches.model_validate(found).capacity_tokens if found is not None else None


def read_mapping(path: Path) -> MappingFile:
    """Read ``mapping.json``. Raises FILE_NOT_FOUND, FILE_UNREADABLE, REPORT_FILE."""
    return parse_mapping(files.read_text(path, "mapping", MAX_FILE_BYTES), path)
