"""Going through the steps of a tile program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cimc.isa.instruction import Instruction, Repeat, Step


def walk(steps: Iterable[Step]) -> Iterator[Instruction]:
    """All instructions in program order, a repeat's body once."""
    return (step for step in each(steps) if not isinstance(step, Repeat))


def each(steps: Iterable[Step]) -> Iterator[Step]:
    """All steps in program order, a repeat before its body, which comes once. Not recursive."""
    stack = [iter(steps)]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            continue
        yield step
        if isinstance(step, Repeat):
            stack.append(iter(step.body))


def executed(steps: Iterable[Step], times: int = 1) -> Iterator[tuple[Instruction, int]]:
    """All instructions in program order, a repeat's body once, and how often each is executed. A count that is known only
    when a run starts counts as one."""
    for step in steps:
        if not isinstance(step, Repeat):
            yield step, times
            continue
        count = step.count if isinstance(step.count, int) else 1
        for inner, often in executed(step.body, times * count):
            late = inner.phase  # only instructions right in the body have one
            yield inner, often if late is None or late.turns == 1 else times * late.times(count)
