"""What a user may choose about the mapping; every choice has a default that the compiler makes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from cimc import errors
from cimc.mapping.sums import SUMS_AT, SumsAt

MOST = {"replicas": 4096, "lanes": 64, "rotation": 8, "pool": 1 << 20}
AUTO = ("replicas", "pool")
Objective = Literal["latency", "throughput"]
OBJECTIVES = get_args(Objective)
CacheHome = Literal["memory", "resident", "fit"]
CACHE_HOMES = get_args(CacheHome)
CodesAt = Literal["auto", "on", "off"]
CODES_AT = get_args(CodesAt)
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
    """Whether such values are cut by columns, so that several tiles share what is read and written."""

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
    units (``off``); ``auto``: unless that takes tiles of products too long (:mod:`cimc.mapping.build`)."""


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
    if key == "optimize":
        if value not in OBJECTIVES:
            raise errors.MAPPING_CHOICE(text=text, why=f"'{value}' is no aim", fix=" or ".join(OBJECTIVES))
        return value
    if key == "cache":
        if value not in CACHE_HOMES:
            why = f"'{value}' is no home of a cache"
            raise errors.MAPPING_CHOICE(text=text, why=why, fix=", ".join(CACHE_HOMES))
        return value
    if key == "codes":
        if value not in CODES_AT:
            raise errors.MAPPING_CHOICE(text=text, why=f"'{value}' is none of them", fix=", ".join(CODES_AT))
        return value
    if key == "sums":
        if value not in SUMS_AT:
            raise errors.MAPPING_CHOICE(text=text, why=f"'{value}' is no place for sums", fix=", ".join(SUMS_AT))
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
