"""How a model was made to fit, and what the other way would have cost: the ``fit`` of ``mapping.json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cimc import errors
from cimc.arch.spec import MOST_TILES, ChipSpec
from cimc.arch.units import area_um2, energy_pj, leakage_mw
from cimc.ir.graph import Graph
from cimc.mapping.build import build
from cimc.mapping.choices import Choices
from cimc.mapping.json_value import Json
from cimc.mapping.mapping import Mapping
from cimc.mapping.placement import Reload
from cimc.mapping.segment import cores_needed
from cimc.mapping.short import MOST_CHIPS
from cimc.mapping.written import weight_cores


def fit(
    graph: Graph, mapping: Mapping, chip: ChipSpec, precision: str, chips: Callable[[int], ChipSpec | None]
) -> dict[str, Json]:
    """``choice`` (``resident``, ``chips`` or ``reload``), the cores that weights need and that are there, the reload if there
    is one, and the alternatives with what they cost. ``chips``: the hardware with another number of chips, None if it
    can have no such number."""
    reload = mapping.placement.reload
    choice = "reload" if reload is not None else "chips" if chip.chips > 1 else "resident"
    found: dict[str, Json] = {
        "choice": choice,
        "cores_needed": sum(cores_needed(graph, n) for n in graph.nodes),
        "cores": weight_cores(chip),
    }
    if reload is not None:
        found["reload"] = _reload(reload, chip)
        found["alternatives"] = [_with_chips(graph, chip, precision, mapping.choices, chips)]
    elif choice == "chips":
        found["alternatives"] = [_with_reload(graph, chips(1), precision, mapping.choices)]
    return found


def _reload(reload: Reload, chip: ChipSpec) -> dict[str, Json]:
    pools: Json = [{"pool_cores": c, "cell_writes": n, "product_cycles": t} for c, n, t in reload.considered]
    return {
        "matrices": len(reload.values),
        "pool_cores": reload.pool,
        "rounds": reload.rounds,
        "cell_writes": reload.cell_writes,
        "weights": reload.weights,
        "writing_pj": reload.cell_writes * energy_pj(chip, "cell.write"),
        "considered": pools,
    }


def _with_chips(
    graph: Graph, chip: ChipSpec, precision: str, choices: Choices, chips: Callable[[int], ChipSpec | None]
) -> dict[str, Json]:
    """As few chips as hold everything."""
    staying = replace(choices, reload=False)
    tiles = chip.tile_count // chip.chips
    for count in range(chip.chips + 1, MOST_CHIPS + 1):
        spec = chips(count) if count * tiles <= MOST_TILES else None
        if spec is None:
            break
        try:
            build(graph, spec, precision, staying)
        except errors.CimcError as e:
            if e.code != errors.DOES_NOT_FIT.code:
                break
            continue
        return {
            "option": f"--chips {count}",
            "chips": count,
            "area_mm2": area_um2(spec) / 1e6,
            "leakage_mw": leakage_mw(spec),
            "this_area_mm2": area_um2(chip) / 1e6,
            "this_leakage_mw": leakage_mw(chip),
        }
    return {"option": "--chips auto", "chips": None, "why": "no number of chips that this hardware allows holds it"}


def _with_reload(graph: Graph, chip: ChipSpec | None, precision: str, choices: Choices) -> dict[str, Json]:
    """On one chip, with weights in turn."""
    option = "--reload on"
    if chip is None:
        return {"option": option, "why": "the hardware has no single chip"}
    try:
        _, mapping = build(graph, chip, precision, replace(choices, reload=True, replicas=None))
    except errors.CimcError as e:
        return {"option": option, "why": e.message}
    reload = mapping.placement.reload
    return {"option": option, **(_reload(reload, chip) if reload else {"why": "everything fits on one chip"})}
