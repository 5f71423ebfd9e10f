"""From an FP32 graph and pictures to a graph for Qualcomm's HTP that is as accurate as was asked, and the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from onnx import ModelProto

from hiresvit.calibration.htp_audit import check_htp
from hiresvit.calibration.htp_plan import Bits
from hiresvit.calibration.htp_qdq import HtpQdqReport, htp_groups, htp_tensors, quantize_htp
from hiresvit.calibration.observers import Method
from hiresvit.calibration.sensitivity import Group
from hiresvit.calibration.table import CalibrationTable
from hiresvit.data.pictures import Feeds
from hiresvit.device.chips import DEFAULT_INTEGER, Chip
from hiresvit.errors import ArtefactError
from hiresvit.export.htp import for_htp
from hiresvit.progress import OnStep, silent
from hiresvit.spec import HtpForm, ModelSpec
from hiresvit.workflows.quantize import (
    CalibrationSettings,
    calibration_json,
    check_calibration,
    ranges_for,
    searched,
    split_for,
)
from hiresvit.workflows.yardstick import Yardstick


@dataclass(frozen=True)
class HtpSettings(CalibrationSettings):
    """What can be chosen about a graph for the HTP of ``chip``: see `CalibrationSettings`, which ``fp16`` reads
    nothing of. ``max_drop`` is for ``a8w8``: which modules compute with 16 bits instead; ``keep`` are such modules that
    are known, and not searched for.
    """

    form: HtpForm = "a16w8"
    chip: Chip = DEFAULT_INTEGER
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class HtpResult:
    """The graph, the ranges it was made from (None in FP16), and a report as plain JSON values.

    ``proof`` are the pictures that its accuracy was measured on, None where it was not.
    """

    graph: ModelProto
    table: CalibrationTable | None
    report: dict[str, Any]
    proof: Yardstick | None = None


@dataclass(frozen=True)
class HtpMaker:
    """Makes graphs of one form for one chip from one calibration; ``ready`` is what Q/DQ is written into."""

    simple: ModelProto
    ready: ModelProto
    form: HtpForm
    chip: Chip
    table: CalibrationTable
    stays = "16 bits"

    @cached_property
    def groups(self) -> list[Group]:
        """The modules that can have 8 or 16 bits; where 16 is the form there is no choice."""
        return htp_groups(self.ready) if self.form == "a8w8" else []

    @property
    def name(self) -> str:
        """Of what is made."""
        return self.form

    @cached_property
    def references(self) -> dict[str, ModelProto]:
        """What the result is compared with: FP32, and what has 16 bits throughout where the form has 8."""
        return {"fp32": self.simple} | ({"a16w8": self.make(Bits(16))[0]} if self.form == "a8w8" else {})

    def alone(self, modules: frozenset[str]) -> ModelProto:
        """With exactly these modules in 8 bits."""
        return self.make(Bits(16, modules))[0]

    def together(self, kept: tuple[str, ...]) -> tuple[ModelProto, HtpQdqReport]:
        """The form, with 16 bits in the modules ``kept``. Raises GateError on a pair that is not as its range asks."""
        return self.make(Bits(8, frozenset(kept)) if self.form == "a8w8" else Bits(16))

    def make(self, bits: Bits) -> tuple[ModelProto, HtpQdqReport]:
        """With any bits, held to its ranges and to the forms that the HTP takes."""
        ranges, cuts = self.table.ranges, self.table.amax
        graph, made = quantize_htp(self.ready, ranges, bits, self.chip, cuts=cuts)
        check_htp(graph, self.ready, ranges, cuts, self.chip)
        return graph, made


def tensors_for_htp(simple: ModelProto, forms: Sequence[HtpForm], chip: Chip) -> list[str]:
    """The tensors of a simplified FP32 graph that a table needs for these forms: what `make_int8` is to measure, too.

    Empty if ``fp16`` is the only form.
    """
    found = {name: None for form in forms if form != "fp16" for name in htp_tensors(for_htp(simple, form, chip)[0])}
    return list(found)


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
    `tensors_for_htp`, or another form); without it, or with one of another method that 8 bits cannot use, they are
    measured here, or read from ``settings.table``. ``state`` is where an interrupted calibration goes on from. Accuracy
    is that of ONNX Runtime's CPU, from which the emulator differs by single steps of a range: 72 dB in 16 bits and 34
    in 8 for HRViT-nano (measured).

    Raises UsageError on settings that cannot be served, such as ``fp16`` on a chip of integers only, ArtefactError on
    a table without ranges, and what `make_int8` raises.
    """
    form, chip = settings.form, settings.chip
    ready, changes = for_htp(simple, form, chip)
    report: dict[str, Any] = {"form": form, "chip": chip.name, "changes": changes.to_json()}
    if form == "fp16":
        return HtpResult(ready, None, report)
    check_calibration(settings, spec)
    split = split_for(settings, spec, on_step)
    feeds = Feeds(split.calib, spec, simple.graph.input[0].name)
    # 16 bits keep all of a range, so that one pass is enough. Ranges of that pass alone have no cuts for 8 bits.
    method: Method = "minmax" if form == "a16w8" else settings.method
    usable = table is not None and (form == "a16w8" or table.method == settings.method)
    if table is None or not (usable or settings.table):
        tensors = tensors_for_htp(simple, (form,), chip)
        table = ranges_for(simple, tensors, feeds, settings, method, state=state, on_step=on_step)
    if not table.ranges:
        raise ArtefactError("the calibration table has magnitudes only, as version 1 had: calibrate again for the HTP")
    maker = HtpMaker(simple, ready, form, chip, table)
    found = searched(maker, split, feeds, settings, on_step)
    kept = found.kept or settings.keep
    graph, made = maker.together(kept)
    report |= {"calibration": calibration_json(table, split.calib, settings.images)} | found.report
    report |= {"wide": list(kept), "quantize": made.to_json()}
    return HtpResult(graph, table, report, found.proven)
