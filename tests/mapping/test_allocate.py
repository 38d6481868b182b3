"""Addresses by liveness: never two live buffers in one place, and no more memory than simple cases need."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st

from cimc.isa.ranges import Span
from cimc.mapping.allocate import ALIGN, aligned, allocate

SPANS = st.tuples(st.integers(0, 30), st.integers(0, 10)).map(lambda p: Span(p[0], p[0] + p[1]))
BUFFERS = st.dictionaries(st.sampled_from("abcdefghijklmnop"), st.tuples(st.integers(1, 300), SPANS), max_size=12)


@hypothesis.settings(max_examples=200)
@hypothesis.given(BUFFERS, st.sampled_from((0, 64, 640)))
def test_live_buffers_never_overlap(buffers: dict[str, tuple[int, Span]], base: int) -> None:
    sizes = {n: size for n, (size, _) in buffers.items()}
    spans = {n: span for n, (_, span) in buffers.items()}
    addresses, peak = allocate(sizes, spans, base)
    assert addresses.keys() == buffers.keys()
    for a, at in addresses.items():
        assert base <= at <= peak - sizes[a]
        assert at % ALIGN == 0
        for b in addresses:
            together = spans[a].first <= spans[b].last and spans[b].first <= spans[a].last
            if a != b and together:
                assert at + sizes[a] <= addresses[b] or addresses[b] + sizes[b] <= at


@hypothesis.given(BUFFERS)
def test_the_peak_is_at_least_what_lives_at_once_and_at_most_everything(buffers: dict[str, tuple[int, Span]]) -> None:
    sizes = {n: size for n, (size, _) in buffers.items()}
    spans = {n: span for n, (_, span) in buffers.items()}
    _, peak = allocate(sizes, spans, 0)
    at_once = [sum(aligned(sizes[n]) for n, s in spans.items() if s.first <= t <= s.last) for t in range(41)]
    assert max(at_once, default=0) <= peak <= sum(aligned(n) for n in sizes.values())


def plain(sizes: dict[str, int], spans: dict[str, Span], base: int) -> dict[str, int]:
    """First fit by its definition: the lowest address that no living buffer reaches into."""
    found: dict[str, int] = {}
    for name in sorted(sizes, key=lambda n: (spans[n].first, -sizes[n], n)):
        taken = sorted((a, a + aligned(sizes[o])) for o, a in found.items() if spans[o].last >= spans[name].first)
        address = base
        for low, high in taken:
            if address + aligned(sizes[name]) <= low:
                break
            address = max(address, high)
        found[name] = address
    return found


@hypothesis.settings(max_examples=300)
@hypothesis.given(BUFFERS, st.sampled_from((0, 640)))
def test_addresses_are_those_of_plain_first_fit(buffers: dict[str, tuple[int, Span]], base: int) -> None:
    sizes = {n: size if size > 20 else 0 for n, (size, _) in buffers.items()}
    spans = {n: span for n, (_, span) in buffers.items()}
    assert allocate(sizes, spans, base)[0] == plain(sizes, spans, base)


def test_buffers_one_after_another_share_one_place() -> None:
    sizes = dict.fromkeys("abc", 64)
    addresses, peak = allocate(sizes, {"a": Span(0, 1), "b": Span(2, 3), "c": Span(4, 5)}, 128)
    assert addresses == {"a": 128, "b": 128, "c": 128}
    assert peak == 192


def test_a_hole_is_used_again() -> None:
    """a and b live together; c is born when a is dead and fits where a was."""
    addresses, peak = allocate({"a": 128, "b": 64, "c": 100}, {"a": Span(0, 2), "b": Span(1, 9), "c": Span(3, 9)}, 0)
    assert addresses == {"a": 0, "b": 128, "c": 0}
    assert peak == 192


def test_touching_lives_do_not_share() -> None:
    """An instruction may read one and write the other."""
    addresses, _ = allocate({"a": 64, "b": 64}, {"a": Span(0, 3), "b": Span(3, 5)}, 0)
    assert addresses == {"a": 0, "b": 64}


def test_buffers_nobody_uses_take_nothing() -> None:
    assert allocate({"a": 64}, {}, 0) == ({}, 0)
