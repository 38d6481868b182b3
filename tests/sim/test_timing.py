"""Every rule of the timing model, pinned by a closed form on the tiny chip (see chips.py for its numbers).

Vector: 1 + ceil(n / 4). Special: 3 + ceil(n / 2). MVM of int8 rows: one interval is 8 bits · 8 columns a converter = 64
cycles, fill 64 + 10. Links: 4 bytes a cycle, 2 cycles a hop. Memory: 8 bytes a cycle, 20 cycles later."""

from __future__ import annotations

import io
import json

import pytest

from cimc.errors import CimcError
from cimc.isa.operands import Affine, Element
from cimc.isa.program import GlobalBuffer, Param
from cimc.report.trace import write_trace
from cimc.sim.reference import WINDOW
from cimc.sim.result import Timing
from cimc.sim.timing import run_timing
from tests.sim.chips import ENERGY, buffers, chip, chips, do, matrix, program, repeat, tile, view

F32, Q8, Q32 = Element.F32, Element.Q8, Element.Q32
G = GlobalBuffer("g", F32, (64,))
LOCAL = buffers(("a", F32, (64,)), ("b", F32, (64,)), ("c", F32, (64,)), ("q", Q8, (8, 8)), ("r", Q32, (8, 8)))
A, B, C = view("a", 8), view("b", 8), view("c", 8)
VECTOR = 1 + 2  # a vector instruction on 8 elements
SPECIAL = 3 + 4


def spans(timing: Timing, tile: int = 0) -> list[tuple[str, int, int]]:
    """(mnemonic, start, end) of a tile, by start."""
    return sorted(
        ((e.mnemonic, e.start, e.end) for e in timing.events if e.tile == tile and e.mnemonic != "halt"),
        key=lambda e: (e[1], e[2]),
    )


def times(*steps, machine=None, matrices=(), **others):
    """The spans of one tile that runs alone."""
    p = program(tile(0, *steps, buffers=LOCAL, matrices=matrices), globals=[G])
    return spans(run_timing(p, machine or chip(), trace=True, **others))


def test_units_run_in_parallel_and_issue_takes_a_cycle():
    assert times(do("fill", A, value=0.0), do("exp", B, C)) == [("fill", 0, VECTOR), ("exp", 1, 1 + SPECIAL)]


def test_a_unit_works_off_its_instructions_in_order():
    assert times(do("fill", A, value=0.0), do("fill", B, value=0.0)) == [("fill", 0, 3), ("fill", 3, 6)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (do("abs", A, B), do("exp", C, A)),  # read after write
        (do("abs", A, B), do("exp", B, C)),  # write after read
        (do("abs", A, B), do("exp", A, C)),  # write after write
    ],
    ids=["RAW", "WAR", "WAW"],
)
def test_hazards_wait_for_the_earlier_end(first, second):
    assert times(first, second) == [("abs", 0, 3), ("exp", 3, 3 + SPECIAL)]


def test_two_reads_do_not_wait():
    assert times(do("abs", A, B), do("exp", C, B))[1] == ("exp", 1, 8)


def test_ranges_that_touch_are_no_hazard_and_that_overlap_by_a_byte_are():
    first = do("abs", view("a", 8), B)
    assert times(first, do("exp", C, view("a", 8, offset=8)))[1][1] == 1
    assert times(first, do("exp", C, view("a", 8, offset=7)))[1][1] == 3


def test_a_strided_view_counts_by_its_bounding_range():
    column = view("a", 4, offset=0, strides=(8,))  # elements 0, 8, 16, 24
    between = view("a", 4, offset=1)
    assert times(do("fill", column, value=0.0), do("exp", between, B))[1][1] == 2


def test_mvm_rows_are_pipelined():
    def mvm(rows: int):
        return times(do("mvm", view("r", rows, 8), "W", view("q", rows, 8)), matrices=[matrix("W", 8, 8)])[0]

    assert mvm(1) == ("mvm", 0, 64 + 10)
    assert mvm(4) == ("mvm", 0, 64 + 10 + 3 * 64)


