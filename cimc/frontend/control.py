"""Spellings of control flow and of sequences: decided, unrolled or listed while the model is read."""

from __future__ import annotations

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Unsupported, Value
from cimc.frontend.call import Call, NeedsHost, Operand, spelling
from cimc.frontend.layout import MAX_PARTS
from cimc.frontend.record import OnnxGraph
from cimc.isa.operands import Element

MAX_TRIPS = 256


@spelling(
    "If",
    note="a condition known when the model is compiled chooses (in `check`, one that small inputs of the model decide);"
    " otherwise both branches run and one is selected",
)
def if_(c: Call) -> tuple[Operand, ...]:
    """One branch, or both and a select."""
    condition = c.x()
    known = c.b.array(condition)
    if known is not None:
        return c.run(c.graph("then_branch" if bool(known.reshape(-1)[0]) else "else_branch"), ())
    c.ask(condition)
    yes, no = c.run(c.graph("then_branch"), ()), c.run(c.graph("else_branch"), ())
    c.note(f"If '{c.node.name}' is decided at run time: both branches are computed, one is selected")
    gate = f.reshape(c.b, condition, ())
    return tuple(_chosen(c, gate, a, b) for a, b in zip(yes, no, strict=True))


def _chosen(c: Call, gate: Value, yes: Operand, no: Operand) -> Operand:
    if isinstance(yes, tuple) and isinstance(no, tuple) and len(yes) == len(no):
        return tuple(_tensor(_chosen(c, gate, a, b)) for a, b in zip(yes, no, strict=True))
    if not isinstance(yes, Value) or not isinstance(no, Value):
        c.ask(gate)
        raise Unsupported("its branches give sequences or optionals of different lengths, chosen at run time")
    if yes.type != no.type:
        c.ask(gate)
        why = f"its branches give {yes.type} and {no.type}, and which one is known only at run time"
        raise Unsupported(f"{why}; where a small input of the model decides it, check with --inputs compiles it in")
    return yes if yes == no else f.select(c.b, gate, yes, no)


def _truth(c: Call, value: Value | None) -> bool | None:
    """A condition's value; True if there is none; None if it is known only at run time."""
    if value is None:
        return True
    array = c.b.array(value)
    return None if array is None else bool(array.reshape(-1)[0])


@spelling(
    "Loop", note=f"unrolled: trip count and condition known when the model is compiled, at most {MAX_TRIPS} rounds"
)
def loop(c: Call) -> tuple[Operand, ...]:
    """The body, once per round."""
    body = c.graph("body")
    trips = c.known_ints(0, "the trip count")
    going = _truth(c, c.opt(1))
    limit = trips[0] if trips else MAX_TRIPS + 1
    if going is None:
        c.ask(c.x(1))
        raise NeedsHost("the condition is known only at run time")
    state: tuple[Operand, ...] = c.inputs[2:]
    if len(body.inputs) != len(state) + 2 or len(body.outputs) < len(state) + 1:
        raise Impossible("the body's inputs and outputs do not match the loop's")
    scans: list[list[Value]] = [[] for _ in body.outputs[len(state) + 1 :]]
    count = 0
    while going and count < limit:
        if count >= MAX_TRIPS:
            raise NeedsHost(f"more than {MAX_TRIPS} rounds")
        number = c.b.scalar(count, Element.I64)
        results = c.run(body, (number, c.b.scalar(True, Element.B8), *state), f"/{count}")
        condition = results[0]
        going = _truth(c, condition) if isinstance(condition, Value) else None
        if going is None:
            raise NeedsHost("the condition is known only at run time")
        state = results[1 : 1 + len(state)]
        for scan, value in zip(scans, results[1 + len(state) :], strict=True):
            scan.append(_tensor(value))
        count += 1
    return (*state, *(_stacked(c, s, 0) for s in scans))


def _tensor(value: Operand) -> Value:
    if not isinstance(value, Value):
        raise Unsupported("a loop gathers something other than tensors")
    return value


def _stacked(c: Call, values: list[Value], axis: int) -> Value:
    if not values:
        raise NeedsHost("a loop of no rounds gathers nothing of unknown shape")
    at = axis % (values[0].rank + 1)
    return f.concat(c.b, [f.unsqueeze(c.b, v, at) for v in values], at)


@spelling("Scan", note=f"unrolled, at most {MAX_TRIPS} rounds; opset 9 and later")
def scan(c: Call) -> tuple[Operand, ...]:
    """The body, once per slice of the scanned inputs."""
    if c.version < 9:
        raise NeedsHost("Scan before opset 9 scans batches")
    body, count = c.graph("body"), c.int("num_scan_inputs")
    values = c.tensors()
    state, scanned = values[: len(values) - count], values[len(values) - count :]
    axes = c.ints("scan_input_axes") or (0,) * count
    backwards = c.ints("scan_input_directions") or (0,) * count
    if not scanned or len(axes) != count or len(backwards) != count:
        raise Impossible("the scanned inputs and their axes do not match")
    places = [c.axis(a, v.rank) for a, v in zip(axes, scanned, strict=True)]
    rounds = {v.shape[a] for a, v in zip(places, scanned, strict=True)}
    if len(rounds) != 1:
        raise Impossible("the scanned inputs differ in length")
    trips = rounds.pop()
    if trips > MAX_TRIPS:
        raise NeedsHost(f"{trips} rounds, more than {MAX_TRIPS}")
    return _scan_rounds(c, body, state, list(zip(scanned, places, backwards, strict=True)), trips)


