"""From a tile's steps to closures: every instruction is decoded once, so that it costs little but its meaning.

The result is flat code. An entry called with no argument does its work and returns None to go on to the next one, or
the index of the entry to go to: repeats are a pair of entries that count and jump. Where turns of a repeat can be executed at
once, an entry between them does so, or returns ONE_BY_ONE; only then is the body decoded (:meth:`Code.unfold`)."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Instruction, Machine, Matrix, Meaning, Repeat, Step
from cimc.isa.operands import Affine, View
from cimc.sim import memory, place
from cimc.sim.atonce import AtOnce
from cimc.sim.memory import Env
from cimc.sim.scope import Row, Scope, meaning_of, row_of
from cimc.sim.turns import plan

Array = NDArray[np.generic]
Entry = Callable[[], int | None]
Argument = Array | Matrix | Callable[[Env], Array]
STOP = -1
ONE_BY_ONE = -2


@dataclass
class Code:
    """A tile's decoded stream. ``instructions[i]`` is what entry i executes, None for a repeat's entries."""

    entries: list[Entry] = field(default_factory=list[Entry])
    instructions: list[Instruction | None] = field(default_factory=list[Instruction | None])

    def add(self, entry: Entry, instruction: Instruction | None) -> int:
        """Append an entry; returns its index."""
        self.entries.append(entry)
        self.instructions.append(instruction)
        return len(self.entries) - 1

    groups: dict[int, AtOnce] = field(default_factory=dict[int, AtOnce])
    """Entries that execute turns at once; the instructions of the body follow them."""

    def unfold(self, index: int, scope: Scope) -> None:
        """Decode the body behind the entry of a group, so that its turns can be executed one by one. Raises
        INSTRUCTION_FAILED."""
        group = self.groups[index]
        for at, step in enumerate(group.plan.body, index + 1):
            if self.entries[at] is _undecoded:
                self.entries[at] = _decoded(self, at, step, scope, group.env, group.slots)

    def within(self, index: int) -> int:
        """The entry of the instruction that entry ``index`` executes, or was executing when it failed."""
        return index + 1 + self.groups[index].at if index in self.groups else index

    def step(self, index: int) -> int:
        """Which instruction of the stream entry ``index`` is, counting from 1 and leaving repeats out."""
        return sum(i is not None for i in self.instructions[: index + 1])


def decode(steps: Sequence[Step], scope: Scope) -> Code:
    """Decode a tile's stream. Raises INSTRUCTION_FAILED for an operand that lies outside its buffer."""
    code = Code()
    env: Env = []
    homes = _homes(steps) if scope.recorded is None else {}  # where no turns are executed at once
    for at, step in enumerate(steps):
        _decode_into(code, (step,), scope, env, {}, homes.get(at, ()))
    code.add(lambda: STOP, None)
    return code


def _homes(steps: Sequence[Step]) -> dict[int, list[str]]:
    """The local buffers that only one of the steps names, by its place."""
    first: dict[str, int] = {}
    many: set[str] = set()
    for at, step in enumerate(steps):
        for name in _locals(step):
            if first.setdefault(name, at) != at:
                many.add(name)
    found: dict[int, list[str]] = {}
    for name in first.keys() - many:
        found.setdefault(first[name], []).append(name)
    return found


def _locals(step: Step) -> set[str]:
    """The local buffers that a step names."""
    if isinstance(step, Repeat):
        return set[str]().union(*map(_locals, step.body))
    shared = row_of(step.mnemonic).shared
    views = zip(step.operands, shared, strict=False)  # of rows that may repeat an operand, none is local
    return {o.buffer for o, away in views if not away and isinstance(o, View)}


def _decode_into(
    code: Code, steps: Sequence[Step], scope: Scope, env: Env, slots: dict[str, int], here: Container[str]
) -> None:
    for step in steps:
        if isinstance(step, Repeat):
            _repeat(code, step, scope, env, slots, here)
        else:
            code.add(_decoded(code, len(code.entries), step, scope, env, slots), step)


def _undecoded() -> None:
    raise AssertionError("executed before it was decoded")


