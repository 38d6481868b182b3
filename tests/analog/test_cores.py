"""Two cores, one truth: the fast core equals reference.py bit for bit, whatever the configuration and the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cimc.analog import AnalogMatrix, technologies
from cimc.analog.config_keys import read_config
from cimc.analog.kernels import driven, sliced
from cimc.analog.kernels.jit import target
from cimc.analog.reference import reference_mvm

NO_DEADLINE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def weights(draw: st.DrawFn) -> dict[str, object]:
    kind = draw(st.sampled_from(["offset", "differential"]))
    bits = draw(st.sampled_from([3, 4, 6, 8]))
    need = bits if kind == "offset" else bits - 1
    widths: list[int] = []
    while sum(widths) < need:
        widths.append(draw(st.integers(1, 5)))
    widths[-1] -= max(sum(widths) - bits, 0)
    config: dict[str, object] = {"weight_bits": bits, "weight_encoding": kind, "slice_bits": widths}
    if kind == "offset":
        config["offset_subtraction"] = draw(st.sampled_from(["digital", "unit_column"]))
    return config


@st.composite
def converters(draw: st.DrawFn) -> dict[str, object]:
    bits, signed = draw(st.integers(3, 9)), draw(st.booleans())
    if draw(st.booleans()):
        return {"bits": bits, "signed": signed, "adc_rule": draw(st.sampled_from(["MAX", "GRANULAR"]))}
    lsb = draw(st.sampled_from([1, 1, 2, 3, 4, 6, 7, 10, 2.5]))
    extra = draw(st.sampled_from([{}, {}, {"noise_lsb": 0.4}, {"gain": 1.02, "offset_lsb": 0.3, "inl_lsb": 0.5}]))
    return {"bits": bits, "signed": signed, "lsb_units": lsb, **extra}


@st.composite
def devices(draw: st.DrawFn) -> dict[str, object]:
    config: dict[str, object] = {"read_mode": draw(st.sampled_from(["cell", "conversion"]))}
    match draw(st.integers(0, 4)):
        case 0:
            config["technology"] = draw(st.sampled_from(sorted(technologies())))
            config["seconds"] = draw(st.sampled_from([0.0, 100.0, 86400.0]))
            if technologies()[str(config["technology"])].model.thermal and draw(st.booleans()):
                config["temperature_c"] = draw(st.sampled_from([-40.0, 85.0, 250.0]))
        case 1:
            config["programming_error"] = {"model": "NormalIndependent", "sigma": 0.02}
        case 2:
            config["read_noise"] = {"model": "NormalProportional", "sigma": 0.05}
        case _:
            pass
    if draw(st.booleans()):
        config |= {"stuck_off_rate": 0.1, "stuck_on_rate": 0.1}
    return config


REDUNDANT = ({"msb_copies": 3}, {"msb_copies": 2, "msb_combine": "mean"}, {"msb_copies": 3, "msb_combine": "mean"})


@st.composite
def cores(draw: st.DrawFn) -> tuple[AnalogMatrix, np.ndarray]:
    kind = draw(st.sampled_from(["unsigned", "twos_complement", "sign_magnitude", "split"]))
    bits = draw(st.integers(2, 8))
    config = draw(weights()) | draw(devices())
    config |= {"input_bits": bits, "input_encoding": kind, "rows": draw(st.sampled_from([5, 8, 17, 30]))}
    config["dac_bits"] = draw(st.sampled_from([1, 1, 1, 2, bits]))
    if draw(st.integers(0, 9)):
        config["adc"] = draw(converters())
    if not draw(st.integers(0, 2)):
        config |= draw(st.sampled_from(REDUNDANT)) | {"msb_slices": draw(st.integers(1, len(config["slice_bits"])))}
    resolved = read_config(config, grid=draw(st.sampled_from(["fast", "fine"])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few vectors, a few more and many take different kernels.
    inputs, outputs, vectors = draw(st.integers(1, 40)), draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 9, 13]))
    high = (1 << (resolved.weights.bits - 1)) - 1
    codes = rng.integers(-high, high + 1, (inputs, outputs))
    x = rng.integers(resolved.inputs.low, resolved.inputs.high + 1, (vectors, inputs))
    return AnalogMatrix(codes, resolved, seed=draw(st.integers(0, 99)), key=(3, 1)), x


@NO_DEADLINE
@given(cores())
def test_fast_core_equals_reference(case: tuple[AnalogMatrix, np.ndarray]) -> None:
    core, x = case
    clipped = 0
    for call in range(2):  # a second call must see fresh read noise, the same as the reference's
        expected, more = reference_mvm(x, core.cells, core.config, core.streams, call * len(x))
        assert np.array_equal(core.values(x), expected)
        clipped += more
    assert core.counts.saturated == clipped


TABLES = [
    {"weight_encoding": "offset", "input_encoding": "unsigned", "adc": {"bits": 3, "lsb_units": 1}},
    {"weight_encoding": "offset", "input_encoding": "unsigned", "adc": {"bits": 5, "lsb_units": 6}},
    {"weight_encoding": "offset", "input_encoding": "twos_complement", "adc": {"bits": 5, "lsb_units": 3}},
    {"weight_encoding": "offset", "input_encoding": "unsigned", "adc": {"bits": 4, "adc_rule": "MAX"}},
    {"weight_encoding": "differential", "input_encoding": "twos_complement", "adc": {"bits": 3, "signed": True}},
    {"weight_encoding": "differential", "input_encoding": "sign_magnitude",
     "adc": {"bits": 5, "signed": True, "lsb_units": 2}},
    {"weight_encoding": "offset", "programming_error": {"model": "NormalIndependent", "sigma": 0.03},
     "adc": {"bits": 6, "lsb_units": 1}},
    {"weight_encoding": "differential", "input_encoding": "sign_magnitude", "read_mode": "conversion",
     "read_noise": {"model": "NormalIndependent", "sigma": 0.03}, "adc": {"bits": 5, "signed": True, "lsb_units": 2}},
]  # fmt: skip


def machine(monkeypatch: pytest.MonkeyPatch, ternary: bool, width: int = 64) -> None:
    """As if the machine's vectors had at most ``width`` bytes and logic of three bits were there or not."""
    here = target()
    assert here is not None
    if ternary > here.ternary:
        pytest.skip("no logic of three bits on this machine")
    shuffles = tuple(shuffle for shuffle in here.shuffles if shuffle.width <= width)
    for module in (sliced, driven):
        monkeypatch.setattr(module, "target", lambda: replace(here, ternary=ternary, shuffles=shuffles))


