"""What `cimc hw` prints: complete, never cut, and the same figures as the units."""

import io
import json

import pytest
from rich.console import Console

from cimc.arch import units
from cimc.arch.load import load, presets
from cimc.report.hardware import catalogue, keys, show, show_catalogue, summary


def printed(hardware, width=80):
    stream = io.StringIO()
    show(hardware, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("name", presets())
def test_show_prints_every_key_and_source_uncut(name):
    hardware = load(name)
    text = printed(hardware)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for key, value in keys(hardware).items():
        source = hardware.sources.get(key, "")
        assert " ".join(f"{key} {json.dumps(value)} {source}".split()) in lines


def test_show_does_not_depend_on_the_width():
    assert printed(load("isaac"), 40) == printed(load("isaac"), 200)


def test_summary_of_toy_by_hand():
    about = summary(load("toy", ("adc.bits=5",)))
    assert json.loads(json.dumps(about)) == about
    totals = about["totals"]
    assert (totals["tiles"], totals["cores"], totals["crossbars"], totals["weights"]) == (2, 4, 16, 256)
    tile = about["tiles"]["all"]
    assert (tile["count"], tile["cores"], tile["matmul"], tile["local_bytes"]) == (2, 2, "4x4", 16384)
    assert tile["core"]["interval_ns"] == 16.0
    assert tile["core"]["adc_bits"] == 5
    assert about["overrides"] == ["adc.bits=5"]
    assert "leakage_mw.buffer" in about["no_figure"]
    assert "area_um2.buffer" not in about["no_figure"]


def test_totals_are_those_of_the_units():
    chip = load("isaac").spec
    totals = summary(load("isaac"))["totals"]
    assert totals["area_mm2"] == pytest.approx(units.area_um2(chip) / 1e6)
    assert totals["leakage_mw"] == pytest.approx(units.leakage_mw(chip))
    assert totals["crossbars"] == 168 * 12 * 8


def test_markup_in_a_file_is_printed_as_it_is():
    text = load("toy").text.replace('"ideal"', '"[red]x[/red]"')
    from cimc.arch.load import parse

    assert "technology [red]x[/red]" in printed(parse(text, "x"))


def test_catalogue():
    rows = {row["name"]: row for row in catalogue()}
    assert set(rows) == set(presets())
    assert [name for name, row in rows.items() if row["default"]] == ["isaac"]
    assert rows["toy"]["cores"] == 4
    stream = io.StringIO()
    show_catalogue(Console(file=stream, width=60))
    assert len(stream.getvalue().splitlines()) == len(rows) + 1