def _scan_rounds(
    c: Call, body: OnnxGraph, state: tuple[Operand, ...], scanned: list[tuple[Value, int, int]], trips: int
) -> tuple[Operand, ...]:
    gathered: list[list[Value]] = [[] for _ in body.outputs[len(state) :]]
    for i in range(trips):
        slices = tuple(
            f.squeeze(c.b, f.part(c.b, v, a, trips - 1 - i if back else i, 1), (a,)) for v, a, back in scanned
        )
        results = c.run(body, (*state, *slices), f"/{i}")
        state = results[: len(state)]
        for values, value in zip(gathered, results[len(state) :], strict=True):
            values.append(_tensor(value))
    axes = c.ints("scan_output_axes") or (0,) * len(gathered)
    reverse = c.ints("scan_output_directions") or (0,) * len(gathered)
    ordered = [values[::-1] if back else values for values, back in zip(gathered, reverse, strict=True)]
    return (*state, *(_stacked(c, v, a) for v, a in zip(ordered, axes, strict=True)))


def _sequence(c: Call, index: int = 0) -> tuple[Value, ...]:
    value = c.inputs[index] if index < len(c.inputs) else None
    if not isinstance(value, tuple):
        raise Impossible(f"input {index} is not a sequence")
    return value


def _position(c: Call, index: int, count: int) -> int:
    at = c.known_ints(index, "the position")
    if not at or not -count <= at[0] < count:
        raise Impossible(f"position {at} in a sequence of {count}")
    return at[0] % count


@spelling("SequenceConstruct", "SequenceEmpty", runs="folded")
def sequence_construct(c: Call) -> tuple[Operand, ...]:
    """A list of tensors, known while the model is read."""
    return (c.tensors(),)


@spelling("SequenceAt", runs="folded")
def sequence_at(c: Call) -> Value:
    """One tensor of a sequence."""
    values = _sequence(c)
    return values[_position(c, 1, len(values))]


@spelling("SequenceLength", runs="folded")
def sequence_length(c: Call) -> Value:
    """How many tensors there are."""
    return c.b.constant(np.array(len(_sequence(c)), np.int64))


@spelling("SequenceInsert", runs="folded")
def sequence_insert(c: Call) -> tuple[Operand, ...]:
    """With a tensor put in, at the end if no position is given."""
    values = list(_sequence(c))
    at = c.known_ints(2, "the position")
    place = at[0] if at else len(values)
    if not -len(values) <= place <= len(values):
        raise Impossible(f"position {place} in a sequence of {len(values)}")
    values.insert(place, c.x(1))
    return (tuple(values),)


@spelling("SequenceErase", runs="folded")
def sequence_erase(c: Call) -> tuple[Operand, ...]:
    """Without one tensor, the last if no position is given."""
    values = list(_sequence(c))
    del values[_position(c, 1, len(values)) if c.opt(1) is not None else len(values) - 1]
    return (tuple(values),)


@spelling("ConcatFromSequence")
def concat_from_sequence(c: Call) -> Value:
    """The tensors of a sequence one after another, or stacked."""
    values, axis = _sequence(c), c.int("axis")
    if not values:
        raise Impossible("a concatenation of no tensors")
    if c.int("new_axis", 0):
        return _stacked(c, list(values), c.axis(axis, values[0].rank + 1))
    return f.concat(c.b, values, c.axis(axis, values[0].rank))


@spelling("SplitToSequence", runs="view")
def split_to_sequence(c: Call) -> tuple[Operand, ...]:
    """Parts along an axis, as a sequence."""
    x = c.x()
    axis = c.axis(c.int("axis", 0), x.rank)
    n, sizes = x.shape[axis], c.known_ints(1, "the sizes")
    given = c.opt(1)
    if n > MAX_PARTS:
        raise Unsupported(f"a sequence of up to {n} tensors")
    if sizes is None or given is None:
        parts = [f.part(c.b, x, axis, i, 1) for i in range(n)]
        return (tuple(parts if c.int("keepdims", 1) else [f.squeeze(c.b, p, (axis,)) for p in parts]),)
    if not given.rank:
        each = sizes[0]
        if each < 1:
            raise Impossible(f"parts of {each}")
        sizes = tuple(min(each, n - i) for i in range(0, n, each))
    if sum(sizes) != n:
        raise Impossible(f"split of {x.type} along axis {axis} into {sizes}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return (tuple(f.part(c.b, x, axis, a if s else 0, s) for a, s in zip(starts, sizes, strict=True)),)


@spelling("OptionalHasElement", runs="folded")
def optional_has_element(c: Call) -> Value:
    """Whether there is something."""
    return c.b.constant(np.array(bool(c.inputs) and c.inputs[0] is not None))


@spelling("OptionalGetElement", "Optional", runs="folded")
def optional_get_element(c: Call) -> tuple[Operand, ...]:
    """What there is."""
    if not c.inputs or c.inputs[0] is None:
        if c.node.op_type == "Optional":
            return (None,)
        raise Impossible("the optional is empty")
    return (c.inputs[0],)
