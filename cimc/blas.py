"""How many threads NumPy's matrix products take: one, where thousands of small ones follow each other.

OpenBLAS, which NumPy's packages bring along, shares a product of more than some million multiplications among all
processors, and its threads wait for each other busily. A program's products are hardly larger than that: with a second
thread each takes as long as with one or longer, and where others use the processors as well, ten to twenty times as long
(measured: 8 to 128 rows by 1536 by 384, on two processors). Nor do sums then depend on how many processors there are: a vector
times a large matrix differs in its last bits between one thread and two."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from threading import Lock

_PREFIXES, _SUFFIXES = ("scipy_openblas", "openblas"), ("64_", "", "_64")
Threads = tuple[Callable[[], int], Callable[[int], object]]


@cache
def _threads() -> Threads | None:
    """OpenBLAS's functions that tell and set the number of threads; None if NumPy was built with another library."""
    try:
        extension = importlib.import_module("numpy._core._multiarray_umath").__file__
        library = ctypes.CDLL(extension)  # symbols are looked for in what it is linked to as well
    except (ImportError, OSError):
        return None
    for prefix in _PREFIXES:
        for suffix in _SUFFIXES:
            tell, put = f"{prefix}_get_num_threads{suffix}", f"{prefix}_set_num_threads{suffix}"
            if hasattr(library, tell) and hasattr(library, put):
                return getattr(library, tell), getattr(library, put)
    return None


class _Held:
    """Who wants one thread: calls may overlap in threads of Python's. ``before``: how many there were before the first."""

    def __init__(self) -> None:
        self.lock, self.count, self.before = Lock(), 0, 0

    def enter(self, tell: Callable[[], int], put: Callable[[int], object]) -> None:
        """One more."""
        with self.lock:
            if not self.count:
                self.before = tell()
                put(1)
            self.count += 1

    def leave(self, put: Callable[[int], object]) -> None:
        """One less."""
        with self.lock:
            self.count -= 1
            if not self.count:
                put(self.before)


_HELD = _Held()


@contextmanager
def one_thread() -> Generator[None]:
    """One thread for matrix products within: as a decorator, or with ``with``. Without effect where NumPy multiplies with
    another library than OpenBLAS, or where the system does not look for symbols in what a library is linked to (Windows)."""
    found = _threads()
    if found is None:
        yield
        return
    tell, put = found
    _HELD.enter(tell, put)
    try:
        yield
    finally:
        _HELD.leave(put)
