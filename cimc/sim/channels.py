"""Channels between tiles in the values engine: messages in order, data of ``send``, tokens of ``signal``.

They are unbounded here: values do not depend on when a message is taken, and a program whose sends wait for room for
ever is found by the timing engine, which knows the room. A sender that runs far ahead lets the others catch up.

Messages stand in a channel in blocks, arrays whose first axis counts them: turns of a repeat that are executed at once send
and take theirs at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Blocked

Array = NDArray[np.generic]
Key = tuple[int, int, int, int]  # source, destination, tag, what it carries (Carries)
AHEAD_BYTES = 64 << 20  # messages under way beyond which a sender lets the others run


@dataclass
class Channels:
    """Every channel's messages, who waits for how many in one, and which tiles a message woke."""

    messages: dict[Key, deque[Array]] = field(default_factory=dict[Key, "deque[Array]"])
    waiting: dict[Key, tuple[int, int]] = field(default_factory=dict[Key, tuple[int, int]])  # tile, messages
    woken: deque[int] = field(default_factory=deque[int])
    under_way: int = 0  # bytes

    def clear(self) -> None:
        """Forget everything, as before a run."""
        self.messages.clear()
        self.waiting.clear()
        self.woken.clear()
        self.under_way = 0

    def put(self, key: Key, block: Array) -> None:
        """Append a block of messages; a tile that waits for no more than are there now may run again."""
        queue = self.messages.get(key)
        if queue is None:
            queue = self.messages[key] = deque()
        queue.append(block)
        self.under_way += block.nbytes
        waiter = self.waiting.get(key)
        if waiter is not None and (waiter[1] == 1 or self.count(key) >= waiter[1]):
            del self.waiting[key]
            self.woken.append(waiter[0])

    def take(self, key: Key) -> Array | None:
        """The oldest message, or None."""
        queue = self.messages.get(key)
        if not queue:
            return None
        block = queue[0]
        if len(block) == 1:
            queue.popleft()
        else:
            queue[0] = block[1:]
        data = block[0]
        self.under_way -= data.nbytes
        return data

    def count(self, key: Key) -> int:
        """How many messages are there."""
        return sum(len(block) for block in self.messages.get(key, ()))

    def take_blocks(self, key: Key, count: int) -> Iterator[Array]:
        """The oldest ``count`` messages, which are there, in blocks."""
        queue = self.messages[key]
        while count:
            block = queue.popleft()
            if len(block) > count:
                queue.appendleft(block[count:])
                block = block[:count]
            count -= len(block)
            self.under_way -= block.nbytes
            yield block


class Short(Blocked):
    """Raised where the turns of a repeat wait for all of their messages; they can also be executed one by one."""


@dataclass
class Links:
    """A tile's ends of the channels. ``hurry``: no more messages come before it goes on with those that are there."""

    tile: int
    channels: Channels
    pause: Callable[[int], None]
    """Lets other tiles run first, unless they have just done so."""
    hurry: bool = False

    def breathe(self) -> None:
        """Let others catch up if too many messages are under way."""
        if self.channels.under_way > AHEAD_BYTES:
            self.pause(self.tile)

    def send(self, block: Array, to: tuple[int, ...], tag: int, carries: int) -> None:
        """Put a block of messages, which nobody changes any more, into the channel to each tile of ``to``."""
        for destination in to:
            self.channels.put((self.tile, destination, tag, carries), block)

    def receive(self, key: Key) -> Array | None:
        """Take the oldest message of a channel, or None; then the next one that comes wakes this tile."""
        data = self.channels.take(key)
        if data is None:
            self.channels.waiting[key] = self.tile, 1
        return data

    def receive_all(self, keys: list[Key]) -> list[Array] | None:
        """Take the oldest message of each of several channels, or none of them if one is empty; then the next one that
        comes there wakes this tile."""
        channels = self.channels
        missing = next((key for key in keys if not channels.messages.get(key)), None)
        if missing is not None:
            channels.waiting[missing] = self.tile, 1
            return None
        return [data for key in keys if (data := channels.take(key)) is not None]

    def await_messages(self, key: Key, count: int) -> None:
        """Raises Short if a channel has fewer than ``count`` messages; this tile is woken when they are there."""
        if self.channels.count(key) < count:
            self.channels.waiting[key] = self.tile, count
            raise Short
