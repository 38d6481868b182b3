"""``check --layers``: every value of the model that the compiled graph still has, against the reference's.

The compiled graph (level partitioned) is evaluated, not its tile programs: both give the same numbers (the tests hold
them to it, bit for bit from quantisation down), and the graph's values carry the model's names. In analog numerics the
values inside are those of the integers; the device's own share is known for the model's outputs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.ir.constants import Constants
from cimc.ir.evaluate import evaluate_all
from cimc.ir.graph import Graph
from cimc.ops import Arithmetic
from cimc.reference import Reference
from cimc.report.attribution import Attribution, attribute
from cimc.report.compare import Agreement, Tolerance, compare

Array = NDArray[np.generic]

CAP_DB = {"float": 100.0, "integer": 30.0, "analog": 30.0}
"""Better than this is as good as exact: float32 sums in another order, 8-bit codes."""
DROP_DB = {"float": 20.0, "integer": 10.0, "analog": 10.0}
"""A layer's SQNR jumps when it falls by this much below that of its operands."""


@dataclass(frozen=True)
class Jump:
    """A value much further from the reference than what it was computed from: SQNRs in dB."""

    name: str
    op: str
    before_db: float
    after_db: float


@dataclass(frozen=True)
class Layers:
    """What comparing layers found, in execution order. ``numerics`` are those the values inside were computed in."""

    numerics: str
    agreements: tuple[Agreement, ...]
    causes: tuple[Attribution, ...]
    jump: Jump | None


def compare_layers(
    graph: Graph,
    constants: Constants,
    reference: Reference,
    tolerance: Tolerance,
    device: Mapping[str, Array] | None = None,
    operand_bits: int = Arithmetic.operand_bits,
) -> Layers:
    """Compare the graph's values with the reference's of the same name. ``device``: outputs of a run in analog numerics,
    by the model's names. ``operand_bits``: of the chip's matmul units. Memory: a chunk of values (see :class:`Reference`) up to
    three times. Raises REFERENCE if onnxruntime does not give values inside the model."""
    produced = [v for n in graph.nodes for v in n.outputs if v]
    given = frozenset(reference.inner_names())
    sizes = {v: graph.types[v].bytes for v in produced if v in given}
    agreements: list[Agreement] = []
    causes: list[Attribution] = []
    exact = tolerance.numerics == "float"
    rounded = Arithmetic(exact=False, operand_bits=operand_bits)
    for wanted in reference.inner(sizes):
        floats = evaluate_all(graph, constants, reference.inputs, Arithmetic(exact=True), keep=wanted)
        whole: Mapping[str, Array] = {}
        if not exact:
            whole = evaluate_all(graph, constants, reference.inputs, rounded, keep=wanted)
        found = floats if exact else whole
        agreements += [compare(n, found[n], want, tolerance) for n, want in wanted.items()]
        causes += attribute(wanted, floats, whole, device or {})
    jump = first_jump(graph, agreements, tolerance.numerics)
    return Layers("float" if exact else "integer", tuple(agreements), tuple(causes), jump)


def first_jump(graph: Graph, agreements: list[Agreement], numerics: str) -> Jump | None:
    """The first value in execution order whose SQNR is :data:`DROP_DB` below the worst of what it was computed from;
    operands that were not compared count as what they were computed from, all as no better than :data:`CAP_DB`."""
    known = {a.name: a for a in agreements}
    cap = CAP_DB[numerics]
    at = dict.fromkeys((*graph.inputs, *graph.constants), cap)
    for node in graph.nodes:
        before = min((at[v] for v in node.inputs if v), default=cap)
        for value in node.outputs:
            if not value:
                continue
            agreement = known.get(value)
            at[value] = before if agreement is None else min(cap, _sqnr(agreement))
            if agreement is not None and at[value] <= before - DROP_DB[numerics]:
                return Jump(value, f"{node.origin.op_type} {node.origin.node}", before, agreement.sqnr_db)
    return None


def _sqnr(a: Agreement) -> float:
    """In dB; differences below the smallest tolerance are none (a value that should be all zeros has no better measure)."""
    return CAP_DB["float"] if a.max_abs_error <= 1e-6 else a.sqnr_db
