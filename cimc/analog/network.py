"""IR drop, exactly: the resistive network of one crossbar, solved by elimination.

Conductances are in units of 1/Rmin, resistances in units of Rmin, voltages in units of a full input. Four topologies
(CrossSim 3.2, simulator/circuits/array): cells fed by the input line or by a separate supply line along the column, and
the two sides of a differential pair in arrays of their own or interleaved on one column. Input lines are entered before
output 0; a column ends, after the last input, in a sense node at 0 V.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import refuse

Array = NDArray[np.float64]
KEYS = {
    "inputs", "outputs", "Rmin", "Rmax", "Rp_row_ohm", "Rp_col_ohm", "Rp_row_terminal_ohm", "Rp_col_terminal_ohm",
    "current_from_input", "interleaved", "topology", "dac", "adc",
}  # fmt: skip
TOPOLOGIES = {
    "input_source": (True, False),
    "separate_source": (False, False),
    "interleaved_input_source": (True, True),
    "interleaved_separate_source": (False, True),
}


@dataclass(frozen=True)
class Wires:
    """Resistances over Rmin: one segment along an input line or supply (``row``), along a column (``col``), and what is
    added at the entry of the one and the end of the other."""

    row: float
    col: float
    row_terminal: float = 0.0
    col_terminal: float = 0.0
    current_from_input: bool = True
    interleaved: bool = False

    def __post_init__(self) -> None:
        for key, value in (
            ("Rp_row_ohm", self.row),
            ("Rp_col_ohm", self.col),
            ("Rp_row_terminal_ohm", self.row_terminal),
            ("Rp_col_terminal_ohm", self.col_terminal),
        ):
            if not (np.isfinite(value) and value >= 0):
                raise refuse(key, f"{value} is negative or not finite", "give ohms of 0 or more")


def column_currents(plus: Array, minus: Array | None, inputs: Array, wires: Wires) -> Array:
    """Currents at the sense nodes, (columns, vectors), of cells (columns, in) driven by ``inputs`` (in, vectors).

    With ``minus`` the difference of the two sides: of two arrays, or of the one interleaved array.
    """
    solve = _input_source if wires.current_from_input else _separate_source
    if minus is None:
        return solve([plus], [1.0], inputs, wires)
    if wires.interleaved:
        return solve([plus, minus], [1.0, -1.0], inputs, wires)
    return solve([plus], [1.0], inputs, wires) - solve([minus], [1.0], inputs, wires)


def _line(cells: Array, wires: Wires) -> Array:
    """Nodal matrix of one input line with its cells to ground: tridiagonal, entered through the first segment."""
    count = len(cells)
    g = 1.0 / wires.row
    matrix = np.diag(cells + 2 * g)
    matrix[0, 0] += 1.0 / (wires.row + wires.row_terminal) - g
    matrix[-1, -1] -= g
    steps = np.arange(count - 1)
    matrix[steps, steps + 1] = matrix[steps + 1, steps] = -g
    return matrix


def _row_stage(cells: Array, x: Array, wires: Wires) -> tuple[Array, Array]:
    """One input line eliminated: conductance matrix seen by its columns, and the currents pushed into them by ``x``."""
    if wires.row == 0.0 and wires.row_terminal == 0.0:
        return np.diag(cells), cells[:, None] * x[None, :]
    if wires.row == 0.0:
        entry = 1.0 / wires.row_terminal
        share = cells / (entry + cells.sum())
        return np.diag(cells) - np.outer(share, cells), (share * entry)[:, None] * x[None, :]
    line = _line(cells, wires)
    entry = np.zeros((len(cells), 1))
    entry[0] = 1.0 / (wires.row + wires.row_terminal)
    solved = np.linalg.solve(line, np.concatenate([np.diag(cells), entry], axis=1))
    seen = np.diag(cells) - cells[:, None] * solved[:, :-1]
    return seen, (cells * solved[:, -1])[:, None] * x[None, :]


def _input_source(sides: list[Array], signs: list[float], inputs: Array, wires: Wires) -> Array:
    """Block elimination from the first input to the last; each block is one input's crossings with all columns."""
    columns, count = sides[0].shape
    stages: list[tuple[Array, Array]] = []
    for i in range(count):
        seen, pushed = np.zeros((columns, columns)), np.zeros((columns, inputs.shape[1]))
        for side, sign in zip(sides, signs, strict=True):
            one, two = _row_stage(side[:, i], sign * inputs[i], wires)
            seen, pushed = seen + one, pushed + two
        stages.append((seen, pushed))
    if wires.col == 0.0:
        return _common_column(stages, wires.col_terminal)
    g = 1.0 / wires.col
    below, carried = np.zeros((columns, columns)), np.zeros((columns, inputs.shape[1]))
    for i, (seen, pushed) in enumerate(stages):
        last = i == count - 1
        down = 1.0 / (wires.col + wires.col_terminal) if last else g
        up = g if i else 0.0
        matrix = seen + np.eye(columns) * (up + down) - below
        current = pushed + carried
        solved = np.linalg.solve(matrix, np.concatenate([np.eye(columns) * down, current], axis=1))
        below, carried = down * solved[:, :columns], down * solved[:, columns:]
    # After the last input ``carried`` is the current through the last segment into the sense node at 0 V.
    return np.asarray(carried, dtype=np.float64)


