"""ONNX files → records. With ``tensors.py`` and ``onnx_writer.py`` the only place that knows protobufs.

The file is untrusted: its size is looked at before it is read, names, counts, types and data are checked while it is
turned into records, and whatever is wrong is one clear error. ``onnx.checker`` is not asked: it refuses graphs that
onnxruntime runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto

from cimc import errors, files
from cimc.frontend import order
from cimc.frontend.blobs import Blobs, skeleton
from cimc.frontend.record import (
    Array,
    AttrRef,
    AttrValue,
    Group,
    OnnxFunction,
    OnnxGraph,
    OnnxModel,
    OnnxNode,
    TensorType,
    Unreadable,
)
from cimc.frontend.tensors import MAX_DIM, MAX_RANK, Tensors, dtype_of
from cimc.frontend.utf8 import bad_text
from cimc.mapped import MappedFile

MAX_FILE = (1 << 31) - 1
"""Protobuf's own limit on a message."""
MAX_NODES = 1_000_000
MAX_DEPTH = 24
MAX_HASHED = 1 << 36
OPSETS = range(7, 29)
NAMELESS = frozenset(("", "?", "*", "-1", "None"))
"""What exporters write in the place of a dimension's name when it has none (Paddle ``?`` and the number -1, keras2onnx
``None``): two of them are two sizes."""


def locate(path: Path) -> Path:
    """The model file: the path itself, or ``model.onnx`` (else the only ``.onnx`` file) in a folder."""
    if not path.exists():
        raise errors.FILE_NOT_FOUND(what="model", path=path)
    if not path.is_dir():
        return path
    if (path / "model.onnx").is_file():
        return path / "model.onnx"
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        why = "it is a folder without model.onnx" + (f" and with {len(found)} other .onnx files" if found else "")
        raise errors.FILE_UNREADABLE(what="model", path=path, why=why)
    return found[0]


def read(path: Path) -> OnnxModel:
    """Read a model file. Raises CimcError for anything that is not a readable ONNX model."""
    path = locate(path)
    _check(path)
    digest = hashlib.sha256()
    _hash_file(digest, path)
    proto, blobs = _parse(path, digest.digest())
    reader = _Reader(path, proto, blobs)
    graph = reader.graph(proto.graph, "graph", 0)
    functions = reader.functions(proto.functions)
    for location in sorted(reader.tensors.files):
        _hash_file(digest, reader.tensors.files[location].path)
    return OnnxModel(path, graph, functions, reader.opsets, digest.hexdigest())


def _check(path: Path) -> None:
    files.check_name(path.parent.resolve() / path.name, "model")  # onnxruntime takes no other
    if not path.is_file():
        raise errors.FILE_UNREADABLE(what="model", path=path, why="it is not a regular file")
    size = path.stat().st_size
    if size > MAX_FILE:
        fix = "keep the weights in an external data file (onnx.save with save_as_external_data)"
        raise errors.MODEL_TOO_LARGE(
            path=path, what="the file", size=f"{size} bytes", limit=f"{MAX_FILE} bytes", fix=fix
        )
    if size == 0:
        raise errors.MODEL_NOT_ONNX(path=path, why="the file is empty")


def _parse(path: Path, digest: bytes) -> tuple[onnx.ModelProto, Blobs | None]:
    """The model's message; if large tensors were left where they lie, where that is."""
    try:
        mapped = MappedFile(path)
        small = skeleton(mapped.pages, digest)
        data = path.read_bytes() if small is None else small
    except OSError as e:
        raise errors.FILE_UNREADABLE(what="model", path=path, why=e.strerror or str(e)) from e
    if data.startswith(b"version https://git-lfs"):
        raise errors.MODEL_NOT_ONNX(path=path, why="it is a Git LFS pointer, not the file it points to")
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError as e:
        raise errors.MODEL_NOT_ONNX(path=path, why="its bytes are no protobuf message, or are cut short") from e
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise errors.MODEL_NOT_ONNX(path=path, why="it holds no graph")
    if place := bad_text(proto):
        raise errors.MODEL_NOT_ONNX(path=path, why=f"the text of a field {place} is no UTF-8")
    return proto, None if small is None else Blobs(mapped, digest)


def _hash_file(digest: hashlib._Hash, path: Path) -> None:  # pyright: ignore[reportPrivateUsage]  # the type's only name
    try:
        with path.open("rb") as f:
            left = MAX_HASHED
            while left > 0 and (block := f.read(1 << 22)):
                digest.update(block)
                left -= len(block)
    except OSError as e:
        raise errors.FILE_UNREADABLE(what="model", path=path, why=e.strerror or str(e)) from e


