"""Promises of docs/contract.md that no other room's tests hold: help, versions, data alone on stdout, compiles repeated."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from cimc.cli.main import COMMANDS, cli
from models import small
from models.graph import save
from tests.cli.command import Cimc


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command's words, those of groups included."""
    with click.Context(group) as context:
        for word in group.list_commands(context):
            yield (*path, word)
            found = group.get_command(context, word)
            if isinstance(found, click.Group):
                yield from commands(found, (*path, word))


EVERY = list(commands())


def test_every_command_is_looked_at() -> None:
    assert {words[0] for words in EVERY} == set(COMMANDS)
    assert ("hw", "trade") in EVERY


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_helps_with_an_example(words: tuple[str, ...], cimc: Cimc) -> None:
    done = cimc(*words, "--help")
    assert done.exit == 0
    assert f"  cimc {' '.join(words)} " in done.out.partition("Example:")[2]
    assert cimc(*words, "-h") == done


def test_the_version(cimc: Cimc) -> None:
    assert cimc("--version").out.split()[-1] == importlib.metadata.version("cimc")


@pytest.mark.parametrize(
    "words",
    [
        ("hw", "list"), ("hw", "show", "toy"), ("hw", "trade", "reram", "--cell-bits", "1", "--rows", "32"),
        ("hw", "noise", "pcm", "--trials", "1"), ("sweep", "{model}", "--vary", "hw=toy", "-v"),
    ],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_nothing_but_json_on_stdout(words: tuple[str, ...], model: Path, cimc: Cimc) -> None:
    done = cimc(*(word.format(model=model) for word in words), "--json", "-")
    assert done.exit == 0, done.err
    assert json.loads(done.out)


def test_a_check_that_fails_keeps_stdout_for_data(model: Path, cimc: Cimc) -> None:
    options = ("--hw", "toy", "--numerics", "integer", "--precision", "w2a8", "--min-cosine", "1", "--no-timing")
    done = cimc("check", model, "--dim", "n=3", *options, "--json", "-")
    assert done.exit == 1
    assert json.loads(done.out)["passed"] is False
    assert done.err.splitlines()[-1].startswith("FAILED cimc check: ")


def test_check_writes_nothing_without_a_folder(
    model: Path, tmp_path: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(os.listdir(tmp_path))
    assert cimc("check", model, "--dim", "n=3", "--hw", "toy").exit == 0
    assert os.listdir(".") == []
    assert sorted(os.listdir(tmp_path)) == before


def test_a_program_that_waits_for_itself_ends_with_4(tmp_path: Path, cimc: Cimc) -> None:
    """Two tiles that each wait for the other's message first."""
    tile = ".tile {a}\n.buffer b f32 4 @0\nrecv b, source={b}\nsend b, to=[{b}]\nhalt\n"
    text = '.cim 1\n.hardware "toy"\n' + tile.format(a=0, b=1) + tile.format(a=1, b=0)
    (tmp_path / "p.cim").write_text(text, encoding="utf-8")
    for engine in ("--no-values", "--no-timing"):
        done = cimc("run", tmp_path / "p.cim", engine)
        assert done.exit == 4
        assert "error[deadlock]" in done.err
        assert "tile 0, line 5: recv" in done.err
        assert "tile 1, line 10: recv" in done.err


def written(value: object) -> str:
    """A choice about the mapping as ``-m`` takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "auto" if value is None else str(value)


def repeated(options: Mapping[str, object]) -> Iterator[str]:
    """The arguments of ``cimc compile`` that the options of a manifest come to."""
    mapping, dims = options["mapping"], options["dims"]
    assert isinstance(mapping, dict)
    assert isinstance(dims, dict)
    yield f"--hw={options['hardware']}"
    for key in ("precision", "activations", "fit", "outliers", "copies", "attention", "values", "calibrate"):
        yield f"--{key}={options[key]}"
    yield from (word for name, size in dims.items() for word in ("--dim", f"{name}={size}"))
    for key, value in mapping.items():
        if key not in ("reload", "optimize", "cache"):
            yield from ("-m", f"{key}={written(value)}")
    yield from ("--reload", written(mapping["reload"]))
    yield from (f"--optimize={mapping['optimize']}", f"--cache={mapping['cache']}")
    overrides, digital = options["overrides"], options["digital"]
    assert isinstance(overrides, list)
    assert isinstance(digital, list)
    yield from (word for text in overrides for word in ("-c", text))
    yield from (word for name in digital for word in ("--digital", name))


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("--hw", "puma", "--precision", "w4a8", "-c", "adc.bits=9", "-m", "lanes=1", "-m", "sums=tree"),
        ("--outliers", "channels=2", "--values", "f16", "--digital", "*MatMul*"),
        ("--copies", "count=2", "--calibrate", "start", "--reload", "on", "-m", "pool=4"),
        ("--dim", "batch=4", "--optimize", "throughput", "-m", "replicas=2"),
        ("--hw", "hybrid", "--attention", "nvm-write"),
        ("-p", "fold,fuse,classify,dce,quantize{weight_bits=4},partition{rows=64, cols=64}"),
    ],
    ids=" ".join,
)
def test_a_manifest_is_enough_to_repeat_a_compile(given: tuple[str, ...], tmp_path: Path, cimc: Cimc) -> None:
    path = tmp_path / "bert.onnx"
    save(small.bert(layers=1, hidden=16, heads=2, ffn=24, vocab=20, positions=8), path)
    dims = ("--dim", "sequence=4", *(() if "batch=4" in given else ("--dim", "batch=1")))
    assert cimc("compile", path, "-o", tmp_path / "first", *dims, *given, "-q").err == ""
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text(encoding="utf-8"))
    own = ("-p", manifest["options"]["pipeline"]) if "-p" in given else ()
    assert cimc("compile", path, "-o", tmp_path / "again", *repeated(manifest["options"]), *own, "-q").err == ""
    for name in (*manifest["files"], "manifest.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
