"""Instructions a second of the timing engine on synthetic programs: ``python -m benchmarks.timing [iterations]``.

``compute``: 16 tiles, each a loop of quantize, mvm, dequantize and an activation. ``pipeline``: the same with rows
sent from tile to tile. ``memory``: the same with a load and a store instead."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from time import process_time

from cimc.arch.load import load
from cimc.isa.instruction import INSTRUCTIONS, Instruction, Repeat, Step, Value, complete
from cimc.isa.operands import Affine, Element, View, dense_view
from cimc.isa.program import Block, Buffer, GlobalBuffer, MatrixDecl, Program, TileProgram
from cimc.sim.timing import run_timing

TILES = 16
N = 128


def do(mnemonic: str, *operands: View | str, **keywords: Value) -> Instruction:
    """An instruction with its row's defaults."""
    return Instruction(mnemonic, operands, complete(INSTRUCTIONS[mnemonic], keywords))


def tile(place: int, tiles: list[int], iterations: int, kind: str) -> TileProgram:
    """One tile's loop; every buffer holds two rows, used in turn as far as an affine offset can say it."""
    sizes = (("x", Element.F32, N), ("s", Element.F32, 1), ("q", Element.Q8, N), ("acc", Element.Q32, N))
    more = (("w", Element.F32, N), ("y", Element.F32, N))
    buffers: list[Buffer] = []
    for name, element, size in (*sizes, *more):
        address = buffers[-1].address + buffers[-1].bytes if buffers else 0
        buffers.append(Buffer(name, element, (1, size), address + -address % 8))
    v = {b.name: dense_view(b.name, b.shape) for b in buffers}
    row = dense_view("g", (1, N), Affine(place * N))
    first: list[Step] = []
    last: list[Step] = []
    if kind == "memory":
        first, last = [do("load", v["x"], row)], [do("store", row, v["y"])]
    if kind == "pipeline" and place > 0:
        first = [do("recv", v["x"], source=tiles[place - 1])]
    if kind == "pipeline" and place < TILES - 1:
        last = [do("send", v["y"], to=(tiles[place + 1],))]
    work = (
        do("quantize", v["q"], v["s"], v["x"]),
        do("mvm", v["acc"], "W", v["q"]),
        do("dequantize", v["y"], v["acc"], v["s"], v["w"]),
        do("relu", v["y"], v["y"]),
    )
    matrix = MatrixDecl("W", Element.Q8, N, N, "", 0, 0, (Block(0, 0, N, 0, N),))
    loop = Repeat("i", iterations, (*first, *work, *last))
    return TileProgram(tiles[place], tuple(buffers), (matrix,), (loop, do("halt")))


@dataclass(frozen=True)
class Measured:
    """One kind of loop: executed instructions, CPU seconds with everything before and after the loop."""

    kind: str
    instructions: int
    cycles: int
    seconds: float

    @property
    def rate(self) -> float:
        """Executed instructions per CPU second."""
        return self.instructions / self.seconds


def measure(iterations: int) -> list[Measured]:
    """Every kind of loop, ``iterations`` times on all tiles; the engine is compiled, or loaded, before."""
    chip = load("isaac").spec
    tiles = [t for t in range(chip.tile_count) if chip.tile(t).core][:TILES]
    memory = (GlobalBuffer("g", Element.F32, (TILES, N)),)

    def program(kind: str, times: int) -> Program:
        return Program("isaac", memory, (), (), tuple(tile(t, tiles, times, kind) for t in range(TILES)))

    run_timing(program("compute", 1), chip)
    found: list[Measured] = []
    for kind in ("compute", "pipeline", "memory"):
        begun = process_time()
        timing = run_timing(program(kind, iterations), chip)
        found.append(Measured(kind, timing.instructions, timing.cycles, process_time() - begun))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("iterations", nargs="?", type=int, default=20_000, help="rounds of every loop")
    for m in measure(parser.parse_args().iterations):
        print(
            f"{m.kind:9} {m.instructions:9} instructions, {m.cycles:10} cycles in {m.seconds:6.2f} CPU s:"
            f" {m.rate / 1e6:5.2f} M instructions/s"
        )


if __name__ == "__main__":
    main()
