"""From an FP32 graph and pictures to a graph for Qualcomm's HTP that is as accurate as was asked, and the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from hiresvit.calibration.table import CalibrationTable
from hiresvit.device.chips import DEFAULT_INTEGER, Chip
from hiresvit.progress import OnStep, silent
from hiresvit.spec import HtpForm, ModelSpec
from hiresvit.workflows.quantize import CalibrationSettings
from hiresvit.workflows.yardstick import Yardstick


@dataclass(frozen=True)
class HtpSettings(CalibrationSettings):
    """What can be chosen about a graph for the HTP of ``chip``: see `CalibrationSettings`, which ``fp16`` reads
    nothing of. ``max_drop`` is for ``a8w8``: which modules compute with 16 bits instead.
    """

    form: HtpForm = "a16w8"
    chip: Chip = DEFAULT_INTEGER


@dataclass(frozen=True, eq=False)
class HtpResult:
    """The graph, the ranges it was made from (None in FP16), and a report as plain JSON values.

    ``proof`` are the pictures that its accuracy was measured on, None where it was not.
    """

    graph: ModelProto
    table: CalibrationTable | None
    report: dict[str, Any]
    proof: Yardstick | None = None


def tensors_for_htp(simple: ModelProto, forms: tuple[HtpForm, ...], chip: Chip) -> list[str]:
    """The tensors of a simplified FP32 graph that a table needs for these forms: what `make_int8` is to measure, too.

    Empty if ``fp16`` is the only form.
    """
    raise NotImplementedError


def make_htp(
    simple: ModelProto,
    spec: ModelSpec,
    settings: HtpSettings,
    *,
    table: CalibrationTable | None = None,
    state: Path | None = None,
    on_step: OnStep = silent,
) -> HtpResult:
    """Make the simplified FP32 graph one for the HTP, in the form that the settings say.

    ``table`` are ranges that this run has measured already, on the same pictures (`make_int8` with
    `tensors_for_htp`, or another form); without it they are measured here, or read from ``settings.table``. ``state``
    is where an interrupted calibration goes on from. Raises UsageError on settings that cannot be served, such as
    ``fp16`` on a chip of integers only, and what `make_int8` raises.
    """
    raise NotImplementedError
