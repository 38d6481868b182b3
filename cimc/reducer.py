"""``cimc reduce``: the smallest part of a model that still fails ``check``.

A part is a set of nodes; what they read from the rest of the model is taken from the reference's run, so a part fails
for what it does itself. First the end is found by bisection (the shortest prefix of the model that fails), then the
beginning (the shortest end of that), then nodes are dropped from between, in ever smaller groups (Zeller and Hildebrandt,
"Simplifying and isolating failure-inducing input", IEEE TSE 2002), until nothing more can go or the trials are used up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc import inputs as input_files
from cimc.checker import Checked, CheckOptions, check_model
from cimc.errors import CimcError, CimcErrors
from cimc.frontend import importer, reference_values
from cimc.frontend.reference_extract import Extractor, Part
from cimc.inputs import Tokens
from cimc.lookups import beyond
from cimc.options import Options
from cimc.reference import Reference

Array = NDArray[np.generic]

MAX_TRIALS = 80
FAULTS = (AssertionError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a bug of cimc raises; ``reduce`` keeps looking for the same kind."""
DIFFERS = "differs"


@dataclass(frozen=True)
class Failure:
    """How a check failed: ``kind`` is "differs", a diagnostic's code or an exception's name; ``outputs`` those beyond
    tolerance; ``told`` one line for the user."""

    kind: str
    told: str
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reduced:
    """What was found: the model's bytes, its inputs, nodes before and after, trials made, how it fails."""

    model: bytes
    inputs: Mapping[str, Array]
    nodes: int
    kept: int
    trials: int
    failure: Failure


def reduce_model(
    model: str,
    options: Options,
    how: CheckOptions,
    *,
    max_trials: int = MAX_TRIALS,
    say: Callable[[str], None] = lambda _: None,
) -> Reduced:
    """Cut a failing model down. ``say`` is told about progress. Raises REDUCE_PASSES if the model does not fail, and
    CimcError if it cannot be read or onnxruntime cannot run it."""
    if options.lengths is not None:
        raise options.lengths.unchecked()
    how = replace(how, timing=False, trace=False, layers=False)
    extractor = Extractor(Path(model))
    failure, checked = _check(model, options, how)
    if failure is None:
        raise errors.REDUCE_PASSES(model=model)
    say(f"the whole model: {failure.told}")
    reference = Reference.of(extractor.path, _feeds(extractor, options, how, checked))
    return _Search(extractor, reference, options, how, failure, max_trials, say).run()


def _check(model: str, options: Options, how: CheckOptions) -> tuple[Failure | None, Checked | None]:
    try:
        checked = check_model(model, options, how)
    except CimcErrors as e:
        return Failure(e.errors[0].diagnostic.code, e.errors[0].message), None
    except CimcError as e:
        return Failure(e.diagnostic.code, e.message), None
    except FAULTS as e:
        return Failure(type(e).__name__, f"{type(e).__name__}: {e}".splitlines()[0][:300]), None
    failed = tuple(a for a in checked.report.outputs if not a.passed)
    if not failed:
        return None, checked
    told = f"output '{failed[0].name}': {failed[0].verdict.why}"
    return Failure(DIFFERS, told, tuple(a.name for a in failed)), checked


def _feeds(extractor: Extractor, options: Options, how: CheckOptions, checked: Checked | None) -> Mapping[str, Array]:
    if how.inputs is not None:
        return how.inputs
    if checked is not None:
        return input_files.draw(checked.compiled.program, how.seed, checked.compiled.tokens)
    try:
        graph = importer.load(extractor.path, dims=options.dims, misfit=partial(beyond, tokens=Tokens())).graph
        types = {name: graph.types[name] for name in graph.inputs}
    except CimcError:
        types = extractor.input_types(options.dims)
    return input_files.draw_types(types, how.seed, extractor.table_rows())


