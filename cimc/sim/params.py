"""Checking the values of runtime parameters, once for both engines."""

from __future__ import annotations

from collections.abc import Mapping

from cimc import errors
from cimc.isa.program import Program


def bind(program: Program, params: Mapping[str, int] | None) -> dict[str, int]:
    """A value for each of the program's parameters.

    Raises PARAM_UNKNOWN, PARAM_MISSING (unless only one value is possible) and PARAM_RANGE."""
    given = dict(params or {})
    known = [p.name for p in program.params]
    for name in given:
        if name not in known:
            near = errors.did_you_mean(name, known)
            raise errors.PARAM_UNKNOWN(name=name, near=near, known=", ".join(known) or "none")
    bound: dict[str, int] = {}
    for param in program.params:
        if param.name not in given and param.low != param.high:
            raise errors.PARAM_MISSING(name=param.name, low=param.low, high=param.high)
        value = int(given.get(param.name, param.low))
        if not param.low <= value <= param.high:
            raise errors.PARAM_RANGE(name=param.name, value=value, low=param.low, high=param.high)
        bound[param.name] = value
    return bound
