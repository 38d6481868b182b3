"""The tables of a flat program, and what their columns are called: what the fast timing engine runs.

Every instruction of a tile's stream becomes one row; a repeat becomes two rows that count and jump. What an execution
takes stands in *variants*: one for most rows, one per combination of repeat variables where extents depend on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import Instruction
from cimc.sim.job import Action, Job

Ints = NDArray[np.int64]
Shorts = NDArray[np.int32]
Number = TypeVar("Number", np.int32, np.int64)
LOOP, NEXT, END, DERIVE = 10, 11, 12, 13  # rows that are no instruction; the others have their Action
EMPTY = -(1 << 60)  # the end of a range without bytes
WRITES, ACCUMULATES, READS = 1, 2, 4  # flags of a range

R_OP, R_SLOT, R_TARGET, R_TRIPS, R_UNIT, R_WAITS, R_CHANNEL, R_WAY, R_SERVER = range(9)
R_VARIANT, R_VARIANT_AFF, R_RANGE, R_DEST, R_DEST_END, R_TREE, R_TREE_END = range(9, 16)
V_CYCLES, V_SIZE, V_REQUEST, V_RESPONSE, V_BUSY, V_CORES, V_CROSS, V_CROSS_BACK, V_ADDED = range(9)
N_LINK, N_NEXT, N_INPUTS, N_TOTAL, N_PLACE = range(5)
VARIANT_COST, VARIANT_BOUNDS = range(2)
RANGE_AFF, RANGE_FLAGS, RANGE_LOW, RANGE_HIGH, RANGE_FIXED = range(5)
ROW_COLUMNS, COST_COLUMNS, RANGE_COLUMNS, DERIVED_COLUMNS, ROUTER_COLUMNS = 16, 9, 5, 5, 5


class Flat(NamedTuple):
    """The tables. RANGE and BOUNDS are where a row's (a variant's) part of another table begins; it ends where the next
    one's begins. Affine values are numbers of rows of ``affine``, over the tile's slots; number 0 is 0."""

    tile_start: Ints  # per tile, in the order of tile numbers: its first row
    # One cache line each. Repeat: SLOT, TARGET to jump to, TRIPS affine, of its end: 0, or rounds + 1 if it has phases.
    # Instruction: TARGET 0 or its phase (packed_phase), SLOT that counts the steps of its repeat, TRIPS the latest stage there;
    # VARIANT the first, VARIANT_AFF offset or -1; WAITS: EVERYTHING, MOVES.
    rows: Shorts
    variants: Ints  # the number of the cost, BOUNDS
    # Of costs: cycles; bytes of a message; cycles of an access' packets there and back; how long the unit is taken;
    # CROSS, CROSS_BACK: cycles of a message, or of those packets, on a link between chips; ADDED: that a router takes to add.
    costs: Ints
    ranges: Ints  # affine offset in bytes, flags; the bytes it can reach; whether it is the same at every execution
    bounds: Ints  # (low, high) of a variant's ranges from that offset
    affine: Ints  # (constant, where its terms begin)
    terms: Ints  # (slot, factor)
    derived: Ints  # of a derived variable: slot of the repeat's, offset, divisor, modulus or 0, factor
    dests: Ints  # (channel, leaf of the tree)
    trees: Ints  # (link, parent)
    way_part: Ints  # way 2k goes there and way 2k + 1 back: where its links begin in way_link
    way_link: Ints
    # Of sums, in the WAY of whose parts stands where they begin: link onwards or -1, router there, inputs, the channel of the
    # sums, and where a ring as long as that channel's begins in State.met.
    routers: Ints
    ring_ptr: Ints  # per channel: where its ring of messages begins
    related_begin: Ints  # per row: where its relations begin
    related: Ints  # an earlier row and what is to be expected of it: cimc.sim.relations.related


EVERYTHING, MOVES = 1, 2  # of a row: it waits for all before it; its ranges have to be looked at
STAGE, TURN = 14, 7  # bits of a packed phase behind these


def packed_phase(stage: int, turn: int, turns: int) -> int:
    """A phase as one number, greater than 0."""
    return stage << STAGE | turn << TURN | turns


LINE = 64  # bytes of a cache line of most processors


def lined(rows: int, columns: int, kind: type[Number]) -> NDArray[Number]:
    """A table of zeros whose rows begin with a cache line each, padded with columns if need be: to the loop, what has to be
    fetched from memory matters more than what is computed."""
    items = LINE // np.dtype(kind).itemsize
    width = -columns // items * -items
    room = np.zeros((rows + 1) * width, kind)
    begin = -room.ctypes.data % LINE // room.itemsize
    return room[begin : begin + rows * width].reshape(rows, width)


@dataclass(frozen=True)
class Price:
    """What all executions that cost the same have in common, but for the links they go over."""

    job: Job  # without what its bytes cost on links
    action: Action
    unit: str  # class: "core", "vector" ...
    kind: str  # of its tile

    @property
    def carried(self) -> int:
        """Bytes that are carried over links."""
        job = self.job
        return (
            job.bytes or job.request + job.response if self.action in (Action.SEND, Action.REDUCE, Action.MEMORY) else 0
        )


@dataclass(frozen=True)
class Layout:
    """The flat program with what its rows and variants stand for."""

    flat: Flat
    tiles: tuple[int, ...]  # tile numbers, ascending
    row_tile: Ints  # per row: index of its tile
    row_layer: Ints  # per row: index of its layer in layers
    steps: list[Instruction]
    at: Ints  # their rows
    links: Ints  # per row: of a message's tree, or of an access' way, those within chips
    crossings: Ints  # and those between
    layers: tuple[str, ...]  # names of the nodes the instructions come from
    prices: tuple[Price, ...]
    variant_cost: Ints  # per variant: its cost
    variant_row: Ints  # per variant: its row
    units: tuple[str, ...]  # names of units: those of the same name in several tiles are different ones
    row_unit: Ints  # per row: its unit's name
    writers: Ints  # rows that write cells
    depth: int  # repeat variables of the deepest tile
    ranges: int  # most ranges a row has
    widest: int  # links of the largest tree
    links_of_chip: int  # how many
    met: int  # places for sums under way
    homes: tuple[int, ...]  # tiles that serve accesses; server 0 is global memory, then these

    @property
    def variants(self) -> int:
        """How many variants there are."""
        return len(self.variant_cost)

    def instruction(self, row: int) -> Instruction:
        """The instruction of a row."""
        return self.steps[int(np.searchsorted(self.at, row))]

    def step_number(self, row: int) -> int:
        """Which instruction of its tile's stream a row is, counting from 1 and leaving repeats out."""
        first = int(self.flat.tile_start[self.row_tile[row]])
        return int(np.searchsorted(self.at, row) - np.searchsorted(self.at, first)) + 1

    def unit_name(self, row: int) -> str:
        """The unit a row's instruction occupies."""
        return self.units[int(self.row_unit[row])]