def test_every_matrix_is_a_unit_and_accumulation_is_not_ordered():
    two = [matrix("W", 8, 8, core=0), matrix("V", 8, 8, core=1)]
    r, q = view("r", 1, 8), view("q", 1, 8)

    def pair(first: int, second: int):
        steps = (do("mvm", r, "W", q, accumulate=first), do("mvm", r, "V", q, accumulate=second))
        return [start for _, start, _ in times(*steps, matrices=two)]

    assert pair(1, 1) == [0, 1]
    assert pair(0, 1) == [0, 74]
    same = (do("mvm", r, "W", q, accumulate=1), do("mvm", r, "W", q, accumulate=1))
    assert [start for _, start, _ in times(*same, matrices=two)] == [0, 64]


def test_matmul_loads_blocks_and_streams_rows():
    y, a, b = view("a", 3, 5), view("b", 3, 6), view("c", 6, 5)
    # k 6 = 4 + 2, n 5 = 4 + 1: blocks of 16, 4, 8, 2 bytes at 4 a cycle, and 3 rows through each
    assert times(do("matmul", y, a, b)) == [("matmul", 0, 2 + (4 + 3) + (1 + 3) + (2 + 3) + (1 + 3))]


def test_repeats_cost_nothing_and_offsets_move():
    at = Affine(0, (("i", 8),))
    got = times(repeat("i", 3, do("fill", view("a", 8, offset=at), value=0.0)), do("exp", C, view("a", 8, offset=16)))
    assert got == [("fill", 0, 3), ("fill", 3, 6), ("fill", 6, 9), ("exp", 9, 16)]


def test_extents_that_grow_with_a_repeat_and_with_a_parameter():
    t = tile(
        0,
        repeat("i", Affine(1, (("pos", 1),)), do("fill", view("a", Affine(4, (("i", 4),)), strides=(1,)), value=0.0)),
        buffers=LOCAL,
    )
    p = program(t, params=[Param("pos", 0, 3)])
    for pos in range(4):
        got = run_timing(p, chip(), param_values={"pos": pos})
        assert got.cycles == sum(1 + i + 1 for i in range(pos + 1))
        assert got.actions["vector.alu"] == sum(4 * (i + 1) for i in range(pos + 1))


def test_the_window_holds_back_what_is_far_ahead():
    fills = [do("fill", view("a", 1, offset=i), value=0.0) for i in range(WINDOW)]  # 2 cycles each, one after another
    got = times(*fills, do("exp", C, view("b", 8)))
    assert next(e for e in got if e[0] == "exp")[1] == 64  # the window is full until the first one ends: no delay here
    slow = do("exp", view("b", 64), view("b", 64))
    got = times(slow, *fills[1:], do("matmul", view("c", 1, 1), view("c", 1, 1, offset=8), view("c", 1, 1, offset=9)))
    assert next(e for e in got if e[0] == "matmul")[1] == 64
    long = do("exp", view("b", 512, strides=(0,)), view("b", 512, strides=(0,)))  # 3 + 256 cycles
    got = times(long, *fills[1:], do("matmul", view("c", 1, 1), view("c", 1, 1, offset=8), view("c", 1, 1, offset=9)))
    assert next(e for e in got if e[0] == "matmul")[1] == 259


# --- messages -------------------------------------------------------------------------------------


def exchange(*tiles, layout=("tttt",), **changes) -> Timing:
    return run_timing(program(*tiles, globals=[G]), chip(layout, **changes), trace=True)


@pytest.mark.parametrize(("hops", "elements"), [(1, 1), (1, 8), (3, 8)])
def test_a_message_takes_its_hops_and_its_length(hops: int, elements: int):
    v = view("a", elements)
    a = tile(0, do("send", v, to=(hops,)), buffers=LOCAL)
    b = tile(hops, do("recv", v, source=0), buffers=LOCAL)
    got = exchange(a, b)
    assert spans(got) == [("send", 0, elements)]  # 4 bytes an element and a cycle
    assert spans(got, hops) == [("recv", 0, 2 * hops + elements)]
    assert got.actions["noc.byte_hop"] == 4 * elements * hops


