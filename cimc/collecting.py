"""The one place where Python's collector of cyclic garbage is held still.

Compiling a program and decoding it make hundreds of thousands of objects that stay and hardly any cycles. The collector
would look through all of them again and again, for as long as a quarter of the time. So it would while modules are loaded,
and once more when the process ends."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Generator[None]:
    """No collections within: as a decorator, or with ``with``. Memory that nothing refers to is freed as always; what is
    left in cycles is collected afterwards. Within one another only the outermost counts."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def leave() -> None:
    """Call where a process ends: what it has is not looked through once more for garbage, as the system takes all of it."""
    gc.freeze()
