"""The command line of the random-weight recipes, files beside a model, and inputs for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from models import inputs, small
from models.graph import GraphBuilder, save
from models.weights import RandomWeights, fan_in


def test_the_same_command_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.onnx" for index in range(3)]
    for path, seed in zip(paths, ("1", "1", "2"), strict=True):
        assert (
            small.main(["llama", "--layers", "1", "--hidden", "32", "--with-past", "--seed", seed, "-o", str(path)])
            == 0
        )
    first, second, third = (path.read_bytes() for path in paths)
    assert first == second != third


@pytest.mark.parametrize("recipe", ["bert", "gpt2", "llama", "vit", "cnn"])
def test_every_recipe_runs_on_inputs_from_the_command_line(recipe: str, tmp_path: Path) -> None:
    model, feeds = tmp_path / "model.onnx", tmp_path / "inputs.npz"
    assert small.main([recipe, "-o", str(model)]) == 0
    dims = ["--dim", "batch=2", "--dim", "sequence=8"]
    assert inputs.main([str(model), *dims, "-o", str(feeds)]) == 0
    with np.load(feeds) as arrays:
        results = onnxruntime.InferenceSession(str(model)).run(None, dict(arrays))
    assert all(result.shape[0] == 2 and np.isfinite(result).all() for result in results)


@pytest.mark.parametrize("name", ["bert-base", "gpt2-small", "vit-base", "smollm2-135m", "tinyllama-1.1b"])
def test_presets_keep_their_shape_when_cut_to_one_layer(name: str, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    narrow = ["--classes", "10"] if name == "vit-base" else ["--vocab", "1000"]
    assert small.main([name, "--layers", "1", *narrow, "-o", str(model)]) == 0
    largest = max(max(tensor.dims) for tensor in onnx.load(model).graph.initializer)
    config = small.RECIPES[name].config
    joint = 3 * config.hidden if name == "gpt2-small" else 0
    assert largest == max(config.ffn, joint, 1000 if narrow[0] == "--vocab" else 0)
    assert onnxruntime.InferenceSession(str(model)).get_outputs()[0].shape[-1] in (config.hidden, 1000, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt2", "--heads", "5"], "hidden size 64 is not a multiple of 5 heads"),
        (["llama", "--opset", "12"], "opset 12 is not between 13 and 21"),
        (["bert", "--seed", "-1"], "seed -1 is negative"),
        (["bert", "--layers", "two"], "invalid int value: 'two'"),
        (["bart"], "invalid choice: 'bart'"),
    ],
)
def test_bad_arguments_are_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        small.main([*arguments, "-o", "never-written.onnx"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unbound_dimension_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.onnx"
    small.main(["gpt2", "--with-past", "-o", str(model)])
    with pytest.raises(SystemExit):
        inputs.main([str(model), "--dim", "batch=1", "--dim", "sequence=4", "-o", str(tmp_path / "inputs.npz")])
    assert "input 'attention_mask' needs --dim past_sequence=N" in capsys.readouterr().err


def test_large_weights_go_to_a_file_beside_the_model_and_come_back_the_same(tmp_path: Path) -> None:
    model = small.gpt2(seed=1)
    feeds = inputs.sample_inputs(model, {"batch": 1, "sequence": 6})
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for _ in range(2):  # the second time over the first one's files
        save(small.gpt2(seed=1), tmp_path / "split.onnx", external_above=1000)
    assert (tmp_path / "split.onnx").stat().st_size < (tmp_path / "split.onnx.data").stat().st_size
    found = onnxruntime.InferenceSession(str(tmp_path / "split.onnx")).run(None, feeds)
    np.testing.assert_array_equal(found[0], expected[0])


def test_a_weight_depends_on_seed_and_name_only() -> None:
    first, again, other = (RandomWeights(seed).array("a", (4, 5), fan_in(4)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, RandomWeights(0).array("b", (4, 5), fan_in(4)))
    wide = RandomWeights(0).array("a", (100_000,), fan_in(25, gain=2.0))
    assert wide.std() == pytest.approx(0.4, rel=0.02)


def test_nodes_are_named_after_their_scope_and_counted() -> None:
    g = GraphBuilder("g", 17)
    with g.scope("encoder", "layer.0"):
        names = [g.op("Relu", "x"), g.op("Relu", "x")]
    assert names == ["/encoder/layer.0/Relu_output_0", "/encoder/layer.0/Relu_1_output_0"]
    assert g.op("Relu", "x") == "/Relu_output_0"
