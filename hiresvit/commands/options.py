"""The options that several commands share, each written once, in groups, and what their texts mean.

A group is a frozen dataclass of options. A command takes it as one parameter, and `grouped` flattens it into the
command's signature, which is what typer reads: ``--help`` shows the options one by one.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import typer

from hiresvit.bundle.stages import BUILDABLE, DEFAULT, RUNNABLE, either
from hiresvit.commands import preprocess_options as pictures
from hiresvit.errors import UsageError
from hiresvit.spec import Task

if TYPE_CHECKING:
    from hiresvit.device.boards import Board
    from hiresvit.workflows.quantize import Int8Settings

Texts = list[str] | None

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name of `hiresvit list`, or a checkpoint's file.")]
Anything = Annotated[str, typer.Argument(help="A model name, a checkpoint, an .onnx file, a plan or a bundle folder.")]
BuildGraph = Annotated[Path, typer.Argument(metavar="GRAPH", help="An .onnx file or a bundle folder.", readable=False)]
BundleGraph = Annotated[
    str | None,
    typer.Option(
        "--graph",
        help=f"Which of a bundle: {BUILDABLE[0]} (default), {either(BUILDABLE[1:])}; for a chip its form, htp_a16w8.",
    ),
]
Graph = Annotated[
    str | None,
    typer.Option("--graph", help=f"Of a bundle: {either(RUNNABLE)}; default: {' or else '.join(DEFAULT)}."),
]
Shapes = Annotated[
    Texts,
    typer.Option("--shapes", metavar="NAME=MIN:OPT:MAX", help="Shapes of a dynamic input, as 1x3x512x512."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of every runtime.")]
ForceFile = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Where labelled pictures lie; yours: images/, labels/ and classes.json.",
        readable=False,
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="A part of the data set, as train; default: val.")
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE|NAME",
        help="Names of the classes: a list, or imagenet, ade20k, coco_stuff, cityscapes.",
    ),
]
Entry = Annotated[
    str | None,
    typer.Option("--entry", metavar="KEY", help="Of several sets of weights in the checkpoint: its key."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Save = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write the JSON document there, too.", readable=False, dir_okay=False
    ),
]

PICTURES = (*pictures.NAMES, "preprocess")
"""Options of a model that say how a picture becomes its input."""
RUNNERS = "onnxruntime[:PROVIDER], openvino[:bf16], qnn[:CHIP] or tensorrt; default: by its suffix"
FOLDER = "folder"
"""The data set that ``--data`` alone names."""


@dataclass(frozen=True)
class Without:
    """Options of a group that a command does not have: ``Annotated[Group, Without("name")]``; they are the default."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter that is a group of options replaced by these options."""
    groups: dict[str, tuple[Any, list[str]]] = {}
    flat = []
    # not by get_type_hints, which in Python 3.10 wraps what has None as its default, and typer finds no option in it
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        kind, *extra = get_args(parameter.annotation) or (parameter.annotation,)
        if not is_dataclass(kind):
            flat.append(parameter)
            continue
        left_out = {given for one in extra if isinstance(one, Without) for given in one.names}
        options = get_type_hints(kind, include_extras=True)
        taken = [field for field in fields(kind) if field.name not in left_out]
        groups[name] = kind, [field.name for field in taken]
        flat += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=options[field.name],
            )
            for field in taken
        ]

    @wraps(command)
    def run(**given: Any) -> None:
        made = {name: kind(**{one: given.pop(one) for one in taken}) for name, (kind, taken) in groups.items()}
        command(**given, **made)

    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


@dataclass(frozen=True)
class ModelOptions:
    """What makes a model from its name."""

    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Checkpoint: .pth, .pth.tar, .pdparams, .safetensors.", readable=False),
    ] = None
    ema: Annotated[bool, typer.Option("--ema", help="Take the checkpoint's averaged weights.")] = False
    entry: Entry = None
    allow_missing: Annotated[
        Literal["head"] | None,
        typer.Option("--allow-missing", help="Take a checkpoint without the task's head, and draw that."),
    ] = None
    task: Annotated[Task | None, typer.Option("--task", help="Default: the family's own.")] = None
    imgsz: Annotated[
        str | None, typer.Option("--imgsz", metavar="HxW", help="Input size; default: the family's own.")
    ] = None
    num_classes: Annotated[int | None, typer.Option("--num-classes", min=1, help="Number of classes.")] = None
    settings: Annotated[
        Texts,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the family: windows=1,2,9,9, pooled_size=12, ...",
        ),
    ] = None
    resize: pictures.Resize = None
    crop_pct: pictures.CropPct = None
    interpolation: pictures.Interpolation = None
    mean: pictures.Mean = None
    std: pictures.Std = None
    channels: pictures.Channels = None
    preprocess: pictures.Rest = None

    def given(self) -> dict[str, Any]:
        """What `create_model` takes: those that were given."""
        options = {
            "weights": self.weights,
            "ema": self.ema or None,
            "entry": self.entry,
            "task": self.task,
            "allow_missing_head": True if self.allow_missing else None,
            "imgsz": parse_imgsz(self.imgsz),
            "num_classes": self.num_classes,
            "preprocess": self.changes(),
            **self.overrides(),
        }
        return {name: value for name, value in options.items() if value is not None}

    def overrides(self) -> dict[str, Any]:
        """``--set`` as the family's own arguments."""
        return parse_settings(self.settings)

    def changes(self) -> dict[str, Any] | None:
        """``--preprocess`` and its kind as fields of `PreprocessSpec`, None if none was given."""
        return pictures.read_changes(self.preprocess, {name: getattr(self, name) for name in pictures.NAMES})


