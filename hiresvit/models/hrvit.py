"""HRViT: four parallel resolutions, each a small vision transformer, that exchange maps before every module.

Gu et al., "Multi-Scale High-Resolution Vision Transformer for Semantic Segmentation", CVPR 2022, arXiv 2111.01236.
Written from the paper and from notes on how the authors' code behaves; where the two differ the code is followed,
because checkpoints come from it (docs/models.md lists every difference). Module names are the checkpoints' keys.

    image (B, 3, H, W) - stem, stride 4 - module 1 .. 6 - maps at strides 4, 8, 16, 32 - head
    module: fusion of all maps (opens a branch in modules 1, 2, 3, 5), then per branch: patch embedding, blocks, norm
    block:  x + Attention(norm(x)) + DiversityShortcut(x), then x + MixCFN(norm(x))
    attention: half the channels look along rows of the map, half along columns, in stripes `window` wide

B batch, C channels of a branch, H W its map, N = H*W tokens, c = C/2 channels of a half, h heads in a half,
d channels of a head, s the window, n stripes of L = s*W tokens. Tokens are rows (B*N, C): a Linear is one Gemm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.models.family import build_task, configured, require_laid_out, require_multiples, require_rate
from hiresvit.models.fold import FoldableSequential
from hiresvit.models.heads import HRNetHead, SegFormerHead, Segmentor
from hiresvit.models.hrvit_block import Block
from hiresvit.models.layers import Size, drop_rates, size_at, to_map, to_tokens, upsample
from hiresvit.models.upernet import CHANNELS, UPerNetHead
from hiresvit.spec import STRIDES, ModelSpec

STEM_CHANNELS = 64
HEADS = ("segformer", "upernet")  # of the segmentor: the paper's choice first


@dataclass(frozen=True)
class HRViTConfig:
    """What differs between the variants (paper, Table 2; head widths of the segmentor from section 4.1)."""

    channels: tuple[int, int, int, int]
    blocks: tuple[tuple[int, ...], ...]  # per module, per branch
    ratios: tuple[int, int, int, int]  # MixCFN expansion per branch
    head_dim: int
    decoder: int  # channels of the SegFormer head
    windows: tuple[int, int, int, int] = (1, 2, 7, 7)
    head: str = "segformer"
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        windows = self.windows if isinstance(self.windows, tuple) else ()
        if len(windows) != 4 or any(type(s) is not int or s < 1 for s in windows):
            raise UsageError(f"windows={self.windows!r}: give four whole numbers of 1 or more, such as 1 2 7 7")
        if self.head not in HEADS:
            raise UsageError(f"head={self.head!r}: give {' or '.join(HEADS)}")
        require_rate(self.drop_path)


EARLY = ((1,), (1, 1), (1, 1, 6), (1, 1, 6))
VARIANTS: dict[str, HRViTConfig] = {
    "hrvit_b1": HRViTConfig((32, 64, 128, 256), (*EARLY, (1, 1, 6, 2), (1, 1, 2, 2)), (4, 4, 4, 4), 32, 256),
    "hrvit_b2": HRViTConfig((48, 96, 240, 384), (*EARLY, (1, 1, 6, 2), (1, 1, 6, 2)), (2, 3, 3, 3), 24, 256),
    "hrvit_b3": HRViTConfig((64, 128, 256, 512), (*EARLY, (1, 1, 6, 3), (1, 1, 6, 3)), (2, 2, 2, 2), 32, 768),
    # Not from the paper: ours, small enough to be trained on a CPU and kept in the repository (examples/).
    "hrvit_nano": HRViTConfig((32, 64, 96, 128), ((1, 1, 1), (1, 1, 2, 2)), (2, 2, 2, 2), 16, 64),
}


def check(spec: ModelSpec) -> None:
    """Raise UsageError on a size or an override that the family cannot take; builds nothing."""
    require_multiples(spec.imgsz, STRIDES[-1], "HRViT")
    head = configured(VARIANTS, spec).head
    if spec.task != "segment" and "head" in dict(spec.overrides):
        raise UsageError(f"head={head!r} serves segment; the task is {spec.task}: leave it out")


def build(spec: ModelSpec) -> nn.Module:
    """The model of a spec, with fresh weights."""
    return build_task(spec, configured(VARIANTS, spec), HRViT, HRViTClassifier, HRViTSegmentor)


class HRViT(nn.Module):
    """The backbone: image (B, 3, H, W) -> four maps (B, C_i, H/s_i, W/s_i), strides 4, 8, 16, 32.

    Static in H and W, which must be multiples of 32: stripes, padding and masks are laid out at construction.
    """

    def __init__(self, config: HRViTConfig, imgsz: Size) -> None:
        super().__init__()
        self.imgsz = imgsz
        sizes = [size_at(imgsz, stride) for stride in STRIDES]
        self.stem = Stem()
        rates = drop_rates(config.drop_path, [max(blocks) for blocks in config.blocks])
        layers: list[nn.Module] = []
        incoming: tuple[int, ...] = (STEM_CHANNELS,)
        for blocks, drop in zip(config.blocks, rates, strict=True):
            opened = len(blocks)
            # A new branch is opened with the channels of its variant; the others keep what the last module gave.
            outgoing = (*incoming, *config.channels[len(incoming) : opened])
            layers += [Fusion(incoming, outgoing), Stage(config, outgoing, sizes, blocks, drop)]
            incoming = config.channels[:opened]
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        require_laid_out(image, self.imgsz)
        out: tuple[Tensor, ...] = self.features((self.stem(image),))
        return out


class HRViTClassifier(HRViT):
    """Backbone and HRNetV2 head: (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, config: HRViTConfig, imgsz: Size, num_classes: int) -> None:
        super().__init__(config, imgsz)
        self.head = HRNetHead(config.channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        out: Tensor = self.head(super().forward(image))
        return out


class HRViTSegmentor(Segmentor):
    """Backbone and SegFormer's head or UPerNet: (B, 3, H, W) -> logits (B, classes, H/4, W/4)."""

    def __init__(self, config: HRViTConfig, imgsz: Size, num_classes: int) -> None:
        backbone = HRViT(config, imgsz)
        if config.head == "segformer":
            super().__init__(backbone, SegFormerHead(config.channels, config.decoder, num_classes))
        else:
            coarsest = size_at(imgsz, STRIDES[-1])
            super().__init__(backbone, UPerNetHead(config.channels, CHANNELS, num_classes, size=coarsest))


class Stem(nn.Module):
    """Two 3x3 convolutions of stride 2 (paper, Figure 2): (B, 3, H, W) -> (B, 64, H/4, W/4)."""

    pairs = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS // 2, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS // 2)
        self.conv2 = nn.Conv2d(STEM_CHANNELS // 2, STEM_CHANNELS, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(image)))
        return F.relu(self.bn2(self.conv2(x)))


class Fusion(nn.Module):
    """Cross-resolution fusion (paper, section 3.1): every map becomes GELU of the sum over all incoming maps.

    A finer map comes down through a depthwise (D+1)x(D+1) convolution of stride D and a 1x1; a coarser one comes
    up through a 1x1 and nearest upsampling. Upsampling x4 is x2 twice, so the coarse maps are added at their own
    size on the way up: the same numbers with a fraction of the memory traffic.
    """

    def __init__(self, incoming: Sequence[int], outgoing: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(fusion_path(j, i, incoming[j], channels) for j in range(len(incoming)))
            for i, channels in enumerate(outgoing)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(F.gelu(self.gather(i, maps)) for i in range(len(self.blocks)))

    def gather(self, target: int, maps: Sequence[Tensor]) -> Tensor:
        """The sum of all maps at the resolution of branch ``target``, before the activation."""
        moved = [path(x) for path, x in zip(self.blocks[target], maps, strict=True)]  # type: ignore[call-overload]
        coarse: Tensor | None = None
        for x in reversed(moved[target + 1 :]):
            coarse = upsample(x if coarse is None else x + coarse, 2, "nearest")
        total: Tensor = sum(moved[1 : target + 1], start=moved[0])
        return total if coarse is None else total + coarse


def fusion_path(source: int, target: int, in_channels: int, channels: int) -> nn.Sequential:
    """The layers between branch ``source`` and branch ``target``; upsampling is left to `Fusion`."""
    if source == target:
        return nn.Sequential()
    if source > target:
        return FoldableSequential(nn.Conv2d(in_channels, channels, 1), nn.BatchNorm2d(channels))
    stride = 2 ** (target - source)
    return FoldableSequential(
        nn.Conv2d(in_channels, in_channels, stride + 1, stride, padding=stride // 2, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, channels, 1),
        nn.BatchNorm2d(channels),
    )


class Stage(nn.Module):
    """All branches of one module after the fusion: patch embedding, blocks, final LayerNorm (not in the paper)."""

    def __init__(
        self,
        config: HRViTConfig,
        incoming: Sequence[int],
        sizes: Sequence[Size],
        blocks: Sequence[int],
        drop: Sequence[float],
    ) -> None:
        super().__init__()
        channels = config.channels[: len(blocks)]
        self.patch_embed = nn.ModuleList(map(PatchEmbed, incoming, channels))
        self.branches = nn.ModuleList(
            nn.Sequential(*(block_of(config, branch, sizes[branch], drop[b]) for b in range(depth)))
            for branch, depth in enumerate(blocks)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(c) for c in channels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        parts = zip(maps, self.patch_embed, self.branches, self.norm, strict=True)
        return tuple(to_map(norm(blocks(embed(x))), (x.shape[2], x.shape[3])) for x, embed, blocks, norm in parts)


class PatchEmbed(nn.Module):
    """1x1 and depthwise 3x3 convolution, then LayerNorm: (B, C_in, H, W) -> tokens (B*N, C)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1), nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(to_tokens(self.proj(x)))
        return out


def block_of(config: HRViTConfig, branch: int, size: Size, drop_path: float) -> Block:
    """The block that ``config`` puts on a branch."""
    channels, window, ratio = config.channels[branch], config.windows[branch], config.ratios[branch]
    return Block(channels, size, head_dim=config.head_dim, window=window, ratio=ratio, drop_path=drop_path)
