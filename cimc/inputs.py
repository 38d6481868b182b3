"""Inputs of a run: read from an .npz, or drawn from a seed with values that make sense for what the model does with them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cimc import errors, npz
from cimc.errors import did_you_mean
from cimc.ir.graph import Graph, Type
from cimc.isa.operands import Element, View
from cimc.isa.program import Port, Program
from cimc.isa.steps import walk

Array = NDArray[np.generic]

MAX_NPZ_BYTES = 8 * 2**30
MOST_RUNS = 256
MAX_CONFIG_BYTES = 2**20
_TOPS = dict.fromkeys((Element.I8, Element.U8), 128) | {Element.U4: 16, Element.I4: 8, Element.U2: 4, Element.I2: 2}
"""Values of integer types that have few: drawn from 0 on, below these."""
_NARROW = frozenset(e.dtype(exact=False) for e in Element if e.narrow)
_FLOATS = (Element.F64, Element.F32, Element.F16, Element.BF16)


def read(path: Path) -> Mapping[str, Array]:
    """The arrays of an .npz by name. Pickled objects are refused; sizes are checked before anything is read, and nothing is
    before it is asked for: what has not the model's shape takes no memory."""
    if not path.exists():
        raise errors.FILE_NOT_FOUND(what="inputs file", path=path)
    if not path.is_file():
        raise errors.FILE_UNREADABLE(what="inputs file", path=path, why="it is no regular file")
    return npz.read(path, MAX_NPZ_BYTES, lambda why: errors.FILE_UNREADABLE(what="inputs file", path=path, why=why))


def check(wanted_types: Mapping[str, Type], given: Mapping[str, Array], kept: Collection[str] = ()) -> dict[str, Array]:
    """The given inputs, checked against the model's: all there but those that are ``kept``, none unknown, element type and
    shape right."""
    collector, fitting = errors.Collector(), list[str]()
    outlines = npz.outlines(given)
    for name in given:
        if name not in wanted_types:
            known = ", ".join(wanted_types)
            collector.add(errors.INPUT_UNKNOWN(name=name, near=did_you_mean(name, wanted_types), known=known))
    for name, wanted in wanted_types.items():
        if name not in given and name in kept:
            continue
        if name not in given:
            collector.add(errors.INPUT_MISSING(name=name, known=", ".join(wanted_types)))
            continue
        dtype = wanted.element.dtype(exact=False)
        array = _named_type(outlines[name], dtype)
        fitting.append(name)
        if array.dtype != dtype or array.shape != wanted.shape:
            got = f"{array.dtype}{list(array.shape)}"
            collector.add(errors.INPUT_MISMATCH(name=name, got=got, want=f"{dtype}{list(wanted.shape)}"))
    collector.raise_if_any()
    return {n: _named_type(given[n], wanted_types[n].element.dtype(exact=False)) for n in fitting}


