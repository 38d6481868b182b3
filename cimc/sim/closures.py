"""From a tile's steps to closures: every instruction is decoded once, so that it costs little but its meaning.

The result is flat code. An entry called with no argument does its work and returns None to go on to the next one, or
the index of the entry to go to: repeats are a pair of entries that count and jump."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Instruction, Kind, Machine, Matrix, Meaning, Repeat, Step
from cimc.isa.operands import Affine, View
from cimc.sim import memory, place
from cimc.sim.memory import Env, Storage

Array = NDArray[np.generic]
Entry = Callable[[], int | None]
Argument = Array | Matrix | Callable[[Env], Array]
STOP = -1


class NotFinite(Exception):
    """Raised where activations that are about to be quantised hold NaN or infinity."""


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

    def step(self, index: int) -> int:
        """Which instruction of the stream entry ``index`` is, counting from 1 and leaving repeats out."""
        return sum(i is not None for i in self.instructions[: index + 1])


@dataclass(frozen=True)
class Scope:
    """What the names in a tile's instructions mean."""

    tile: int
    machine: Machine  # for instructions with operands
    tokens: Machine  # for those without: their messages are tokens
    local: Mapping[str, Storage]
    shared: Mapping[str, Storage]
    quantized: frozenset[str]  # local buffers of q types
    matrices: Mapping[str, Matrix]
    params: Mapping[str, int]
    check_finite: bool
    steps: memory.Steps


def decode(steps: Sequence[Step], scope: Scope) -> Code:
    """Decode a tile's stream. Raises INSTRUCTION_FAILED for an operand that lies outside its buffer."""
    code = Code()
    env: Env = []
    _decode_into(code, steps, scope, env, {})
    code.add(lambda: STOP, None)
    return code


def _decode_into(code: Code, steps: Sequence[Step], scope: Scope, env: Env, slots: dict[str, int]) -> None:
    for step in steps:
        if isinstance(step, Repeat):
            _repeat(code, step, scope, env, slots)
            continue
        try:
            entry = _instruction(step, scope, env, slots)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            number = code.step(len(code.entries)) + 1
            raise place.failed(scope.tile, number, step, _why(error)) from error
        code.add(entry, step)


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return f"an operand lies outside its buffer or does not fit ({error})"


def _repeat(code: Code, step: Repeat, scope: Scope, env: Env, slots: dict[str, int]) -> None:
    slot = len(env)
    env.append(0)
    count = step.count if isinstance(step.count, int) else memory.affine(step.count, slots, scope.params)
    limit = [0]
    begin = code.add(lambda: None, None)
    derived = [(len(env) + k, d) for k, d in enumerate(step.derived)]
    env.extend(0 for _ in derived)
    inner = {**slots, step.variable: slot, **{d.name: at for at, d in derived}}
    _decode_into(code, step.body, scope, env, inner)
    end = code.add(lambda: None, None)

    def turn(value: int) -> None:
        env[slot] = value
        for at, d in derived:
            env[at] = d.at(value)

    def enter() -> int | None:
        limit[0] = count if isinstance(count, int) else count(env)
        turn(0)
        return None if limit[0] > 0 else end + 1

    def again() -> int | None:
        turn(env[slot] + 1)
        return begin + 1 if env[slot] < limit[0] else None

    code.entries[begin] = enter
    code.entries[end] = again


def _instruction(step: Instruction, scope: Scope, env: Env, slots: dict[str, int]) -> Entry:
    row = _row(step.mnemonic)
    arguments = [_argument(row, i, o, scope, slots) for i, o in enumerate(step.operands)]
    fixed, moving = _keywords(row, step, scope, slots)
    machine = scope.machine if row.shared else scope.tokens
    meaning = row.meaning
    if scope.check_finite and row.written:
        meaning = _checked(row, step, scope)
    if moving:
        return _late(meaning, machine, arguments, fixed, moving, env)
    makers = [a for a in arguments if callable(a)]
    if not makers:
        return partial(meaning, machine, *arguments, **fixed)
    if len(makers) == len(arguments):
        return lambda: meaning(machine, *[m(env) for m in makers], **fixed)
    return _late(meaning, machine, arguments, fixed, moving, env)


@dataclass(frozen=True, slots=True)
class _Row:
    """What decoding needs of a mnemonic's row. ``shared``, per operand: whether it is a global buffer; the last one stands
    for all that follow."""

    meaning: Meaning
    shared: tuple[bool, ...]
    defaults: Mapping[str, object]
    written: tuple[int, ...]  # which operands are views of local buffers that are written only
    read: tuple[int, ...]  # and read only


@cache
def _row(mnemonic: str) -> _Row:
    spec = INSTRUCTIONS[mnemonic]
    kinds = [o.kind for o in spec.operands]
    return _Row(
        spec.meaning,
        tuple(k in GLOBAL for k in kinds),
        {k.name: k.default for k in spec.keywords if k.default is not None},
        tuple(i for i, k in enumerate(kinds) if k is Kind.WRITE),
        tuple(i for i, k in enumerate(kinds) if k is Kind.READ),
    )


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


def _argument(row: _Row, index: int, operand: View | str, scope: Scope, slots: dict[str, int]) -> Argument:
    if isinstance(operand, str):
        return scope.matrices[operand]
    shared = row.shared[index] if index < len(row.shared) else row.shared[-1]
    storage = (scope.shared if shared else scope.local)[operand.buffer]
    return memory.view(storage, operand, slots, scope.params, scope.steps)


def _keywords(
    row: _Row, step: Instruction, scope: Scope, slots: dict[str, int]
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


def _checked(row: _Row, step: Instruction, scope: Scope) -> Meaning:
    """The meaning behind a test of its floating-point operands, if it writes a q type: there NaN and infinity
    would turn into arbitrary codes."""
    meaning = row.meaning
    views = [o.buffer if isinstance(o, View) else "" for o in step.operands]
    if not any(views[i] in scope.quantized for i in row.written):
        return meaning
    reads = [i for i in row.read if scope.local[views[i]].dtype.kind == "f"]
    if not reads:
        return meaning

    def checked(machine: Machine, *arguments: Array, **keywords: object) -> None:
        for i in reads:
            x = arguments[i]
            if not np.isfinite(x).all():
                raise NotFinite("NaN" if np.isnan(x).any() else "infinity")
        meaning(machine, *arguments, **keywords)

    return checked
