"""HIRI-ViT: a five-stage vision transformer for large inputs, with two branches wherever the map is large.

Yao et al., "HIRI-ViT: Scaling Vision Transformer with High Resolution Inputs", TPAMI 2024, arXiv 2403.11999.
There is no code and there are no weights of the authors: this is written from the paper, and what the paper
leaves open is chosen so that its numbers of parameters and multiply-accumulates come out (docs/hiri_vit.md).

    image (B, 3, H, W) - HR stem, stride 4 - stage 1 - downsampling - stage 2 .. - stage 5, stride 64 - head
    stages 1, 2: HR blocks; stage 3: CFFN blocks; stages 4, 5: transformer blocks with attention over the whole map
    downsampling: inverted residuals, IRDS-a into stages 2 and 3, IRDS-b into stages 4 and 5

Ours, where the paper is silent: GELU as the activation; the stem's inner width, and BatchNorm and GELU in its low
branch only; pre-norm BatchNorm in the HR block; the expansion of the downsamplings (4 and 6), their shortcut and the
BatchNorm on the sum; which 1x1 convolutions have a bias; the last BatchNorm; the classifier with 5*C5 channels; and
all names of parameters.

B batch, C channels of a stage, E its expansion, H W its map, N = H*W tokens, d = 64 channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul

import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.models.family import build_task, configured, require_laid_out, require_multiples, require_rate
from hiresvit.models.fold import (
    FoldableSequential,
    bn_scale_shift,
    conv_like,
    double_bias,
    fold_bn,
    scale_after,
    scale_before,
)
from hiresvit.models.heads import Segmentor
from hiresvit.models.hiri_vit_block import CFFN, HRBlock, Transformer, depthwise
from hiresvit.models.layers import Size, drop_rates, size_at
from hiresvit.models.retinanet import Detector
from hiresvit.models.upernet import CHANNELS, UPerNetHead
from hiresvit.spec import ModelSpec

STEM_STRIDE = 4
PLAN = (2, 2, 2, 2)
PLAN_224 = (2, 1, 2, 2)
HEADS = {"classify": ("mlp", "linear"), "segment": ("upernet",), "features": (), "detect": ("retinanet",)}


@dataclass(frozen=True)
class HiriViTConfig:
    """What differs between the variants (paper, Table 1), and what can be overridden.

    ``stride_plan`` are the strides of the four downsamplings. ``head`` "" is the task's own.
    """

    channels: tuple[int, int, int, int, int]
    ratios: tuple[int, int, int, int, int]
    blocks: tuple[int, int, int, int, int]
    stem: int
    drop_path: float = 0.1
    stride_plan: tuple[int, int, int, int] = PLAN
    head: str = ""

    def __post_init__(self) -> None:
        plan = self.stride_plan if isinstance(self.stride_plan, tuple) else ()
        if len(plan) != 4 or any(type(s) is not int or s not in (1, 2) for s in plan) or plan[2:] != (2, 2):
            raise UsageError(
                f"stride_plan={self.stride_plan!r}: give the strides of the four downsamplings, each 1 or 2 and "
                f"the last two 2, such as {PLAN} or, for 224x224, {PLAN_224}"
            )
        require_rate(self.drop_path)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the five stages."""
        return tuple(accumulate(self.stride_plan, mul, initial=STEM_STRIDE))


VARIANTS: dict[str, HiriViTConfig] = {
    "hiri_vit_s": HiriViTConfig((32, 64, 128, 320, 512), (4, 4, 6, 5, 5), (2, 2, 2, 9, 4), stem=32),
    "hiri_vit_b": HiriViTConfig((64, 96, 192, 320, 640), (4, 4, 5, 4, 5), (2, 2, 3, 17, 4), stem=64),
    "hiri_vit_l": HiriViTConfig((80, 160, 224, 448, 640), (4, 4, 5, 3, 5), (4, 4, 5, 25, 5), stem=64),
}


