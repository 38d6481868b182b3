"""Reading .npz files that nobody vouches for."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Unreadable(Exception):
    """Why a file cannot be read."""


def read(path: Path, most: int) -> dict[str, NDArray[np.generic]]:
    """The arrays of an .npz by name. Pickled objects are refused, and files that unpack to more than ``most`` bytes, before
    anything is read. Raises Unreadable."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > most:
            raise Unreadable(f"it unpacks to {total} bytes, and {most} is the limit")
        with np.load(path, allow_pickle=False) as found:
            return {name: np.asarray(found[name]) for name in found.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as e:
        raise Unreadable(str(e)) from None
