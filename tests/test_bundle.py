"""The compiled folder: written all at once, read with suspicion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cimc import bundle
from cimc.errors import CimcError

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "codes": np.array([[-127, 127]], np.int8),
    "call": np.frombuffer(b"bytes", np.uint8),
    "flag": np.array([True, False]),
    "scalar": np.array(3, np.int64),
    "none": np.zeros((0, 4), np.float16),
}


def test_weights_are_safetensors(tmp_path: Path) -> None:
    bundle.write_weights(ARRAYS, tmp_path / "w.safetensors")
    theirs = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    ours = bundle.read_weights(tmp_path / "w.safetensors")
    assert theirs.keys() == ours.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        for found in (theirs[name], ours[name]):
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            assert np.array_equal(found, array)
    assert not ours["a"].flags.writeable


def test_bfloat16_weights(tmp_path: Path) -> None:
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    bundle.write_weights({"b": array}, tmp_path / "w.safetensors")
    found = bundle.read_weights(tmp_path / "w.safetensors")["b"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_narrow_weights_are_kept_as_bytes(tmp_path: Path) -> None:
    array = np.arange(-8, 8).astype(np.int8).astype(ml_dtypes.int4).reshape(4, 4)
    bundle.write_weights({"b": array}, tmp_path / "w.safetensors")
    found = bundle.read_weights(tmp_path / "w.safetensors")["b"]
    assert found.dtype == np.uint8
    assert np.array_equal(found.view(ml_dtypes.int4), array)


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b"\xff" * 8 + b[8:], lambda b: b""])
def test_damaged_weights_are_refused(damage, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    bundle.write_weights(ARRAYS, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CimcError, match="file-unreadable"):
        bundle.read_weights(path)


def test_a_folder_is_replaced_whole_and_only_if_it_is_ours(tmp_path: Path) -> None:
    place = tmp_path / "out"
    bundle.write(place, {"program.cim": "one", "old.txt": "gone after"}, ARRAYS, {"k": 1})
    bundle.write(place, {"program.cim": "two"}, {}, {"k": 2})
    assert {p.name for p in place.iterdir()} == {"program.cim", "weights.safetensors", "manifest.json"}
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["k"] == 2
    assert (
        manifest["files"]["program.cim"] == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    )  # of "two"
    (place / "manifest.json").unlink()
    with pytest.raises(CimcError, match="output-occupied"):
        bundle.write(place, {}, {}, {})
    assert (place / "program.cim").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    bundle.write(tmp_path, {"program.cim": "x"}, {}, {})
    assert (tmp_path / "program.cim").is_file()


def test_a_bare_programs_hardware_is_a_preset_or_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("password", encoding="utf-8")
    folder = tmp_path / "program"
    folder.mkdir()
    shutil.copy("cimc/arch/presets/toy.yaml", folder / "mine.yaml")
    path = folder / "p.cim"

    def named(hardware: str) -> bundle.Bundle:
        path.write_text(f'.cim 1\n.hardware "{hardware}"\n.tile 0\nhalt\n', encoding="utf-8")
        return bundle.read(path)

    assert named("isaac").hardware.spec.name == "isaac"
    assert named("mine.yaml").hardware.spec.name == "toy"
    for outside in ("../secret.yaml", str(tmp_path / "secret.yaml")):
        with pytest.raises(CimcError, match="leaves the program's folder") as e:
            named(outside)
        assert "password" not in str(e.value)


def test_the_program_of_a_compiled_folder_has_the_folders_weights_and_hardware(tmp_path: Path) -> None:
    place = tmp_path / "out"
    hardware = Path("cimc/arch/presets/toy.yaml").read_text(encoding="utf-8").replace("rows: 8", "rows: 16")
    program = '.cim 1\n.hardware "toy"\n.tile 0\nhalt\n'
    bundle.write(place, {bundle.PROGRAM: program, bundle.HARDWARE: hardware}, ARRAYS, {"k": 1})
    found = bundle.read(place / bundle.PROGRAM)
    assert found.folder == place
    assert set(found.weights) == set(ARRAYS)
    assert found.hardware.spec == bundle.read(place).hardware.spec
    (place / bundle.MANIFEST).unlink()
    assert bundle.read(place / bundle.PROGRAM).folder is None  # a bare program of that name
