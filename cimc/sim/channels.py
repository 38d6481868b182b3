"""Channels between tiles in the values engine: messages in order, data of ``send``, tokens of ``signal``.

They are unbounded here: values do not depend on when a message is taken, and a program whose sends wait for room for
ever is found by the timing engine, which knows the room. A sender that runs far ahead lets the others catch up.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Key = tuple[int, int, int, bool]  # source, destination, tag, whether it carries tokens
AHEAD_BYTES = 64 << 20  # messages under way beyond which a sender lets the others run


@dataclass
class Channels:
    """Every channel's messages, who waits for one, and which tiles a message woke."""

    messages: dict[Key, deque[Array]] = field(default_factory=dict[Key, "deque[Array]"])
    waiting: dict[Key, int] = field(default_factory=dict[Key, int])
    woken: deque[int] = field(default_factory=deque[int])
    under_way: int = 0  # bytes

    def put(self, key: Key, data: Array) -> None:
        """Append a message; a tile that waits for it may run again."""
        queue = self.messages.get(key)
        if queue is None:
            queue = self.messages[key] = deque()
        queue.append(data)
        self.under_way += data.nbytes
        tile = self.waiting.pop(key, None)
        if tile is not None:
            self.woken.append(tile)

    def take(self, key: Key) -> Array | None:
        """The oldest message, or None."""
        queue = self.messages.get(key)
        if not queue:
            return None
        data = queue.popleft()
        self.under_way -= data.nbytes
        return data
