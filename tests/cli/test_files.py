"""Where commands write: whole files or none, nothing of others lost, and paths that cannot be."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cimc import bundle, errors, files
from tests.cli.command import ROOT, Cimc, process

LONG = "a" * 300


def test_a_folder_with_a_manifest_of_others_is_left_alone(tmp_path: Path, model: Path, cimc: Cimc) -> None:
    """A web application's folder has a manifest.json too."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "app", "icons": []}')
    (tmp_path / "app" / "index.html").write_text("kept")
    done = cimc("compile", model, "-o", tmp_path / "app")
    assert (done.exit, "output-occupied" in done.err) == (2, True)
    assert (tmp_path / "app" / "index.html").read_text() == "kept"


def test_files_beside_a_compile_stay(tmp_path: Path, model: Path, cimc: Cimc) -> None:
    out = tmp_path / "out"
    assert cimc("compile", model, "-o", out).exit == 0
    (out / "notes.txt").write_text("mine")
    (out / bundle.RUN).write_text("{}")
    assert cimc("compile", model, "-o", out, "--precision", "w4a8").exit == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / bundle.RUN).exists(), "figures of the earlier program"
    assert json.loads((out / bundle.MANIFEST).read_text())["options"]["precision"] == "w4a8"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_link_to_a_folder_is_written_through(tmp_path: Path, model: Path, cimc: Cimc) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for _ in range(2):
        assert cimc("compile", model, "-o", tmp_path / "link").exit == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / bundle.MANIFEST).is_file()


def test_a_mounted_folder_is_filled(tmp_path: Path, model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's volume can neither be removed nor renamed."""
    out = tmp_path / "volume"
    out.mkdir()
    before = out.stat().st_ino
    monkeypatch.setattr(Path, "is_mount", lambda self: self == out)
    for _ in range(2):
        assert cimc("compile", model, "-o", out).exit == 0
        assert cimc("run", out).exit == 0
    assert out.stat().st_ino == before
    assert {p.name for p in out.iterdir()} == {
        bundle.PROGRAM, bundle.WEIGHTS, bundle.MAPPING, bundle.MANIFEST, bundle.HARDWARE, bundle.RUN,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        ("compile", "MODEL", "-o", LONG),
        ("compile", LONG, "-o", "x"),
        ("compile", "MODEL", "-o", "loop"),
        ("compile", "MODEL", "-o", "loop/x"),
        ("compile", "MODEL", "--dump-phases", "a-file"),
        ("compile", "MODEL", "--dim", "n=²"),
        ("compile", "MODEL", "--dim", "n=" + "9" * 5000),
        ("check", "MODEL", "--hw", LONG),
        ("check", "MODEL", "--inputs", LONG),
        ("check", "MODEL", "--min-cosine", "nan"),
        ("check", "MODEL", "--rate", "nan"),
        ("check", "MODEL", "--outputs", "nowhere/y.npz"),
        ("check", "MODEL", "--json", "a-folder"),
        ("run", LONG),
        ("run", "MODEL"),
        ("inspect", LONG),
        ("asm", LONG),
    ],
    ids=lambda line: " ".join(line)[:40],
)
def test_paths_and_numbers_that_cannot_be(
    line: tuple[str, ...], tmp_path: Path, model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder").mkdir()
    there = {p.name for p in tmp_path.iterdir()}
    done = cimc(*(model if word == "MODEL" else word for word in line))
    assert done.exit == 2, done.err
    assert "Traceback" not in done.err
    assert {p.name for p in tmp_path.iterdir()} == there


@pytest.mark.parametrize("where", ["model.onnx", "folder/model.onnx"])
def test_a_model_whose_path_is_no_utf8(where: str, tmp_path: Path, model: Path) -> None:
    """onnxruntime can open no such path, nor can a manifest name it."""
    path = tmp_path / where.replace("o", "\udcff", 1)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.read_bytes())
    for command in ("check", "compile"):
        done = process(
            command, path, "--hw", "toy", "--no-timing" if command == "check" else "-q", "-o", tmp_path / "o"
        )
        assert done.returncode == 2
        assert "error[file-unreadable]: model" in done.stderr
        assert "no UTF-8" in done.stderr
    assert not (tmp_path / "o").exists()
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    assert process("check", link, "--hw", "toy", "-q").returncode == 0, "a link to it, as the message says"


