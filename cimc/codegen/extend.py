"""Code that adds the new rows of a step to the KV caches in tiles."""

from __future__ import annotations

from cimc.codegen.context import Context
from cimc.codegen.held import HeldSegment, Kept
from cimc.codegen.tilecode import TileCode
from cimc.isa.operands import Affine, View, dense_strides


def extend(held: HeldSegment, context: Context, code: TileCode, share: int) -> None:
    """Load the new rows of every cache that a segment reads into the states of a share."""
    for kept in held.kept:
        _extend(kept, context, code, share)


def _extend(kept: Kept, context: Context, code: TileCode, share: int) -> None:
    """Declare the state of a share, and load the new rows into it."""
    cache, (low, high) = kept.cache, kept.units[share]
    element = context.graph.type(cache.present).element
    code.state(kept.name(share), element, (high - low, *cache.shape[cache.axis :]))
    new = context.homes[cache.new].layout
    strides = dense_strides(cache.shape)
    inner = new.shape[cache.axis :]
    for first, counts in cache.rectangles(low, high):
        shape = (*counts, *inner)
        long = [a for a, n in enumerate(shape) if n > 1] or [len(shape) - 1]

        def of(values: tuple[int, ...], axes: list[int] = long) -> tuple[int, ...]:
            return tuple(values[a] for a in axes)

        at = sum(i * s for i, s in zip(first, new.strides, strict=False))
        source = View(context.global_name(cache.new), Affine(new.offset + at), of(shape), of(new.strides))
        there = sum(i * s for i, s in zip(first, strides, strict=False)) - low * cache.unit
        offset = there + cache.rows * strides[cache.axis]
        code.emit(
            "load", View(kept.name(share), Affine(offset), of(shape), of(strides)), source, origin=kept.node.origin
        )