def _common_column(stages: list[tuple[Array, Array]], terminal: float) -> Array:
    """Columns without wire resistance: every crossing of a column is one node."""
    pushed: Array = np.stack([p for _, p in stages]).sum(axis=0)
    if terminal == 0.0:
        return pushed
    seen: Array = np.stack([s for s, _ in stages]).sum(axis=0)
    return np.asarray(np.linalg.solve(seen * terminal + np.eye(len(seen)), pushed), dtype=np.float64)


def _separate_source(sides: list[Array], signs: list[float], inputs: Array, wires: Wires) -> Array:
    """Supply and summation lines run along the column, so columns are independent; an input of 0 disconnects its
    cell."""
    columns, count = sides[0].shape
    order = np.arange(count, dtype=np.float64)
    supply = wires.row * (np.minimum.outer(order, order) + 1.0) + wires.row_terminal
    drain = wires.col * (count - np.maximum.outer(order, order)) + wires.col_terminal
    result = np.zeros((columns, inputs.shape[1]))
    for v in range(inputs.shape[1]):
        x = inputs[:, v]
        active = np.abs(x) > 1e-9
        for column in range(columns):
            cells = [side[column] * active for side in sides]
            result[column, v] = _one_column(cells, signs, x, supply, drain)
    return result


def _one_column(cells: list[Array], signs: list[float], x: Array, supply: Array, drain: Array) -> float:
    """Total current of one column; unknowns are the voltages across the cells of every side."""
    count, sides = len(x), len(cells)
    matrix = np.eye(count * sides)
    drive = np.concatenate([sign * x for sign in signs])
    for a in range(sides):
        for b in range(sides):
            path = drain + supply if a == b else drain
            matrix[a * count : (a + 1) * count, b * count : (b + 1) * count] += path * cells[b][None, :]
    across = np.linalg.solve(matrix, drive)
    return float(across @ np.concatenate(cells))


def is_network(config: Mapping[str, object]) -> bool:
    """Whether a mapping asks for the exact network: wire resistances, and nothing of a bit-sliced core."""
    return bool({"Rp_row_ohm", "Rp_col_ohm"} & set(config)) and not {"weight_bits", "input_bits"} & set(config)


def network_mvm(weights: NDArray[np.floating], inputs: NDArray[np.floating], config: Mapping[str, object]) -> Array:
    """Weights in -1..1 (out, in) as differential pairs, inputs in -1..1 (in, batch) as voltages: (out, batch).

    ``G = Gmin + (1 - Gmin) |w|`` on the weight's side, Gmin on the other; results are ``(I+ - I-) / (1 - Gmin)``.
    """
    config = {"interleaved" if key == "interleaved_posneg" else key: value for key, value in config.items()}
    wires, gmin = read_wires(config)
    w, x = np.asarray(weights, dtype=np.float64), np.asarray(inputs, dtype=np.float64)
    for key, array in (("weights", w), ("inputs", x)):
        if array.ndim != 2 or not np.all(np.isfinite(array)) or (array.size and np.abs(array).max() > 1 + 1e-12):
            raise refuse(key, "no finite matrix within -1..1", "scale it: 1 is Gmax and a full input")
    if w.shape[1] != x.shape[0]:
        raise refuse("inputs", f"{x.shape[0]} rows for weights of {w.shape[1]} inputs", "give (in, batch)")
    for key, size in (("outputs", w.shape[0]), ("inputs", w.shape[1])):
        if config.get(key, size) != size:
            raise refuse(key, f"{config[key]} contradicts a matrix of {w.shape}", "drop the key")
    plus = gmin + (1.0 - gmin) * np.maximum(w, 0.0)
    minus = gmin + (1.0 - gmin) * np.maximum(-w, 0.0)
    return column_currents(plus, minus, x, wires) / (1.0 - gmin)


def read_wires(config: Mapping[str, object]) -> tuple[Wires, float]:
    """Wires and Gmin/Gmax from a mapping with ``KEYS``."""
    for key in config:
        if key not in KEYS:
            raise refuse(key, "there is no such key beside Rp_row_ohm", f"known: {', '.join(sorted(KEYS))}")
    for key in ("dac", "adc"):
        if not str(config.get(key, "none") or "none").startswith("none"):
            raise refuse(key, "the exact network drives and reads analog values", "give none")

    def number(key: str, default: float) -> float:
        value = config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(key, f"{value!r} is no number", "give ohms")
        return float(value)

    rmin, rmax = number("Rmin", 1e4), number("Rmax", float("inf"))
    if not 0 < rmin < rmax:
        raise refuse("Rmax", f"{rmax:g} is not above Rmin {rmin:g}", "give ohms with Rmax above a positive Rmin")
    from_input, interleaved = config.get("current_from_input", True), config.get("interleaved", False)
    if "topology" in config:
        if config["topology"] not in TOPOLOGIES:
            raise refuse("topology", f"{config['topology']!r} is unknown", f"give one of {', '.join(TOPOLOGIES)}")
        from_input, interleaved = TOPOLOGIES[cast("str", config["topology"])]
    wires = Wires(
        number("Rp_row_ohm", 0.0) / rmin,
        number("Rp_col_ohm", 0.0) / rmin,
        number("Rp_row_terminal_ohm", 0.0) / rmin,
        number("Rp_col_terminal_ohm", 0.0) / rmin,
        bool(from_input),
        bool(interleaved),
    )
    return wires, 0.0 if np.isinf(rmax) else rmin / rmax
