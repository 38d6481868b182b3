"""Hardware files: what is read, and every way a file or an override can be wrong."""

import dataclasses
import importlib.resources
import json
import pickle
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc import errors
from cimc.arch.document import MAX_BYTES
from cimc.arch.load import dump, load, parse, presets
from cimc.errors import CimcError, Exit

TOY = (importlib.resources.files("cimc.arch") / "presets" / "toy.yaml").read_text(encoding="utf-8")


def changed(*pairs: tuple[str, str]) -> str:
    text = TOY
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def refused(text: str, overrides: tuple[str, ...] = ()) -> CimcError:
    with pytest.raises(CimcError) as caught:
        parse(text, "my.yaml", overrides)
    assert caught.value.exit == Exit.USAGE
    assert "Traceback" not in caught.value.render()
    return caught.value


def codes(error: CimcError) -> list[str]:
    return [e.code for e in getattr(error, "errors", (error,))]


# --- what is read ------------------------------------------------------------------------------


def test_toy_is_what_it_says():
    chip = load("toy").spec
    assert (chip.tile_count, chip.columns, chip.kind(1)) == (2, 2, "all")
    tile = chip.tile(0)
    assert (tile.cores, tile.core.rows, tile.core.cols, tile.core.crossbar.cell_bits) == (2, 8, 8, 2)
    assert (tile.core.slices, tile.core.crossbars, tile.core.adcs) == (4, 4, 16)
    assert tile.core.crossbar.active_rows == 8


def test_hardware_is_frozen_and_hashable():
    hardware = load("toy")
    with pytest.raises(dataclasses.FrozenInstanceError):
        hardware.name = "x"
    assert pickle.loads(pickle.dumps(hardware)) == hardware
    assert hash(load("toy")) == hash(hardware)
    assert load("toy", ("adc.bits=4",)) != hardware


def test_sources_are_kept_by_key():
    sources = load("isaac").sources
    assert sources["costs.energy_pj.adc.convert@8"] == "ISAAC ISCA'16, Table 6: 2 mW at 1.28 GS/s"
    assert sources["tiles.cim.core.crossbar.rows"] == "ISAAC ISCA'16, Table 6"  # inherited from the core
    assert sources["tiles.cim.core.weight_bits"].startswith("estimated")  # its own wins


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("overrides", [(), ("clock_ghz=0.25", "noc.router_cycles=7")])
def test_resolved_text_reads_back(name, overrides):
    hardware = load(name, overrides)
    again = parse(hardware.text, "resolved.yaml", name=name)
    assert again.spec == hardware.spec
    assert again.sources == hardware.sources
    assert again.text == hardware.text


def test_dump_is_json_and_has_no_paths(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TOY)
    hardware = load(str(path), ("adc.bits=4",))
    text = json.dumps(dump(hardware), sort_keys=True)
    assert str(tmp_path) not in text
    assert json.loads(text)["name"] == "mine.yaml"
    assert json.loads(text)["overrides"] == ["adc.bits=4"]
    assert json.loads(text)["spec"]["tiles"]["all"]["core"]["adc"]["bits"] == 4


def test_yaml_1_2_scalars():
    spec = parse(changed(("clock_ghz: 1.0", "clock_ghz: 1e0"), ("local_bytes: 16384", "local_bytes: 0x4000")), "x").spec
    assert (spec.clock_ghz, spec.tile(0).local_bytes) == (1.0, 16384)
    # `yes` and `no` are words, not truth values; a date is a word too
    assert parse(changed(("technology: ideal", "technology: no")), "x").spec.technology == "no"
    assert parse(changed(("technology: ideal", "technology: 2001-99-99")), "x").spec.technology == "2001-99-99"


def test_value_with_source():
    text = changed(("clock_ghz: 1.0", 'clock_ghz: {value: 2.0, source: "data sheet,\n  page 3"}'))
    hardware = parse(text, "x")
    assert hardware.spec.clock_ghz == 2.0
    assert hardware.sources["clock_ghz"] == "data sheet, page 3"


# --- files and names ---------------------------------------------------------------------------


