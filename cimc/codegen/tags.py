"""Tags of messages, from where each kind of them begins: no two kinds share a channel.

Those within a segment count from 0. A channel takes messages of one tag only, so what a tile sends for another purpose neither
waits for them nor comes in their place.
"""

RELOAD = 1 << 16
"""Of the one message that puts tiles which load weights in order."""

HANDED = 1 << 17
"""Of operands that one tile loads and hands on to others."""

PUSHED = 1 << 18
"""Of operands that are sent as their rows are made, and of those after it: a tag for each range of columns."""
