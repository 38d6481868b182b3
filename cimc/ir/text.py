"""Graphs as text: printed canonically, and parsed back to the same graph.

::

    graph main : canonical
    dim sequence = 8
    input %x : f32[8x4]
    const %w : f32[4x3]
    %y : f32[8x3] = linear %x, %w from /encoder/query/MatMul MatMul
    %z : f32[8x3] = mul %y, %y
    output %z "last_hidden_state"

One line a thing; ``#`` starts a comment. Names are bare where they consist of letters, digits and ``_ . / : $ -``,
else JSON strings (``%"a b"``). An absent operand is ``_``. Attributes stand in braces after the op, ``{scale=0.5,
perm=(1, 0)}``. After ``from`` come the origins, each a node and an op type. Constants stand by name and type; their
elements are elsewhere. A constant without type is a host call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from cimc import errors
from cimc.errors import Source
from cimc.ir.graph import Attr, Graph, Node, Type
from cimc.ir.levels import LawBroken, check
from cimc.isa.operands import Element
from cimc.ops import OPS
from cimc.origin import Origin

_T = TypeVar("_T")

MOST_TEXT = 64 << 20
"""Longest text that is parsed, in characters."""
MOST_AXES = 32
MOST_EXTENT = 1 << 40

_BARE = re.compile(r"[A-Za-z0-9_./:$-]+")
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\#.*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<mark>[%{}(),=;])
      | (?P<type>[a-z][a-z0-9]*\[[0-9x]*\])
      | (?P<word>[A-Za-z0-9_./:$+-]+)
    """,
    re.VERBOSE,
)
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_FLOAT = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,4})?|inf|nan)")


def print_graph(graph: Graph) -> str:
    """The graph's text, canonical: equal graphs give equal text."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield f"graph {_word(graph.name)} : {graph.level}"
    yield from (f"dim {_word(name)} = {size}" for name, size in graph.dims)
    yield from (f"input {_typed(graph, v)}" for v in graph.inputs)
    yield from (f"const {_typed(graph, v)}" for v in sorted(graph.constants))
    yield from (_node(graph, n) for n in graph.nodes)
    names = graph.output_names or ("",) * len(graph.outputs)
    for v, name in zip(graph.outputs, names, strict=True):
        yield f"output {_value(v)}{' ' + json.dumps(name) if name else ''}"


def _word(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _value(name: str) -> str:
    return f"%{_word(name)}" if name else "_"


def _typed(graph: Graph, value: str) -> str:
    return f"{_value(value)} : {graph.types[value]}" if value in graph.types else _value(value)


def _node(graph: Graph, node: Node) -> str:
    results = ", ".join(_typed(graph, v) for v in node.outputs)
    attrs = ", ".join(f"{name}={_attr(value)}" for name, value in node.attrs)
    operands = ", ".join(map(_value, node.inputs))
    origins = ", ".join(f"{_word(o.node)} {_word(o.op_type)}" for o in node.origins)
    text = f"{results} = {node.op}{f'{{{attrs}}}' if attrs else ''}"
    return text + (f" {operands}" if operands else "") + (f" from {origins}" if origins else "")


def _attr(value: Attr) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_attr, value))})"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, str) else repr(value)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


@dataclass
class _Draft:
    """What has been read of a graph."""

    name: str = ""
    level: str = ""
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    output_names: list[str] = field(default_factory=list[str])
    nodes: list[Node] = field(default_factory=list[Node])
    types: dict[str, Type] = field(default_factory=dict[str, Type])
    constants: list[str] = field(default_factory=list[str])
    dims: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])


def parse_graph(text: str, path: str = "<text>") -> Graph:
    """Read a graph. Raises CimcError: ir-syntax with the line and a caret; ir-law if it breaks the law of its level."""
    if len(text) > MOST_TEXT:
        raise errors.IR_LAW(path=path, why=f"the text has {len(text)} characters, more than {MOST_TEXT}")
    draft = _Draft()
    for number, line in enumerate(text.splitlines(), 1):
        reader = _Line(path, number, line)
        if not reader.done():
            _statement(draft, reader)
    if not draft.level:
        raise errors.IR_LAW(path=path, why="it has no line 'graph NAME : LEVEL'")
    named = any(draft.output_names)
    graph = Graph(
        draft.name,
        draft.level,
        tuple(draft.inputs),
        tuple(draft.outputs),
        tuple(draft.nodes),
        draft.types,
        frozenset(draft.constants),
        tuple(draft.output_names) if named else (),
        tuple(draft.dims),
    )
    try:
        check(graph, dict.fromkeys(graph.constants), path)  # pyright: ignore[reportArgumentType]  # only names are read
    except LawBroken as fault:
        raise errors.IR_LAW(path=path, why="; ".join(fault.violations[:3])) from fault
    return graph


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, path: str, number: int, text: str) -> None:
        self._path = path
        self._number = number
        self._text = text
        self._tokens: list[_Token] = []
        self._at = 0
        column = 0
        while column < len(text):
            found = _TOKEN.match(text, column)
            if found is None:
                self._fail(column + 1, "a name, a number or a string")
            kind = str(found.lastgroup)
            if kind != "space":
                self._tokens.append(_Token(kind, found.group(), column + 1))
            column = found.end()

    def _fail(self, column: int, expected: str) -> NoReturn:
        excerpt = self._text if len(self._text) <= 200 else ""
        raise errors.IR_SYNTAX(source=Source(self._path, self._number, column, excerpt), expected=expected)

    def done(self) -> bool:
        """Whether the line is read to its end."""
        return self._at == len(self._tokens)

    def expect(self, expected: str) -> NoReturn:
        """Raise the error that something else was expected here."""
        column = len(self._text) + 1 if self.done() else self._tokens[self._at].column
        self._fail(column, expected)

    def place(self) -> str:
        """File and line."""
        return f"{self._path}:{self._number}"

    def at(self, text: str) -> bool:
        """Whether a mark or a keyword stands here."""
        return not self.done() and self._tokens[self._at].kind != "string" and self._tokens[self._at].text == text

    def try_take(self, text: str) -> bool:
        """Read a mark or a keyword if it stands here."""
        if not self.at(text):
            return False
        self._at += 1
        return True

    def take(self, text: str) -> None:
        """Read a mark or a keyword."""
        if not self.try_take(text):
            self.expect(f"'{text}'")

    def token(self, kinds: Iterable[str], expected: str) -> str:
        """Read a token of one of these kinds."""
        if self.done() or self._tokens[self._at].kind not in kinds:
            self.expect(expected)
        self._at += 1
        return self._tokens[self._at - 1].text

    def string(self, expected: str) -> str:
        """Read a JSON string."""
        text = self.token(("string",), expected)
        try:
            return str(json.loads(text))
        except ValueError:
            self._at -= 1
            self.expect(expected)

    def name(self, expected: str) -> str:
        """Read a bare name or a string."""
        quoted = not self.done() and self._tokens[self._at].kind == "string"
        return self.string(expected) if quoted else self.token(("word",), expected)

    def integer(self, expected: str) -> int:
        """Read an integer."""
        text = self.token(("word",), expected)
        if not _INTEGER.fullmatch(text):
            self._at -= 1
            self.expect(expected)
        return int(text)

    def value(self) -> str:
        """Read ``%name``, or ``_`` as an absent value."""
        if self.try_take("_"):
            return ""
        self.take("%")
        return self.name("a value's name")

    def type(self) -> Type:
        """Read ``f32[2x3]``."""
        text = self.token(("type",), "a type like f32[2x3]")
        element, _, rest = text.partition("[")
        extents = rest[:-1].split("x") if rest != "]" else []
        known = {e.value: e for e in Element}
        fits = element in known and len(extents) <= MOST_AXES and all(d and len(d) < 14 for d in extents)
        if not fits or any(int(d) > MOST_EXTENT for d in extents):
            self._at -= 1
            self.expect("a type like f32[2x3]")
        return Type(known[element], tuple(map(int, extents)))

    def several(self, read: Callable[[], _T]) -> list[_T]:
        """Read one or more, separated by commas."""
        found = [read()]
        while self.try_take(","):
            found.append(read())
        return found

    def attr(self) -> Attr:
        """Read an attribute's value."""
        if self.try_take("("):
            items = [] if self.try_take(")") else self.several(self.scalar)
            if items:
                self.take(")")
            if len({type(v) for v in items}) > 1:
                self._at -= 1
                self.expect("values of one type")
            return tuple(items)  # pyright: ignore[reportReturnType]  # of one type, as just checked
        return self.scalar()

    def scalar(self) -> int | float | str | bool:
        """Read a string, a number, ``true`` or ``false``."""
        expected = "a number, a string, true or false"
        if not self.done() and self._tokens[self._at].kind == "string":
            return self.string(expected)
        text = self.token(("word",), expected)
        if text in ("true", "false"):
            return text == "true"
        if _INTEGER.fullmatch(text):
            return int(text)
        if not _FLOAT.fullmatch(text):
            self._at -= 1
            self.expect(expected)
        return float(text)


