"""Spellings of onnxruntime's operators on block-quantised weights. The weights stay packed: what they stand for is
computed when it is needed, as onnxruntime computes it, ``(code - zero) · scale`` in float32."""

from __future__ import annotations

from dataclasses import dataclass

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.index import gather_rows
from cimc.frontend.quant import MS, deferred
from cimc.isa.operands import Element

BITS = (2, 4, 8)


@dataclass(frozen=True)
class Blocks:
    """How a matrix (rows × columns) is quantised: codes of ``bits``, one scale and zero point per row and ``block``
    columns."""

    rows: int
    columns: int
    bits: int
    block: int

    @property
    def count(self) -> int:
        """Blocks of a row, the last maybe not full."""
        return -(-self.columns // self.block)


def unpacked(b: Builder, packed: Value, bits: int) -> Value:
    """Codes (uint8) out of bytes, lowest bits first, along the last axis, which grows by 8 / bits."""
    if bits == 8:
        return packed
    mask, parts = b.scalar((1 << bits) - 1, Element.U8), list[Value]()
    for shift in range(0, 8, bits):
        low = f.binary(b, "shr", packed, b.scalar(shift, Element.U8)) if shift else packed
        parts.append(f.unsqueeze(b, f.binary(b, "bitand", low, mask), -1))
    return f.reshape(b, f.concat(b, parts, -1), (*packed.shape[:-1], packed.shape[-1] * len(parts)))


def block_matrix(b: Builder, packed: Value, scales: Value, zeros: Value | None, how: Blocks) -> Value:
    """The matrix (rows × columns, float32). ``packed``: bytes, each block of its own; ``zeros``: packed like the codes
    of a row, or numbers. Raises Impossible if the sizes do not fit."""
    n, blocks, block = how.rows, how.count, how.block
    size = block * how.bits // 8
    if packed.element is not Element.U8 or packed.type.size != n * blocks * size or scales.type.size != n * blocks:
        raise Impossible(f"{packed.type} codes and {scales.type} scales for {how}")
    codes = unpacked(b, f.reshape(b, packed, (n, blocks, size)), how.bits)
    centred = f.binary(b, "sub", f.cast(b, codes, Element.F32), _centres(b, zeros, how))
    scaled = f.mul(b, centred, f.cast(b, f.reshape(b, scales, (n, blocks, 1)), Element.F32))
    return f.part(b, f.reshape(b, scaled, (n, blocks * block)), 1, 0, how.columns)


def _centres(b: Builder, zeros: Value | None, how: Blocks) -> Value:
    if zeros is None:
        return b.scalar(1 << (how.bits - 1), Element.F32)
    if zeros.element is Element.U8:
        row = -(-how.count * how.bits // 8)
        if zeros.type.size != how.rows * row:
            raise Impossible(f"zero points {zeros.type} for {how}")
        zeros = f.part(b, unpacked(b, f.reshape(b, zeros, (how.rows, row)), how.bits), 1, 0, how.count)
    if zeros.type.size != how.rows * how.count:
        raise Impossible(f"zero points {zeros.type} for {how}")
    return f.cast(b, f.reshape(b, zeros, (how.rows, how.count, 1)), Element.F32)


@spelling("MatMulNBits", domain=MS, note="2, 4 and 8 bits, weights known; columns in order (no g_idx)")
def mat_mul_n_bits(c: Call) -> Value:
    """A product with block-quantised weights (n × blocks × bytes). With ``accuracy_level`` 4 onnxruntime rounds activations to
    8 bits (2 to 10 % of the largest result in 8-bit nodes of random weights, 4e-7 to 3e-6 with levels 0 and 1); that is not
    done here, nor by ``check`` (:mod:`cimc.frontend.reference_twin`)."""
    b, x = c.b, c.x(0)
    how = Blocks(c.int("N"), c.int("K"), c.int("bits", 4), c.int("block_size"))
    if c.opt(4) is not None:
        raise Unsupported("g_idx: columns out of order")
    if c.int("weight_prepacked", 0):
        raise Unsupported("weights in the order of some accelerator")
    if how.bits not in BITS or min(how.block, how.rows, how.columns) < 1 or how.block * how.bits % 8:
        raise Impossible(f"weights {how}")
    with deferred(b):
        matrix = block_matrix(b, known(c, 1, "the weights"), known(c, 2, "the scales"), c.opt(3), how)
        matrix = f.swap(b, f.cast(b, matrix, x.element), 0, 1)
        b.label(matrix, f"{c.node.inputs[1]}.dequantized")
    return f.add(b, f.matmul(b, x, matrix), c.opt(5))


def known(c: Call, index: int, what: str) -> Value:
    """An input that must be a constant. Raises Unsupported if it is not."""
    value = c.x(index)
    if c.b.array(value) is None:
        raise Unsupported(f"{what} (input {index}) are known only at run time")
    return value


@spelling("GatherBlockQuantized", domain=MS, note="table known")
def gather_block_quantized(c: Call) -> Value:
    """Rows of a block-quantised table."""
    b = c.b
    with deferred(b):
        table = _table(c, known(c, 0, "the table"), known(c, 2, "the scales"), c.opt(3))
        b.label(table, f"{c.node.inputs[0]}.dequantized")
    return gather_rows(c, table, c.axis(c.int("gather_axis", 0), table.rank), c.x(1))


def _table(c: Call, data: Value, scales: Value, zeros: Value | None) -> Value:
    """The table in the scales' element type: codes signed (around 0) or unsigned (around half their range)."""
    b, bits, block = c.b, c.int("bits", 4), c.int("block_size", 128)
    packed = data.element is Element.U8
    data, zeros = b.wide(data), None if zeros is None else b.wide(zeros)
    if data.element not in (Element.U8, Element.I8) or bits not in BITS or block < 1:
        raise Unsupported(f"a table of {data.element.value} with {bits} bits in blocks of {block}")
    codes = unpacked(b, data, bits) if packed else data
    axis = c.axis(c.int("quantize_axis", 1), codes.rank)
    size = codes.shape[axis]
    blocks = -(-size // block)
    if scales.shape != (*codes.shape[:axis], blocks, *codes.shape[axis + 1 :]):
        raise Impossible(f"scales {scales.type} for codes {codes.type} in blocks of {block} along axis {axis}")
    if zeros is not None:
        zeros = unpacked(b, zeros, bits) if packed else zeros
        zeros = f.cut(b, zeros, (0,) * zeros.rank, scales.shape, (1,) * zeros.rank)
    centre = b.scalar(1 << (bits - 1) if packed else 0, Element.F32)
    wide = f.pad(b, codes, (0,) * codes.rank, [blocks * block - size if a == axis else 0 for a in range(codes.rank)])
    shape = (*codes.shape[:axis], blocks, block, *codes.shape[axis + 1 :])
    middle = centre if zeros is None else f.unsqueeze(b, f.cast(b, zeros, Element.F32), axis + 1)
    centred = f.binary(b, "sub", f.cast(b, f.reshape(b, wide, shape), Element.F32), middle)
    scaled = f.mul(b, centred, f.unsqueeze(b, f.cast(b, scales, Element.F32), axis + 1))
    whole = (*codes.shape[:axis], blocks * block, *codes.shape[axis + 1 :])
    return f.cast(b, f.part(b, f.reshape(b, scaled, whole), axis, 0, size), scales.element)
