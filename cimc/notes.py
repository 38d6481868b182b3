"""What a compile tells beside its program: choices that became something else than was asked for, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping

from cimc.codegen.caches import note as cache_note
from cimc.ir.graph import Graph
from cimc.isa.operands import Element
from cimc.mapping.json_value import Json
from cimc.mapping.mapping import Mapping as Placed
from cimc.ops.written import WRITTEN


def kept(graph: Graph) -> tuple[str, ...]:
    """A note for each attention whose scores could not be decomposed."""
    found = ((n.origin.node, str(n.get("kept", ""))) for n in graph.nodes if n.op in ("attention", WRITTEN))
    return tuple(f"{name} is not decomposed: {why}" for name, why in found if why)


def halved(graph: Graph, values: str) -> tuple[str, ...]:
    """How many of the values are in 16 bits, if any are to be: ``values`` is what was asked for."""
    floats = [graph.types[v].element for n in graph.nodes for v in n.outputs if v]
    halves, wide = sum(e.halved for e in floats), floats.count(Element.F32)
    told = f"values: {halves} in {values}, {wide} inside ops, at the model's borders or of masks stay in f32"
    return (told,) if values != "f32" else ()


def cells(bits: int, built: int) -> tuple[str, ...]:
    """A note if weights have other ``bits`` than the cores are ``built`` for."""
    if bits == built:
        return ()
    if bits < built:
        what = f"the upper cells stay empty; -c weight_bits={bits} builds the cores for it"
    else:
        what = f"time, energy and area are those of {built} bits, and analog numerics refuse it; use --precision w{built}a8"
    return (f"w{bits}a8 in cores of {built}-bit weights: {what}",)


def chosen(told: Mapping[str, Json], caches: dict[str, Json] | None, mapping: Placed) -> tuple[str, ...]:
    """What became of choices that a model may not need, or not allow."""
    choices = mapping.choices
    return (
        *(_reload_note(told) if choices.reload else ()),
        *([cache_note(caches, choices.cache)] if caches or choices.cache != "memory" else ()),
        *([_stream_note(mapping)] if choices.optimize == "throughput" else ()),
    )


def _stream_note(mapping: Placed) -> str:
    """What streams, or that nothing does."""
    region = mapping.region
    if region is None:
        why = "the batch must be several samples (--dim batch=...), each of several rows that go through two segments or more"
        return f"throughput: nothing streams: {why}"
    said = f"throughput: {region.waves} samples stream through {len(region.parts)} of {len(mapping.segments)} segments"
    if len(region.parts) == len(mapping.segments):
        return said
    why = "other rows than a sample's, or operands read whole that are not made of its rows alone, as caches"
    return f"{said}; the others run for all samples at once ({why})"


def _reload_note(told: Mapping[str, Json]) -> list[str]:
    """What takes turns in cells, and what would do instead."""
    need = f"{told['cores_needed']} cores of weights on {told['cores']}"
    reload, others = told.get("reload"), told.get("alternatives")
    if not isinstance(reload, dict):
        return [f"reload: not needed, {need}"]
    turn = f"{reload['matrices']} matrices take turns on {reload['pool_cores']} cores"
    instead = [str(o["option"]) for o in others if isinstance(o, dict)] if isinstance(others, list) else []
    return [f"reload: {need}: {turn}; instead: {', '.join(instead)} (mapping.json: fit)"]
