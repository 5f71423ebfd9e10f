"""The graphs of an export for Qualcomm's HTP: each form made, and held to PyTorch as the emulator computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto
from torch import nn

from hiresvit.bundle.stages import EMULATED, HTP
from hiresvit.calibration.table import CalibrationTable
from hiresvit.errors import UsageError
from hiresvit.evaluation.parity import GATES, Gate
from hiresvit.models.zoo import has_queries
from hiresvit.progress import OnStep
from hiresvit.spec import HtpForm, ModelSpec
from hiresvit.workflows.emulate import Emulate, Network, emulate, small_network, small_spec, why_not
from hiresvit.workflows.htp import HtpSettings, make_htp, tensors_for_htp
from hiresvit.workflows.quantize import check_sources

MIN_OPSET = 20
"""From here on a GELU is one operator, which the compiler takes in integers, too."""
# What trained weights reach in the emulator: FP16 55.9 dB and more on our own, and all but near-ties is equal.
_TRAINED: Mapping[HtpForm, Gate] = {"fp16": Gate(55.0, 0.99999, 0.995), "a16w8": Gate(30.0, 0.999, 0.98)}


@dataclass(frozen=True)
class HtpOrder:
    """What is asked for: each form for its chip, and at which size it is emulated."""

    forms: tuple[HtpSettings, ...]
    emulate: Emulate = "small"

    @property
    def quantized(self) -> tuple[HtpSettings, ...]:
        """The forms that are calibrated."""
        return tuple(one for one in self.forms if one.form != "fp16")


def check_order(order: HtpOrder, spec: ModelSpec, *, opset: int, dynamic_batch: bool, contract: str) -> None:
    """Raise UsageError on what cannot be made, and HiresvitError on pictures that cannot be read."""
    if dynamic_batch:
        raise UsageError("--dynamic-batch with --htp: its compiler takes static shapes only; leave one out")
    if opset < MIN_OPSET:
        raise UsageError(f"--opset {opset} with --htp: a GELU is one operator from {MIN_OPSET} on; leave it out")
    # Measured: a Cast of uint8 to FP32 makes 1 of all but 0 there, without a word, and integers need Q/DQ on a frame.
    if contract != "tensor":
        raise UsageError(
            f"--contract {contract} with --htp: Qualcomm's compiler makes something else of pixels in uint8; leave it"
            " out, and prepare the picture on the device's CPU"
        )
    for one in order.forms:
        if one.form == "fp16" and not one.chip.fp16:
            raise UsageError(f"--htp fp16 for {one.chip}, which takes integers only: make a16w8, or a8w8")
    for one in order.quantized[:1]:
        if has_queries(spec):
            raise UsageError(
                f"--htp {one.form} of {spec.name}: the signs of its masks and the places of its points are not for"
                " integers; make --htp fp16, for a chip that has floating point"
            )
        check_sources(one, spec)


def tensors_of(order: HtpOrder, simple: ModelProto) -> list[str]:
    """What the forms need ranges of."""
    forms = tuple(one.form for one in order.quantized)
    return tensors_for_htp(simple, forms, order.quantized[0].chip) if forms else []


def make_forms(
    order: HtpOrder,
    simple: ModelProto,
    spec: ModelSpec,
    save: Callable[[str, ModelProto], None],
    *,
    prove: bool,
    table: CalibrationTable | None,
    state: Path,
    on_step: OnStep,
) -> tuple[dict[str, Any], CalibrationTable | None]:
    """Make each form and save it by its stage; returns the reports by form, and the ranges that all were made from."""
    reports: dict[str, Any] = {}
    # 8 bits first: their ranges are cut where that pays, and serve 16 bits as well.
    for one in sorted(order.forms, key=lambda one: one.form == "a16w8"):
        on_step(HTP[one.form], None)
        made = make_htp(simple, spec, replace(one, prove=prove), table=table, state=state, on_step=on_step)
        table = made.table or table
        save(HTP[one.form], made.graph)
        chip = asdict(one.chip)
        known = {name: chip[name] for name in ("name", "title", "part", "soc_model", "arch")}
        reports[one.form] = {**made.report, "chip": known, "emulated": None, "refused": []}
    return reports, table


def emulate_forms(
    order: HtpOrder,
    model: nn.Module,
    own: Network,
    reports: dict[str, Any],
    *,
    gates: Mapping[str, Gate],
    trained: bool,
    on_step: OnStep,
    **exporting: Any,
) -> list[str]:
    """Add to each report what the emulator makes of its form, at the size that was asked for; returns notes.

    ``own`` is the network of the export, ``model`` that in PyTorch before it is folded, ``exporting`` how its graphs
    are exported. Raises GateError at the first form that is too far from PyTorch.
    """
    if order.emulate == "none":
        return ["the graphs for the HTP were neither compiled nor emulated: --emulate none"]
    if why := why_not():
        return [f"the graphs for the HTP were neither compiled nor emulated: {why}"]
    spec = small_spec(own.spec) if order.emulate == "small" else own.spec
    notes = []
    with ExitStack() as stack:
        network = own
        if spec != own.spec:
            again = [_again(one, reports[one.form]) for one in order.forms]
            network = stack.enter_context(small_network(model, spec, again, on_step=on_step, **exporting))
        for one in order.forms:
            gate = _gate(one.form, gates, trained)
            found = emulate(network, one.form, one.chip, gate, on_step)
            reports[one.form] |= found
            if refused := found["refused"]:
                notes.append(
                    f"{HTP[one.form]} was not emulated: {_listed(refused)} would not run on the HTP of {one.chip}"
                )
    return notes


def _again(one: HtpSettings, report: Mapping[str, Any]) -> HtpSettings:
    """What makes the same form of another size: what the search has found, and no search."""
    return replace(one, keep=tuple(report.get("wide", ())), max_drop=None, table=None, prove=False)


def _gate(form: HtpForm, gates: Mapping[str, Gate], trained: bool) -> Gate:
    """Trained weights are held to more, where nothing else was asked for."""
    stage = EMULATED[form]
    gate = gates.get(stage, GATES[stage])
    return _TRAINED.get(form, gate) if trained and gate == GATES[stage] else gate


def _listed(refused: Sequence[Mapping[str, Any]]) -> str:
    names = [f"{row['op']} of {row['module'] or row['node']}" for row in refused[:3]]
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    return ", ".join(names) + more
