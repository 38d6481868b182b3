"""Units that a kind of tile lacks, and how a user gives them to it."""

from __future__ import annotations

from collections.abc import Iterable

from cimc.arch.spec import TileSpec
from cimc.isa.instruction import Unit

EXAMPLES = {
    Unit.VECTOR: "vector={lanes: 16, startup_cycles: 2}",
    Unit.SPECIAL: "special={lanes: 16, startup_cycles: 8}",
    Unit.MATMUL: "matmul={rows: 32, cols: 32, operand_bits: 8, load_bytes_per_cycle: 32, startup_cycles: 64}",
}
"""Units as ``-c`` gives them to a kind of tile; the numbers are those of docs/hardware.md."""


def lacking(tile: TileSpec, units: Iterable[Unit]) -> list[Unit]:
    """Those of the units that a tile does not have, by name."""
    present = {Unit.VECTOR: tile.vector, Unit.SPECIAL: tile.special, Unit.MATMUL: tile.matmul}
    return sorted((u for u in units if present[u] is None), key=lambda u: u.value)


def giving(kind: str, units: Iterable[Unit]) -> str:
    """The overrides that give a kind of tile some units."""
    return " ".join(f"-c 'tiles.{kind}.{EXAMPLES[u]}'" for u in units)
