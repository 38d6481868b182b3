"""``python -m benchmarks.validation``: every machine's figures."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import Section, show
from benchmarks.validation import colonnade, hermes, hybrids, isaac, mlp, neurram, puma
from benchmarks.validation.figure import Validation, summary

MACHINES: dict[str, Callable[[], Validation]] = {
    "isaac": isaac.validate,
    "puma": puma.validate,
    "hermes": hermes.validate,
    "neurram": neurram.validate,
    "colonnade": colonnade.validate,
    "xformer": hybrids.xformer,
    "retransformer": hybrids.retransformer,
}


def sections() -> list[Section]:
    """A summary, then a table a machine."""
    machines = [validate() for validate in MACHINES.values()]
    return [summary(machines), *(m.section() for m in machines), mlp.section()]


if __name__ == "__main__":
    show(sections())
