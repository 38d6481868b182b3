"""Building tile programs in code: what codegen and the tests write instead of records by hand."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Derived, Instruction, Kind, Repeat, Step, Value, complete
from cimc.isa.operands import Affine, Element, Extent, View, dense_view
from cimc.isa.program import Block, Buffer, GlobalBuffer, MatrixDecl, TileProgram
from cimc.origin import Origin


class TileBuilder:
    """Collects the declarations and the steps of one tile.

    ``emit`` checks operands and keywords against the instruction's row at once: a mistake in codegen shows where it is
    made (ValueError or TypeError: a bug, not a user's fault). A name stands for the whole buffer."""

    def __init__(self, tile: int, globals: Iterable[GlobalBuffer] = ()) -> None:
        self.tile = tile
        self._globals = {g.name: g for g in globals}
        self._buffers: dict[str, Buffer] = {}
        self._matrices: dict[str, MatrixDecl] = {}
        self._bodies: list[list[Step]] = [[]]
        self._variables: list[str] = []

    def buffer(
        self, name: str, element: Element, shape: Sequence[int], address: int, key: str = "", state: bool = False
    ) -> View:
        """Declare a local buffer at a byte address; returns the view of all of it. Raises ValueError for a name taken."""
        if name in self._buffers:
            raise ValueError(f"tile {self.tile}: buffer {name} declared twice")
        self._buffers[name] = Buffer(name, element, tuple(shape), address, key, state)
        return dense_view(name, tuple(shape))

    def matrix(
        self,
        name: str,
        rows: int,
        cols: int,
        blocks: Iterable[Block | tuple[int, int, int, int, int]],
        key: str = "",
        offset: tuple[int, int] = (0, 0),
        element: Element = Element.Q8,
    ) -> str:
        """Declare a matrix (rows = inputs, cols = outputs) in cores of the tile; returns its name.

        ``blocks``: (core, row, row_end, col, col_end); ``offset``: where the part starts in the weights of ``key``.
        Raises ValueError for a name taken."""
        if name in self._matrices:
            raise ValueError(f"tile {self.tile}: matrix {name} declared twice")
        cut = tuple(b if isinstance(b, Block) else Block(*b) for b in blocks)
        self._matrices[name] = MatrixDecl(name, element, rows, cols, key, offset[0], offset[1], cut)
        return name

    def emit(self, mnemonic: str, *operands: View | str, origin: Origin | None = None, **keywords: Value) -> None:
        """Append an instruction to the innermost open ``repeat``. Raises ValueError for a mnemonic, operands or names that
        there are not."""
        spec = INSTRUCTIONS.get(mnemonic)
        if spec is None:
            raise ValueError(f"no instruction {mnemonic}")
        enough = len(operands) >= len(spec.operands) if spec.variadic else len(operands) == len(spec.operands)
        if not enough:
            raise ValueError(f"{mnemonic} takes {len(spec.operands)} operands, not {len(operands)}")
        resolved = tuple(self._resolve(o, spec.operand(i).kind) for i, o in enumerate(operands))
        self._bodies[-1].append(Instruction(mnemonic, resolved, complete(spec, keywords), origin))

    def _resolve(self, operand: View | str, kind: Kind) -> View | str:
        name = operand.buffer if isinstance(operand, View) else operand
        if kind is Kind.MATRIX:
            if not isinstance(operand, str) or name not in self._matrices:
                raise ValueError(f"tile {self.tile}: {name} is no matrix of this tile")
            return operand
        if isinstance(operand, View) and kind in GLOBAL:
            return operand  # the program's globals may not be known yet: the verifier looks
        known = self._globals if kind in GLOBAL else self._buffers
        if name not in known:
            raise ValueError(f"tile {self.tile}: {name} is no {'global' if kind in GLOBAL else 'local'} buffer")
        return operand if isinstance(operand, View) else dense_view(name, known[name].shape)

    @contextmanager
    def repeat(self, variable: str, count: Extent, *derived: Derived) -> Generator[Affine]:
        """``with tile.repeat("i", 16) as i:`` what is emitted inside is the body; ``i`` is the variable. It may use the
        names of ``derived`` ones too. Raises ValueError for a variable of a repeat that is open."""
        if variable in self._variables:
            raise ValueError(f"tile {self.tile}: {variable} is the variable of an enclosing repeat")
        self._variables.append(variable)
        self._bodies.append([])
        yield Affine(0, ((variable, 1),))
        body = tuple(self._bodies.pop())
        self._variables.pop()
        self._bodies[-1].append(Repeat(variable, count, body, derived))

    def build(self) -> TileProgram:
        """The tile program; ``halt`` is added if it does not end with it. Raises ValueError inside a ``repeat``."""
        if len(self._bodies) != 1:
            raise ValueError(f"tile {self.tile}: a repeat is still open")
        steps = self._bodies[0]
        last = steps[-1] if steps else None
        if not (isinstance(last, Instruction) and last.mnemonic == "halt"):
            self.emit("halt")
        return TileProgram(self.tile, tuple(self._buffers.values()), tuple(self._matrices.values()), tuple(steps))
