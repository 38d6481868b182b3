"""Addresses of a tile's buffers by liveness: buffers whose lives do not overlap may share bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cimc.isa.instruction import INSTRUCTIONS, LOCAL, Instruction, Kind, Repeat, Step
from cimc.isa.operands import View

ALIGN = 64  # bytes; keeps every element type aligned and rows on whole buffer words


@dataclass(slots=True)
class Life:
    """First and last position at which a buffer must keep its contents."""

    first: int
    last: int


@dataclass
class _Scan:
    """Walks a stream once and notes every access."""

    position: int = 0
    lives: dict[str, Life] = field(default_factory=dict[str, Life])

    def walk(self, steps: Sequence[Step]) -> dict[str, bool]:
        """Scan steps; returns the buffers touched → whether the first access writes."""
        touched: dict[str, bool] = {}
        for step in steps:
            if isinstance(step, Repeat):
                self._repeat(step, touched)
            else:
                self._instruction(step, touched)
        return touched

    def _repeat(self, step: Repeat, touched: dict[str, bool]) -> None:
        start = self.position
        before = dict(self.lives)
        body = self.walk(step.body)
        end = self.position
        for name, writes_first in body.items():
            # What an iteration reads before it writes comes from outside or from the iteration before.
            if not writes_first or name in before:
                life = self.lives[name]
                life.first, life.last = min(life.first, start), end
            touched.setdefault(name, writes_first)

    def _instruction(self, step: Instruction, touched: dict[str, bool]) -> None:
        spec = INSTRUCTIONS[step.mnemonic]
        reads = [o for i, o in enumerate(step.operands) if spec.operand(i).kind in (Kind.READ, Kind.UPDATE)]
        accumulates = ("accumulate", 1) in step.keywords
        for i, operand in enumerate(step.operands):
            kind = spec.operand(i).kind
            if kind not in LOCAL or not isinstance(operand, View):
                continue
            name = operand.buffer
            plain = kind is Kind.WRITE or (kind is Kind.UPDATE and not accumulates)
            written = plain and not any(isinstance(r, View) and r is not operand and r.buffer == name for r in reads)
            touched.setdefault(name, written)
            life = self.lives.setdefault(name, Life(self.position, self.position))
            life.last = self.position
        self.position += 1


def lives(steps: Sequence[Step]) -> dict[str, Life]:
    """How long each buffer of a stream must keep its contents, in positions of the flattened stream. A buffer that an
    iteration reads before it writes, or that is also used before the repeat, lives through the whole repeat; one used after a
    repeat lives from its first access on."""
    scan = _Scan()
    scan.walk(steps)
    return scan.lives


def aligned(size: int) -> int:
    """A size rounded up to the allocation's grain."""
    return -(-size // ALIGN) * ALIGN


def allocate(sizes: dict[str, int], spans: dict[str, Life], base: int) -> tuple[dict[str, int], int]:
    """First-fit addresses from ``base`` on, in order of birth (ties: larger first, then name), and the peak. Buffers nobody
    accesses get no bytes."""
    order = sorted((n for n in sizes if n in spans), key=lambda n: (spans[n].first, -sizes[n], n))
    placed: list[tuple[int, int, int]] = []  # (address, end, last position)
    addresses: dict[str, int] = {}
    peak = base
    for name in order:
        life, size = spans[name], aligned(sizes[name])
        placed = [p for p in placed if p[2] >= life.first]
        address = base
        for low, high, _ in sorted(placed):
            if address + size <= low:
                break
            address = max(address, high)
        addresses[name] = address
        placed.append((address, address + size, life.last))
        peak = max(peak, address + size)
    return addresses, peak
