"""A program as flat integer arrays: what the fast timing engine runs.

Every instruction of a tile's stream becomes one row; a repeat becomes two rows that count and jump. What an execution
costs stands in *variants*: one for most rows, one per combination of repeat variables where extents depend on them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.operands import Affine, View
from cimc.isa.program import Program, TileProgram
from cimc.sim import noc
from cimc.sim.job import Action, Foreman, Job, action, destinations, is_token, number, unit

Ints = NDArray[np.int64]
LOOP, NEXT, END = 10, 11, 12  # rows that are no instruction; the others have their Action
MAX_VARIANTS = 1 << 20
MAX_MESSAGES = 1 << 26
EMPTY = -(1 << 60)  # the end of a range without bytes


R_OP, R_SLOT, R_TARGET, R_TRIPS, R_UNIT, R_EVERYTHING, R_CHANNEL, R_WAY, R_SERVER = range(9)
R_VARIANT, R_VARIANT_AFF, R_RANGE, R_DEST, R_TREE = range(9, 14)
V_CYCLES, V_SIZE, V_REQUEST, V_RESPONSE, V_BOUNDS = range(5)


class Flat(NamedTuple):
    """The tables; columns of ``rows`` and ``variants`` are named above. RANGE, DEST, TREE and BOUNDS are where a row's
    (a variant's) part of another table begins; it ends where the next one's begins. Affine values are numbers of rows
    of ``affine``, over the tile's slots."""

    tile_start: Ints  # per tile, in the order of tile numbers: its first row
    rows: Ints  # repeat: SLOT, TARGET to jump to, TRIPS affine; VARIANT the first, VARIANT_AFF offset or -1
    variants: Ints
    ranges: Ints  # (affine offset in bytes, flags: 1 writes, 2 accumulates, 4 reads)
    bounds: Ints  # (low, high) of a variant's ranges from that offset
    affine: Ints  # (constant, where its terms begin)
    terms: Ints  # (slot, factor)
    dests: Ints  # (channel, leaf of the tree)
    trees: Ints  # (link, parent)
    ways: Ints  # per way from a tile to its memory port or a home: where the links there and back begin
    there_link: Ints
    back_link: Ints
    ring_ptr: Ints  # per channel: where its ring of messages begins


@dataclass
class Layout:
    """The flat program with what its rows and variants stand for."""

    flat: Flat
    tiles: tuple[int, ...]  # tile numbers, ascending
    row_tile: list[int]  # per row: index of its tile
    instructions: list[Instruction | None]  # per row
    jobs: list[Job]  # per variant
    job_row: list[int]  # per variant
    units: list[list[str]]  # per tile: names of its units
    depth: int  # repeat variables of the deepest tile
    ranges: int  # most ranges a row has
    widest: int  # links of the largest tree
    links: int
    homes: tuple[int, ...]  # tiles that serve accesses; server 0 is global memory, then these

    def hops(self, row: int) -> int:
        """Links of a memory access's way there; as many lead back."""
        way = int(self.flat.rows[row, R_WAY])
        return int(self.flat.ways[way + 1, 0] - self.flat.ways[way, 0]) if way >= 0 else 0

    def unit(self, row: int) -> tuple[int, int]:
        """A row's tile, by its place in ``tiles``, and the number of its unit there."""
        return self.row_tile[row], int(self.flat.rows[row, R_UNIT])

    def unit_name(self, row: int) -> str:
        """The unit a row's instruction occupies."""
        tile, unit_ = self.unit(row)
        return self.units[tile][unit_]


TABLES: dict[str, tuple[str, ...]] = {
    "rows": (
        "op",
        "slot",
        "target",
        "trips",
        "unit",
        "everything",
        "channel",
        "way",
        "server",
        "variant",
        "variant_aff",
        "range_ptr",
        "dest_ptr",
        "tree_ptr",
    ),
    "variants": ("cycles", "size", "request", "response", "bounds_ptr"),
    "ranges": ("range_aff", "range_flags"),
    "bounds": ("low", "high"),
    "affine": ("aff_const", "aff_ptr"),
    "terms": ("aff_slot", "aff_factor"),
    "dests": ("dest_channel", "dest_leaf"),
    "trees": ("tree_link", "tree_parent"),
    "ways": ("there_ptr", "back_ptr"),
}
SINGLE = ("tile_start", "there_link", "back_link", "ring_ptr")
COLUMNS = (*SINGLE, *(c for columns in TABLES.values() for c in columns))
Channel = tuple[int, int, int, bool]


class _Builder:
    def __init__(self, program: Program, chip: ChipSpec, bound: Mapping[str, int]) -> None:
        self.program, self.chip, self.bound = program, chip, bound
        self.columns: dict[str, list[int]] = {name: [] for name in COLUMNS}
        for name in COLUMNS:
            if name.endswith("_ptr"):
                self.columns[name].append(0)
        self.instructions: list[Instruction | None] = []
        self.row_tile: list[int] = []
        self.jobs: list[Job] = []
        self.job_row: list[int] = []
        self.units: list[list[str]] = []
        self.depth = 1
        self.channels: dict[Channel, int] = {}
        self.traffic: dict[int, list[int]] = {}  # channel → messages, smallest
        self.servers: dict[int, int] = {-1: 0}  # home → number
        self.ways: dict[tuple[int, int], int] = {}  # tile, where to → number
        self.slots: dict[str, int] = {}
        self.trips: list[int] = []

    def build(self) -> Layout:
        tiles = sorted(self.program.tiles, key=lambda t: t.tile)
        for index, tile in enumerate(tiles):
            self._tile(index, tile)
        self._rings()
        single = {name: np.array(self.columns[name], np.int64) for name in SINGLE}
        tables = {name: self._table(columns) for name, columns in TABLES.items()}
        flat = Flat(**single, **tables)
        return Layout(
            flat,
            tuple(t.tile for t in tiles),
            self.row_tile,
            self.instructions,
            self.jobs,
            self.job_row,
            self.units,
            self.depth,
            ranges=int(np.diff(flat.rows[:, R_RANGE]).max(initial=1)),
            widest=int(np.diff(flat.rows[:, R_TREE]).max(initial=1)),
            links=4 * self.chip.tile_count,
            homes=tuple(home for home in self.servers if home >= 0),
        )

    def _table(self, columns: Sequence[str]) -> Ints:
        """Columns side by side; where some say where things begin, a last row says where they end."""
        length = max(len(self.columns[name]) for name in columns)
        table = np.zeros((length, len(columns)), np.int64)
        for i, name in enumerate(columns):
            table[: len(self.columns[name]), i] = self.columns[name]
        return table

    # --- tiles and rows -------------------------------------------------------------------------

    def _tile(self, index: int, tile: TileProgram) -> None:
        self.foreman = Foreman(self.program, tile, self.chip)
        self.index, self.number = index, tile.tile
        self.units.append([])
        self.slots, self.trips = {}, []
        self.columns["tile_start"].append(len(self.instructions))
        self._steps(tile.steps, 1)
        self._row(END, None)
        self.depth = max(self.depth, len(self.trips))

    def _way(self, home: int) -> int:
        """The way of this tile's accesses to a home, or to its memory port for -1; -1 if it is the home itself."""
        if home == self.number:
            return -1
        to = self.foreman.port if home < 0 else home
        key = (self.number, to)
        if key not in self.ways:
            self.ways[key] = len(self.ways)
            self._extend("there_ptr", "there_link", noc.route(self.chip, self.number, to))
            self._extend("back_ptr", "back_link", noc.route(self.chip, to, self.number))
        return self.ways[key]

    def _extend(self, pointer: str, name: str, values: Sequence[int]) -> None:
        self.columns[name].extend(values)
        self.columns[pointer].append(len(self.columns[name]))

    def _steps(self, steps: Sequence[Step], times: int) -> None:
        for step in steps:
            if isinstance(step, Repeat):
                self._repeat(step, times)
            else:
                self._instruction(step, times)

    def _repeat(self, step: Repeat, times: int) -> None:
        if not _any_instruction(step.body):
            return
        count = step.count if isinstance(step.count, Affine) else Affine(step.count)
        slot = len(self.trips)
        most = self._most(count)
        begin = self._row(LOOP, None, slot=slot, trips=self._affine(count))
        self.trips.append(most)
        outer = self.slots
        self.slots = {**outer, step.variable: slot}
        self._steps(step.body, times * most)
        self.slots = outer
        end = self._row(NEXT, None, slot=slot, target=begin + 1)
        self.columns["target"][begin] = end + 1

    def _most(self, count: Affine) -> int:
        base, terms = self._split(count)
        return max(0, base + sum(c * (self.trips[s] - 1) for s, c in terms if c > 0))

    def _row(self, op: int, instruction: Instruction | None, **values: int) -> int:
        for name in ("slot", "target", "trips", "unit", "everything", "channel", "way", "server", "variant"):
            self.columns[name].append(values.get(name, 0))
        self.columns["op"].append(op)
        self.columns["variant_aff"].append(values.get("variant_aff", -1))
        for pointer, name in (("range_ptr", "range_aff"), ("dest_ptr", "dest_leaf"), ("tree_ptr", "tree_link")):
            self.columns[pointer].append(len(self.columns[name]))
        self.instructions.append(instruction)
        self.row_tile.append(self.index)
        return len(self.instructions) - 1

    def _instruction(self, step: Instruction, times: int) -> None:
        kind = action(step)
        variant, variant_aff = self._variants(step)
        self._ranges(step, variant)
        channel = way = server = 0
        if kind is Action.SEND:
            self._send(step, times, self.jobs[variant : len(self.jobs)])
        elif kind in (Action.RECEIVE, Action.WAIT):
            channel = self._channel(number(step, "source"), self.number, step)
        elif kind is Action.MEMORY:
            home = self.foreman.home(step)
            way, server = self._way(home), self.servers.setdefault(home, len(self.servers))
        self._row(
            int(kind),
            step,
            unit=self._unit(unit(step)),
            everything=int(kind is Action.SEND and is_token(step)),
            channel=channel,
            way=way,
            server=server,
            variant=variant,
            variant_aff=variant_aff,
        )

    def _unit(self, name: str) -> int:
        units = self.units[self.index]
        if name not in units:
            units.append(name)
        return units.index(name)

    # --- affine values and variants -------------------------------------------------------------

    def _split(self, value: Affine) -> tuple[int, list[tuple[int, int]]]:
        base = value.constant + sum(c * self.bound[v] for v, c in value.terms if v not in self.slots)
        return base, [(self.slots[v], c) for v, c in value.terms if v in self.slots]

    def _affine(self, value: Affine, scale: int = 1, add: int = 0) -> int:
        base, terms = self._split(value)
        return self._add_affine(base * scale + add, [(s, c * scale) for s, c in terms])

    def _add_affine(self, base: int, terms: Sequence[tuple[int, int]]) -> int:
        self.columns["aff_const"].append(base)
        for slot, factor in terms:
            self.columns["aff_slot"].append(slot)
            self.columns["aff_factor"].append(factor)
        self.columns["aff_ptr"].append(len(self.columns["aff_slot"]))
        return len(self.columns["aff_const"]) - 1

    def _variants(self, step: Instruction) -> tuple[int, int]:
        """The jobs of a row: first variant, affine index of the offset from it."""
        names = sorted(
            {
                v
                for o in step.operands
                if isinstance(o, View)
                for e in o.shape
                if isinstance(e, Affine)
                for v, _ in e.terms
            }
            & set(self.slots)
        )
        trips = [max(1, self.trips[self.slots[n]]) for n in names]
        first, total = len(self.jobs), int(np.prod(trips, dtype=np.float64))
        if first + total > MAX_VARIANTS:
            what = f"{step.mnemonic} in line {step.line} of tile {self.number}"
            raise errors.TIMING_TOO_LARGE(what=what, need=total, have=MAX_VARIANTS)
        env = {**self.bound, **dict.fromkeys(self.slots, 0)}
        for values in itertools.product(*(range(t) for t in trips)):
            here = {**env, **dict(zip(names, values, strict=True))}
            self._variant(self.foreman.job(step, here), step, here)
        if not names:
            return first, -1
        steps = [int(np.prod(trips[i + 1 :])) for i in range(len(trips))]
        return first, self._add_affine(0, [(self.slots[n], s) for n, s in zip(names, steps, strict=True)])

    def _variant(self, job: Job, step: Instruction, env: Mapping[str, int]) -> None:
        self.jobs.append(job)
        self.job_row.append(len(self.instructions))
        for name, value in (
            ("cycles", job.cycles),
            ("size", job.bytes),
            ("request", job.request),
            ("response", job.response),
        ):
            self.columns[name].append(value)
        offsets = self.foreman.offsets(step)
        for r, (item, offset) in zip(job.ranges, offsets, strict=True):
            base = r.low - item * offset.evaluate(env)
            self.columns["low"].append(base)
            self.columns["high"].append(base + r.high - r.low if r.high > r.low else EMPTY)
        self.columns["bounds_ptr"].append(len(self.columns["low"]))

    def _ranges(self, step: Instruction, variant: int) -> None:
        for r, (item, offset) in zip(self.jobs[variant].ranges, self.foreman.offsets(step), strict=True):
            self.columns["range_aff"].append(self._affine(offset, item))
            self.columns["range_flags"].append(int(r.writes) + 2 * int(r.accumulates) + 4 * int(r.reads))

    # --- messages -------------------------------------------------------------------------------

    def _channel(self, source: int, destination: int, step: Instruction) -> int:
        key = (source, destination, number(step, "tag"), is_token(step))
        return self.channels.setdefault(key, len(self.channels))

    def _send(self, step: Instruction, times: int, jobs: Sequence[Job]) -> None:
        to = destinations(step)
        tree = noc.tree(self.chip, self.number, to)
        self.columns["tree_link"].extend(tree.links)
        self.columns["tree_parent"].extend(tree.parents)
        for destination, leaf in zip(to, tree.leaves, strict=True):
            channel = self._channel(self.number, destination, step)
            self.columns["dest_channel"].append(channel)
            self.columns["dest_leaf"].append(leaf)
            known = self.traffic.setdefault(channel, [0, 1 << 60])
            known[0] += times
            known[1] = min(known[1], *(j.bytes for j in jobs))

    def _rings(self) -> None:
        """Room for every message that can be in a channel at once."""
        total = 0
        for channel in range(len(self.channels)):
            messages, smallest = self.traffic.get(channel, [1, 0])
            if smallest > 0:
                messages = min(messages, self.chip.noc.channel_bytes // smallest + 2)
            total += max(1, messages)
            self.columns["ring_ptr"].append(total)
        if total > MAX_MESSAGES:
            raise errors.TIMING_TOO_LARGE(what="messages in all channels", need=total, have=MAX_MESSAGES)


def _any_instruction(steps: Sequence[Step]) -> bool:
    return any(isinstance(s, Instruction) or _any_instruction(s.body) for s in steps)


def flatten(program: Program, chip: ChipSpec, bound: Mapping[str, int]) -> Layout:
    """The program as arrays, for the runtime parameters in ``bound``. Raises TIMING_TOO_LARGE."""
    return _Builder(program, chip, bound).build()
