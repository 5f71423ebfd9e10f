"""The commands that make something: `export` a bundle, `calibrate` an INT8 graph, `convert` a file of our own."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import UsageError


def export(
    context: typer.Context,
    model: opt.Model,
    *,
    weights: opt.Weights = None,
    ema: opt.Ema = False,
    allow_missing: opt.AllowMissing = None,
    task: opt.TaskOption = None,
    imgsz: opt.Imgsz = None,
    num_classes: opt.Classes = None,
    settings: opt.Settings = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Draw fresh weights from another seed.")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Make the FP16 graph and, from it, the plan.")] = False,
    io: Annotated[Literal["fp32", "fp16"], typer.Option(help="Types at the FP16 graph's ends.")] = "fp32",
    int8: Annotated[bool, typer.Option("--int8", help="Make the FP16 graph and the INT8 graph.")] = False,
    calib: opt.Calib = None,
    method: opt.CalibMethod = None,
    calib_images: opt.CalibImages = None,
    calib_seed: opt.CalibSeed = None,
    calib_memory: opt.CalibMemory = None,
    calib_table: opt.CalibTable = None,
    max_drop: opt.MaxDrop = None,
    int8_attention: opt.Int8Attention = None,
    int8_residual: opt.Int8Residual = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set, 17 to 22.")] = 20,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Leave the batch open.")] = False,
    logits: Annotated[
        Literal["image", "head"] | None,
        typer.Option(help="Segmentation at the image's size (default) or the head's stride."),
    ] = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Do not build a plan.")] = False,
    images: Annotated[int, typer.Option(min=1, help="Pictures to compare every stage on.")] = 4,
    min_sqnr: opt.MinSqnr = None,
    min_cosine: opt.MinCosine = None,
    min_agreement: opt.MinAgreement = None,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Do not measure latency.")] = False,
    threads: opt.Threads = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: ./MODEL-TASK-HxW")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Turn a checkpoint into a verified bundle.

    The bundle holds the graphs and the plan, how far each graph is from PyTorch and how fast it is. Without
    --weights the model has fresh ones, good for a trial.

    A limit (--min-...) holds for every stage, or as STAGE=VALUE for one: onnx, simplified, cpu, fp16 or
    int8.
    """
    began = time.monotonic()
    calibration = opt.int8_settings(
        int8,
        calib,
        threads,
        method=method,
        images=calib_images,
        seed=calib_seed,
        memory=calib_memory,
        table=calib_table,
        max_drop=max_drop,
        attention=int8_attention,
        residual=int8_residual,
    )
    if seed is not None and weights is not None:
        raise UsageError("--seed draws fresh weights: leave it out with --weights")
    size, overrides = opt.parse_imgsz(imgsz), opt.parse_settings(settings)
    absent = {"fp16": not (fp16 or int8), "int8": not int8, "cpu": dynamic_batch}
    without = [stage for stage, missing in absent.items() if missing]
    gates = opt.parse_gates(min_sqnr, min_cosine, min_agreement, without=without)

    out.load_onnxruntime()
    from hiresvit.models.create import model_spec
    from hiresvit.workflows.export import ExportSettings, export_bundle

    spec = model_spec(model, task, size, num_classes, **overrides)
    if logits and spec.task != "segment":
        raise UsageError(f"--logits {logits} is about segmentation; the task is {spec.task}")
    chosen = ExportSettings(
        weights=weights,
        ema=ema,
        allow_missing_head=allow_missing is not None,
        seed=seed or 0,
        fp16=fp16 or int8,
        int8=calibration,
        io=io,
        opset=opset,
        dynamic_batch=dynamic_batch,
        resize=logits != "head",
        plan=not no_plan,
        images=images,
        latency=not no_latency,
        threads=threads,
        gates=gates,
        force=force,
    )
    command = ["hiresvit", *context.obj]
    with out.progress() as on_step:
        bundle = export_bundle(spec, output or Path(spec.slug), chosen, command=command, on_step=on_step)
    out.answer_export(as_json, bundle.folder, bundle.manifest.to_json(), time.monotonic() - began)


def calibrate(
    graph: Annotated[
        Path, typer.Argument(help="An FP32 graph of ours (simplified.onnx), or a bundle with one.")
    ],
    *,
    calib: opt.Calib = None,
    method: opt.CalibMethod = None,
    calib_images: opt.CalibImages = None,
    calib_seed: opt.CalibSeed = None,
    calib_memory: opt.CalibMemory = None,
    calib_table: opt.CalibTable = None,
    max_drop: opt.MaxDrop = None,
    int8_attention: opt.Int8Attention = None,
    int8_residual: opt.Int8Residual = None,
    io: Annotated[Literal["fp32", "fp16"], typer.Option(help="Types at the INT8 graph's ends.")] = "fp32",
    threads: opt.Threads = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: ./MODEL-TASK-HxW-int8.onnx")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Make an INT8 graph and its table of ranges from an FP32 graph and pictures."""
    began = time.monotonic()
    chosen = opt.int8_settings(
        True,
        calib,
        threads,
        method=method,
        images=calib_images,
        seed=calib_seed,
        memory=calib_memory,
        table=calib_table,
        max_drop=max_drop,
        attention=int8_attention,
        residual=int8_residual,
    )
    out.load_onnxruntime()
    from hiresvit.report.int8 import int8_report
    from hiresvit.workflows.calibrate import quantize_file

    with out.progress() as on_step:
        assert chosen is not None
        made = quantize_file(graph, output, chosen, io=io, force=force, on_step=on_step)
    following = f"next: hiresvit compare {shlex.quote(str(graph))} {shlex.quote(str(made.paths[0]))}"
    found = {"graph": str(graph), "output": [str(path) for path in made.paths], "int8": made.report}
    out.answer(as_json, found, [*int8_report(made.report), out.wrote_line(made.paths, began), following])


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Checkpoint as the authors' code saves it.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    *,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="A name of `hiresvit list`.")],
    ema: opt.Ema = False,
    allow_missing: opt.AllowMissing = None,
    task: opt.TaskOption = None,
    num_classes: opt.Classes = None,
    settings: opt.Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Check a checkpoint against a model and write it as safetensors.

    The file has the weights of one task under the names of our models, and says which model they are for.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: what is written is safetensors, give a name that ends in .safetensors")
    from hiresvit.models.create import convert_weights, model_spec
    from hiresvit.report.tables import size_text

    spec = model_spec(model, task, None, num_classes, **opt.parse_settings(settings))
    report = convert_weights(
        spec, source, target, ema=ema, allow_missing_head=allow_missing is not None, force=force
    )
    size = target.stat().st_size
    found = {"output": str(target), "bytes": size, "model": model, "task": spec.task, **asdict(report)}
    wrote = f"wrote {target}: {size_text(size)}, {model} for {spec.task}"
    classes = f" --num-classes {spec.num_classes}" if num_classes else ""
    following = (
        f"next: hiresvit export {model} --task {spec.task}{classes} --weights {shlex.quote(str(target))}"
    )
    items = [*(f"note: {line}" for line in report.lines(source)), wrote, following]
    out.answer(as_json, found, items)
