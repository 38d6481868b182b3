"""How long a run takes whose weights take turns in the cells: an estimate, to choose by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil

from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.mapping.placement import Part, PlacedMatrix
from cimc.mapping.ring import Item, by_segment

Matrices = Mapping[str, tuple[PlacedMatrix, ...]]  # by output value, copy by copy


def estimate(items: Sequence[Item], placed: Matrices, turning: frozenset[str], chip: ChipSpec) -> int:
    """Cycles of the products, segment by segment, each when the last has ended and its weights are there. Weights come
    through global memory: what can be written from the start on comes all mixed, the rest one after the other, from when
    the matrices used before on their tile are done with; a matrix is written in the time of its deepest block, from when its
    first weights can come."""
    used: dict[int, int] = {}  # tile → end of the last segment with a matrix on it
    segments = by_segment(items)
    units = {p.tile: TileUnits(chip, p.tile) for i in items for m in placed[i.value] for p in m.parts}
    memory = mixed = _burst(segments, placed, turning, chip)
    now = 0
    for members in segments:
        start = now
        for part in _parts((i for i in members if i.value in turning), placed):
            if part.tile not in used:
                start = max(start, mixed, _writing(part, units[part.tile]))
                continue
            begun = max(memory, used[part.tile])
            memory = begun + _loading(part, chip)
            start = max(start, memory, begun + _writing(part, units[part.tile]))
        copies = placed[members[0].value]
        one = copies[0].parts[0].tile
        now = start + ceil(members[0].rows / len(copies)) * units[one].mvm_interval(8)
        for part in _parts(members, placed):
            used[part.tile] = now
    return now


def _burst(segments: Iterable[Sequence[Item]], placed: Matrices, turning: frozenset[str], chip: ChipSpec) -> int:
    """Cycles for the weights that tiles load before they have done anything else."""
    total = 0
    used: set[int] = set()
    for members in segments:
        parts = [p for p in _parts((i for i in members if i.value in turning), placed) if p.tile not in used]
        total += sum(_loading(part, chip) for part in parts)
        used |= {p.tile for p in _parts(members, placed)}
    return total


def _parts(members: Iterable[Item], placed: Matrices) -> Iterator[Part]:
    """The parts of all copies of some matrices."""
    return (part for i in members for matrix in placed[i.value] for part in matrix.parts)


def _loading(part: Part, chip: ChipSpec) -> int:
    weights = (part.rows[1] - part.rows[0]) * (part.cols[1] - part.cols[0])
    return ceil(weights / chip.memory.bytes_per_cycle)


def _writing(part: Part, units: TileUnits) -> int:
    return units.program_cycles([(b.rows[1] - b.rows[0], b.cols[1] - b.cols[0]) for b in part.blocks])
