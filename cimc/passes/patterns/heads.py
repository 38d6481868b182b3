"""The leading axes of attention: heads folded into the batch, heads repeated for grouped queries; and writing the
op."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from cimc.ir.graph import Node
from cimc.ops.layout import integers
from cimc.ops.op import broadcast
from cimc.origin import Origin
from cimc.passes.patterns.match import Match

_MOST_MASK = 1 << 24
"""Constant masks of up to this many elements are looked through for rows that mask everything."""


@dataclass(frozen=True)
class Operands:
    """q (… × s × d), k (… × d × t), v (… × t × e) and the mask (… × s × t, or empty), whose leading axes broadcast to
    ``lead``."""

    q: str
    k: str
    v: str
    lead: tuple[int, ...]
    mask: str = ""


def unshaped(m: Match, value: str) -> str:
    """The value before casts that lose nothing and reshapes that keep the last two axes."""
    while True:
        value = m.uncast(value)
        node = m.by(value, "reshape")
        if node is None or len(m.shape(value)) < 2 or m.shape(node.inputs[0])[-2:] != m.shape(value)[-2:]:
            return value
        value = node.inputs[0]


def on_lead(m: Match, operands: Operands, origins: tuple[Origin, ...], hint: str) -> Operands | None:
    """The operands with their leading axes reshaped to ``lead`` where they do not broadcast to it; None if they
    cannot."""
    lead = operands.lead
    found: list[str] = []
    for value in (operands.q, operands.k, operands.v):
        shape = m.shape(value)
        if _broadcasts(shape[:-2], lead):
            found.append(value)
            continue
        if prod(shape[:-2]) != prod(lead):
            return None
        found.append(_reshape(m, value, (*lead, *shape[-2:]), origins, hint))
    q, k, v = found
    whole = broadcast(*(m.shape(x)[:-2] for x in found))
    return replace(operands, q=q, k=k, v=v) if whole == lead else None


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    padded = (*(1,) * (len(to) - len(shape)), *shape)
    return len(padded) == len(to) and all(n in (1, whole) for n, whole in zip(padded, to, strict=True))


def _reshape(m: Match, value: str, shape: tuple[int, ...], origins: tuple[Origin, ...], hint: str) -> str:
    if m.shape(value) == shape:
        return value
    output = m.editor.fresh(f"{hint}.{value.rsplit('/', 1)[-1]}")
    return m.editor.emit("reshape", (value,), origins=origins, output=output, attrs=(("shape", shape),))


def ungrouped(m: Match, operands: Operands, origins: tuple[Origin, ...]) -> Operands:
    """Grouped queries: where k and v are heads repeated (unsqueeze, expand, reshape), take the heads before that and
    give q an axis for the group. (…, h, s, d) with (…, g · n) heads becomes (…, g, n, s, d) with (…, g, 1) heads; where all
    heads are repeated one after the other, (…, n, g, s, d) with (…, 1, g) heads."""
    k_base, v_base = _repeated(m, operands.k), _repeated(m, operands.v)
    lead = operands.lead
    if k_base is None or v_base is None or not lead or m.shape(operands.q)[:-2] != lead:
        return operands
    if k_base.axes != v_base.axes or lead[-1] != prod(k_base.axes) or not _mask_splits(m, operands):
        return operands
    split = (*lead[:-1], *k_base.axes)
    q = _reshape(m, operands.q, (*split, *m.shape(operands.q)[-2:]), origins, operands.q)
    k, v = (_turned(m, base, origins) for base in (k_base, v_base))
    return Operands(q, k, v, split, _split_mask(m, operands.mask, split, origins))


def grouped(m: Match, node: Node) -> bool:
    """An ``attention`` whose heads are repeated for grouped queries: on the heads before that (:func:`ungrouped`)."""
    q, k, v = node.inputs[:3]
    mask = node.inputs[3] if len(node.inputs) > 3 else ""
    given = Operands(q, k, v, m.shape(node.outputs[0])[:-2], mask)
    found = ungrouped(m, given, node.origins)
    if found is given:
        return False
    scale = node.number("scale")
    write(m, node, found, scale, node.origins, guard=False)
    return True


@dataclass(frozen=True)
class _Heads:
    """Heads before they are repeated: ``value`` (…, g, 1, a, b) or (…, 1, g, a, b), ``swapped`` if its last axes are swapped
    for the product; ``axes``: (g, n) or (n, g), all heads."""

    value: str
    swapped: bool
    axes: tuple[int, int]


def _repeated(m: Match, value: str) -> _Heads | None:
    """What is repeated to give ``value``, heads in its third axis from the end; None if nothing is."""
    turned = m.by(value, "transpose")
    rank = len(m.shape(value))
    if turned is not None and integers(turned, "perm") != (*range(rank - 2), rank - 1, rank - 2):
        return None
    joined = m.by(turned.inputs[0] if turned is not None else value, "reshape")
    spread = m.by(joined.inputs[0], "expand", "concat") if joined is not None else None
    if joined is None or spread is None or len(set(spread.inputs)) != 1:
        return None
    before, wide, after = (m.shape(v) for v in (spread.inputs[0], spread.outputs[0], joined.outputs[0]))
    if len(wide) < 4 or len(before) != len(wide) or before[:-4] != wide[:-4] or before[-2:] != wide[-2:]:
        return None
    axes = (wide[-4], wide[-3])
    if after != (*wide[:-4], prod(axes), *wide[-2:]) or before[-4:-2] not in ((axes[0], 1), (1, axes[1])):
        return None
    return _Heads(spread.inputs[0], turned is not None, axes)


def _turned(m: Match, heads: _Heads, origins: tuple[Origin, ...]) -> str:
    value = heads.value
    if not heads.swapped:
        return value
    rank = len(m.shape(value))
    perm = (*range(rank - 2), rank - 1, rank - 2)
    output = m.editor.fresh(f"{value}.t")
    return m.editor.emit("transpose", (value,), origins=origins, output=output, attrs=(("perm", perm),))


def _mask_splits(m: Match, operands: Operands) -> bool:
    shape = m.shape(operands.mask) if operands.mask else ()
    return len(shape) < 3 or shape[-3] in (1, operands.lead[-1])


def _split_mask(m: Match, mask: str, split: tuple[int, ...], origins: tuple[Origin, ...]) -> str:
    shape = m.shape(mask) if mask else ()
    if len(shape) < 3:
        return mask
    heads = (1, 1) if shape[-3] == 1 else split[-2:]
    return _reshape(m, mask, (*shape[:-3], *heads, *shape[-2:]), origins, mask)


def write(m: Match, node: Node, operands: Operands, scale: float, origins: tuple[Origin, ...], *, guard: bool) -> None:
    """The attention, then the guard if a row can be masked altogether, then a reshape to the shape the node's output
    has."""
    editor, y = m.editor, node.outputs[0]
    whole = m.shape(y)
    shape = (*operands.lead, m.shape(operands.q)[-2], m.shape(operands.v)[-1])
    guard = guard and not _leaves_something(m, operands.mask)
    last = y if shape == whole else editor.fresh(f"{y}.heads")
    first = editor.fresh(f"{y}.attention") if guard else last
    inputs = (operands.q, operands.k, operands.v, *((operands.mask,) if operands.mask else ()))
    editor.emit("attention", inputs, origins=origins, output=first, attrs=(("scale", scale),))
    if guard:
        test = editor.emit("isnan", (first,), origins=origins, output=editor.fresh(f"{y}.isnan"))
        zero = editor.number(0.0, m.element(y))
        editor.emit("select", (test, zero, first), origins=origins, output=last)
    if last != y:
        editor.emit("reshape", (last,), origins=origins, output=y, attrs=(("shape", whole),))


def _leaves_something(m: Match, mask: str) -> bool:
    """Whether every row of scores keeps a finite one: there is no mask, or a constant one that shows it."""
    if not mask:
        return True
    if not m.editor.is_constant(mask) or m.editor.types[mask].size > _MOST_MASK:
        return _is_finite_choice(m, mask)
    value = np.asarray(m.editor.value(mask), np.float64)
    return bool(np.all(np.max(value, axis=-1, initial=-np.inf) > -np.inf))


def _is_finite_choice(m: Match, mask: str) -> bool:
    """Whether the mask is chosen, at run time, between two finite numbers."""
    node = m.by(mask, "select")
    numbers = [m.scalar(v) for v in node.inputs[1:]] if node is not None else [None]
    return all(number is not None and np.isfinite(number) for number in numbers)