def _named_type(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """Files of arrays keep of types that NumPy has not (bfloat16, float8, 4 bits) only the bytes; numbers of 8 bits and
    less may also be given as uint8."""
    kept = array.dtype == f"V{dtype.itemsize}" or (array.dtype == np.uint8 and dtype in _NARROW)
    return array.view(dtype) if kept and array.dtype != dtype else array


def calibration(wanted: Mapping[str, Type], given: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Inputs of calibration runs, checked as those of a run: arrays of the inputs' shapes, or all of them with one axis
    more in front, one run for each of its entries (at most :data:`MOST_RUNS`)."""
    outlines = npz.outlines(given)
    if not any(n in given and outlines[n].ndim == len(t.shape) + 1 for n, t in wanted.items()):
        return [check(wanted, given)]
    counts = {n: len(a) for n, a in outlines.items() if n in wanted and a.ndim == len(wanted[n].shape) + 1}
    first = next(iter(counts.values()))
    whole = [n for n in given if n in wanted and n not in counts]
    if whole or set(counts.values()) != {first} or not 1 <= first <= MOST_RUNS:
        told = ", ".join([*(f"{n}: {c}" for n, c in counts.items()), *(f"{n}: none" for n in whole)])
        why = f"its arrays do not hold the same number of runs ({told})"
        raise errors.FILE_UNREADABLE(what="calibration file", path="--calibration", why=f"{why}, 1 to {MOST_RUNS}")
    check(wanted, {n: a[0] if n in counts else a for n, a in outlines.items()})
    return [check(wanted, {n: a[i] if n in counts else a for n, a in given.items()}) for i in range(first)]


def types(program: Program, params: Mapping[str, int] | None = None) -> dict[str, Type]:
    """Types of a program's inputs by name; ``params``: the values of its parameters, if none are given the greatest."""
    return _types(program, program.inputs, params)


def output_types(program: Program, params: Mapping[str, int] | None = None) -> dict[str, Type]:
    """The same of its outputs."""
    return _types(program, program.outputs, params)


def _types(program: Program, ports: Sequence[Port], params: Mapping[str, int] | None) -> dict[str, Type]:
    buffers = {b.name: b for b in program.globals}
    env = {p.name: p.high for p in program.params} if params is None else params
    return {p.name: Type(buffers[p.buffer].element, p.extents(buffers[p.buffer].shape, env)) for p in ports}


def lengths(program: Program, given: Mapping[str, Array]) -> dict[str, int]:
    """The parameters whose values the shapes of inputs tell: by the first axis that follows one of them alone, and that lies
    in its range. What contradicts it is found where the shapes are checked."""
    found: dict[str, int] = {}
    ranges = {p.name: range(p.low, p.high + 1) for p in program.params}
    outlines = npz.outlines(given)
    for port in program.inputs:
        if port.shape is None or port.name not in given or np.ndim(outlines[port.name]) != len(port.shape):
            continue
        for extent, have in zip(port.shape, np.shape(outlines[port.name]), strict=True):
            if isinstance(extent, int) or len(extent.terms) != 1:
                continue
            name, rise = extent.terms[0]
            value, rest = divmod(have - extent.constant, rise)
            if not rest and value in ranges[name]:
                found.setdefault(name, value)
    return found


@dataclass(frozen=True)
class Tokens:
    """What a model's ``config.json`` says about its tokens: how many there are, which one begins and ends a sequence."""

    vocabulary: int | None = None
    first: int | None = None
    last: int | None = None


def read_tokens(folder: Path) -> Tokens:
    """The tokens of the ``config.json`` beside a model, as transformers and optimum write it (``vocab_size``,
    ``bos_token_id``, ``eos_token_id``); nothing where there is none, or none that says it in whole numbers."""
    path = folder / "config.json"
    try:
        if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
            return Tokens()
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return Tokens()
    return tokens_of(found)


def tokens_of(config: object) -> Tokens:
    """The tokens that a parsed ``config.json`` (or the manifest's record of it) tells."""
    if not isinstance(config, dict):
        return Tokens()
    settings = cast("dict[str, object]", config)

    def number(key: str) -> int | None:
        value = settings.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None

    return Tokens(number("vocab_size"), number("bos_token_id"), number("eos_token_id"))


def draw(
    program: Program, seed: int, tokens: Tokens | None = None, params: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Inputs drawn from a seed: token ids below the size of the table they index (and of the vocabulary, beginning and
    ending as sequences of the model do, where ``tokens`` tells), masks of ones, position ids in order, everything else
    standard normal; in the shapes they have for these ``params``. Same program, tokens, params and seed: same inputs."""
    rows = _table_rows(program)
    found: dict[str, Array] = {}
    for number, (port, wanted) in enumerate(zip(program.inputs, types(program, params).values(), strict=True)):
        rng = _generator(seed, number)
        found[port.name] = _draw(port.name, wanted, rows.get(port.buffer), rng, tokens or Tokens())
    return found


def draw_calibration(graph: Graph, tokens: Tokens, runs: int) -> list[dict[str, Array]]:
    """Inputs of so many runs of a graph, to fit scales and weights to where nobody gave any; not those that :func:`draw`
    makes for a run of seed 0."""
    return [draw_graph(graph, tokens, "calibration", seed) for seed in range(runs)]


def draw_graph(graph: Graph, tokens: Tokens, purpose: str = "inputs", seed: int = 0) -> dict[str, Array]:
    """Inputs of a graph; without another ``purpose`` those that :func:`draw` makes for its program and this seed."""
    rows = _indexed_rows(graph)
    found: dict[str, Array] = {}
    for number, name in enumerate(graph.inputs):
        rng = _generator(seed, number, purpose)
        found[name] = _draw(name, graph.types[name], rows.get(name), rng, tokens)
    return found


def draw_types(wanted: Mapping[str, Type], seed: int, rows: int | None = None) -> dict[str, Array]:
    """The same for inputs of which only the types are known; ``rows``: of the smallest table that ids may index."""
    generators = (_generator(seed, number) for number in range(len(wanted)))
    return {n: _draw(n, t, rows, rng, Tokens()) for (n, t), rng in zip(wanted.items(), generators, strict=True)}


def _generator(seed: int, number: int, purpose: str = "inputs") -> np.random.Generator:
    """Where the values of an input are drawn from."""
    from cimc.analog.rng import Streams  # the models of cores take long to load, and few compiles draw

    return Streams(seed).generator(purpose, number)


def _draw(name: str, wanted: Type, rows: int | None, rng: np.random.Generator, tokens: Tokens) -> Array:
    dtype = wanted.element.dtype(exact=False)
    low = name.lower()
    if wanted.element is Element.B8:
        return np.ones(wanted.shape, np.bool_)
    if "mask" in low:
        return np.ones(wanted.shape, dtype)
    if wanted.element in _FLOATS:
        return rng.standard_normal(wanted.shape, np.float32).astype(dtype)
    if "position" in low and wanted.shape:
        return np.broadcast_to(np.arange(wanted.shape[-1]), wanted.shape).astype(dtype)
    if "type" in low:
        return np.zeros(wanted.shape, dtype)
    if wanted.element.narrow and not wanted.element.value.startswith(("i", "u")):
        return np.abs(rng.standard_normal(wanted.shape, np.float32)).astype(dtype)
    top = rows or _TOPS.get(wanted.element, 100)
    if rows and tokens.vocabulary:
        top = min(rows, tokens.vocabulary)
    ids = rng.integers(0, max(1, top), wanted.shape).astype(dtype)
    if rows and ids.ndim and ids.shape[-1] > 1:
        for place, token in ((0, tokens.first), (-1, tokens.last)):
            if token is not None and token < top:
                ids[..., place] = token
    return ids


def _table_rows(program: Program) -> dict[str, int]:
    """Input buffer → rows of the smallest table it indexes, followed through loads, casts and copies on a tile."""
    shapes = {b.name: b.shape for b in program.globals}
    ports = {p.buffer for p in program.inputs}
    smallest: dict[str, int] = {}
    for tile in program.tiles:
        holds: dict[str, str] = {}
        for step in walk(tile.steps):
            names = [o.buffer if isinstance(o, View) else o for o in step.operands]
            if step.mnemonic == "load" and names[1] in ports:
                holds[names[0]] = names[1]
            elif step.mnemonic in ("cast", "copy") and names[1] in holds:
                holds[names[0]] = holds[names[1]]
            elif step.mnemonic == "gather" and names[2] in holds:
                source, rows = holds[names[2]], shapes[names[1]][0]
                smallest[source] = min(rows, smallest.get(source, rows))
    return smallest


def _indexed_rows(graph: Graph) -> dict[str, int]:
    """Input → rows of the smallest table it indexes, followed through views and casts."""
    stands_for = {name: name for name in graph.inputs}
    smallest: dict[str, int] = {}
    for node in graph.nodes:
        if node.op in ("reshape", "cast") and node.inputs[0] in stands_for:
            stands_for[node.outputs[0]] = stands_for[node.inputs[0]]
        elif node.op == "gather" and node.inputs[1] in stands_for:
            source, rows = stands_for[node.inputs[1]], graph.types[node.inputs[0]].shape[0]
            smallest[source] = min(rows, smallest.get(source, rows))
    return smallest
