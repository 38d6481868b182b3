"""What commands put out: reports and notes on the terminal, data, arrays and timelines into files."""

from __future__ import annotations

import io
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cimc.report.jsontext import Json
from cimc.report.render import Block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cimc.arch.spec import ChipSpec
    from cimc.sim.result import RunResult


@contextmanager
def progress(quiet: bool, verbose: bool) -> Generator[None, None, None]:
    """Progress on stderr for what is done within."""
    from cimc.report.progress import shown

    with shown(quiet=quiet, verbose=verbose):
        yield


def note(text: str, quiet: bool) -> None:
    """A remark on stderr."""
    if not quiet:
        click.echo(text, err=True)


def as_json(data: Json, target: str) -> None:
    """Write JSON where ``--json`` says: a path, or ``-`` for stdout."""
    from cimc.report.jsontext import dumps, write

    if target == "-":
        sys.stdout.write(dumps(data) + "\n")
    else:
        write(data, target)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write outputs as an .npz under their names, of types that NumPy has not the bytes; raises REPORT_UNWRITABLE if the
    file cannot be written."""
    import numpy as np

    from cimc import files

    stored = {n: a if a.dtype.isbuiltin == 1 else a.view(f"V{a.itemsize}") for n, a in arrays.items()}
    with files.opened(path) as stream:
        np.savez(stream, allow_pickle=False, **stored)  # pyright: ignore[reportArgumentType]  # arrays by name


def save_bytes(path: Path, data: bytes) -> None:
    """Write a file; raises REPORT_UNWRITABLE if it cannot be."""
    from cimc import files

    with files.opened(path) as stream:
        stream.write(data)


def save_run(result: RunResult, chip: ChipSpec, outputs: Path | None, trace: Path | None) -> None:
    """Write a run's outputs (.npz) and its timeline, each if a path was given and there is one. Raises REPORT_UNWRITABLE."""
    from cimc import files
    from cimc.report.trace import write_trace

    if outputs is not None and result.outputs is not None:
        save_arrays(outputs, result.outputs)
    if trace is None or result.timing is None:
        return
    with files.opened(trace) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8")
        write_trace(text, result.timing.events, chip.clock_ghz)
        text.detach()


def show(blocks: list[Block]) -> None:
    """A report on stdout: drawn on a terminal, where NO_COLOR is obeyed (by rich), else as plain text."""
    if sys.stdout.isatty():
        from cimc.report.terminal import write_terminal

        write_terminal(blocks, sys.stdout)
        return
    from cimc.report.render import plain

    sys.stdout.write(plain(blocks))
