"""The law of channels: what is sent is received, in number and in size."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cimc import errors
from cimc.isa.instruction import INSTRUCTIONS
from cimc.isa.operands import View, extent
from cimc.isa.program import Buffer, TileProgram
from cimc.isa.ranges import Box, corners
from cimc.isa.visit import Faults, Visit, Walk

Channel = tuple[int, int, int, bool]
"""Source, destination, tag, and whether it carries tokens (signal, wait) or data (send, recv)."""

Use = tuple[TileProgram, Visit]

_Buffers = Mapping[int, Mapping[str, Buffer]]
"""Local buffers by the identity of the tile's program and by name."""


@dataclass
class _Ends:
    sent: list[Use] = field(default_factory=list[Use])
    received: list[Use] = field(default_factory=list[Use])


def check_channels(walks: Sequence[tuple[TileProgram, Walk]], params: Box, faults: Faults) -> None:
    """Report channels whose two ends do not agree for some value of the params.

    Messages are counted by size and element type; where a size depends on a repeat variable only their number is."""
    channels = _collect(walks, faults)
    envs = list(corners(params, frozenset(params)))
    buffers = {id(tile): {b.name: b for b in reversed(tile.buffers)} for tile, _ in walks}
    for channel, ends in channels.items():
        if _paired(ends, buffers):
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
            to, source, tag = keywords.get("to"), keywords.get("source"), keywords.get("tag")
            token = not visit.step.operands
            if not isinstance(tag, int):
                continue
            for other in to if isinstance(to, tuple) else ():
                if _partner(other, tile, visit, tiles, faults):
                    channels[tile.tile, other, tag, token].sent.append((tile, visit))
            if isinstance(source, int) and _partner(source, tile, visit, tiles, faults):
                channels[source, tile.tile, tag, token].received.append((tile, visit))
    return channels


def _partner(other: int, tile: TileProgram, visit: Visit, tiles: set[int], faults: Faults) -> bool:
    """Whether the other end can be there; reports it if not."""
    if other == tile.tile:
        what, hint = f"tile {other} names itself", "within a tile, 'copy' moves data and order is kept"
        faults.step(errors.UNPAIRED, tile, visit, what=what, hint=hint)
    elif other not in tiles:
        what, hint = f"tile {other} has no program", f"tiles of this program: {_some(tiles)}"
        faults.step(errors.UNPAIRED, tile, visit, what=what, hint=hint)
    return other != tile.tile and other in tiles


def _some(tiles: set[int]) -> str:
    first = sorted(tiles)[:16]
    return ", ".join(map(str, first)) + (", ..." if len(first) < len(tiles) else "")


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
    source, destination, tag, token = channel
    sent, received = _messages(ends.sent, env, buffers), _messages(ends.received, env, buffers)
    at = "".join(f", {n}={v}" for n, v in sorted(env.items()))
    tile, visit = (ends.sent or ends.received)[0]
    if sent.total() != received.total():
        send, recv = ("signal", "wait") if token else ("send", "recv")
        what = (
            f"tile {source} sends {sent.total()} {'tokens' if token else 'messages'} to tile {destination} "
            f"on tag {tag}, which takes {received.total()}{at}"
        )
        hint = f"each {send} needs a {recv} with the same tag"
        faults.step(errors.UNPAIRED, tile, visit, what=what, hint=hint)
        return True
    if token or "" in sent or "" in received or sent == received:
        return False
    what = f"tile {source} sends {_list(sent)} to tile {destination} on tag {tag}, which takes {_list(received)}{at}"
    faults.step(errors.UNPAIRED, tile, visit, what=what, hint="both ends name the same number of elements and type")
    return True


def _messages(uses: Sequence[Use], env: Mapping[str, int], buffers: _Buffers) -> Counter[str]:
    """Number of messages by what they hold; the empty text where that depends on a repeat variable."""
    out: Counter[str] = Counter()
    for tile, visit in uses:
        times = 1
        for count in visit.counts:
            times *= max(extent(count, env), 0)
        out[_content(visit, env, buffers[id(tile)])] += times
    return +out


def _content(visit: Visit, env: Mapping[str, int], buffers: Mapping[str, Buffer]) -> str:
    view = visit.step.operands[0] if visit.step.operands else None
    buffer = buffers.get(view.buffer) if isinstance(view, View) else None
    if buffer is None or not isinstance(view, View):
        return ""
    size = 1
    for e in view.shape:
        if not isinstance(e, int) and any(name not in env for name, _ in e.terms):
            return ""
        size *= extent(e, env)
    return f"{size} {buffer.element.value}"


def _list(messages: Counter[str]) -> str:
    return ", ".join(f"{n} × {what}" for what, n in sorted(messages.items()))
