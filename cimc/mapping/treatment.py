"""How the products of activations run (``--attention``): on digital units, or with one operand written into cells."""

from __future__ import annotations

from dataclasses import dataclass

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import Unit
from cimc.mapping.written import ACTIVATION_BITS, able
from cimc.ops.written import NVM, SRAM
from cimc.passes.codes import Codes
from cimc.passes.decompose import Decompose
from cimc.passes.online import Online
from cimc.passes.written import Written

PLACES = {"digital": "", "sram-write": SRAM, "nvm-write": NVM}
"""Where the products run, and the cells that their second operand is written into."""

DECOMPOSE = "decompose"
DEFAULT = "digital"


@dataclass(frozen=True)
class Treatment:
    """What ``--attention`` says: ``cells`` that operands are written into (none: digital matmul units), and whether scores
    are computed without keys (:class:`cimc.passes.decompose.Decompose`)."""

    cells: str = ""
    decompose: bool = False

    def passes(self, chip: ChipSpec, cols: int) -> tuple[Decompose | Online | Codes | Written, ...]:
        """What the pipeline needs for it; on matmul units, also softmax in blocks of keys where the smallest buffer beside
        one would not hold them. Raises ATTENTION_CELLS for hardware without such cores beside the units for softmax."""
        before = (Decompose(),) if self.decompose else ()
        if not self.cells:
            buffers = [t.local_bytes for t in chip.tiles.values() if t.matmul is not None and t.special is not None]
            coded = (Codes(cols),) if _codes(chip) else ()
            return (*before, Online(min(buffers)), *coded) if buffers else before
        core = chip.tile(able(chip, self.cells, frozenset({Unit.VECTOR, Unit.SPECIAL}))[0]).core
        assert core is not None
        return *before, Written("sram" if self.cells == SRAM else "nvm", core.rows, core.cols)


def _codes(chip: ChipSpec) -> bool:
    """Whether operands may come to matmul units as codes of 8 bits: they would bring them to such."""
    return all(t.matmul.operand_bits == ACTIVATION_BITS for t in chip.tiles.values() if t.matmul is not None)


def parse_attention(text: str) -> Treatment:
    """``digital``, ``sram-write``, ``nvm-write``, ``decompose``, or ``decompose+nvm-write`` and the like. Raises
    ATTENTION."""
    words = [word.strip() for word in text.split("+")]
    known = (*PLACES, DECOMPOSE)
    for word in words:
        if word not in known:
            fix = f"{errors.did_you_mean(word, known)}there are {', '.join(known)}"
            raise errors.ATTENTION(text=text, why=f"there is no '{word}'", fix=fix)
    places = [word for word in words if word in PLACES]
    if len(places) > 1 or words.count(DECOMPOSE) > 1:
        why = "the products run in one place, and are decomposed once"
        raise errors.ATTENTION(text=text, why=why, fix="name one of them, as in decompose+nvm-write")
    return Treatment(PLACES[places[0]] if places else "", DECOMPOSE in words)
