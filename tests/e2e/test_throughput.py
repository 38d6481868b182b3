"""A batch that streams through all layers at once: what it computes layer by layer, to the bit, in fewer cycles."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cimc import errors
from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, compile_model
from cimc.isa.printer import print_program
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.session import InferenceSession
from cimc.sim.reference import Reference
from cimc.sim.timing import run_timing
from models.graph import save
from models.inputs import sample_inputs
from models.small import RECIPES, build

CASES = [
    ("bert", {"batch": 4, "sequence": 16}),
    ("bert", {"batch": 3, "sequence": 6}),
    ("gpt2", {"batch": 4, "sequence": 16}),
    ("vit", {"batch": 8}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("throughput")
    for name in ("bert", "gpt2", "vit", "mlp"):
        save(build(RECIPES[name].config), made / f"{name}.onnx")
    return made


def compiled(folder: Path, name: str, dims: dict[str, int], choices: Choices, hardware: str = "isaac") -> Compiled:
    made = compile_model(folder / f"{name}.onnx", Options(hardware, (), dims, choices=choices))
    assert made is not None
    return made


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_the_same_to_the_bit(folder: Path, name: str, dims: dict[str, int]) -> None:
    by_layers = compiled(folder, name, dims, Choices(replicas=1))
    streamed = compiled(folder, name, dims, Choices(replicas=1, optimize="throughput"))
    feeds = sample_inputs(build(RECIPES[name].config), dims, seed=5)
    for numerics in ("integer", "float"):
        one, other = (InferenceSession(m, numerics, timing=False).run(None, feeds) for m in (by_layers, streamed))
        for a, b in zip(one, other, strict=True):
            if numerics == "integer":
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_copies_share_the_samples(folder: Path) -> None:
    dims = {"batch": 4, "sequence": 16}
    feeds = sample_inputs(build(RECIPES["bert"].config), dims, seed=6)
    one, two = (compiled(folder, "bert", dims, Choices(replicas=n, optimize="throughput")) for n in (1, 2))
    count = Counter(m.key for t in two.program.tiles for m in t.matrices)
    assert set(count) == {m.key for t in one.program.tiles for m in t.matrices}
    assert sum(n == 2 for n in count.values()) >= 12  # two layers of six matrices each; what comes after them has one
    for a, b in zip(*(InferenceSession(m, "integer", timing=False).run(None, feeds) for m in (one, two)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(errors.CimcError, match="4 samples cannot be shared evenly among 3 copies"):
        compiled(folder, "bert", dims, Choices(replicas=3, optimize="throughput"))


def test_a_batch_takes_less_time_and_every_further_sample_little(folder: Path) -> None:
    """Layer by layer every sample takes as long as the first; streamed, as long as the slowest stage."""

    def cycles(batch: int, optimize: str) -> int:
        chosen = Choices(replicas=1, optimize="throughput" if optimize else "latency")
        made = compiled(folder, "bert", {"batch": batch, "sequence": 16}, chosen)
        return run_timing(made.program, made.hardware.spec).cycles

    streamed = cycles(16, "throughput")
    assert streamed < cycles(16, "") / 2
    more = streamed - cycles(8, "throughput")
    # isaac: an MVM of 8-bit inputs takes 800 ns = 960 cycles a row, of which a sample has 16.
    assert 8 * 16 * 960 <= more <= 1.3 * 8 * 16 * 960


def test_both_timing_engines_agree(folder: Path) -> None:
    dims = {"batch": 3, "sequence": 6}
    made = compiled(folder, "bert", dims, Choices(replicas=1, optimize="throughput"), "sram-digital")
    timing = run_timing(made.program, made.hardware.spec)
    assert Reference(made.program, made.hardware.spec).run() == timing.cycles
    assert timing.bound.cycles <= timing.cycles


def test_the_text_has_every_stage_a_few_times(folder: Path) -> None:
    """The samples are repeats, so the program does not grow with their number."""
    few, many = (
        compiled(folder, "bert", {"batch": n, "sequence": 16}, Choices(replicas=1, optimize="throughput"))
        for n in (12, 48)
    )
    sizes = [sum(1 for line in print_program(m.program).splitlines() if line.startswith("  ")) for m in (few, many)]
    assert sizes[1] <= 1.1 * sizes[0]


def test_the_mapping_tells_the_stages_and_can_be_taken_up_again(folder: Path, tmp_path: Path) -> None:
    dims = {"batch": 4, "sequence": 16}
    chosen = Choices(replicas=1, optimize="throughput")
    made = compiled(folder, "bert", dims, chosen)
    told = [s for s in made.mapping["segments"] if "streamed" in s]  # pyright: ignore
    used = {t.tile for t in made.program.tiles}
    assert len(told) > 2
    assert all(tile in used for s in told for stage in s["streamed"] for tile in stage)
    made.write(tmp_path / "out")
    options = Options("isaac", (), dims, choices=chosen, placement=str(tmp_path / "out" / "mapping.json"))
    again = compile_model(folder / "bert.onnx", options)
    assert again is not None
    assert again.program.tiles == made.program.tiles


@pytest.mark.parametrize(("name", "dims"), [("bert", {"batch": 1, "sequence": 16}), ("mlp", {"batch": 4})])
def test_what_cannot_stream_is_mapped_as_ever_and_says_so(folder: Path, name: str, dims: dict[str, int]) -> None:
    made = compiled(folder, name, dims, Choices(optimize="throughput"))
    assert any(note.startswith("throughput: nothing streams") for note in made.notes)


def test_too_little_local_memory_is_refused_with_the_numbers(folder: Path) -> None:
    chosen = Choices(replicas=1, optimize="throughput")
    options = Options("isaac", ("tiles.digital.local_bytes=4096",), {"batch": 4, "sequence": 16}, choices=chosen)
    with pytest.raises(errors.CimcError, match="the local buffer has 4096") as caught:
        compile_model(folder / "bert.onnx", options)
    assert (caught.value.code, caught.value.exit) == ("stream-room", 3)


@pytest.mark.parametrize(("hardware", "attention"), [("hybrid", "nvm-write"), ("xformer", "sram-write")])
def test_attention_written_into_cells_streams_around_it(hardware: str, attention: str, folder: Path) -> None:
    """Its products run on tiles that have such cores, head by head: no part of what samples stream through."""
    path = folder / "bert.onnx"
    options = Options(
        hardware=hardware, dims={"batch": 3, "sequence": 8}, attention=attention, choices=Choices(optimize="throughput")
    )
    assert check_model(str(path), options, CheckOptions("float")).report.passed
