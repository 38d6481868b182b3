"""What instructions and their operands say, read off them as lists of numbers.

Instructions lie all over memory, and so do their operands: to fetch one takes longer than to look at it. So some hundred are
looked at in every way there is before the next, while they are near: half of the time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

from cimc.isa.instruction import Instruction
from cimc.isa.operands import Affine, Lie, View
from cimc.origin import Origin
from cimc.sim.job import span
from cimc.sim.pool import Numbers, Shapes, Words, numbers
from cimc.sim.tables import Ints

PIECE = 256  # instructions that are looked at together
_MNEMONIC, _OPERANDS = attrgetter("mnemonic"), attrgetter("operands")
_KEYWORDS, _ORIGIN = attrgetter("keywords"), attrgetter("origin")
_LIE, _BUFFER = attrgetter("lie"), attrgetter("buffer")


class Reading:
    """The instructions of a program, ``steps``, one after the other. Of each: the numbers of its mnemonic and keywords (in
    ``mnemonics``, ``words``), its origin, how many operands it has. Of each ``operands``, one after the other, that is a view:
    the numbers of how it lies and of the name of its buffer (in ``lies``, ``buffers``)."""

    def __init__(self) -> None:
        self.steps: list[Instruction] = []
        self.mnemonics: Numbers[str] = Numbers()
        self.words: Numbers[Words] = Numbers()
        self.lies: Numbers[Lie] = Numbers()
        self.buffers: Numbers[str] = Numbers()
        self.of_mnemonic: list[int] = []
        self.of_words: list[int] = []
        self.origins: list[Origin | None] = []
        self.counts: list[int] = []
        self.operands: list[View | str] = []
        self.of_lie: list[int] = []
        self.of_buffer: list[int] = []

    def look(self, *, least: int = PIECE) -> None:
        """Read the steps entered since, if these are ``least`` or more."""
        begin, end = len(self.counts), len(self.steps)
        if end - begin >= least:
            for first in range(begin, end, PIECE):
                self._piece(self.steps[first : first + PIECE])

    def _piece(self, steps: Sequence[Instruction]) -> None:
        self.of_mnemonic += map(self.mnemonics.__getitem__, map(_MNEMONIC, steps))
        self.of_words += map(self.words.__getitem__, map(_KEYWORDS, steps))
        self.origins += map(_ORIGIN, steps)
        operands = list(map(_OPERANDS, steps))
        self.counts += map(len, operands)
        flat = list(chain.from_iterable(operands))
        self.operands += flat
        views = [o for o in flat if type(o) is View]
        self.of_lie += map(self.lies.__getitem__, map(_LIE, views))
        self.of_buffer += map(self.buffers.__getitem__, map(_BUFFER, views))


class Places:
    """How the views of a reading lie, by number. ``low``, ``high``: the elements [low, high) that such a view reaches, from its
    offset if that moves; equal if it has none or if its extents are affine, or if it is not asked for. ``shape``: the number
    of the extents. ``moves``: whether the offset does."""

    def __init__(self, lies: Sequence[Lie], shapes: Shapes) -> None:
        self.lies, self._shapes = lies, shapes
        self.shape: Ints = numbers([shapes[lie.shape] for lie in lies])
        self.moves = [bool(lie.offset.terms) for lie in lies]

    def reach(self, asked: Ints) -> tuple[Ints, Ints]:
        """``low`` and ``high`` of those asked for, by number; of others 0."""
        low, high = [0] * len(self.lies), [0] * len(self.lies)
        for number in asked.tolist():
            low[number], high[number] = self._reach(self.lies[number])
        return numbers(low), numbers(high)

    def _reach(self, lie: Lie) -> tuple[int, int]:
        start = 0 if lie.offset.terms else lie.offset.constant
        if self._shapes.varies[self._shapes[lie.shape]]:
            return start, start
        return span(View("", Affine(start), lie.shape, lie.strides), {})
