"""Hardware that no preset is."""

from __future__ import annotations

from pathlib import Path


def two_sizes(folder: Path) -> str:
    """A file of a chip like ``hybrid`` whose SRAM cores, for operands, are smaller than the cores for weights."""
    path = folder / "two-sizes.yaml"
    path.write_text(
        """
extends: hybrid
name: two-sizes
source: estimated
tiles: {sram: {core: {crossbar: {rows: 64, cols: 64}}}}
costs:
  energy_pj: {crossbar.step: 30.0}
  leakage_mw: {digital_crossbar: 0.01}
  area_um2: {crossbar: 30.0, digital_crossbar: 1700.0}
"""
    )
    return str(path)
