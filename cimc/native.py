"""How functions become machine code: compiled by numba, without what only calls from Python need, and kept on disk.

A wrapper for Python takes tuples of arrays apart, which for small functions is more code than their own: without wrappers
compiling the timing loop takes about a third less.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])
_njit = cast(Callable[..., Any], njit)  # its stubs do not know all its options
_HOW = {"no_cfunc_wrapper": True, "error_model": "numpy", "boundscheck": False, "_nrt": False}
"""Division by zero is not looked for: hardware files have no links of zero bytes a cycle. ``_nrt=False``: the arrays
belong to the caller, and nobody counts references to them; otherwise every use of one does, in most of the time."""

INDICES = (1 << 62) - 1


def fingerprint(*sources: str) -> int:
    """A number that changes with this file and others of the package (``"sim/issue.py"``). Whether machine code on disk is
    still good numba decides by the one file in which the function stands, and by the values it closes over: a function
    that :func:`entry` compiles closes over this number, which stands for the other files it takes something from."""
    here = Path(__file__)
    return zlib.crc32(b"".join(path.read_bytes() for path in (here, *(here.parent / name for name in sources))))


def inner(function: F) -> F:
    """Compile a function that only compiled functions call, into each of them."""
    return cast(F, _njit(function, no_cpython_wrapper=True, forceinline=True, **_HOW))


@inner
def index(value: int) -> int:
    """A number from a table, which is none below 0, as an index. Compiled code sees that it cannot be negative, and does not
    look at each use whether it counts from the end: a sixth of the timing loop's time."""
    return value & INDICES


def entry(function: F) -> F:
    """Compile the function that Python calls, and keep its machine code on disk; where no folder for that can be
    written, it is compiled anew in every process."""
    try:
        return cast(F, _njit(function, cache=True, **_HOW))
    except RuntimeError:  # numba found no place for its cache
        return cast(F, _njit(function, **_HOW))
