"""Instructions whose extents follow repeat variables or parameters: one variant for every combination of values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from cimc import errors
from cimc.isa.operands import Affine, Extent, View, extent
from cimc.sim.decode import Decoder, Late
from cimc.sim.job import span
from cimc.sim.names import Bounds
from cimc.sim.pool import flags
from cimc.sim.tables import EMPTY, R_VARIANT_AFF
from cimc.sim.variables import Scope

MAX_VARIANTS = 1 << 20
CORES = ""  # in place of a buffer's name
Extents = tuple[tuple[int, ...], ...]


def decode_varying(decoder: Decoder) -> None:
    """Enter the variants of the decoder's late instructions, and their ranges. Raises TIMING_TOO_LARGE."""
    known: dict[tuple[object, ...], int] = {}
    total = len(decoder.cost)
    begins = np.searchsorted(decoder.columns.ranges.owner, [late.number for late in decoder.late]).tolist()
    for late, begin in zip(decoder.late, begins, strict=True):
        total = _instruction(decoder, late, begin, known, total)


def _instruction(decoder: Decoder, late: Late, begin: int, known: dict[tuple[object, ...], int], total: int) -> int:
    """Enter one, with ranges from ``begin`` on; the number of all variants then, from ``total`` on."""
    step, pool, scope = late.step, decoder.pool, decoder.listing.scopes[int(decoder.listing.scope[late.number])]
    shapes = [o.shape for o in step.operands if isinstance(o, View)]
    names = sorted({v for s in shapes for e in s if isinstance(e, Affine) for v, _ in e.terms} & set(scope.slots))
    trips = [1 + scope.spans[scope.slots[n]][1] for n in names]
    count = math.prod(trips)
    if total + count > MAX_VARIANTS:
        what = f"{step.mnemonic} in line {step.line} of tile {decoder.names.tiles[late.tile]}"
        raise errors.TIMING_TOO_LARGE(what=what, need=count, have=MAX_VARIANTS)
    key = _key(decoder, late)
    local = _local(decoder, late)
    costs: list[int] = []
    bounds: list[list[Bounds]] = []
    for values in itertools.product(*(range(t) for t in trips)):
        env = {**scope.known, **dict.fromkeys(scope.slots, 0), **dict(zip(names, values, strict=True))}
        extents = tuple(tuple(extent(e, env) for e in shape) for shape in shapes)
        costs.append(_price(decoder, late, (*key, extents), known, env))
        bounds.append([_bounds(decoder, late.tile, view, env) for view in local])
    decoder.variants[late.row] = count
    decoder.varying[late.row] = costs, bounds
    for j, mark in enumerate(flags(pool.prices[costs[0]].job)):
        item = _item(decoder, late.tile, local[j])
        decoder.ranges[begin + j] = _range(decoder, local[j].offset, item, mark, scope, [b[j] for b in bounds])
    if names:
        decoder.rows[late.row, R_VARIANT_AFF] = _offset(decoder, scope, names, trips)
    return total + count


def _range(
    decoder: Decoder, offset: Affine, item: int, mark: int, scope: Scope, bounds: Sequence[Bounds]
) -> tuple[int, int, int, int, bool]:
    """The line of a range and where it can lie at all. ``bounds``: of the variants, from its offset."""
    low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
    if not offset.terms:
        return 0, mark, low, high, len(bounds) == 1
    place, least, greatest, fixed = decoder.moving(offset, item, scope)
    return place, mark, low + least, high + greatest if high > EMPTY else high, len(bounds) == 1 and fixed


def _local(decoder: Decoder, late: Late) -> list[View]:
    """The local views of an instruction, and its cores as views of a buffer without a name, in the order of the job's
    ranges."""
    found: list[View] = []
    for i, o in enumerate(late.step.operands):
        if isinstance(o, str):
            spans = decoder.names.cells[late.tile].get(o, ())
            found += [View(CORES, Affine(first), (end - first,), (1,)) for first, end in spans]
        elif not late.form.shared(i):
            found.append(o)
    return found


def _item(decoder: Decoder, tile: int, view: View) -> int:
    """Bytes of an element of a local view."""
    return int(decoder.names.item[_buffer(decoder, tile, view)])


def _buffer(decoder: Decoder, tile: int, view: View) -> int:
    """The number of the buffer of a local view."""
    return decoder.names.buffer(tile, view.buffer) if view.buffer != CORES else decoder.names.all_cells


def _offset(decoder: Decoder, scope: Scope, names: list[str], trips: list[int]) -> int:
    """The affine offset of a variant from the first."""
    factors = [math.prod(trips[i + 1 :]) for i in range(len(trips))]
    return decoder.listing.affines.enter(0, [(scope.slots[n], f) for n, f in zip(names, factors, strict=True)])


def _key(decoder: Decoder, late: Late) -> tuple[object, ...]:
    """What the cost of an instruction depends on, but for its extents."""
    names, step = decoder.names, late.step
    parts: list[tuple[int, tuple[Extent, ...]]] = []
    for i, o in enumerate(step.operands):
        if isinstance(o, str):
            parts.append((names.matrices[late.tile][o], ()))
        elif late.form.shared(i):
            parts.append((int(names.shared_element[names.array(o.buffer)]), o.shape))
        else:
            parts.append((int(names.element[names.buffer(late.tile, o.buffer)]), o.shape))
    words = step.keywords if late.form.words else ()
    return names.kinds[late.tile], step.mnemonic, words, late.home >= 0, *parts


def _price(
    decoder: Decoder, late: Late, key: tuple[object, ...], known: dict[tuple[object, ...], int], env: Mapping[str, int]
) -> int:
    if key not in known:
        job = decoder.foreman(late.tile).job(late.step, env, ways=False)
        known[key] = decoder.pool.price(job, late.form, decoder.names.kinds[late.tile])
    return known[key]


def _bounds(decoder: Decoder, tile: int, view: View, env: Mapping[str, int]) -> Bounds:
    """The bytes of a view for these values of the variables, without the part of its offset that moves."""
    low, high = span(View(view.buffer, Affine(), view.shape, view.strides), env)
    if high <= low:
        return 0, EMPTY
    names = decoder.names
    buffer, item = _buffer(decoder, tile, view), _item(decoder, tile, view)
    base = int(names.address[buffer]) + item * (0 if view.offset.terms else view.offset.constant)
    return base + item * low, base + item * high
