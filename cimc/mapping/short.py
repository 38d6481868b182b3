"""What hardware is short of for a model: the refusals, with the numbers and with what helps on this hardware."""

from __future__ import annotations

from cimc import errors
from cimc.arch.spec import MOST_TILES, ChipSpec
from cimc.isa.instruction import Unit
from cimc.mapping.choices import Choices
from cimc.mapping.lacking import giving, lacking
from cimc.mapping.written import kind_of, weights_kind

MOST_CHIPS = 64  # that are tried for a model that says no number


def too_few_cores(chip: ChipSpec, choices: Choices, need: int, have: int, block: str) -> errors.CimcError:
    """The refusal of a model that takes ``need`` cores on a chip with ``have`` for its weights, in blocks of ``block``."""
    name = chip.name if chip.chips == 1 else f"{chip.name} on {chip.chips} chips"
    fix = "choose " + ", ".join(_more_cores(chip, choices) if have else _any_cores(chip))
    return errors.DOES_NOT_FIT(chip=name, need=need, have=have, short=max(need - have, 1), block=block, fix=fix)


def _any_cores(chip: ChipSpec) -> list[str]:
    """What helps where no tile has cores that weights may be on."""
    absent = next((name for name, tile in chip.tiles.items() if tile.core is not None), None)
    if absent is None:
        return ["hardware with cores (--hw; cimc hw list)"]
    if weights_kind(chip):
        return [
            f"a larger floorplan (-c layout=…): its tiles of kind '{weights_kind(chip)}' are kept for operands that are "
            "written (--attention)"
        ]
    return [f"a layout with tiles of kind '{absent}', which have cores (-c layout=…)", "other hardware (--hw)"]


def _more_cores(chip: ChipSpec, choices: Choices) -> list[str]:
    """What helps where there are cores, but too few: options first, then changes of the hardware."""
    kind, helps = weights_kind(chip), list[str]()
    if choices.replicas is not None and choices.replicas > 1:
        helps.append("fewer copies of the weights (-m replicas=1)")
    if chip.chips < MOST_CHIPS and chip.tile_count // chip.chips * (chip.chips + 1) <= MOST_TILES:
        linked = "" if chip.link else ", once the hardware file has a link"
        helps.append(f"several chips (--chips auto{linked})")
    if choices.optimize == "latency":
        helps.append("weights written into cells during the run (--reload on)")
    return [
        *helps,
        "larger hardware (--hw)",
        f"larger crossbars (-c tiles.{kind}.core.crossbar.rows=…) or more cores per tile (-c tiles.{kind}.cores=…)",
    ]


def no_tile_with(chip: ChipSpec, units: frozenset[Unit]) -> errors.CimcError:
    """The refusal of hardware none of whose tiles has all of the units."""
    placed = {name: tile for name, tile in chip.tiles.items() if chip.count(tile)}
    kind = min(placed, key=lambda name: len(lacking(placed[name], units)))
    fix = f"give them to a kind of tile: {giving(kind, lacking(placed[kind], units))}"
    beside = units - {Unit.MATMUL}
    written = (kind_of(chip, t.core) for t in placed.values() if t.core is not None and not lacking(t, beside))
    if Unit.MATMUL in units and (cells := next(written, None)):
        fix += f"; or, where it is for attention, write its operands into cells (--attention {cells}-write)"
    named = ", ".join(sorted(u.value for u in units))
    return errors.UNIT_MISSING(chip=chip.name, units=named, fix=f"{fix}; or choose another preset (cimc hw list)")
