"""The vocabulary of cost: every action a unit can be billed for, and every part that leaks and takes up area.

The numbers stand in the hardware file's ``costs``; :mod:`cimc.arch.units` counts and multiplies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One use of a component. ``component`` groups actions in reports; ``unit`` is the unit that must exist for it."""

    component: str
    unit: str  # "analog core", "digital core", "core", "matmul", "lanes", "link", "adders" or "chip"
    doc: str
    optional: bool = False  # a hardware file may leave it out: it is then not billed


ACTIONS: dict[str, Action] = {
    "crossbar.step": Action("crossbar", "analog core", "one crossbar, one input step, one row group; see SCALED"),
    "adc.convert": Action("adc", "analog core", "one conversion of one column; 'adc.convert@8': of an 8-bit ADC"),
    "dac.drive": Action("dac", "analog core", "one wordline, one input step"),
    "shift_add.op": Action("shift_add", "analog core", "one code shifted and added to a sum"),
    "digital.mac_bit": Action("digital_mac", "digital core", "one weight bit times one input bit, added up"),
    "digital.input_bit": Action(
        "digital_mac", "digital core", "one weight, one input bit: what does not grow with the weight's bits", True
    ),
    "cell.write": Action("cell_write", "core", "one write pulse on one cell"),
    "digital.write": Action(
        "cell_write", "digital core", "one write of one cell of a digital core, where that is no cell.write", True
    ),
    "matmul.mac": Action("matmul", "matmul", "one multiply-accumulate of the dynamic matmul unit"),
    "matmul.load_byte": Action("matmul", "matmul", "one byte of the stationary operand into the array"),
    "vector.alu": Action("vector", "lanes", "one addition, comparison, conversion or move of an element"),
    "vector.mul": Action("vector", "lanes", "one multiplication of an element"),
    "special.div": Action("special", "lanes", "one division"),
    "special.func": Action("special", "lanes", "one exp, tanh, erf, rsqrt ..."),
    "buffer.read_byte": Action("buffer", "chip", "one byte read from a local buffer"),
    "buffer.write_byte": Action("buffer", "chip", "one byte written to a local buffer"),
    "noc.byte_hop": Action("noc", "chip", "one byte through one router and link"),
    "noc.add": Action("noc", "adders", "one element added to another in a router, where routers add"),
    "link.byte": Action("link", "link", "one byte over the link from a chip to its neighbour"),
    "memory.read": Action("memory", "chip", "one byte read from global memory"),
    "memory.write": Action("memory", "chip", "one byte written to global memory"),
    "host.launch": Action("host", "chip", "one call of the host controller"),
    "host.byte": Action("host", "chip", "one byte over the host's link"),
}

PARTS: dict[str, str] = {
    "crossbar": "one analog crossbar with its sample-and-hold and registers",
    "adc": "one converter; 'adc@8': one of 8 bits",
    "dac": "one wordline driver",
    "shift_add": "one shift-and-add unit; there is one per ADC",
    "digital_crossbar": "one array of a digital core with its adder trees",
    "matmul": "one multiply-accumulate cell of the dynamic matmul unit",
    "vector": "one lane of a vector unit",
    "special": "one lane of a special-function unit",
    "buffer": "one KiB of a local buffer",
    "router": "the router of one tile",
    "adder": "one lane of the adders of a router, where routers add",
    "cim_tile": "what else a tile with cores has",
    "tile": "what else every tile has",
    "chip": "what the chip has once (links, pads, controller)",
}

BY_BITS = ("adc.convert", "adc")
"""Costs that may be given per resolution: ``adc.convert@8`` holds for a chip with 8-bit ADCs."""

SCALED = ("crossbar.step", "crossbar", "digital_crossbar")
"""Costs that may be given for a size: ``crossbar.step@128x128`` (driven rows x columns) and ``crossbar@128x128`` (rows
x columns) are scaled to the chip's crossbars in proportion to the cells."""


def base(name: str) -> str:
    """A cost's name without its qualifier: ``adc.convert@8`` is an ``adc.convert``."""
    return name.split("@", 1)[0]


def well_formed(name: str) -> bool:
    """False for a qualifier that the cost does not take: ``adc@8`` and ``crossbar@128x128`` are the forms."""
    head, at, qualifier = name.partition("@")
    if not at:
        return True
    form = r"[1-9][0-9]?" if head in BY_BITS else r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}" if head in SCALED else r"(?!)"
    return re.fullmatch(form, qualifier) is not None


def component(action: str) -> str:
    """The report component an action belongs to. Raises KeyError for an action that does not exist."""
    return ACTIONS[base(action)].component
