"""Inputs for any of the recipes' models, drawn from a seed.

    python -m models.inputs out/gpt2.onnx --dim batch=1 --dim sequence=8 --dim past_sequence=16 -o out/inputs.npz

Token ids lie inside the vocabulary, masks are ones, positions follow the cache, caches and pixels are N(0, 1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

Array = NDArray[np.int64] | NDArray[np.float32]


def sample_inputs(model: onnx.ModelProto, dims: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """One array an input of the model; ``dims`` gives every symbolic dimension. ValueError when one is missing."""
    rng = np.random.default_rng(seed)
    past = dims.get("past_sequence", 0)
    return {value.name: _sample(model, value.name, _shape(value, dims), past, rng) for value in model.graph.input}


def _sample(model: onnx.ModelProto, name: str, shape: tuple[int, ...], past: int, rng: np.random.Generator) -> Array:
    if name in ("input_ids", "token_type_ids"):
        return rng.integers(0, _rows_gathered(model, name), shape)
    if name == "attention_mask":
        return np.ones(shape, dtype=np.int64)
    if name == "position_ids":
        return np.broadcast_to(np.arange(past, past + shape[-1], dtype=np.int64), shape).copy()
    return rng.standard_normal(shape, dtype=np.float32)


def _shape(value: onnx.ValueInfoProto, dims: Mapping[str, int]) -> tuple[int, ...]:
    """The input's shape; a dimension may be a sum of names, ``past_sequence + sequence``."""
    shape: list[int] = []
    for dim in value.type.tensor_type.shape.dim:
        names = [name.strip() for name in dim.dim_param.split("+")] if dim.dim_param else []
        missing = [name for name in names if name not in dims]
        if missing:
            raise ValueError(f"input {value.name!r} needs --dim {missing[0]}=N")
        shape.append(sum(dims[name] for name in names) if names else dim.dim_value)
    return tuple(shape)


def _rows_gathered(model: onnx.ModelProto, name: str) -> int:
    """How many rows the embedding table has that the input picks from."""
    tables = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[1] == name and node.input[0] in tables:
            return tables[node.input[0]]
    raise ValueError(f"no embedding table is read by {name!r}")


def main(arguments: list[str] | None = None) -> int:
    """Write inputs for a model as .npz."""
    parser = argparse.ArgumentParser(prog="python -m models.inputs", description="Draw inputs for a recipe's model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz file to write")
    parser.add_argument("--dim", type=_binding, action="append", default=[], metavar="NAME=N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        feeds = sample_inputs(onnx.load(options.model, load_external_data=False), dict(options.dim), options.seed)
    except (ValueError, OSError, DecodeError) as error:
        parser.error(str(error))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("wb") as stream:
        np.savez(stream, **feeds)
    print(f"wrote {options.output}", file=sys.stderr)
    return 0


def _binding(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main())
