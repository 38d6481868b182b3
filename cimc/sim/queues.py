"""What is under way in the reference engine: instructions; messages in channels, and the parts of sums that meet on their way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cimc.arch import noc
from cimc.isa.instruction import Instruction
from cimc.sim.job import Job

UNTOLD = -1  # when a part of a sum arrives: only the sum does


@dataclass(eq=False)
class Flight:
    """An instruction in flight."""

    tile: int
    order: int
    step: int  # its number in the text
    instruction: Instruction
    job: Job
    unit: str
    issue: int
    before: list[Flight]  # whose ends it waits for
    ahead: Flight | None  # the one before it on its unit
    start: int | None = None  # when everything it waits for has ended
    free: int | None = None  # when it gives its unit to the next one
    end: int | None = None
    queued: bool = False


@dataclass
class Message:
    """A message in a channel."""

    bytes: int
    arrival: int
    release: int | None = None  # when the recv that takes it ends


@dataclass
class Channel:
    """A channel: messages that are not released or not taken, the recv that waits, the send that waits."""

    messages: list[Message] = field(default_factory=list[Message])
    receiver: Flight | None = None
    sender: Flight | None = None

    def untaken(self) -> Message | None:
        """The oldest message that no recv has taken."""
        return next((m for m in self.messages if m.release is None), None)

    def room_at(self, now: int, size: int, capacity: int) -> int | None:
        """The earliest time from ``now`` on at which a message of ``size`` bytes may enter; None if not known yet."""
        left = [m for m in self.messages if m.release is None or m.release > now]
        at: int = now
        while left and sum(m.bytes for m in left) + size > capacity:
            first = left.pop(0)
            if first.release is None:
                return None
            at = first.release
        return at


@dataclass
class Sum:
    """A sum under way. Of every router: how many parts and sums have come, when the last header, the longest occupation of
    their ways. ``arrival``: when its last byte is at the destination, if known."""

    came: list[int]
    header: list[int]
    slowest: list[int]
    arrival: int | None = None


@dataclass
class Sums:
    """All sums of the same tiles to one, with a tag, in their order; how many have been taken; the collect that waits."""

    tree: noc.Meeting
    sums: list[Sum] = field(default_factory=list[Sum])
    sent: Counter[int] = field(default_factory=Counter[int])  # tile → its parts
    taken: int = 0
    receiver: Flight | None = None

    def turn(self, index: int) -> Sum:
        """The sum of that number."""
        while len(self.sums) <= index:
            routers = len(self.tree.links)
            self.sums.append(Sum([0] * routers, [0] * routers, [0] * routers))
        return self.sums[index]
