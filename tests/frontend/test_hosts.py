"""Who runs what tiles cannot do: onnxruntime, or ONNX's reference implementation; and what is asked of operands."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cimc import errors
from cimc.frontend.importer import Imported, load
from cimc.isa.hostnode import STANDARD, HostNode, Refused
from tests.frontend.onnx_models import FLOAT, INT64, agree, model, ops, run, save, value

BOOL = TensorProto.BOOL
MS = "com.microsoft"
RNG = np.random.default_rng(11)
node = helper.make_node


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def calls(imported: Imported) -> list[HostNode]:
    """The host calls of a graph, ready to run."""
    return [
        HostNode(np.asarray(imported.constants[str(n.attr("call"))], np.uint8).tobytes())
        for n in imported.graph.nodes
        if n.op == "host"
    ]


def by_reference(folder: Path, proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> Imported:
    """Assert that the model is the standard reference's; return it as imported."""
    imported = load(save(folder, proto), inputs=feeds)
    for got, want in zip(run(imported, feeds), ReferenceEvaluator(proto).run(None, feeds), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=1e-5, atol=1e-6)
    return imported


def test_a_layout_onnxruntime_has_no_kernel_for(tmp_path: Path) -> None:
    lstm = node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3, layout=1)
    fixed = {"w": draw(1, 12, 4), "r": draw(1, 12, 3)}
    proto = model([lstm], [value("x", [2, 5, 4])], [value("y", [2, 5, 1, 3])], fixed, opset=14)
    imported = by_reference(tmp_path, proto, {"x": draw(2, 5, 4)})
    assert [c.standard for c in calls(imported)] == [True]


def test_onnxruntime_runs_what_it_can(tmp_path: Path) -> None:
    lstm = node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)
    fixed = {"w": draw(1, 12, 4), "r": draw(1, 12, 3)}
    proto = model([lstm], [value("x", [5, 2, 4])], [value("y", [5, 1, 2, 3])], fixed, opset=14)
    imported = agree(tmp_path, proto, {"x": draw(5, 2, 4)})
    assert [c.standard for c in calls(imported)] == [False]


def test_bfloat16_on_the_host(tmp_path: Path) -> None:
    x = draw(4, 3).astype(ml_dtypes.bfloat16)
    reverse = node("ReverseSequence", ["x", "n"], ["y"], batch_axis=1, time_axis=0)
    proto = model(
        [reverse],
        [value("x", [4, 3], TensorProto.BFLOAT16)],
        [value("y", [4, 3], TensorProto.BFLOAT16)],
        {"n": np.array([4, 2, 1])},
        opset=24,
    )
    by_reference(tmp_path, proto, {"x": x})


def test_scalars_stay_scalars_on_the_host(tmp_path: Path) -> None:
    dft = node("DFT", ["x", "", "axis"], ["y"], onesided=1)
    proto = model([dft], [value("x", [1, 8, 2, 1])], [value("y", [1, 5, 2, 2])], {"axis": np.array(1)}, opset=20)
    by_reference(tmp_path, proto, {"x": draw(1, 8, 2, 1)})


def test_a_recurrent_layer_of_onnxruntimes_own(tmp_path: Path) -> None:
    codes = RNG.integers(-127, 128, (1, 4, 12)).astype(np.int8)
    again = RNG.integers(-127, 128, (1, 3, 12)).astype(np.int8)
    scale, zero = np.full((1, 12), 0.01, np.float32), np.zeros((1, 12), np.int8)
    names = ["x", "w", "r", "", "", "", "", "", "ws", "wz", "rs", "rz"]
    lstm = node("DynamicQuantizeLSTM", names, ["y"], hidden_size=3, domain=MS)
    fixed = {"w": codes, "r": again, "ws": scale, "wz": zero, "rs": scale, "rz": zero}
    proto = model([lstm], [value("x", [5, 2, 4])], ["y"], fixed, opset=17)
    imported = agree(tmp_path, proto, {"x": draw(5, 2, 4)})
    assert ops(imported) == ["host"]


def test_operators_of_onnxruntimes_own_without_a_spelling(tmp_path: Path) -> None:
    proto = model([node("Inverse", ["x"], ["y"], domain=MS)], [value("x", [2, 3, 3])], ["y"], opset=17)
    assert ops(agree(tmp_path, proto, {"x": draw(2, 3, 3)}, rtol=1e-6, atol=1e-6)) == ["host"]