@dataclass(frozen=True)
class DeviceOptions:
    """A device whose limits a plan is held to; it need not be here."""

    device: Annotated[
        str | None,
        typer.Option(
            "--device", metavar="NAME", help="Say the least time a plan can take there: orin-nx, rtx-4070, h100, ..."
        ),
    ] = None
    bandwidth: Annotated[float | None, typer.Option("--bandwidth", metavar="GB/S", help="Its memory's, by hand.")] = (
        None
    )
    tflops: Annotated[float | None, typer.Option("--tflops", metavar="T", help="Its dense FP16 TFLOP/s, by hand.")] = (
        None
    )

    def board(self) -> Board | None:
        """The row of the table, with what is given by hand; None where nothing is given. Raises UsageError."""
        from hiresvit.device.boards import choose_board

        return choose_board(self.device, self.bandwidth, self.tflops)


@dataclass(frozen=True)
class CalibrationOptions:
    """How an INT8 graph is made; a field is called as its option is, without the dashes."""

    calib: Annotated[
        str | None,
        typer.Option(
            "--calib",
            metavar="SOURCE",
            help="Pictures to calibrate with: a folder, a .txt, an .npz, scenes, or as --dataset with --data.",
        ),
    ] = None
    data: Data = None
    split: Split = None
    method: Annotated[
        Literal["minmax", "percentile", "entropy", "mse"] | None,
        typer.Option("--method", help="How a tensor's range is chosen; default: mse."),
    ] = None
    calib_images: Annotated[
        int | None,
        typer.Option("--calib-images", metavar="N", help="Pictures to calibrate with; default: 64."),
    ] = None
    calib_seed: Annotated[int | None, typer.Option("--calib-seed", min=0, help="Choose other pictures.")] = None
    calib_memory: Annotated[
        int | None,
        typer.Option("--calib-memory", metavar="MIB", min=1, help="Activations held at a time; default: 512."),
    ] = None
    calib_table: Annotated[
        Path | None,
        typer.Option(
            "--calib-table", metavar="JSON", help="Take the ranges of an earlier calibration.", readable=False
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", metavar="POINTS", help="Keep modules in FP16 until INT8 loses no more than this."),
    ] = None
    int8_attention: Annotated[
        bool | None,
        typer.Option("--int8-attention", help="Attention products in INT8, too, all five points of each."),
    ] = None
    int8_residual: Annotated[
        bool | None, typer.Option("--int8-residual", help="What is added to a convolution in INT8, too.")
    ] = None
    int8_lean: Annotated[
        bool | None, typer.Option("--int8-lean", help="INT8 only where TensorRT-RTX moves fewer bytes for it.")
    ] = None

    def settings(self, threads: int | None) -> Int8Settings:
        """What they ask of TensorRT's INT8. Raises as `chosen` does."""
        chosen = self.chosen("INT8")
        from hiresvit.workflows.quantize import Int8Settings

        return Int8Settings(**chosen, threads=threads)

    def chosen(self, what: str) -> dict[str, Any]:
        """Fields of its settings. Raises UsageError without pictures, and for options that exclude each other."""
        given = self._given(())
        if self.calib is None and self.data is None:
            raise UsageError(f"{what} needs pictures to calibrate with: --calib DIR, or --calib scenes to try it out")
        given.setdefault("calib", FOLDER)
        if {"calib_table", "method"} <= given.keys():
            raise UsageError(f"--method {self.method} chooses ranges and --calib-table brings them: leave one out")
        if self.calib_memory:
            given["calib_memory"] = self.calib_memory * 2**20
        # a setting is called as its option, which says what it is about
        return {re.sub("^(calib|int8)_", "", name): value for name, value in given.items()}

    def refuse(self, wanted: str, *names: str) -> None:
        """Raise UsageError for any that was given, or any of ``names``, since what they are for is not ``wanted``."""
        if given := self._given(names):
            raise UsageError(f"{', '.join(map(option_name, given))}: for {wanted}, which is not given")

    def _given(self, names: Collection[str]) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None and (name in names or not names)}


@dataclass(frozen=True)
class DatasetOptions:
    """Labelled pictures."""

    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Labelled pictures: scenes; with --data folder, cityscapes, ade20k, coco_stuff, imagenet.",
        ),
    ] = None
    data: Data = None
    split: Split = None
    classes: Classes = None

    def name(self) -> str | None:
        """The data set's name, None if none was asked for. Raises UsageError for one that there is not."""
        name = self.dataset or (FOLDER if self.data else None)
        if name is not None and self.classes is not None:
            raise UsageError(f"--classes {self.classes} and the data set {name} both name the classes: leave one out")
        if name is not None:
            from hiresvit.data.open import find_dataset

            find_dataset(name, self.data, self.split)
        elif self.split is not None:
            raise UsageError(f"--split {self.split}: a part of a data set, and none is given; give --dataset, too")
        return name


@dataclass(frozen=True)
class RunnerOptions:
    """What computes."""

    runner: Annotated[str | None, typer.Option("--runner", metavar="NAME", help=f"What opens a file: {RUNNERS}.")] = (
        None
    )
    threads: Threads = None


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


def option_text(name: str) -> str:
    """How what `ModelOptions.given` gives is typed: ``--imgsz``, ``--allow-missing head``, ``--set windows``."""
    if name == "allow_missing_head":
        return "--allow-missing head"
    if name == "preprocess":
        return "--preprocess, --resize and what else is about pictures"
    own = {field.name for field in fields(ModelOptions)}
    return option_name(name) if name in own else f"--set {name}"


def option_name(name: str) -> str:
    """``--calib-images`` of ``calib_images``."""
    return "--" + name.replace("_", "-")
