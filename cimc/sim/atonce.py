"""Turns of a repeat executed at once: every instruction of the body works on all of them, as one more extent before its
operands' own. What :mod:`cimc.sim.turns` allows computes the same as one turn after another does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Instruction, Matrix
from cimc.isa.operands import Extent, View
from cimc.isa.transfer import summed
from cimc.sim import memory
from cimc.sim.memory import Env
from cimc.sim.scope import Row, Scope, meaning_of, row_of
from cimc.sim.turns import Exchange, Plan

Array = NDArray[np.generic]
Work = Callable[[], object]
Place = tuple[int, int, int]
"""A message's: the exchange, the place in it, its tile."""
MOST_BOUND = 4  # sets of views kept, of turns that begin elsewhere or are more or fewer
_SPREAD = frozenset({("mvm", 2), ("gather", 2), ("send", 0), ("reduce", 0)})
"""Operands that their meanings count: they have the turns' extent even where they are the same in all of them."""


Last = dict[tuple[object, ...], tuple[Array, Array]]
Messages = Array | list[Array]
"""As many as there are turns, in one array if they are alike."""
Form = tuple[tuple[int, ...], np.dtype[np.generic]]
TOKEN: Form = ((0,), np.dtype(np.int8))


@dataclass
class Bound:
    """What some turns do. Messages stand in the boxes by exchange, then by its instructions."""

    work: list[tuple[int, Work]] = field(default_factory=list[tuple[int, Work]])  # by its place in the body
    inbox: list[Sequence[Messages]] = field(default_factory=list["Sequence[Messages]"])
    outbox: list[list[Array]] = field(default_factory=list[list[Array]])
    forms: list[list[Form]] = field(default_factory=list[list[Form]])  # of the messages that a turn sends
    last: list[tuple[Array, Array]] = field(default_factory=list[tuple[Array, Array]])
    """What the buffers hold when the last turn has ended: their own views, and where it stands."""


class AtOnce:
    """The turns of one repeat. ``at`` is the instruction of the body that is executed."""

    def __init__(self, plan: Plan, scope: Scope, slots: Mapping[str, int], env: Env) -> None:
        self.plan = plan
        self.at = 0
        self.most = scope.arena.size // max(plan.turn_bytes, 1)
        self._scope, self.slots, self.env = scope, slots, env
        self._bound: dict[tuple[int, ...], Bound] = {}

    def ready(self, count: int) -> bool:
        """Whether ``count`` turns may be executed at once now: not if the tile shall go on with the messages that are there.
        Raises Blocked if others shall run first, Short if not all of their messages are there."""
        links = self._scope.links
        if links.hurry:
            links.hurry = False
            return False
        links.breathe()
        for e in self.plan.takes:
            links.await_messages((e.to[0], links.tile, e.tag, e.carries), count * len(e.at))
        return True

    def run(self, count: int) -> None:
        """Execute ``count`` turns, from the one that the repeat variable stands at. Their messages are there."""
        key = (count, *(self.env[s] for s in self.slots.values()))
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bind(count)
            if len(self._bound) < MOST_BOUND:
                self._bound[key] = bound
        links = self._scope.links
        bound.inbox[:] = [self._taken(e, count) for e in self.plan.takes]
        bound.outbox[:] = [_empty(count, forms) for forms in bound.forms]
        for self.at, work in bound.work:
            work()
        for own, turn in bound.last:
            np.copyto(own, turn)
        for e, rows in zip(self.plan.sends, bound.outbox, strict=True):
            for block in _blocks(rows):
                links.send(block, e.to, e.tag, e.carries)
        bound.outbox.clear()
        bound.inbox.clear()

    def _taken(self, exchange: Exchange, count: int) -> Sequence[Messages]:
        """Messages, by the instructions that receive them."""
        per, links = len(exchange.at), self._scope.links
        key = (exchange.to[0], links.tile, exchange.tag, exchange.carries)
        blocks = list(links.channels.take_blocks(key, count * per))
        first = blocks[0]
        if any(b.shape[1:] != first.shape[1:] or b.dtype != first.dtype for b in blocks):
            single = [message for b in blocks for message in b]
            apart: list[Messages] = [single[k::per] for k in range(per)]
            return apart
        whole = first if len(blocks) == 1 else np.concatenate(blocks)
        found: list[Messages] = [whole[k::per] for k in range(per)]
        return found

    def _bind(self, count: int) -> Bound:
        """The views of ``count`` turns."""
        found = Bound(forms=[[TOKEN] * len(e.at) for e in self.plan.sends])
        boxes = _boxes(self.plan.takes), _boxes(self.plan.sends)
        last: Last = {}
        for at, step in enumerate(self.plan.body):
            self.at = at
            row = row_of(step.mnemonic)
            if not step.operands:
                continue  # tokens are taken and put with the messages
            views = self._views(step, row, count, last)
            took, sent = (box.get(at) for box in boxes)
            if took is not None:
                y = views[0]
                assert isinstance(y, np.ndarray)
                work: Work = partial(_receive, found.inbox, _of(step, took), y)
            elif sent is not None:
                x = views[0]
                assert isinstance(x, np.ndarray)
                exchange, place, _ = sent[0]
                found.forms[exchange][place] = x.shape[1:], x.dtype
                work = partial(_send, found.outbox, exchange, place, x)
            else:
                keywords = {**row.defaults, **dict(step.keywords)}
                work = partial(meaning_of(step, self._scope), self._scope.machine, *views, **keywords)
            found.work.append((at, work))
        found.last += last.values()
        return found

    def _views(self, step: Instruction, row: Row, count: int, last: Last) -> list[Array | Matrix]:
        """The operands of an instruction; what it writes of private buffers is entered into ``last``."""
        scope, private = self._scope, self.plan.private
        rank = 0
        for o in step.operands:
            if not isinstance(o, str) and len(o.shape) > rank:
                rank = len(o.shape)
        found: list[Array | Matrix] = []
        for i, o in enumerate(step.operands):
            if isinstance(o, str):
                found.append(scope.matrices[o])
                continue
            storage = (scope.shared if row.shared[i] else scope.local)[o.buffer]
            start = -1 if row.shared[i] else private.get(o.buffer, -1)
            if start < 0:
                found.append(self._real(storage, o, count, rank, (step.mnemonic, i) in _SPREAD))
                continue
            raw, dtype, _ = storage
            shape, strides = _layout(o.shape, o.strides, dtype.itemsize, rank)
            offset = count * start + o.offset.constant * dtype.itemsize
            turns = np.ndarray((count, *shape), dtype, scope.arena.raw, offset, (len(raw), *strides))
            found.append(turns)
            if row.writes[i] and o.buffer in self.plan.kept:
                real = memory.view(storage, o, self.slots, scope.params, scope.steps)
                assert isinstance(real, np.ndarray)
                last[o.buffer, o.offset.constant, o.shape, o.strides] = real, turns[-1].reshape(real.shape)
        return found

    def _real(self, storage: memory.Storage, o: View, count: int, rank: int, spread: bool) -> Array:
        """A view of a buffer that the turns share."""
        raw, dtype, _ = storage
        item = dtype.itemsize
        offset, factor = o.offset.constant, 0
        if o.offset.terms:
            at = memory.affine(o.offset, self.slots, self._scope.params)
            offset = at if isinstance(at, int) else at(self.env)
            factor = next((c for name, c in o.offset.terms if name == self.plan.variable), 0)
        if not factor and not spread:
            shape, strides = _layout(o.shape, o.strides, item, len(o.shape))
            return np.ndarray(shape, dtype, raw, offset * item, strides)
        shape, strides = _layout(o.shape, o.strides, item, rank)
        return np.ndarray((count, *shape), dtype, raw, offset * item, (factor * item, *strides))


