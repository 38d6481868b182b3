"""Running a compiled model from Python: shaped like onnxruntime's InferenceSession."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cimc import bundle, errors, inputs
from cimc.analog.config import refuse
from cimc.arch.spec import ChipSpec
from cimc.asked import one_of
from cimc.compiler import Compiled
from cimc.device import Device, checked_rate, device_calibrates, duration
from cimc.errors import did_you_mean
from cimc.isa.printer import affine_text
from cimc.isa.program import Port, Program, Weights
from cimc.isa.verify import verify
from cimc.report import device_cost
from cimc.report.beside import Known, run_figures
from cimc.report.figures import RunFigures
from cimc.report.jsontext import JsonObject
from cimc.report.mapping_file import Work, capacity_of, read_mapping, work_of
from cimc.rows import Rows
from cimc.sim.interpreter import run
from cimc.sim.kept import Kept
from cimc.sim.memory import State
from cimc.sim.params import bind
from cimc.sim.result import RunResult
from cimc.sim.tally import Samples
from cimc.sim.values import Analog, Numerics, Prepared
from cimc.study import calibration as calibration_runs

Array = NDArray[np.generic]


@dataclass(frozen=True)
class NodeArg:
    """An input or output: its name, NumPy type's name and shape, in which extents that follow a parameter of the program are
    texts, as ``"past_sequence+1"``."""

    name: str
    type: str
    shape: tuple[int | str, ...]


class InferenceSession:
    """Runs a program in one of the numerics. ``program``: a :class:`~cimc.compiler.Compiled`, or the path of a folder that
    ``cimc compile`` wrote or of a ``.cim`` file. ``timing`` off leaves the report without cycles and energy.

    For analog numerics: ``device``, settings as of ``--device`` (``"drift=off"``), ``technology`` and ``time`` since
    programming (seconds, or a text as ``"1d"``) in place of the hardware's, ``rate`` inferences a second for the years until
    cells wear out. ADC ranges that are calibrated are fitted to ``calibration`` (arrays of the inputs' shapes, or several
    runs along a first axis, as ``--calibration``), else to the inputs of the first run. Cells are programmed in the first run
    and kept for the next ones. States of the program, KV caches in tiles among them, stay from run to run. Raises
    ANALOG_CONFIG naming the key that is wrong, and for calibration data what wrong inputs raise."""

    def __init__(
        self,
        program: Compiled | Path | str,
        numerics: Numerics = "float",
        seed: int = 0,
        *,
        timing: bool = True,
        device: Sequence[str] = (),
        technology: str | None = None,
        time: float | str | None = None,
        rate: float = 1.0,
        calibration: Mapping[str, Array] | None = None,
    ) -> None:
        one_of("numerics", numerics, get_args(Numerics))
        self._numerics: Numerics = numerics
        self._seed = seed
        self._timing = timing
        self._open(program)
        self._result: RunResult | None = None
        self._samples: Samples | None = None
        self._cells = Kept(most=1 << 40)  # whatever a run holds, the next one may
        self._prepared = Prepared()
        self._state: State = {}
        self._rows = Rows(self._program)
        self._params: Mapping[str, int] = {}
        self._device = _device(numerics, self._chip, device, technology, time)
        self._rate = checked_rate(rate)
        device_calibrates(self._device, calibration is not None, "calibration")
        if calibration is not None:
            self._calibrate(calibration)

    def _open(self, program: Compiled | Path | str) -> None:
        """Take the program, its weights and chip, and what the compile told beside them, if anything. Raises what reading a
        folder or a file raises, and what the verifier finds."""
        if isinstance(program, Compiled):
            self._program: Program = program.program
            self._weights: Weights = program.weights
            self._chip: ChipSpec = program.hardware.spec
            self._mapping: Mapping[str, object] | Path | None = program.mapping
        else:
            found = bundle.read(Path(program))
            self._program, self._weights, self._chip = found.program, found.weights, found.hardware.spec
            self._mapping = found.folder / bundle.MAPPING if found.folder else None
        verify(self._program, self._chip, self._weights)

    def _calibrate(self, given: Mapping[str, Array]) -> None:
        """Fit the converters' ranges to runs that are given; parameters they do not tell are at their greatest."""
        told = inputs.lengths(self._program, given)
        longest = {p.name: p.high for p in self._program.params} | told
        types = inputs.types(self._program, longest)
        self._samples = self._fitted(longest, *inputs.calibration(types, given))

    def get_inputs(self) -> list[NodeArg]:
        """The program's inputs."""
        return [self._told(port) for port in self._program.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The program's outputs."""
        return [self._told(port) for port in self._program.outputs]

    def _told(self, port: Port) -> NodeArg:
        buffer = next(b for b in self._program.globals if b.name == port.buffer)
        extents = buffer.shape if port.shape is None else port.shape
        shape = tuple(e if isinstance(e, int) else affine_text(e) for e in extents)
        return NodeArg(port.name, str(buffer.element.dtype(exact=False)), shape)

    def run(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Array],
        params: Mapping[str, int] | None = None,
    ) -> list[Array]:
        """Outputs by the names asked for (None: all, in order). ``params``: the program's parameters, as far as the shapes of
        ``feeds`` do not tell them. KV caches that stay in tiles may be left out of ``feeds`` after a run that left as many rows
        there. Raises CimcError for inputs, parameters or names that do not fit."""
        known = [p.name for p in self._program.outputs]
        for name in output_names or ():
            if name not in known:
                raise errors.OUTPUT_UNKNOWN(name=name, near=did_you_mean(name, known), known=", ".join(known))
        bound = bind(self._program, {**inputs.lengths(self._program, feeds), **(params or {})})
        types = inputs.types(self._program, bound)
        checked = inputs.check(types, feeds, self._rows.kept(types, feeds))
        self._result = run(
            self._program,
            self._weights,
            self._chip,
            inputs=checked,
            numerics=self._numerics,
            seed=self._seed,
            timing=self._timing,
            params=bound,
            state=self._state,
            verified=True,
            analog=Analog(self._device, samples=self._calibration(checked, bound), kept=self._cells),
            prepared=self._prepared,
        )
        assert self._result.outputs is not None
        self._params = bound
        self._rows.ran(inputs.output_types(self._program, bound))
        return [self._result.outputs[name] for name in output_names or known]

    def _calibration(self, feeds: Mapping[str, Array], params: Mapping[str, int]) -> Samples | None:
        """What ADC ranges are fitted to, where they are: the calibration data, else the first inputs."""
        if self._device is None or not self._device.calibrated:
            return None
        if self._samples is None:
            self._samples = self._fitted(params, feeds)
        return self._samples

    def _fitted(self, params: Mapping[str, int], *runs: Mapping[str, Array]) -> Samples:
        return calibration_runs(self._program, self._weights, self._chip, *runs, params=params, state=self._state)

    @property
    def stepped(self) -> str:
        """Why later runs take as long as the first: what keeps this program, or these numerics, from being recorded in the
        second run and replayed. Empty if nothing does, and before the second run where only that finds out."""
        return self._prepared.stepped

    @property
    def report(self) -> RunFigures | None:
        """Cycles, energy, traffic ... of the last run; None before the first."""
        if self._result is None:
            return None
        return run_figures(
            self._result, self._program, self._chip, Known(self._work, self._capacity), 1.0, self._params
        )

    @property
    def device_report(self) -> JsonObject | None:
        """Conversions, cells, wear and repairs of the last run: the object ``device`` of ``run --json``; None before the
        first, and in numerics other than analog."""
        if self._result is None or self._device is None:
            return None
        return device_cost.cost(self._program, self._chip, self._device, self._result, self._rate).to_json()

    @cached_property
    def _capacity(self) -> int | None:
        """Tokens of KV caches for which the chip has room, as far as the compile tells."""
        if self._mapping is None:
            return None
        if isinstance(self._mapping, Path):
            return read_mapping(self._mapping).capacity_tokens
        return capacity_of(self._mapping)

    @cached_property
    def _work(self) -> Work | None:
        """What the model multiplies: read when a report is asked for, from the folder the program came from."""
        if self._mapping is None:
            return None
        return read_mapping(self._mapping).work if isinstance(self._mapping, Path) else work_of(self._mapping)


def _device(
    numerics: Numerics, chip: ChipSpec, settings: Sequence[str], technology: str | None, time: float | str | None
) -> Device | None:
    """What of the device analog numerics run with; None for others. Raises ANALOG_CONFIG for settings that others do not
    have."""
    if numerics == "analog":
        return Device.of(chip, settings, technology, duration(time, "time") if isinstance(time, str) else time)
    if settings or technology is not None or time is not None:
        fix = "device, technology and time need numerics='analog'"
        raise refuse("numerics", f"'{numerics}' has no device", fix)
    return None
