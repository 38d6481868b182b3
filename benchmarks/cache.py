"""One token of a decoder with its KV cache in global memory, and in the tiles of its heads: ``python -m benchmarks.cache``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from benchmarks.figures import Section, show
from cimc.compiler import compile_model
from cimc.errors import CimcError
from cimc.mapping.choices import CacheHome, Choices
from cimc.options import Options
from cimc.report import figures, units
from cimc.report.cache import with_cache
from cimc.report.figures import RunFigures
from cimc.report.mapping_file import capacity_of
from cimc.sim.interpreter import run
from models import small
from models.graph import save

COMMAND = "python -m benchmarks.cache"
POSITIONS = (127, 255, 511, 1023)
"""Earlier tokens."""


@dataclass(frozen=True)
class Model:
    """A decoder, and for each chip what is overridden: GPT-2 small fills 55 % of the cores so, as in ``attainment``."""

    name: str
    build: Callable[[], onnx.ModelProto]
    chips: tuple[tuple[str, tuple[str, ...]], ...]


MODELS = (
    Model(
        "GPT-2 of 4 layers, 6 heads",
        lambda: small.gpt2(layers=4, hidden=384, heads=6, ffn=1536, vocab=1000, positions=1024, with_past=True),
        (("isaac", ()), ("sram-digital", ())),
    ),
    Model(
        "Llama of 4 layers, 6 heads that share 2 of keys",
        lambda: small.llama(layers=4, hidden=384, heads=6, kv_heads=2, ffn=1024, vocab=1000, with_past=True),
        (("isaac", ()), ("sram-digital", ())),
    ),
    Model(
        "GPT-2 small",
        lambda: small.build(replace(small.RECIPES["gpt2-small"].config, with_past=True)),
        (("isaac", ("layout=41x16",)), ("sram-digital", ("layout=61x16",))),
    ),
)
HOMES: tuple[CacheHome, ...] = ("memory", "resident")


def _measured(path: Path, chip: str, overrides: tuple[str, ...], past: int, how: CacheHome) -> RunFigures | None:
    """One token after ``past``; None if its cache does not fit."""
    dims = {"batch": 1, "sequence": 1, "past_sequence": past}
    try:
        made = compile_model(path, Options(chip, overrides, dims=dims, choices=Choices(cache=how)))
    except CimcError as error:
        if error.code != "cache-room":
            raise
        return None
    assert made is not None
    result = run(made.program, made.weights, made.hardware.spec, values=False)
    return with_cache(figures.from_result(result), made.program, capacity_of(made.mapping))


def _row(model: Model, hardware: str, past: int, how: str, found: RunFigures) -> tuple[str, ...]:
    traffic = found.traffic_bytes or {}
    cache = found.cache
    return (
        model.name,
        f"`{hardware}`",
        units.whole(past),
        f"`{how}`",
        units.whole(found.cycles),
        units.energy_pj(found.total_pj),
        units.size_bytes(traffic.get("global_memory", 0)),
        units.size_bytes(traffic.get("noc", 0)),
        f"{units.size_bytes(cache.bytes)} in {cache.tiles} tiles" if cache else "–",
        units.whole(cache.capacity_tokens) if cache and cache.capacity_tokens else "–",
    )


def rows() -> list[tuple[str, ...]]:
    """Every model, chip, position and home; where all of a cache finds no room, the layers that do."""
    found: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, model in enumerate(MODELS):
            path = Path(folder) / f"{number}.onnx"
            save(model.build(), path)
            for chip, overrides in model.chips:
                hardware = " ".join((chip, *(f"-c {o}" for o in overrides)))
                for past in POSITIONS:
                    for home in HOMES:
                        told = _measured(path, chip, overrides, past, home)
                        how = home if told else "fit"
                        told = told or _measured(path, chip, overrides, past, "fit")
                        assert told is not None
                        found.append(_row(model, hardware, past, how, told))
            path.unlink()
    return found


def sections() -> list[Section]:
    """Everything measured here."""
    about = (
        "One token after so many earlier ones (`--dim sequence=1 --dim past_sequence=N`). `memory`: the caches are inputs and "
        "outputs in global memory; each is copied to its output there and loaded by the tiles that multiply with it, so its "
        "bytes pass global memory three times. `resident`: they lie in those tiles, and only new rows move. Neither is "
        "charged for what a run is given or read: the caches stand where an earlier step left them. Where not all "
        "layers find room, `fit` keeps those that do. Weights are random: cycles, energy and bytes do not depend on values."
    )
    head = ("model", "hardware", "earlier tokens", "`--cache`", "cycles", "energy", "global memory", "noc, byte-hops")
    remark = (
        "Caches are float32, as the models were exported. Tokens that fit: with each head in one tile, 7/8 of the local memory "
        "of tiles with a matmul unit, beside what a token's own values take."
    )
    head = (*head, "cache in tiles", "tokens that fit")
    return [Section("KV caches in tiles", COMMAND, about, head, tuple(rows()), remarks=(remark,))]


if __name__ == "__main__":
    show(sections())
