"""Where rows wait that are needed much later: against what can be told by hand."""

from __future__ import annotations

from cimc.arch.load import load
from cimc.codegen.park import LEAST, Park

CHIP = load("sram-digital", ("layout=3x6",)).spec


def test_only_rows_that_wait_long_for_a_tile_without_room_wait_elsewhere() -> None:
    park = Park({1: 100}, CHIP)
    assert park.pays(0, LEAST)
    assert not park.pays(0, LEAST - 1)
    assert not park.pays(1, LEAST)
    assert not Park({}, CHIP).pays(0, LEAST)


def test_rows_stay_where_they_were_made_if_all_of_them_have_room() -> None:
    """A buffer that is kept already takes nothing more; nothing is taken if one of several has no room."""
    park = Park({1: 100, 2: 30}, CHIP)
    assert not park.keep({(1, "a"): 60, (2, "b"): 40})
    assert not park.keep({(1, "a"): 60, (3, "b"): 1})
    assert park.left == {1: 100, 2: 30}
    assert park.keep({(1, "a"): 60, (2, "b"): 30})
    assert park.keep({(1, "a"): 60})
    assert park.left == {1: 40, 2: 0}


def test_a_stop_is_the_nearest_with_room() -> None:
    assert Park({1: 400, 2: 1000, 5: 1000}, CHIP).stops(0, 100, 5) == [(2, 0, 100)]


def test_columns_are_cut_as_little_as_need_be() -> None:
    park = Park({1: 200, 2: 150, 8: 150}, CHIP)
    assert park.stops(0, 100, 4) == [(1, 0, 34), (2, 34, 34), (8, 68, 32)]
    assert park.left == {1: 64, 2: 14, 8: 22}
    assert park.stops(0, 100, 4) == []
