"""The calibrations of a program: which there are, and whether the device asked for agrees with them."""

from __future__ import annotations

from dataclasses import dataclass

from cimc.analog.config import refuse
from cimc.device import Device
from cimc.isa.program import MatrixDecl, Program
from cimc.isa.steps import executed

MNEMONIC = "calibrate"


@dataclass(frozen=True)
class Calibrated:
    """One ``calibrate`` of the program's text; ``times``: how often it runs, where repeats have fixed counts (else as if
    once)."""

    tile: int
    matrix: MatrixDecl
    vectors: int
    times: int


def calibrations(program: Program) -> list[Calibrated]:
    """All of a program, in its order."""
    found: list[Calibrated] = []
    for tile in program.tiles:
        matrices = {m.name: m for m in tile.matrices}
        for step, times in executed(tile.steps):
            if step.mnemonic == MNEMONIC:
                vectors = dict(step.keywords)["vectors"]
                assert isinstance(vectors, int)
                found.append(Calibrated(tile.tile, matrices[str(step.operands[0])], vectors, times))
    return found


def agree(program: Program, device: Device) -> None:
    """Refuse a device whose compensation a calibration would undo, or that dates a calibration that there is not."""
    if calibrations(program):
        if device.drift_compensation != "none":
            why = "the program calibrates its columns itself"
            fix = "--device drift_compensation=none (the hardware may ask for it), or compile with --calibrate never"
            raise refuse("device.drift_compensation", why, fix)
        return
    for key, given in (("age", device.calibration_age > 0), ("interval", device.calibration_interval > 1)):
        if given:
            why = "the program has no calibrate instruction"
            raise refuse(f"device.calibration_{key}", why, "compile with --calibrate start")
