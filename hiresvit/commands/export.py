"""`hiresvit export`: from a checkpoint to a verified bundle."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hiresvit.bundle.stages import EMULATED, EXACT, HTP
from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.htp_options import HtpOptions
from hiresvit.commands.limit_options import LimitOptions
from hiresvit.errors import UsageError
from hiresvit.spec import HTP_FORMS, ContractSpec, LabelType, Pixels, Yuv, is_raw

if TYPE_CHECKING:
    from hiresvit.evaluation.parity import Gate
    from hiresvit.models.create import Asked
    from hiresvit.workflows.export_settings import ExportSettings
    from hiresvit.workflows.htp_export import HtpOrder
    from hiresvit.workflows.quantize import Int8Settings


@dataclass(frozen=True)
class PrecisionOptions(HtpOptions):
    """What is made beside the FP32 graphs, and from which weights."""

    seed: Annotated[int | None, typer.Option(min=0, help="Draw fresh weights from another seed.")] = None
    fp16: Annotated[bool, typer.Option("--fp16", help="Make the FP16 graph and, from it, the plan.")] = False
    io: Annotated[Literal["fp32", "fp16"], typer.Option(help="Types at the FP16 graph's ends.")] = "fp32"
    int8: Annotated[bool, typer.Option("--int8", help="Make the FP16 graph and the INT8 graph.")] = False


@dataclass(frozen=True)
class ContractOptions:
    """What goes into the graphs and what comes out."""

    contract: Annotated[
        str,
        typer.Option(
            "--contract",
            metavar="tensor|image|camera HxW",
            help="Normalised tensor and logits (default), or pixels and labels: of the network's or a camera's size.",
        ),
    ] = "tensor"
    pixels: Annotated[Pixels | None, typer.Option("--input", help="Layout of the pixels; default: rgb.")] = None
    yuv: Annotated[Yuv | None, typer.Option("--yuv", help="Colours of nv12; default: bt709, limited range.")] = None
    label_type: Annotated[
        LabelType | None, typer.Option("--label-type", help="Default: uint8, and int32 for classes of a classifier.")
    ] = None
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also a map of the winning probability, as uint8.")
    ] = False
    top_k: Annotated[int | None, typer.Option("--top-k", metavar="K", min=1, help="Best classes; default: 5.")] = None

    def spec(self) -> ContractSpec:
        """What they ask for. Raises UsageError for a text that is none, and for options without pixels."""
        found = parse_contract(self.contract)
        asked = {"input": self.pixels, "yuv": self.yuv, "label_type": self.label_type, "top_k": self.top_k}
        given = [name for name, value in asked.items() if value is not None] + ["confidence"] * self.confidence
        if found.name == "tensor" and given:
            names = ", ".join(map(opt.option_name, given))
            raise UsageError(f"{names}: for --contract image or camera HxW; a tensor goes in here and logits come out")
        return replace(
            found,
            pixels=self.pixels or found.pixels,
            yuv=self.yuv,
            label_type=self.label_type,
            confidence=self.confidence,
            top_k=self.top_k,
        )


def parse_contract(text: str) -> ContractSpec:
    """``tensor``, ``image`` or ``camera:1080x1920``. Raises UsageError for anything else."""
    name, _, size = text.strip().replace(" ", ":", 1).partition(":")
    sides = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", size.strip(), re.ASCII)
    if name == "camera" and sides:
        return ContractSpec("camera", size=(int(sides[1]), int(sides[2])))
    if name == "camera":
        raise UsageError(f"--contract {text}: give the camera's size, HEIGHTxWIDTH, as camera 1080x1920")
    if name == "image" and not size:
        return ContractSpec("image")
    if name != "tensor" or size:
        raise UsageError(f"--contract {text}: one of tensor, image and camera HxW such as camera 1080x1920")
    return ContractSpec()


@dataclass(frozen=True)
class GraphOptions(ContractOptions):
    """What the graphs are like besides, and what is done with them."""

    opset: Annotated[int, typer.Option(help="ONNX operator set, 17 to 22.")] = 20
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the batch open.")] = False
    logits: Annotated[
        Literal["image", "head"] | None,
        typer.Option(help="Segmentation at the image's size (default) or the head's stride."),
    ] = None
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Do not build a plan.")] = False
    images: Annotated[int, typer.Option(min=1, help="Pictures to compare every stage on.")] = 4


@dataclass(frozen=True)
class BundleOptions:
    """What is measured and where it goes."""

    no_latency: Annotated[bool, typer.Option("--no-latency", help="Do not measure latency.")] = False
    threads: opt.Threads = None
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: ./MODEL-TASK-HxW", readable=False)] = (
        None
    )
    classes: opt.Classes = None
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False
    as_json: opt.Json = False


@opt.grouped
def export(
    context: typer.Context,
    name: opt.Model,
    *,
    model: opt.ModelOptions,
    precision: PrecisionOptions,
    calibration: opt.CalibrationOptions,
    graphs: GraphOptions,
    limits: LimitOptions,
    bundle: BundleOptions,
) -> None:
    """Turn a checkpoint into a verified bundle.

    The bundle holds the graphs and the plan, how far each graph is from PyTorch and how fast it is. A
    checkpoint's file alone says which model it is of. Without --weights a model has fresh ones, good for a trial.

    A limit (--min-...) holds for every stage, or as STAGE=VALUE for one: onnx, simplified, cpu, fp16, int8,
    htp_fp16, htp_a16w8, htp_a8w8, fp16 exact, htp_fp16 emulated, htp_a16w8 emulated or htp_a8w8 emulated.
    """
    began = time.monotonic()
    order = _order(precision, calibration, bundle.threads)
    int8 = calibration.settings(bundle.threads) if precision.int8 else None
    if precision.seed is not None and model.weights is not None:
        raise UsageError(f"--seed draws fresh weights: leave it out with those of {model.weights}")
    given, contract = model.given(), graphs.spec()
    fp16 = precision.fp16 or precision.int8
    absent = {"fp16": not fp16, EXACT: not fp16, "int8": not precision.int8, "cpu": graphs.dynamic_batch}
    absent |= {stages[form]: form not in precision.forms for stages in (HTP, EMULATED) for form in HTP_FORMS}
    gates = limits.gates(without=[stage for stage, missing in absent.items() if missing])

    out.load_onnxruntime()
    from hiresvit.models.create import find_spec
    from hiresvit.workflows.export import export_bundle

    asked = find_spec(name, **given)
    spec = asked.spec
    if precision.seed is not None and asked.weights is not None:
        raise UsageError(f"--seed draws fresh weights: leave it out with those of {asked.weights}")
    if graphs.logits and spec.task != "segment":
        raise UsageError(f"--logits {graphs.logits} is about segmentation; the task is {spec.task}")
    chosen = _settings(asked, model, precision=precision, int8=int8, graphs=graphs, gates=gates, bundle=bundle)
    chosen = replace(chosen, contract=contract, htp=order)
    command = ["hiresvit", *context.obj]
    with out.progress() as on_step:
        made = export_bundle(spec, bundle.output or Path(spec.slug), chosen, command=command, on_step=on_step)
    _answer(bundle.as_json, made.folder, made.manifest.to_json(), time.monotonic() - began)


def _order(precision: PrecisionOptions, calibration: opt.CalibrationOptions, threads: int | None) -> HtpOrder | None:
    """What is asked for an HTP. Raises UsageError for options of a calibration that nothing asked for reads."""
    if not precision.int8 and not precision.quantized:
        calibration.refuse("--int8 or --htp in integers")
    if not precision.int8:
        calibration.refuse("--int8", "int8_attention", "int8_residual", "int8_lean")
        if "a8w8" not in precision.forms:
            calibration.refuse("--int8 or --htp a8w8", "max_drop")
    return precision.order(calibration, threads)


def _settings(
    asked: Asked,
    model: opt.ModelOptions,
    *,
    precision: PrecisionOptions,
    int8: Int8Settings | None,
    graphs: GraphOptions,
    gates: dict[str, Gate],
    bundle: BundleOptions,
) -> ExportSettings:
    """What the options ask of the workflow. Raises as `read_classes` does."""
    from hiresvit.data.labels import read_classes
    from hiresvit.workflows.export_settings import ExportSettings

    return ExportSettings(
        weights=asked.weights,
        ema=model.ema,
        entry=model.entry,
        allow_missing_head=model.allow_missing is not None,
        seed=precision.seed or 0,
        fp16=precision.fp16 or precision.int8,
        int8=int8,
        io=precision.io,
        opset=graphs.opset,
        dynamic_batch=graphs.dynamic_batch,
        resize=graphs.logits != "head",
        plan=not graphs.no_plan,
        images=graphs.images,
        latency=not bundle.no_latency,
        threads=bundle.threads,
        gates=gates,
        labels=read_classes(bundle.classes, asked.spec.num_classes) if bundle.classes else None,
        notes=asked.notes,
        force=bundle.force,
    )


def _answer(as_json: bool, folder: Path, manifest: dict[str, Any], seconds: float) -> None:
    from hiresvit.report.results import export_report
    from hiresvit.report.tables import size_text

    size = sum(entry["bytes"] for entry in manifest["files"])
    wrote = f"\nwrote {folder}: {len(manifest['files'])} files, {size_text(size)}, in {seconds:.1f} s"
    place = shlex.quote(str(folder))
    task = manifest["spec"]["task"]
    following = f"bench {place}" if is_raw(task) and task != "detect" else f"run {place} PHOTO.jpg"
    items = [*export_report(manifest), wrote, f"next: hiresvit {following}"]
    found = {"bundle": str(folder), "bytes": size, "seconds": seconds, "manifest": manifest}
    out.answer(as_json, found, items)