def test_a_recv_that_comes_late_only_copies():
    a = tile(0, do("send", A, to=(1,)), buffers=LOCAL)
    b = tile(1, do("exp", B, C), do("recv", B, source=0), buffers=LOCAL)
    assert spans(exchange(a, b), 1)[1] == ("recv", 7, 7 + 8)


def test_a_message_to_itself_uses_no_link():
    t = tile(0, do("send", A, to=(0,)), do("recv", B, source=0), buffers=LOCAL)
    got = exchange(t)
    assert spans(got) == [("send", 0, 8), ("recv", 1, 9)]
    assert "noc.byte_hop" not in got.actions


def test_two_packets_take_turns_on_a_link():
    # Both reach tile 3 over the link from 2 to 3. Of two that leave in the same cycle, tile 0's takes its way first:
    # its header enters that link at 4, the tail leaves it at 12; only then tile 2's may.
    def far(n: int):
        return tile(n, do("send", A, to=(3,)), buffers=LOCAL)

    d = tile(3, do("recv", A, source=0), do("recv", B, source=2), buffers=LOCAL)
    got = exchange(far(0), far(2), d)
    assert spans(got, 3) == [("recv", 0, 6 + 8), ("recv", 14, 12 + 2 + 8)]
    assert spans(got, 2) == [("send", 0, 12 + 8)]


def test_a_multicast_uses_shared_links_once():
    a = tile(0, do("send", A, to=(2, 3)), buffers=LOCAL)
    rest = [tile(n, do("recv", A, source=0), buffers=LOCAL) for n in (2, 3)]
    got = exchange(a, *rest)
    assert spans(got, 2) == [("recv", 0, 4 + 8)]
    assert spans(got, 3) == [("recv", 0, 6 + 8)]
    assert got.actions["noc.byte_hop"] == 3 * 32


def test_ways_go_along_the_row_first():
    # 0 1 / 2 3: from 0 to 3 by way of 1, so that it shares the link 1 → 3 with what 1 sends there
    a = tile(0, do("send", A, to=(3,)), buffers=LOCAL)
    for other, end in ((1, 2 + 8 + 8), (2, 8)):
        b = tile(other, do("send", A, to=(3,)), buffers=LOCAL)
        d = tile(3, do("recv", A, source=0), do("recv", B, source=other), buffers=LOCAL)
        assert spans(exchange(a, b, d, layout=("tt", "tt")), other) == [("send", 0, end)]


def test_a_full_channel_holds_the_send_and_its_port():
    # 32 bytes each, 64 in the channel: the third waits until the first recv has ended
    a = tile(0, *[do("send", A, to=(1,))] * 3, do("fill", B, value=0.0), buffers=LOCAL)
    b = tile(1, do("exp", view("c", 64), view("c", 64)), do("recv", view("c", 8), source=0), buffers=LOCAL)
    rest = [do("recv", B, source=0), do("recv", B, source=0)]
    b = tile(1, *b.steps[:2], *rest, buffers=LOCAL)
    got = exchange(a, b, channel_bytes=64)
    first = 3 + 32 + 8  # the recv waits for exp, then copies
    assert spans(got) == [("send", 0, 8), ("fill", 3, 6), ("send", 8, 16), ("send", 16, first + 8)]
    assert got.stalls["channel"] == first - 16
    assert exchange(a, b, channel_bytes=96).stalls["channel"] == 0
    # a message larger than the channel still enters an empty one
    assert spans(exchange(a, b, channel_bytes=1))[2] == ("send", 8, first + 8)


def test_signal_waits_for_everything_and_wait_holds_everything():
    a = tile(0, do("exp", A, B), do("signal", to=(1,)), do("fill", C, value=0.0), buffers=LOCAL)
    b = tile(1, do("fill", A, value=0.0), do("wait", source=0), do("fill", B, value=0.0), buffers=LOCAL)
    got = exchange(a, b)
    assert spans(got) == [("exp", 0, 7), ("fill", 2, 5), ("signal", 7, 8)]
    assert spans(got, 1) == [("fill", 0, 3), ("wait", 1, 7 + 2 + 1), ("fill", 10, 13)]


