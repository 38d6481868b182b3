"""The ``device`` section of a hardware file: which of the cells' and converters' imperfections a run models.

Every key may be left out; :mod:`cimc.device` fills in what is then meant and checks it against the technology.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Ohms = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Celsius = Annotated[float, Field(gt=-273.15, le=300, allow_inf_nan=False)]
AdcRange = Literal["fixed", "full", "calibrated", "calibrated_slice"]
Compensation = Literal["none", "global", "column"]
Remap = Literal["none", "rows", "columns", "both"]


class DeviceSpec(BaseModel):
    """Switches and numbers of the device model, all optional; docs/device.md says what each does."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    technology: str | None = None  # in place of the chip's
    programming: bool | None = None
    drift: bool | None = None
    read_noise: bool | None = None
    faults: bool | None = None
    on_off: bool | None = None
    ir_drop: bool | None = None
    adc: bool | None = None
    seconds: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None  # since programming
    write_verify: Annotated[int, Field(ge=1, le=1000)] | None = None  # programming attempts, the closest is kept
    stuck_off_rate: Share | None = None
    stuck_on_rate: Share | None = None
    stuck_map: Annotated[str, Field(min_length=1, max_length=4096)] | None = None  # an .npz of measured faults
    remap: Remap | None = None  # rows and columns placed around the faults
    wire_ohm: Ohms | None = None  # one segment of a row's and of a column's wire
    adc_range: AdcRange | None = None
    adc_coverage: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    adc_gain: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    adc_offset_lsb: Number | None = None
    adc_inl_lsb: Number | None = None
    adc_noise_lsb: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    read_mode: Literal["cell", "conversion"] | None = None
    drift_compensation: Compensation | None = None
    calibration_age: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None  # seconds
    calibration_interval: Annotated[int, Field(ge=1, le=10**12)] | None = None  # inferences
    sigma: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None  # a model's own number
    acceptance: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None  # a model's own number
    temperature: bool | None = None
    temperature_c: Celsius | None = None  # since programming
