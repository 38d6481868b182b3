"""The law of channels: what is sent is received, in number and in size."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from cimc import errors
from cimc.isa.instruction import INSTRUCTIONS, Carries
from cimc.isa.operands import Element, Extent, View, extent
from cimc.isa.program import Buffer, TileProgram
from cimc.isa.ranges import Box, corners
from cimc.isa.visit import Faults, Visit, Walk

Channel = tuple[int, int, int, Carries]
"""Source, destination, tag, and what it carries."""

ENDS = {
    Carries.DATA: ("send", "recv", "messages"),
    Carries.TOKENS: ("signal", "wait", "tokens"),
    Carries.PARTS: ("reduce", "collect", "parts of sums"),
}

Use = tuple[TileProgram, Visit]

_Buffers = Mapping[int, Mapping[str, Buffer]]
"""Local buffers by the identity of the tile's program and by name."""


class _Ends:
    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent: list[Use] = []
        self.received: list[Use] = []


def check_channels(walks: Sequence[tuple[TileProgram, Walk]], params: Box, faults: Faults) -> None:
    """Report channels whose two ends do not agree for some value of the params.

    Messages are counted by size and element type; where a size depends on a repeat variable only their number is."""
    channels = _collect(walks, faults)
    envs = list(corners(params, frozenset(params)))
    buffers = {id(tile): {b.name: b for b in reversed(tile.buffers)} for tile, _ in walks}
    for channel, ends in channels.items():
        if not _agree(channel, ends, faults) or _paired(ends, buffers):
            continue
        if channel[3] is Carries.TOKENS and _alike(ends):
            continue
        for env in envs:
            if _compare(channel, ends, env, buffers, faults):
                break


def _collect(walks: Sequence[tuple[TileProgram, Walk]], faults: Faults) -> dict[Channel, _Ends]:
    tiles = {tile.tile for tile, _ in walks}
    tagged = {name for name, spec in INSTRUCTIONS.items() if "tag" in spec.names}
    channels: defaultdict[Channel, _Ends] = defaultdict(_Ends)
    for tile, walk in walks:
        for visit in walk.visits:
            if visit.step.mnemonic not in tagged:
                continue
            keywords = dict(visit.step.keywords)
            tag = keywords.get("tag")
            if not isinstance(tag, int):
                continue
            if isinstance(keywords.get("of"), tuple):
                _sums(channels, tile, visit, tiles, faults)
                continue
            to, source = keywords.get("to"), keywords.get("source")
            carries = Carries.DATA if visit.step.operands else Carries.TOKENS
            for other in to if isinstance(to, tuple) else ():
                if _partner(other, tile, visit, tiles, faults):
                    channels[tile.tile, other, tag, carries].sent.append((tile, visit))
            if isinstance(source, int) and _partner(source, tile, visit, tiles, faults):
                channels[source, tile.tile, tag, carries].received.append((tile, visit))
    return channels


def _sums(
    channels: defaultdict[Channel, _Ends], tile: TileProgram, visit: Visit, tiles: set[int], faults: Faults
) -> None:
    """Enter a part of a sum, or the taking of one. A tile may be among those whose parts it takes."""
    keywords = dict(visit.step.keywords)
    of, to, tag = keywords["of"], keywords.get("to"), keywords["tag"]
    assert isinstance(of, tuple)
    assert isinstance(tag, int)
    if not all(
        _partner(t, tile, visit, tiles, faults, itself=True) for t in (*of, *([to] if isinstance(to, int) else []))
    ):
        return
    if not isinstance(to, int):
        for source in of:
            channels[source, tile.tile, tag, Carries.PARTS].received.append((tile, visit))
    elif tile.tile in of:
        channels[tile.tile, to, tag, Carries.PARTS].sent.append((tile, visit))
    else:
        what = f"tile {tile.tile} sends a part of a sum of the tiles {_some(set(of))}"
        faults.step(errors.UNPAIRED, tile, visit, what=what, hint="'of' names every tile that sends a part")


def _of(use: Use) -> object:
    return dict(use[1].step.keywords)["of"]


def _agree(channel: Channel, ends: _Ends, faults: Faults) -> bool:
    """Whether all parts of a channel belong to sums of the same tiles; reports it if not."""
    if channel[3] is not Carries.PARTS:
        return True
    uses = [*ends.sent, *ends.received]
    other = next((use for use in uses if _of(use) != _of(uses[0])), None)
    if other is not None:
        what = f"a sum to tile {channel[1]} on tag {channel[2]} is of other tiles than one before"
        faults.step(errors.UNPAIRED, *other, what=what, hint="give sums of other tiles another tag")
    return other is None


