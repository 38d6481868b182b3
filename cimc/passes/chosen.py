"""Layers chosen by name: what ``--digital`` and the passes that take ``layers`` understand."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from cimc import errors
from cimc.ir.graph import Node

STATIC = frozenset(("linear", "mvm"))
"""Static matmuls before partitioning."""


def names(node: Node) -> tuple[str, ...]:
    """What a static matmul may be called by: the ONNX nodes it came from, its weights."""
    return (*(o.node for o in node.origins), node.inputs[1])


def check_layers(layers: str, what: str) -> None:
    """Raises PASS_OPTION for names that a pipeline's text cannot say."""
    if '"' in layers or "\n" in layers:
        why = "it has a quotation mark or a line break"
        raise errors.PASS_OPTION(option="layers", name=what, why=why, fix="write ? for that character")


def chosen(nodes: Iterable[Node], layers: str, what: str) -> frozenset[str]:
    """The outputs of the static matmuls that ``layers`` names: names or patterns (``*`` and ``?``) with commas between.

    Raises PASS_OPTION for one that names none; ``what`` is the pass that asks."""
    static = [n for n in nodes if n.op in STATIC]
    found: set[str] = set()
    for pattern in filter(None, (p.strip() for p in layers.split(","))):
        hit = {n.outputs[0] for n in static if any(_fits(name, pattern) for name in names(n))}
        if not hit:
            known = list(dict.fromkeys(n.origin.node for n in static))
            near = errors.did_you_mean(pattern, known)
            some = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
            why = f"no static matmul is called '{pattern}'"
            raise errors.PASS_OPTION(option="layers", name=what, why=why, fix=f"{near}there are: {some}")
        found |= hit
    return frozenset(found)


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)
