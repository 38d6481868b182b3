"""The inner loop of :mod:`cimc.codegen.exchange`: pairs of tiles that change places, compiled by numba.

Links are counted as in :mod:`cimc.arch.noc`: along the row first, then along the column, a multicast's shared ones once. Every
segment has links, places and work of its own; *roles*, what one tile does in one segment, are numbered over all segments. Roles
that are linked are in the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc.native import entry, fingerprint, inner

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

EVERY = 50
"""Pairs after which the fullest links of a segment are looked for anew: that takes as long as some pairs (200: 0.1 % of MiniLM's
cycles less)."""

HOT = 0.8
"""Links that carry more than this part of the fullest: half of the pairs are drawn from those whose messages take one
(0.6 and 0.95: 0.2 and 0.0 % of MiniLM's cycles more)."""

NOBODY = -1
"""Global memory, as who sends or takes; a place where nobody works."""

COLUMNS, WIDTH, BETWEEN, TILES, LINKS = range(5)  # of Board.mesh


class Board(NamedTuple):
    """What stays. ``..._begin``: where the part of each begins in the table after it."""

    mesh: Ints  # columns, columns of a chip, first link between chips, tiles, links
    port: Ints  # of a tile: the nearest port of global memory
    sender: Ints  # of a message: the role that sends it
    cycles: Ints  # that it takes a link for
    takers_begin: Ints
    takers: Ints  # of a message: the roles that take it
    sent_begin: Ints
    sent: Ints  # of a segment: its messages
    of_begin: Ints
    of: Ints  # of a role: the messages that it sends or takes
    segment: Ints  # of a role
    linked_begin: Ints
    linked: Ints  # of a role: those that are in the same place
    movable_begin: Ints
    movable: Ints  # of a segment: the roles that may move
    group: Ints  # of a role: the group of places that it may be in
    size: Ints  # of a group
    which: Ints  # group, tile: which of the group's places it is
    near_begin: Ints
    near: Ints  # of a group, place by place: its places by their distance from that one
    trials: Ints  # of a segment
    base: Ints  # of a segment: what links count as carrying in any case


class Moving(NamedTuple):
    """What changes."""

    at: Ints  # role: its place
    work: Ints  # segment, tile: the role there
    load: Ints  # segment, link: cycles
    change: Ints  # the same, by the pair at hand
    known: Ints  # segment, link: the message that has last taken it, and the pair that has last touched it
    touched: Ints  # links that the pair at hand touches
    seen: Ints  # message: the pair that has last touched it
    hot: Ints  # segment by segment: roles
    hottest: Ints  # segment: how many there are
    segments: Ints  # that the pair at hand is in
    top: Floats  # segment: the fullest link's fourth power, as last looked for
    counts: Ints  # of links in touched, of trees so far, of pairs so far, of segments; a fingerprint of the sources


TOUCHED, TREES, PAIRS, SEGMENTS, VERSION, COUNTS = range(6)  # of Moving.counts, and how many they are


@inner
def _enter(moving: Moving, link: int, cycles: int) -> None:
    """A message's tree takes a link; a second time it does not count."""
    counts = moving.counts
    if moving.known[link, 0] == counts[TREES]:
        return
    moving.known[link, 0] = counts[TREES]
    if moving.known[link, 1] != counts[PAIRS]:
        moving.known[link, 1] = counts[PAIRS]
        moving.change[link] = 0
        moving.touched[counts[TOUCHED]] = link
        counts[TOUCHED] += 1
    moving.change[link] += cycles


@inner
def _way(board: Board, moving: Moving, first: int, source: int, to: int, cycles: int) -> None:
    """The links of a way, the links of the segment beginning with ``first``."""
    columns, width = board.mesh[COLUMNS], board.mesh[WIDTH]
    y, x = source // columns, source % columns
    to_y, to_x = to // columns, to % columns
    while x != to_x:
        after = x + 1 if to_x > x else x - 1
        if x // width == after // width:
            _enter(moving, first + 4 * (y * columns + x) + (0 if after > x else 1), cycles)
        else:
            _enter(moving, first + board.mesh[BETWEEN] + 2 * (min(x, after) // width) + (after < x), cycles)
        x = after
    while y != to_y:
        after = y + 1 if to_y > y else y - 1
        _enter(moving, first + 4 * (y * columns + x) + (2 if after > y else 3), cycles)
        y = after


@inner
def _tree(board: Board, moving: Moving, message: int, segment: int, cycles: int) -> None:
    """The links of a message, each once."""
    moving.counts[TREES] += 1
    first, sender = segment * board.mesh[LINKS], board.sender[message]
    for i in range(board.takers_begin[message], board.takers_begin[message + 1]):
        taker = board.takers[i]
        if sender == NOBODY:
            to = moving.at[taker]
            source = board.port[to]
        else:
            source = moving.at[sender]
            to = board.port[source] if taker == NOBODY else moving.at[taker]
        _way(board, moving, first, int(source), int(to), cycles)


@inner
def _trees(board: Board, moving: Moving, role: int, segment: int, sign: int, mark: int) -> None:
    """The links of all messages of a role that ``mark`` has not seen."""
    if role == NOBODY:
        return
    for i in range(board.of_begin[role], board.of_begin[role + 1]):
        message = board.of[i]
        if moving.seen[message] != mark:
            moving.seen[message] = mark
            _tree(board, moving, message, segment, sign * int(board.cycles[message]))


@inner
def _swap(board: Board, moving: Moving, segment: int, here: int, there: int) -> None:
    first = segment * board.mesh[TILES]
    one, two = moving.work[first + here], moving.work[first + there]
    moving.work[first + here], moving.work[first + there] = two, one
    if one != NOBODY:
        moving.at[one] = there
    if two != NOBODY:
        moving.at[two] = here


@inner
def _together(board: Board, moving: Moving, segment: int, here: int, there: int) -> None:
    """The segments in which two places have to change their work together, because roles there are linked."""
    tiles, found = board.mesh[TILES], moving.segments
    found[0], count, at = segment, 1, 0
    while at < count:
        for place in (here, there):
            role = moving.work[found[at] * tiles + place]
            if role == NOBODY:
                continue
            for i in range(board.linked_begin[role], board.linked_begin[role + 1]):
                other, known = board.segment[board.linked[i]], False
                for k in range(count):
                    known |= found[k] == other
                if not known:
                    found[count] = other
                    count += 1
        at += 1
    moving.counts[SEGMENTS] = count


@inner
def _exchange(board: Board, moving: Moving, here: int, there: int) -> float:
    """Let the work in two places change places; by how much the sum of fourth powers grows, each segment's as part of its
    fullest link's."""
    moving.counts[PAIRS] += 1
    moving.counts[TOUCHED] = 0
    mark, tiles, links = 2 * moving.counts[PAIRS], board.mesh[TILES], board.mesh[LINKS]
    for k in range(moving.counts[SEGMENTS]):
        segment = moving.segments[k]
        one, two = int(moving.work[segment * tiles + here]), int(moving.work[segment * tiles + there])
        _trees(board, moving, one, segment, -1, mark)
        _trees(board, moving, two, segment, -1, mark)
        _swap(board, moving, segment, here, there)
        _trees(board, moving, one, segment, 1, mark + 1)
        _trees(board, moving, two, segment, 1, mark + 1)
    worse = 0.0
    for k in range(moving.counts[TOUCHED]):
        link = moving.touched[k]
        by = moving.change[link]
        if by != 0:
            segment = link // links
            old = float(moving.load[link] + board.base[segment])
            new = old + by
            worse += (new * new * new * new - old * old * old * old) / float(moving.top[segment])
    return float(worse)


@inner
def _hottest(board: Board, moving: Moving, segment: int) -> None:
    """Note the movable roles of a segment whose messages take links that carry most (all if none does), and what the fullest
    carries."""
    links, count, most = board.mesh[LINKS], 0, 0
    for link in range(segment * links, (segment + 1) * links):
        most = max(most, moving.load[link])
    moving.top[segment] = float(most) * most * most * most
    moving.counts[PAIRS] += 1
    mark = 2 * moving.counts[PAIRS]
    begin, end = board.movable_begin[segment], board.movable_begin[segment + 1]
    for i in range(board.sent_begin[segment], board.sent_begin[segment + 1]):
        moving.counts[TOUCHED] = 0
        moving.counts[PAIRS] += 1
        _tree(board, moving, board.sent[i], segment, 0)
        for k in range(moving.counts[TOUCHED]):
            if moving.load[moving.touched[k]] > HOT * most:
                moving.seen[board.sent[i]] = mark
                break
    for i in range(begin, end):
        role = board.movable[i]
        for k in range(board.of_begin[role], board.of_begin[role + 1]):
            if moving.seen[board.of[k]] == mark:
                moving.hot[begin + count] = role
                count += 1
                break
    for i in range(begin, end if count == 0 else begin):
        moving.hot[i] = board.movable[i]
    moving.hottest[segment] = count if count else end - begin


@inner
def _search(board: Board, moving: Moving, draws: Floats, heat: float, cooling: float, near: float) -> None:
    """Try pairs in all segments in turns; see :data:`anneal`."""
    for n in range(len(draws)):
        for segment in range(len(board.trials)):
            trials = board.trials[segment]
            if n >= trials:
                continue
            if n % EVERY == 0:
                _hottest(board, moving, segment)
            begin, end = board.movable_begin[segment], board.movable_begin[segment + 1]
            if draws[n, 0] < 0.5:
                one = moving.hot[begin + int(draws[n, 1] * moving.hottest[segment])]
            else:
                one = board.movable[begin + int(draws[n, 1] * (end - begin))]
            here, group = int(moving.at[one]), board.group[one]
            size = board.size[group]
            row = board.near_begin[group] + board.which[group, here] * size
            there = int(board.near[row + int(draws[n, 2] ** near * size)])
            if here == there:
                continue
            _together(board, moving, segment, here, there)
            if _exchange(board, moving, here, there) < heat * (1 - n / trials) ** cooling * draws[n, 3]:
                for k in range(moving.counts[TOUCHED]):
                    moving.load[moving.touched[k]] += moving.change[moving.touched[k]]
            else:
                for k in range(moving.counts[SEGMENTS]):
                    _swap(board, moving, moving.segments[k], here, there)


def _entry(version: int) -> Callable[[Board, Moving, Floats, float, float, float], None]:
    """The search behind the function whose machine code numba keeps on disk."""

    @entry
    def anneal(board: Board, moving: Moving, draws: Floats, heat: float, cooling: float, near: float) -> None:
        moving.counts[VERSION] = version
        _search(board, moving, draws, heat, cooling, near)

    return anneal


anneal = _entry(fingerprint())
"""``anneal(board, moving, draws, heat, cooling, near)`` tries pairs in all segments in turns. ``draws``: for each pair four
numbers: which roles are offered, which of them is taken, how far it goes (a part of the places there are, to the power ``near``),
and by how many times ``heat`` it may be worse, which falls by the power ``cooling`` of the part of all pairs that is left."""
