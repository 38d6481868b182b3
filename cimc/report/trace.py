"""A run's timeline as a Chrome trace (JSON), which Perfetto and chrome://tracing open: a process per tile, a thread per
unit. Written as it goes, so that its length does not matter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import IO

from cimc.sim.result import Event


class TraceWriter:
    """Writes events as they come. A context manager: the end of the file is written when it is left.

    Times are microseconds in this format; with ``clock_ghz`` they are those of the chip."""

    def __init__(self, stream: IO[str], clock_ghz: float) -> None:
        self._stream = stream
        self._scale = 1e-3 / clock_ghz
        self._threads: dict[tuple[int, str], int] = {}
        self._tiles: set[int] = set()
        self._first = True

    def __enter__(self) -> TraceWriter:
        self._stream.write('{"displayTimeUnit":"ns","traceEvents":[\n')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.write("\n]}\n")

    def write(self, events: Iterable[Event]) -> None:
        """Append events."""
        for event in events:
            thread = self._thread(event.tile, event.unit)
            origin = "" if event.origin is None else event.origin.node
            record = {
                "name": event.mnemonic,
                "cat": event.unit.split(":", 1)[0],
                "ph": "X",
                "pid": event.tile,
                "tid": thread,
                "ts": round(event.start * self._scale, 6),
                "dur": round((event.end - event.start) * self._scale, 6),
                "args": {"origin": origin, "line": event.line, "cycle": event.start},
            }
            self._record(record)

    def _thread(self, tile: int, unit: str) -> int:
        if tile not in self._tiles:
            self._tiles.add(tile)
            self._name("process_name", tile, 0, f"tile {tile}")
        key = (tile, unit)
        if key not in self._threads:
            self._threads[key] = len(self._threads) + 1
            self._name("thread_name", tile, self._threads[key], unit)
        return self._threads[key]

    def _name(self, what: str, tile: int, thread: int, name: str) -> None:
        self._record({"name": what, "ph": "M", "pid": tile, "tid": thread, "args": {"name": name}})

    def _record(self, record: Mapping[str, object]) -> None:
        self._stream.write("" if self._first else ",\n")
        self._first = False
        json.dump(record, self._stream, separators=(",", ":"))


def write_trace(stream: IO[str], events: Iterable[Event], clock_ghz: float) -> None:
    """Write a whole trace."""
    with TraceWriter(stream, clock_ghz) as writer:
        writer.write(events)
