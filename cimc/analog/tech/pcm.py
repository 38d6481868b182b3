"""Phase-change memory: the 25 µS model, the HERMES chip's one- and two-device fits, and Joshi's programming error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cimc.analog.technology import Array, Cell, CellModel, Fact, Flicker, PowerDrift, Spread, Technology

LIKE_SOURCE = (
    "aihwkit 1.2 inference/noise/pcm.py; Nandakumar et al., ICECS 2019; Joshi et al., Nat. Commun. 11, 2473, 2020; "
    "drift: Le Gallo et al., Adv. Electron. Mater. 2018"
)
HERMES_SOURCE = (
    "aihwkit 1.2 inference/noise/hermes.py; Le Gallo et al., Nat. Electron. 2023; Khaddam-Aljameh et al., JSSC 2022; "
    "Vasilopoulos et al., TED 2023"
)
ZERO_CLIP = 1e-7  # aihwkit 1.2: relative conductances are floored here before the logarithm


@dataclass(frozen=True)
class Fit:
    """The coefficients of one fit. Conductances relative to ``gmax_us``; spread in µS at that Gmax."""

    gmax_us: float
    spread: tuple[float, ...]
    t0: float
    t_read: float


def _poly(coefficients: tuple[float, ...], r: Array) -> Array:
    total = np.zeros_like(r)
    for coefficient in reversed(coefficients):
        total = total * r + coefficient
    return total


def _like_nu(r: Array) -> tuple[Array, Array]:
    log = np.log(r)
    return np.clip(-0.0155 * log + 0.0244, 0.049, 0.1), np.clip(-0.0125 * log - 0.0059, 0.008, 0.045)


def _like_q(r: Array) -> Array:
    return np.minimum(0.0088 / np.maximum(r**0.65, 1e-3), 0.2)


def _hermes_nu_mean(r: Array) -> Array:
    low = np.clip(-0.0387 * np.log(r) - 0.0182, 0.072, 0.13)
    return np.where(r < 0.0945, low, -0.0436 * r**2 - 0.0126 * r + 0.0736)


def _hermes2_nu(r: Array) -> tuple[Array, Array]:
    low = np.clip(-0.0117 * np.log(r) - 0.0057, 0.0091, 0.04)
    return _hermes_nu_mean(r), np.where(r < 0.3055, low, -0.0118 * r**2 + 0.0093 * r + 0.0073)


def _hermes2_q(r: Array) -> Array:
    low = np.clip(-0.0117 * np.log(r) - 0.0069, 0.015, 0.04)
    return np.where(r < 0.16, low, 0.0069 * r**3 - 0.0280 * r**2 + 0.0211 * r + 0.0123)


def _hermes1_nu(r: Array) -> tuple[Array, Array]:
    low = np.clip(-0.0120 * np.log(r) - 0.0023, 0.0124, 0.04)
    return _hermes_nu_mean(r), np.where(r < 0.3039, low, -0.0165 * r**2 + 0.0116 * r + 0.0104)


def _hermes1_q(r: Array) -> Array:
    low = np.clip(-0.0078 * np.log(r) + 0.0038, 0.0179, 0.04)
    return np.where(r < 0.1591, low, 0.0664 * r**3 - 0.1352 * r**2 + 0.0768 * r + 0.0088)


LAWS = {"like": (_like_nu, _like_q), "hermes1": (_hermes1_nu, _hermes1_q), "hermes2": (_hermes2_nu, _hermes2_q)}
FITS = {
    "like": Fit(25.0, (0.26348, 1.9650, -1.1731), 20.0, 250e-9),
    "hermes1": Fit(10.35, (0.15781817, 2.32443916, -2.16310839, 0.68841818), 200.0, 512e-9),
    "hermes2": Fit(20.7, (0.16603222, 4.71806468, -8.48101252, 4.68961419), 300.0, 512e-9),
}


def _parts(law: str) -> tuple[Spread, PowerDrift, Flicker]:
    fit, (nu_of, q_of) = FITS[law], LAWS[law]

    def sigma(target: Array, cell: Cell) -> Array:
        return cell.gmax_us / fit.gmax_us * _poly(fit.spread, target / cell.gmax_us)

    def exponents(target: Array, cell: Cell) -> tuple[Array, Array]:
        return nu_of(np.maximum(target / cell.gmax_us, ZERO_CLIP))

    def start(cell: Cell) -> float:
        return fit.t0

    def spread(programmed: Array, cell: Cell) -> Array:
        # 1/f noise accumulated since programming; q follows the programmed conductance (aihwkit issue 436).
        q = q_of(np.maximum(programmed / cell.gmax_us, ZERO_CLIP))
        elapsed = cell.seconds + fit.t0
        return q * math.sqrt(math.log((elapsed + fit.t_read) / (2 * fit.t_read)))

    return Spread(sigma), PowerDrift(exponents, start), Flicker(spread)


def _model(law: str, name: str, source: str, aliases: tuple[str, ...]) -> CellModel:
    program, drift, read = _parts(law)
    gmax = FITS[law].gmax_us
    return CellModel(name, source, aliases, 0.0, gmax, gmax, program, drift, read, read_per_cycle=False)


def _joshi(target: Array, cell: Cell) -> Array:
    return np.maximum(-0.00178767 * target**2 + 0.07585724 * target + 0.28638599, 0.0)


JOSHI = CellModel(
    "PCMJoshi",
    "CrossSim 3.2 devices/custom/PCM_Joshi.py; Joshi et al., Nat. Commun. 11, 2473, 2020, Fig. 3b",
    ("pcm_joshi",),
    0.25,
    25.0,
    25.0,
    program=Spread(_joshi),
)


def _custom_spread(target: Array, cell: Cell) -> float:
    return 0.2


def _custom_exponents(target: Array, cell: Cell) -> tuple[float, float]:
    return 0.1, 0.05


def _custom_start(cell: Cell) -> float:
    return 20.0


def _custom_read(programmed: Array, cell: Cell) -> Array:
    scale = math.sqrt(math.log((cell.seconds + 20.0 + 250e-9) / 500e-9))
    return np.full_like(programmed, scale / cell.gmax_us)


CUSTOM = CellModel(
    "StateIndependent",
    "aihwkit 1.2 inference/noise/custom.py: 0.2 µS, nu 0.1 +- 0.05, t0 20 s",
    ("StateIndependentNoiseModel", "custom_drift_pcm"),
    0.0,
    25.0,
    program=Spread(_custom_spread),
    drift=PowerDrift(_custom_exponents, _custom_start),
    read=Flicker(_custom_read),
    read_per_cycle=False,
)
FACTS = (
    Fact("endurance", 1e5, 2e11, "writes", "NVMExplorer 2016-2020_EnduranceSummary.csv (PCRAM)"),
    Fact("write_latency", 40, 150, "ns", "NVMExplorer data/cell_cfgs/PCM.cell (RESET, SET)"),
    Fact("write_energy", 3.4, 3.6, "pJ", "derived I²Rt of NVMExplorer PCM.cell (SET, RESET)"),
    Fact("cell_area", 9, 50, "F²", "NVMExplorer PCM.cell 9, literature database 25-50"),
)
TECHNOLOGIES = (
    Technology(
        "pcm",
        "phase-change memory, the 25 µS model of aihwkit",
        _model("like", "PCMLike", LIKE_SOURCE, ("pcm_like", "PCMLikeNoiseModel", "pcm_25us", "pcm_like_25uS")),
        FACTS,
        2,
    ),
    Technology(
        "pcm_hermes_1dev",
        "IBM HERMES chip, one device per conductance",
        _model("hermes1", "Hermes1", HERMES_SOURCE, ("hermes_1dev", "hermes1dev", "hermes_one_device")),
        FACTS,
        2,
    ),
    Technology(
        "pcm_hermes_2dev",
        "IBM HERMES chip, two devices per conductance",
        _model("hermes2", "Hermes2", HERMES_SOURCE, ("hermes_2dev", "hermes2dev", "hermes", "HermesNoiseModel")),
        FACTS,
        2,
        ("pcm_hermes",),
    ),
    Technology("pcm_custom", "phase-change memory with spreads that do not depend on the state", CUSTOM, FACTS, 2),
    Technology("pcm_joshi", "phase-change memory, programming error alone", JOSHI, FACTS, 2),
)
