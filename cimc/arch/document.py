"""A hardware file as plain data that still knows where everything stands in the text.

YAML 1.2 is composed into nodes by ruamel.yaml and read from those here, so that nothing is ever constructed from a tag,
duplicate keys are all found, and every key keeps its line and column. A number is either bare or
``{value: 1.67, source: "..."}``; any mapping may carry a ``source``, which holds for the numbers inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cimc import errors
from cimc.errors import Collector, Source

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
Path = tuple[str | int, ...]

MAX_BYTES = 128 * 1024  # far more than a hardware file needs; a bound on what a hostile one can cost
_MAX_NODES = 20_000  # aliases can blow a small text up
_MAX_BRACKETS = 2000  # the scanner takes quadratic time over open brackets
_MAX_DEPTH = 24
_MAX_EXCERPT = 160  # characters of a line that a message shows
_TAG = "tag:yaml.org,2002:"


@dataclass
class Document:
    """``data``: plain values. ``places``: where the value at a path stands. ``keys``: where its key stands.
    ``sources``: what the file says about where a number comes from, by path."""

    path: str
    lines: Sequence[str]
    data: dict[str, Plain] = field(default_factory=dict[str, Plain])
    places: dict[Path, Source] = field(default_factory=dict[Path, Source])
    keys: dict[Path, Source] = field(default_factory=dict[Path, Source])
    sources: dict[Path, str] = field(default_factory=dict[Path, str])

    def source(self, line: int, column: int) -> Source:
        """The place at a zero-based line and column."""
        text = self.lines[line].replace("\t", " ") if line < len(self.lines) else ""
        return Source(self.path, line + 1, column + 1, text[:_MAX_EXCERPT] if column < _MAX_EXCERPT else "")

    def nearest(self, path: Path) -> Source:
        """The place of the value at a path, or of the innermost thing around it that stands in the text."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path) or self.source(0, 0)


def dotted(path: Path) -> str:
    """A path as people write it: ``tiles.cim.core.crossbar.rows``; the whole file: ``(top level)``."""
    return ".".join(str(p) for p in path) or "(top level)"


def read(text: str, path: str) -> Document:
    """Parse the text of a hardware file. Raises the diagnostics of section "hardware" for a text that is too large, no
    YAML, or says a key twice (all of them at once)."""
    if len(text) > MAX_BYTES:
        raise errors.HW_TOO_LARGE(path=path, size=len(text), limit=MAX_BYTES)
    document = Document(path, text.splitlines())
    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        raise errors.HW_YAML(why=f"it has more than {_MAX_BRACKETS} brackets", source=document.source(0, 0))
    root = _compose(text, document)
    if not isinstance(root, MappingNode):
        raise errors.HW_YAML(why="a mapping of keys to values is needed at the top", source=document.source(0, 0))
    reader = _Reader(document)
    data = reader.value(root, (), None)
    reader.faults.raise_if_any()
    assert isinstance(data, dict)
    document.data = data
    return document


def _compose(text: str, document: Document) -> Node | None:
    try:
        parser: Any = YAML(typ="safe", pure=True)
        return parser.compose(text)
    except MarkedYAMLError as e:
        fault: Any = e
        mark = fault.problem_mark or fault.context_mark
        where = document.source(mark.line, mark.column) if isinstance(mark, StringMark) else document.source(0, 0)
        why = str(fault.problem or fault.context or "it cannot be parsed")
        raise errors.HW_YAML(why=why, source=where) from None
    except YAMLError as e:
        raise errors.HW_YAML(why=str(e).splitlines()[0], source=document.source(0, 0)) from None
    except RecursionError:
        raise errors.HW_YAML(why="it is nested too deeply", source=document.source(0, 0)) from None


