"""Symbolic dimensions: bound from flags, from the shapes of given inputs, or to stated defaults.

Symbols are free text. A text that reads as a sum or product of other symbols (``past_seq + seq``) follows from them;
the arithmetic is read by the small parser here, nothing is ever evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.frontend.record import TensorType, Unreadable

LIMIT = 1 << 31
SEQUENCE = 128
BATCH = 1


@dataclass(frozen=True, slots=True)
class Binding:
    """A symbolic dimension, the number it stands for, and who said so: ``--dim``, an input, or a default."""

    name: str
    value: int
    source: str

    @property
    def default(self) -> bool:
        """Whether nobody said it."""
        return self.source.startswith("default")

    def __str__(self) -> str:
        return f"{self.name} = {self.value} ({self.source})"


def _known_inputs(names: Sequence[str], given: Iterable[str]) -> None:
    """Raises INPUT_UNKNOWN for each that is given and no input: what it was to bind would have a default instead."""
    unknown, known = errors.Collector(), ", ".join(names)
    for name in given:
        if name not in names:
            unknown.add(errors.INPUT_UNKNOWN(name=name, near=errors.did_you_mean(name, names), known=known))
    unknown.raise_if_any()


_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_][\w.]*)|(//|[-+*()/]))")


def parse(text: str) -> list[str] | None:
    """The tokens of an arithmetic text, or None if it is not one."""
    tokens: list[str] = []
    at = 0
    text = text.strip()
    if len(text) > 256:
        return None
    while at < len(text):
        m = _TOKEN.match(text, at)
        if not m:
            return None
        tokens.append(m.group().strip())
        at = m.end()
    return tokens


class _Arithmetic:
    """Recursive descent over ``+ - * / // ( )``; raises KeyError for an unbound symbol, ValueError for bad grammar."""

    def __init__(self, tokens: Sequence[str], known: Mapping[str, int]) -> None:
        self.tokens = list(tokens)
        self.known = known
        self.depth = 0

    def whole(self) -> int:
        value = self.sum()
        if self.tokens:
            raise ValueError(self.tokens[0])
        return value

    def take(self, *wanted: str) -> str:
        return self.tokens.pop(0) if self.tokens and self.tokens[0] in wanted else ""

    def sum(self) -> int:
        value = self.product()
        while op := self.take("+", "-"):
            other = self.product()
            value = value + other if op == "+" else value - other
        return value

    def product(self) -> int:
        value = self.atom()
        while op := self.take("*", "/", "//"):
            other = self.atom()
            if op != "*" and other == 0:
                raise ValueError("division by zero")
            value = value * other if op == "*" else value // other
        return value

    def atom(self) -> int:
        if not self.tokens:
            raise ValueError("end")
        token = self.tokens.pop(0)
        if token == "-":
            return -self.atom()
        if token == "(":
            self.depth += 1
            if self.depth > 32:
                raise ValueError("nesting")
            value = self.sum()
            if not self.take(")"):
                raise ValueError(token)
            self.depth -= 1
            return value
        if token.isdigit():
            return int(token)
        return self.known[token]


def evaluate(text: str, known: Mapping[str, int]) -> int | None:
    """The value of a compound text whose symbols are all known, else None. A single name or number is no compound."""
    tokens = parse(text)
    if tokens is None or len(tokens) < 2:
        return None
    try:
        value = _Arithmetic(tokens, known).whole()
    except (KeyError, ValueError, RecursionError):
        return None
    return value if 0 <= value <= LIMIT else None


def symbols(text: str) -> tuple[str, ...]:
    """The symbols of a compound text; the text itself if it is none."""
    tokens = parse(text)
    if tokens is None or len(tokens) < 2:
        return (text,)
    names = tuple(t for t in tokens if t[0].isalpha() or t[0] == "_")
    return names if names and evaluate(text, dict.fromkeys(names, 4)) is not None else (text,)