# --- memory and host ------------------------------------------------------------------------------


def test_a_load_is_request_queue_latency_and_response():
    load = do("load", A, view("g", 8))
    near = 1 + 4 + 20 + 8  # request, 32 bytes at 8 a cycle, latency, response
    assert times(load) == [("load", 0, near)]
    got = run_timing(program(tile(2, load, buffers=LOCAL), globals=[G]), chip(("ptt",), memory_tile=False), trace=True)
    assert spans(got, 2) == [("load", 0, near + 2 * 2 * 2)]
    assert got.actions["noc.byte_hop"] == 32 * 2
    assert times(do("store", view("g", 8), A)) == [("store", 0, 8 + 4 + 20 + 1)]


def test_memory_is_one_queue_and_a_tile_may_have_several_accesses_under_way():
    load = do("load", A, view("g", 8))
    got = exchange(tile(0, load, do("load", B, view("g", 8)), buffers=LOCAL), tile(1, load, buffers=LOCAL))
    # The second request leaves a cycle after the first, and is served behind those of both tiles.
    assert spans(got) == [("load", 0, 33), ("load", 1, 33 + 8)]
    assert spans(got, 1) == [("load", 0, 33 + 4)]
    assert got.stalls["memory"] == 4 + 7


def test_gather_is_billed_for_the_rows_it_reads():
    index = buffers(("i", Element.I64, (2,)), ("y", F32, (2, 8)))
    t = tile(0, do("gather", view("y", 2, 8), view("g", 8, 8), view("i", 2)), buffers=index)
    got = run_timing(program(t, globals=[G]), chip(), trace=True)
    assert spans(got) == [("gather", 0, 1 + 8 + 20 + 16)]
    assert got.actions["memory.read"] == 64


def test_the_host_is_shared_and_keeps_the_order_of_a_tiles_accesses():
    call = do("host", view("g", 8), view("g", 8, offset=8), call="h")
    got = exchange(tile(0, do("load", A, view("g", 8)), call, buffers=LOCAL), tile(1, call, buffers=LOCAL))
    one = 100 + 32  # launch, 64 bytes at 2 a ns
    assert spans(got, 1) == [("host", 0, one)]
    assert spans(got)[1] == ("host", 33, 2 * one)
    assert got.host_cycles == 2 * one


# --- resident buffers -----------------------------------------------------------------------------

H = GlobalBuffer("h", F32, (64,), tile=1, address=1024)
SERVED = 8 + 2  # 32 bytes at 4 a cycle, and a router's latency


def reach(*tiles, layout=("tttt",), **changes) -> Timing:
    return run_timing(program(*tiles, globals=[G, H]), chip(layout, **changes), trace=True)


@pytest.mark.parametrize(("tile_number", "hops"), [(0, 1), (2, 1), (3, 2)])
def test_an_access_to_a_resident_buffer_goes_to_its_home_and_back(tile_number: int, hops: int):
    got = reach(tile(tile_number, do("load", A, view("h", 8)), buffers=LOCAL))
    assert spans(got, tile_number) == [("load", 0, (2 * hops + 1) + SERVED + (2 * hops + 8))]
    assert got.actions == {"noc.byte_hop": 32 * hops, "buffer.read_byte": 32, "buffer.write_byte": 32}
    stored = reach(tile(tile_number, do("store", view("h", 8), A), buffers=LOCAL))
    assert spans(stored, tile_number) == [("store", 0, (2 * hops + 8) + SERVED + (2 * hops + 1))]
    assert stored.actions == got.actions


def test_a_resident_buffer_at_home_needs_no_link():
    got = reach(tile(1, do("load", A, view("h", 8)), do("store", view("h", 8), B), buffers=LOCAL))
    assert spans(got, 1) == [("load", 0, SERVED), ("store", 1, 8 + SERVED)]
    assert "noc.byte_hop" not in got.actions


