"""The law of inputs and outputs: each names a global buffer, or a corner of one that lies inside for every value of params."""

from __future__ import annotations

from collections.abc import Iterator

from cimc import errors
from cimc.isa.operands import Affine
from cimc.isa.program import GlobalBuffer, Port, Program
from cimc.isa.ranges import Box, bounds
from cimc.isa.visit import Faults


def check_ports(program: Program, params: Box, faults: Faults) -> None:
    """Report every input and output whose buffer does not exist, or whose corner has other extents than numbers and params
    say, too few of them, or reaches beyond the buffer."""
    known = {g.name: g for g in program.globals}
    for port in (*program.inputs, *program.outputs):
        place = f"port {port.name}"
        if port.buffer not in known:
            hint = errors.did_you_mean(port.buffer, known) + "a port names a global buffer"
            fields = {"kind": "global buffer", "name": port.buffer, "hint": hint}
            faults.report(errors.UNKNOWN_NAME, port.line, place, port.buffer, **fields)
            continue
        for what, hint in _wrong(port, known[port.buffer], params):
            faults.report(errors.WRONG_DECLARATION, port.line, place, port.buffer, what=what, hint=hint)


def _wrong(port: Port, buffer: GlobalBuffer, params: Box) -> Iterator[tuple[str, str]]:
    """What is wrong with a corner, and what to do."""
    if port.shape is None:
        return
    names = {name for e in port.shape if isinstance(e, Affine) for name, _ in e.terms}
    if names - params.keys():
        yield f"its extents follow '{min(names - params.keys())}'", "they are affine in params"
    elif len(port.shape) != len(buffer.shape):
        yield f"it has {len(port.shape)} extents, '{buffer.name}' has {len(buffer.shape)}", "one for each axis"
    else:
        for extent, whole in zip(port.shape, buffer.shape, strict=True):
            low, high = bounds(extent, params)
            if low < 0 or high > whole:
                told = f"{low} to {high}" if low < high else str(low)
                yield f"an extent is {told}, of '{buffer.name}' it is {whole}", "for every param it lies inside"
