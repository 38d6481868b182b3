"""Scores without keys: q · (x · W)ᵀ as (q · Wᵀ) · xᵀ."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from cimc import errors
from cimc.ir.constants import Make
from cimc.ir.graph import Attrs, Constants, Graph, Node, Type
from cimc.ir.levels import FLOATS
from cimc.ops import OPS, Form, Layout
from cimc.passes.editor import Editor
from cimc.passes.integers import BLOCK_STEPS, STEPS


@dataclass(frozen=True)
class Decompose:
    """ReTransformer's matrix decomposition (Yang et al., ICCAD 2020): where the keys of an ``attention`` are a ``linear`` of
    one value cut into heads, k = x · W + b, the scores of a head are (q · Wᵀ) · xᵀ + (q · b) · 1ᵀ. Wᵀ is static, so it goes
    into cells; xᵀ is there before any key would be, and is the same for all heads; the keys are not computed. The
    term of the bias is the same for all scores of a row, and softmax does not see what is added to a whole row, so it is
    left out. The product of scores sums over the width of x instead of that of a head: more work, for no wait.

    An attention that does not allow it (rotary embeddings, cached or shared keys between, weights with a quantisation of
    their own) stays as it is, and says why in ``kept``.

    Before::

        %k : f32[1x8x32] = linear %x, %wk
        %kt : f32[1x2x16x8] = transpose{perm=0x2x3x1} (reshape %k)
        %y : f32[1x2x8x16] = attention{scale=0.25} %q, %kt, %v

    After::

        %q0 : f32[1x8x32] = linear (columns of head 0 of %q's rows), %wk.head0
        %q1 : f32[1x8x32] = linear (columns of head 1 of %q's rows), %wk.head1
        %qw : f32[1x2x8x32] = transpose (reshape (concat %q0, %q1))
        %y : f32[1x2x8x16] = attention{scale=0.25} %qw, %xt, %v
    """

    name: ClassVar[str] = "decompose"
    takes: ClassVar[tuple[str, ...]] = ("canonical",)
    leaves: ClassVar[str] = "canonical"

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Raises ATTENTION if there is attention and none of it allows this."""
        work = _Decomposer(Editor(graph, constants))
        for node in graph.nodes:
            work.visit(node)
        if work.refused and not work.done:
            name, why = work.refused[0]
            more = f" (and {len(work.refused) - 1} more)" if len(work.refused) > 1 else ""
            fix = "use --attention digital, sram-write or nvm-write"
            raise errors.ATTENTION(text="decompose", why=f"{name}: {why}{more}", fix=fix)
        return work.editor.finish(self.leaves)


class _Kept(Exception):
    """Why an attention stays as it is."""


@dataclass(frozen=True)
class _Heads:
    """A value seen as the columns of ``flat``'s rows, cut into heads: (batch …, head, rows, width) in any order of the
    leading axes. ``head`` is the axis of the heads, head h starts at column ``start + h · step``."""

    flat: str
    head: int
    start: int
    step: int
    width: int

    def column(self, h: int) -> int:
        """First column of a head."""
        return self.start + h * self.step


class _Decomposer:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.done = 0
        self.refused: list[tuple[str, str]] = []

    def visit(self, node: Node) -> None:
        node = self.editor.renamed(node)
        if node.op != "attention":
            self.editor.keep(node)
            return
        try:
            self._attention(node)
            self.done += 1
        except _Kept as why:
            self.refused.append((node.origin.node, str(why)))
            attrs = (*(a for a in node.attrs if a[0] != "kept"), ("kept", str(why)))
            self.editor.emit("attention", node.inputs, origins=node.origins, output=node.outputs[0], attrs=attrs)

    def _attention(self, node: Node) -> None:
        q, k = node.inputs[:2]
        shapes = [self.editor.types[v].shape for v in (q, k)]
        if shapes[0][:-2] != shapes[1][:-2]:
            raise _Kept("several heads share their keys")
        keys = self._heads(k, rows=-1, cols=-2, what="keys")
        queries = self._heads(q, rows=-2, cols=-1, what="queries")
        projection = self._projection(keys)
        x, w = projection.inputs
        if self.editor.types[x].element not in FLOATS:
            raise _Kept("the keys are computed from integers")
        product = self._queries(node, queries, keys, w)
        inputs = (product, self._transposed(node, x, shapes[1], keys.head), *node.inputs[2:])
        self.editor.emit("attention", inputs, origins=node.origins, output=node.outputs[0], attrs=node.attrs)

    # --- what stands there ---------------------------------------------------------------------------
    def _heads(self, value: str, *, rows: int, cols: int, what: str) -> _Heads:
        """Look through views at the rows that a value's heads are columns of."""
        editor, shape = self.editor, self.editor.types[value].shape
        chain: list[Node] = []
        base = value
        while (maker := editor.producer.get(base)) is not None and OPS[maker.op].form is Form.VIEW:
            chain.append(maker)
            base = maker.inputs[0]
        flat = editor.types[base].shape
        layout: Layout | None = Layout.dense(flat)
        for view in reversed(chain):
            layout = OPS[view.op].view(view, layout) if layout is not None else None
        if layout is None or not flat or len(shape) < 3 or not prod(shape):
            raise _Kept(f"its {what} are not heads of one value's columns")
        return self._columns(base, layout, rows % len(shape), cols % len(shape), what)

    def _columns(self, base: str, layout: Layout, rows: int, cols: int, what: str) -> _Heads:
        width = self.editor.types[base].shape[-1]
        shape, strides = layout.shape, layout.strides
        bad = _Kept(f"its {what} are not heads of one value's columns")
        lead = [a for a in range(len(shape) - 2) if shape[a] > 1]
        heads = [a for a in lead if 0 < strides[a] < width]
        if strides[cols] != 1 or (strides[rows] != width and shape[rows] > 1) or len(heads) > 1:
            raise bad
        head = heads[0] if heads else next((a for a in range(len(shape) - 3, -1, -1) if shape[a] == 1), -1)
        if head < 0:
            raise bad
        due = width * shape[rows]
        for axis in reversed([a for a in lead if a != head]):
            if strides[axis] != due:
                raise bad
            due *= shape[axis]
        step = strides[head] if heads else 0
        last = layout.offset + (shape[head] - 1) * step + shape[cols]
        if layout.offset < 0 or last > width or due != prod(self.editor.types[base].shape):
            raise bad
        return _Heads(base, head, layout.offset, step, shape[cols])

    def _projection(self, keys: _Heads) -> Node:
        """The ``linear`` that makes the keys, beneath a bias."""
        editor = self.editor
        node = editor.producer.get(keys.flat)
        if node is not None and node.op == "add":
            biased = [v for i, v in enumerate(node.inputs) if self._is_row(node.inputs[1 - i])]
            same = biased and editor.types[biased[0]].shape == editor.types[keys.flat].shape
            node = editor.producer.get(biased[0]) if same else node
        if node is None or node.op != "linear":
            between = f"{node.op} ({node.origin.node})" if node is not None else "an input of the model"
            raise _Kept(f"{between} stands between the projection of the keys and the scores")
        w = node.inputs[1]
        if node.attrs or any(w + mark in editor.constants for mark in (STEPS, BLOCK_STEPS)):
            raise _Kept(f"the weights of the keys ({w}) are digital, or quantised by the model itself")
        return node

    def _is_row(self, value: str) -> bool:
        return self.editor.is_constant(value) and prod(self.editor.types[value].shape[:-1]) == 1

    # --- what is put there ---------------------------------------------------------------------------
    def _queries(self, node: Node, queries: _Heads, keys: _Heads, w: str) -> str:
        """q · Wᵀ, head by head, with the heads where they were in q."""
        editor, origins = self.editor, node.origins
        flat = editor.types[queries.flat].shape
        shape = editor.types[node.inputs[0]].shape
        inner = editor.types[w].shape[0]
        parts = [self._head(node, queries, keys, w, h) for h in range(shape[queries.head])]
        rows = parts[0]
        if len(parts) > 1:
            hint = editor.fresh(f"{node.outputs[0]}.qw")
            rows = editor.emit("concat", parts, origins=origins, output=hint, attrs=(("axis", len(flat) - 1),))
        batch = tuple(n for a, n in enumerate(shape[:-2]) if a != queries.head)
        split = (*batch, shape[-2], shape[queries.head], inner)
        cut = self._emit(node, "reshape", rows, "qw", (("shape", split),))
        count = len(batch)
        perm = [*range(count), count, count + 2]
        perm.insert(queries.head, count + 1)
        return self._emit(node, "transpose", cut, "qw", (("perm", tuple(perm)),))

    def _head(self, node: Node, queries: _Heads, keys: _Heads, w: str, h: int) -> str:
        editor = self.editor
        shape = editor.types[queries.flat].shape
        lead = len(shape) - 1
        attrs: Attrs = (
            ("size", (*shape[:-1], queries.width)),
            ("start", (*(0,) * lead, queries.column(h))),
            ("step", (1,) * (lead + 1)),
        )
        columns = self._emit(node, "slice", queries.flat, "q", attrs)
        first, last = keys.column(h), keys.column(h) + keys.width
        weights = f"{w}.t{first}_{last}"
        if weights not in editor.types:
            type = editor.types[w]
            editor.constant(weights, Type(type.element, (keys.width, type.shape[0])), _turned(w, first, last))
        output = editor.fresh(f"{node.outputs[0]}.qw")
        return editor.emit("linear", (columns, weights), origins=node.origins, output=output)

    def _transposed(self, node: Node, x: str, k: tuple[int, ...], head: int) -> str:
        """xᵀ with the leading axes of the keys, one for all heads."""
        width = self.editor.types[x].shape[-1]
        lead = tuple(1 if a == head else n for a, n in enumerate(k[:-2]))
        rows = self._emit(node, "reshape", x, "x", (("shape", (*lead, k[-1], width)),))
        perm = (*range(len(lead)), len(lead) + 1, len(lead))
        return self._emit(node, "transpose", rows, "xt", (("perm", perm),))

    def _emit(self, node: Node, op: str, value: str, hint: str, attrs: Attrs) -> str:
        output = self.editor.fresh(f"{node.outputs[0]}.{hint}")
        return self.editor.emit(op, (value,), origins=node.origins, output=output, attrs=attrs)


def _turned(w: str, first: int, last: int) -> Make:
    return lambda constants: np.ascontiguousarray(constants[w][:, first:last].T)
