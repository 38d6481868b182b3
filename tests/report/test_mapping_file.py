"""``mapping.json``: the schema, and what is said to one that was edited by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cimc.errors import CimcError, Exit
from cimc.report.mapping_file import parse_mapping
from tests.report import synthetic
from tests.report.test_run_report import validate


def test_schema_and_records_agree_on_a_mapping() -> None:
    dump = synthetic.mapping()
    validate(dump, "mapping")
    mapping = parse_mapping(json.dumps(dump))
    optional = {"dynamic", "attention"}
    assert mapping.model_dump(exclude={**dict.fromkeys(optional, True), "work": {"shorter"}}) == {
        k: v for k, v in dump.items() if k not in optional
    } | {"host": mapping.model_dump()["host"]}
    assert mapping.static[0].layer == "/encoder/layer.0/attention/self/query/MatMul"
    assert sum(b.height * b.width for b in mapping.static[0].blocks) == 384 * 384


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set ``static.0.blocks.0.tile`` and the like."""

    def edit(dump: Any) -> None:
        *path, last = key.split(".")
        for part in path:
            dump = dump[int(part) if part.isdigit() else part]
        dump[int(last) if last.isdigit() else last] = value

    return edit


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("chips", "one", "chips: Input should be a valid integer"),
        ("tiles", {}, "tiles: Input should be a valid array"),
        ("tiles.3.x", -1, "tiles.3.x: Input should be greater than or equal to 0"),
        ("tiles.3.x", 2.5, "tiles.3.x: Input should be a valid integer"),
        ("tiles.3.id", 2, "tiles: id 2 stands there twice"),
        ("tiles.3.chip", 1, "tile 3: on chip 1, but there are 1"),
        ("tiles.3.crossbars_used", 65, "tile 3: 65 crossbars used of 64"),
        ("tiles.3.x", 2, "tile 3: at (2, 0) of chip 0, where tile 2 is"),
        ("static.0.rows", 10**30, "static.0.rows"),
        ("static.0.rows", 100, "block 0: rows [0, 128] of a matrix that has 100"),
        ("static.0.blocks.1.cols", [256, 128], "block 1: cols [256, 128] of a matrix that has 384"),
        ("static.0.blocks.1.cols", [128], "static.0.blocks.1.cols: List should have at least 2 items"),
        ("static.0.blocks.1.tile", 999, "block 1: there is no tile 999"),
        ("static.0.blocks.1.crossbars", [64], "block 1: crossbar 64 of tile 1, which has 64"),
        ("dynamic.0.tile", 999, "there is no tile 999"),
        ("cache.tiles.0.tile", 999, "cache: there is no tile 999"),
        ("cache.how", 3, "cache.how: Input should be a valid string"),
        ("totals.cell_utilization", 1.5, "totals.cell_utilization: Input should be less than or equal to 1"),
        ("totals.crossbars_used", 1, "totals: 1 of 11520 crossbars used, but the tiles add up to 6984 of 11520"),
    ],
)
def test_hand_edited_nonsense(key: str, value: Any, message: str) -> None:
    dump = synthetic.mapping()
    change(key, value)(dump)
    with pytest.raises(CimcError) as caught:
        parse_mapping(json.dumps(dump), "out/mapping.json")
    assert caught.value.exit == Exit.USAGE
    assert str(caught.value).startswith("error[report-file]: mapping out/mapping.json: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", '{"hardware": "x"}', "[" * 100_000])
def test_what_is_no_mapping_at_all(text: str) -> None:
    with pytest.raises(CimcError, match="mapping"):
        parse_mapping(text)
