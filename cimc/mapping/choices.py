"""What a user may choose about the mapping; every choice has a default that the compiler makes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from cimc import errors
from cimc.mapping.sums import SUMS_AT, SumsAt

MOST = {"replicas": 4096, "lanes": 64, "rotation": 8, "pool": 1 << 20}
"""Choices that are numbers, and the largest that each may be; those of AUTO may be left to the compiler."""

AUTO = ("replicas", "pool")
Objective = Literal["latency", "throughput"]
CacheHome = Literal["memory", "resident", "fit"]
CodesAt = Literal["auto", "on", "off"]
WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "optimize": ("aim", get_args(Objective)),
    "cache": ("home of a cache", get_args(CacheHome)),
    "codes": ("answer", get_args(CodesAt)),
    "sums": ("place for sums", SUMS_AT),
}
"""Choices that are words: what each is, and those there are."""

SWITCH = {"on": True, "off": False}


@dataclass(frozen=True)
class Choices:
    """How a graph is mapped. Switching a part off shows what it is worth (``benchmarks/attainment.py``)."""

    replicas: int | None = None
    """Copies of every segment's weights that share its rows; None: as many as the chip has room for, given where they
    save most time."""

    lanes: int = 4
    """Tiles at most that take turns with the blocks of one vector stage."""

    rotation: int = 2
    """Sets of buffers that blocks take turns with: with 2, one block is received while another is worked on."""

    optimize: Objective = "latency"
    """``throughput`` lets the samples of a batch stream through all layers at once (``--optimize``)."""

    residence: bool = True
    """Whether values between segments are kept in the local memory of tiles where it has room."""

    reload: bool = False
    """Whether weights that find no core are written into cells during the run (``--reload on``), rather than refused."""

    pool: int | None = None
    """Cores that reloaded weights take turns on; None: as the estimate says (:mod:`cimc.mapping.rounds`)."""

    cache: CacheHome = "memory"
    """Where KV caches lie (``--cache``): in global memory; in the tiles that multiply with them, all or (``fit``) those that
    find room."""

    parts: bool = True
    """Whether values between segments are cut by columns, so that several tiles share what is read and written."""

    sums: SumsAt = "auto"
    """Where partial sums of several tiles are added: in ``one`` of them, in a ``tree`` of tiles, in a ``chain`` of
    tiles that hand them on (as ``one`` for a batch that streams), by the routers of the ``network`` where they add;
    ``auto``: where the estimate says it takes least (:mod:`cimc.mapping.sums`)."""

    aside: bool = True
    """Whether columns of a product that need a unit its tile lacks go to tiles beside it, column by column."""

    exchange: bool = True
    """Whether a segment's tiles change places with others of their kind, so that links carry more evenly
    (:mod:`cimc.codegen.exchange`)."""

    push: bool = True
    """Whether rows that attention reads whole (K and V) are sent to the tiles of their head as they are made, rather than
    loaded by these from a home (:mod:`cimc.codegen.pushed`)."""

    codes: CodesAt = "auto"
    """Whether queries and keys are brought to codes where they are made, as the pass ``codes`` says (``on``), or by the matmul
    units (``off``); ``auto``: where a batch streams, else unless that takes tiles of products too long
    (:mod:`cimc.mapping.build`)."""


DEFAULT = Choices()


def parse_choices(texts: Iterable[str]) -> Choices:
    """``KEY=VALUE`` texts, later ones winning: ``replicas=2``, ``replicas=auto``, ``residence=off``. Raises MAPPING_CHOICE."""
    found = DEFAULT
    names = [f.name for f in fields(Choices)]
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals and key in names:
            raise errors.MAPPING_CHOICE(text=text, why="it has no value", fix=f"give one, as in {key}=...")
        if key not in names or not equals:
            close = difflib.get_close_matches(key, names, n=1)
            fix = f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(names)}"
            raise errors.MAPPING_CHOICE(text=text, why="there is no such key", fix=fix)
        found = replace(found, **{key: _value(text, key, value)})
    return found


def _value(text: str, key: str, value: str) -> int | bool | str | None:
    """The value of a key. Raises MAPPING_CHOICE for one that it cannot have."""
    if key in WORDS:
        what, words = WORDS[key]
        if value not in words:
            raise errors.MAPPING_CHOICE(text=text, why=f"'{value}' is no {what}", fix=", ".join(words))
        return value
    if key not in MOST:
        if value not in SWITCH:
            raise errors.MAPPING_CHOICE(text=text, why=f"'{value}' is neither on nor off", fix=f"{key}=on or {key}=off")
        return SWITCH[value]
    if key in AUTO and value == "auto":
        return None
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MOST[key]):
        raise errors.MAPPING_CHOICE(text=text, why=f"'{value}' is no number from 1 to {MOST[key]}", fix=f"{key}=2, say")
    return int(value)
