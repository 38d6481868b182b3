"""cimc: what would this transformer do on compute-in-memory hardware?

``compile`` a model, run it with ``InferenceSession``, ``check`` it against onnxruntime, ``sweep`` over variants of hardware
and mapping; ``analog`` is the device alone.
Everything is imported when it is first used, so that ``import cimc`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cimc import analog as analog
    from cimc.api import check as check
    from cimc.api import compile as compile
    from cimc.api import sweep as sweep
    from cimc.session import InferenceSession as InferenceSession

__all__ = ["InferenceSession", "analog", "check", "compile", "sweep"]

_PLACES = {"InferenceSession": "cimc.session", "check": "cimc.api", "compile": "cimc.api", "sweep": "cimc.api"}


def __getattr__(name: str) -> object:
    if name == "analog":
        return importlib.import_module("cimc.analog")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'cimc' has no attribute {name!r}")
