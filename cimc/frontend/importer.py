"""Models → graphs at level ``imported``: dims bound, shape arithmetic folded away, functions and control flow inlined.

Everything unsupported in a model is reported at once, node by node.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc import errors, npz
from cimc.frontend import functions, groups, halves, host, onnx_reader, ragged
from cimc.frontend.builder import MAX_VALUE, Builder, Impossible, Unsupported, Value, element_of
from cimc.frontend.call import Call, NeedsHost, Operand, Spelling
from cimc.frontend.dims import SEQUENCE, Binding, Dims
from cimc.frontend.record import (
    STANDARD,
    Array,
    Group,
    OnnxFunction,
    OnnxGraph,
    OnnxModel,
    OnnxNode,
    TensorType,
    Unreadable,
)
from cimc.frontend.spellings import SPELLINGS
from cimc.ir.graph import Constants, Graph, Type
from cimc.origin import Origin

MAX_INLINED = 1_000_000
"""Nodes, functions and loops written out. As MAX_CALLS a bound on time, which a hostile file could ask for any amount of."""
MAX_CALLS = 32
"""Functions that call each other in a line."""
MISFITS = (IndexError, ValueError, ArithmeticError, TypeError, MemoryError)
"""What a translation may trip over when a node's operands or attributes are not what the standard asks for."""
MAX_FIXED = 64
"""Elements of an input that may be compiled in."""
SHORTEST = 1


@dataclass(frozen=True)
class Imported:
    """A model as cimc sees it. ``bindings``: every symbolic dim, its value and who said so. ``notes``: what the user
    should know. ``model_hash``: SHA-256 over the file and its external data. ``path``: the file, for running it
    elsewhere."""

    graph: Graph
    constants: Constants
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...]
    model_hash: str
    path: Path
    fixed: frozenset[str] = frozenset()  # inputs compiled in at their values


def _fits(_graph: Graph, _constants: Constants) -> str:
    return ""


def load(
    path: Path | str,
    *,
    dims: Mapping[str, int] | None = None,
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
    specialize: bool = False,
    misfit: Callable[[Graph, Constants], str] = _fits,
) -> Imported:
    """Read a model file, or a folder with ``model.onnx``. ``dims`` binds symbolic dims by name, ``inputs`` by shape.
    A sequence length that nobody gave is 128, or the largest smaller power of two with which the model makes sense, and
    with which ``misfit`` has nothing to tell of its graph.
    With ``specialize``, small inputs whose values decide shapes or trip counts are compiled in at their values in
    ``inputs``; they are then no inputs of the graph, and ``notes`` names them. Raises CimcError."""
    model = onnx_reader.read(Path(path))
    sequence, told = SEQUENCE, ""
    first: errors.CimcError | None = None
    longest: Imported | None = None
    fixed: dict[str, Array] = {}
    shapes = npz.outlines(inputs) if inputs is not None else None
    while True:
        opened = groups.opened(_open_inputs(model), shapes)
        bound = Dims.bind(model.path, opened.tensors, dims or {}, shapes, sequence)
        attempt = _Import(model, bound, fixed, opened)
        shorter = sequence > SHORTEST and any(b.default and b.value == sequence for b in bound.bound.values())
        try:
            imported = attempt.result(told)
        except errors.CimcError as e:
            asked = attempt.asked - fixed.keys()
            if specialize and inputs is not None and asked and asked <= inputs.keys():
                fixed.update({name: np.asarray(inputs[name]) for name in asked})
                continue
            first = first or e
            if e.diagnostic is not errors.MODEL_NODE or not shorter:
                raise first from None
            told = told or e.message
        else:
            why = misfit(imported.graph, imported.constants) if shorter or longest else ""
            if not why:
                return imported
            longest, told = longest or imported, told or why
            if not shorter:
                return longest
        sequence //= 2


def _open_inputs(model: OnnxModel) -> tuple[tuple[str, TensorType], ...]:
    """The inputs that are not initializers: those have a default and need no value."""
    return tuple((n, t) for n, t in model.graph.inputs if n not in model.graph.initializers)


class _Poison(Exception):
    """A node whose operands already failed: nothing more is said about it."""


@dataclass(frozen=True)
class _Scope:
    """Where a node is translated: opset versions, the path of calls that leads here, the names it may read; ``marks``:
    those of them that are lists of a length known only at run time."""

    opsets: Mapping[str, int]
    prefix: str
    calls: tuple[tuple[str, str], ...]
    values: MutableMapping[str, Operand]
    failed: set[str] = field(default_factory=set[str])
    marks: dict[str, ragged.Mark] = field(default_factory=dict[str, ragged.Mark])


