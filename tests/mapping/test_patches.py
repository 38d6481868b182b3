"""Tall matrices in rectangles of blocks: every block once, on no more tiles, and what links carry."""

from __future__ import annotations

from collections import Counter

import pytest

from cimc.mapping.patches import Layout, Pace, chosen, columns

FAST = Pace(64, 4.0, 16.0, "chain")  # sram-digital: 128 codes, 128 sums of 32 bits on links of 32 bytes
SLOW = Pace(960, 4.0, 16.0, "chain")  # isaac's cores


def _busiest(layout: Layout, pace: Pace) -> float:
    """Cycles a row of the busiest receive side, block by block: sums go up from tile to tile, or all to the top one."""
    codes: dict[int, set[int]] = {}
    sums: Counter[int] = Counter()
    across = {j for r in layout for j in r.cols}
    for r in layout:
        codes.setdefault(r.tile, set()).update(r.rows)
    for j in across:
        tiles = list(dict.fromkeys(r.tile for r in sorted(layout, key=lambda r: r.rows[0]) if j in r.cols))
        sums.update(tiles[:-1] if pace.at == "chain" else tiles[:1] * (len(tiles) - 1))
    return max(len(rows) * pace.codes + sums[tile] * pace.sums for tile, rows in codes.items())


@pytest.mark.parametrize("size", [(24, 6), (32, 8), (36, 4), (44, 16), (24, 8), (17, 1), (17, 3), (100, 7)])
@pytest.mark.parametrize("used", [0, 5, 16])
@pytest.mark.parametrize("pace", [FAST, SLOW, Pace(64, 4.0, 16.0, "one")])
def test_every_block_once_and_no_more_tiles(size: tuple[int, int], used: int, pace: Pace) -> None:
    down, across = size
    layout, plain = (f(down, across, 16, used, *of) for f, of in ((chosen, (pace,)), (columns, ())))
    assert Counter((i, j) for r in layout for i in r.rows for j in r.cols) == dict.fromkeys(
        ((i, j) for i in range(down) for j in range(across)), 1
    )
    cores = [(r.tile, r.core + k) for r in layout for k in range(len(r.rows) * len(r.cols))]
    assert len(set(cores)) == len(cores)
    assert all((used if tile == 0 else 0) <= core < 16 for tile, core in cores)
    assert max(cores) <= max((r.tile, r.core + len(r.rows) - 1) for r in plain)
    for one in layout:  # sums must meet: two have the same columns or none in common
        assert all(one.cols == other.cols or not set(one.cols) & set(other.cols) for other in layout)
    assert max(_busiest(layout, pace), pace.cells) <= max(_busiest(plain, pace), pace.cells)


def test_a_transformers_second_product_keeps_up_with_its_cells() -> None:
    # 3072 × 768 weights: 9 tiles of 16 cores, of 8 × 2 blocks each
    layout = chosen(24, 6, 16, 0, FAST)
    assert [(len(r.rows), len(r.cols)) for r in layout] == [(8, 2)] * 9
    assert _busiest(layout, FAST) == FAST.cells < _busiest(columns(24, 6, 16, 0), FAST)


def test_columns_where_cells_set_the_pace_or_sums_meet_on_one_tile() -> None:
    assert chosen(24, 6, 16, 0, SLOW) == columns(24, 6, 16, 0)
    assert chosen(24, 6, 16, 0, Pace(64, 4.0, 16.0, "one")) == columns(24, 6, 16, 0)
