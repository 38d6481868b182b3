"""Arrays that are pages of a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cimc import mapped
from cimc.mapped import MappedFile

SIZE = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> MappedFile:
    """A mapping of 4 MiB of numbers in order."""
    path = tmp_path / "data"
    np.arange(SIZE, dtype=np.float32).tofile(path)
    return MappedFile(path)


def resident(array: np.ndarray) -> int:
    """Bytes of the mapping around an array that are in memory (Linux: Rss in /proc/self/smaps)."""
    at, inside = array.ctypes.data, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(span[1], 16) <= at < int(span[2], 16)
        elif inside and line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no mapping holds the array")


def test_views_at_any_offset(file: MappedFile) -> None:
    found = file.array(8, np.dtype(np.float32), (2, 3))
    assert found.tolist() == [[2, 3, 4], [5, 6, 7]]
    assert not found.flags.writeable
    odd = file.array(9, np.dtype(np.float32), (4,))
    assert odd.tobytes() == np.arange(8, dtype=np.float32).tobytes()[9:25]
    assert file.array(SIZE * 4, np.dtype(np.int8), (0, 3)).shape == (0, 3)
    with pytest.raises(ValueError, match="buffer"):
        file.array(4, np.dtype(np.float32), (SIZE,))


def test_what_is_a_view_of_a_file(file: MappedFile) -> None:
    whole = file.array(0, np.dtype(np.float32), (1024, 1024))
    assert mapped.is_mapped(whole)
    assert mapped.is_mapped(whole.T[3:, ::2].reshape(-1, 1, 512))
    assert not mapped.is_mapped(whole + 1)
    assert not mapped.is_mapped(np.frombuffer(b"1234", np.uint8))


def test_pages_are_given_back_and_come_again(file: MappedFile) -> None:
    whole = file.array(0, np.dtype(np.float32), (1024, 1024))
    total = float(whole.sum(dtype=np.float64))
    assert resident(whole) == SIZE * 4
    mapped.release(whole[512:].T)
    assert resident(whole) <= SIZE * 2 + 65536
    assert float(whole.sum(dtype=np.float64)) == total
    mapped.release(whole)
    assert resident(whole) == 0
    assert float(whole.sum(dtype=np.float64)) == total


def test_what_lies_in_no_file_stays(file: MappedFile) -> None:
    array = np.arange(6)
    mapped.release(array)
    mapped.release(file.array(0, np.dtype(np.float32), (0,)))
    assert array.tolist() == [0, 1, 2, 3, 4, 5]
