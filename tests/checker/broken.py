"""An op that is broken on purpose."""

from __future__ import annotations

import pytest

from cimc.isa import kernels, vector
from cimc.ops import rows


def break_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let layer norms be wrong by a tenth, in programs and in the meaning of graphs alike."""
    honest = kernels.layer_norm
    for place in (rows, vector):
        monkeypatch.setattr(place, "layer_norm", lambda x, epsilon: honest(x, epsilon) * x.dtype.type(1.1))
