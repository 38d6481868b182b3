"""Refusals of hardware that is short of something: what they tell to do, exists, and helps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cimc import arch
from cimc.arch.load import load, presets
from cimc.arch.spec import ChipSpec, LinkSpec
from cimc.errors import CimcError, Exit
from cimc.ir.graph import Graph
from cimc.mapping.build import build
from cimc.mapping.choices import Choices
from cimc.mapping.written import able
from tests.mapping.test_place import product
from tests.passes.graph_builder import Build

TOY = load("toy").spec  # 2 tiles × 2 cores of 8 × 8; its kind of tile is called 'all'
LINKED = TOY.model_copy(update={"link": LinkSpec(bytes_per_cycle=1.0, latency_cycles=1)})
TOO_LARGE = product(16, 24)  # 6 cores


def refused(graph: Graph, chip: ChipSpec, **choices: object) -> CimcError:
    with pytest.raises(CimcError) as caught:
        build(graph, chip, "w8a8", Choices(**choices))  # pyright: ignore[reportArgumentType]
    assert caught.value.exit == Exit.DOES_NOT_FIT
    return caught.value


def overridden(hint: str) -> list[str]:
    """The overrides that a hint gives with their values."""
    return re.findall(r"-c '([^']+)'", hint)


def test_cores_that_are_short_are_asked_for_by_keys_of_this_hardware() -> None:
    hint = refused(TOO_LARGE, TOY).hint
    keys = re.findall(r"-c ([\w.]+)=…", hint)
    assert keys == ["tiles.all.core.crossbar.rows", "tiles.all.cores"]
    larger = load("toy", tuple(f"{key}=24" for key in keys)).spec
    build(TOO_LARGE, larger, "w8a8")
    assert "--reload on" in hint


def test_chips_are_offered_with_what_they_take() -> None:
    assert "(--chips auto)" in refused(TOO_LARGE, LINKED).hint
    assert "--chips auto, once the hardware file has a link" in refused(TOO_LARGE, TOY).hint
    all_of_them = LINKED.model_copy(update={"chips": 64})
    assert "--chips" not in refused(product(16, 8 * 129), all_of_them).hint


def test_what_contradicts_the_options_is_not_offered() -> None:
    assert "--reload" not in refused(TOO_LARGE, TOY, optimize="throughput").hint
    assert "(-m replicas=1)" in refused(product(16, 16, rows=64), TOY, replicas=2).hint


@pytest.mark.parametrize("reload", [False, True])
def test_a_layout_without_cores_is_told(reload: bool) -> None:
    bare = load("sram-digital", ("layout=[DDI]",)).spec
    error = refused(TOO_LARGE, bare, reload=reload)
    assert "has 0: 6 short" in error.message
    assert "layout with tiles of kind 'cim'" in error.hint
    assert "--chips" not in error.hint
    assert "--reload" not in error.hint
    build(TOO_LARGE, load("sram-digital", ("layout=[DDI, CCC]",)).spec, "w8a8")


def test_hardware_without_any_core_is_told() -> None:
    spec = load("sram-digital", ("layout=[DDI]",)).spec
    none = spec.model_copy(update={"tiles": {k: t for k, t in spec.tiles.items() if t.core is None}})
    assert "hardware with cores (--hw" in refused(TOO_LARGE, none).hint


def test_the_unit_that_is_missing_is_given_as_told(tmp_path: Path) -> None:
    whole = (Path(arch.__file__).parent / "presets" / "sram-digital.yaml").read_text(encoding="utf-8")
    file = tmp_path / "bare.yaml"
    file.write_text(re.sub("\n    matmul: .*", "", whole), encoding="utf-8")
    bare = load(str(file)).spec
    b = Build("partitioned")
    graph = b.graph(b("softmax", b("matmul", b.input("x", "f32[4x8]"), b.input("y", "f32[8x3]"), scale=1.0)))
    error = refused(graph, bare)
    assert error.code == "unit-missing"
    (given,) = overridden(error.hint)
    assert given.startswith("tiles.digital.matmul=")  # it lacks fewer units than 'cim'
    assert "--attention" not in error.hint  # no tile with cores has units for softmax
    cim = bare.tiles["cim"].model_copy(update={"special": bare.tiles["digital"].special})
    able_to = bare.model_copy(update={"tiles": {**bare.tiles, "cim": cim}})
    assert "--attention sram-write" in refused(graph, able_to).hint
    build(graph, load(str(file), (given,)).spec, "w8a8")


def test_cells_for_attention_are_asked_for_where_they_can_be() -> None:
    with pytest.raises(CimcError) as caught:
        able(load("isaac").spec, "sram", frozenset())
    assert "--attention nvm-write or digital" in caught.value.hint
    with pytest.raises(CimcError) as caught:
        able(load("isaac", ("layout=[DDI]",)).spec, "sram", frozenset())
    assert caught.value.hint.endswith("or --attention digital")


@pytest.mark.parametrize("name", sorted(set(presets()) - {"toy"}))
def test_every_preset_makes_several_chips(name: str) -> None:
    one, two = load(name).spec, load(name, ("chips=2",)).spec
    assert two.tile_count == 2 * one.tile_count