@pytest.mark.skipif(target() is None, reason="no byte shuffle on this machine")
@pytest.mark.parametrize("ternary", [True, False])
@pytest.mark.parametrize("cell_bits", [1, 2, 4])
@pytest.mark.parametrize("config", TABLES)
def test_table_kernels_serve_and_agree(
    config: dict[str, object], cell_bits: int, ternary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels run (they are not silently bypassed), for few and for many vectors, over several tiles and blocks."""
    machine(monkeypatch, ternary)
    rng = np.random.default_rng(4)
    core = AnalogMatrix(
        rng.integers(-127, 128, (75, 7)), {"cell_bits": cell_bits, "input_bits": 7, "rows": 25, **config}, seed=2
    )
    assert core.path in ("bits", "tables", "tables and product")
    encoding = core.config.inputs
    x = rng.integers(encoding.low, encoding.high + 1, (70, 75))
    expected = general(core, x)
    first = core.values(x)
    assert np.array_equal(first, expected)
    if core.cells.read_sigma is None:
        assert np.array_equal(core.values(x[:1]), first[:1])
        assert np.array_equal(core.values(x[5:8]), first[5:8])
        assert np.array_equal(core.values(x[:20]), first[:20])


UPRIGHT = [
    {"weight_encoding": "offset", "input_encoding": "unsigned", "adc": {"bits": 5, "lsb_units": 1}},
    {"weight_encoding": "offset", "input_encoding": "unsigned", "adc": {"bits": 3, "lsb_units": 5}},
    {"weight_encoding": "offset", "input_encoding": "unsigned", "adc": {"bits": 1, "lsb_units": 64}},
    {"weight_encoding": "offset", "input_encoding": "twos_complement", "adc": {"bits": 4, "lsb_units": 4}},
    {"weight_encoding": "offset", "input_encoding": "sign_magnitude",
     "adc": {"bits": 5, "signed": True, "lsb_units": 2}},
    {"weight_encoding": "differential", "input_encoding": "unsigned",
     "adc": {"bits": 4, "signed": True, "lsb_units": 3}},
    {"weight_encoding": "differential", "input_encoding": "twos_complement",
     "adc": {"bits": 4, "signed": True, "lsb_units": 6}},
    {"weight_encoding": "differential", "input_encoding": "sign_magnitude",
     "adc": {"bits": 3, "signed": True, "lsb_units": 11}},
    {"weight_encoding": "offset", "offset_subtraction": "unit_column", "slice_bits": [1, 4, 3], "cell_bits": 4,
     "adc": {"bits": 4, "lsb_units": 2, "code_min": 1, "code_max": 12}},
]  # fmt: skip


@pytest.mark.skipif(target() is None, reason="no kernels on this machine")
@pytest.mark.parametrize(("ternary", "width"), [(True, 64), (True, 32), (True, 16), (False, 64), (False, 16)])
@pytest.mark.parametrize("config", UPRIGHT)
@pytest.mark.parametrize("shape", [(1, 1), (75, 7), (83, 35), (64, 150)])
def test_bits_of_columns_agree(
    config: dict[str, object], shape: tuple[int, int], ternary: bool, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One to five vectors and more than are turned together, ragged blocks, partly filled tiles, inputs that drive all
    rows or none; the clipped conversions are counted."""
    machine(monkeypatch, ternary, width)
    rng = np.random.default_rng(shape[1])
    core = AnalogMatrix(rng.integers(-127, 128, shape), {"cell_bits": 2, "rows": 37, **config}, seed=2)
    upright = core._sliced
    if upright is None:
        assert core.path == "product", "served by nothing that is fast"
        return
    encoding = core.config.inputs
    x = rng.integers(encoding.low, encoding.high + 1, (70, shape[0]))
    x[1], x[2], x[3] = 0, encoding.high, encoding.low
    low = 0
    for vectors in (1, 2, 3, 4, 5, 55):
        part = core._checked(x[low : low + vectors])
        low += vectors
        before = core.counts.saturated
        expected = core._by_planes(part, 0)
        clipped = core.counts.saturated - before
        found, counted = upright(part)
        assert np.array_equal(found, expected)
        assert counted == clipped


@pytest.mark.skipif(target() is None, reason="no kernels on this machine")
@pytest.mark.parametrize("config", UPRIGHT)
@pytest.mark.parametrize("cell_bits", [1, 2])
def test_single_vectors_equal_the_reference(config: dict[str, object], cell_bits: int) -> None:
    rng = np.random.default_rng(cell_bits)
    core = AnalogMatrix(rng.integers(-127, 128, (70, 3)), {"cell_bits": cell_bits, "rows": 33, **config})
    x = rng.integers(core.config.inputs.low, core.config.inputs.high + 1, (5, 70))
    expected, clipped = reference_mvm(x, core.cells, core.config, core.streams)
    assert np.array_equal(np.concatenate([core.values(x[v : v + 1]) for v in range(5)]), expected)
    assert core.counts.saturated == clipped
    assert np.array_equal(core.values(x), expected)


NOISY = [
    {"weight_encoding": "offset", "input_encoding": "unsigned", "adc": {"bits": 5, "lsb_units": 1}},
    {"weight_encoding": "offset", "input_encoding": "twos_complement", "adc": {"bits": 3, "lsb_units": 3}},
    {"weight_encoding": "differential", "input_encoding": "twos_complement",
     "adc": {"bits": 4, "signed": True, "lsb_units": 2}},
    {"weight_encoding": "differential", "input_encoding": "sign_magnitude",
     "adc": {"bits": 3, "signed": True, "lsb_units": 2.5}},
    {"weight_encoding": "offset", "input_encoding": "sign_magnitude",
     "adc": {"bits": 3, "signed": True, "lsb_units": 2.7}},
]  # fmt: skip
READ = {"read_noise": {"model": "NormalProportional", "sigma": 0.05}, "read_mode": "conversion"}


@pytest.mark.skipif(target() is None, reason="no kernels on this machine")
@pytest.mark.parametrize("more", [{}, READ])
@pytest.mark.parametrize("config", NOISY)
@pytest.mark.parametrize("shape", [(75, 7), (64, 33), (101, 170)])
@pytest.mark.parametrize("vectors", [1, 2, 5, 35])
@pytest.mark.parametrize("ternary", [True, False])
def test_noisy_cells_need_no_tables(
    config: dict[str, object],
    more: dict[str, object],
    shape: tuple[int, int],
    vectors: int,
    ternary: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernels of noisy cells agree with the general path, over odd row blocks and ragged tiles, for fewer and more
    vectors than they take at once, clipped conversions included. Only single vectors keep something beside the cells."""
    machine(monkeypatch, ternary, 64 if ternary else 16)
    rng = np.random.default_rng(4)
    spread = {"programming_error": {"model": "NormalIndependent", "sigma": 0.03}}
    core = AnalogMatrix(
        rng.integers(-127, 128, shape), {"cell_bits": 2, "rows": 25, **config, **spread, **more}, seed=2
    )
    encoding = core.config.inputs
    x = rng.integers(encoding.low, encoding.high + 1, (vectors, shape[0]))
    x[0, :30] = 0
    expected = general(core, x)
    clipped = core.counts.saturated
    before = core.nbytes
    assert np.array_equal(core.values(x), expected)
    assert core.counts.saturated - clipped == clipped > 0
    assert core.path == "tables"
    assert (core.nbytes > before) == (vectors <= (1 if more or config["adc"]["lsb_units"] == 2.7 else 3))


COPIES = [
    {"msb_copies": 3, "stuck_off_rate": 0.1, "adc": {"bits": 5, "lsb_units": 1}},
    {"msb_copies": 3, "msb_slices": 4, "stuck_on_rate": 0.1, "adc": {"bits": 4, "lsb_units": 2}},
    {"msb_copies": 5, "msb_slices": 2, **READ, "adc": {"bits": 5, "lsb_units": 1}},
    {"msb_copies": 3, "msb_combine": "mean", **READ, "adc": {"bits": 4, "lsb_units": 2.5}},
    {"msb_copies": 2, "msb_combine": "mean", "msb_slices": 2, "technology": "reram", "weight_encoding": "differential",
     "input_encoding": "sign_magnitude", "adc": {"bits": 5, "signed": True, "lsb_units": 1}},
]  # fmt: skip


@pytest.mark.skipif(target() is None, reason="no kernels on this machine")
@pytest.mark.parametrize("config", COPIES)
@pytest.mark.parametrize("vectors", [2, 35])
def test_copies_of_top_slices_are_served_by_kernels(config: dict[str, object], vectors: int) -> None:
    rng = np.random.default_rng(4)
    core = AnalogMatrix(rng.integers(-127, 128, (101, 70)), {"cell_bits": 2, "rows": 25, **config}, seed=2)
    assert core.path == "tables"
    encoding = core.config.inputs
    x = rng.integers(encoding.low, encoding.high + 1, (vectors, 101))
    expected = general(core, x)
    clipped = core.counts.saturated
    assert np.array_equal(core.values(x), expected)
    assert core.counts.saturated - clipped == clipped > 0


def general(core: AnalogMatrix, x: np.ndarray) -> np.ndarray:
    """The same cells through the general path, GEMM and converter in numpy."""
    return core._finish(core._by_planes(x, 0), x)


def test_results_do_not_depend_on_how_vectors_are_batched() -> None:
    rng = np.random.default_rng(0)
    codes, x = rng.integers(-127, 128, (40, 6)), rng.integers(0, 256, (20, 40))
    config = {"rows": 16, "technology": "pcm", "adc": {"bits": 7}, "read_mode": "conversion",
              "read_noise": {"model": "NormalIndependent", "sigma": 0.05}}  # fmt: skip
    whole = AnalogMatrix(codes, config, seed=3).mvm(x)
    core = AnalogMatrix(codes, config, seed=3)
    parts = np.concatenate([core.mvm(x[:4]), core.mvm(x[4:5]), core.mvm(x[5:])])
    assert np.array_equal(whole, parts)
    assert not np.array_equal(whole, core.mvm(x)), "a second read must draw new noise"


def test_cells_depend_on_seed_tile_and_core() -> None:
    codes = np.full((8, 2), 77)
    config = {"technology": "pcm", "cell_bits": 2}
    plus = [
        AnalogMatrix(codes, config, seed=seed, key=key).cells.plus
        for seed, key in ((1, (0, 0)), (1, (0, 0)), (2, (0, 0)), (1, (1, 0)), (1, (0, 1)))
    ]
    assert np.array_equal(plus[0], plus[1])
    assert not any(np.array_equal(plus[0], other) for other in plus[2:])


def test_counts() -> None:
    core = AnalogMatrix(np.full((20, 3), 127), {"rows": 8, "cell_bits": 2, "adc": {"bits": 2}})
    core.mvm(np.full((4, 20), 255))
    # 4 vectors, 8 planes, 4 slices, 3 row blocks, 3 columns; every one of them sums more than 3 levels.
    assert core.counts.conversions == 4 * 8 * 4 * 3 * 3
    assert core.counts.saturated == core.counts.conversions
    assert core.counts.crossbar_reads == 4 * 8 * 4 * 3
    assert core.counts.cell_reads == 4 * 8 * 4 * 20 * 3
    assert core.counts.cells == 4 * 20 * 3