class _Reader:
    """Turns the parts of one model into records, checking as it goes."""

    def __init__(self, path: Path, proto: onnx.ModelProto, blobs: Blobs | None = None) -> None:
        self.path = path
        self.tensors = Tensors(path, blobs)
        self.opsets = self.versions(proto.opset_import)
        self.nodes = 0
        self.names: set[str] = set()

    def malformed(self, where: str, why: str) -> errors.CimcError:
        return errors.MODEL_MALFORMED(path=self.path, where=where, why=why)

    def versions(self, imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in imports:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            found[domain] = max(found.get(domain, 0), entry.version)
        if "" in found and not 1 <= found[""] <= OPSETS[-1]:
            why = f"uses opset {found['']}; opsets {OPSETS[0]} to {OPSETS[-1]} can be read"
            raise self.malformed("opset_import", why)
        return found

    def graph(self, proto: onnx.GraphProto, where: str, depth: int) -> OnnxGraph:
        if depth > MAX_DEPTH:
            raise self.malformed(where, f"subgraphs are nested more than {MAX_DEPTH} deep")
        if proto.sparse_initializer:
            raise self.malformed(where, "sparse initializers are not supported")
        initializers: dict[str, Array | Unreadable] = {}
        for t in proto.initializer:
            if not t.name or t.name in initializers:
                raise self.malformed(
                    where, f"two initializers are called '{t.name}'" if t.name else "an unnamed initializer"
                )
            initializers[t.name] = self.tensors.array(t, f"initializer '{t.name}'")
        inputs = self.values(proto.input, where)
        nodes = self.node_list(proto.node, where, depth)
        outputs = tuple(o.name for o in proto.output)
        order.check_single_assignment(self.path, where, inputs, initializers, nodes)
        ordered = order.executable(self.path, where, nodes)
        declared = dict(self.values((*proto.value_info, *proto.output), where, unique=False))
        return OnnxGraph(proto.name, ordered, inputs, outputs, initializers, declared)

    def values(
        self, infos: Sequence[onnx.ValueInfoProto], where: str, *, unique: bool = True
    ) -> tuple[tuple[str, TensorType], ...]:
        found: list[tuple[str, TensorType]] = []
        seen: set[str] = set()
        for info in infos:
            if unique and (not info.name or info.name in seen):
                raise self.malformed(where, f"two inputs are called '{info.name}'" if info.name else "an unnamed input")
            seen.add(info.name)
            found.append((info.name, self.value_type(info, where)))
        return tuple(found)

    def value_type(self, info: onnx.ValueInfoProto, where: str) -> TensorType:
        kind = info.type.WhichOneof("value")
        if kind is None:
            return TensorType(Unreadable("its type is not declared"), None)
        if kind in ("sequence_type", "optional_type"):
            why = f"it is a {kind.removesuffix('_type')}, not a tensor: its length is known with inputs only"
            return TensorType(Group(why, kind == "optional_type"), None)
        if kind != "tensor_type":
            return TensorType(Unreadable(f"it is a {kind.removesuffix('_type')}, not a tensor"), None)
        tensor = info.type.tensor_type
        dtype = dtype_of(tensor.elem_type)
        if not tensor.HasField("shape"):
            return TensorType(dtype, None)
        if len(tensor.shape.dim) > MAX_RANK:
            raise self.malformed(f"{where}, value '{info.name}'", f"has {len(tensor.shape.dim)} dimensions")
        return TensorType(dtype, tuple(self.dim(d, info.name, where) for d in tensor.shape.dim))

    def dim(self, dim: onnx.TensorShapeProto.Dimension, name: str, where: str) -> int | str | None:
        if dim.HasField("dim_param") and dim.dim_param.strip() not in NAMELESS:
            return " ".join(dim.dim_param.split())
        if not dim.HasField("dim_value") or dim.dim_value < 0:
            return None
        if dim.dim_value > MAX_DIM:
            raise self.malformed(f"{where}, value '{name}'", f"has a dimension of {dim.dim_value}")
        return dim.dim_value

    def node_list(self, protos: Sequence[onnx.NodeProto], where: str, depth: int) -> tuple[OnnxNode, ...]:
        self.nodes += len(protos)
        if self.nodes > MAX_NODES:
            fix = "split the model"
            raise errors.MODEL_TOO_LARGE(
                path=self.path, what="the number of nodes", size=self.nodes, limit=MAX_NODES, fix=fix
            )
        return tuple(self.node(p, i, where, depth) for i, p in enumerate(protos))

    def node(self, proto: onnx.NodeProto, index: int, where: str, depth: int) -> OnnxNode:
        if not proto.op_type:
            raise self.malformed(where, f"node {index} ('{proto.name}') has no op type")
        name = self.unique(proto.name or f"{proto.op_type}_{index}")
        attributes: dict[str, AttrValue] = {}
        for a in proto.attribute:
            if a.name in attributes:
                raise self.malformed(f"node '{name}'", f"gives attribute '{a.name}' twice")
            attributes[a.name] = self.attribute(a, f"node '{name}', attribute '{a.name}'", depth)
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        if not domain and self.opsets.get("", OPSETS[0]) < OPSETS[0]:
            self.unchanged(proto.op_type)
        captures = order.captures(v for v in attributes.values() if isinstance(v, OnnxGraph))
        return OnnxNode(proto.op_type, domain, name, tuple(proto.input), tuple(proto.output), attributes, captures)

    def unchanged(self, op_type: str) -> None:
        """Operators of opsets before 7, when broadcasting changed, are read if they are the same in 7."""
        version = self.opsets[""]
        versions = [_since(op_type, v) for v in (version, OPSETS[0])]
        if versions[0] != versions[1]:
            why = (
                f"uses opset {version}, in which '{op_type}' is another operator than from {OPSETS[0]} to {OPSETS[-1]}"
            )
            raise self.malformed("opset_import", f"{why}, which can be read")

    def unique(self, name: str) -> str:
        """Exporters leave nodes unnamed or give one name to several: origins need one name each."""
        fresh, n = name, 1
        while fresh in self.names:
            fresh, n = f"{name}#{n}", n + 1
        self.names.add(fresh)
        return fresh

    def attribute(self, a: onnx.AttributeProto, where: str, depth: int) -> AttrValue:
        if a.ref_attr_name:
            return AttrRef(a.ref_attr_name)
        match a.type:
            case AttributeProto.INT:
                return a.i
            case AttributeProto.FLOAT:
                return a.f
            case AttributeProto.STRING:
                return _text(a.s)
            case AttributeProto.INTS:
                return tuple(a.ints)
            case AttributeProto.FLOATS:
                return tuple(a.floats)
            case AttributeProto.STRINGS:
                return tuple(s.decode("utf-8", "replace") for s in a.strings)
            case AttributeProto.TENSOR:
                return self.tensors.array(a.t, where)
            case AttributeProto.GRAPH:
                return self.graph(a.g, where, depth + 1)
            case _:
                return Unreadable(f"attributes of kind {a.type} are not supported")

    def functions(self, protos: Sequence[onnx.FunctionProto]) -> Mapping[tuple[str, str], OnnxFunction]:
        found: dict[tuple[str, str], OnnxFunction] = {}
        for p in protos:
            key = ("" if p.domain == "ai.onnx" else p.domain, p.name)
            where = f"function '{p.domain}::{p.name}'"
            if key in found:
                raise self.malformed(where, "is defined twice")
            found[key] = self.function(p, where)
        return found

    def function(self, p: onnx.FunctionProto, where: str) -> OnnxFunction:
        nodes = self.node_list(p.node, where, 1)
        kind = TensorType(Unreadable("a function's inputs have no types"), None)
        order.check_single_assignment(self.path, where, tuple((i, kind) for i in p.input), {}, nodes)
        ordered = order.executable(self.path, where, nodes)
        defaults = {a.name: self.attribute(a, f"{where}, attribute '{a.name}'", 1) for a in p.attribute_proto}
        opsets = {**self.opsets, **self.versions(p.opset_import)}
        domain = "" if p.domain == "ai.onnx" else p.domain
        return OnnxFunction(
            domain, p.name, tuple(p.input), tuple(p.output), tuple(p.attribute), defaults, ordered, opsets
        )


def _since(op_type: str, version: int) -> int:
    """Since when an operator is what it is in a version; 0 if there is none of that name."""
    try:
        return onnx.defs.get_schema(op_type, version, "").since_version
    except onnx.defs.SchemaError:
        return 0


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def read_function(proto: onnx.FunctionProto) -> OnnxFunction:
    """A function that the ONNX standard itself defines (the body of an op), as a record."""
    empty = onnx.ModelProto()
    return _Reader(Path("onnx"), empty).function(proto, f"function '{proto.name}'")
