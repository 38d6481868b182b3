"""Transfer instructions: between local and global memory, within a tile, and between tiles."""

from __future__ import annotations

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


def received(y: Array, message: Array) -> None:
    """A message into a view. Raises Fault if it is of another size or type."""
    if message.size != y.size or message.dtype != y.dtype:
        raise Fault(f"the message holds {message.size} × {message.dtype}, the view {y.size} × {y.dtype}")
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