def _statement(draft: _Draft, line: _Line) -> None:
    if line.try_take("graph"):
        if draft.level:
            line.expect("one graph only")
        draft.name = line.name("the graph's name")
        line.take(":")
        draft.level = line.name("a level")
    elif line.try_take("dim"):
        name = line.name("a dimension's name")
        line.take("=")
        draft.dims.append((name, line.integer("a size")))
    elif line.try_take("input"):
        draft.inputs.append(_declared(draft, line))
    elif line.try_take("const"):
        draft.constants.append(_declared(draft, line, typed=False))
    elif line.try_take("output"):
        draft.outputs.append(line.value())
        draft.output_names.append("" if line.done() else line.string("the output's name, a string"))
    else:
        draft.nodes.append(_parse_node(draft, line))
    if not line.done():
        line.expect("the end of the line")


def _declared(draft: _Draft, line: _Line, *, typed: bool = True) -> str:
    """Read ``%name : type`` and note the type."""
    value = line.value()
    if not value:
        return value
    if typed or not line.done():
        line.take(":")
        draft.types[value] = line.type()
    return value


def _parse_node(draft: _Draft, line: _Line) -> Node:
    outputs = line.several(lambda: _declared(draft, line))
    line.take("=")
    op = line.name("an op")
    if op not in OPS:
        raise errors.IR_LAW(path=line.place(), why=f"there is no op '{op}'{_meant(op)}")
    attrs: list[tuple[str, Attr]] = []
    if line.try_take("{"):
        attrs = line.several(lambda: _parse_attr(line))
        line.take("}")
    inputs = [] if line.done() or line.at("from") else line.several(line.value)
    origins: list[Origin] = []
    if line.try_take("from"):
        origins = line.several(lambda: Origin(line.name("a node's name"), line.name("an op type")))
    return Node(op, tuple(inputs), tuple(outputs), tuple(attrs), tuple(origins))


def _parse_attr(line: _Line) -> tuple[str, Attr]:
    name = line.name("an attribute's name")
    line.take("=")
    return name, line.attr()


def _meant(op: str) -> str:
    hint = errors.did_you_mean(op, OPS)
    return f": {hint.strip()}" if hint else ""
