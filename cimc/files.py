"""Files of which nobody knows the size: read up to a limit; and files that commands write: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cimc import errors

DEVICES = ("/dev/", "/proc/")


def read_bytes(path: Path, what: str, most: int) -> bytes:
    """A whole file, called ``what`` in messages, of at most ``most`` bytes. Raises FILE_NOT_FOUND, FILE_UNREADABLE."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise errors.FILE_UNREADABLE(what=what, path=path, why="it is no regular file")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > most:
                why = f"it has {size} bytes, and at most {most} are read"
                raise errors.FILE_UNREADABLE(what=what, path=path, why=why)
            return stream.read(most)
    except FileNotFoundError:
        raise errors.FILE_NOT_FOUND(what=what, path=path) from None
    except OSError as e:
        raise errors.FILE_UNREADABLE(what=what, path=path, why=e.strerror or str(e)) from None


def check_name(path: Path, what: str) -> None:
    """Raise FILE_UNREADABLE for a path that is no UTF-8: other programs, and texts that name it, could not take it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        why = "its path is no UTF-8: rename it, or make a link to it"
        raise errors.FILE_UNREADABLE(what=what, path=path, why=why) from None


def read_text(path: Path, what: str, most: int) -> str:
    """The same of a text. Raises FILE_NOT_FOUND, FILE_UNREADABLE."""
    try:
        return read_bytes(path, what, most).decode("utf-8")
    except UnicodeDecodeError as e:
        raise errors.FILE_UNREADABLE(what=what, path=path, why=f"byte {e.start} is not UTF-8") from None


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
