"""Switches for people who work on cimc itself: the only place where environment variables are read. None of them
changes what a correct compiler computes.

``CIMC_VERIFY``: 0: passes are not checked; 1 (the default): the law of levels is checked before and after every pass;
2: the graph is also evaluated after every pass, and the first pass that changes the answer is named.
"""

from __future__ import annotations

import os


def verify() -> int:
    """How much of what passes do is checked. Anything but 0, 1 or 2 counts as 1."""
    return {"0": 0, "2": 2}.get(os.environ.get("CIMC_VERIFY", ""), 1)
