"""Shows which stage a command is in, on a terminal, once the stage has taken a while.

Library code says ``with stage("compile: quantize"):`` and nothing more; that is silent until a command has asked for
progress with :func:`shown`. Only stderr is written to, and only if it is a terminal.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from cimc.report import units

if TYPE_CHECKING:
    from rich.status import Status

DELAY_SECONDS = 0.7  # shorter stages leave no flicker


@dataclass
class Display:
    """The stages under way, innermost last, and the spinner that shows them."""

    stream: IO[str]
    animated: bool
    verbose: bool
    stages: list[str] = field(default_factory=list[str])
    detail: str = ""  # how far the innermost stage is
    status: Status | None = None
    timer: threading.Timer | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self) -> None:
        """Start or refresh the spinner; the timer's thread comes here first."""
        with self.lock:
            if not self.stages:
                return
            text = units.printable(" › ".join([*self.stages, self.detail] if self.detail else self.stages))
            if self.status is not None:
                self.status.update(text)
                return
            from cimc.report.terminal import console

            self.status = console(self.stream).status(text)
            self.status.start()

    def enter(self, name: str) -> None:
        """A stage begins."""
        self.stages.append(name)
        self.detail = ""
        if not self.animated:
            return
        if self.status is not None:
            self.show()
        elif self.timer is None:
            self.timer = threading.Timer(DELAY_SECONDS, self.show)
            self.timer.daemon = True
            self.timer.start()

    def leave(self, seconds: float) -> None:
        """The innermost stage has ended; the last one takes the spinner away."""
        name = self.stages.pop()
        self.detail = ""
        if self.stages:
            if self.status is not None:
                self.show()
        else:
            self.stop()
        if self.verbose:
            self.stream.write(f"{units.printable(name)}: {units.seconds(seconds)}\n")

    def tell(self, detail: str) -> None:
        """Show how far the innermost stage is."""
        self.detail = detail
        if self.status is not None:
            self.show()

    def stop(self) -> None:
        """Take the spinner away."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        with self.lock:
            if self.status is not None:
                self.status.stop()
                self.status = None


_display: ContextVar[Display | None] = ContextVar("cimc_progress", default=None)


@contextmanager
def shown(*, quiet: bool = False, verbose: bool = False, stream: IO[str] | None = None) -> Generator[None, None, None]:
    """Show the stages entered within. ``verbose`` also leaves a line with the time of each; ``quiet`` silences all."""
    out = stream or sys.stderr
    display = None if quiet else Display(out, out.isatty(), verbose)
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)
        if display is not None:
            display.stop()


@contextmanager
def stage(name: str) -> Generator[None, None, None]:
    """A part of a command that may take a while, for instance ``compile: quantize``. Stages nest."""
    display = _display.get()
    if display is None:
        yield
        return
    start = time.perf_counter()
    display.enter(name)
    try:
        yield
    finally:
        display.leave(time.perf_counter() - start)


def tell(detail: str) -> None:
    """Show how far the innermost stage is."""
    display = _display.get()
    if display is not None:
        display.tell(detail)


LOADING = (
    "loading the timing engine (the first time after an installation or an update it is compiled: some ten seconds)"
)


def follow(engine: str, done: int, total: int) -> None:
    """Show how far an engine is: what :func:`cimc.sim.interpreter.run` takes as ``progress``."""
    display = _display.get()
    if display is None:
        return
    far = f"{units.whole(done)} of {units.whole(total)} tiles" if total else f"{units.whole(done)} instructions"
    display.tell(LOADING if engine == "compile" else f"{engine}: {far}")
