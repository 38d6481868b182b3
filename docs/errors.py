"""Writes ``docs/errors.md`` from the table in ``cimc/errors.py``.

python -m docs.errors            write it
python -m docs.errors --check    fail if it is out of date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cimc.errors
from cimc.errors import DIAGNOSTICS, Diagnostic

PAGE = Path(__file__).with_suffix(".md")
SOURCE = Path(cimc.errors.__file__)

HEAD = """\
# Diagnostics

Every message cimc prints about something a user can put right: `error[CODE]`, where, what, and what to do. Words in
`{braces}` are filled in. Generated from `cimc/errors.py` by `python -m docs.errors`; do not edit.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | `check` ran and the outputs differ beyond tolerance |
| 2 | bad usage or bad input: model, hardware file, program, inputs |
| 3 | the model or program does not fit the hardware, or this computer's memory |
| 4 | a program failed while it ran |
| 70 | a bug in cimc |
| 130 | interrupted |

A mistyped command or flag is told by the command line itself (exit code 2) and has no code.
"""


def sections() -> dict[str, list[Diagnostic]]:
    """Diagnostics under the headings of cimc/errors.py, in its order."""
    by_code = dict(DIAGNOSTICS)
    found: dict[str, list[Diagnostic]] = {}
    heading = ""
    for matched in re.finditer(
        r'^# --- (.+?) -+$|Diagnostic\(\s*"([a-z0-9-]+)"', SOURCE.read_text(encoding="utf-8"), re.M
    ):
        if matched[1]:
            heading = matched[1]
        else:
            found.setdefault(heading, []).append(by_code.pop(matched[2]))
    if by_code:
        raise ValueError(f"diagnostics outside the table: {', '.join(by_code)}")
    return found


def page() -> str:
    """The page's text."""
    lines = [HEAD]
    for heading, rows in sections().items():
        lines += [f"## {heading.capitalize()}", "", "| code | exit | message | what to do |", "|---|---|---|---|"]
        lines += [f"| `{d.code}` | {int(d.exit)} | {_cell(d.message)} | {_cell(d.hint)} |" for d in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A template as a table cell: bars and newlines would end it."""
    return text.replace("{{", "{").replace("}}", "}").replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    text = page()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/errors.md is out of date: python -m docs.errors", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
