"""The options that several commands share, and what their texts mean."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hiresvit.bundle.stages import RUNNABLE, either
from hiresvit.errors import UsageError
from hiresvit.spec import Task

if TYPE_CHECKING:
    from hiresvit.evaluation.parity import Gate
    from hiresvit.workflows.quantize import Int8Settings

Texts = list[str] | None

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name of `hiresvit list`.")]
Anything = Annotated[str, typer.Argument(help="A model name, an .onnx file, a plan or a bundle folder.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Checkpoint: .pth, .pth.tar, .pdparams, .safetensors.")
]
Ema = Annotated[bool, typer.Option("--ema", help="Take the checkpoint's averaged weights.")]
AllowMissing = Annotated[
    Literal["head"] | None,
    typer.Option("--allow-missing", help="Take a checkpoint without the task's head, and draw that."),
]
Settings = Annotated[
    Texts,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the family: windows=1,2,9,9, pooled_size=12, ..."
    ),
]
TaskOption = Annotated[Task | None, typer.Option("--task", help="Default: the family's own.")]
Imgsz = Annotated[
    str | None, typer.Option("--imgsz", metavar="HxW", help="Input size; default: the family's own.")
]
Classes = Annotated[int | None, typer.Option("--num-classes", min=1, help="Number of classes.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of every runtime.")]
Graph = Annotated[
    str | None,
    typer.Option("--graph", help=f"Of a bundle: {either(RUNNABLE)}; default: the fastest here."),
]
MinSqnr = Annotated[Texts, typer.Option("--min-sqnr", metavar="DB", help="Least SQNR in dB.")]
MinCosine = Annotated[Texts, typer.Option("--min-cosine", metavar="X", help="Least cosine.")]
MinAgreement = Annotated[
    Texts, typer.Option("--min-agreement", metavar="X", help="Least share of equal answers, 0 to 1.")
]
Calib = Annotated[
    str | None,
    typer.Option(
        "--calib", metavar="SOURCE", help="Pictures to calibrate with: a folder, a .txt, an .npz, or scenes."
    ),
]
CalibMethod = Annotated[
    Literal["minmax", "percentile", "entropy", "mse"] | None,
    typer.Option("--method", help="How a tensor's range is chosen; default: mse."),
]
CalibImages = Annotated[
    int | None, typer.Option("--calib-images", metavar="N", help="Pictures to calibrate with; default: 64.")
]
CalibSeed = Annotated[int | None, typer.Option("--calib-seed", min=0, help="Choose other pictures.")]
CalibMemory = Annotated[
    int | None,
    typer.Option("--calib-memory", metavar="MIB", min=1, help="Activations held at a time; default: 512."),
]
CalibTable = Annotated[
    Path | None,
    typer.Option("--calib-table", metavar="JSON", help="Take the ranges of an earlier calibration."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop", metavar="POINTS", help="Keep modules in FP16 until INT8 loses no more than this."
    ),
]
Int8Attention = Annotated[
    bool | None,
    typer.Option("--int8-attention", help="Attention products in INT8, too, all five points of each."),
]
Int8Residual = Annotated[
    bool | None, typer.Option("--int8-residual", help="What is added to a convolution in INT8, too.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]

CALIBRATION = {
    "method": "--method",
    "images": "--calib-images",
    "seed": "--calib-seed",
    "memory": "--calib-memory",
    "table": "--calib-table",
    "max_drop": "--max-drop",
    "attention": "--int8-attention",
    "residual": "--int8-residual",
}
LIMITS = {"min_sqnr_db": "--min-sqnr", "min_cosine": "--min-cosine", "min_agreement": "--min-agreement"}


def parse_imgsz(text: str | None) -> tuple[int, int] | None:
    """``512x1024`` as (height, width), ``512`` as a square."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f"--imgsz {text}: give HEIGHTxWIDTH such as 512x1024, or one number for a square")
    return int(match[1]), int(match[2] or match[1])