def test_a_gather_from_a_resident_buffer_moves_the_rows_it_takes():
    index = buffers(("i", Element.I64, (2,)), ("y", F32, (2, 8)))
    t = tile(0, do("gather", view("y", 2, 8), view("h", 8, 8), view("i", 2)), buffers=index)
    got = reach(t)
    assert spans(got) == [("gather", 0, 3 + (16 + 2) + (2 + 16))]
    assert got.traffic_bytes["remote_buffer"] == 64


def test_a_home_serves_one_access_at_a_time_and_leaves_global_memory_alone():
    # From both neighbours of the home in the same cycle: the one with the lower number is served first.
    a, c = (tile(n, do("load", A, view("h", 8)), buffers=LOCAL) for n in (0, 2))
    b = tile(3, do("load", A, view("g", 8)), buffers=LOCAL)
    got = reach(a, b, c)
    assert spans(got, 0) == [("load", 0, 3 + SERVED + 10)]
    assert spans(got, 2) == [("load", 0, 3 + 8 + SERVED + 10)]
    assert spans(got, 3) == [("load", 0, 33)]  # as if it were alone
    assert got.stalls["memory"] == 8
    assert got.utilization["remote_buffer"] == 16 / got.cycles
    assert got.utilization["global_memory"] == 4 / got.cycles


def test_packets_of_resident_buffers_contend_for_links():
    # The home's port is not used; its answer to tile 0 and a message from it to tile 0 share the link.
    a = tile(0, do("load", A, view("h", 8)), do("recv", B, source=1), buffers=LOCAL)
    fill = [do("fill", C, value=0.0)] * 4  # the message leaves at 12, the answer at 13
    b = tile(1, *fill, do("send", C, to=(0,)), buffers=LOCAL)
    got = reach(a, b)
    assert spans(got, 1)[-1] == ("send", 12, 20)
    assert spans(got)[0] == ("load", 0, 20 + 2 + 8)


def test_accounts_tell_resident_buffers_from_global_memory():
    t = tile(0, do("load", A, view("h", 8), origin="/x"), do("store", view("g", 4), view("a", 4)), buffers=LOCAL)
    got = reach(t)
    assert got.traffic_bytes == {
        "core_registers": 0, "local_buffer": 32 + 16, "remote_buffer": 32, "noc": 32, "global_memory": 16, "host": 0,
    }  # fmt: skip
    x = got.layers["/x"]
    assert x.energy_pj == {"buffer": 32 * (ENERGY["buffer.read_byte"] + ENERGY["buffer.write_byte"]), "noc": 16.0}
    assert got.bound.resources["remote_buffer"] == 8 // 4  # its queue's cycles over the chip's four tiles
    loaded = spans(got)[0][2]  # the store reads what the load wrote
    assert got.bound.resources["global_memory"] == loaded + 2 + 20


def test_a_host_call_on_a_resident_buffer_is_one_on_global_memory():
    call = do("host", view("h", 8), view("g", 8), call="h")
    got = reach(tile(0, call, buffers=LOCAL))
    assert spans(got) == [("host", 0, 132)]
    assert got.traffic_bytes["remote_buffer"] == 0


# --- accounts -------------------------------------------------------------------------------------


# --- several chips --------------------------------------------------------------------------------


def across(*tiles, layout=("tt",), **changes) -> Timing:
    return run_timing(program(*tiles, globals=[G]), chips(layout, 2, **changes), trace=True)


@pytest.mark.parametrize(
    ("source", "to", "left", "arrival", "hops"),
    # 32 bytes: 8 cycles on a link within a chip, 32 on the one between them; headers take 2 and 5
    [(0, 3, 8, 2 + 5 + 2 + 32, 2), (1, 2, 32, 5 + 32, 0), (3, 1, 8, 2 + 5 + 32, 1), (0, 1, 8, 2 + 8, 1)],
)
def test_a_message_to_another_chip_takes_the_link_between_them(source, to, left, arrival, hops):
    a = tile(source, do("send", A, to=(to,)), buffers=LOCAL)
    b = tile(to, do("recv", A, source=source), buffers=LOCAL)
    got = across(a, b)
    assert spans(got, source) == [("send", 0, left)]
    assert spans(got, to) == [("recv", 0, arrival)]
    crossed = 32 if source // 2 != to // 2 else 0
    assert got.actions.get("link.byte", 0) == crossed
    assert got.actions.get("noc.byte_hop", 0) == 32 * hops
    assert got.energy_pj.get("link", 0.0) == crossed * ENERGY["link.byte"]
    assert got.traffic_bytes["chip_links"] == crossed
    assert got.stalls["link"] == 0