def test_the_domain_of_classical_learning(tmp_path: Path) -> None:
    above = node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml", threshold=0.1)
    proto = model([above], [value("x", [4, 3])], ["y"], opset=17)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    assert ops(agree(tmp_path, proto, {"x": draw(4, 3)})) == ["host"]


def test_shapes_that_values_decide_are_compiled_in(tmp_path: Path) -> None:
    path = save(tmp_path, model([node("NonZero", ["x"], ["y"])], [value("x", [2, 3])], ["y"]))
    x = np.array([[0, 1, 2], [0, 0, 3]], np.float32)
    with pytest.raises(errors.CimcError, match="known only at run time"):
        load(path, inputs={"x": x})
    imported = load(path, inputs={"x": x}, specialize=True)
    assert imported.fixed == {"x"}
    np.testing.assert_array_equal(run(imported, {})[0], np.stack(np.nonzero(x)))


def test_compress_by_a_known_condition_stays_on_tiles(tmp_path: Path) -> None:
    keep = {"c": np.array([True, False, True, True, False, True])}
    proto = model([node("Compress", ["x", "c"], ["y"], axis=1)], [value("x", [3, 6])], [value("y", [3, 4])], keep)
    assert "host" not in ops(agree(tmp_path, proto, {"x": draw(3, 6)}))
    flat = model([node("Compress", ["x", "c"], ["y"])], [value("x", [3, 2])], [value("y", [4])], keep)
    assert "host" not in ops(agree(tmp_path, flat, {"x": draw(3, 2)}))


def test_a_loop_that_may_not_start_is_no_loop_of_no_rounds(tmp_path: Path) -> None:
    """The first condition, known only at run time, was once taken for false."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["going"]), node("Add", ["s", "s"], ["t"])],
        "body",
        [value("i", [], INT64), value("go", [], BOOL), value("s", [2])],
        [value("going", [], BOOL), value("t", [2])],
    )
    proto = model(
        [node("Loop", ["n", "c", "x"], ["y"], body=body)],
        [value("c", [], BOOL), value("x", [2])],
        [value("y", [2])],
        {"n": np.array(3)},
    )
    path = save(tmp_path, proto)
    feeds = {"c": np.array(True), "x": draw(2)}
    with pytest.raises(errors.CimcError, match="the condition is known only at run time"):
        load(path, inputs=feeds)
    np.testing.assert_allclose(run(load(path, inputs=feeds, specialize=True), {"x": feeds["x"]})[0], feeds["x"] * 8)


@pytest.mark.parametrize("padded", [False, True])
def test_a_zero_point_known_at_run_time_only(tmp_path: Path, padded: bool) -> None:
    conv = node("ConvInteger", ["x", "w", "z"], ["y"], pads=[1, 1, 1, 1] if padded else [0, 0, 0, 0])
    x, w = (RNG.integers(0, 256, s).astype(np.uint8) for s in ((1, 2, 4, 4), (3, 2, 3, 3)))
    out = [1, 3, 4, 4] if padded else [1, 3, 2, 2]
    proto = model(
        [conv],
        [value("x", [1, 2, 4, 4], TensorProto.UINT8), value("z", [], TensorProto.UINT8)],
        [value("y", out, TensorProto.INT32)],
        {"w": w},
    )
    assert "host" not in ops(agree(tmp_path, proto, {"x": x, "z": np.array(131, np.uint8)}))


def test_batch_normalisation_in_training(tmp_path: Path) -> None:
    names = ["x", "g", "b", "m", "v"]
    batch = node("BatchNormalization", names, ["y", "nm", "nv"], training_mode=1, momentum=0.8)
    fixed = {"g": draw(3), "b": draw(3), "m": draw(3), "v": draw(3) ** 2}
    outputs = [value("y", [2, 3, 4]), value("nm", [3]), value("nv", [3])]
    proto = model([batch], [value("x", [2, 3, 4])], outputs, fixed, opset=15)
    assert calls(by_reference(tmp_path, proto, {"x": draw(2, 3, 4)})) == []


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(Refused, match="no serialized ONNX model"):
        HostNode(b"\xff\xff\xff")


def test_what_nobody_runs_is_refused() -> None:
    graph = helper.make_graph([node("Nothing", ["x"], ["y"])], "g", [value("x", [1], FLOAT)], [value("y", [1], FLOAT)])
    for producer in ("", STANDARD):
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name=producer)
        with pytest.raises(Refused):
            HostNode(proto.SerializeToString())
