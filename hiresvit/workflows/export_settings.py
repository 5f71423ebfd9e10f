"""What can be chosen about an export, and which choices exclude each other, said before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hiresvit.calibration.qdq import MIN_OPSET
from hiresvit.data.dataset import Labels
from hiresvit.errors import UsageError
from hiresvit.evaluation.parity import GATES, Gate
from hiresvit.export.contract import TENSOR, complete
from hiresvit.export.onnx import DEFAULT_OPSET, check_opset
from hiresvit.spec import ContractSpec, ModelSpec
from hiresvit.workflows.htp_export import HtpOrder, check_order
from hiresvit.workflows.quantize import Int8Settings, check_sources


@dataclass(frozen=True)
class ExportSettings:
    """What can be chosen about an export beside the model itself.

    ``io`` is the type of the FP16 graph's inputs and outputs; ``resize`` off leaves segmentation logits at the
    head's stride; ``images`` are compared at every stage; ``gates`` are limits by stage, where they are not
    those of `GATES`. ``contract`` is put around every graph, and may leave open what `complete` fills in.
    ``labels`` are the classes' names where they are not the checkpoint's own, ``notes`` what is to be said beside the
    export's own.
    """

    weights: Path | None = None
    ema: bool = False
    entry: str | None = None
    allow_missing_head: bool = False
    seed: int = 0
    fp16: bool = False
    int8: Int8Settings | None = None
    htp: HtpOrder | None = None
    io: Literal["fp32", "fp16"] = "fp32"
    opset: int = DEFAULT_OPSET
    dynamic_batch: bool = False
    resize: bool = True
    contract: ContractSpec = TENSOR
    plan: bool = True
    images: int = 4
    latency: bool = True
    threads: int | None = None
    gates: Mapping[str, Gate] = field(default_factory=lambda: GATES)
    labels: Labels | None = None
    notes: tuple[str, ...] = ()
    force: bool = False


def check_settings(settings: ExportSettings, spec: ModelSpec) -> ContractSpec:
    """The contract, all of it filled in. Raises UsageError on settings that exclude each other."""
    check_opset(settings.opset)
    contract = complete(spec, settings.contract)
    if contract != TENSOR and settings.io != "fp32":
        raise UsageError(f"--io fp16 with --contract {contract.name}: no tensor goes in; leave it out")
    if contract != TENSOR and not settings.resize:
        raise UsageError(f"--logits head with --contract {contract.name}: labels come out, no logits; leave it out")
    if settings.int8 is not None:
        if not settings.fp16:
            raise UsageError("INT8 is written into the FP16 graph: add --fp16")
        if settings.opset < MIN_OPSET:
            raise UsageError(f"--opset {settings.opset} with --int8: FP16 scales need {MIN_OPSET} or later")
        check_sources(settings.int8, spec)
    if settings.htp is not None:
        batch = settings.dynamic_batch
        check_order(settings.htp, spec, opset=settings.opset, dynamic_batch=batch, contract=contract.name)
    if settings.io == "fp16" and not settings.fp16:
        raise UsageError("io fp16 is about the FP16 graph: add --fp16")
    if settings.images < 1:
        raise UsageError(f"{settings.images} parity images: give at least 1; every export is compared with PyTorch")
    if settings.threads is not None and settings.threads < 1:
        raise UsageError(f"{settings.threads} threads: give at least 1")
    if settings.ema and settings.weights is None:
        raise UsageError("--ema chooses among the weights of a checkpoint: give one with --weights")
    if settings.entry is not None and settings.weights is None:
        raise UsageError("--entry chooses among the weights of a checkpoint: give one with --weights")
    if settings.allow_missing_head and settings.weights is None:
        raise UsageError("--allow-missing head is about a checkpoint: give one with --weights")
    return contract
