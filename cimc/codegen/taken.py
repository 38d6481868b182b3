"""A segment's code as a trial wrote it, taken into the program: the names of buffers become those that they would have, had
the code been written there, and tags of sums those that no earlier segment's stand in the way of. Writing it anew would take
several times as long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cimc.codegen.context import Context
from cimc.codegen.tilecode import TileCode
from cimc.isa.instruction import Repeat, Step, Value
from cimc.isa.operands import View


def take(trial: Context, into: Context) -> None:
    """Append the code of a trial, a context of one segment's code and no other's, tile by tile."""
    shared = {name: into.global_name(value) for value, name in trial.names.items()}
    later = into.take_sums(trial.sums)
    for tile, code in trial.codes.items():
        target = into.code(tile)
        names = {**shared, **target.take(code)}
        if not later and all(old == new for old, new in names.items()):
            target.steps += code.steps
        else:
            target.steps += _Renaming(names, later).steps(code)


class _Renaming:
    """Steps with other names of buffers, and tags of sums that are so much ``later``. A view that several instructions have
    stays one object."""

    def __init__(self, names: Mapping[str, str], later: int) -> None:
        self.names = names
        self.later = later
        self.views: dict[int, View] = {}  # by the identity of those they replace, which live as long as the code

    def steps(self, code: TileCode) -> list[Step]:
        """All of a tile's."""
        return [self._step(s) for s in code.steps]

    def _step(self, step: Step) -> Step:
        if isinstance(step, Repeat):
            return replace(step, body=tuple([self._step(s) for s in step.body]))
        if self.later and step.mnemonic in ("reduce", "collect"):
            step = replace(
                step, keywords=tuple((k, _plus(v, self.later) if k == "tag" else v) for k, v in step.keywords)
            )
        return step.on(tuple([self._view(o) if isinstance(o, View) else o for o in step.operands]))

    def _view(self, view: View) -> View:
        found = self.views.get(id(view))
        if found is None:
            found = self.views[id(view)] = view.of(self.names[view.buffer])
        return found


def _plus(tag: Value, later: int) -> Value:
    assert isinstance(tag, int)
    return tag + later
