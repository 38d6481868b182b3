"""How an instruction is written, told from its row: for diagnostics and the manual."""

from __future__ import annotations

from cimc import errors
from cimc.isa.instruction import INSTRUCTIONS, Keyword, Spec
from cimc.isa.printer import value_text


def usage(spec: Spec) -> str:
    """``mvm acc, matrix, x [, accumulate=0]``"""
    head = ", ".join(o.name for o in spec.operands) + (", ..." if spec.variadic else "")
    required = [k for k in spec.keywords if k.default is None]
    optional = [k for k in spec.keywords if k.default is not None]
    parts = [head] if head else []
    parts += [f"{k.name}={_PLACE[k.type]}" for k in required]
    text = f"{spec.mnemonic} {', '.join(parts)}" if parts else spec.mnemonic
    return text + "".join(_optional(k) for k in optional)


def _optional(keyword: Keyword) -> str:
    assert keyword.default is not None
    return f" [, {keyword.name}={value_text(keyword.default)}]"


_PLACE: dict[type, str] = {int: "INT", float: "NUMBER", str: '"TEXT"', tuple: "[INT,...]"}


def wrong_count(spec: Spec, given: int) -> str:
    """What is wrong about the number of positional operands; empty if nothing is."""
    due = len(spec.operands)
    if given == due or (spec.variadic and given >= due):
        return ""
    more = "at least " if spec.variadic else ""
    return f"{spec.mnemonic} takes {more}{due} operand{'s' if due != 1 else ''}, not {given}"


def unknown_instruction(name: str, where: str, source: errors.Source | None) -> errors.CimcError:
    """The fault of a mnemonic that is in no row."""
    hint = errors.did_you_mean(name, INSTRUCTIONS)
    return errors.UNKNOWN_INSTRUCTION(where=where, name=name[:60], hint=hint, source=source)
