"""Constants derived from other constants, computed when they are first asked for.

A pass that folds, transposes or quantises weights only notes how; a model's weights are not copied before somebody
reads them, and not held after.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping

from cimc import mapped
from cimc.ir.graph import Array, Constants

Make = Callable[[Constants], Array]
"""Computes a constant from the others."""

SMALL_BYTES = 1 << 16
"""Results up to this size are kept once computed."""
RECENT_BYTES = 32 << 20
"""Larger ones are kept while those used last take no more than this together, and as long as somebody holds them."""


class Derived(Mapping[str, Array]):
    """A mapping of constants: those of ``base``, and derived ones that may refer to both."""

    def __init__(self, base: Constants, made: Mapping[str, Make]) -> None:
        self._base = base
        self._made = dict(made)
        self._kept: dict[str, Array] = {}
        self._recent: dict[str, Array] = {}  # in the order of their last use
        self._recent_bytes = 0
        self._held: weakref.WeakValueDictionary[str, Array] = weakref.WeakValueDictionary()
        self._read: set[str] = set()

    def add(self, name: str, make: Make) -> None:
        """One more derived constant: for whoever builds the mapping, before others see it."""
        self._made[name] = make

    def with_made(self, made: Mapping[str, Make]) -> Derived:
        """This mapping with more derived constants. What is computed already stays computed."""
        derived = Derived(self._base, {**self._made, **made})
        derived._kept = {name: value for name, value in self._kept.items() if name not in made}
        for name, value in self._recent.items():
            if name not in made:
                derived._remember(name, value)
        return derived

    def __getitem__(self, name: str) -> Array:
        make = self._made.get(name)
        if make is None:
            found = self._base[name]
            if found.nbytes > SMALL_BYTES:
                self._read.add(name)
            return found
        found = self._kept.get(name)
        if found is not None:
            return found
        found = self._held.get(name)
        value = make(self) if found is None else found
        if value.nbytes <= SMALL_BYTES:
            self._kept[name] = value
        else:
            self._held[name] = value
            self._remember(name, value)
        return value

    def _remember(self, name: str, value: Array) -> None:
        if value.nbytes > RECENT_BYTES:
            return
        old = self._recent.pop(name, None)
        if old is not None:
            self._recent_bytes -= old.nbytes
        self._recent[name] = value
        self._recent_bytes += value.nbytes
        while self._recent_bytes > RECENT_BYTES:
            oldest = next(iter(self._recent))
            self._recent_bytes -= self._recent.pop(oldest).nbytes

    def release(self) -> None:
        """Give back the memory of the pages of mapped files that were read, and of the larger results. Both come back when
        they are asked for again."""
        for name in self._read:
            mapped.release(self._base[name])
        self._read.clear()
        self._recent.clear()
        self._recent_bytes = 0

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._base

    def __iter__(self) -> Iterator[str]:
        yield from self._made
        yield from (name for name in self._base if name not in self._made)

    def __len__(self) -> int:
        return len(self._made) + sum(name not in self._made for name in self._base)


def derived(constants: Constants) -> Derived:
    """A mapping of its own to add derived constants to, without stacking mapping on mapping."""
    return constants.with_made({}) if isinstance(constants, Derived) else Derived(constants, {})
