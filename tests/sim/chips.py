"""A tiny chip with round numbers, and short ways to write programs, for the tests of the engines."""

from __future__ import annotations

from collections.abc import Iterable

from cimc.arch.spec import (
    AdcSpec,
    ChipSpec,
    CoreSpec,
    CostSpec,
    CrossbarSpec,
    HostSpec,
    LanesSpec,
    LinkSpec,
    MatmulSpec,
    MemorySpec,
    NocSpec,
    ReduceSpec,
    TileSpec,
)
from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.operands import Affine, Element, Extent, View, dense_strides
from cimc.isa.program import Block, Buffer, GlobalBuffer, MatrixDecl, Param, Port, Program, TileProgram
from cimc.origin import Origin

ENERGY = {
    "crossbar.step": 1.0,
    "adc.convert": 2.0,
    "dac.drive": 0.25,
    "shift_add.op": 0.5,
    "digital.mac_bit": 0.125,
    "cell.write": 8.0,
    "matmul.mac": 1.0,
    "matmul.load_byte": 0.5,
    "vector.alu": 1.0,
    "vector.mul": 2.0,
    "special.div": 4.0,
    "special.func": 8.0,
    "buffer.read_byte": 0.5,
    "buffer.write_byte": 1.0,
    "noc.byte_hop": 0.5,
    "noc.add": 0.0625,
    "link.byte": 2048.0,
    "memory.read": 16.0,
    "memory.write": 32.0,
    "host.launch": 1024.0,
    "host.byte": 64.0,
}


def core(*, adc_bits: int | None = 0, active_rows: int = 8) -> CoreSpec:
    """8 × 8 crossbars of 2-bit cells; ``adc_bits`` None is a digital core."""
    return CoreSpec(
        crossbar=CrossbarSpec(rows=8, cols=8, cell_bits=2, active_rows=active_rows),
        weight_bits=8,
        encoding="offset",
        dac_bits=1,
        step_ns=1,
        shift_add_ns=1,
        fill_ns=10,
        write_row_ns=5,
        verify_iterations=1,
        adc=None if adc_bits is None else AdcSpec(bits=adc_bits, conversion_ns=1, cols_per_adc=8),
    )


def chip(
    layout: tuple[str, ...] = ("tt", "tt"),
    *,
    adc_bits: int | None = 0,
    channel_bytes: int = 64,
    lanes: int = 1,
    memory_tile: bool = True,
    **changes: object,
) -> ChipSpec:
    """1 GHz, so that ns are cycles; links of 4 bytes a cycle, 2 cycles a hop, 3 more in a router that adds ``lanes``
    elements a cycle; memory of 8 bytes a cycle after 20."""
    tile = TileSpec(
        letter="t",
        local_bytes=1 << 16,
        cores=8,
        core=core(adc_bits=adc_bits),
        vector=LanesSpec(lanes=4, startup_cycles=1),
        special=LanesSpec(lanes=2, startup_cycles=3),
        matmul=MatmulSpec(rows=4, cols=4, operand_bits=8, load_bytes_per_cycle=4, startup_cycles=2),
        memory_port=memory_tile,
    )
    port = tile.model_copy(update={"letter": "p", "memory_port": True})
    fields: dict[str, object] = {
        "name": "tiny",
        "description": "for tests",
        "technology": "ideal",
        "clock_ghz": 1.0,
        "layout": layout,
        "tiles": {"t": tile, "p": port},
        "noc": NocSpec(
            flit_bytes=4,
            router_cycles=2,
            link_bytes_per_cycle=4,
            channel_bytes=channel_bytes,
            reduce=ReduceSpec(lanes=lanes, cycles=3),
        ),
        "memory": MemorySpec(capacity_bytes=1 << 30, bytes_per_cycle=8, latency_cycles=20),
        "host": HostSpec(launch_ns=100, bytes_per_ns=2),
        "costs": CostSpec(energy_pj=ENERGY, leakage_mw={"tile": 0.25}, area_um2={}),
    }
    return ChipSpec(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def chips(layout: tuple[str, ...], count: int, *, bytes_per_cycle: float = 1.0, latency: int = 5, **changes: object):
    """Several such chips, with links of one byte a cycle and 5 cycles between them."""
    link = LinkSpec(bytes_per_cycle=bytes_per_cycle, latency_cycles=latency)
    return chip(layout, chips=count, link=link, **changes)  # pyright: ignore[reportArgumentType]


def view(buffer: str, *shape: Extent, offset: Affine | int = 0, strides: tuple[int, ...] | None = None) -> View:
    """A dense view unless strides are given."""
    at = Affine(offset) if isinstance(offset, int) else offset
    if strides is None:
        strides = dense_strides(tuple(s for s in shape if isinstance(s, int)))
    return View(buffer, at, shape, strides)


def do(mnemonic: str, *operands: View | str, origin: str = "", **keywords: object) -> Instruction:
    """An instruction; of ``program``, the keywords that are left out."""
    if mnemonic == "program":
        keywords = {"row": 0, "run": 0, "step": 0, **keywords}
    where = Origin(origin, "Test") if origin else None
    return Instruction(mnemonic, operands, tuple(keywords.items()), where)  # pyright: ignore[reportArgumentType]


def repeat(variable: str, count: Extent, *body: Step) -> Repeat:
    """A repeat."""
    return Repeat(variable, count, body)


def buffers(*entries: tuple[str, Element, tuple[int, ...]]) -> tuple[Buffer, ...]:
    """Local buffers one after another."""
    address, found = 0, list[Buffer]()
    for name, element, shape in entries:
        found.append(Buffer(name, element, shape, address))
        address += found[-1].bytes + -found[-1].bytes % 8
    return tuple(found)


def matrix(name: str, rows: int, cols: int, key: str = "w", core: int = 0) -> MatrixDecl:
    """A matrix in blocks of at most 8 × 8, in cores from ``core`` on."""
    corners = [(r, c) for r in range(0, rows, 8) for c in range(0, cols, 8)]
    blocks = [Block(core + i, r, min(r + 8, rows), c, min(c + 8, cols)) for i, (r, c) in enumerate(corners)]
    return MatrixDecl(name, Element.Q8, rows, cols, key, 0, 0, tuple(blocks))


def tile(number: int, *steps: Step, buffers: Iterable[Buffer] = (), matrices: Iterable[MatrixDecl] = ()) -> TileProgram:
    """A tile program; ``halt`` is added."""
    return TileProgram(number, tuple(buffers), tuple(matrices), (*steps, do("halt")))


def program(
    *tiles: TileProgram,
    globals: Iterable[GlobalBuffer] = (),
    inputs: Iterable[str] = (),
    outputs: Iterable[str] = (),
    params: Iterable[Param] = (),
) -> Program:
    """A program whose inputs and outputs are named as their global buffers."""
    ports_in = tuple(Port(n, n) for n in inputs)
    ports_out = tuple(Port(n, n) for n in outputs)
    return Program("tiny", tuple(globals), ports_in, ports_out, tiles, tuple(params))
