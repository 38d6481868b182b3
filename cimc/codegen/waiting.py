"""Rows that wait for a stage that needs them much later than they are made: in tiles of matrices where tiles for vector work
are full, in tiles for vector work where a product's tile needs them. They are brought in the step before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cimc.codegen.course import Course
from cimc.codegen.park import LEAST
from cimc.codegen.stages import Job, Need, Piece, Value
from cimc.mapping.allocate import aligned


def waited(flow: Course, value: Value, need: Need) -> bool:
    """Whether rows wait for a stage in another tile that has more room, until it is time; then they are brought."""
    due = flow.plan.due(need.job)
    wait = due - value.start
    parts = [(p, common) for p in value.pieces if (common := p.rect.meet(need.rect)) is not None]
    rooms = {(p.tile, p.view.buffer): flow.context.code(p.tile).rooms[p.view.buffer] for p, _ in parts}
    element = next(iter(rooms.values())).element
    column = need.rect.rows * element.bytes * wait
    bound = need.job.kind == "result" and need.rect.cols > 1 and wait >= LEAST
    if bound:
        if not flow.park.left:
            return _kept(flow, value, need)
        if flow.park.taken(need.tile, need.rect.cols * column):
            return False
    elif not flow.park.pays(need.tile, wait):
        return False
    waiting = [p for p, _ in parts]
    if not flow.park.keep({at: aligned(room.bytes) * wait for at, room in rooms.items()}):
        waiting = [
            Piece(tile, rect, flow.at(tile, value.start + 1).buffer(element, (rect.rows, rect.cols), "p"))
            for tile, first, count in flow.park.stops(need.tile, need.rect.cols, column)
            for rect in [replace(need.rect, col=need.rect.col + first, cols=count)]
        ]
        for stop in waiting:
            for piece, common in parts:
                if (some := common.meet(stop.rect)) is not None:
                    flow.move(value, piece, some, stop)
    if not waiting:
        return bound and _kept(flow, value, need)
    _late(flow, value, need, waiting, (value.job, value.pieces))
    return True


def _kept(flow: Course, value: Value, need: Need) -> bool:
    """Whether columns that a product's tile needs much later wait in a tile for vector work: where they are made, or
    brought anyway. A tile of matrices has less room."""
    able = {t for tiles in flow.plan.tiles.values() for t in tiles} - {need.tile}
    held: dict[Job, list[Piece]] = {value.job: value.pieces}
    for other, piece in value.brought.items():
        if not other.whole and flow.plan.due(other.job) < flow.plan.due(need.job):
            held.setdefault(other.job, []).append(piece)
    for job, found in held.items():
        commons = [c for p in found if p.tile in able and (c := p.rect.meet(need.rect)) is not None]
        if sum(c.rows * c.cols for c in commons) == need.rect.rows * need.rect.cols:
            _late(flow, value, need, found, (job, found))
            return True
    return False


def _late(
    flow: Course, value: Value, need: Need, waiting: Sequence[Piece], origin: tuple[Job, Sequence[Piece]]
) -> None:
    """Bring a stage, in time, what waits for it. ``origin``: the stage that has it before that, and where."""
    due, (job, senders) = flow.plan.due(need.job), origin
    brought = value.brought[need] = flow.taken(value, need, due)
    element = flow.context.code(need.tile).rooms[brought.view.buffer].element
    for piece in senders:
        if (common := piece.rect.meet(need.rect)) is not None:
            size = common.rows * common.cols * element.bytes
            flow.messages.append((size, (job, piece.tile), ((need.job, need.tile),)))
            flow.sent[job] += size
    for piece in waiting:
        if (common := piece.rect.meet(need.rect)) is not None:
            flow.send(piece, common, {need.tile: brought}, (due - 1, due), value.origin)
