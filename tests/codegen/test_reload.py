"""Matrices cut into pieces to be written, against what a matrix is: every row once, within the bytes there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc import errors
from cimc.arch.load import load
from cimc.codegen.context import Context
from cimc.codegen.lower import lower
from cimc.codegen.reload import pieces, reloads
from cimc.compiler import compile_model
from cimc.isa.cells import strips
from cimc.mapping.build import build
from cimc.mapping.choices import Choices
from cimc.options import Options
from models import small
from models.graph import save


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(1, 60))
def test_every_row_is_written_once_by_the_instructions_of_the_pieces(
    blocks: int, depth: int, last: int, most: int
) -> None:
    depths = (*[depth] * (blocks - 1), min(last, depth))
    seen: list[int] = []
    for piece in pieces(depths, most):
        rows = sum(max(0, min(piece.count, d - piece.row)) for d in depths[piece.first : piece.last])
        assert 0 < rows <= most
        first = piece.first * depth + piece.row
        seen += [at + i for at, n in strips(rows, first, piece.count, depth) for i in range(n)]
    assert sorted(seen) == list(range(sum(depths)))


def test_blocks_are_written_together_while_a_row_of_each_fits() -> None:
    assert [(p.first, p.last, p.row, p.count) for p in pieces((4, 4, 2), 6)] == [(0, 3, 0, 2), (0, 2, 2, 2)]
    assert [(p.first, p.last) for p in pieces((1, 1, 1), 2)] == [(0, 2), (2, 3)]


def test_no_room_for_a_row_is_told_with_numbers(tmp_path) -> None:
    save(small.bert(layers=2, hidden=32, heads=2, ffn=64, vocab=50, positions=32), tmp_path / "bert.onnx")
    hardware = "extends: isaac\nname: small\nlayout: [CICC, CDCC, CDCC]\ntiles: {cim: {cores: 1}}\n"
    (tmp_path / "small.yaml").write_text(hardware)
    options = Options(str(tmp_path / "small.yaml"), dims={"batch": 1, "sequence": 8}, choices=Choices(reload=True))
    made = compile_model(tmp_path / "bert.onnx", options)
    assert made is not None
    chip = load(options.hardware).spec
    graph, mapping = build(made.graph, chip, "w8a8", options.choices)
    assert lower(graph, mapping, chip).tiles == made.program.tiles  # the same again
    reload = mapping.placement.reload
    assert reload is not None
    turning = next(s for s in mapping.segments if any(n.outputs[0] in reload.values for n in s.nodes))
    context = Context(graph, mapping, chip)
    for tile in made.program.tiles:
        context.code(tile.tile).matrices.update({m.name: m for m in tile.matrices})
    with pytest.raises(errors.CimcError, match=r"takes .* bytes, the local buffer has 60 left") as caught:
        list(reloads(context, turning, chip, {t.tile: 60 for t in made.program.tiles}))
    assert (caught.value.code, caught.value.exit) == ("reload-buffer", 3)
    assert "local_bytes" in caught.value.hint