def check(spec: ModelSpec) -> None:
    """Raise UsageError on a size or an override that the family cannot take; builds nothing.

    Both sides must be multiples of the last stage's stride, 64 by default.
    """
    config = configure(spec)
    if spec.task != "classify" and config.stride_plan != PLAN:
        raise UsageError(
            f"stride_plan={config.stride_plan}: only for classify; {spec.task} needs maps that halve from "
            f"stage to stage, {PLAN}"
        )
    unit, smaller = config.strides[-1], STEM_STRIDE * prod(PLAN_224)
    fits = spec.task == "classify" and unit > smaller and all(side > 0 and side % smaller == 0 for side in spec.imgsz)
    hint = f"; or stride_plan={PLAN_224}, the paper's network for 224x224" if fits else ""
    require_multiples(spec.imgsz, unit, f"HIRI-ViT with stride_plan={config.stride_plan}", hint)


def configure(spec: ModelSpec) -> HiriViTConfig:
    """The variant's configuration with the spec's overrides. Raises UsageError on values that make no sense."""
    config = configured(VARIANTS, spec)
    heads = HEADS[spec.task]
    if "head" in dict(spec.overrides) and config.head not in heads:
        allowed = f"takes {' or '.join(heads)}" if heads else "has no head, leave it out"
        raise UsageError(f"head={config.head!r}: HIRI-ViT for {spec.task} {allowed}")
    return config


def build(spec: ModelSpec) -> nn.Module:
    """The model of a spec, with fresh weights."""
    config = configure(spec)
    if spec.task == "detect":
        return Detector(HiriViT(config, spec.imgsz), config.channels, spec)
    return build_task(spec, config, HiriViT, HiriViTClassifier, HiriViTSegmentor)


class HiriViT(nn.Module):
    """The backbone: image (B, 3, H, W) -> maps (B, C_i, H/s_i, W/s_i) of stages 2 to 5, strides 8, 16, 32, 64.

    Those four are what the paper's detectors read; S has the channels of PVTv2-B2 there. Static in H and W.
    """

    def __init__(self, config: HiriViTConfig, imgsz: Size) -> None:
        super().__init__()
        self.imgsz = imgsz
        self.stem = Stem(config.stem, config.channels[0])
        rates = drop_rates(config.drop_path, config.blocks)
        self.stages = nn.ModuleList(Stage(config, index, imgsz, drop) for index, drop in enumerate(rates))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        require_laid_out(image, self.imgsz)
        x = self.stem(image)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[1:])


class HiriViTClassifier(HiriViT):
    """Backbone, BatchNorm and classifier: (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, config: HiriViTConfig, imgsz: Size, num_classes: int) -> None:
        super().__init__(config, imgsz)
        self.norm: nn.Module = nn.BatchNorm2d(config.channels[-1])
        self.head = (LinearHead if config.head == "linear" else MLPHead)(config.channels[-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        out: Tensor = self.head(self.norm(super().forward(image)[-1]))
        return out

    def fold_(self) -> None:
        """The last BatchNorm into the classifier's first layer; an average does not disturb it."""
        scale_shift = bn_scale_shift(self.norm)
        if isinstance(self.head, MLPHead):
            self.head.conv = scale_before(self.head.conv, *scale_shift)
        else:
            self.head.fc = scale_before(self.head.fc, *scale_shift)
        self.norm = nn.Identity()


class HiriViTSegmentor(Segmentor):
    """Backbone and UPerNet: (B, 3, H, W) -> logits (B, classes, H/8, W/8)."""

    def __init__(self, config: HiriViTConfig, imgsz: Size, num_classes: int) -> None:
        backbone, coarsest = HiriViT(config, imgsz), size_at(imgsz, config.strides[-1])
        super().__init__(backbone, UPerNetHead(config.channels[1:], CHANNELS, num_classes, size=coarsest))


