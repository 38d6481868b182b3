"""The code of one tile while it is being written: steps, buffers without addresses, matrices."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cimc.isa.instruction import INSTRUCTIONS, Instruction, Repeat, Step, Value, complete
from cimc.isa.operands import Affine, Element, View, dense_strides
from cimc.isa.program import Block, MatrixDecl
from cimc.mapping.placement import Part, PlacedMatrix
from cimc.origin import Origin


@dataclass(frozen=True, slots=True)
class Room:
    """A local buffer before it has an address."""

    element: Element
    shape: tuple[int, ...]
    key: str = ""
    state: bool = False
    fixed: bool = False  # one segment writes it, another reads it: both know its name

    @property
    def kept(self) -> bool:
        """Whether it has bytes of its own for the whole run."""
        return self.state or bool(self.key)

    @property
    def bytes(self) -> int:
        """Bytes it takes."""
        n = self.element.bytes
        for d in self.shape:
            n *= d
        return n


@dataclass
class TileCode:
    """Steps and declarations of a tile. Names are unique on the tile."""

    tile: int
    steps: list[Step] = field(default_factory=list[Step])
    rooms: dict[str, Room] = field(default_factory=dict[str, Room])
    matrices: dict[str, MatrixDecl] = field(default_factory=dict[str, MatrixDecl])
    constants: dict[tuple[str, int, int], str] = field(default_factory=dict[tuple[str, int, int], str])
    journal: list[tuple[int, Instruction]] | None = None  # where steps are noted instead, with those of other tiles
    _count: int = 0
    _pool: list[View] = field(default_factory=list[View])  # buffers of an earlier block, to be taken again
    _taken: int = 0

    @contextmanager
    def again(self, pool: list[View]) -> Generator[None]:
        """Buffers asked for inside are those of ``pool``, in the order they were asked for before; new ones join it."""
        self._pool, self._taken = pool, 0
        yield
        self._pool, self._taken = [], 0

    def buffer(self, element: Element, shape: tuple[int, ...], stem: str) -> View:
        """A new buffer and the view of all of it."""
        if self._taken < len(self._pool):
            old = self._pool[self._taken]
            if self.rooms[old.buffer] == Room(element, shape):
                self._taken += 1
                return old
        name = f"{stem}{self._count}"
        self._count += 1
        self.rooms[name] = Room(element, shape)
        view = View(name, Affine(), shape, dense_strides(shape))
        self._pool.insert(self._taken, view)
        self._taken += 1
        return view

    def constant(self, key: str, element: Element, first: int, count: int) -> View:
        """A row (1 × count) of constants, ``[first : first + count]`` of the flattened constant; loaded before the run."""
        name = self.constants.get((key, first, count))
        if name is None:
            name = f"c{len(self.constants)}"
            self.constants[(key, first, count)] = name
            self.rooms[name] = Room(element, (count,), constant_key(key, first, count))
        return View(name, Affine(), (1, count), (count, 1))

    def state(self, name: str, element: Element, shape: tuple[int, ...]) -> None:
        """An array that keeps what it holds from run to run."""
        self.rooms[name] = Room(element, shape, state=True)

    def fixed(self, name: str, element: Element, shape: tuple[int, ...]) -> View:
        """All of a buffer that several segments use by a name of its own (with a dot), declared if it is not."""
        self.rooms.setdefault(name, Room(element, shape, fixed=True))
        return View(name, Affine(), shape, dense_strides(shape))

    def emit(self, mnemonic: str, *operands: View | str, origin: Origin | None = None, **keywords: Value) -> None:
        """Append an instruction."""
        step = instruction(mnemonic, *operands, origin=origin, **keywords)
        if self.journal is None:
            self.steps.append(step)
        else:
            self.journal.append((self.tile, step))

    def take(self, other: TileCode) -> dict[str, str]:
        """Declare what another code of this tile declares, as if it had been asked for here; returns the names here of its
        buffers."""
        names: dict[str, str] = {}
        constants = {name: piece for piece, name in other.constants.items()}
        buffers = 0
        for old, room in other.rooms.items():
            name = old
            if room.key:
                key, first, count = constants[old]
                name = self.constant(key, room.element, first, count).buffer
            elif not room.state and not room.fixed:
                name = f"{old.removesuffix(str(buffers))}{self._count + buffers}"
                buffers += 1
            self.rooms.setdefault(name, room)
            names[old] = name
        self._count += buffers
        for name, matrix in other.matrices.items():
            self.matrices.setdefault(name, matrix)
        return names

    @contextmanager
    def repeat(self, variable: str, count: int) -> Generator[None]:
        """Steps emitted inside become the body of a repeat; a count of 1 needs none, and the variable must not occur."""
        outer = self.steps
        self.steps = []
        yield
        body = self.steps
        self.steps = outer
        if body and count == 1:
            self.steps.extend(body)
        elif body:
            self.steps.append(Repeat(variable, count, tuple(body)))


def instruction(mnemonic: str, *operands: View | str, origin: Origin | None = None, **keywords: Value) -> Instruction:
    """An instruction with all of its keywords, as the text's parser makes it."""
    return Instruction(mnemonic, operands, complete(INSTRUCTIONS[mnemonic], keywords), origin)


def constant_key(key: str, first: int, count: int) -> str:
    """Key in the weights of a piece of a constant that tiles keep locally."""
    return f"{key}[{first}:{first + count}]"


def columns(view: View, first: int, step: int, count: int) -> View:
    """Columns of a two-axis view."""
    row, col = view.strides
    return View(view.buffer, view.offset + first * col, (view.shape[0], count), (row, col * step))


def narrowed(view: View, axis: int, first: int, count: int) -> View:
    """A view's elements [first, first + count) along an axis."""
    shape = (*view.shape[:axis], count, *view.shape[axis + 1 :])
    return View(view.buffer, view.offset + first * view.strides[axis], shape, view.strides)


def row_part(view: View, rows: int) -> View:
    """A two-axis view whose single row is shared by ``rows`` rows."""
    return View(view.buffer, view.offset, (rows, view.shape[1]), (0, view.strides[1]))


def declare(code: TileCode, name: str, placed: PlacedMatrix, part: Part, element: Element) -> str:
    """Declare the part of a matrix that a tile holds, unless it is; its name."""
    if name not in code.matrices:
        (r0, r1), (c0, c1) = part.rows, part.cols
        blocks = tuple(
            Block(b.core, b.rows[0] - r0, b.rows[1] - r0, b.cols[0] - c0, b.cols[1] - c0) for b in part.blocks
        )
        code.matrices[name] = MatrixDecl(name, element, r1 - r0, c1 - c0, placed.weight, r0, c0, blocks)
    return name
