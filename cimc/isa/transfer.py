"""Transfer instructions: between local and global memory, within a tile, and between tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cimc.isa import rules
from cimc.isa.instruction import (
    Actions,
    Array,
    Blocked,
    Fault,
    Keyword,
    Kind,
    Machine,
    Operand,
    Shape,
    Spec,
    Unit,
    declare,
)

if TYPE_CHECKING:  # the rows are read long before a chip is
    from cimc.arch.units import TileUnits


def _copy(machine: Machine, y: Array, x: Array) -> None:
    np.copyto(y, x, casting="unsafe")


declare(
    Spec(
        "load",
        (Operand("y", Kind.WRITE), Operand("x", Kind.GLOBAL_READ)),
        Unit.MEMORY,
        _copy,
        lambda units, y, x: {"memory.read": x.bytes},
        "y = x: a view of global memory into the local buffer. Element types are equal; strides gather or broadcast.",
        rule=rules.move,
    )
)
declare(
    Spec(
        "store",
        (Operand("y", Kind.GLOBAL_WRITE), Operand("x", Kind.READ)),
        Unit.MEMORY,
        _copy,
        lambda units, y, x: {"memory.write": y.bytes},
        "y = x: a view of the local buffer into global memory. Element types are equal; strides scatter.",
        rule=rules.move,
    )
)
declare(
    Spec(
        "copy",
        (Operand("y", Kind.WRITE), Operand("x", Kind.READ)),
        Unit.VECTOR,
        _copy,
        lambda units, y, x: {"vector.alu": y.size},
        "y = x within the local buffer. Strided views transpose, slice, broadcast and pack.",
        rule=rules.move,
    )
)


def _gather(machine: Machine, y: Array, table: Array, index: Array) -> None:
    rows = table.shape[0]
    flat = index.reshape(-1).astype(np.int64)
    wrapped = np.where(flat < 0, flat + rows, flat)
    if wrapped.size and (int(wrapped.min()) < 0 or int(wrapped.max()) >= rows):
        bad = int(flat[np.argmax((wrapped < 0) | (wrapped >= rows))])
        raise Fault(f"index {bad} is outside the table's {rows} rows")
    np.copyto(y, table[wrapped].reshape(y.shape), casting="unsafe")


def _gather_bill(units: TileUnits, y: Shape, table: Shape, index: Shape) -> Actions:
    return {"memory.read": y.bytes, "vector.alu": index.size}


declare(
    Spec(
        "gather",
        (Operand("y", Kind.WRITE), Operand("table", Kind.GLOBAL_READ), Operand("index", Kind.READ)),
        Unit.MEMORY,
        _gather,
        _gather_bill,
        """Rows of a table in global memory by index: y[i] = table[index[i]]. A negative index counts from the end; one
        outside the table stops the program.""",
        rule=rules.gather,
    )
)

_TAG = Keyword("tag", int, 0, "channel number between the two tiles")


def _send(machine: Machine, x: Array, *, to: tuple[int, ...], tag: int) -> None:
    machine.send(x, to, tag)


declare(
    Spec(
        "send",
        (Operand("x", Kind.READ),),
        Unit.PORT,
        _send,
        lambda units, x, *, to, tag: {},
        """Send x to one tile or several (multicast: links on a shared way carry it once). Messages of a channel
        (source, destination, tag) arrive in order; the channel's buffer at the destination is finite and pushes
        back.""",
        (Keyword("to", tuple, None, "destination tiles"), _TAG),
        rule=rules.channels(("to",)),
    )
)


def _fits(y: Array, message: Array) -> None:
    if message.size != y.size or message.dtype != y.dtype:
        raise Fault(f"the message holds {message.size} × {message.dtype}, the view {y.size} × {y.dtype}")


def received(y: Array, message: Array) -> None:
    """A message into a view. Raises Fault if it is of another size or type."""
    _fits(y, message)
    np.copyto(y, message if message.shape == y.shape else message.reshape(y.shape))


def _recv(machine: Machine, y: Array, *, source: int, tag: int) -> None:
    message = machine.receive(source, tag)
    if message is None:
        raise Blocked
    received(y, message)


declare(
    Spec(
        "recv",
        (Operand("y", Kind.WRITE),),
        Unit.RECEIVE,
        _recv,
        lambda units, y, *, source, tag: {},
        "Take the next message of the channel from a source tile; waits for it. Its size and element type must be y's.",
        (Keyword("source", int, None, "tile that sends"), _TAG),
        rule=rules.channels(("source",)),
    )
)


_OF = Keyword("of", tuple, None, "tiles whose parts make the sum; a float sum is taken in this order")


def _reduce(machine: Machine, x: Array, *, of: tuple[int, ...], to: int, tag: int) -> None:
    machine.contribute(x, to, tag)


declare(
    Spec(
        "reduce",
        (Operand("x", Kind.READ),),
        Unit.PORT,
        _reduce,
        lambda units, x, *, of, to, tag: {},
        """Send x as this tile's part of a sum of the tiles ``of``, itself among them, to one tile, which takes it by
        ``collect``. Routers add the parts where their ways meet, so each link carries one packet. Needs ``noc.reduce``.
        The parts from a tile, to a tile, with a tag arrive in order, in a channel of their own that pushes back as that
        of ``send`` does.""",
        (_OF, Keyword("to", int, None, "tile that takes the sum"), _TAG),
        rule=rules.part,
    )
)


def summed(y: Array, parts: Sequence[Array]) -> None:
    """The sum of parts, one after the other, in a view. Raises Fault if one is of another size or type."""
    received(y, parts[0])
    for part in parts[1:]:
        _fits(y, part)
        np.add(y, part if part.shape == y.shape else part.reshape(y.shape), out=y)


def _collect(machine: Machine, y: Array, *, of: tuple[int, ...], tag: int) -> None:
    parts = machine.collect(of, tag)
    if parts is None:
        raise Blocked
    summed(y, parts)


declare(
    Spec(
        "collect",
        (Operand("y", Kind.WRITE),),
        Unit.RECEIVE,
        _collect,
        lambda units, y, *, of, tag: {"noc.add": (len(of) - 1) * y.size},
        """Take the next sum of what the tiles ``of`` send by ``reduce``; waits for it. Every part's size and element
        type must be y's.""",
        (_OF, _TAG),
        rule=rules.total,
    )
)
