"""Interrupts that end a command although libraries may lose them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

AGAIN = 1.0
"""Seconds after which an interrupt comes again, and again, until it has ended the command: what is raised within a callback of
a library is lost (while numba compiles the clock, for instance). Long enough to remove what is half written."""


@contextmanager
def repeated() -> Generator[None]:
    """Let an interrupt come again until it leaves this block; as it was where somebody else handles interrupts, or there are no
    timers."""
    first = signal.getsignal(signal.SIGINT)
    alone = threading.current_thread() is threading.main_thread() and first is signal.default_int_handler
    if not alone or not hasattr(signal, "setitimer"):
        yield
        return
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, first)
