"""MixFormer: window attention and depthwise convolution in parallel, each telling the other where or what to look at.

Chen et al., "MixFormer: Mixing Features across Windows and Dimensions", CVPR 2022, arXiv 2204.02557.
Written from the paper and from notes on how the authors' code behaves; where the two differ the code is followed,
because checkpoints come from it (docs/models.md lists every difference). Module names are the checkpoints' keys.

    image (B, 3, H, W) - zeros to a multiple of 4 - stem, stride 4 - stage 1 .. 4, strides 4, 8, 16, 32 - head
    block:  x + Mixing(norm(x)), then x + MLP(norm(x))
    mixing: a = C/2 channels attend in 7x7 windows, C channels take a 3x3 depthwise convolution; the mean of the
            convolution gates the channels of the attention, the attention gates the pixels of the convolution

B batch, C channels of a stage, H W its map, N = H*W tokens; Hp Wp Np the same padded to whole windows, nW windows,
h heads of d channels, a = h*d = C/2. Tokens are rows (B*N, C): a Linear is one Gemm.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.family import build_task, configured, require_laid_out, require_multiples, require_rate
from hiresvit.models.fold import FoldableSequential, affine_into_, bn_scale_shift, scale_before
from hiresvit.models.heads import Segmentor
from hiresvit.models.layers import Size, conv_bn_gelu, drop_rates, size_at, to_map, to_tokens
from hiresvit.models.mixformer_block import Block
from hiresvit.models.retinanet import Detector
from hiresvit.models.upernet import CHANNELS, UPerNetHead
from hiresvit.spec import STRIDES, ModelSpec

STEM_STRIDE = 4
LAST_CHANNELS = 1280


@dataclass(frozen=True)
class MixFormerConfig:
    """What differs between the variants (paper, Table 2; B0, B5 and B6 are in the authors' code only)."""

    channels: int  # of the first stage; each further stage has twice as many
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        require_rate(self.drop_path)

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels of the four stages."""
        return self.channels, 2 * self.channels, 4 * self.channels, 8 * self.channels


VARIANTS: dict[str, MixFormerConfig] = {
    "mixformer_b0": MixFormerConfig(24, (1, 2, 6, 6), (3, 6, 12, 24)),
    "mixformer_b1": MixFormerConfig(32, (1, 2, 6, 6), (2, 4, 8, 16)),
    "mixformer_b2": MixFormerConfig(32, (2, 2, 8, 8), (2, 4, 8, 16), 0.05),
    "mixformer_b3": MixFormerConfig(48, (2, 2, 8, 6), (3, 6, 12, 24), 0.1),
    "mixformer_b4": MixFormerConfig(64, (2, 2, 8, 8), (4, 8, 16, 32), 0.2),
    "mixformer_b5": MixFormerConfig(96, (1, 2, 8, 6), (6, 12, 24, 48), 0.3),
    "mixformer_b6": MixFormerConfig(96, (2, 4, 16, 12), (6, 12, 24, 48), 0.5),
}


def check(spec: ModelSpec) -> None:
    """Raise UsageError on a size or an override that the family cannot take; builds nothing.

    Sides are padded to a multiple of 4 and must then be multiples of 32: every stage halves its map.
    """
    require_multiples(spec.imgsz, STRIDES[-1], "MixFormer", fill=STEM_STRIDE - 1)
    configured(VARIANTS, spec)


def build(spec: ModelSpec) -> nn.Module:
    """The model of a spec, with fresh weights."""
    config = configured(VARIANTS, spec)
    if spec.task == "detect":
        return Detector(MixFormer(config, spec.imgsz), config.widths, spec)
    return build_task(spec, config, MixFormer, MixFormerClassifier, MixFormerSegmentor)


class MixFormer(nn.Module):
    """The backbone: image (B, 3, H, W) -> four maps (B, C_i, H/s_i, W/s_i), strides 4, 8, 16, 32 of the padded image.

    A map is its stage's output before the downsampling, without a norm. Static in H and W.
    """

    def __init__(self, config: MixFormerConfig, imgsz: Size) -> None:
        super().__init__()
        self.imgsz = imgsz
        self.padding = (-imgsz[0] % STEM_STRIDE, -imgsz[1] % STEM_STRIDE)
        padded = imgsz[0] + self.padding[0], imgsz[1] + self.padding[1]
        self.sizes = [size_at(padded, stride) for stride in STRIDES]
        self.patch_embed = PatchEmbed(config.channels)
        rates = drop_rates(config.drop_path, config.depths)
        self.layers = nn.ModuleList(
            Stage(channels, heads, size, drop, last=size == self.sizes[-1])
            for channels, heads, size, drop in zip(config.widths, config.heads, self.sizes, rates, strict=True)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(to_map(x, size) for x, size in zip(self.stages(image), self.sizes, strict=True))

    def real_shares(self) -> dict[str, Fraction]:
        """Of the image that is computed the share that was given: all products are of it (`hiresvit.models.cost`)."""
        (height, width), (below, right) = self.imgsz, self.padding
        return {"*": Fraction(height * width, (height + below) * (width + right))}

    def stages(self, image: Tensor) -> list[Tensor]:
        """The four stages' tokens (B*N_i, C_i)."""
        require_laid_out(image, self.imgsz)
        if any(self.padding):
            image = F.pad(image, (0, self.padding[1], 0, self.padding[0]))
        x = self.patch_embed(image)
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
            x = layer.downsample(x)  # type: ignore[operator]
        return outputs


class MixFormerClassifier(MixFormer):
    """Backbone, norm and a projection to 1280 channels, averaged: (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, config: MixFormerConfig, imgsz: Size, num_classes: int) -> None:
        super().__init__(config, imgsz)
        self.norm = nn.LayerNorm(config.widths[-1])
        self.last_proj = nn.Linear(config.widths[-1], LAST_CHANNELS)
        self.head = nn.Linear(LAST_CHANNELS, num_classes)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        x = self.stages(image)[-1]
        x = F.gelu(self.last_proj(self.norm(x)))
        height, width = self.sizes[-1]
        out: Tensor = self.head(x.reshape(-1, height * width, LAST_CHANNELS).mean(dim=1))
        return out

    def fold_(self) -> None:
        """The norm's affine into the projection."""
        self.norm = affine_into_(self.norm, self.last_proj)


class MixFormerSegmentor(Segmentor):
    """Backbone and UPerNet head: (B, 3, H, W) -> logits (B, classes, H/4, W/4) of the padded image."""

    def __init__(self, config: MixFormerConfig, imgsz: Size, num_classes: int) -> None:
        backbone = MixFormer(config, imgsz)
        super().__init__(backbone, UPerNetHead(config.widths, CHANNELS, num_classes, size=backbone.sizes[-1]))


class PatchEmbed(nn.Module):
    """Three 3x3 convolutions, a 2x2 of stride 2 and a norm: (B, 3, H, W) -> tokens (B*N, C) at stride 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.stem = FoldableSequential(
            *conv_bn_gelu(3, half, stride=2), *conv_bn_gelu(half, half), *conv_bn_gelu(half, half)
        )
        self.proj = nn.Conv2d(half, channels, 2, stride=2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.norm(to_tokens(self.proj(self.stem(image))))
        return out


class Stage(nn.Module):
    """The blocks of one stage on tokens (B*N, C), and the way down to the next, which the caller takes."""

    def __init__(self, channels: int, heads: int, size: Size, drop: list[float], *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(channels, heads, size, rate) for rate in drop))
        self.downsample: nn.Module = nn.Identity() if last else Downsample(channels, size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out


class Downsample(nn.Module):
    """BatchNorm and a 2x2 convolution of stride 2: tokens (B*N, C) -> (B*N/4, 2C)."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.reduction = nn.Conv2d(channels, 2 * channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.reduction(self.norm(to_map(x, self.size))))

    def fold_(self) -> None:
        """The BatchNorm into the convolution behind it; exact, because nothing is padded."""
        self.reduction = scale_before(self.reduction, *bn_scale_shift(self.norm))
        self.norm = nn.Identity()
