"""``inspect`` and ``diff`` on a made-up directory, counted over independently from the dump."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from cimc.errors import CimcError, Exit
from cimc.report import diff, figures, inspect, jsontext, layers, manifest_file, render, terminal
from tests.report import synthetic


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_directory(tmp_path_factory.mktemp("run") / "out")


@pytest.fixture(scope="module")
def inspection(directory: Path) -> layers.Inspection:
    return inspect.load(directory)


def test_layers_join_mapping_and_run(inspection: layers.Inspection) -> None:
    dump, timing = synthetic.mapping(), synthetic.timing()
    by_name = {layer.name: layer for layer in inspection.layers}
    assert set(by_name) == set(timing.layers) | {m["node"] for m in dump["static"]} | {
        d["node"] for d in dump["dynamic"]
    }
    for matrix in dump["static"]:
        layer = by_name[matrix["origin"]]
        assert layer.place == "cells"
        assert layer.crossbars == sum(len(b["crossbars"]) for b in matrix["blocks"])
        assert layer.tiles == tuple(sorted({b["tile"] for b in matrix["blocks"]}))
        assert layer.replicas == (2 if "intermediate" in layer.name else 1)
        cost = timing.layers[layer.name]
        assert layer.cycles == cost.last_cycle - cost.first_cycle
        assert layer.energy_pj == pytest.approx(sum(cost.energy_pj.values()))
    assert by_name["/embeddings/Where"].place == "host"
    assert by_name["/encoder/layer.0/attention/self/Softmax"].place == "tile units"
    starts = [layer.cost.first_cycle for layer in inspection.layers if layer.cost]
    assert starts == sorted(starts)


def test_tile_contents_add_up(inspection: layers.Inspection) -> None:
    for tile in inspection.mapping.tiles:
        assert sum(c.crossbars for c in inspection.contents.get(tile.id, ())) == tile.crossbars_used


def test_cell_utilization_needs_the_chip(directory: Path) -> None:
    assert all(layer.cell_utilization is None for layer in inspect.load(directory).layers)
    by_name = {layer.name: layer for layer in inspect.load(directory, synthetic.chip()).layers}
    # 128 of a crossbar's 160 columns; the pooler's last column of blocks is 108 wide.
    assert by_name["/encoder/layer.0/output/dense/MatMul"].cell_utilization == pytest.approx(128 / 160)
    assert by_name["/pooler/dense/Gemm"].cell_utilization == pytest.approx((128 + 128 + 108) / 3 / 160)


def test_map_and_table(inspection: layers.Inspection) -> None:
    totals, chip, table, waits = inspect.report(inspection)
    assert isinstance(waits, render.Table)
    assert waits.header == ("stream", ">cycles", ">operand", ">message")
    assert list(waits.rows) == [("tile 0", "50,000", "0.0 %", "100.0 %"), ("tile 1", "50,000", "40.0 %", "60.0 %")]
    assert isinstance(chip, render.Lines)
    assert isinstance(table, render.Table)
    drawn = ["".join(s.text for s in line) for line in chip.lines]
    assert drawn[0] == "  0 -  A█ B█ C█ F█ F█ G█ ~  G█ G█ G█ G█ G█ G█ G█ ~  "
    assert drawn[7].split()[-3:] == ["w▂", "·", "~"]
    assert len(drawn) == synthetic.ROWS + 2
    text = render.plain([totals, chip, table])
    row = next(line for line in text.splitlines() if "layer.1/intermediate" in line).split()
    assert row[1:10] == [
        "/encoder/layer.1/intermediate/dense/MatMul",
        "cells",
        "384×1536",
        "w8a8",
        "72",
        "2",
        "10",
        "576",
        "–",
    ]
    assert row[-3:] == ["5,786", "63.5", "µJ"]


def test_without_a_run_there_are_no_costs(tmp_path: Path) -> None:
    inspection = inspect.load(synthetic.write_directory(tmp_path / "out", run=False))
    table = inspect.report(inspection)[-1]
    assert isinstance(table, render.Table)
    assert {row[-2:] for row in table.rows} == {("–", "–")}
    assert table.rows[0][1] == "/encoder/layer.0/attention/self/query/MatMul"


def test_find_layer(inspection: layers.Inspection) -> None:
    assert inspect.find_layer(inspection, "/pooler/dense/Gemm").name == "/pooler/dense/Gemm"
    assert inspect.find_layer(inspection, "POOLER").name == "/pooler/dense/Gemm"
    with pytest.raises(CimcError, match="did you mean '/pooler/dense/Gemm'") as caught:
        inspect.find_layer(inspection, "/poler/dense/Gem")
    assert caught.value.exit == Exit.USAGE
    with pytest.raises(CimcError) as ambiguous:
        inspect.find_layer(inspection, "layer.0/attention/self")
    assert "known: /encoder/layer.0/attention/self/query/MatMul, " in str(ambiguous.value)
    assert "layer.1" not in str(ambiguous.value)
    with pytest.raises(CimcError):
        inspect.find_layer(inspection, "")


def test_layer_report(inspection: layers.Inspection) -> None:
    text = render.plain(inspect.layer_report(inspection, inspect.find_layer(inspection, "pooler")))
    assert "256–383  256–363       8        0   125  0–7" in text
    assert "energy: total     15.0 µJ" in text
    text = render.plain(
        inspect.layer_report(inspection, inspect.find_layer(inspection, "/encoder/layer.0/attention/self/MatMul"))
    )
    assert text.count("524 kMAC") == 12


def test_long_lists_of_blocks_end_in_a_remark(tmp_path: Path) -> None:
    dump = synthetic.mapping()
    dump["static"][0]["blocks"] *= 30
    jsontext.write(dump, tmp_path / "mapping.json")
    inspection = inspect.load(tmp_path)
    text = render.plain(inspect.layer_report(inspection, inspection.layers[0]))
    assert "… and 70 more; --json has all of them" in text


def test_tile_report(inspection: layers.Inspection) -> None:
    text = render.plain(inspect.tile_report(inspection, inspect.find_tile(inspection, 125)))
    assert "crossbars used 8 of 64 12.5 %" in " ".join(text.split())
    assert text.count("/pooler/dense/Gemm") == 1
    assert "nothing lies on it" in render.plain(inspect.tile_report(inspection, inspect.find_tile(inspection, 0)))
    assert "524 kMAC" in render.plain(inspect.tile_report(inspection, inspect.find_tile(inspection, 7)))
    with pytest.raises(CimcError, match="its tiles are 0 to 207"):
        inspect.find_tile(inspection, 208)


def test_json_and_csv(inspection: layers.Inspection) -> None:
    found = json.loads(jsontext.dumps(inspect.to_json(inspection)))
    assert len(found["layers"]) == len(inspection.layers)
    assert found["totals"] == synthetic.mapping()["totals"]
    assert found["tiles"][125]["content"][0]["layer"] == "/pooler/dense/Gemm"
    layer = json.loads(jsontext.dumps(inspect.to_json(inspection, layer=inspect.find_layer(inspection, "pooler"))))
    assert layer["static"][0]["weight"] == "/pooler/dense/Gemm.weight"
    tile = json.loads(jsontext.dumps(inspect.to_json(inspection, tile=inspect.find_tile(inspection, 7))))
    assert tile["stalls"] == {}
    second = inspect.to_json(inspection, tile=inspect.find_tile(inspection, 1))
    assert second["stalls"] == {"message": 30_000, "operand": 20_000}
    assert (tile["id"], tile["kind"]) == (7, "digital")
    rows = list(csv.DictReader(io.StringIO(inspect.csv_text(inspection))))
    assert [r["layer"] for r in rows] == [layer.name for layer in inspection.layers]
    assert sum(float(r["energy_pj"]) for r in rows) == pytest.approx(sum(x.energy_pj or 0 for x in inspection.layers))


def test_several_chips(tmp_path: Path) -> None:
    dump = synthetic.mapping(1)
    dump["chips"] = 2
    for tile in dump["tiles"][100:]:
        tile["chip"] = 1
    jsontext.write(dump, tmp_path / "mapping.json")
    titles = [b.title for b in inspect.report(inspect.load(tmp_path))]
    assert titles == ["Mapping", "Chip 0: 7 rows of 16 tiles", "Chip 1: 13 rows of 16 tiles", "Layers"]


def test_terminal_map_is_coloured(inspection: layers.Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.report.test_run_report import Terminal

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    out = Terminal()
    terminal.write_terminal(inspect.report(inspection), out)
    assert "\x1b[38;2;" in out.getvalue()


def test_diff(directory: Path, tmp_path: Path) -> None:
    other = synthetic.write_directory(tmp_path / "b", 3)
    found = diff.diff(directory, other)
    assert [key for key, _, _ in found.options] == ["model.sha256"]
    by_name = {(f.group, f.name): f for f in found.figures}
    crossbars = by_name["mapping", "crossbars used"]
    assert crossbars.a == sum(t["crossbars_used"] for t in synthetic.mapping()["tiles"])
    a, b = figures.from_result(synthetic.result(6)), figures.from_result(synthetic.result(3))
    assert a.cycles
    assert b.cycles
    assert by_name["run", "cycles"].ratio == b.cycles / a.cycles
    text = render.plain(diff.report(found))
    assert "  crossbars         11,520  11,520       =" in text
    assert json.loads(jsontext.dumps(diff.to_json(found)))["manifest"][0]["key"] == "model.sha256"
    same = render.plain(diff.report(diff.diff(directory, directory)))
    assert "no difference" in same
    assert "×" not in same.replace(str(directory), "")


def test_diff_without_a_run(directory: Path, tmp_path: Path) -> None:
    other = synthetic.write_directory(tmp_path / "b", 3, run=False)
    text = render.plain(diff.report(diff.diff(directory, other)))
    assert f"no run.json in {other}" in text
    assert "latency        119 µs  –      –" in text


def test_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"b": {"x": 1, "y": {"z": [1, 2], "e": {}}}, "a": "text", "n": null}')
    assert manifest_file.read_manifest(path) == {"b.x": "1", "b.y.z": "[1, 2]", "b.y.e": "{}", "a": "text", "n": "null"}
    for bad in ("", "[1]", "[" * 100_000):
        path.write_text(bad)
        with pytest.raises(CimcError, match="manifest"):
            manifest_file.read_manifest(path)