class Stem(nn.Module):
    """HR stem: a convolution of stride 2, then two branches of stride 2, added.

    (B, 3, H, W) -> (B, C1, H/4, W/4). The high branch works at H/2, the low one at H/4.
    """

    pairs = (("conv", "bn"),)

    def __init__(self, inner: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, inner, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(inner)
        self.high = nn.Sequential(depthwise(inner), nn.Conv2d(inner, channels, 3, stride=2, padding=1, bias=False))
        self.low = FoldableSequential(
            nn.Conv2d(inner, inner, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.GELU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.GELU(),
            nn.Conv2d(inner, channels, 1, bias=False),
        )
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, image: Tensor) -> Tensor:
        x = F.gelu(self.bn(self.conv(image)))
        out: Tensor = self.norm(self.high(x) + self.low(x))
        return out

    def fold_(self) -> None:
        """The norm of the sum into both convolutions that are added."""
        self.high[-1], self.low[-1] = fold_sum_bn(self.high[-1], self.low[-1], self.norm)
        self.norm = nn.Identity()


class Stage(nn.Module):
    """One stage: downsampling (all but the first), then its blocks: (B, C_in, H, W) -> (B, C, H/stride, W/stride)."""

    def __init__(self, config: HiriViTConfig, index: int, imgsz: Size, rates: Sequence[float]) -> None:
        super().__init__()
        channels, ratio = config.channels[index], config.ratios[index]
        self.downsample: nn.Module = nn.Identity()
        if index > 0:
            stride = config.stride_plan[index - 1]
            self.downsample = Downsample(config.channels[index - 1], channels, stride, light=index > 2)
        size = size_at(imgsz, config.strides[index])
        self.blocks = nn.Sequential(*(block_of(index, channels, ratio, rate, size) for rate in rates))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x))
        return out


def block_of(index: int, channels: int, ratio: int, drop_path: float, size: Size) -> nn.Module:
    """A block of stage ``index``, counted from 0."""
    if index > 2:
        return Transformer(channels, ratio, drop_path, size)
    return (HRBlock if index < 2 else CFFN)(channels, ratio, drop_path)


class Downsample(nn.Module):
    """Inverted residual downsampling: (B, C_in, H, W) -> (B, C, H/stride, W/stride).

    IRDS-a widens with a 3x3 convolution of this stride; IRDS-b, the light one, with a 1x1 and then strides in a
    depthwise 3x3.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, light: bool) -> None:
        super().__init__()
        self.stride = stride
        wide = (6 if light else 4) * in_channels
        if light:
            widen = nn.Conv2d(in_channels, wide, 1, bias=False)
            narrow = [depthwise(wide, stride, bias=False), nn.Conv2d(wide, channels, 1, bias=False)]
        else:
            widen = nn.Conv2d(in_channels, wide, 3, stride, padding=1, bias=False)
            narrow = [nn.Conv2d(wide, channels, 1, bias=False)]
        self.body = FoldableSequential(widen, nn.BatchNorm2d(wide), nn.GELU(), *narrow)
        self.pool: nn.Module = nn.AvgPool2d(stride)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.body(x) + self.shortcut(self.pool(x)))
        return out

    def fold_(self) -> None:
        """The BatchNorm of the sum into both convolutions that are added; the average into its 1x1.

        That convolution then reads four pixels: a few more multiplications, but one kernel less, and no average
        that is written and read again.
        """
        self.body[-1], plain = fold_sum_bn(self.body[-1], self.shortcut, self.norm)
        self.norm = nn.Identity()
        self.shortcut = fold_pool_pointwise(self.stride, plain)
        self.pool = nn.Identity()


class MLPHead(nn.Module):
    """The classifier with a wide layer before the average: (B, C5, H, W) -> logits (B, classes)."""

    pairs = (("conv", "bn"),)

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        wide = 5 * channels
        self.conv = nn.Conv2d(channels, wide, 1, bias=False)
        self.bn = nn.BatchNorm2d(wide)
        self.fc = nn.Linear(wide, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(F.gelu(self.bn(self.conv(x))).mean(dim=(2, 3)))
        return out


class LinearHead(nn.Module):
    """The classifier that the paper's text describes, an average and a Linear: (B, C5, H, W) -> logits (B, classes)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out


def fold_sum_bn(one: nn.Module, other: nn.Module, bn: nn.Module) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two convolutions whose sum is ``bn(one(x) + other(y))``; the shift goes into the first."""
    assert isinstance(one, nn.Conv2d)
    assert isinstance(other, nn.Conv2d)
    return fold_bn(one, bn), scale_after(other, bn_scale_shift(bn)[0])


def fold_pool_pointwise(size: int, conv: nn.Conv2d) -> nn.Conv2d:
    """One convolution for a 1x1 behind an average over size x size pixels, both without overlap."""
    geometry = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride=size, device="meta")
    weight = conv.weight.double().expand(-1, -1, size, size) / size**2
    return conv_like(geometry, weight, double_bias(conv), like=conv.weight)