def test_all_rows_share_the_link_between_chips_one_way():
    # 0 | 1 over 2 | 3
    send = [tile(n, do("send", A, to=(n + 1,)), buffers=LOCAL) for n in (0, 2)]
    recv = [tile(n, do("recv", A, source=n - 1), buffers=LOCAL) for n in (1, 3)]
    got = across(*send, *recv, layout=("t", "t"))
    assert spans(got, 1) == [("recv", 0, 5 + 32)]
    assert spans(got, 3) == [("recv", 0, 32 + 5 + 32)]
    assert got.stalls["link"] == 32
    assert got.bound.resources["link"] == 64
    back = [tile(0, do("send", A, to=(1,)), buffers=LOCAL), tile(3, do("send", A, to=(2,)), buffers=LOCAL)]
    there = [tile(1, do("recv", A, source=0), buffers=LOCAL), tile(2, do("recv", A, source=3), buffers=LOCAL)]
    both = across(*back, *there, layout=("t", "t"))
    assert both.cycles == 5 + 32  # the other way is another link
    assert both.bound.resources["link"] == 32


def test_a_chip_reaches_global_memory_through_a_port_of_its_own():
    a = tile(2, do("load", A, view("g", 8)), buffers=LOCAL)  # tile 1 is a port too, and as near as tile 3
    got = across(a, layout=("tp",), memory_tile=False)
    assert got.actions["noc.byte_hop"] == 32
    assert "link.byte" not in got.actions


def test_energy_is_counts_times_unit_energies_and_leakage():
    first = do("add", A, B, C, origin="/first")
    second = do("exp", A, B, origin="/second")
    got = run_timing(program(tile(0, first, second, buffers=LOCAL)), chip())
    e = ENERGY
    assert got.actions == {
        "vector.alu": 8, "special.func": 8, "buffer.read_byte": 3 * 32, "buffer.write_byte": 2 * 32,
    }  # fmt: skip
    assert got.energy_pj["vector"] == 8 * e["vector.alu"]
    assert got.energy_pj["special"] == 8 * e["special.func"]
    assert got.energy_pj["buffer"] == 96 * e["buffer.read_byte"] + 64 * e["buffer.write_byte"]
    assert got.energy_pj["leakage"] == 4 * 0.25 * got.latency_ns  # four tiles of 0.25 mW
    assert list(got.layers) == ["/first", "/second"]
    assert got.layers["/first"].busy_cycles == {"vector": 3}
    assert (got.layers["/second"].first_cycle, got.layers["/second"].last_cycle) == (3, 10)
    assert sum(sum(c.energy_pj.values()) for c in got.layers.values()) + got.energy_pj["leakage"] == sum(
        got.energy_pj.values()
    )
    assert got.utilization == {"vector": 3 / 10, "special": 7 / 10}
    assert got.traffic_bytes["local_buffer"] == 160


def test_a_layer_starts_when_it_works_not_when_it_waits():
    a = tile(0, do("exp", A, C, origin="/first"), do("send", A, to=(1,), origin="/first"), buffers=LOCAL)
    steps = (
        do("wait", source=0, origin="/waits"),
        do("recv", B, source=0, origin="/second"),
        do("wait", source=0, origin="/second"),
    )
    b = tile(1, *steps, do("fill", C, value=0.0, origin="/second"), buffers=LOCAL)
    a = tile(0, do("signal", to=(1,)), *a.steps[:2], do("signal", to=(1,)), buffers=LOCAL)
    got = exchange(a, b)
    arrived = 1 + 7 + 2 + 8  # exp is issued second; a hop, and 32 bytes at 4 a cycle
    assert spans(got, 1)[1] == ("recv", 3, arrived)
    assert list(got.layers) == ["", "/first", "/second"]
    second = got.layers["/second"]
    assert (second.first_cycle, second.last_cycle) == (arrived - 8, spans(got, 1)[-1][2])
    late = tile(1, do("wait", source=0), do("exp", C, C), do("recv", C, source=0, origin="/late"), *b.steps[2:-1],
                buffers=LOCAL)  # fmt: skip
    assert exchange(a, late).layers["/late"].first_cycle == max(3 + 7, arrived - 8)


