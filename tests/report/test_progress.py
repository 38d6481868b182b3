"""Progress: silent unless asked for, on a terminal only, gone afterwards."""

from __future__ import annotations

import io

import pytest

from cimc.report import progress
from tests.report.test_run_report import Terminal


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting: the timer fires in the calling thread."""

    class Now:
        daemon = False

        def __init__(self, delay: float, call: object) -> None:
            self.call = call

        def start(self) -> None:
            self.call()  # type: ignore[operator]

        def cancel(self) -> None:
            pass

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress.threading, "Timer", Now)


def test_a_library_call_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.stage("compile"), progress.stage("quantize"):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("at_once")
def test_a_terminal_shows_the_stages_and_is_left_clean() -> None:
    out = Terminal()
    with progress.shown(stream=out), progress.stage("compile"), progress.stage("quantize\x1b[2J"):
        pass
    text = out.getvalue()
    assert "compile" in text
    assert "\x1b[2J" not in text
    assert text.rstrip().endswith("\x1b[2K")
    assert "\x1b[?25h" in text


@pytest.mark.usefixtures("at_once")
def test_a_terminal_shows_how_far_an_engine_is() -> None:
    out = Terminal()
    with progress.shown(stream=out), progress.stage("run"):
        progress.follow("compile", 0, 0)
        progress.follow("timing", 123456, 0)
        progress.follow("values", 3, 8)
        assert progress._display.get().detail == "values: 3 of 8 tiles"  # type: ignore[union-attr]
    progress.follow("timing", 1, 0)  # no stage: nothing to show it on
    assert out.getvalue().rstrip().endswith("\x1b[2K")


@pytest.mark.usefixtures("at_once")
def test_silent_when_quiet_or_piped() -> None:
    for out, quiet in ((Terminal(), True), (io.StringIO(), False)):
        with progress.shown(stream=out, quiet=quiet), progress.stage("compile"):
            pass
        assert out.getvalue() == ""


def test_short_stages_leave_no_trace_on_a_terminal() -> None:
    out = Terminal()
    with progress.shown(stream=out):
        for _ in range(20):
            with progress.stage("short"):
                pass
    assert out.getvalue() == ""


def test_verbose_leaves_a_line_per_stage() -> None:
    out = io.StringIO()
    with progress.shown(stream=out, verbose=True), progress.stage("compile"), progress.stage("quantize"):
        pass
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == ["quantize", "compile"]


@pytest.mark.usefixtures("at_once")
def test_a_fault_goes_through_and_the_spinner_goes_away() -> None:
    out = Terminal()
    with pytest.raises(ZeroDivisionError), progress.shown(stream=out), progress.stage("compile"):
        raise ZeroDivisionError
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("compile")
