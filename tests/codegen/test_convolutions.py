"""Networks of convolutions: the program's answers against onnxruntime's and the graph's; where their windows come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.compiler import Compiled, compile_model
from cimc.ir.evaluate import evaluate
from cimc.ops import Arithmetic
from cimc.options import Options
from cimc.session import InferenceSession

ROOMY = ("tiles.all.cores=256", "tiles.all.local_bytes=65536")


class Net:
    """A small network being written; weights are drawn from a seed."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(7)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, op: str, *inputs: str, **attrs: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"/{name}", **attrs))
        return name

    def drawn(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        array = (self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, *shape: int, **attrs: object) -> str:
        return self.op("Conv", x, self.drawn(*shape), self.drawn(shape[0]), **attrs)

    def model(self, y: str) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [x], [out], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def residual() -> tuple[Net, str]:
    net = Net(1, 3, 9, 8)
    a = net.op("Relu", net.conv("x", 6, 3, 3, 3, pads=[1, 1, 1, 1]))
    b = net.op("Relu", net.conv(a, 6, 6, 3, 3, pads=[1, 1, 1, 1]))
    c = net.conv(b, 6, 6, 3, 3, pads=[1, 1, 1, 1])
    d = net.op("Relu", net.op("Add", c, a))
    e = net.op("Add", net.conv(d, 8, 6, 1, 1, strides=[2, 2]), net.conv(d, 8, 6, 3, 3, strides=[2, 2], pads=[1] * 4))
    return net, net.op("Flatten", net.op("GlobalAveragePool", e))


def fire() -> tuple[Net, str]:
    net = Net(2, 4, 10, 10)
    s = net.op("Relu", net.conv("x", 3, 4, 1, 1))
    one = net.op("Relu", net.conv(s, 4, 3, 1, 1))
    three = net.op("Relu", net.conv(s, 5, 3, 3, 3, pads=[1, 1, 1, 1]))
    both = net.op("Concat", one, three, axis=1)
    return net, net.op("MaxPool", net.conv(both, 4, 9, 1, 1), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)


def uneven() -> tuple[Net, str]:
    """Two borders around one value, asymmetric ones; groups, dilations; a concat below one another."""
    net = Net(1, 4, 8, 7)
    a = net.op("Tanh", net.conv("x", 4, 2, 3, 2, group=2, pads=[0, 1, 2, 0]))
    b = net.conv(a, 6, 4, 3, 3, pads=[2, 0, 1, 3], dilations=[2, 1])
    c = net.conv(a, 6, 4, 2, 2, pads=[1, 1, 0, 1], strides=[2, 1])
    both = net.op("Concat", net.op("LeakyRelu", b), net.op("Relu", c), axis=2)
    return net, net.op("AveragePool", both, kernel_shape=[2, 2], pads=[1, 0, 0, 1])


def line() -> tuple[Net, str]:
    net = Net(2, 3, 20)
    a = net.op("Relu", net.conv("x", 5, 3, 3, pads=[1, 1]))
    return net, net.conv(a, 4, 5, 3, strides=[2], pads=[2, 0])


def space() -> tuple[Net, str]:
    net = Net(1, 2, 4, 5, 4)
    a = net.op("Relu", net.conv("x", 3, 2, 2, 3, 2, pads=[1, 1, 0, 0, 1, 1]))
    return net, net.conv(a, 2, 3, 3, 1, 2, pads=[1, 0, 0, 1, 0, 0])


def depthwise() -> tuple[Net, str]:
    net = Net(1, 4, 6, 6)
    a = net.op("Relu", net.conv("x", 4, 1, 3, 3, group=4, pads=[1, 1, 1, 1]))
    return net, net.conv(a, 5, 4, 1, 1)


NETS = (residual, fire, uneven, line, space, depthwise)


def compiled(net: Net, y: str, folder: Path, hardware: str = "toy") -> Compiled:
    path = folder / "net.onnx"
    onnx.save(net.model(y), path)
    made = compile_model(path, Options(hardware=hardware, overrides=ROOMY if hardware == "toy" else ()))
    assert made is not None
    return made


@pytest.mark.parametrize("hardware", ["toy", "isaac"])
@pytest.mark.parametrize("build", NETS)
def test_answers(build: Callable[[], tuple[Net, str]], hardware: str, tmp_path: Path) -> None:
    net, y = build()
    made = compiled(net, y, tmp_path, hardware)
    x = np.random.default_rng(1).standard_normal(net.shape).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"x": x})
    (found,) = InferenceSession(made, "float", timing=False).run(None, {"x": x})
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    whole = evaluate(made.graph, made.constants, {"x": x}, Arithmetic(exact=False))
    (found,) = InferenceSession(made, "integer", timing=False).run(None, {"x": x})
    np.testing.assert_array_equal(found, next(iter(whole.values())))


def test_windows_are_not_stored(tmp_path: Path) -> None:
    """Between layers nothing is larger than a padded map: 11 × 10 pixels of 6 channels."""
    program = compiled(*residual(), tmp_path).program
    sizes = [int(np.prod(b.shape)) for b in program.globals if not b.key and b.name.startswith("t")]
    assert max(sizes) == 11 * 10 * 6


def test_a_padded_value_is_stored_once(tmp_path: Path) -> None:
    """Three of the maps are read with a border; none of them stands without one as well."""
    program = compiled(*residual(), tmp_path).program
    shapes = [b.shape for b in program.globals]
    assert shapes.count((1, 11, 10, 6)) == 3
    assert (1, 9, 8, 6) not in shapes
    assert (1, 6, 9, 8) not in shapes
