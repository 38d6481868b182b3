"""Tensor data of an ONNX file as NumPy arrays, believing nothing the file says about sizes and places.

Raw data is used in place, external data is memory-mapped. Only the reader uses this file: it sees protobufs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cimc import errors
from cimc.frontend.blobs import Blobs, located
from cimc.frontend.record import Array, Unreadable
from cimc.mapped import MappedFile

MAX_DIM = 1 << 40
MAX_RANK = 32

_PACKED: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.INT32: "int32_data",
    TensorProto.INT16: "int32_data",
    TensorProto.INT8: "int32_data",
    TensorProto.UINT16: "int32_data",
    TensorProto.UINT8: "int32_data",
    TensorProto.BOOL: "int32_data",
}
_BITS: dict[int, type[np.uint8] | type[np.uint16]] = {
    TensorProto.FLOAT16: np.uint16,
    TensorProto.BFLOAT16: np.uint16,
    TensorProto.FLOAT8E4M3FN: np.uint8,
    TensorProto.FLOAT8E4M3FNUZ: np.uint8,
    TensorProto.FLOAT8E5M2: np.uint8,
    TensorProto.FLOAT8E5M2FNUZ: np.uint8,
    TensorProto.FLOAT8E8M0: np.uint8,
}
_IN_BYTE: dict[int, int] = {
    TensorProto.INT4: 2,
    TensorProto.UINT4: 2,
    TensorProto.FLOAT4E2M1: 2,
    TensorProto.INT2: 4,
    TensorProto.UINT2: 4,
}
"""How many elements are packed into a byte."""
_KNOWN = {*_PACKED, *_BITS, *_IN_BYTE}


@dataclass(frozen=True)
class External:
    """An external data file that was opened."""

    path: Path
    size: int
    mapped: MappedFile | None  # None for an empty file


@dataclass
class Tensors:
    """Reads the tensors of one model. ``blobs``: where the data of large tensors lies that the message leaves out.
    ``files`` collects the external files that were opened, by location."""

    model: Path
    blobs: Blobs | None = None
    files: dict[str, External] = field(default_factory=dict[str, External])

    def array(self, tensor: onnx.TensorProto, where: str) -> Array | Unreadable:
        """The tensor's values. Raises CimcError if its data contradicts its type and shape; element types that
        nothing here can hold (strings, complex) come back as Unreadable."""
        shape = self._shape(tensor, where)
        if tensor.data_type not in _KNOWN:
            return Unreadable(f"tensors of element type {dtype_name(tensor.data_type)} are not supported")
        if tensor.HasField("segment"):
            raise self._malformed(where, "is stored in segments, which no exporter writes")
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor, shape, where)
        if tensor.data_type in _IN_BYTE:
            return self._packed(tensor, shape, where)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if tensor.HasField("raw_data"):
            return self._raw(tensor.raw_data, dtype, shape, where)
        return self._typed(tensor, dtype, shape, where)

    def _shape(self, tensor: onnx.TensorProto, where: str) -> tuple[int, ...]:
        shape = tuple(tensor.dims)
        if len(shape) > MAX_RANK:
            raise self._malformed(where, f"has {len(shape)} dimensions")
        if any(d < 0 or d > MAX_DIM for d in shape):
            raise self._malformed(where, f"has the impossible shape {list(shape)}")
        return shape

    def _raw(self, data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...], where: str) -> Array:
        if self.blobs is not None and (place := located(data, self.blobs.digest)):
            offset, length = place
            self._size(length, math.prod(shape) * dtype.itemsize, shape, dtype, where)
            return self.blobs.file.array(offset, dtype, shape)
        self._size(len(data), math.prod(shape) * dtype.itemsize, shape, dtype, where)
        return np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)

    def _typed(
        self, tensor: onnx.TensorProto, dtype: np.dtype[np.generic], shape: tuple[int, ...], where: str
    ) -> Array:
        if tensor.data_type in _BITS:
            bits = np.array(tensor.int32_data, dtype=np.int64)
            self._size(bits.size, math.prod(shape), shape, dtype, where)
            return bits.astype(_BITS[tensor.data_type]).view(dtype).reshape(shape)
        name = _PACKED[tensor.data_type]
        values = getattr(tensor, name)
        self._size(len(values), math.prod(shape), shape, dtype, where)
        wide = np.array(values, dtype=np.int64 if name == "int32_data" else None)
        return wide.astype(dtype).reshape(shape)

    def _packed(self, tensor: onnx.TensorProto, shape: tuple[int, ...], where: str) -> Array:
        need = -(-math.prod(shape) // _IN_BYTE[tensor.data_type])
        if tensor.HasField("raw_data"):
            return _unpacked(tensor.data_type, shape, self._raw(tensor.raw_data, np.dtype(np.uint8), (need,), where))
        self._size(len(tensor.int32_data), need, shape, np.dtype(np.uint8), where)
        return numpy_helper.to_array(tensor)

    def _size(self, have: int, need: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], where: str) -> None:
        if have != need:
            size = "x".join(map(str, shape)) or "scalar"
            raise self._malformed(where, f"claims {size} of {dtype} but its data holds {have}, not {need}")

    def _malformed(self, where: str, why: str) -> errors.CimcError:
        return errors.MODEL_MALFORMED(path=self.model, where=where, why=why)

    def _external(self, tensor: onnx.TensorProto, shape: tuple[int, ...], where: str) -> Array | Unreadable:
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        file = self._resolve(tensor.name, location)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        need = -(-math.prod(shape) // _IN_BYTE.get(tensor.data_type, 1)) * dtype.itemsize
        offset = self._number(tensor.name, location, entries.get("offset", "0"), "offset")
        length = self._number(tensor.name, location, entries.get("length", str(need)), "length")
        if length != need:
            raise self._bad(tensor.name, location, f"gives {length} bytes where the tensor needs {need}")
        if offset + need > file.size:
            raise self._bad(
                tensor.name, location, f"ends at byte {file.size}, before byte {offset + need} that the tensor needs"
            )
        if need == 0 or file.mapped is None:
            return np.zeros(shape, dtype)
        if tensor.data_type in _IN_BYTE:
            return _unpacked(tensor.data_type, shape, file.mapped.array(offset, np.dtype(np.uint8), (need,)))
        return file.mapped.array(offset, dtype, shape)

    def _number(self, tensor: str, location: str, text: str, what: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise self._bad(tensor, location, f"has the {what} {text[:40]!r}, which is no number of bytes")
        return int(text)

    def _resolve(self, tensor: str, location: str) -> External:
        """The data file: beside the model or below, never outside its folder, never through a link that leaves it."""
        if location in self.files:
            return self.files[location]
        if not location or "\0" in location:
            raise self._bad(tensor, location[:80].replace("\0", "?"), "names no file")
        name = Path(location.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.as_posix().partition("/")[0]:
            raise self._bad(tensor, location, "points outside the model's folder")
        folder = self.model.parent.resolve()
        path = folder / name
        if not path.exists():
            raise self._bad(tensor, location, "is missing")
        real = path.resolve()
        # A model kept as links into a content store (one link per file, model and data alike) is the user's own doing.
        allowed = {folder, self.model.resolve().parent}
        if not any(real.is_relative_to(a) for a in allowed):
            raise self._bad(tensor, location, "is a link that leaves the model's folder")
        if not real.is_file():
            raise self._bad(tensor, location, "is not a file")
        size = real.stat().st_size
        try:
            self.files[location] = External(real, size, MappedFile(real) if size else None)
        except OSError as e:
            raise self._bad(tensor, location, f"cannot be read: {e.strerror or e}") from e
        return self.files[location]

    def _bad(self, tensor: str, location: str, why: str) -> errors.CimcError:
        return errors.MODEL_EXTERNAL(path=self.model, tensor=tensor, location=location, why=why)


def _unpacked(data_type: int, shape: tuple[int, ...], packed: Array) -> Array:
    """Numbers of 4 or 2 bits, several to a byte."""
    inline = TensorProto(data_type=data_type, dims=shape, raw_data=packed.tobytes())
    return numpy_helper.to_array(inline)


def dtype_name(code: int) -> str:
    """The name ONNX gives an element type's number."""
    return TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else f"number {code}"


def dtype_of(code: int) -> np.dtype[np.generic] | Unreadable:
    """NumPy's type for ONNX's number."""
    if code not in _KNOWN:
        return Unreadable(f"element type {dtype_name(code)} is not supported")
    return np.dtype(helper.tensor_dtype_to_np_dtype(code))
