"""A process that checks models in children of its own: one line in (a path), one line out (its end).

The children are forked from a process that has everything imported but no thread started, so that a trial costs no
imports. Each has a limit on memory and on time, and its messages go to ``PATH.log``.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys

MEMORY_BYTES = 6 << 30
"""Address space: what is imported (about 2 GiB of it, mostly libraries that are only mapped) and the model's own."""
SECONDS = 60
"""Of CPU time. One that only waits is ended too, after twenty times as long: a busy computer is no fault."""


def trial(path: str, arguments: list[str]) -> None:
    """In the child: run the command, end with its exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    signal.alarm(20 * SECONDS)
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from cimc.cli.main import run

    code = 99
    try:
        code = run([arguments[0], path, *arguments[1:]])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve until stdin ends."""
    for module in ("cimc.checker", "cimc.cli.check", "cimc.cli.compile", "cimc.sim.values", "cimc.frontend.importer"):
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            trial(line.rstrip("\n"), sys.argv[1:])
        _, status = os.waitpid(child, 0)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        print(code, flush=True)


if __name__ == "__main__":
    main()
