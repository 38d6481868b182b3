"""Whatever is changed in a directory's files: one message, or a report; never a traceback."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cimc.errors import CimcError, Exit
from cimc.report import diff, figures, html, inspect, jsontext, manifest_file, mapping_file, render
from tests.report import synthetic

MAPPING = synthetic.mapping(1)
RUN = json.loads(jsontext.dumps(figures.from_result(synthetic.result(1)).to_json()))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 2**31, 2**63, 10**400, -1, 0.5, 1e308, float("nan"), float("inf")]),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
)


def mutate(draw: st.DrawFn, value: Any) -> Any:
    """Replace, drop or double one thing at a random place."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        return {k: mutate(draw, v) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        i = draw(st.integers(0, len(value) - 1))
        return [*value[:i], mutate(draw, value[i]), *value[i + 1 :]]
    if isinstance(value, list) and value and draw(st.booleans()):
        return [*value, copy.deepcopy(value[-1])]
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return {k: v for k, v in value.items() if k != key}
    return draw(VALUES)


@st.composite
def files(draw: st.DrawFn) -> tuple[Any, Any]:
    """A mapping and a run, one of them changed once to three times."""
    mapping, run = copy.deepcopy(MAPPING), copy.deepcopy(RUN)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            mapping = mutate(draw, mapping)
        else:
            run = mutate(draw, run)
    return mapping, run


@given(files())
@example((MAPPING | {"tiles": [], "static": [], "dynamic": [], "totals": dict.fromkeys(MAPPING["totals"], 0)}, RUN))
@example((MAPPING, RUN | {"latency_ns": None}))
@example((MAPPING, RUN | {"energy_pj": {}}))
@example((MAPPING, RUN | {"energy_pj": None}))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_files(tmp_path: Path, pair: tuple[Any, Any]) -> None:
    mapping, run = pair
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "manifest.json").write_text(json.dumps(run))
    fault: CimcError | None = None
    try:
        inspection = inspect.load(tmp_path, synthetic.chip())
    except CimcError as caught:
        fault = caught
    if fault is not None:
        assert (fault.exit, len(str(fault).splitlines())) == (Exit.USAGE, 2)
        return
    render.plain(inspect.report(inspection))
    render.plain(diff.report(diff.diff(tmp_path, tmp_path)))
    jsontext.dumps(inspect.to_json(inspection))
    html.page(inspection, manifest_file.read_manifest(tmp_path / "manifest.json"))
    for layer in inspection.layers[:3]:
        render.plain(inspect.layer_report(inspection, layer))
    for tile in inspection.mapping.tiles[:3]:
        render.plain(inspect.tile_report(inspection, tile))


@given(st.binary(max_size=40))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    for read in (figures.read_run, mapping_file.read_mapping):
        with pytest.raises(CimcError) as caught:
            read(path)
        assert caught.value.exit == Exit.USAGE
