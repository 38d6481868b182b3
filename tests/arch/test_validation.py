"""The validation suite against published figures: each test holds, or says why not."""

import pytest

from benchmarks.validation import mlp
from benchmarks.validation.__main__ import MACHINES, sections
from benchmarks.validation.figure import Figure, Validation
from cimc.sim.result import Event

# What was published, typed in a second time, so that an edit of the suite cannot move its own target.
PUBLISHED = {
    "ISAAC-CE": {"peak": 41.29, "power efficiency": 627.5, "chip power": 65.8, "chip area": 85.4, "MVM interval": 1600},
    "PUMA": {"MVM latency": 2304, "MVM energy": 43.97, "node power": 62.5, "node area": 90.6, "peak": 52.31},
    "HERMES, 64 cores": {
        "peak, one-phase": 63.1,
        "peak, four-phase": 16.1,
        "efficiency, one-phase": 9.76,
        "efficiency, four-phase": 2.48,
    },
    "NeuRRAM, bit-width sweep": {
        "4-bit in, 6-bit out, 1-phase: throughput": 0.7438677864,
        "8-bit in, 10-bit out, 2-phase: efficiency": 6.437388185,
    },
    "Colonnade (digital SRAM CIM)": {
        "8-bit weights and inputs: energy of a MAC": 1169.653111,
        "8-bit weights and inputs: throughput of a macro": 25.75,
    },
    "X-Former-like hybrid": {"efficiency": 6.72, "ADC share of MVM energy": 0.368},
    "ReTransformer-like": {"efficiency": 467.68},
}


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Validation:
    return MACHINES[request.param]()


def test_what_went_in_comes_out(machine: Validation) -> None:
    for figure in machine.figures:
        if figure.role in ("built", "sums"):
            assert abs(figure.error) < 0.02, figure


def test_tests_hold_or_say_why(machine: Validation) -> None:
    assert any(f.role == "tests" for f in machine.figures)
    for figure in machine.figures:
        assert figure.within or figure.role in ("tests", "conflict"), figure
        assert figure.within or figure.why, figure
        assert figure.role != "conflict" or figure.why, figure


def test_published_figures_are_those_published(machine: Validation) -> None:
    told = {f.what: f.published for f in machine.figures}
    assert PUBLISHED[machine.title].items() <= told.items()


def test_errors_and_table() -> None:
    figure = Figure("x", 4.0, 5.0, "", "tests", "")
    assert figure.error == pytest.approx(0.25)
    assert not figure.within
    page = "\n".join(s.markdown() for s in sections())
    assert "| MVM energy | 43.97 | 43.66 | nJ | -0.7 % | tests | text |" in page
    assert all(f"`{name}`" in page for name in MACHINES)


def by_name(machine: str) -> dict[str, Figure]:
    return {f.what: f for f in MACHINES[machine]().figures}


def test_hermes_within_ten_percent() -> None:
    """133 and 521 ns an MVM and 9.76 and 2.48 TOPS/W, from the single core."""
    found = by_name("hermes")
    for what in ("MVM, one-phase", "MVM, four-phase"):
        assert abs(found[what].error) < 0.03, what
    for what in ("efficiency, one-phase", "efficiency, four-phase"):
        assert abs(found[what].error) < 0.08, what


def test_neurram_sweep_within_ten_percent() -> None:
    """All ten throughputs, and nine of ten efficiencies; the tenth contradicts its own split."""
    found = by_name("neurram")
    throughput = [f for name, f in found.items() if name.endswith("throughput")]
    efficiency = [f for name, f in found.items() if name.endswith("efficiency")]
    assert len(throughput) == len(efficiency) == 10
    assert all(f.within for f in throughput)
    assert [f.what for f in efficiency if not f.within] == ["6-bit in, 8-bit out, 2-phase: efficiency"]


def test_puma_mlp() -> None:
    """7,879 cycles in PUMA's simulator: on equal stages the MVMs take as long, and what is left is explained."""
    shipped, equal, wide = mlp.runs()
    assert equal.split["MVMs"] == wide.split["MVMs"] == 7200
    assert shipped.split["MVMs"] == 4 * 1280
    assert all(sum(run.split.values()) == run.cycles for run in (shipped, equal, wide))
    assert abs(wide.cycles / 7879 - 1) < 0.05
    assert equal.cycles - wide.cycles == pytest.approx(equal.split["messages"] - wide.split["messages"], abs=50)


def test_a_split_gives_each_cycle_once() -> None:
    events = [
        Event(0, "core:W", 10, 20, "mvm", None, 1), Event(0, "vector", 15, 25, "add", None, 2),
        Event(1, "port", 22, 30, "send", None, 3), Event(1, "memory", 0, 12, "load", None, 4),
    ]  # fmt: skip
    assert mlp.split(events) == {"memory": 10, "MVMs": 10, "functions": 5, "messages": 5}


def test_puma_within_two_percent() -> None:
    found = by_name("puma")
    for what in ("MVM latency", "MVM energy", "MVMU power", "core power", "tile power", "node power", "node area"):
        assert abs(found[what].error) < 0.02, what
