"""Matrix instructions: MVM on cores, dynamic matmul, writing cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cimc.isa import rules
from cimc.isa.cells import covered, strips
from cimc.isa.instruction import (
    Actions,
    Array,
    Keyword,
    Kind,
    Machine,
    Matrix,
    Operand,
    Shape,
    Spec,
    Unit,
    declare,
)
from cimc.isa.kernels import coded_product, exact_product, quantized_product
from cimc.isa.program import MatrixDecl

if TYPE_CHECKING:  # the rows are read long before a chip is
    from cimc.arch.units import TileUnits


def _mvm(machine: Machine, acc: Array, matrix: Matrix, x: Array, *, accumulate: int) -> None:
    y = matrix.mvm(x if x.ndim == 3 else x.reshape(-1, x.shape[-1])).reshape(acc.shape)
    if accumulate:
        np.add(acc, y, out=acc, casting="unsafe")
    else:
        np.copyto(acc, y, casting="unsafe")


def _mvm_bill(units: TileUnits, acc: Shape, matrix: MatrixDecl, x: Shape, *, accumulate: int) -> Actions:
    blocks = [(b.row_end - b.row, b.col_end - b.col) for b in matrix.blocks]
    return units.mvm_actions(blocks, x.rows, 8 * x.element.bytes)


def _mvm_cycles(units: TileUnits, acc: Shape, matrix: MatrixDecl, x: Shape, *, accumulate: int) -> int:
    return units.mvm_cycles(x.rows, 8 * x.element.bytes)


def _mvm_busy(units: TileUnits, acc: Shape, matrix: MatrixDecl, x: Shape, *, accumulate: int) -> int:
    return x.rows * units.mvm_interval(8 * x.element.bytes)


declare(
    Spec(
        "mvm",
        (Operand("acc", Kind.UPDATE), Operand("matrix", Kind.MATRIX), Operand("x", Kind.READ)),
        Unit.CORE,
        _mvm,
        _mvm_bill,
        """Matrix-vector multiply of every row of x (rows × inputs) with the weights in the cells: acc (rows ×
        outputs) is overwritten, or added to with accumulate=1. All cores of the matrix work in parallel; partial sums
        of blocks over the same columns are added on the way out. Rows are pipelined: fill + (rows - 1) · interval
        cycles; the next one's rows follow right behind, after rows · interval.""",
        (Keyword("accumulate", int, 0, "1: add to acc instead of overwriting it"),),
        _mvm_cycles,
        _mvm_busy,
        rule=rules.mvm,
    )
)


def _matmul(machine: Machine, y: Array, a: Array, b: Array, *, scale: float) -> None:
    whole = np.issubdtype(a.dtype, np.integer)
    product = exact_product(a, b) if whole or machine.exact else quantized_product(a, b, machine.operand_bits)
    if scale != 1.0:
        product = product * np.float32(scale)
    np.copyto(y, product, casting="unsafe")


def _matmul_dims(y: Shape, a: Shape) -> tuple[int, int, int, int]:
    m, n = y.extents[-2:]
    batch = y.size // max(m * n, 1)
    return batch, m, n, a.extents[-1]


def _matmul_bill(units: TileUnits, y: Shape, a: Shape, b: Shape, *, scale: float) -> Actions:
    return units.matmul_actions(*_matmul_dims(y, a))


def _matmul_cycles(units: TileUnits, y: Shape, a: Shape, b: Shape, *, scale: float) -> int:
    return units.matmul_cycles(*_matmul_dims(y, a))


declare(
    Spec(
        "matmul",
        (Operand("y", Kind.WRITE), Operand("a", Kind.READ), Operand("b", Kind.READ)),
        Unit.MATMUL,
        _matmul,
        _matmul_bill,
        """Dynamic matrix multiply y = scale · a · b on the tile's digital unit: a (… × m × k), b (… × k × n), y (… ×
        m × n); leading extents are a batch and equal (a stride of 0 shares an operand). Transposes are views. The
        unit's operands have operand_bits: floating-point operands are quantised as they enter, symmetric, one scale
        per row of a and per column of b, and the integer product is exact; `float` numerics leave them unrounded.
        Integer operands are multiplied exactly.""",
        (Keyword("scale", float, 1.0, "factor on the product"),),
        _matmul_cycles,
        rule=rules.matmul,
    )
)


PRODUCTS = frozenset({"matmul", "matmul_codes"})
"""Instructions of the matmul unit."""


