"""What wider links of the network change: ``python -m benchmarks.links``.

The floorplans of :mod:`benchmarks.attainment`; the energy of a byte and hop stays, the area of wider routers is not priced.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.attainment import layout, models
from benchmarks.figures import CHIPS, Section, show
from cimc.arch.load import load
from cimc.compiler import compile_model
from cimc.options import Options
from cimc.sim.timing import run_timing

COMMAND = "python -m benchmarks.links"
WIDER = (1, 2, 4)
"""Times as many bytes a cycle, and as large flits, as the preset's links have."""


def sections() -> list[Section]:
    """Everything measured here."""
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in models(Path(folder)):
            for chip in CHIPS:
                size, _ = layout(model, chip)
                noc, narrow = load(chip).spec.noc, 0
                for times in WIDER:
                    link, flit = times * int(noc.link_bytes_per_cycle), times * noc.flit_bytes
                    wider = (size, f"noc.link_bytes_per_cycle={link}", f"noc.flit_bytes={flit}")
                    made = compile_model(model.path, Options(chip, wider, model.dims))
                    assert made is not None
                    found = run_timing(made.program, made.hardware.spec)
                    narrow = narrow or found.cycles
                    energy = sum(found.energy_pj.values()) / 1e9
                    rows.append(
                        (
                            *(model.name, f"`--hw {chip} -c {size}`", f"{link}", f"{found.cycles:,}"),
                            *(
                                f"{narrow / found.cycles:.2f}×",
                                f"{found.bound.cycles / found.cycles:.1%}",
                                f"{energy:.2f}",
                            ),
                        )
                    )
    header = ("model", "chip", "bytes a cycle", "cycles", "faster", "attainment", "energy, mJ")
    remarks = (
        "One inference at a time. Cores of `sram-digital` finish a row of 128 columns, 512 bytes of sums, in some 66 cycles, 16 "
        "of them on a tile: links of 32 bytes a cycle carry less than that, so the network sets the pace, on `isaac` the "
        "cores do.",
    )
    return [Section("Wider links", COMMAND, "", header, tuple(rows), remarks=remarks)]


if __name__ == "__main__":
    show(sections())