def test_macs_are_counted_static_and_dynamic():
    t = tile(
        0,
        repeat("i", 3, do("mvm", view("r", 2, 8), "W", view("q", 2, 8))),
        do("matmul", view("a", 3, 5), view("b", 3, 6), view("c", 6, 5)),
        buffers=LOCAL,
        matrices=[matrix("W", 8, 8)],
    )
    assert run_timing(program(t), chip()).macs == {"static": 3 * 2 * 8 * 8, "dynamic": 3 * 6 * 5}


@pytest.mark.parametrize("before", [1, 3, 2000])
def test_global_memory_serves_late_what_depends_on_much(before: int):
    # The load may be early; 32 stores of 4 queue cycles follow a chain of `before` instructions, and one latency the last.
    work = repeat("i", before, do("exp", B, B))
    stores = repeat("j", 32, do("store", view("g", 8), B))
    t = tile(0, do("load", A, view("g", 8)), work, stores, buffers=LOCAL)
    bound = run_timing(program(t, globals=[G]), chip()).bound
    exact = before * SPECIAL + 32 * 4 + 20
    width = 1 << max(0, (before * SPECIAL).bit_length() - 12)  # chains are rounded down to one of 4096 places
    assert exact - width < bound.resources["global_memory"] <= exact


def test_the_bound_names_the_longest_chain():
    got = run_timing(program(tile(0, do("exp", B, A), do("exp", C, B), do("exp", A, A), buffers=LOCAL)), chip())
    assert got.cycles == 3 * SPECIAL
    assert (got.bound.cycles, got.bound.by) == (2 * SPECIAL, "chain")
    assert got.bound.resources["special"] == -(-3 * SPECIAL // 4)  # the chip has four of them


def test_a_deadlock_by_full_channels_is_reported():
    # 0 fills the channel and waits for 1, which waits for 0
    a = tile(0, do("send", A, to=(1,)), do("send", A, to=(1,)), do("signal", to=(1,)), buffers=LOCAL)
    b = tile(1, do("wait", source=0), do("recv", A, source=0), do("recv", A, source=0), buffers=LOCAL)
    with pytest.raises(CimcError) as caught:
        exchange(a, b, channel_bytes=32)
    assert caught.value.exit == 4
    assert "tile 0, instruction 2: send" in caught.value.message
    assert "room in the channel" in caught.value.message
    assert "tile 1, instruction 1: wait" in caught.value.message
    assert exchange(a, b, channel_bytes=64).cycles > 0


def test_a_message_of_another_size_is_reported():
    a = tile(0, do("send", A, to=(1,)), buffers=LOCAL)
    b = tile(1, do("recv", view("a", 4), source=0), buffers=LOCAL)
    with pytest.raises(CimcError, match="32 bytes, the view 16"):
        exchange(a, b)


def test_an_empty_program_takes_no_time():
    got = run_timing(program(tile(0)), chip())
    assert (got.cycles, got.bound.cycles, got.instructions) == (0, 0, 1)


def test_the_trace_is_what_perfetto_reads():
    got = exchange(tile(0, do("exp", A, B, origin="/x"), do("fill", C, value=0.0), buffers=LOCAL))
    stream = io.StringIO()
    write_trace(stream, got.events, clock_ghz=2.0)
    events = json.loads(stream.getvalue())["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    exp = next(e for e in events if e["name"] == "exp")
    assert (exp["ph"], exp["pid"], exp["ts"], exp["dur"]) == ("X", 0, 0, 7 / 2000)
    assert exp["args"]["origin"] == "/x"
    assert names[exp["pid"], exp["tid"]] == "special"