def parse_settings(texts: Texts) -> dict[str, Any]:
    """``NAME=VALUE`` as the model's own arguments: ``1,2,9,9`` or ``1-2-9-9`` is a tuple, ``12`` a number."""
    settings: dict[str, Any] = {}
    if not texts:
        return settings
    from hiresvit.models.zoo import MODELS

    known = sorted({name for entry in MODELS.values() for name in entry.overrides})
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name.isidentifier() and equals and value):
            raise UsageError(f"--set {text}: give NAME=VALUE such as windows=1,2,9,9")
        if name not in known:  # what has an option of its own is none of them
            raise UsageError(f"--set {text}: no family has a setting {name}; there are {', '.join(known)}")
        if name in settings:
            raise UsageError(f"--set {text}: {name} is already set to {settings[name]}")
        if re.fullmatch(r"\d+([,-]\d+)+", value, re.ASCII):
            settings[name] = tuple(int(part) for part in re.split("[,-]", value))
        elif re.fullmatch(r"-?\d+", value, re.ASCII):
            settings[name] = int(value)
        else:
            settings[name] = float(value) if re.fullmatch(r"-?\d*\.\d+", value, re.ASCII) else value
    return settings


def parse_gates(*texts: Texts, without: Collection[str]) -> dict[str, Gate]:
    """The default gates with what was set, in the order of `LIMITS`: VALUE for all, STAGE=VALUE for one stage.

    ``without`` are the stages that this export does not have.
    """
    from hiresvit.evaluation.parity import GATES

    gates = {stage: gate for stage, gate in GATES.items() if stage not in without}
    for (measure, option), given in zip(LIMITS.items(), texts, strict=True):
        for text in sorted(
            given or (), key=lambda text: "=" in text
        ):  # what is said of one stage counts more
            name, _, number = text.rpartition("=")
            if name and name not in gates:
                raise UsageError(f"{option} {text}: the stages of this export are {', '.join(gates)}")
            value = _limit(option, number)
            for stage in [name] if name else list(gates):
                gates[stage] = replace(gates[stage], **{measure: value})
    return gates


def parse_limits(*texts: Texts) -> dict[str, float]:
    """The limits of one comparison, in the order of `LIMITS`; those that were not given are not there."""
    given = zip(LIMITS.items(), texts, strict=True)
    return {measure: _limit(option, text[-1]) for (measure, option), text in given if text}


def model_options(
    *,
    weights: Path | None,
    ema: bool,
    allow_missing: str | None,
    task: Task | None,
    imgsz: str | None,
    num_classes: int | None,
    settings: Texts,
) -> dict[str, Any]:
    """What `create_model` takes: those that were given of the options that make a model from its name."""
    options: dict[str, Any] = {"weights": weights, "ema": ema or None, "task": task}
    options |= {"allow_missing_head": True if allow_missing else None}
    options |= {"imgsz": parse_imgsz(imgsz), "num_classes": num_classes, **parse_settings(settings)}
    return {name: value for name, value in options.items() if value is not None}


def int8_settings(wanted: bool, calib: str | None, threads: int | None, **given: Any) -> Int8Settings | None:
    """What the options of a calibration ask for, None without --int8; ``given`` go by the names of `CALIBRATION`."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        if texts := [*(["--calib"] if calib else []), *(CALIBRATION[name] for name in chosen)]:
            raise UsageError(f"{', '.join(texts)}: for --int8, which is not given")
        return None
    if calib is None:
        raise UsageError(
            "INT8 needs pictures to calibrate with: --calib DIR, or --calib scenes to try it out"
        )
    if {"table", "method"} <= chosen.keys():
        raise UsageError(
            f"--method {chosen['method']} chooses ranges and --calib-table brings them: leave one out"
        )
    from hiresvit.workflows.quantize import Int8Settings

    if "memory" in chosen:
        chosen["memory"] *= 2**20
    return Int8Settings(calib, **chosen, threads=threads)


def option_text(name: str) -> str:
    """How what `model_options` gives is typed: ``--imgsz``, ``--allow-missing head``, ``--set windows``."""
    if name == "allow_missing_head":
        return "--allow-missing head"
    own = name in {"weights", "ema", "task", "imgsz", "num_classes"}
    return "--" + name.replace("_", "-") if own else f"--set {name}"


def _limit(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} {text}: give a number")
    if option != "--min-sqnr" and not 0 <= value <= 1:
        raise UsageError(f"{option} {text}: give a value from 0 to 1")
    return value
