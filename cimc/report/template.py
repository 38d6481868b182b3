"""The pages' templates: names come from models nobody vouches for, so all of them are escaped."""

from __future__ import annotations

from pathlib import Path

import jinja2

_TEMPLATES = Path(__file__).parent / "inspector"


def render(name: str, **values: object) -> str:
    """A page as text; a value that the template asks for and is not given is a fault."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