class _Search:
    def __init__(
        self,
        extractor: Extractor,
        reference: Reference,
        options: Options,
        how: CheckOptions,
        failure: Failure,
        max_trials: int,
        say: Callable[[str], None],
    ) -> None:
        self.extractor = extractor
        self.reference = reference
        self.options = replace(options, dims={})
        self.how = how
        self.failure = failure
        self.left = max_trials
        self.limit = max_trials
        self.say = say
        self.best: tuple[Part, bytes, Mapping[str, Array], Failure] | None = None

    def run(self) -> Reduced:
        """The smallest part that still fails. Raises REDUCE_VANISHES if the whole does not."""
        whole = self.extractor.prefix(len(self.extractor.nodes))
        if not self.fails(whole):
            raise errors.REDUCE_VANISHES(model=self.extractor.path, why=self.failure.told)
        part = self.end()
        part = self.beginning(part)
        self.middle(part)
        assert self.best is not None
        part, model, feeds, failure = self.best
        trials = self.limit - self.left
        return Reduced(model, feeds, len(self.extractor.nodes), len(part.nodes), trials, failure)

    def fails(self, part: Part) -> bool:
        """Whether a part fails as the model does; the last that did is remembered."""
        if self.left <= 0 or not self.extractor.has(part):
            return False
        self.left -= 1
        try:
            values = self.values(part)
            model, feeds = self.extractor.model(part, values)
        except CimcError as e:
            self.say(f"trial {self.limit - self.left}: {len(part.nodes)} nodes, no reference: {e.message}")
            return False
        with tempfile.TemporaryDirectory(prefix="cimc-reduce-") as folder:
            path = Path(folder) / "part.onnx"
            path.write_bytes(model)
            found, _ = _check(str(path), self.options, replace(self.how, inputs=feeds))
        same = found is not None and found.kind == self.failure.kind
        self.say(f"trial {self.limit - self.left}: {len(part.nodes)} nodes: {'fails' if same else 'does not fail'}")
        if same and found is not None:
            self.best = (part, model, feeds, found)
        return same

    def values(self, part: Part) -> dict[str, Array]:
        """The values that cross into the part and leave it, from the reference."""
        names = dict.fromkeys((*self.extractor.crossing(part), *part.outputs))
        inside = [n for n in names if n not in self.reference.inputs]
        found = reference_values.inner(self.reference.model, self.reference.inputs, inside) if inside else {}
        return {**{n: self.reference.inputs[n] for n in names if n in self.reference.inputs}, **found}

    def end(self) -> Part:
        """The shortest prefix that fails, less what its failing outputs do not need."""
        low, high = 0, len(self.extractor.nodes)
        while high - low > 1 and self.left > 0:
            count = (low + high) // 2
            if self.fails(self.extractor.prefix(count)):
                high = count
            else:
                low = count
        part = self.extractor.prefix(high)
        assert self.best is not None
        for outputs in (self.best[3].outputs[:1], self.extractor.last_outputs(part)):
            narrower = self.extractor.ending(part, outputs)
            if outputs and self.fails(narrower):
                return narrower
        return part

    def beginning(self, part: Part) -> Part:
        """The shortest end of the part that fails."""
        low, high = 0, len(part.nodes)
        while high - low > 1 and self.left > 0:
            start = (low + high) // 2
            if self.fails(self.extractor.without(part, part.nodes[:start])):
                low = start
            else:
                high = start
        return self.extractor.without(part, part.nodes[:low])

    def middle(self, part: Part) -> None:
        """Drop groups of nodes, halves first, single nodes last."""
        size = len(part.nodes) // 2
        while size >= 1 and self.left > 0:
            at = 0
            while at < len(part.nodes) and len(part.nodes) > 1:
                shorter = self.extractor.without(part, part.nodes[at : at + size])
                if len(shorter.nodes) < len(part.nodes) and self.fails(shorter):
                    part = shorter
                else:
                    at += size
            size //= 2
