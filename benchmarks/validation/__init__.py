"""Presets against what was published of the machines: ``python -m benchmarks.validation``.

Every figure says whether it went into the preset (``built``), is the total of what went in (``sums``) or tests it, and
where sources contradict each other (``conflict``) both are shown and neither is fitted. The simulated side uses the same
functions as a run: actions counted for an MVM, energies, intervals and areas of the hardware file.
"""
