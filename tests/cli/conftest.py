"""Fixtures of the command-line tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Cimc, linear


@pytest.fixture
def cimc(cimc_command: Cimc) -> Cimc:
    """By the name that it has on the command line."""
    return cimc_command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "linear.onnx")


@pytest.fixture
def folder(tmp_path: Path, model: Path, cimc: Cimc) -> Path:
    """A compiled folder."""
    place = tmp_path / "compiled"
    assert cimc("compile", model, "-o", place, "--dim", "n=3", "-q").exit == 0
    return place
