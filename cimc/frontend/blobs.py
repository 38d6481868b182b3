"""The large tensors of an ONNX file, found where they lie instead of read.

A model in one file is mostly the raw data of a few tensors. Parsing copies them: the file, the message and what is made of
it are then in memory at once. Here the file's outer structure (protobuf's wire format: fields of a number, a kind and a
length) is walked first, and a message is made in which every large tensor holds a *token* in place of its data: where in
the file the data lies. Only that small message is parsed.

A token begins with the SHA-256 of the file itself, which no file can hold. A file that is not plainly what exporters write
(fields split or repeated, groups, lengths that do not fit) is not skeletonised: it is parsed as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from mmap import mmap

from onnx import TensorProto

from cimc.mapped import MappedFile

LARGE = 1 << 14
"""Tensors with more bytes of data than this are found; so is whatever may hold one: shorter fields are not looked into."""
MAX_DEPTH = 64
MOST_FIELDS = 64
"""Of a tensor; one with more has its numbers written one by one."""
DIGEST_BYTES = 32
_NUMBER_BYTES = 8
TOKEN_BYTES = DIGEST_BYTES + 2 * _NUMBER_BYTES

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Numbers of fields, from onnx.proto: which messages hold which.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_DATA_TYPE, _RAW, _LOCATION = 2, 9, 14
_PACKED = {4: TensorProto.FLOAT, 10: TensorProto.DOUBLE}
"""Fields of numbers that lie in a file as their bytes lie in memory, and the element type that uses them."""


@dataclass(frozen=True)
class Blobs:
    """A file whose large tensors were left where they lie."""

    file: MappedFile
    digest: bytes


class _Odd(Exception):
    """The file is not plainly written."""


@dataclass(frozen=True)
class _Field:
    """A field of a message: its number and kind, where it begins, where its content does, and where it ends."""

    number: int
    kind: int
    begin: int
    content: int
    end: int


def skeleton(data: mmap, digest: bytes) -> bytes | None:
    """The message with tokens for the data of large tensors; None if there are none, or it is not plainly written."""
    try:
        made = b"".join(_message(data, 0, len(data), "model", digest, 0))
    except _Odd:
        return None
    return made if len(made) < len(data) else None


def located(data: bytes, digest: bytes) -> tuple[int, int] | None:
    """The offset and length that a tensor's raw data stands for, if it is a token."""
    if len(data) != TOKEN_BYTES or not data.startswith(digest):
        return None
    offset, length = data[DIGEST_BYTES:-_NUMBER_BYTES], data[-_NUMBER_BYTES:]
    return int.from_bytes(offset, "little"), int.from_bytes(length, "little")


def _message(data: mmap, at: int, end: int, what: str, digest: bytes, depth: int) -> Iterator[bytes]:
    """The pieces of a message's content."""
    if depth > MAX_DEPTH:
        raise _Odd
    if what == "tensor":
        yield from _tensor(data, at, end, digest)
        return
    begin = at
    for field in _fields(data, at, end):
        inner = _INSIDE[what].get(field.number) if field.kind == _BYTES else None
        if inner is None or field.end - field.content <= LARGE:
            continue
        yield data[begin : field.begin]
        content = b"".join(_message(data, field.content, field.end, inner, digest, depth + 1))
        yield _tagged(field.number, content)
        begin = field.end
    yield data[begin:end]


def _tensor(data: mmap, at: int, end: int, digest: bytes) -> Iterator[bytes]:
    fields = list(islice(_fields(data, at, end), MOST_FIELDS + 1))
    large = [f for f in fields if f.kind == _BYTES and f.end - f.content > LARGE]
    plain = len(large) == 1 and len(fields) <= MOST_FIELDS and all(f.number != _LOCATION for f in fields)
    if not plain or not _located(data, large[0], fields):
        yield data[at:end]
        return
    field = large[0]
    yield data[at : field.begin]
    place = (field.content, field.end - field.content)
    yield _tagged(_RAW, digest + b"".join(n.to_bytes(_NUMBER_BYTES, "little") for n in place))
    yield data[field.end : end]


def _located(data: mmap, field: _Field, fields: list[_Field]) -> bool:
    """Whether a tensor's one large field is all of its data."""
    if any(f.number in (_RAW, *_PACKED) for f in fields if f is not field):
        return False
    kinds = [_varint(data, f.content, f.end)[0] for f in fields if f.number == _DATA_TYPE and f.kind == _VARINT]
    return field.number == _RAW or (field.number in _PACKED and kinds == [_PACKED[field.number]])


def _fields(data: mmap, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        begin = at
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            length, content = _varint(data, at, end)
            at = content + length
        elif kind == _VARINT:
            content, (_, at) = at, _varint(data, at, end)
        elif kind in (_FIXED32, _FIXED64):
            content, at = at, at + (4 if kind == _FIXED32 else 8)
        else:
            raise _Odd
        if at > end or number == 0:
            raise _Odd
        yield _Field(number, kind, begin, content, at)


def _varint(data: mmap, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise _Odd


def _tagged(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return _number(number << 3 | _BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
