"""Inputs drawn from a seed make sense for what the model does with them."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cimc import inputs
from cimc.cli.put import save_arrays
from cimc.errors import CimcError
from cimc.ir.graph import Type
from cimc.isa.operands import Element
from tests.e2e.workloads import PRESETS, case, compiled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("preset", PRESETS)
def test_tokens_are_in_the_vocabulary_and_masks_are_ones(preset: str, folder: Path) -> None:
    program = compiled(case("bert", batch=2, sequence=5), preset, folder).program
    found = inputs.draw(program, 7)
    ids = found["input_ids"]
    assert (ids.dtype, ids.shape) == (np.int64, (2, 5))
    assert 0 <= ids.min() < ids.max() < 50  # the table has 50 rows
    assert (found["attention_mask"] == 1).all()
    assert set(np.unique(found["token_type_ids"])) <= {0, 1}
    assert inputs.check(inputs.types(program), found).keys() == found.keys()


def test_the_seed_says_everything(folder: Path) -> None:
    program = compiled(case("gpt2-past", batch=1, sequence=1, past_sequence=7), "toy", folder).program
    a, b, c = (inputs.draw(program, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert any(not np.array_equal(a[n], c[n]) for n in a)


def test_types_that_files_of_arrays_lose(tmp_path: Path) -> None:
    kinds = {"h": Type(Element.BF16, (3,)), "n": Type(Element.I4, (3,)), "f": Type(Element.F8E5M2, (3,))}
    given = {n: np.array([1, -2, 3]).astype(t.element.dtype(exact=False)) for n, t in kinds.items()}
    save_arrays(tmp_path / "x.npz", given)
    found = inputs.check(kinds, inputs.read(tmp_path / "x.npz"))
    for name, array in given.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("element", [e for e in Element if e.narrow])
def test_narrow_inputs_are_drawn_within_their_range(element: Element) -> None:
    drawn = inputs.draw_types({"x": Type(element, (64,))}, 3)["x"]
    assert drawn.dtype == element.dtype(exact=False)
    numbers = drawn.astype(np.float32)
    assert np.isfinite(numbers).all()
    assert len(np.unique(numbers)) > 1
    assert (numbers >= 0).all()


def test_faults_are_all_told(folder: Path) -> None:
    types = inputs.types(compiled(case("bert", batch=2, sequence=5), "toy", folder).program)
    with pytest.raises(CimcError) as caught:
        inputs.check(types, {"input_id": np.zeros(1), "attention_mask": np.zeros((2, 5))})
    text = caught.value.render()
    assert "did you mean 'input_ids'?" in text
    assert "input 'attention_mask' is float64[2, 5], the program takes int64[2, 5]" in text
    assert "input 'token_type_ids' is missing" in text


def test_an_npz_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(100_000))
    monkeypatch.setattr(inputs, "MAX_NPZ_BYTES", 1 << 16)
    with pytest.raises(CimcError, match=r"unpacks to \d+ bytes"):
        inputs.read(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("shape", "data", "words"),
    [
        ((2**40, 4), b"", "claims 17592186044416 bytes of numbers and has 0"),
        ((2, 4), bytes(31), "claims 32 bytes of numbers and has 31"),
        ((-2, 4), bytes(32), "claims -32 bytes"),
        (None, b"hello", "x.npy is no array"),
    ],
)
def test_an_npz_whose_arrays_lie_takes_no_memory(
    shape: tuple[int, ...] | None, data: bytes, words: str, tmp_path: Path
) -> None:
    header = io.BytesIO()
    if shape is not None:
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + data)
    with pytest.raises(CimcError, match=words):
        inputs.read(tmp_path / "x.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_told_or_read(save: Callable[..., None], tmp_path: Path) -> None:
    path, rng = tmp_path / "x.npz", np.random.default_rng(0)
    save(path, x=np.arange(40, dtype=np.float32), y=np.ones((2, 3), np.int64))
    whole = path.read_bytes()
    for _ in range(300):
        bad = bytearray(whole)
        for at in rng.integers(0, len(bad), 2):
            bad[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with contextlib.suppress(CimcError):
            inputs.read(path)


def test_a_config_beside_the_model_shapes_the_tokens(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "layers": [1]}')
    tokens = inputs.read_tokens(tmp_path)
    assert tokens == inputs.Tokens(9, 1, 2)
    program = compiled(case("bert", batch=2, sequence=5), "toy", folder).program
    ids = inputs.draw(program, 7, tokens)["input_ids"]
    assert ids[:, 0].tolist() == [1, 1]
    assert ids[:, -1].tolist() == [2, 2]
    assert ids.max() < 9


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"vocab_size": -1, "bos_token_id": "x", "eos_token_id": true}', "[" * 9999]
)
def test_a_config_that_says_nothing_is_no_harm(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert inputs.read_tokens(tmp_path) == inputs.Tokens()
