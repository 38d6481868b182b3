"""``python -m benchmarks.validation``: every machine's figures."""

from __future__ import annotations

from benchmarks.figures import Section, show
from benchmarks.validation import colonnade, hermes, isaac, mlp, neurram, puma
from benchmarks.validation.figure import Validation, summary

MACHINES = (isaac, puma, hermes, neurram, colonnade)


def found() -> list[Validation]:
    """Every machine."""
    return [machine.validate() for machine in MACHINES]


def sections() -> list[Section]:
    """A summary, then a table a machine."""
    machines = found()
    return [summary(machines), *(m.section() for m in machines), mlp.section()]


if __name__ == "__main__":
    show(sections())
