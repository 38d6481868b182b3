"""Recognise what exporters spell in small operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from cimc.ir.graph import Constants, Graph, Node
from cimc.passes.editor import Editor
from cimc.passes.patterns.activation import gelu, silu
from cimc.passes.patterns.attention import attention
from cimc.passes.patterns.heads import grouped
from cimc.passes.patterns.match import Match
from cimc.passes.patterns.norm import norm, softmax

Pattern = Callable[[Match, Node], bool]
"""Looks at the last node of a pattern; if it is one, writes what defines the node's output instead."""

PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "mul": (silu, gelu, norm),
    "div": (softmax, norm),
    "matmul": (attention,),
    "attention": (grouped,),
}
"""Patterns by the op of their last node, tried in order."""


@dataclass(frozen=True)
class Fuse:
    """Norms, activations, softmax and attention spelled in elementary operators become one op each. What is not
    recognised stays as it is, and runs. Expects ``fold`` before it: equal values are one value, casts that change
    nothing are gone.

    Before::

        %s : f32[1x4x8x8] = matmul %q, %k
        %t : f32[1x4x8x8] = mul %s, %scale
        %u : f32[1x4x8x8] = add %t, %mask
        %p : f32[1x4x8x8] = softmax %u
        %y : f32[1x4x8x16] = matmul %p, %v

    After::

        %y : f32[1x4x8x16] = attention{scale=0.25} %q, %k, %v, %mask
    """

    name: ClassVar[str] = "fuse"
    takes: ClassVar[tuple[str, ...]] = ("imported", "canonical")
    leaves: ClassVar[str] = ""

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        editor = Editor(graph, constants)
        readers = Counter(v for n in graph.nodes for v in dict.fromkeys(n.inputs))
        readers.update(graph.outputs)
        match = Match(editor, readers)
        for node in graph.nodes:
            editor.look_at(node)
            if not any(pattern(match, node) for pattern in PATTERNS.get(node.op, ())):
                editor.keep(node)
        return editor.finish()
