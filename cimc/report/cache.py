"""KV caches that stay in tiles: what lies there, what a run adds, and what is given and read without being charged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from cimc.isa.program import GlobalBuffer, Port, Program
from cimc.report import units
from cimc.report.figures import CacheFigures, RunFigures
from cimc.report.render import Block, Facts


def with_cache(
    run: RunFigures, program: Program, capacity_tokens: int | None = None, params: Mapping[str, int] | None = None
) -> RunFigures:
    """The figures of a run with those of the inputs and outputs that tiles' states hold; unchanged where there are none.
    ``capacity_tokens``: what the compile says would fit; ``params``: the parameters of the run."""
    by_name = {g.name: g for g in program.globals if g.held}
    if not by_name:
        return run
    named = {(p.tile, p.buffer) for g in by_name.values() for p in g.pieces}
    sizes: dict[int, int] = {}
    for tile in program.tiles:
        held = sum(b.bytes for b in tile.buffers if (tile.tile, b.name) in named)
        if held:
            sizes[tile.tile] = held
    given_bytes, read_bytes = (_bytes(ports, by_name, params or {}) for ports in (program.inputs, program.outputs))
    found = CacheFigures(
        bytes=sum(sizes.values()),
        tiles=len(sizes),
        fullest_tile_bytes=max(sizes.values(), default=0),
        given_bytes=given_bytes,
        read_bytes=read_bytes,
        added_bytes=max(0, read_bytes - given_bytes),
        capacity_tokens=capacity_tokens,
    )
    return run.model_copy(update={"cache": found})


def _bytes(ports: Sequence[Port], held: Mapping[str, GlobalBuffer], params: Mapping[str, int]) -> int:
    """Of the ports that are held, at these parameters."""
    there = [(p, held[p.buffer]) for p in ports if p.buffer in held]
    return sum(prod(p.extents(g.shape, params)) * g.element.bytes for p, g in there)


def blocks(run: RunFigures) -> list[Block]:
    """The figures for people; nothing where no cache stays in tiles."""
    found = run.cache
    if found is None:
        return []
    most = units.size_bytes(found.fullest_tile_bytes)
    rows: list[tuple[str, str] | tuple[str, str, str]] = [
        ("in tiles", units.size_bytes(found.bytes), f"states of {found.tiles} tiles, at most {most} in one"),
        ("added by this run", units.size_bytes(found.added_bytes), "the new rows: all that moves"),
        ("given", units.size_bytes(found.given_bytes), "not charged: earlier steps have left it there"),
        ("read as outputs", units.size_bytes(found.read_bytes), "not charged: it stays for the next step"),
    ]
    if found.capacity_tokens is not None:
        rows.append(("room for", f"{units.whole(found.capacity_tokens)} tokens", "of all caches on this hardware"))
    return [Facts("KV cache", rows)]
