"""Random small graphs at level partitioned, drawn from the table of ops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np

from cimc.ir.graph import Graph
from cimc.isa.operands import Element
from tests.passes.graph_builder import Build

UNARIES = ("neg", "abs", "tanh", "sigmoid", "erf", "relu", "floor")
BINARIES = ("add", "sub", "mul", "max", "min")
ROWS = ("reduce_sum", "reduce_mean", "reduce_max", "softmax", "log_softmax", "layer_norm", "rms_norm")
BLOCK = 8  # rows and columns of toy's crossbars
MOST_ELEMENTS = 400


@dataclass
class Drawn:
    """A graph with constants and inputs."""

    graph: Graph
    constants: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]


class Maker:
    """Adds ops, each on values that are there already."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.build = Build("partitioned")
        self.values: list[str] = []
        self.rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))

    def pick(self, least_rank: int = 0) -> str:
        fits = [v for v in self.values if len(self.shape(v)) >= least_rank]
        return self.draw(st.sampled_from(fits)) if fits else self.fresh(least_rank)

    def fresh(self, least_rank: int) -> str:
        shape = self.draw(st.lists(st.sampled_from((1, 2, 3, 4, 5)), min_size=least_rank, max_size=4))
        v = self.build.input(f"x{len(self.build.inputs)}", f"f32[{'x'.join(map(str, shape))}]")
        self.values.append(v)
        return v

    def shape(self, v: str) -> tuple[int, ...]:
        return self.build.types[v].shape

    def constant(self, shape: tuple[int, ...]) -> str:
        return self.build.const(self.rng.standard_normal(shape).astype(np.float32))

    def add(self, op: str, *inputs: str, **attrs: object) -> None:
        v = self.build(op, *inputs, **attrs)  # pyright: ignore[reportArgumentType]
        if 0 < self.build.types[v].size <= MOST_ELEMENTS:
            self.values.append(v)

    # --- ops ----------------------------------------------------------------------------------
    def unary(self) -> None:
        self.add(self.draw(st.sampled_from(UNARIES)), self.pick())

    def binary(self) -> None:
        a, op = self.pick(), self.draw(st.sampled_from(BINARIES))
        others = [v for v in self.values if _broadcasts(self.shape(a), self.shape(v))]
        b = self.draw(st.sampled_from(others))
        if self.draw(st.booleans()):
            kept = self.draw(st.integers(0, len(self.shape(a))))
            shape = tuple(n if self.draw(st.booleans()) else 1 for n in self.shape(a)[len(self.shape(a)) - kept :])
            b = self.constant(shape)
        self.add(op, *((a, b) if self.draw(st.booleans()) else (b, a)))

    def rows(self) -> None:
        op = self.draw(st.sampled_from(ROWS))
        attrs = {"epsilon": 1e-5} if op.endswith("_norm") else {}
        self.add(op, self.pick(1), **attrs)

    def transpose(self) -> None:
        v = self.pick(2)
        self.add("transpose", v, perm=tuple(self.draw(st.permutations(range(len(self.shape(v)))))))

    def reshape(self) -> None:
        v = self.pick()
        left, shape = math.prod(self.shape(v)), []
        for _ in range(self.draw(st.integers(0, 3))):
            shape.append(self.draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0])))
            left //= shape[-1]
        place = self.draw(st.integers(0, len(shape)))
        self.add("reshape", v, shape=(*shape[:place], left, *shape[place:]))

    def slice(self) -> None:
        v = self.pick(1)
        start, size, step = [], [], []
        for n in self.shape(v):
            step.append(self.draw(st.sampled_from((1, 1, 1, 2, -1))))
            size.append(self.draw(st.integers(1, (n - 1) // abs(step[-1]) + 1)))
            reach = (size[-1] - 1) * abs(step[-1])
            low = self.draw(st.integers(0, n - 1 - reach))
            start.append(low if step[-1] > 0 else low + reach)
        self.add("slice", v, start=tuple(start), size=tuple(size), step=tuple(step))

    def expand(self) -> None:
        v = self.pick()
        shape = tuple(self.draw(st.sampled_from((2, 3))) if n == 1 else n for n in self.shape(v))
        lead = self.draw(st.lists(st.sampled_from((1, 2)), max_size=max(0, 4 - len(shape))))
        self.add("expand", v, shape=(*lead, *shape))

    def concat(self) -> None:
        v = self.pick(1)
        axis = self.draw(st.integers(0, len(self.shape(v)) - 1))

        def rest(s: tuple[int, ...]) -> tuple[int, ...]:
            return (*s[:axis], *s[axis + 1 :])

        rank = len(self.shape(v))
        fits = [w for w in self.values if len(self.shape(w)) == rank and rest(self.shape(w)) == rest(self.shape(v))]
        parts = self.draw(st.lists(st.sampled_from(fits), min_size=1, max_size=2))
        if self.draw(st.booleans()):
            parts.append(self.constant(self.shape(v)))
        self.add("concat", v, *parts, axis=axis)

    def pad(self) -> None:
        v = self.pick(1)
        before, after = (tuple(self.draw(st.integers(0, 2)) for _ in self.shape(v)) for _ in range(2))
        self.add("pad", v, before=before, after=after, value=-1.5)

    def window(self) -> None:
        v = self.pick(3)
        spatial = self.shape(v)[2:]
        kernel = tuple(self.draw(st.integers(1, n)) for n in spatial)
        stride = tuple(self.draw(st.integers(1, 2)) for _ in spatial)
        self.add("window", v, kernel=kernel, stride=stride, dilation=(1,) * len(spatial))

    def matmul(self) -> None:
        a = self.pick(2)
        k, lead = self.shape(a)[-1], self.shape(a)[:-2]
        shape = (*(n if self.draw(st.booleans()) else 1 for n in lead), k, self.draw(st.integers(1, 5)))
        others = [v for v in self.values if len(self.shape(v)) >= 2 and self.shape(v)[-2] == k]
        others = [v for v in others if _broadcasts(lead, self.shape(v)[:-2])]
        b = self.draw(st.sampled_from(others)) if others and self.draw(st.booleans()) else self.constant(shape)
        self.add("matmul", a, b, scale=self.draw(st.sampled_from((1.0, 0.5))))

    def attention(self) -> None:
        q = self.pick(2)
        lead, (s, d), t, e = self.shape(q)[:-2], self.shape(q)[-2:], self.draw(st.integers(1, 4)), 3
        own = q if self.draw(st.booleans()) else ""
        axes = len(lead)
        if own:  # of the same value, transposed: as exporters write it
            k = self.build("transpose", q, perm=(*range(axes), axes + 1, axes))
            t, v = s, q
        else:
            k, v = self.constant((*lead, d, t)), self.constant((*lead, t, e))
        mask = [self.constant((1, t) if self.draw(st.booleans()) else (s, t))] if self.draw(st.booleans()) else []
        self.add("attention", q, k, v, *mask, scale=0.7)

    def gather(self) -> None:
        index = self.rng.integers(-4, 4, (self.draw(st.integers(1, 3)), self.draw(st.integers(1, 3)), 1))
        table = self.constant((4, self.draw(st.integers(1, 5))))
        rows = [v for v in self.values if len(self.shape(v)) == 2 and self.shape(v)[0] >= 4]
        if rows and self.draw(st.booleans()):
            table = self.draw(st.sampled_from(rows))
        name = f"i{len(self.build.inputs)}"
        self.build.input(name, f"i64[{'x'.join(map(str, index.shape))}]")
        self.add("gather", table, name)

    def static(self) -> None:
        """quantize → blocked_mvm → dequantize."""
        x = self.pick(1)
        k, n, i = self.shape(x)[-1], self.draw(st.sampled_from((1, 3, 8, 11))), len(self.build.nodes)
        w = self.rng.standard_normal((k, n)).astype(np.float32)
        scale = np.abs(w).max(axis=0) / np.float32(127)
        codes, name = np.rint(w / scale).astype(np.int8), f"w{i}.q8"
        self.build.const(codes, name)
        self.build.types[name] = type(self.build.types[x])(Element.Q8, codes.shape)
        self.build.constants[f"{name}.float"] = w
        self.build("quantize", x, out=f"q{i} s{i}")
        acc = self.build("blocked_mvm", f"q{i}", name, rows=BLOCK, cols=BLOCK)
        self.add("dequantize", acc, f"s{i}", self.build.const(scale))

    def copy(self) -> None:
        self.add("copy", self.pick())


MAKERS: tuple[Callable[[Maker], None], ...] = (
    Maker.unary, Maker.binary, Maker.rows, Maker.transpose, Maker.reshape, Maker.slice, Maker.expand, Maker.concat,
    Maker.pad, Maker.window, Maker.matmul, Maker.attention, Maker.gather, Maker.static, Maker.static, Maker.copy,
)  # fmt: skip


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))


@st.composite
def graphs(draw: st.DrawFn) -> Drawn:
    """A graph of up to a dozen ops; everything nobody reads is an output, some of what is read, too."""
    maker = Maker(draw)
    maker.fresh(draw(st.integers(1, 3)))
    for make in draw(st.lists(st.sampled_from(MAKERS), min_size=1, max_size=12)):
        make(maker)
    build = maker.build
    read = {v for n in build.nodes for v in n.inputs}
    made = [v for v in maker.values if v not in build.inputs]
    ends = [o for n in build.nodes for o in n.outputs if o not in read]
    outputs = [v for v in made if v in ends or draw(st.integers(0, 4)) == 0] or ends
    outputs = list(dict.fromkeys([*outputs, *ends])) or maker.values[:1]
    inputs = {
        v: maker.rng.integers(0, 4, build.types[v].shape)
        if build.types[v].element is Element.I64
        else maker.rng.standard_normal(build.types[v].shape).astype(np.float32)
        for v in build.inputs
    }
    graph = build.graph(*outputs).with_nodes(tuple(build.nodes))
    return Drawn(graph, build.constants, inputs)
