"""How the functions of the timing loop are compiled: nothing calls them from Python, so that they need no wrappers.

A wrapper takes the two tuples of arrays apart, which for these functions is more code than their own: without wrappers
compiling takes about a third less."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

_njit = cast(Callable[..., Any], njit)  # its stubs do not know all its options
F = TypeVar("F", bound=Callable[..., object])
SOURCES = (
    "inner.py", "issue.py", "joining.py", "lines.py", "machine.py", "reference.py", "relations.py",
    "rounds.py", "state.py", "tables.py"
)  # fmt: skip


def fingerprint() -> int:
    """A number that changes with the sources of everything that is compiled. Whether machine code on disk is still good
    numba decides by the one file in which the function stands, and by the values it closes over: this one stands for
    the other files."""
    here = Path(__file__).parent
    return zlib.crc32(b"".join((here / name).read_bytes() for name in SOURCES))


_HOW = {"no_cfunc_wrapper": True, "error_model": "numpy", "boundscheck": False, "_nrt": False}
"""Division by zero is not looked for: hardware files have no links of zero bytes a cycle. ``_nrt=False``: the arrays
belong to the caller, and nobody counts references to them; otherwise every use of one does, in most of the time."""


def inner(function: F) -> F:
    """Compile a function that only compiled functions call, into each of them."""
    return cast(F, _njit(function, no_cpython_wrapper=True, forceinline=True, **_HOW))


INDICES = (1 << 62) - 1


@inner
def index(value: int) -> int:
    """A number from a table, which is none below 0, as an index. Compiled code sees that it cannot be negative, and does not
    look at each use whether it counts from the end: a sixth of the loop's time."""
    return value & INDICES


def entry(function: F) -> F:
    """Compile the function that Python calls, and keep its machine code on disk; where no folder for that can be
    written, it is compiled anew in every process."""
    try:
        return cast(F, _njit(function, cache=True, **_HOW))
    except RuntimeError:  # numba found no place for its cache
        return cast(F, _njit(function, **_HOW))