class _Import:
    """One import: the builder, the faults found so far."""

    def __init__(self, model: OnnxModel, dims: Dims, fixed: Mapping[str, Array], opened: groups.Inputs) -> None:
        self.model = model
        self.dims = dims
        self.b = Builder()
        self.faults = errors.Collector()
        self.fixed = fixed
        self.opened = opened
        self.asked: set[str] = set()
        self.notes: list[str] = []
        self.count = 0

    def result(self, shortened: str) -> Imported:
        """The model, translated. ``shortened``: what a longer default sequence failed of. Raises MODEL_OP and MODEL_NODE for
        every node that cannot be translated, all at once, and MODEL_INPUT, MODEL_MALFORMED, MODEL_TOO_LARGE."""
        scope = _Scope(self.model.opsets, "", (), {})
        for name, kind in self.dims.inputs:
            declared = self.input_type(name, kind)
            scope.values[name] = self.fix(name, declared) if name in self.fixed else self.b.input(name, declared)
        scope.values.update(self.opened.operands(scope.values))
        self.initializers(self.model.graph, scope)
        self.nodes(self.model.graph.nodes, scope)
        self.faults.raise_if_any()
        outputs = [named for o in self.model.graph.outputs for named in self.output(o, scope)]
        self.faults.raise_if_any()
        bindings = tuple(self.dims.bound.values())
        graph, constants = self.b.finish(
            self.model.graph.name or self.model.path.stem, outputs, tuple((b.name, b.value) for b in bindings)
        )
        if shortened:
            self.notes.append(f"the default sequence length was shortened: with a longer one, {shortened}")
        return Imported(
            graph,
            constants,
            bindings,
            tuple(self.notes),
            self.model.sha256,
            self.model.path,
            fixed=frozenset(self.fixed),
        )

    def fix(self, name: str, declared: Type) -> Value:
        """An input compiled in at the value given for it."""
        array = self.fixed[name]
        if array.shape != declared.shape or array.dtype != declared.element.dtype(exact=True):
            why = f"the given array is {array.dtype}{list(array.shape)}, the model declares {declared}"
            raise errors.MODEL_INPUT(path=self.model.path, name=name, why=why, fix="give an array of the declared type")
        self.note(f"input '{name}' decides shapes: the program is compiled for the value given")
        return self.b.constant(array, name)

    def ask(self, value: Value) -> None:
        """Remember the inputs behind a value that must be known, if they are few numbers."""
        sources = self.b.sources(value)
        if all(s.type.size <= MAX_FIXED for s in sources):
            self.asked.update(s.name for s in sources)

    def ask_lengths(self, scope: _Scope) -> None:
        """Remember the inputs that decide how long lists are."""
        for mark in scope.marks.values():
            self.ask(mark.hit)

    def input_type(self, name: str, kind: TensorType) -> Type:
        """The type that an input is declared with, dims bound. Raises MODEL_INPUT."""
        fix = "export the model with typed inputs"
        if isinstance(kind.dtype, Unreadable):
            raise errors.MODEL_INPUT(path=self.model.path, name=name, why=kind.dtype.reason, fix=fix)
        if kind.dims is None:
            raise errors.MODEL_INPUT(
                path=self.model.path, name=name, why="its number of dimensions is not declared", fix=fix
            )
        try:
            found = Type(element_of(kind.dtype), self.dims.shape(kind))
        except Unsupported as e:
            raise errors.MODEL_INPUT(path=self.model.path, name=name, why=str(e), fix=fix) from e
        if found.bytes > MAX_VALUE:
            why = f"{found} has {found.bytes} bytes, more than the limit of {MAX_VALUE}"
            raise errors.MODEL_INPUT(path=self.model.path, name=name, why=why, fix="bind smaller dimensions with --dim")
        return found

    def output(self, name: str, scope: _Scope) -> list[tuple[str, Value]]:
        """An output's tensors with their names: one, or as many as a sequence has, or none of an absent optional."""
        value = scope.values.get(name)
        if name in scope.marks:
            self.ask(scope.marks[name].hit)
            raise errors.MODEL_OP(node=name, op="output", why=ragged.REFUSED)
        if isinstance(value, tuple):
            return [(groups.element_name(name, i), v) for i, v in enumerate(value)]
        if value is not None:
            return [(name, value)]
        declared = self.model.graph.declared.get(name)
        if name in scope.values and declared is not None and isinstance(declared.dtype, Group):
            return []
        why = f"output {name!r} is not produced by any node"
        raise errors.MODEL_MALFORMED(path=self.model.path, where="graph", why=why)

    def initializers(self, graph: OnnxGraph, scope: _Scope) -> None:
        """Make constants of a graph's initializers; one that cannot be read is a fault of the first node that reads it."""
        for name, array in graph.initializers.items():
            if isinstance(array, Unreadable):
                scope.failed.add(name)
                reader = next((n for n in graph.nodes if name in n.inputs), None)
                if reader is not None:
                    why = f"input '{name}': {array.reason}"
                    self.faults.add(errors.MODEL_OP(node=reader.name, op=reader.title, why=why))
                continue
            scope.values[name] = self.b.constant(array, name)

    def nodes(self, nodes: Sequence[OnnxNode], scope: _Scope) -> None:
        for node in nodes:
            self.node(node, scope)

    def node(self, node: OnnxNode, scope: _Scope) -> None:
        """Translate a node; a fault is noted, and what its outputs feed is passed over in silence. Raises MODEL_TOO_LARGE."""
        self.count += 1
        if self.count > MAX_INLINED:
            fix = "simplify the model's functions"
            raise errors.MODEL_TOO_LARGE(
                path=self.model.path,
                what="the number of nodes, functions inlined,",
                size=self.count,
                limit=MAX_INLINED,
                fix=fix,
            )
        here = replace(node, name=scope.prefix + node.name)
        before, self.b.origin = self.b.origin, Origin(here.name, node.title)
        try:
            results = self.translated(here, scope)
        except _Poison:
            scope.failed.update(node.outputs)
            # What can be said without operands is said all the same, so that all unknown operators are told at once.
            if why := self.unknown(node):
                self.faults.add(errors.MODEL_OP(node=here.name, op=node.title, why=why))
        except Unsupported as e:
            scope.failed.update(node.outputs)
            self.faults.add(errors.MODEL_OP(node=here.name, op=node.title, why=e))
        except (Impossible, *MISFITS) as e:
            scope.failed.update(node.outputs)
            bound = (
                ", ".join(f"{b.name} = {b.value}{' (default)' * b.default}" for b in self.dims.bound.values()) or "none"
            )
            why = e if isinstance(e, Impossible) else f"its operands or attributes do not fit the operator ({e})"
            self.faults.add(errors.MODEL_NODE(node=here.name, op=node.title, why=why, dims=bound))
        else:
            self.keep(node, results, scope)
        finally:
            self.b.origin = before

    def keep(self, node: OnnxNode, results: Sequence[Operand], scope: _Scope) -> None:
        """Bind a node's outputs to what it was translated to; None for an optional that is absent."""
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                scope.values[name] = value
            if name and isinstance(value, Value):
                self.b.label(value, scope.prefix + name)
        for name in node.outputs[len(results) :]:
            if name:
                why = f"its output {node.outputs.index(name)} is not supported"
                self.faults.add(errors.MODEL_OP(node=scope.prefix + node.name, op=node.title, why=why))
                scope.failed.add(name)

    def read(self, name: str, scope: _Scope) -> Operand:
        """What a name stands for; None for an operand left out. Raises _Poison for what failed, Impossible for what is not."""
        if not name:
            return None
        if name in scope.failed:
            raise _Poison
        if name not in scope.values:
            raise Impossible(f"it reads '{name}', which nothing produces")
        return scope.values[name]

    def translated(self, node: OnnxNode, scope: _Scope) -> tuple[Operand, ...]:
        """A node's outputs: by the model's function of its name, its spelling, the standard's function, or on the host. Raises
        Unsupported, Impossible, _Poison and MISFITS."""
        inputs = tuple(self.read(name, scope) for name in node.inputs)
        for name in node.outputs:  # the same names again, in another round of a loop
            scope.marks.pop(name, None)
        function = self.model.functions.get((node.domain, node.op_type))
        marks = {i: scope.marks[n] for i, n in enumerate(node.inputs) if n in scope.marks}
        if scope.marks.keys() & set(node.captures) or (marks and function is not None):
            self.ask_lengths(scope)
            raise Unsupported(f"it takes a list whose length is known only at run time; {ragged.REFUSED}")
        if function is not None:
            return self.inline(function, node, inputs, scope)
        found = SPELLINGS.get((node.domain, node.op_type))
        if found is None:
            return self.unspelled(node, inputs, scope)
        version = scope.opsets.get(node.domain, 1)

        def run(graph: OnnxGraph, arguments: Sequence[Operand], suffix: str = "") -> tuple[Operand, ...]:
            return self.subgraph(graph, arguments, replace(scope, prefix=f"{node.name}{suffix}/"))

        call = Call(node, inputs, version, self.b, run, self.note, self.ask)
        if marks or found.translate is ragged.non_zero:
            return self.on_list(found, call, marks, scope)
        try:
            return halves.translate(found, call)
        except NeedsHost as e:
            return self.on_host(node, inputs, scope, str(e), standard=e.standard)

    def on_list(self, found: Spelling, call: Call, marks: ragged.Marks, scope: _Scope) -> tuple[Operand, ...]:
        """A node that makes or reads a list of a length known only at run time."""
        written = ragged.write_back(call, marks)
        if written is not None:
            return (written,)
        try:
            results = halves.translate(found, call)
        except NeedsHost as e:
            raise Unsupported(f"{e}; and it reads a list whose length is known only at run time") from e
        begun = ragged.begins(call)
        try:
            followed = (begun,) if not marks else ragged.follow(call, marks, results)
        except Unsupported:
            self.ask_lengths(scope)
            raise
        scope.marks.update({n: m for n, m in zip(call.node.outputs, followed, strict=False) if n and m})
        return results

    def unknown(self, node: OnnxNode) -> str:
        """Why an operator cannot be known whatever its operands are; nothing if it may be."""
        key = (node.domain, node.op_type)
        if node.domain == STANDARD or key in self.model.functions or key in SPELLINGS:
            return ""
        if host.knows(node):
            return ""
        if node.domain != host.MS:
            return f"the model has no function of that name, and domain '{node.domain}' is not known"
        return "this operator of onnxruntime's own is not known"

    def unspelled(self, node: OnnxNode, inputs: tuple[Operand, ...], scope: _Scope) -> tuple[Operand, ...]:
        """A node that no spelling translates: the standard's definition as a function, else a call of the host."""
        if why := self.unknown(node):
            raise Unsupported(why)
        function = functions.of_standard(node, inputs, scope.opsets)
        if function is not None:
            return self.inline(function, node, inputs, scope)
        return self.on_host(node, inputs, scope, "tiles have no instruction for it")

    def on_host(
        self, node: OnnxNode, inputs: tuple[Operand, ...], scope: _Scope, reason: str, *, standard: bool = False
    ) -> tuple[Operand, ...]:
        """A node that the chip's host controller computes, and ``reason``, why no tile does."""
        operands = {name: v for name, v in zip(node.inputs, inputs, strict=True) if name}
        operands.update({name: self.read(name, scope) for name in node.captures})
        # Sizes, scales and the like may have to be known.
        for at in host.BY_VALUE.get(node.op_type, ()):
            value = inputs[at] if at < len(inputs) else None
            if isinstance(value, Value) and self.b.array(value) is None:
                self.ask(value)
        return host.call(self.b, node, operands, scope.opsets, reason, standard=standard)

    def note(self, text: str) -> None:
        """Something the user should know, said once."""
        if text not in self.notes:
            self.notes.append(text)

    def inline(
        self, function: OnnxFunction, node: OnnxNode, inputs: tuple[Operand, ...], scope: _Scope
    ) -> tuple[Operand, ...]:
        """A call of a function: its nodes in a scope of their own. Raises Impossible for one that calls itself."""
        key = (function.domain, function.name)
        if key in scope.calls:
            raise Impossible("the function calls itself")
        if len(scope.calls) >= MAX_CALLS:
            raise Unsupported(f"functions call each other more than {MAX_CALLS} deep")
        if len(inputs) > len(function.inputs):
            raise Impossible(f"{len(inputs)} inputs for a function of {len(function.inputs)}")
        values: dict[str, Operand] = dict.fromkeys(function.inputs)
        values.update(zip(function.inputs, inputs, strict=False))
        inner = _Scope(function.opsets, f"{node.name}/", (*scope.calls, key), values)
        given = functions.arguments(function, node)
        self.nodes([functions.bind(n, given) for n in function.nodes], inner)
        wanted = zip(function.outputs, node.outputs, strict=False)
        return tuple(self.result_of(o, inner) if used else None for o, used in wanted)

    def result_of(self, name: str, scope: _Scope) -> Operand:
        """A value that leaves a function or a subgraph."""
        if name in scope.marks:
            self.ask_lengths(scope)
            raise Unsupported(f"its output '{name}' is a list; {ragged.REFUSED}")
        return self.read(name, scope)

    def subgraph(self, graph: OnnxGraph, arguments: Sequence[Operand], scope: _Scope) -> tuple[Operand, ...]:
        """A branch or a loop's body: its nodes in a scope that sees the outer names, and whose own nobody else sees."""
        if len(arguments) != len(graph.inputs):
            raise Impossible(f"{len(arguments)} values for a subgraph of {len(graph.inputs)} inputs")
        outer = scope.values
        values = ChainMap[str, Operand]({}, *(outer.maps if isinstance(outer, ChainMap) else (outer,)))
        inner = replace(scope, values=values, failed=set(scope.failed))
        for (name, _), value in zip(graph.inputs, arguments, strict=True):
            values[name] = value
        self.initializers(graph, inner)
        self.nodes(graph.nodes, inner)
        return tuple(self.result_of(o, inner) for o in graph.outputs)


__all__ = ["Binding", "Imported", "load"]