@pytest.mark.parametrize("option", ["--hw", "--placement"])
def test_files_that_a_manifest_names_have_names_in_utf8(option: str, tmp_path: Path, model: Path, folder: Path) -> None:
    source = {"--hw": "hardware.yaml", "--placement": "mapping.json"}[option]
    odd = tmp_path / "odd\udcff.yaml"
    odd.write_bytes((folder / source).read_bytes())
    done = process("compile", model, option, odd, "-o", tmp_path / "o", "-q")
    assert done.returncode == 2
    assert "no UTF-8" in done.stderr


def test_a_param_is_told_by_its_own_name(folder: Path, cimc: Cimc) -> None:
    assert "--param" in cimc("run", folder, "--param", "x").err


@pytest.mark.parametrize("option", ["--digital=@pipe", "--placement=pipe"])
def test_pipes_are_not_waited_for(
    option: str, tmp_path: Path, model: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    done = cimc("compile", model, "-o", "x", option)
    assert (done.exit, "no regular file" in done.err) == (2, True)


def _half(path: Path, fault: BaseException) -> None:
    with files.opened(path) as stream:
        stream.write(b"half")
        raise fault


def test_what_was_there_stays_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("earlier")
    with pytest.raises(errors.CimcError, match="No space left"):
        _half(path, OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        _half(path, KeyboardInterrupt())
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_only_be_read_runs(folder: Path, cimc: Cimc, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, text: str) -> None:
        raise errors.REPORT_UNWRITABLE(path=path, why="Read-only file system")

    monkeypatch.setattr(files, "write", refused)
    done = cimc("run", folder)
    assert done.exit == 0
    assert "Read-only file system" in done.err
    assert "cycles" in done.out


def test_stdout_that_is_full() -> None:
    with open("/dev/full", "w") as full:
        made = subprocess.run(
            [sys.executable, "-c", "from cimc.cli.main import main; main(['hw', 'list'])"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert made.returncode == 2
    assert made.stderr.startswith("error[file-system]: standard output: No space left on device")
    assert "Exception ignored" not in made.stderr


def test_the_line_that_reduce_ends_with_fails(tmp_path: Path, model: Path, cimc: Cimc) -> None:
    """With all the options of the command, not only the numerics."""
    options = ("--numerics", "integer", "--min-cosine", "1", "--hw", "puma", "-c", "clock_ghz=2")
    done = cimc("reduce", model, "-o", tmp_path / "part.onnx", *options)
    assert done.exit == 0
    again = next(line for line in done.out.splitlines() if line.startswith("to see it fail: cimc check "))
    assert cimc(*again.removeprefix("to see it fail: cimc ").split()).exit == 1
    assert "--hw puma -c clock_ghz=2" in again


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path, model: Path) -> None:
    """As a service may start a command."""
    words = f"{shlex.quote(sys.executable)} -m cimc check {shlex.quote(str(model))} --hw toy --no-timing"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", f"{words} {closed}"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert ("PASSED" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_letters(encoding: str, folder: Path) -> None:
    """Also a description that holds half a letter, which YAML can say."""
    hardware = folder / bundle.HARDWARE
    hardware.write_text(hardware.read_text().replace("description:", 'description: "\\ud800" #', 1))
    code = "import sys; from cimc.cli.main import main; main(sys.argv[1:])"
    made = subprocess.run(
        [sys.executable, "-c", code, "hw", "show", str(hardware)],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert b": ?" in made.stdout.splitlines()[0]


def test_an_interrupt_leaves_nothing(tmp_path: Path, model: Path) -> None:
    # As on a terminal: what runs in the background of a shell has inherited to ignore interrupts.
    heard = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; from cimc.cli.main import main; main(sys.argv[1:])"
    search = ("compile", str(model), "-o", str(tmp_path / "out"), "--search", "600s", "-v")
    with subprocess.Popen([sys.executable, "-c", code, *search], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        next(line for line in running.stderr if line.startswith("code generation"))
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
        assert running.stderr.read().splitlines()[-1] == "interrupted"
    assert list(tmp_path.glob("out*")) + list(tmp_path.glob(".*")) == []
