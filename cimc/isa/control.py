"""Control instructions: tokens between tiles, host calls, the end of a stream."""

from __future__ import annotations

import numpy as np

from cimc.isa import rules
from cimc.isa.instruction import Array, Blocked, Keyword, Kind, Machine, Operand, Spec, Unit, declare

_TAG = Keyword("tag", int, 0, "channel number between the two tiles")


def _signal(machine: Machine, *, to: tuple[int, ...], tag: int) -> None:
    machine.send(np.empty(0, np.int8), to, tag)


declare(
    Spec(
        "signal",
        (),
        Unit.PORT,
        _signal,
        lambda units, *, to, tag: {},
        """Send a token to one tile or several, after every earlier instruction of this stream has finished (its
        stores to global memory among them).""",
        (Keyword("to", tuple, None, "destination tiles"), _TAG),
        rule=rules.channels(("to",)),
    )
)


def _wait(machine: Machine, *, source: int, tag: int) -> None:
    if machine.receive(source, tag) is None:
        raise Blocked


declare(
    Spec(
        "wait",
        (),
        Unit.CONTROL,
        _wait,
        lambda units, *, source, tag: {},
        "Wait for a token from a tile; no later instruction of this stream starts before it has come.",
        (Keyword("source", int, None, "tile that signals"), _TAG),
        rule=rules.channels(("source",)),
    )
)


def _host(machine: Machine, *arrays: Array, call: str, outputs: int) -> None:
    results = machine.host(call, [np.array(a) for a in arrays[outputs:]])
    for target, value in zip(arrays[:outputs], results, strict=True):
        np.copyto(target, value.reshape(target.shape), casting="unsafe")


declare(
    Spec(
        "host",
        (Operand("value", Kind.GLOBAL_READ),),
        Unit.HOST,
        _host,
        lambda units, *values, call, outputs: {
            "host.launch": 1,
            "host.byte": sum(v.bytes for v in values),
        },
        """Run one ONNX node on the host controller: the first `outputs` operands are views of global memory it
        writes, the rest it reads. `call` is the key of the node in the weights.""",
        (
            Keyword("call", str, None, "key of the serialized node in the weights"),
            Keyword("outputs", int, 1, "how many operands, from the first on, are written"),
        ),
        variadic=True,
        rule=rules.host,
    )
)


def _halt(machine: Machine) -> None:
    pass


declare(
    Spec(
        "halt",
        (),
        Unit.CONTROL,
        _halt,
        lambda units: {},
        "The end of the stream; the last instruction of every tile.",
    )
)