def _decoded(code: Code, at: int, step: Instruction, scope: Scope, env: Env, slots: Mapping[str, int]) -> Entry:
    try:
        return _instruction(step, scope, env, slots)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        number = code.step(at - 1) + 1
        raise place.failed(scope.tile, number, step, _why(error)) from error


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return f"an operand lies outside its buffer or does not fit ({error})"


def _repeat(code: Code, step: Repeat, scope: Scope, env: Env, slots: dict[str, int], here: Container[str]) -> None:
    slot = len(env)
    env.append(0)
    count = step.count if isinstance(step.count, int) else memory.affine(step.count, slots, scope.params)
    limit = [0]
    begin = code.add(lambda: None, None)
    derived = [(len(env) + k, d) for k, d in enumerate(step.derived)]
    env.extend(0 for _ in derived)
    inner = {**slots, step.variable: slot, **{d.name: at for at, d in derived}}
    found = plan(step, count, scope, here) if isinstance(count, int) else None
    body = begin + 1
    if found is None:
        _decode_into(code, step.body, scope, env, inner, ())
    else:
        group = AtOnce(found, scope, inner, env)
        code.groups[code.add(lambda: together(group), None)] = group
        for instruction in found.body:
            code.add(_undecoded, instruction)
        body += 1
    end = code.add(lambda: None, None)

    def turn(value: int) -> None:
        env[slot] = value
        for at, d in derived:
            env[at] = d.at(value)

    def enter() -> int | None:
        limit[0] = count if isinstance(count, int) else count(env)
        turn(0)
        return None if limit[0] > 0 else end + 1

    def together(group: AtOnce) -> int | None:
        while (left := limit[0] - env[slot]) > 1:
            if not group.ready(some := min(left, group.most)):
                return ONE_BY_ONE
            group.run(some)
            turn(env[slot] + some)
        return ONE_BY_ONE if left else end + 1

    def again() -> int | None:
        turn(env[slot] + 1)
        return body if env[slot] < limit[0] else None

    code.entries[begin] = enter
    code.entries[end] = again


def _instruction(step: Instruction, scope: Scope, env: Env, slots: Mapping[str, int]) -> Entry:
    row = row_of(step.mnemonic)
    arguments = [_argument(row, i, o, scope, slots) for i, o in enumerate(step.operands)]
    fixed, moving = _keywords(row, step, scope, slots)
    machine = scope.machine if row.shared else scope.tokens
    meaning = meaning_of(step, scope)
    if moving:
        return _late(meaning, machine, arguments, fixed, moving, env)
    makers = [a for a in arguments if callable(a)]
    if not makers:
        return partial(meaning, machine, *arguments, **fixed)
    if len(makers) == len(arguments):
        return lambda: meaning(machine, *[m(env) for m in makers], **fixed)
    return _late(meaning, machine, arguments, fixed, moving, env)


def _late(
    meaning: Meaning,
    machine: Machine,
    arguments: Sequence[Argument],
    fixed: Mapping[str, object],
    moving: Mapping[str, Callable[[Env], int]],
    env: Env,
) -> Entry:
    """An instruction some of whose operands or keywords follow repeat variables."""

    def run() -> None:
        values = [a(env) if callable(a) else a for a in arguments]
        meaning(machine, *values, **fixed, **{k: v(env) for k, v in moving.items()})

    return run


def _argument(row: Row, index: int, operand: View | str, scope: Scope, slots: Mapping[str, int]) -> Argument:
    if isinstance(operand, str):
        return scope.matrices[operand]
    shared = row.shared[index] if index < len(row.shared) else row.shared[-1]
    storage = (scope.shared if shared else scope.local)[operand.buffer]
    return memory.view(storage, operand, slots, scope.params, scope.steps)


def _keywords(
    row: Row, step: Instruction, scope: Scope, slots: Mapping[str, int]
) -> tuple[dict[str, object], dict[str, Callable[[Env], int]]]:
    fixed: dict[str, object] = {**row.defaults, **dict(step.keywords)}
    moving: dict[str, Callable[[Env], int]] = {}
    for name, value in step.keywords:
        if not isinstance(value, Affine):
            continue
        bound = memory.affine(value, slots, scope.params)
        if isinstance(bound, int):
            fixed[name] = bound
        else:
            del fixed[name]
            moving[name] = bound
    return fixed, moving
