"""The law of resident buffers: global arrays that lie in a tile's local memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.program import Buffer, GlobalBuffer, Program
from cimc.isa.visit import Faults


@dataclass(frozen=True, slots=True)
class _Place:
    buffer: Buffer | GlobalBuffer
    resident: bool
    low: int
    high: int


def _place(buffer: Buffer | GlobalBuffer, *, resident: bool) -> _Place:
    return _Place(buffer, resident, buffer.address, buffer.address + buffer.bytes)


def check_homes(program: Program, chip: ChipSpec | None, faults: Faults) -> None:
    """Report every resident buffer whose tile does not exist, that does not lie in its local memory, or that shares
    bytes with a local buffer of that tile's program or with another resident buffer: it lives from the first cycle to
    the last."""
    homes: dict[int, list[_Place]] = {}
    for g in program.globals:
        if g.tile < -1 or (not g.resident and g.address):
            what = f"'{g.name}' lies at byte {g.address} of tile {g.tile}"
            _wrong(g, what, "tile -1 and address 0 mean global memory", faults)
        if g.resident and _home(g, chip, faults):
            homes.setdefault(g.tile, []).append(_place(g, resident=True))
    for tile in program.tiles:
        if tile.tile in homes:
            homes[tile.tile] += [_place(b, resident=False) for b in tile.buffers]
    for number, places in homes.items():
        for a, b in _shared(places):
            faults.report(
                errors.RESIDENT_OVERLAP,
                b.buffer.line,
                f"tile {number}",
                b.buffer.name,
                a=a.buffer.name,
                b=b.buffer.name,
                tile=number,
                low=max(a.low, b.low),
                high=min(a.high, b.high) - 1,
            )


def _home(g: GlobalBuffer, chip: ChipSpec | None, faults: Faults) -> bool:
    """Whether the place makes sense by itself."""
    if g.address < 0 or g.address % g.element.bytes:
        hint = f"{g.element.value} stands at multiples of {g.element.bytes}"
        _wrong(g, f"'{g.name}' stands at byte {g.address}", hint, faults)
        return False
    if chip is None:
        return True
    if g.tile >= chip.tile_count:
        _wrong(g, f"there is no tile {g.tile}", f"{chip.name} has tiles 0 to {chip.tile_count - 1}", faults)
        return False
    have, need = chip.tile(g.tile).local_bytes, g.address + g.bytes
    if need > have:
        what = f"local memory of tile {g.tile}, bytes up to the end of '{g.name}'"
        hint = "move it to another tile, or to global memory"
        place = f"global buffer {g.name}"
        faults.report(errors.PROGRAM_TOO_BIG, g.line, place, g.name, what=what, need=need, have=have, hint=hint)
    return True


def _shared(places: Sequence[_Place]) -> Iterator[tuple[_Place, _Place]]:
    """Pairs that share bytes, of which one at least is resident. In the order of addresses: of each place only those
    that begin before its end are looked at."""
    if _apart(places):
        return
    order = sorted((p for p in places if p.high > p.low), key=lambda p: (p.low, p.high))
    for i, a in enumerate(order):
        for b in order[i + 1 :]:
            if b.low >= a.high:
                break
            if a.resident or b.resident:
                yield a, b


def _apart(places: Sequence[_Place]) -> bool:
    """Whether no pair does. Local buffers may share bytes with each other, thousands of them the same ones: of those only
    the nearest resident is looked at."""
    residents = sorted((p for p in places if p.resident and p.high > p.low), key=lambda p: p.low)
    if any(a.high > b.low for a, b in pairwise(residents)):
        return False
    lows = [p.low for p in residents]
    for p in places:
        below = bisect_left(lows, p.high) - 1  # the last resident that begins before p ends
        if not p.resident and p.high > p.low and below >= 0 and residents[below].high > p.low:
            return False
    return True


def _wrong(g: GlobalBuffer, what: str, hint: str, faults: Faults) -> None:
    faults.report(errors.WRONG_DECLARATION, g.line, f"global buffer {g.name}", g.name, what=what, hint=hint)