def test_unknown_preset():
    with pytest.raises(CimcError) as caught:
        load("issac")
    assert caught.value.code == "unknown-hardware"
    assert "did you mean 'isaac'?" in caught.value.hint
    assert "sram-digital" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "code"),
    [("missing.yaml", "file-not-found"), ("no/such/file", "file-not-found"), (".", "unknown-hardware")],
)
def test_missing_files(name, code):
    with pytest.raises(CimcError) as caught:
        load(name)
    assert caught.value.code == code


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(CimcError, match="no regular file"):
        load(str(tmp_path))


def test_huge_file(tmp_path):
    path = tmp_path / "huge.yaml"
    path.write_text("# " + "x" * MAX_BYTES)
    with pytest.raises(CimcError, match=f"it has {MAX_BYTES + 2} bytes, and at most {MAX_BYTES} are read"):
        load(str(path))
    with pytest.raises(CimcError) as caught:
        parse(path.read_text(), "huge.yaml")
    assert caught.value.code == "hw-too-large"


def test_binary_file(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(CimcError, match="byte 0 is not UTF-8"):
        load(str(path))


# --- texts that are no hardware ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b",
        "just words",
        "a: [1",
        "a: b: c",
        "a: 1\n---\nb: 2",
        "a: *nowhere",
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 1000,
        "[" * 100_000,
        "<<: {a: 1}",
        "? [a, b]\n: 1",
        "\x00",
        "\tname: x",
        "name: !!python/object/apply:os.system [id]",
        "name: !custom x",
        "name: !!int abc",
        "%YAML 9",
        "source: [a]\nname: x",
        "source: ''\nname: x",
    ],
)
def test_no_hardware_file(text):
    assert set(codes(refused(text))) == {"hw-yaml"}


def test_alias_bomb():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert codes(refused("\n".join(lines))) == ["hw-yaml"]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(TOY) - 1), st.integers(1, 30), st.text(alphabet=":{}[]-&*!|>'\"%@,?# \n\tab019.", max_size=6))
def test_damaged_files_are_told_in_one_message(at, length, junk):
    """Whatever happens to a file, it is read or refused with a diagnostic; any other exception fails the test."""
    told = None
    try:
        parse(TOY[:at] + junk + TOY[at + length :], "damaged.yaml")
    except CimcError as e:
        told = e
    assert told is None or (told.exit == Exit.USAGE and "error[" in told.render())


# --- keys and values ---------------------------------------------------------------------------


def test_errors_point_at_line_and_column():
    error = refused(changed(("cell_bits: 2}", "cel_bits: 2, cell_bits: 9}")))
    assert error.render() == textwrap.dedent("""\
        my.yaml:15:36: error[hw-unknown-key]: unknown key 'tiles.all.core.crossbar.cel_bits'
                crossbar: {rows: 8, cols: 8, cel_bits: 2, cell_bits: 9}   # active_rows left out: all 8 at once
                                             ^
        help: did you mean 'cell_bits'? known here: rows, cols, cell_bits, active_rows, spare_cols, devices
        my.yaml:15:60: error[hw-value]: key 'tiles.all.core.crossbar.cell_bits': at most 8 is possible, not 9
                crossbar: {rows: 8, cols: 8, cel_bits: 2, cell_bits: 9}   # active_rows left out: all 8 at once
                                                                     ^
        help: see docs/hardware.md for what the key means""")


def test_all_errors_at_once():
    text = changed(
        ("rows: 8, cols", "rows: 0, cols"), ("dac_bits: 1", "dak_bits: 1"), ("launch_ns: 100.0", "launch_ns: -1")
    )
    assert codes(refused(text)) == ["hw-missing-key", "hw-value", "hw-unknown-key", "hw-value"]


