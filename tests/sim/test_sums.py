"""Sums in the network: every rule of their time by a closed form, what they compute, and how they fail.

The tiny chip: links of 4 bytes a cycle and 2 cycles a hop; a router that adds is 3 cycles later and adds one 32-bit element a
cycle. A part of 8 elements takes 8 cycles on a link."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.arch import noc
from cimc.arch.spec import NocSpec, ReduceSpec
from cimc.errors import CimcError
from cimc.isa.operands import Affine, Element
from cimc.isa.program import GlobalBuffer, Program
from cimc.sim.reference import Reference
from cimc.sim.result import Timing
from cimc.sim.timing import run_timing
from cimc.sim.values import run_values
from tests.sim.chips import ENERGY, buffers, chip, chips, do, program, repeat, tile, view
from tests.sim.test_timing import spans

Q32, F32 = Element.Q32, Element.F32
LOCAL = buffers(("a", Q32, (64,)), ("b", Q32, (64,)), ("c", Q32, (64,)), ("f", F32, (64,)))
A, B, C = view("a", 8), view("b", 8), view("c", 8)
LATE = do("exp", view("f", 8, offset=8), view("f", 8))  # 7 cycles, of another unit and other bytes


def ran(*tiles, layout=("tttt",), machine=None, **changes) -> Timing:
    """Both engines, which agree."""
    p, m = program(*tiles), machine or chip(layout, **changes)
    got = run_timing(p, m, trace=True)
    reference = Reference(p, m)
    assert got.cycles == reference.run()
    rows = sorted((e.tile, e.start, e.end, e.instruction.mnemonic) for e in reference.executed)
    assert rows == sorted((e.tile, e.start, e.end, e.mnemonic) for e in got.events)
    return got


def parts(of: tuple[int, ...], to: int, *, before=(), then=()):
    """Tiles that send their parts of one sum, and the one that takes it; ``before``: tiles that are busy first."""
    found = []
    for n in sorted({*of, to}):
        steps = [LATE, do("copy", A, B)] if n in before else []
        steps += [do("reduce", A, of=of, to=to)] if n in of else []
        steps += [do("collect", C, of=of)] if n == to else []
        found.append(tile(n, *steps, *(then if n == to else ()), buffers=LOCAL))
    return found


def test_parts_in_a_row_are_added_on_the_way():
    # The part of tile 3 is at router 2 at 2, the sum leaves there at 5, meets that of tile 1 at 7, leaves at 10, and its
    # header is at tile 0 at 12. Every part has left its tile after 8 cycles.
    got = ran(*parts((3, 2, 1), 0))
    assert spans(got, 0) == [("collect", 0, 12 + 8)]
    assert [spans(got, n) for n in (1, 2, 3)] == [[("reduce", 0, 8)]] * 3
    assert got.actions["noc.add"] == 2 * 8
    assert got.actions["noc.byte_hop"] == 3 * 32  # each link once: three messages would take 1 + 2 + 3 of them
    assert got.bound.resources["chain"] == got.cycles == 20


def test_the_tile_that_takes_a_sum_may_have_a_part_of_it():
    got = ran(*parts((0, 1, 2, 3), 0))
    assert spans(got, 0) == [("reduce", 0, 8), ("collect", 1, 12 + 3 + 8)]
    assert got.actions["noc.add"] == 3 * 8
    assert got.energy_pj["noc"] == 3 * 8 * ENERGY["noc.add"] + 96 * ENERGY["noc.byte_hop"]


def test_ways_that_meet_only_at_the_end_are_added_there():
    # 0 1 2 / 3 4 5 / 6 7 8: from 3 and 5 to 4, each over a link of its own
    got = ran(*parts((3, 5), 4), layout=("ttt",) * 3)
    assert spans(got, 4) == [("collect", 0, 2 + 3 + 8)]


def test_ways_of_a_mesh_meet_in_columns():
    # 0 1 / 2 3 / 4 5: to 0 from 5 by way of 4 and 2, from 3 by way of 2: they meet at 2
    got = ran(*parts((5, 3), 0), layout=("tt",) * 3)
    assert spans(got, 0) == [("collect", 0, 4 + 3 + 2 + 8)]
    assert got.actions["noc.byte_hop"] == (3 + 1) * 32


def test_a_sum_waits_for_its_last_part():
    # tile 1 copies in 7 to 10 at the earliest
    first, second, third = parts((2, 1), 0, before=(1,))
    got = ran(first, second, third)
    begun = spans(got, 1)[-1][1]
    assert spans(got, 0) == [("collect", 0, begun + 3 + 2 + 8)]
    assert spans(got, 2) == [("reduce", 0, 8)]  # the router keeps what is there


def test_links_behind_a_router_that_waits_are_free_meanwhile():
    # the link from 1 to 0 carries a message of tile 1's before the sum whose part came first
    first, second, third = parts((2, 1), 0)
    send = do("send", view("b", 16), to=(0,), tag=5)
    second = tile(1, send, *second.steps[:-1], buffers=LOCAL)
    first = tile(0, *first.steps[:-1], do("recv", view("b", 16), source=1, tag=5), buffers=LOCAL)
    got = ran(first, second, third)
    assert spans(got, 1) == [("send", 0, 16), ("reduce", 16, 24)]
    assert spans(got, 0)[0] == ("collect", 0, 16 + 3 + 2 + 8)


def test_a_sum_waits_for_a_link_as_other_packets_do():
    # tile 1's message takes the link from 1 to 0 from 0 on for 16 cycles; the sum is at router 1 at 4
    first, second, third = parts((3, 2), 0)
    send = do("send", view("b", 16), to=(0,), tag=5)
    got = ran(first, tile(1, send, buffers=LOCAL), second, third)
    assert spans(got, 0) == [("collect", 0, 16 + 2 + 8)]


@pytest.mark.parametrize(("lanes", "width"), [(1, 16), (2, 16), (8, 4), (1, 4)])
def test_adders_slower_than_links_hold_links_longer(lanes: int, width: int):
    spec = NocSpec(
        flit_bytes=4,
        router_cycles=2,
        link_bytes_per_cycle=width,
        channel_bytes=64,
        reduce=ReduceSpec(lanes=lanes, cycles=0),
    )
    got = ran(*parts((3, 2), 0), noc=spec)
    packet, added = 32 // width, 8 // lanes
    assert spans(got, 0) == [("collect", 0, 6 + max(packet, added))]
    assert spans(got, 3) == [("reduce", 0, packet)]  # nothing is added before it meets another


def test_sums_of_one_channel_come_in_their_order_and_push_back():
    of, times = (2, 1), 5
    sender = [repeat("i", times, do("reduce", A, of=of, to=0))]
    taker = tile(0, LATE, repeat("i", times, do("collect", view("c", 8), of=of)), buffers=LOCAL)
    tiles = taker, tile(1, *sender, buffers=LOCAL), tile(2, *sender, buffers=LOCAL)
    free, tight = ran(*tiles, channel_bytes=1 << 20), ran(*tiles, channel_bytes=1)
    ends = [end for name, _, end in spans(tight, 0) if name == "collect"]
    left = [end for _, _, end in spans(tight, 1)]
    # a channel of one byte holds one message: the next part leaves when that is taken
    assert left[1:] == [end + 8 for end in ends[:-1]]
    assert tight.stalls["channel"] > 0 == free.stalls["channel"]
    assert [end for name, _, end in spans(free, 0) if name == "collect"] == [7 + 8 * (n + 1) for n in range(times)]


def test_sums_across_chips():
    # two chips of two tiles: 3 → 2 within a chip, 2 → 1 over the link between (5 cycles, a byte a cycle), 1 → 0
    machine = chips(("tt",), 2)
    got = ran(*parts((3, 2, 1), 0), machine=machine)
    assert spans(got, 0) == [("collect", 0, 2 + 3 + 5 + 3 + 2 + 32)]
    assert got.actions["noc.byte_hop"] == 2 * 32
    assert got.actions["link.byte"] == 32


def test_the_tree_is_the_union_of_the_ways():
    machine = chip(("tttt",) * 4)
    for of, to in (((0, 3, 12, 15, 9), 6), ((6, 5), 6), (tuple(range(16)), 10), ((0, 1), 15)):
        tree = noc.meeting(machine, of, to)
        union = {link for t in of for link in noc.route(machine, t, to)}
        assert sorted(link for part in tree.fresh for link in part) == sorted(union)
        assert sum(tree.inputs) == len(of) + len(union)  # every part and every link ends in a router


# --- values ---------------------------------------------------------------------------------------


def added(turns: int, of: tuple[int, ...], to: int, element: Element = Q32) -> Program:
    """In every turn the tiles load a row of theirs; the sum is stored."""
    at = Affine(0, (("i", 8),))
    local = buffers(("v", element, (8,)), ("s", element, (8,)))
    tiles = []
    for n in sorted({*of, to}):
        body = []
        if n in of:
            body += [
                do("load", view("v", 8), view(f"x{n}", 8, offset=at)),
                do("reduce", view("v", 8), of=of, to=to, tag=0),
            ]
        if n == to:
            body += [do("collect", view("s", 8), of=of, tag=0), do("store", view("y", 8, offset=at), view("s", 8))]
        tiles.append(tile(n, repeat("i", turns, *body), buffers=local))
    g = [GlobalBuffer(f"x{n}", element, (turns, 8)) for n in of] + [GlobalBuffer("y", element, (turns, 8))]
    return program(*tiles, globals=g, inputs=[f"x{n}" for n in of], outputs=["y"])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
@pytest.mark.parametrize(("of", "to"), [((1, 2, 3), 0), ((3, 0, 2), 3)])
def test_sums_are_those_of_the_parts(of: tuple[int, ...], to: int, order: tuple[int, ...]):
    rng = np.random.default_rng(3)
    x: dict[str, NDArray[np.generic]] = {f"x{n}": rng.integers(-(2**31), 2**31, (9, 8)).astype(np.int32) for n in of}
    p = added(9, of, to)
    present = tuple(n for n in order if n in {*of, to})
    got, _ = run_values(p, {}, x, chip(), numerics="integer", order=present)
    due = np.sum([v.astype(np.int64) for v in x.values()], axis=0).astype(np.int32)  # overflow wraps
    np.testing.assert_array_equal(got["y"], due)


def test_sums_of_floats_are_taken_in_the_order_that_is_written():
    """In ``float`` numerics q32 holds floats."""
    x = {f"x{n}": np.full((2, 8), v, np.int32) for n, v in ((1, 10**8), (2, -(10**8)), (3, 1))}
    first, _ = run_values(added(2, (1, 2, 3), 0), {}, x, chip(), numerics="float")
    last, _ = run_values(added(2, (1, 3, 2), 0), {}, x, chip(), numerics="float")
    assert first["y"][0, 0] == 1.0
    assert last["y"][0, 0] == 0.0


# --- what fails -----------------------------------------------------------------------------------


def test_a_sum_without_one_of_its_parts_is_a_deadlock_in_both_engines():
    first, second, _ = parts((2, 1), 0)
    p = program(first, second, tile(2, buffers=LOCAL))
    message = r"tile 0, instruction 1: collect .* waits for parts of a sum of the tiles \(2, 1\) with tag 0"
    with pytest.raises(CimcError, match=message) as caught:
        run_timing(p, chip(("tttt",)))
    assert caught.value.exit == 4
    with pytest.raises(CimcError, match=message):
        run_values(p, {}, {}, chip())
    with pytest.raises(CimcError, match=message):
        Reference(p, chip(("tttt",))).run()


def test_tiles_that_wait_for_each_others_sums_are_a_deadlock():
    a = tile(0, do("collect", C, of=(1, 2), tag=1), do("reduce", A, of=(0, 2), to=1, tag=2), buffers=LOCAL)
    b = tile(1, do("collect", C, of=(0, 2), tag=2), do("reduce", A, of=(1, 2), to=0, tag=1), buffers=LOCAL)
    c = tile(2, do("reduce", A, of=(1, 2), to=0, tag=1), do("reduce", A, of=(0, 2), to=1, tag=2), buffers=LOCAL)
    # timing issues behind a collect: only a hazard or a wait makes the parts come after it
    stuck = [tile(n, t.steps[0], do("copy", A, C), *t.steps[1:-1], buffers=LOCAL) for n, t in enumerate((a, b))]
    with pytest.raises(CimcError, match="2 of 3 tiles"):
        run_timing(program(*stuck, c), chip(("tttt",)))
    with pytest.raises(CimcError, match="2 of 3 tiles"):
        run_values(program(*stuck, c), {}, {}, chip())


def test_a_part_of_another_size_is_told():
    first, second, third = parts((2, 1), 0)
    third = tile(2, do("reduce", view("a", 4), of=(2, 1), to=0), buffers=LOCAL)
    p = program(first, second, third)
    with pytest.raises(CimcError, match="the message from tile 2 has 16 bytes, the view 32"):
        run_timing(p, chip(("tttt",)))
    with pytest.raises(CimcError, match="the message from tile 2 has 16 bytes, the view 32"):
        Reference(p, chip(("tttt",))).run()
    with pytest.raises(CimcError, match="holds 4 × int32, the view 8"):
        run_values(p, {}, {}, chip(), numerics="integer")
