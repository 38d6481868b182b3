"""Reading .npz files that nobody vouches for."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray


class _Unreadable(Exception):
    """Why a file cannot be read."""


Refuse = Callable[[str], Exception]
"""Makes the error that is raised, of a reason."""


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Arrays(Mapping[str, NDArray[np.generic]]):
    """The arrays of an .npz by name, each read when it is first asked for; ``outlines`` says their shapes and types before
    anything is. What cannot be read raises what ``refuse`` makes of why."""

    def __init__(self, path: Path, outlines: Mapping[str, NDArray[np.generic]], refuse: Refuse) -> None:
        self.path = path
        self.outlines = outlines
        self.refuse = refuse
        self._read: dict[str, NDArray[np.generic]] = {}

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        if name not in self._read and name in self.outlines:
            with _told(self.refuse), np.load(self.path, allow_pickle=False) as found:
                self._read[name] = np.asarray(found[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self.outlines

    def __iter__(self) -> Iterator[str]:
        return iter(self.outlines)

    def __len__(self) -> int:
        return len(self.outlines)


def outlines(given: Mapping[str, NDArray[np.generic]]) -> Mapping[str, NDArray[np.generic]]:
    """Arrays of the shapes and types of these, to look at those alone: of a file that is not read yet, without numbers."""
    return given.outlines if isinstance(given, Arrays) else given


def without(given: Mapping[str, NDArray[np.generic]], names: Collection[str]) -> Mapping[str, NDArray[np.generic]]:
    """The same but for some names, and without reading what was not read."""
    kept = {n: a for n, a in outlines(given).items() if n not in names}
    return Arrays(given.path, kept, given.refuse) if isinstance(given, Arrays) else kept


def read(path: Path, most: int, refuse: Refuse) -> Arrays:
    """The arrays of an .npz by name. Pickled objects are refused, and files that unpack to more than ``most`` bytes or whose
    arrays claim to be of another size than they are, before anything is read: ``refuse`` makes the error of the reason why."""
    with _told(refuse), zipfile.ZipFile(path) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        if total > most:
            raise _Unreadable(f"it unpacks to {total} bytes, and {most} is the limit")
        found: dict[str, NDArray[np.generic]] = {}
        for entry in archive.infolist():
            with archive.open(entry) as stream:
                found[entry.filename.removesuffix(".npy")] = _outline(entry, stream)
    return Arrays(path, found, refuse)


@contextmanager
def _told(refuse: Refuse) -> Generator[None, None, None]:
    """Whatever is wrong with a file within, as ``refuse`` says it."""
    try:
        yield
    except (_Unreadable, OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as e:
        raise refuse(str(e)) from None


def _outline(entry: zipfile.ZipInfo, stream: IO[bytes]) -> NDArray[np.generic]:
    """An array of one number, seen in the shape that the header says. Raises _Unreadable for what is no array, holds objects,
    or has a header that lies about its size: memory would be taken for it."""
    try:
        shape, _, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    except (ValueError, KeyError):
        raise _Unreadable(f"its part {entry.filename} is no array as numpy.savez writes it") from None
    if dtype.hasobject:
        raise _Unreadable(f"its part {entry.filename} holds Python objects, which are not read")
    claimed, there = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
    if claimed != there:
        raise _Unreadable(f"its part {entry.filename} claims {claimed} bytes of numbers and has {there}")
    return np.broadcast_to(np.zeros((), dtype), shape)
