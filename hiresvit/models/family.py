"""What every family does alike: reads a spec, picks a class for its task, and refuses in the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.models.layers import Size
from hiresvit.spec import ModelSpec

ConfigT = TypeVar("ConfigT")


def configured(variants: Mapping[str, ConfigT], spec: ModelSpec) -> ConfigT:
    """The variant's configuration with the spec's overrides. Raises UsageError on values that make no sense."""
    found: Any = variants[spec.name]  # a dataclass
    config: ConfigT = replace(found, **dict(spec.overrides))
    return config


def build_task(
    spec: ModelSpec,
    config: ConfigT,
    backbone: Callable[[ConfigT, Size], nn.Module],
    classifier: Callable[[ConfigT, Size, int], nn.Module],
    segmentor: Callable[[ConfigT, Size, int], nn.Module],
) -> nn.Module:
    """The model of a spec's task and size, with fresh weights."""
    if spec.task == "features":
        return backbone(config, spec.imgsz)
    return (classifier if spec.task == "classify" else segmentor)(config, spec.imgsz, spec.num_classes)


def require_rate(drop_path: float) -> None:
    """Raise UsageError unless this is a rate of stochastic depth."""
    if not isinstance(drop_path, float | int) or not 0.0 <= drop_path < 1.0:
        raise UsageError(f"drop_path={drop_path!r}: give a rate from 0 to below 1")


def require_multiples(imgsz: Size, unit: int, who: str, hint: str = "", *, fill: int = 0) -> None:
    """Raise UsageError, with the nearest sizes, unless height and width are multiples of ``unit``.

    They may be up to ``fill`` pixels less.
    """
    smallest = unit - fill

    def nearest(side: int, *, up: bool) -> int:
        if -side % unit > fill:
            side = side // unit * unit + (smallest if up else 0)
        return max(side, smallest)

    below, above = ([nearest(side, up=up) for side in imgsz] for up in (False, True))
    if below == list(imgsz):
        return
    options = " or ".join("x".join(map(str, sides)) for sides in ([below] if above == below else [below, above]))
    less = f", or up to {fill} pixels less, which it fills with zeros" if fill else ""
    size = f"{imgsz[0]}x{imgsz[1]}"
    raise UsageError(f"{size}: {who} takes multiples of {unit} on both sides{less}; nearest: {options}{hint}")


def require_laid_out(image: Tensor, imgsz: Size) -> None:
    """Raise UsageError unless images (B, 3, H, W) have the size that the model was laid out at."""
    if tuple(image.shape[2:]) != imgsz:
        got = f"{image.shape[2]}x{image.shape[3]}"
        raise UsageError(f"an input of {got} for a model laid out at {imgsz[0]}x{imgsz[1]}")
