"""Constants derived from other constants, computed when they are first asked for.

A pass that folds, transposes or quantises weights only notes how; a model's weights are not copied before somebody
reads them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping

from cimc.ir.graph import Array, Constants

Make = Callable[[Constants], Array]
"""Computes a constant from the others."""

KEEP_BYTES = 16 << 20
"""Results up to this size are kept once computed; larger ones only as long as somebody holds them."""


class Derived(Mapping[str, Array]):
    """A mapping of constants: those of ``base``, and derived ones that may refer to both."""

    def __init__(self, base: Constants, made: Mapping[str, Make]) -> None:
        self._base = base
        self._made = dict(made)
        self._kept: dict[str, Array] = {}
        self._held: weakref.WeakValueDictionary[str, Array] = weakref.WeakValueDictionary()

    def add(self, name: str, make: Make) -> None:
        """One more derived constant: for whoever builds the mapping, before others see it."""
        self._made[name] = make

    def with_made(self, made: Mapping[str, Make]) -> Derived:
        """This mapping with more derived constants. What is computed already stays computed."""
        derived = Derived(self._base, {**self._made, **made})
        derived._kept = {name: value for name, value in self._kept.items() if name not in made}
        return derived

    def __getitem__(self, name: str) -> Array:
        make = self._made.get(name)
        if make is None:
            return self._base[name]
        found = self._kept.get(name)
        if found is None:
            found = self._held.get(name)
        if found is not None:
            return found
        value = make(self)
        if value.nbytes <= KEEP_BYTES:
            self._kept[name] = value
        else:
            self._held[name] = value
        return value

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
