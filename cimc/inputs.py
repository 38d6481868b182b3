"""Inputs of a run: read from an .npz, or drawn from a seed with values that make sense for what the model does with them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.analog.rng import Streams
from cimc.errors import did_you_mean
from cimc.ir.graph import Graph, Node, Type
from cimc.isa.operands import Element

Array = NDArray[np.generic]

MAX_NPZ_BYTES = 8 * 2**30
_INTEGERS = (Element.I64, Element.I32, Element.I16, Element.I8, Element.U8, Element.U16, Element.U32, Element.U64)
_FLOATS = (Element.F64, Element.F32, Element.F16, Element.BF16)


def read(path: Path) -> dict[str, Array]:
    """The arrays of an .npz by name. Pickled objects are refused; sizes are checked before anything is read."""
    if not path.is_file():
        raise errors.FILE_NOT_FOUND(what="inputs file", path=path)
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > MAX_NPZ_BYTES:
            raise errors.FILE_UNREADABLE(what="inputs file", path=path, why=f"it unpacks to {total} bytes")
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as e:
        raise errors.FILE_UNREADABLE(what="inputs file", path=path, why=str(e)) from None


def check(types: Mapping[str, Type], given: Mapping[str, Array]) -> dict[str, Array]:
    """The given inputs, checked against the model's: all there, none unknown, element type and shape right."""
    collector = errors.Collector()
    for name in given:
        if name not in types:
            known = ", ".join(types)
            collector.add(errors.INPUT_UNKNOWN(name=name, near=did_you_mean(name, types), known=known))
    for name, wanted in types.items():
        if name not in given:
            collector.add(errors.INPUT_MISSING(name=name, known=", ".join(types)))
            continue
        array = given[name]
        dtype = wanted.element.dtype(exact=False)
        if array.dtype != dtype or array.shape != wanted.shape:
            got = f"{array.dtype}{list(array.shape)}"
            collector.add(errors.INPUT_MISMATCH(name=name, got=got, want=f"{dtype}{list(wanted.shape)}"))
    collector.raise_if_any()
    return dict(given)


def draw(graph: Graph, seed: int) -> dict[str, Array]:
    """Inputs drawn from a seed: token ids below the size of the table they index, masks of ones, position ids in order,
    lengths that fill the sequence, everything else standard normal. Same graph and seed, same inputs."""
    uses = graph.uses()
    found: dict[str, Array] = {}
    for number, name in enumerate(graph.inputs):
        rng = Streams(seed).generator("inputs", number)
        found[name] = _draw(name, graph.type(name), _table_rows(graph, uses, name), rng)
    return found


def _draw(name: str, wanted: Type, rows: int | None, rng: np.random.Generator) -> Array:
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
    top = rows or (128 if wanted.element in (Element.I8, Element.U8) else 100)
    return rng.integers(0, max(1, top), wanted.shape).astype(dtype)


def _table_rows(graph: Graph, uses: Mapping[str, list[Node]], name: str) -> int | None:
    """Rows of the smallest table an input indexes, followed through casts and changes of shape."""
    smallest: int | None = None
    work, seen = [name], {name}
    while work:
        value = work.pop()
        for node in uses.get(value, []):
            if node.op == "gather" and node.inputs[1] == value:
                rows = graph.type(node.inputs[0]).shape[0]
                smallest = rows if smallest is None else min(smallest, rows)
            elif node.op in ("cast", "reshape", "transpose", "slice", "expand", "copy") and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                work.append(node.outputs[0])
    return smallest
