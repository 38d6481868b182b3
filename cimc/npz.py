"""Reading .npz files that nobody vouches for."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray


class Unreadable(Exception):
    """Why a file cannot be read."""


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: Path, most: int) -> dict[str, NDArray[np.generic]]:
    """The arrays of an .npz by name. Pickled objects are refused, and files that unpack to more than ``most`` bytes or whose
    arrays claim to be of another size than they are, before anything is read. Raises Unreadable."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
            if total > most:
                raise Unreadable(f"it unpacks to {total} bytes, and {most} is the limit")
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    _check(entry, stream)
        with np.load(path, allow_pickle=False) as found:
            return {name: np.asarray(found[name]) for name in found.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as e:
        raise Unreadable(str(e)) from None


def _check(entry: zipfile.ZipInfo, stream: IO[bytes]) -> None:
    """Raise Unreadable for what is no array, or one whose header lies about its size: memory would be taken for it."""
    try:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    except (ValueError, KeyError):
        raise Unreadable(f"its part {entry.filename} is no array as numpy.savez writes it") from None
    claimed, there = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
    if not dtype.hasobject and claimed != there:
        raise Unreadable(f"its part {entry.filename} claims {claimed} bytes of numbers and has {there}")
