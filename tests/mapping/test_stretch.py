"""Weights stretched over a chip: in order, on tiles of their own, near the rows of digital tiles."""

from __future__ import annotations

from itertools import pairwise

from cimc.arch import noc
from cimc.arch.load import load
from cimc.mapping.chips import snake
from cimc.mapping.placement import Part, PlacedMatrix
from cimc.mapping.stretch import stretched


def test_tiles_keep_their_order_and_stand_where_digital_tiles_are() -> None:
    chip = load("sram-digital").spec
    way = snake(chip, [t for t in range(chip.tile_count) if chip.tile(t).cores])
    parts = tuple(Part(t, (0, 1), (k, k + 1), ()) for k, t in enumerate(way[:40]))
    found = stretched({"y": (PlacedMatrix("y", 0, "w", 1, 40, "w8a8", parts),)}, way, chip, {"y"})["y"][0].parts
    places = [way.index(p.tile) for p in found]
    assert places == sorted(set(places))
    assert [p.cols for p in found] == [p.cols for p in parts]
    rows = {chip.position(t)[1] for t in range(chip.tile_count) if chip.tile(t).matmul}
    assert {chip.position(p.tile)[1] for p in found} == rows
    able = [t for t in way if chip.position(t)[1] in rows]
    places = [able.index(p.tile) for p in found]
    assert max(b - a for a, b in pairwise(places)) <= -(-len(able) // len(places))


def test_what_stands_at_memory_ports_stays_there() -> None:
    """The rows of memory ports have no digital tiles: what is stretched leaves them, what stays keeps them."""
    chip = load("sram-digital").spec
    way = snake(chip, [t for t in range(chip.tile_count) if chip.tile(t).cores])
    ports = {chip.position(t)[1] for t in noc.memory_ports(chip)}
    out = [t for t in way if chip.position(t)[1] in ports]
    others = [t for t in way if t not in out][:30]
    matrices = {
        name: (PlacedMatrix(name, 0, "w", 1, len(tiles), "w8a8", tuple(Part(t, (0, 1), (0, 1), ()) for t in tiles)),)
        for name, tiles in (("y", others), ("logits", out))
    }
    found = stretched(matrices, way, chip, {"y"}, frozenset({"logits"}))
    assert found["logits"] == matrices["logits"]
    moved = [p.tile for p in found["y"][0].parts]
    assert len(set(moved)) == len(others)
    assert not set(moved) & set(out)
    assert {p.tile for p in stretched(matrices, way, chip, {"y", "logits"})["logits"][0].parts} != set(out), (
        "stretched with the others"
    )


def test_copies_of_what_does_not_stream_take_what_is_left() -> None:
    """Of a chip of which what streams takes half, the rows of digital tiles: its place is the same with and without others,
    which keep tiles of their own."""
    chip = load("sram-digital").spec
    way = snake(chip, [t for t in range(chip.tile_count) if chip.tile(t).cores])
    tiles = {"before": way[:45], "y": way[45:95]}
    matrices = {
        name: (PlacedMatrix(name, 0, "w", 1, len(on), "w8a8", tuple(Part(t, (0, 1), (0, 1), ()) for t in on)),)
        for name, on in tiles.items()
    }
    found = stretched(matrices, way, chip, {"y"})
    alone = stretched({"y": matrices["y"]}, way, chip, {"y"})
    assert found["y"] == alone["y"]
    assert len({p.tile for m in found.values() for p in m[0].parts}) == 95
    rows = {chip.position(t)[1] for t in range(chip.tile_count) if chip.tile(t).matmul}
    assert {chip.position(p.tile)[1] for p in found["y"][0].parts} <= rows
