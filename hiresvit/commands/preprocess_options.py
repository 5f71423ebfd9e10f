"""The options that say how a picture becomes the input, and what their texts mean.

What is asked for often has an option of its own, the rest is ``--preprocess NAME=VALUE``; whether a value is allowed is
found where it is used (`hiresvit.models.preprocessing.changed`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

import typer

from hiresvit.errors import UsageError
from hiresvit.spec import PreprocessSpec
from hiresvit.spec import Resize as Resizes

Resize = Annotated[
    Resizes | None,
    typer.Option("--resize", help="How a picture gets the input's size; default, as of all these: as the authors do."),
]
CropPct = Annotated[
    float | None, typer.Option("--crop-pct", metavar="X", help="Of --resize crop: the share that is taken, as 0.9.")
]
Interpolation = Annotated[
    Literal["bilinear", "bicubic"] | None, typer.Option("--interpolation", help="Between a picture's pixels.")
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="X,X,X", help="What is taken from the channels, 0 to 1: 0.5,0.5,0.5."),
]
Std = Annotated[
    str | None, typer.Option("--std", metavar="X,X,X", help="What the channels are then divided by: 0.5,0.5,0.5.")
]
Channels = Annotated[
    Literal["rgb", "bgr"] | None,
    typer.Option("--channels", help="The order that the network was trained on, also of --mean and --std."),
]
Rest = Annotated[
    list[str] | None,
    typer.Option(
        "--preprocess",
        metavar="NAME=VALUE",
        help="The rest of it: stride=768x768, short_side=512, filter=pillow, divisor=32, ...",
    ),
]
NAMES = ("resize", "crop_pct", "interpolation", "mean", "std", "channels")
"""Fields of `PreprocessSpec` that have an option each, called as they are."""


def read_changes(texts: list[str] | None, own: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of `PreprocessSpec` that ``--preprocess`` and the options of `NAMES` give, None if there are none.

    Raises UsageError for a field that both give.
    """
    found = parse_preprocess(texts or [])
    for name, value in own.items():
        if value is None:
            continue
        option = "--" + name.replace("_", "-")
        if name in found:
            raise UsageError(f"{option} {value}: --preprocess gives {name}, too: leave one of them out")
        found[name] = _value(option, name, str(value))
    return found or None


def parse_preprocess(texts: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as fields of `PreprocessSpec`."""
    found: dict[str, Any] = {}
    known = [field.name for field in fields(PreprocessSpec)]
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in known or not value:
            raise UsageError(f"--preprocess {text}: give NAME=VALUE; names are {', '.join(known)}")
        if name in found:
            raise UsageError(f"--preprocess {text}: {name} is already set to {found[name]}")
        found[name] = _value("--preprocess", name, value, text)
    return found


def _value(option: str, name: str, value: str, text: str | None = None) -> Any:
    """A field of a text. Raises UsageError with the option and the whole ``text`` that it came in."""
    given = f"{option} {text or value}"
    if name == "stride":
        match = re.fullmatch(r"(\d+)(?:[xX,](\d+))?", value, re.ASCII)
        if match is None:
            raise UsageError(f"{given}: give HEIGHTxWIDTH such as 768x768, or one number for both")
        return int(match[1]), int(match[2] or match[1])
    try:
        if name in ("mean", "std"):
            return tuple(float(part) for part in value.split(","))
        return {"crop_pct": float, "divisor": int, "short_side": int}.get(name, str)(value)
    except ValueError:
        wanted = "three numbers such as 0.5,0.5,0.5" if name in ("mean", "std") else "a number"
        raise UsageError(f"{given}: give {wanted}") from None