def _partner(
    other: int, tile: TileProgram, visit: Visit, tiles: set[int], faults: Faults, *, itself: bool = False
) -> bool:
    """Whether the other end can be there (and whether that may be the tile ``itself``); reports it if not."""
    if other in tiles and (itself or other != tile.tile):
        return True
    if other == tile.tile:
        what, hint = f"tile {other} names itself", "within a tile, 'copy' moves data and order is kept"
    else:
        what, hint = f"tile {other} has no program", f"tiles of this program: {_some(tiles)}"
    faults.step(errors.UNPAIRED, tile, visit, what=what, hint=hint)
    return False


def _some(tiles: set[int]) -> str:
    first = sorted(tiles)[:16]
    return ", ".join(map(str, first)) + (", ..." if len(first) < len(tiles) else "")


def _alike(ends: _Ends) -> bool:
    """Whether the two ends are plainly as many messages: one for one, in repeats of the same counts."""
    if len(ends.sent) != len(ends.received):
        return False
    return all(a.counts == b.counts for (_, a), (_, b) in zip(ends.sent, ends.received, strict=True))


def _paired(ends: _Ends, buffers: _Buffers) -> bool:
    """Whether the two ends are plainly one message each, as often and of the same extents."""
    if len(ends.sent) != 1 or len(ends.received) != 1:
        return False
    (tile, sent), (other, received) = ends.sent[0], ends.received[0]
    if sent.counts != received.counts or len(sent.step.operands) != len(received.step.operands):
        return False
    for a, b in zip(sent.step.operands, received.step.operands, strict=True):
        if not isinstance(a, View) or not isinstance(b, View) or a.shape != b.shape:
            return False
        if buffers[id(tile)][a.buffer].element is not buffers[id(other)][b.buffer].element:
            return False
    return True


def _compare(channel: Channel, ends: _Ends, env: Mapping[str, int], buffers: _Buffers, faults: Faults) -> bool:
    source, destination, tag, carries = channel
    send, recv, what_is = ENDS[carries]
    sent, received = _messages(ends.sent, env, buffers), _messages(ends.received, env, buffers)
    at = "".join(f", {n}={v}" for n, v in sorted(env.items()))
    tile, visit = (ends.sent or ends.received)[0]
    if sent.total() != received.total():
        what = (
            f"tile {source} sends {sent.total()} {what_is} to tile {destination} "
            f"on tag {tag}, which takes {received.total()}{at}"
        )
        hint = f"each {send} needs a {recv} with the same tag"
        faults.step(errors.UNPAIRED, tile, visit, what=what, hint=hint)
        return True
    if carries is Carries.TOKENS or "" in sent or "" in received or sent == received:
        return False
    what = f"tile {source} sends {_list(sent)} to tile {destination} on tag {tag}, which takes {_list(received)}{at}"
    faults.step(errors.UNPAIRED, tile, visit, what=what, hint="both ends name the same number of elements and type")
    return True


def _messages(uses: Sequence[Use], env: Mapping[str, int], buffers: _Buffers) -> Counter[str]:
    """Number of messages by what they hold; the empty text where that depends on a repeat variable."""
    alike: dict[tuple[int, Element | None], int] = {}  # by the identity of the extents, which many views share
    shapes: dict[int, tuple[Extent, ...]] = {}
    for tile, visit in uses:
        times = 1
        for count in visit.counts:
            times *= max(count if isinstance(count, int) else extent(count, env), 0)
        view = visit.step.operands[0] if visit.step.operands else None
        buffer = buffers[id(tile)].get(view.buffer) if isinstance(view, View) else None
        shape = view.shape if isinstance(view, View) else ()
        shapes[id(shape)] = shape
        key = id(shape), buffer.element if buffer else None
        alike[key] = alike.get(key, 0) + times
    out: Counter[str] = Counter()
    for (shape, element), times in alike.items():
        out[_content(shapes[shape], element, env)] += times
    return +out


def _content(shape: tuple[Extent, ...], element: Element | None, env: Mapping[str, int]) -> str:
    if element is None:
        return ""
    size = 1
    for e in shape:
        if not isinstance(e, int) and any(name not in env for name, _ in e.terms):
            return ""
        size *= extent(e, env)
    return f"{size} {element.value}"


def _list(messages: Counter[str]) -> str:
    return ", ".join(f"{n} × {what}" for what, n in sorted(messages.items()))
