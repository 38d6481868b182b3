"""Placing weights around stuck cells: never worse than in order, best by exhaustive search, equal in both cores."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from cimc.analog import AnalogConfig, AnalogMatrix
from cimc.analog.config_keys import read_config
from cimc.analog.crossbar import level_map
from cimc.analog.faults import CoreShape, drawn, read_maps
from cimc.analog.reference import reference_mvm
from cimc.analog.remap import Placement, remap, table_bits
from cimc.analog.rng import Streams
from cimc.errors import CimcError
from tests.analog.decoding import merge

SHAPE = CoreShape(sides=1, slices=4, top=1, copies=1, cols=6, spare=2, rows=8)


def config(**more: object) -> AnalogConfig:
    return read_config({"cell_bits": 2, "rows": 8, "input_encoding": "twos_complement", **more})


def held(codes: np.ndarray, physics: AnalogConfig, stuck: np.ndarray) -> np.ndarray:
    """What the cells hold with these faults, as weights: the definition, from the levels themselves."""
    with_map = replace(physics, stuck=stuck if stuck.shape[0] == 2 else stuck[0])
    plus, minus = level_map(codes, with_map, Streams(0))
    if minus is None:
        return merge(plus, physics.weights) - physics.weights.offset
    return merge(plus, physics.weights) - merge(minus, physics.weights)


def squares(codes: np.ndarray, physics: AnalogConfig, stuck: np.ndarray) -> float:
    return float(np.square(held(codes, physics, stuck) - codes).sum())


@pytest.mark.parametrize("encoding", ["offset", "differential"])
@pytest.mark.parametrize("moves", [(True, False), (False, True), (True, True), (False, False)])
def test_reported_errors_are_those_of_the_cells(encoding: str, moves: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(3)
    physics = config(weight_encoding=encoding)
    shape = replace(SHAPE, sides=1 if encoding == "offset" else 2)
    codes = rng.integers(-127, 128, (7, 6))
    faults = drawn(shape, 0.05, 0.05, 4, 0, 0)
    place = remap(codes, physics, faults, rows=moves[0], columns=moves[1])
    in_order = faults[:, :, :6, :7]
    assert place.before == pytest.approx((squares(codes, physics, in_order) / 42) ** 0.5)
    assert place.after == pytest.approx((squares(codes, physics, place.stuck) / 42) ** 0.5)
    assert place.after <= place.before
    assert (place.after < place.before) == any(moves)
    assert len(set(place.rows.tolist())) == 7
    assert len(set(place.cols.tolist())) == 6
    assert place.rows.max() < 8
    assert place.cols.max() < 8
    if not moves[0]:
        assert place.rows.tolist() == list(range(7))
    if not moves[1]:
        assert place.cols.tolist() == list(range(6))


def test_rows_alone_are_placed_as_well_as_by_trying_everything() -> None:
    rng = np.random.default_rng(5)
    physics = config()
    codes = rng.integers(-127, 128, (5, 3))
    faults = drawn(replace(SHAPE, cols=3, spare=0, rows=5), 0.1, 0.1, 1, 0, 0)
    place = remap(codes, physics, faults, columns=False)
    best = min(squares(codes, physics, faults[:, :, :, list(p)]) for p in permutations(range(5)))
    assert best > 0
    assert place.after**2 * codes.size == pytest.approx(best)


def test_columns_alone_take_the_best_spare_ones() -> None:
    rng = np.random.default_rng(6)
    physics = config()
    codes = rng.integers(-127, 128, (8, 3))
    faults = drawn(replace(SHAPE, cols=3, spare=2), 0.1, 0.1, 2, 0, 0)
    place = remap(codes, physics, faults, rows=False)
    best = min(squares(codes, physics, faults[:, :, list(p)]) for p in permutations(range(5), 3))
    assert place.after**2 * codes.size == pytest.approx(best)


def test_a_dead_column_goes_to_a_spare_one_and_costs_nothing() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (8, 6))
    faults = np.zeros(SHAPE.map, np.int8)
    faults[:, :, 2] = 1
    place = remap(codes, config(), faults, rows=False)
    assert place.before > 0
    assert place.after == 0
    assert 2 not in place.cols
    assert not place.stuck.any()


def test_rows_stay_among_those_driven_together() -> None:
    codes = np.random.default_rng(1).integers(-127, 128, (8, 6))
    place = remap(codes, config(active_rows=4), drawn(SHAPE, 0.1, 0.1, 0, 0, 0))
    assert sorted(place.rows[:4].tolist()) == [0, 1, 2, 3]
    assert sorted(place.rows[4:].tolist()) == [4, 5, 6, 7]


@pytest.mark.parametrize("encoding", ["offset", "differential"])
def test_both_cores_agree_on_a_placed_block_and_err_less(encoding: str) -> None:
    rng = np.random.default_rng(2)
    signed = encoding == "differential"
    physics = config(weight_encoding=encoding, adc={"bits": 6, "signed": signed}, technology="mram")
    shape = replace(SHAPE, sides=2 if signed else 1)
    codes, x = rng.integers(-127, 128, (8, 6)), rng.integers(-127, 128, (9, 8))
    faults = drawn(shape, 0.04, 0.04, 1, 0, 0)
    quiet = config(weight_encoding=encoding)

    def rms(place: Placement) -> float:
        stuck = place.stuck if signed else place.stuck[0]
        core = AnalogMatrix(codes, replace(physics, stuck=stuck), seed=7)
        want, _ = reference_mvm(x, core.cells, core.config, core.streams)
        assert np.array_equal(core.values(x), want)
        clean = AnalogMatrix(codes, replace(quiet, stuck=stuck))
        return float(np.square(clean.values(x) - x @ codes).mean())

    assert rms(remap(codes, physics, faults)) < rms(remap(codes, physics, faults, rows=False, columns=False))


def test_a_map_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CimcError, match="stuck_map"):
        remap(np.ones((9, 6), int), config(), np.zeros(SHAPE.map, np.int8))


def test_table_bits() -> None:
    assert table_bits(32, 128, 128, 132) == 32 * 7 + 128 * 8
    assert table_bits(0, 1, 0, 1) == 0


def test_drawn_faults_keep_their_place_when_columns_and_copies_are_added() -> None:
    plain = drawn(replace(SHAPE, spare=0), 0.1, 0.2, 3, 4, 5)
    more = drawn(replace(SHAPE, copies=3), 0.1, 0.2, 3, 4, 5)
    assert plain.shape == (1, 4, 6, 8)
    assert more.shape == (1, 6, 8, 8)
    assert np.array_equal(more[:, :4, :6], plain)
    assert not np.array_equal(more[:, 4], more[:, 5])
    many = drawn(CoreShape(1, 4, 1, 1, 128, 0, 128), 0.1, 0.2, 0, 0, 0)
    assert (many == 1).mean() == pytest.approx(0.1, rel=0.03)
    assert (many == 2).mean() == pytest.approx(0.2, rel=0.03)


def test_maps_of_a_file(tmp_path: Path) -> None:
    shape = replace(SHAPE, spare=0)
    own, other = drawn(shape, 0.1, 0.1, 0, 0, 0), drawn(shape, 0.1, 0.1, 1, 0, 0)
    path = tmp_path / "faults.npz"
    np.savez(path, **{"tile7.core2": own, "default": other[0]})
    maps = read_maps(str(path))
    assert np.array_equal(maps.of(shape, 7, 2), own)
    assert np.array_equal(maps.of(shape, 7, 3), other)
    np.savez(path, **{"tile7.core2": own})
    assert not read_maps(str(path)).of(shape, 7, 3).any()


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"tile7": np.zeros((1, 4, 6, 8), int)}, "names no core"),
        ({"default": np.zeros((4, 6, 8))}, "float64"),
        ({"default": np.zeros((6, 8), int)}, "shape"),
        ({"default": np.full((4, 6, 8), 3)}, "outside 0, 1, 2"),
        ({"default": np.array([{}], object)}, "cannot be read"),
        ({}, "no arrays"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], why: str) -> None:
    path = tmp_path / "faults.npz"
    np.savez(path, **arrays)
    with pytest.raises(CimcError, match=rf"device\.stuck_map(.|\n)*{why}"):
        read_maps(str(path))


def test_no_file_and_no_zip_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(CimcError, match=r"device\.stuck_map"):
            read_maps(str(path))
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(CimcError, match=r"device\.stuck_map"):
        read_maps(str(broken))


def test_a_healthy_core_is_left_in_order() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (8, 6))
    place = remap(codes, config(), np.zeros(SHAPE.map, np.int8))
    assert place.rows.tolist() == list(range(8))
    assert place.cols.tolist() == list(range(6))
    assert place.before == place.after == 0