def test_duplicate_keys_are_all_told():
    text = changed(("clock_ghz: 1.0", "clock_ghz: 1.0\nclock_ghz: 2.0"), ("letter: T", "letter: T\n    letter: U"))
    error = refused(text)
    assert codes(error) == ["hw-duplicate-key", "hw-duplicate-key"]
    assert "key 'clock_ghz' is given twice; first on line 6" in error.render()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("rows: 8, cols", "rows: 70000, cols", "at most 65,536 is possible, not 70000"),
        ("rows: 8, cols", "rows: 0, cols", "at least 1 is needed, not 0"),
        ("rows: 8, cols", "rows: 8.5, cols", "a whole number is needed, not 8.5"),
        ("rows: 8, cols", "rows: true, cols", "a whole number is needed, not true"),
        ("rows: 8, cols", 'rows: "8", cols', "a whole number is needed, not "),
        ("rows: 8, cols", "rows: , cols", "a whole number is needed, not nothing"),
        ("rows: 8, cols", "rows: 99999999999999999999999999, cols", "at most 65,536 is possible"),
        ("clock_ghz: 1.0", "clock_ghz: .nan", "a finite number is needed, not NaN"),
        ("clock_ghz: 1.0", "clock_ghz: .inf", "a finite number is needed, not Infinity"),
        ("clock_ghz: 1.0", "clock_ghz: 0", "more than 0 is needed, not 0"),
        ("clock_ghz: 1.0", "clock_ghz: 1e400", "a finite number is needed"),
        ("clock_ghz: 1.0", "clock_ghz: 1e15", "at most 1,000.0 is possible"),
        ("launch_ns: 100.0", "launch_ns: 1e15", "at most 1,000,000,000.0 is possible"),
        ("bytes_per_ns: 1.0", "bytes_per_ns: 1e-300", "at least 1e-06 is needed"),
        ("local_bytes: 16384", "local_bytes: 99999999999", "at most 4,294,967,296 is possible"),
        ("cores: 2\n", "cores: 70000\n", "at most 65,536 is possible"),
        ("cores: 2\n", "cores: 0\n", "'cores' and 'core' go together"),
        ("memory_port: true", "memory_port: yes", "true or false is needed, not "),
        ("memory_port: true", "memory_port: false", "at least one tile needs memory_port: true"),
        ("encoding: offset", "encoding: ofset", "one of 'offset', 'differential' or 'twos_complement' is needed"),
        ("letter: T", "letter: TT", "a single letter is needed"),
        ('layout: ["TT"]', 'layout: ["TT", "T"]', "rows of equal, non-zero length are needed"),
        ('layout: ["TT"]', "layout: []", "rows of equal, non-zero length are needed"),
        ('layout: ["TT"]', 'layout: ["TX"]', "no tile kind has the letter 'X'"),
        ('layout: ["TT"]', "layout: TT", "a list is needed"),
        ("vector: {lanes: 4, startup_cycles: 1}", "vector: 4", "a mapping of keys is needed, not 4"),
        ("crossbar.step: 1.0", "crossbar.step: -1.0", "at least 0 is needed, not -1.0"),
        ("    crossbar.step: 1.0\n", "", "no energy for 'crossbar.step' (one crossbar"),
        ("crossbar.step: 1.0", "crosbar.step: 1.0", "there is no action of that name. did you mean 'crossbar.step'?"),
        ("crossbar.step: 1.0", "crossbar.step@8: 1.0", "there is no action of that name"),
        ("adc.convert: 1.0", "adc.convert@4: 1.0", "costs.energy_pj has no 'adc.convert@5', only for 4 bits"),
        ("leakage_mw: {tile: 1.0", "leakage_mw: {tiles: 1.0", "there is no part of that name. did you mean 'tile'?"),
    ],
)
def test_bad_values(old, new, why):
    error = refused(changed((old, new)))
    assert why in error.render()
    assert error.source.path == "my.yaml"
    assert error.source.line > 1


def test_too_many_tiles_and_cores():
    wide = changed(('layout: ["TT"]', f"layout: [{', '.join(['T' * 300] * 300)}]"))
    assert "90000 tiles; at most 65536" in refused(wide).render()
    many = changed(('layout: ["TT"]', f"layout: [{', '.join(['T' * 100] * 100)}]"), ("cores: 2\n", "cores: 60000\n"))
    assert "600000000 cores; at most" in refused(many).render()


