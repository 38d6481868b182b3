"""A placement given as a file: as it says or refused, and never another answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cimc import inputs
from cimc.arch.load import load
from cimc.codegen.contents import Contents
from cimc.codegen.lower import lowered
from cimc.compiler import Compiled, compile_model
from cimc.errors import CimcError, Exit
from cimc.ir.evaluate import evaluate
from cimc.isa.verify import verify
from cimc.mapping.build import build
from cimc.mapping.choices import Choices
from cimc.mapping.dump import dump
from cimc.mapping.placement_file import NOT_READ, read_placement
from cimc.ops import Arithmetic
from cimc.options import Options
from cimc.sim.interpreter import run
from models import small
from models.graph import save
from tests.mapping.hardware import two_sizes
from tests.mapping.test_segment import static
from tests.passes.graph_builder import Build
from tests.report.test_run_report import validate

CHIP = load("toy", ("layout=4x3", "tiles.all.cores=8", "tiles.all.local_bytes=65536")).spec
Edit = Callable[[dict], object]


def layers():
    """A stream of two matrices, then what needs all of its rows: a resident value between them."""
    b = Build("partitioned")
    hidden = b("layer_norm", static(b, b.input("x", "f32[32x16]"), 24, "a"), epsilon=1e-5)
    y = static(b, hidden, 16, "b")
    return b, b.graph(b("softmax", b("matmul", y, b("transpose", y, perm=(1, 0)))))


def compiled(placement: Path | None = None):
    _, graph = layers()
    pinned = read_placement(placement) if placement else None
    graph, mapping = build(graph, CHIP, "w8a8", pinned=pinned)
    made = lowered(graph, mapping, CHIP)
    found = replace(mapping, placement=replace(mapping.placement, rows=made.rows, residents=made.residents))
    return made.program, dump(graph, found, made.program, CHIP)


def written(tmp_path: Path, edit: Edit | None = None) -> Path:
    data = json.loads(json.dumps(compiled()[1]))
    if edit:
        edit(data)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(data))
    return path


def test_the_dump_is_valid_and_all_of_its_keys_are_known(tmp_path: Path) -> None:
    _, data = compiled()
    validate(json.loads(json.dumps(data)), "mapping")
    assert set(data) <= {"hardware", "static", "segments", "residents", *NOT_READ}
    assert data["segments"]
    assert data["residents"]


def test_a_dump_read_back_gives_the_same_program(tmp_path: Path) -> None:
    assert compiled(written(tmp_path))[0] == compiled()[0]


def test_regions_that_several_tiles_assemble_are_read_back(tmp_path: Path) -> None:
    b = Build("partitioned")
    graph = b.graph(b("pad", b.input("x", "f32[96x128]"), before=(1, 2), after=(3, 0), value=0.5))
    graph, mapping = build(graph, CHIP, "w8a8")
    made = lowered(graph, mapping, CHIP)
    (segment,) = data = dump(graph, mapping, made.program, CHIP)["segments"]
    assert len(segment["tiles"]) > 1
    path = tmp_path / "p.json"
    path.write_text(json.dumps(dump(graph, mapping, made.program, CHIP)))
    again, placed = build(graph, CHIP, "w8a8", pinned=read_placement(path))
    assert lowered(again, placed, CHIP).program == made.program
    assert dump(again, placed, made.program, CHIP)["segments"] == data


def scattered(data: dict) -> None:
    """Every block on a tile of its own choice, cores left to the compiler; vector work, rows and values moved, too."""
    turn = 0
    for matrix in data["static"]:
        for block in matrix["blocks"]:
            block["tile"] = (5 * turn + block["replica"]) % 12
            del block["crossbars"]
            turn += 1
    for segment in data["segments"]:
        if "stages" in segment:
            stages = segment["stages"]
            segment["stages"] = [[[11 - t for t in lanes] for lanes in each] for each in stages]
            segment["rows"] = 3
        else:
            segment["tiles"] = [9, 2, 4][: len(segment["tiles"])]
    for number, value in enumerate(data["residents"]):
        value["tile"] = None if number % 2 else 10


def test_scattered_blocks_compute_the_same(tmp_path: Path) -> None:
    program, _ = compiled(written(tmp_path, scattered))
    assert program != compiled()[0]
    verify(program, CHIP, None)
    b, graph = layers()
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((32, 16)).astype(np.float32)}
    wanted = evaluate(graph, b.constants, feeds, Arithmetic(exact=False))
    graph, _ = build(graph, CHIP, "w8a8")
    weights = Contents(program, graph, b.constants)
    result = run(program, weights, CHIP, inputs=feeds, numerics="integer", timing=True)
    assert result.outputs is not None
    np.testing.assert_array_equal(result.outputs[program.outputs[0].name], wanted[graph.outputs[0]])


def put(*path: object) -> Edit:
    def edit(data: dict) -> None:
        *keys, last, value = path
        at: object = data
        for key in keys:
            at = at[key]
        at[last] = value

    return edit


def twice(data: dict) -> None:
    one, two = data["static"][0]["blocks"][:2]
    two.update(tile=one["tile"], crossbars=one["crossbars"])


B = ("static", 0, "blocks", 0)
S = ("segments", 0)
WRONG: dict[str, tuple[Edit, str]] = {
    "no such tile": (put(*B, "tile", 99), "there is no tile 99"),
    "a tile before the first": (put(*B, "tile", -1), "static.0.blocks.0.tile"),
    "a tile in words": (put(*B, "tile", "one"), "static.0.blocks.0.tile"),
    "half a tile": (put(*B, "tile", 1.5), "static.0.blocks.0.tile"),
    "a number without end": (put(*B, "tile", 10**30), "static.0.blocks.0.tile"),
    "no such core": (put(*B, "crossbars", [998, 999]), "crossbars"),
    "half a core": (put(*B, "crossbars", [1]), "are not the"),
    "a core twice": (twice, "is used twice"),
    "a block less": (lambda d: d["static"][0]["blocks"].pop(), "has no block of rows"),
    "a block twice": (lambda d: d["static"][0]["blocks"].append(dict(d["static"][0]["blocks"][0])), "twice"),
    "a block of another size": (put(*B, "rows", [0, 5]), "[0, 5] is no block"),
    "a replica alone": (put(*B, "replica", 70), "has no block of rows"),
    "a matrix less": (lambda d: d["static"].pop(), "is missing"),
    "another model's matrix": (put("static", 0, "value", "q"), "no static matmul of this model makes 'q'"),
    "another precision": (put("static", 0, "precision", "w4a8"), "w4a8"),
    "weights in turn": (put("static", 0, "reloaded", True), "is reloaded there"),
    "other hardware": (put("hardware", "isaac"), "it was made for isaac"),
    "an unknown key": (put("foo", 1), "no key 'foo'"),
    "an unknown key inside": (put("static", 0, "foo", 1), "static.0.foo"),
    "no such tile for a stage": (put(*S, "stages", 0, 0, [99]), "there is no tile 99"),
    "a stage's tile twice": (put(*S, "stages", 0, 0, [1, 1]), "stands there twice"),
    "a stage without tiles": (put(*S, "stages", 0, 0, []), "segments.0.stages.0.0"),
    "stages for fewer": (lambda d: d["segments"][0]["stages"].pop(), "has stages for"),
    "a stage less": (lambda d: d["segments"][0]["stages"][0].pop(), "stages; there are"),
    "both kinds of tiles": (put(*S, "tiles", [1]), "`stages` and `tiles`"),
    "no rows": (put(*S, "rows", 0), "segments.0.rows"),
    "more rows than there are": (put(*S, "rows", 1000), "blocks of 1000 rows of the 32"),
    "a segment too many": (put(*S, "index", 55), "segment 55"),
    "another segment's node": (put(*S, "node", "q"), "segment 0 is stream from 'q'"),
    "no such tile for a value": (put("residents", 0, "tile", 99), "there is no tile 99"),
    "no such value": (put("residents", 0, "value", "q"), "is no value between segments"),
}


@pytest.mark.parametrize("name", WRONG)
def test_nonsense_is_refused(name: str, tmp_path: Path) -> None:
    edit, words = WRONG[name]
    with pytest.raises(CimcError) as caught:
        compiled(written(tmp_path, edit))
    assert caught.value.exit == Exit.USAGE
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "null", '{"hardware": NaN}', "\x00"])
def test_files_that_are_no_placement(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(CimcError) as caught:
        read_placement(path)
    assert caught.value.code == "placement"


def test_what_does_not_fit_says_the_numbers(tmp_path: Path) -> None:
    def full(data: dict) -> None:
        big = copy.deepcopy(data["residents"][0])
        data["residents"] = [{**big, "tile": 0}]

    small = load("toy", ("layout=4x3", "tiles.all.cores=8", "tiles.all.local_bytes=4096")).spec
    _, graph = layers()
    graph, mapping = build(graph, small, "w8a8", pinned=read_placement(written(tmp_path, full)))
    with pytest.raises(CimcError, match=r"keeps a value of 2048 bytes in tile 0, which has \d+ of 4096") as caught:
        lowered(graph, mapping, small)
    assert (caught.value.code, caught.value.exit) == ("resident-room", Exit.DOES_NOT_FIT)


def test_rows_that_do_not_fit_say_the_numbers(tmp_path: Path) -> None:
    """32 rows of 16 numbers of 4 bytes fill all 2048 bytes of a tile, constants and codes aside."""

    def tall(data: dict) -> None:
        data["segments"][0]["rows"] = 32

    small = load("toy", ("layout=4x3", "tiles.all.cores=8", "tiles.all.local_bytes=2048")).spec
    _, graph = layers()
    graph, mapping = build(graph, small, "w8a8", pinned=read_placement(written(tmp_path, tall)))
    with pytest.raises(
        CimcError, match=r"blocks of 32 rows in segment 0: tile \d+ needs \d{4} bytes .* has 1984"
    ) as caught:
        lowered(graph, mapping, small)
    assert (caught.value.code, caught.value.exit) == ("rows-too-many", Exit.DOES_NOT_FIT)


def beside(tmp_path: Path, preset: str) -> tuple[Options, Compiled]:
    """A model whose GELU stands beside the tiles of its product."""
    save(small.bert(layers=1, hidden=32, heads=2, ffn=64, vocab=50, positions=32), tmp_path / "bert.onnx")
    options = Options(preset, (), {"batch": 1, "sequence": 16}, choices=Choices(replicas=1))
    found = compile_model(tmp_path / "bert.onnx", options)
    assert found is not None
    return options, found


def compiled_as(options: Options, data: dict, tmp_path: Path) -> Compiled:
    (tmp_path / "p.json").write_text(json.dumps(data))
    found = compile_model(tmp_path / "bert.onnx", replace(options, placement=str(tmp_path / "p.json")))
    assert found is not None
    return found


@pytest.mark.parametrize("preset", ["isaac", "sram-digital"])
def test_tiles_beside_products_are_read_back(preset: str, tmp_path: Path) -> None:
    options, plain = beside(tmp_path, preset)
    data = json.loads(json.dumps(plain.mapping))
    validate(data, "mapping")
    assert any(segment.get("beside") for segment in data["segments"])
    assert compiled_as(options, data, tmp_path).program.tiles == plain.program.tiles
    segment = next(s for s in data["segments"] if s.get("beside"))
    able = {t for tiles in segment["stages"][0] for t in tiles}
    other = max(able - {aside["tile"] for aside in segment["beside"][0]})
    segment["beside"][0][0]["tile"] = other
    again = json.loads(json.dumps(compiled_as(options, data, tmp_path).mapping))["segments"]
    assert next(s for s in again if s.get("beside"))["beside"] == segment["beside"]


def test_nonsense_beside_products_is_refused(tmp_path: Path) -> None:
    options, plain = beside(tmp_path, "isaac")
    data = json.loads(json.dumps(plain.mapping))
    (first, *_), *_ = copies = next(s for s in data["segments"] if s.get("beside"))["beside"]
    for tile, words in ((first["of"], "cannot do what stands beside"), (10**9, "cannot do what stands beside")):
        edited = copy.deepcopy(data)
        next(s for s in edited["segments"] if s.get("beside"))["beside"][0][0]["tile"] = tile
        with pytest.raises(CimcError, match=words) as caught:
            compiled_as(options, edited, tmp_path)
        assert caught.value.exit == Exit.USAGE
    copies[0].append(first)
    with pytest.raises(CimcError, match="two tiles are beside one"):
        compiled_as(options, data, tmp_path)


def test_columns_of_a_moved_matrix_have_tiles_beside_them(tmp_path: Path) -> None:
    """Those that the placement says stood beside the tiles of before: others follow."""
    options, plain = beside(tmp_path, "isaac")
    data = json.loads(json.dumps(plain.mapping))
    wide = next(m for m in data["static"] if m["cols"] == 64)
    taken = {block["tile"] for matrix in data["static"] for block in matrix["blocks"]}
    tile = next(t["id"] for t in data["tiles"] if t["crossbars"] and t["id"] not in taken)
    for block in wide["blocks"]:
        block.update(tile=tile, crossbars=None)
    moved = compiled_as(options, data, tmp_path)
    feeds = inputs.draw(plain.program, 0, plain.tokens)
    here, there = (
        run(m.program, m.weights, m.hardware.spec, inputs=feeds, numerics="integer", timing=False).outputs
        for m in (moved, plain)
    )
    assert here is not None
    assert there is not None
    assert all(np.array_equal(here[name], there[name]) for name in there)


@pytest.mark.parametrize(
    ("way", "moved", "words"),
    [
        ("sram-write", "weights to sram", "which holds 64×64"),
        ("sram-write", "operands to cim", "has no cores of sram cells"),
        ("nvm-write", "operands to digital", "has no cores of nvm cells"),
        ("nvm-write", "operands to cim", "holds weights in core"),
        ("nvm-write", "operands to sram", "has no cores of nvm cells"),
    ],
)
def test_operands_that_are_written_need_their_cells(way: str, moved: str, words: str, tmp_path: Path) -> None:
    """The tile of the model's widest block of weights, or the first of its kind, for another."""
    save(small.bert(layers=1, hidden=48, heads=2, ffn=96, vocab=50, positions=16), tmp_path / "bert.onnx")
    options = Options(two_sizes(tmp_path), ("layout=4x16",), {"batch": 1, "sequence": 16}, attention=way)
    plain = compile_model(tmp_path / "bert.onnx", options)
    assert plain is not None
    data = json.loads(json.dumps(plain.mapping))
    assert compiled_as(options, data, tmp_path).program.tiles == plain.program.tiles
    what, kind = moved.split(" to ")
    block = max((b for m in data["static"] for b in m["blocks"]), key=lambda b: b["cols"][1] - b["cols"][0])
    tile = block["tile"] if kind == "cim" else next(t["id"] for t in data["tiles"] if t["kind"] == kind)
    if what == "weights":
        block.update(tile=tile, crossbars=None)
    else:
        writers = {d["tile"] for d in data["dynamic"]}
        segment = next(s for s in data["segments"] if writers.intersection(s.get("tiles", ())))
        segment["tiles"] = [tile]
    with pytest.raises(CimcError, match=words) as caught:
        compiled_as(options, data, tmp_path)
    assert caught.value.exit is Exit.USAGE
