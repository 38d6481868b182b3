"""Files that commands write: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cimc import errors

DEVICES = ("/dev/", "/proc/")


def check_target(path: Path) -> None:
    """Raise REPORT_UNWRITABLE if a file cannot be written: commands ask before they work for minutes."""
    place = path.parent
    try:
        if path.is_dir():
            why = "it is a folder"
        elif not place.is_dir():
            why = f"there is no folder {place}"
        elif not os.access(path if path.exists() else place, os.W_OK):
            why = "permission denied"
        else:
            return
    except OSError as e:
        why = e.strerror or str(e)
    raise errors.REPORT_UNWRITABLE(path=path, why=why)


@contextmanager
def opened(path: Path) -> Generator[IO[bytes], None, None]:
    """A file to write: under another name beside it first, in its place once all is written, so that a full disk or an
    interrupt leaves what was there. Devices and pipes are written as they are. Raises REPORT_UNWRITABLE."""
    try:
        if str(path.absolute()).startswith(DEVICES) or (path.exists() and not path.is_file()):
            with path.open("wb") as stream:
                yield stream
            return
        target = Path(os.path.realpath(path))
        made = target.with_name(f".{target.name[:40]}.{os.getpid()}.part")
        try:
            with made.open("wb") as stream:
                yield stream
            os.replace(made, target)
        finally:
            made.unlink(missing_ok=True)
    except OSError as e:
        raise errors.REPORT_UNWRITABLE(path=path, why=e.strerror or str(e)) from None


def write(path: Path, text: str) -> None:
    """Write a text file. Raises REPORT_UNWRITABLE."""
    with opened(path) as stream:
        stream.write(text.encode("utf-8", "replace"))
