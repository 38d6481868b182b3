"""Homes of values by how long serving them takes; the estimate against its own formula written out."""

from __future__ import annotations

from cimc.arch.load import load
from cimc.codegen.serving import better_away
from cimc.isa.text import parse_program

TEXT = """\
.cim 1
.hardware "toy"
.global t f32 64x64
.tile 0
.buffer a f32 64x64 @0
repeat i 4 {
  load a, t
}
halt
"""


def away(*overrides: str) -> bool:
    """Whether ``t``, of which 16,384 bytes are loaded four times, is rather in global memory."""
    program = parse_program(TEXT, "p")
    return "t" in better_away(program.globals, program.tiles, load("toy", overrides).spec)


def test_memory_that_is_much_faster_than_a_link_serves() -> None:
    """4 · 16,384 bytes by links of 4 bytes: 16,384 cycles, and 4 ways of 2; by memory of B bytes, with another value
    beside: 131,072 / B cycles, and 4 latencies of 10."""
    assert not away("memory.bytes_per_cycle=8.0")
    assert not away("memory.bytes_per_cycle=8.01")
    assert away("memory.bytes_per_cycle=8.1")


def test_a_long_way_to_memory_counts() -> None:
    assert away("memory.bytes_per_cycle=16.0")
    assert not away("memory.bytes_per_cycle=16.0", "memory.latency_cycles=2100")