@lru_cache(4096)
def _layout(
    shape: tuple[Extent, ...], strides: tuple[int, ...], item: int, rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extents, with 1 before them up to the rank, and strides in bytes."""
    pad = rank - len(shape)
    known = tuple(e for e in shape if isinstance(e, int))
    return (1,) * pad + known, (0,) * pad + tuple(s * item for s in strides)


def _boxes(exchanges: Sequence[Exchange]) -> dict[int, list[Place]]:
    """Where an instruction of the body finds its messages."""
    found: dict[int, list[Place]] = {}
    for e, exchange in enumerate(exchanges):
        for k, at in enumerate(exchange.at):
            found.setdefault(at, []).append((e, k, exchange.to[0]))
    return found


def _of(step: Instruction, places: Sequence[Place]) -> list[Place]:
    """Those of an instruction that takes parts of a sum, in the order in which they are added."""
    of = dict(step.keywords).get("of")
    return sorted(places, key=lambda p: of.index(p[2])) if isinstance(of, tuple) else [*places]


def _receive(inbox: Sequence[Sequence[Messages]], places: Sequence[Place], y: Array) -> None:
    """Messages, or sums of several, into a view of all turns."""
    parts = [inbox[exchange][place] for exchange, place, _ in places]
    if all(isinstance(m, np.ndarray) and m.shape == y.shape and m.dtype == y.dtype for m in parts):
        np.copyto(y, parts[0])
        for part in parts[1:]:
            np.add(y, part, out=y)
        return
    for own, *messages in zip(y, *parts, strict=True):
        summed(own, messages)


def _send(outbox: Sequence[Sequence[Array]], exchange: int, place: int, x: Array) -> None:
    """A view of all turns into messages."""
    np.copyto(outbox[exchange][place], x)


def _empty(count: int, forms: Sequence[Form]) -> list[Array]:
    """Messages of ``count`` turns, by the instructions that send them: pieces of one array if they are alike."""
    shape, dtype = forms[0]
    if any(f != forms[0] for f in forms):
        return [np.empty((count, *s), d) for s, d in forms]
    whole = np.empty((count, len(forms), *shape), dtype)
    return [whole[:, k] for k in range(len(forms))]


def _blocks(rows: Sequence[Array]) -> Iterable[Array]:
    """Messages in the order in which they are sent: turn by turn."""
    whole = rows[0].base
    if whole is None:
        return [m[t : t + 1] for t in range(len(rows[0])) for m in rows]
    return [whole.reshape(-1, *rows[0].shape[1:])]