def _matmul_codes(
    machine: Machine, y: Array, a: Array, a_scale: Array, b: Array, b_scale: Array, *, scale: float
) -> None:
    np.copyto(y, coded_product(a, a_scale, b, b_scale, scale), casting="unsafe")


def _coded_bill(units: TileUnits, y: Shape, a: Shape, _: Shape, b: Shape, b_scale: Shape, *, scale: float) -> Actions:
    return units.matmul_actions(*_matmul_dims(y, a))


def _coded_cycles(units: TileUnits, y: Shape, a: Shape, _: Shape, b: Shape, b_scale: Shape, *, scale: float) -> int:
    return units.matmul_cycles(*_matmul_dims(y, a))


declare(
    Spec(
        "matmul_codes",
        (
            Operand("y", Kind.WRITE),
            Operand("a", Kind.READ),
            Operand("a_scale", Kind.READ),
            Operand("b", Kind.READ),
            Operand("b_scale", Kind.READ),
        ),
        Unit.MATMUL,
        _matmul_codes,
        _coded_bill,
        """Dynamic matrix multiply of codes, y = scale · (a · b) · (a_scale · b_scale), on the tile's digital unit: a (… × m
        × k) and b (… × k × n) are q8, a_scale (… × m × 1) and b_scale (… × 1 × n) f32, y (… × m × n) floating-point;
        leading extents as of `matmul`. It is the product that `matmul` makes of floating-point operands with operand_bits 8,
        bit for bit, if these are what `quantize` made of them: the codes are there already, so the unit has nothing to bring
        to codes.""",
        (Keyword("scale", float, 1.0, "factor on the product"),),
        _coded_cycles,
        rule=rules.matmul_codes,
    )
)


def _program(machine: Machine, matrix: Matrix, codes: Array, *, row: int, run: int, step: int) -> None:
    matrix.program(codes, tuple(strips(len(codes), row, run, step)) if row or run else ())


def _program_bill(units: TileUnits, matrix: MatrixDecl, codes: Shape, *, row: int, run: int, step: int) -> Actions:
    return units.program_actions(covered(matrix, codes.rows, row, run, step))


def _program_cycles(units: TileUnits, matrix: MatrixDecl, codes: Shape, *, row: int, run: int, step: int) -> int:
    return units.program_cycles(covered(matrix, codes.rows, row, run, step))


declare(
    Spec(
        "program",
        (Operand("matrix", Kind.MATRIX), Operand("codes", Kind.READ)),
        Unit.CORE,
        _program,
        _program_bill,
        """Write cells of a matrix from codes (rows × outputs): row after row, the cores in parallel; each row of a
        block takes the cell's write time times its verify iterations. Cell writes are counted for endurance. The codes
        are those of the matrix's rows from `row` on; with a run, `run` rows from there on, then `run` rows from `row +
        step` on, and so forth, so that the blocks of a matrix can be written at the same time, a few rows of each at a
        time. codes are q8, q16, i8 or i16.""",
        (
            Keyword("row", int, 0, "the first row of the matrix to write"),
            Keyword("run", int, 0, "neighbouring rows in a run; 0: all"),
            Keyword("step", int, 0, "from one run's first row to the next one's"),
        ),
        _program_cycles,
        rule=rules.program,
        writes_cells=True,
    )
)


def _calibrate(machine: Machine, matrix: Matrix, *, vectors: int) -> None:
    matrix.calibrate(vectors)


def _calibrate_bill(units: TileUnits, matrix: MatrixDecl, *, vectors: int) -> Actions:
    return units.calibrate_actions([(b.row_end - b.row, b.col_end - b.col) for b in matrix.blocks], vectors)


def _calibrate_cycles(units: TileUnits, matrix: MatrixDecl, *, vectors: int) -> int:
    return units.calibrate_cycles(vectors)


declare(
    Spec(
        "calibrate",
        (Operand("matrix", Kind.MATRIX),),
        Unit.CORE,
        _calibrate,
        _calibrate_bill,
        """Measure a matrix's columns as its cells are now, and correct them from here on: known vectors are read as in
        an mvm of 8-bit inputs and converted; a factor for each column's sum, a constant, and a share of the sum of the
        inputs are fitted to what the codes would have given. Later mvm apply them in digital; program drops them. On
        digital cores, and in `float` and `integer` numerics, nothing changes.""",
        (Keyword("vectors", int, 64, "known vectors to read"),),
        _calibrate_cycles,
        rule=rules.calibrate,
    )
)
