"""Shapes of dynamic inputs: from text to profiles, and whether they fit a graph."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto

from hiresvit.device.plan import Profile
from hiresvit.errors import UsageError
from hiresvit.graph.index import dims_of

_SHAPE = re.compile(r"\d{1,9}(x\d{1,9})*", re.ASCII)
_EXAMPLE = "image=1x3x512x512:4x3x512x512:8x3x512x512"


def parse_shapes(texts: Sequence[str]) -> dict[str, Profile]:
    """Profiles by input name from ``NAME=MIN:OPT:MAX``, or ``NAME=SHAPE`` where all three are the same.

    Raises UsageError on anything else, and on a name that is there twice.
    """
    profiles: dict[str, Profile] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        shapes = sizes.split(":")
        good = name and len(shapes) in (1, 3) and all(_SHAPE.fullmatch(shape) for shape in shapes)
        if not good or name in profiles:
            raise UsageError(
                f"--shapes {text}: give each dynamic input once, as NAME=MIN:OPT:MAX or NAME=SHAPE, as {_EXAMPLE}"
            )
        least, best, most = (tuple(int(n) for n in shape.split("x")) for shape in (shapes * 3)[:3])
        profiles[name] = (least, best, most)
    return profiles


def input_shapes(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The shape of each input that is no weight; None stands for a dynamic axis, which some write as -1."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {value.name: dims_of(value) for value in model.graph.input if value.name not in weights}


def check_profiles(graph: Path, model: ModelProto, profiles: Mapping[str, Profile]) -> None:
    """Raise UsageError unless there is one fitting profile for each dynamic input, and for no other."""
    shapes = input_shapes(model)
    dynamic = {name: shape for name, shape in shapes.items() if None in shape}
    for name in profiles:
        if name not in shapes:
            raise UsageError(f"{graph} has no input {name!r}; its inputs are {', '.join(map(repr, shapes))}")
        if name not in dynamic:
            raise UsageError(
                f"{graph}: input {name!r} is {_text(shapes[name])}, no axis is dynamic; leave its shapes out"
            )
    for name, shape in dynamic.items():
        if name not in profiles:
            axes = ", ".join(str(axis) for axis, size in enumerate(shape) if size is None)
            raise UsageError(
                f"{graph}: axis {axes} of input {name!r} ({_text(shape)}) is dynamic; give its least, best and"
                f" largest shape with --shapes {name}=MIN:OPT:MAX"
            )
        _check_fit(graph, name, shape, profiles[name])


def _check_fit(graph: Path, name: str, shape: tuple[int | None, ...], profile: Profile) -> None:
    for given in profile:
        if len(given) != len(shape) or any(want not in (None, have) for have, want in zip(given, shape, strict=True)):
            raise UsageError(f"{graph}: the shape {_text(given)} does not fit input {name!r}, which is {_text(shape)}")
    if not all(1 <= low <= best <= high for low, best, high in zip(*profile, strict=True)):
        given_text = ":".join(_text(given) for given in profile)
        raise UsageError(f"{graph}: {name}={given_text} is no profile; give 1 <= MIN <= OPT <= MAX on each axis")


def _text(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