class _Reader:
    """Nodes → plain data, gathering every fault on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.faults = Collector()
        self._nodes = 0

    def value(self, node: Node, path: Path, default_source: str | None) -> Plain:
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise errors.HW_YAML(why="it is nested too deeply or too large", source=self._at(node))
        self.document.places[path] = self._at(node)
        if not isinstance(node, ScalarNode) and (tag := _content(node)[0]) not in ("map", "seq"):
            self.faults.add(errors.HW_YAML(why=f"the tag {tag[:60]!r} means nothing here", source=self._at(node)))
        if isinstance(node, MappingNode):
            return self._mapping(node, path, default_source)
        if isinstance(node, SequenceNode):
            inner = cast("list[Node]", cast("Any", node).value)
            return [self.value(item, (*path, i), default_source) for i, item in enumerate(inner)]
        value = self._scalar(node)
        if default_source and isinstance(value, int | float) and not isinstance(value, bool):
            self.document.sources[path] = default_source
        return value

    def _mapping(self, node: MappingNode, path: Path, default_source: str | None) -> Plain:
        items = self._items(node, path)
        source = default_source
        if "source" in items:
            source = self._source(items.pop("source"))
        if set(items) == {"value"} and isinstance(items["value"], ScalarNode):
            return self.value(items["value"], path, source)
        return {key: self.value(item, (*path, key), source) for key, item in items.items()}

    def _items(self, node: MappingNode, path: Path) -> dict[str, Node]:
        items: dict[str, Node] = {}
        for key_node, value in cast("list[tuple[Node, Node]]", cast("Any", node).value):
            tag, text = _content(key_node)
            if not isinstance(key_node, ScalarNode) or tag == "merge":
                self.faults.add(errors.HW_YAML(why="a key has to be a plain word", source=self._at(key_node)))
                continue
            key = text
            if key in items:
                first = self.document.keys[(*path, key)].line
                where = dotted((*path, key))
                self.faults.add(errors.HW_DUPLICATE_KEY(key=where, first=first, source=self._at(key_node)))
                continue
            self.document.keys[(*path, key)] = self._at(key_node)
            items[key] = value
        return items

    def _source(self, node: Node) -> str | None:
        text = self._scalar(node)
        if isinstance(text, str) and text.strip():
            return " ".join(text.split())
        self.faults.add(errors.HW_YAML(why="a source has to be a text", source=self._at(node)))
        return None

    def _scalar(self, node: Node) -> Plain:
        kind, text = _content(node)
        if kind in ("!", "str", "timestamp", "binary"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        number = _number(kind, text)
        if number is None:
            why = f"{text[:40]!r} with the tag {kind[:60]!r} is no value"
            self.faults.add(errors.HW_YAML(why=why, source=self._at(node)))
        return number

    def _at(self, node: Node) -> Source:
        mark = cast("Any", node).start_mark
        return self.document.source(int(mark.line), int(mark.column))


def _content(node: Node) -> tuple[str, str]:
    """A node's tag, without the prefix of YAML's own, and its text (of a scalar)."""
    untyped = cast("Any", node)
    return str(untyped.tag).removeprefix(_TAG), str(untyped.value) if isinstance(node, ScalarNode) else ""


def _number(kind: str, text: str) -> int | float | None:
    """The number a scalar of YAML 1.2's core schema spells, None if it spells none."""
    try:
        if kind == "int":
            digits = text.lstrip("+-")
            return int(text, 0) if digits.startswith(("0x", "0o")) else int(text)
        return float(text.replace(".inf", "inf").replace(".nan", "nan")) if kind == "float" else None
    except ValueError:
        return None


def scalar(text: str, path: str) -> Plain:
    """The value of an override, read as YAML: ``256``, ``1e9``, ``true``, ``offset``, ``[CC, CD]``."""
    return read(f"value: {text}\nother: 0", path).data["value"]


def put(data: Mapping[str, Plain], path: Path, value: Plain) -> dict[str, Plain]:
    """A copy of ``data`` with the value at a path of keys replaced, mappings on the way made as needed."""
    head, rest = str(path[0]), path[1:]
    inner = data.get(head)
    changed = put(inner if isinstance(inner, dict) else {}, rest, value) if rest else value
    return {**data, head: changed}
