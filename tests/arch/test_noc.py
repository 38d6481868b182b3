"""Ways of many at once are the ways of each."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from tests.sim.chips import chip, chips

MACHINES = {
    "one chip": chip(("ttttt", "tpttt", "ttttp"), memory_tile=False),
    "one column": chip(("p", "t", "t", "p"), memory_tile=False),
    "three chips": chips(("tpt", "ttt"), 3, bytes_per_cycle=1.5, latency=7, memory_tile=False),
}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_ways_of_many_are_the_ways_of_each(machine: ChipSpec) -> None:
    tiles = np.arange(machine.tile_count)
    sources, destinations = (part.ravel() for part in np.meshgrid(tiles, tiles))
    links, lengths = noc.ways(noc.mesh(machine), sources, destinations)
    pieces = np.split(links, np.cumsum(lengths)[:-1])
    pairs = zip(sources.tolist(), destinations.tolist(), strict=True)
    assert [tuple(p.tolist()) for p in pieces] == [noc.route(machine, a, b) for a, b in pairs]


def test_a_way_goes_along_the_row_first() -> None:
    machine = MACHINES["one chip"]  # 5 columns: links 4 · tile + (east 0, west 1, south 2, north 3)
    assert noc.route(machine, 3, 11) == (13, 9, 6, 26)
    assert noc.route(machine, 11, 3) == (44, 48, 55, 35)
    assert noc.route(machine, 7, 7) == ()


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_the_nearest_ports_of_many_are_those_of_each(machine: ChipSpec) -> None:
    ports = noc.memory_ports(machine)
    tiles = np.arange(machine.tile_count)
    found = noc.nearest_of(machine, tiles, np.array(ports))
    assert found.tolist() == [noc.nearest(machine, t, ports) for t in tiles.tolist()]
