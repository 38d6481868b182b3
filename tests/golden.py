"""Golden files: what a thing should print, kept in the repository and read by people.

``golden.check("isa/golden/name.err", text)`` compares; ``pytest --update-golden`` writes instead, for a diff to be
read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """Compares texts with the files under ``tests/``, or rewrites the files."""

    update: bool

    def check(self, path: str, text: str) -> None:
        """Assert that ``text`` is what the file holds; an absent file is a failure unless it is being updated."""
        place = ROOT / path
        if self.update:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
            return
        assert place.is_file(), f"{path} is missing: run pytest --update-golden and read the new file"
        assert text == place.read_text(encoding="utf-8"), f"{path} differs: --update-golden if the new text is right"
