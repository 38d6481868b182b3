"""Buffers of 16 bits: half the bytes and link cycles of float32, computed in single precision, rounded as they are written."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cimc.errors import CimcError
from cimc.isa.operands import Affine, Element
from cimc.isa.program import GlobalBuffer, Program
from cimc.isa.verify import verify
from cimc.sim.reference import Reference
from cimc.sim.timing import run_timing
from cimc.sim.values import Prepared, run_values
from tests.sim.chips import ENERGY, buffers, chip, do, program, repeat, tile, view

F32, Q8 = Element.F32, Element.Q8
DTYPES = {Element.QF16: np.dtype(np.float16), Element.QBF16: np.dtype(ml_dtypes.bfloat16)}
I = Affine(0, (("i", 1),))
ROWS = 5
HOP, LINK = 2, 4  # cycles of a router; bytes of a link in a cycle


def message(element: Element, size: int = 12) -> Program:
    """A tile that sends, its neighbour that receives."""
    return program(
        tile(0, do("send", view("a", size), to=(1,), tag=0), buffers=buffers(("a", element, (size,)))),
        tile(1, do("recv", view("a", size), source=0, tag=0), buffers=buffers(("a", element, (size,)))),
    )


@pytest.mark.parametrize("element", list(DTYPES))
def test_a_message_takes_half_the_bytes_cycles_and_energy(element: Element) -> None:
    for kind, size in ((F32, 4), (element, 2)):
        timing = run_timing(message(kind), chip(), trace=True)
        ends = {e.mnemonic: e.end for e in timing.events if e.mnemonic != "halt"}
        cycles = 12 * size // LINK
        assert ends == {"send": cycles, "recv": HOP + cycles}
        assert Reference(message(kind), chip()).run() == timing.cycles
        assert timing.traffic_bytes["noc"] == 12 * size
        assert timing.energy_pj["noc"] == 12 * size * ENERGY["noc.byte_hop"]
        assert timing.traffic_bytes["local_buffer"] == 2 * 12 * size


def rows(element: Element) -> Program:
    """Rows of x plus those of z, sent in 16 bits, the exponential of them plus x as it was in 32, and codes of that."""
    g = [GlobalBuffer(n, F32, (ROWS, 8)) for n in "xzy"]
    near = buffers(("x", F32, (1, 8)), ("z", F32, (1, 8)), ("h", element, (1, 8)))
    far = buffers(
        *(("h", element, (1, 8)), ("e", element, (1, 8)), ("x", F32, (1, 8)), ("q", Q8, (1, 8)), ("s", F32, (1, 1))),
        *(("o", F32, (1, 8)), ("one", F32, (1, 1))),
    )
    at = I * 8
    give = (
        do("load", view("x", 1, 8), view("x", 1, 8, offset=at)),
        do("load", view("z", 1, 8), view("z", 1, 8, offset=at)),
        do("add", view("h", 1, 8), view("x", 1, 8), view("z", 1, 8)),
        do("send", view("h", 1, 8), to=(1,), tag=0),
    )
    take = (
        do("recv", view("h", 1, 8), source=0, tag=0),
        do("exp", view("e", 1, 8), view("h", 1, 8)),
        do("load", view("x", 1, 8), view("x", 1, 8, offset=at)),
        do("add", view("e", 1, 8), view("e", 1, 8), view("x", 1, 8)),
        do("quantize", view("q", 1, 8), view("s", 1, 1), view("e", 1, 8)),
        do("fill", view("one", 1, 1), value=1.0),
        do("cast", view("o", 1, 8), view("q", 1, 8)),
        do("mul", view("o", 1, 8), view("o", 1, 8), view("s", 1, 1)),
        do("store", view("y", 1, 8, offset=at), view("o", 1, 8)),
    )
    return program(
        tile(0, repeat("i", ROWS, *give), buffers=near),
        tile(1, repeat("i", ROWS, *take), buffers=far),
        globals=g,
        inputs=["x", "z"],
        outputs=["y"],
    )


@pytest.mark.parametrize("element", list(DTYPES))
@pytest.mark.parametrize("numerics", ["float", "integer"])
def test_units_compute_in_single_precision_and_round_what_they_write(element: Element, numerics: str) -> None:
    """The first run, those recorded and replayed after it, and NumPy."""
    dtype = np.dtype(np.float32) if numerics == "float" else DTYPES[element]
    prepared, p = Prepared(), rows(element)
    verify(p, chip(), None)
    for seed in range(3):
        x, z = (np.random.default_rng(seed + k).normal(size=(ROWS, 8)).astype(np.float32) for k in (0, 9))
        h = (x + z).astype(dtype)
        e = np.exp(h.astype(np.float32)).astype(dtype)
        e = (e.astype(np.float32) + x).astype(dtype).astype(np.float32)
        scale = np.abs(e).max(axis=-1, keepdims=True) / np.float32(127)
        wanted = e if numerics == "float" else np.rint(e / scale) * scale
        got, _ = run_values(p, {}, {"x": x, "z": z}, chip(), numerics=numerics, prepared=prepared)  # pyright: ignore[reportArgumentType]
        np.testing.assert_array_equal(got["y"], wanted)


@pytest.mark.parametrize(("element", "holds"), [(Element.QF16, "infinity"), (Element.QBF16, "")])
def test_what_f16_cannot_hold_is_found_before_it_becomes_codes(element: Element, holds: str) -> None:
    feeds = {"x": np.full((ROWS, 8), 10.0, np.float32), "z": np.full((ROWS, 8), 2.0, np.float32)}
    if holds:
        with pytest.raises(CimcError, match="the activations to quantise hold infinity") as caught:
            run_values(rows(element), {}, feeds, chip(), numerics="integer")
        assert "--values" in caught.value.render()
    else:
        run_values(rows(element), {}, feeds, chip(), numerics="integer")


def test_elements_of_messages_are_the_same_at_both_ends() -> None:
    good = message(Element.QF16)
    bad = program(good.tiles[0], message(Element.QBF16).tiles[1])
    with pytest.raises(CimcError):
        verify(bad, chip(), None)
