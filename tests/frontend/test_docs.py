"""docs/ops.md is what the table of spellings says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc.frontend import docs
from cimc.frontend.spellings import SPELLINGS


def test_the_page_is_up_to_date() -> None:
    assert (Path(__file__).parents[2] / docs.PATH).read_text(encoding="utf-8") == docs.text()


def test_every_spelling_has_a_row() -> None:
    rows = {line.split("|")[1].strip() for line in docs.text().splitlines() if line.startswith("| ")}
    names = {f"{d}::{o}" if d else o for d, o in SPELLINGS}
    assert names == rows - {"operator"}


def test_a_stale_page_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "PATH", tmp_path / "ops.md")
    assert docs.main(["--check"]) == 1
    assert docs.main([]) == 0
    (tmp_path / "ops.md").write_text(capsys.readouterr().out, encoding="utf-8")
    assert docs.main(["--check"]) == 0