@dataclass
class Dims:
    """Binds the symbols of a model's inputs."""

    path: Path
    inputs: Sequence[tuple[str, TensorType]]
    bound: dict[str, Binding]

    @staticmethod
    def bind(
        path: Path,
        inputs: Sequence[tuple[str, TensorType]],
        flags: Mapping[str, int],
        given: Mapping[str, NDArray[np.generic]] | None,
        sequence: int = SEQUENCE,
    ) -> Dims:
        """All symbols bound: flags first, then the given inputs' shapes, then arithmetic, then defaults.
        Raises CimcError for unknown flags and inputs, values out of range, and contradictions."""
        dims = Dims(path, [(n, _named(n, t)) for n, t in inputs], {})
        dims._flags(flags)
        _known_inputs([n for n, _ in inputs], given or {})
        for name, kind in dims.inputs:
            if given is not None and name in given:
                dims._given(name, kind, tuple(given[name].shape))
        dims._defaults(sequence)
        return dims

    def texts(self) -> list[str]:
        """Every symbolic text of the inputs, in order."""
        found = [d for _, t in self.inputs for d in t.dims or () if isinstance(d, str)]
        return list(dict.fromkeys(found))

    def known(self) -> dict[str, int]:
        """Values by symbol."""
        return {name: b.value for name, b in self.bound.items()}

    def value(self, dim: int | str | None) -> int:
        """A dim as a number."""
        if isinstance(dim, int):
            return dim
        assert dim is not None
        if dim in self.bound:
            return self.bound[dim].value
        found = evaluate(dim, self.known())
        assert found is not None
        return found

    def shape(self, kind: TensorType) -> tuple[int, ...]:
        """The static shape of an input."""
        return tuple(self.value(d) for d in kind.dims or ())

    def _flags(self, flags: Mapping[str, int]) -> None:
        texts = self.texts()
        names = list(dict.fromkeys([*texts, *(s for t in texts for s in symbols(t))]))
        for flag, value in flags.items():
            name = " ".join(flag.split())
            if name not in names:
                known = ", ".join(names) or "none"
                raise errors.MODEL_DIM_UNKNOWN(name=flag, meant=errors.did_you_mean(name, names), known=known)
            if not 0 <= value <= LIMIT:
                raise errors.MODEL_DIM_VALUE(name=name, value=value, why="is out of range", limit=LIMIT)
            self.bound[name] = Binding(name, value, f"--dim {name}={value}")

    def _given(self, name: str, kind: TensorType, shape: tuple[int, ...]) -> None:
        if kind.dims is None:
            return
        if len(shape) != len(kind.dims):
            why = f"the given array has shape {list(shape)}, the model declares {len(kind.dims)} dimensions"
            raise errors.MODEL_INPUT(path=self.path, name=name, why=why, fix="give an array of the declared shape")
        for axis, (dim, have) in enumerate(zip(kind.dims, shape, strict=True)):
            if isinstance(dim, int) and dim != have:
                why = f"the given array has {have} on axis {axis}, the model declares {dim}"
                raise errors.MODEL_INPUT(path=self.path, name=name, why=why, fix="give an array of the declared shape")
            if isinstance(dim, str):
                self._bind(dim, have, f"input '{name}', axis {axis}")

    def _bind(self, name: str, value: int, source: str) -> None:
        if name in self.bound and self.bound[name].value != value:
            first = self.bound[name]
            raise errors.MODEL_DIM_CONFLICT(
                name=name, first=first.value, first_from=first.source, second=value, second_from=source
            )
        self.bound.setdefault(name, Binding(name, value, source))

    def _defaults(self, sequence: int) -> None:
        for name, kind in self.inputs:
            for axis, dim in enumerate(kind.dims or ()):
                for symbol in symbols(dim) if isinstance(dim, str) and dim not in self.bound else ():
                    if symbol not in self.bound and not _total(symbol):
                        self.bound[symbol] = _default(symbol, axis, name, sequence)
        for text in self.texts():
            for symbol in symbols(text):
                if symbol not in self.bound and (symbol != text or _total(symbol)) and _total(symbol):
                    self.bound[symbol] = self._sum(symbol, sequence)
        for text in self.texts():
            value = evaluate(text, self.known())
            if text in self.bound or value is not None:
                self._consistent(text, value)
            else:
                raise errors.MODEL_DIM_VALUE(
                    name=text, value="?", why="its symbols give no size; bind it by itself", limit=LIMIT
                )

    def _consistent(self, text: str, value: int | None) -> None:
        if value is None:
            return
        if text in self.bound and self.bound[text].value != value:
            first = self.bound[text]
            parts = ", ".join(f"{s} = {self.bound[s].value}" for s in symbols(text))
            raise errors.MODEL_DIM_CONFLICT(
                name=text, first=first.value, first_from=first.source, second=value, second_from=parts
            )
        self.bound.setdefault(text, Binding(text, value, "follows from its symbols"))

    def _sum(self, symbol: str, sequence: int) -> Binding:
        """A total length: the past and the new tokens together."""
        past = sum(b.value for n, b in self.bound.items() if _past(n) and symbols(n) == (n,))
        new = [b.value for n, b in self.bound.items() if _sequence(n) and not _past(n) and symbols(n) == (n,)]
        total = past + (new[0] if new else self._declared() or sequence)
        return Binding(symbol, total, "default: past and new tokens together")

    def _declared(self) -> int:
        """New tokens where the model says their number itself: the second axis of its first input that has one and none
        of symbols of lengths; 0 where it does not."""
        for _, kind in self.inputs:
            dims = kind.dims or ()
            if len(dims) > 1 and isinstance(dims[1], int) and not any(isinstance(d, str) and _length(d) for d in dims):
                return dims[1]
        return 0


def _named(name: str, kind: TensorType) -> TensorType:
    """Unnamed dims get a name of their own, so that they can be bound and reported."""
    if kind.dims is None or isinstance(kind.dtype, Unreadable):
        return kind
    return TensorType(kind.dtype, tuple(f"{name}.{i}" if d is None else d for i, d in enumerate(kind.dims)))


def _past(symbol: str) -> bool:
    return "past" in symbol.lower()


def _total(symbol: str) -> bool:
    low = symbol.lower()
    return any(w in low for w in ("total", "all_seq", "kv_len", "attention_size", "mask_len")) and "batch" not in low


def _sequence(symbol: str) -> bool:
    low = symbol.lower()
    return any(w in low for w in ("seq", "len", "token", "time"))


def _length(symbol: str) -> bool:
    return _past(symbol) or _total(symbol) or _sequence(symbol)


def _default(symbol: str, axis: int, name: str, sequence: int) -> Binding:
    low = symbol.lower()
    if "batch" in low:
        return Binding(symbol, BATCH, "default: batch")
    if _past(symbol):
        return Binding(symbol, 0, "default: no past")
    if _sequence(symbol):
        return Binding(symbol, sequence, "default: sequence")
    if "height" in low or "width" in low:
        return Binding(symbol, 224, "default: image size")
    if "channel" in low:
        return Binding(symbol, 3, "default: colour channels")
    if axis == 1 and any(w in name for w in ("ids", "mask", "token")):
        return Binding(symbol, sequence, "default: second axis of tokens")
    return Binding(symbol, 1, "default")