def test_active_rows_within_rows():
    error = refused(changed(("cell_bits: 2}", "cell_bits: 2, active_rows: 9}")))
    assert "'tiles.all.core.crossbar.active_rows': 9 exceeds the 8 rows there are" in error.render()
    assert error.source.text[error.source.column - 1 :].startswith("9}")


def test_missing_key_points_at_what_lacks_it():
    error = refused(changed(("rows: 8, cols", "cols")))
    assert codes(error) == ["hw-missing-key"]
    assert "key 'tiles.all.core.crossbar.rows' is missing" in error.render()
    assert error.source.line == 15


# --- overrides ---------------------------------------------------------------------------------


def test_override_by_tail():
    hardware = load("toy", ("crossbar.rows=16", "adc.bits=6", "energy_pj.adc.convert=3", "vector.lanes = 8"))
    tile = hardware.spec.tile(0)
    assert (tile.core.rows, tile.core.crossbar.active_rows, tile.core.adc.bits, tile.vector.lanes) == (16, 16, 6, 8)
    assert hardware.spec.costs.energy_pj["adc.convert"] == 3
    assert hardware.sources["tiles.all.core.adc.bits"] == "-c adc.bits=6"
    assert hardware.overrides[0] == "crossbar.rows=16"


def test_later_override_wins():
    assert load("toy", ("adc.bits=6", "adc.bits=7")).spec.tile(0).core.adc.bits == 7


def test_override_of_what_the_file_leaves_out():
    assert load("toy", ("active_rows=4", "leakage_mw.buffer=1e-3")).spec.tile(0).core.crossbar.active_rows == 4


def test_override_of_words_and_lists():
    chip = load("toy", ("encoding=differential", "layout=[TTT, TTT]")).spec
    assert (chip.tile(0).core.encoding, chip.tile_count) == ("differential", 6)


def test_override_adds_a_unit_that_the_file_leaves_out():
    chip = load("isaac", ("cim.special={lanes: 2, startup_cycles: 4}",)).spec
    assert chip.tiles["cim"].special.lanes == 2


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("rows", "KEY=VALUE is needed", "for example -c crossbar.rows=256"),
        ("=3", "KEY=VALUE is needed", "for example"),
        ("rows=", "KEY=VALUE is needed", "for example"),
        ("rows=9", "2 keys end like that", "tiles.all.core.crossbar.rows, tiles.all.matmul.rows"),
        ("crosbar.rows=9", "the hardware has no such key", "did you mean 'crossbar.rows'?"),
        ("ows=9", "the hardware has no such key", ""),
        ("crossbar.rows.more=9", "the hardware has no such key", ""),
        ("crossbar.rows=[1", "its value cannot be read", "give a number or a word"),
        ("crossbar.rows=abc", "a whole number is needed, not ", ""),
        ("crossbar.rows=99999999", "at most 65,536 is possible, not 99999999", ""),
        ("active_rows=99", "99 exceeds the 8 rows there are", ""),
        ("all.vector=none", "it holds keys and is no value itself", "tiles.all.vector."),  # a group of keys, not one
        ("layout=[TT, T]", "rows of equal, non-zero length are needed", ""),
    ],
)
def test_bad_overrides(text, message, fix):
    error = refused(TOY, (text,))
    assert message in error.render()
    assert fix in error.hint
    assert error.source.path == "-c"
    assert error.source.text == text


def test_override_to_a_resolution_without_figures():
    with pytest.raises(CimcError) as caught:
        load("isaac", ("adc.bits=12",))
    assert "costs.energy_pj has no 'adc.convert@12', only for 4, 5, 6, 7, 8, 9, 10 bits" in caught.value.render()
    assert caught.value.source.path == "-c"


def test_diagnostics_are_rows_of_the_table():
    rows = [d for d in errors.DIAGNOSTICS.values() if d.code.startswith("hw-") or d.code == "unknown-hardware"]
    assert len(rows) == 8
    assert all(d.exit == Exit.USAGE and d.hint for d in rows)
