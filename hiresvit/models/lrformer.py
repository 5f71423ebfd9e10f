"""LRFormer: attention at a fixed low resolution, whatever the size of the map, with convolutions for the detail.

Wu et al., "Low-Resolution Self-Attention for Semantic Segmentation", arXiv 2310.05026.
Written from the paper and from notes on how the authors' code behaves; where the two differ the code is followed,
because checkpoints come from it (docs/models.md lists every difference). Module names are the checkpoints' keys.

    image (B, 3, H, W) - stem, stride 4 - stage 1 .. 4, strides 4, 8, 16, 32 - head
    block:  x + DW(x), then x + LRSA(norm(x)), then x + FFN(norm(x))
    LRSA:   queries are the map pooled to m on its short side, keys and values are four smaller poolings with a
            convolution each; the result is resized to the map

B batch, C channels of a stage, H W its map, N = H*W tokens; m the pooled size, Q tokens of the pooled queries, T of
the keys, h heads of d channels. Tokens are rows (B*N, C): a Linear is one Gemm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.models.family import build_task, configured, require_laid_out, require_multiples, require_rate
from hiresvit.models.fold import FoldableSequential
from hiresvit.models.heads import Segmentor
from hiresvit.models.layers import Size, conv_bn_gelu, drop_rates, size_at
from hiresvit.models.lrformer_block import EPS, KEY_SIXTEENTHS, Block, ChannelNorm, LowResolutionAttention, ResidualConv
from hiresvit.models.lrformer_head import Classifier, LRHead
from hiresvit.models.mask2former import Mask2FormerHead, check_postprocess
from hiresvit.spec import STRIDES, ModelSpec

HEADS = (2, 4, 10, 16)
RATIOS = (8, 8, 4, 4)
LAYER_SCALE = (False, False, True, True)
# Blocks of stage 3 that start with a BatchNorm where that stage is deeper than 20 (XL alone; the authors' code).
PRE_NORMS, PRE_NORM_DEPTH = (7, 15), 20
# Where a map's short side is not above a pooled size, of the queries or of one of the keys: the authors' code pools all
# the same, which enlarges the map; the paper leaves that pooling out, and the map itself takes its place.
POOL_SMALL = ("official", "skip")


@dataclass(frozen=True)
class LRFormerConfig:
    """What differs between the variants (paper, Table 2)."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    drop_path: float
    decoder: int | None  # channels of the LRHead; the paper's XL has none
    pooled_size: int | None = None  # of the encoder's queries; None is the task's default
    pool_small: str = "official"
    plus: bool = False  # LRFormer+: Mask2Former's head instead of the LRHead
    postprocess: str = "exact"

    def __post_init__(self) -> None:
        if self.pooled_size is not None and (type(self.pooled_size) is not int or self.pooled_size < 2):
            raise UsageError(f"pooled_size={self.pooled_size!r}: give a whole number of 2 or more, such as 16")
        if self.pool_small not in POOL_SMALL:
            raise UsageError(f"pool_small={self.pool_small!r}: choose {' or '.join(POOL_SMALL)}")
        require_rate(self.drop_path)
        check_postprocess(self.postprocess)

    @property
    def skip(self) -> bool:
        """Whether a pooling that would not make its map smaller is left out."""
        return self.pool_small == "skip"


VARIANTS: dict[str, LRFormerConfig] = {
    "lrformer_t": LRFormerConfig((48, 96, 240, 384), (2, 2, 6, 3), 0.1, 256),
    "lrformer_s": LRFormerConfig((64, 128, 320, 512), (3, 3, 12, 3), 0.2, 384),
    "lrformer_b": LRFormerConfig((80, 160, 400, 512), (4, 4, 15, 8), 0.4, 512),
    "lrformer_l": LRFormerConfig((96, 192, 480, 640), (4, 6, 18, 8), 0.6, 640),
    "lrformer_xl": LRFormerConfig((128, 256, 640, 768), (4, 8, 22, 8), 0.4, None),
}
VARIANTS |= {f"{name}_plus": replace(config, plus=True) for name, config in VARIANTS.items()}


def check(spec: ModelSpec) -> None:
    """Raise UsageError on a size or an override that the family cannot take; builds nothing."""
    require_multiples(spec.imgsz, STRIDES[-1], "LRFormer")
    config = configured(VARIANTS, spec)
    if spec.task == "masks" and "postprocess" in dict(spec.overrides):
        raise UsageError("postprocess makes labels of masks, for segment only; the task is masks")
    short = min(spec.imgsz) // STRIDES[0]
    if config.pooled_size is not None and config.pooled_size > short:
        raise UsageError(
            f"pooled_size={config.pooled_size}: larger than the short side of the largest map, {short} at"
            f" {spec.imgsz[0]}x{spec.imgsz[1]}; give 2 to {short}"
        )


def build(spec: ModelSpec) -> nn.Module:
    """The model of a spec, with fresh weights.

    Queries are pooled to 16 by default; for ImageNet to the size of the last map, 7 at 224 and 12 at 384 in the paper.
    """
    config = configured(VARIANTS, spec)
    if config.pooled_size is None:
        last = max(2, min(spec.imgsz) // STRIDES[-1])
        config = replace(config, pooled_size=last if spec.task == "classify" else 16)
    if config.plus:
        backbone, raw = LRFormer(config, spec.imgsz), spec.task == "masks"
        head = Mask2FormerHead(config.channels, spec.imgsz, spec.num_classes, postprocess=config.postprocess, raw=raw)
        return Segmentor(backbone, head)
    return build_task(spec, config, LRFormer, LRFormerClassifier, LRFormerSegmentor)


class LRFormer(nn.Module):
    """The backbone: image (B, 3, H, W) -> four maps (B, C_i, H/s_i, W/s_i), strides 4, 8, 16, 32.

    Static in H and W, which must be multiples of 32. The last maps have no norm.
    """

    def __init__(self, config: LRFormerConfig, imgsz: Size) -> None:
        super().__init__()
        self.imgsz = imgsz
        rates = drop_rates(config.drop_path, config.depths)
        for stage, (channels, drop) in enumerate(zip(config.channels, rates, strict=True)):
            size = size_at(imgsz, STRIDES[stage])
            embed = patch_embed(config.channels[stage - 1], channels) if stage else stem_embed(channels)
            blocks = nn.ModuleList(encoder_block(config, stage, i, size, rate) for i, rate in enumerate(drop))
            self.add_module(f"patch_embed{stage + 1}", embed)
            self.add_module(f"block{stage + 1}", blocks)
            self.add_module(f"d_convs{stage + 1}", KeyConvs(channels))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        require_laid_out(image, self.imgsz)
        x, maps = image, []
        for stage in range(1, len(STRIDES) + 1):
            x = self.get_submodule(f"patch_embed{stage}")(x)
            local = self.get_submodule(f"d_convs{stage}")
            for block in self.get_submodule(f"block{stage}"):  # type: ignore[attr-defined]
                x = block(x, local)
            maps.append(x)
        return tuple(maps)


class LRFormerClassifier(LRFormer):
    """Backbone and classifier: (B, 3, H, W) -> logits (B, classes)."""

    def __init__(self, config: LRFormerConfig, imgsz: Size, num_classes: int) -> None:
        super().__init__(config, imgsz)
        self.head = Classifier(config.channels[-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        out: Tensor = self.head(super().forward(image)[-1])
        return out


class LRFormerSegmentor(Segmentor):
    """Backbone and LRHead: (B, 3, H, W) -> logits (B, classes, H/8, W/8)."""

    def __init__(self, config: LRFormerConfig, imgsz: Size, num_classes: int) -> None:
        assert config.decoder is not None
        backbone, size = LRFormer(config, imgsz), size_at(imgsz, STRIDES[1])
        super().__init__(backbone, LRHead(config.channels, config.decoder, size, num_classes, skip=config.skip))


class KeyConvs(nn.ModuleList):
    """The convolutions of the four pooled maps; all blocks of a stage share them."""

    def __init__(self, channels: int) -> None:
        super().__init__(ResidualConv(channels) for _ in KEY_SIXTEENTHS)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [conv(x) for conv, x in zip(self, maps, strict=True)]


def stem_embed(channels: int) -> nn.Sequential:
    """Four 3x3 convolutions and LayerNorm: (B, 3, H, W) -> (B, C, H/4, W/4)."""
    half = channels // 2
    conv1 = FoldableSequential(
        *conv_bn_gelu(3, half, stride=2),
        *conv_bn_gelu(half, half),
        *conv_bn_gelu(half, channels, stride=2),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
    return nn.Sequential(OrderedDict(conv1=conv1, norm=ChannelNorm(channels, eps=EPS)))


def patch_embed(in_channels: int, channels: int) -> nn.Sequential:
    """3x3 convolution of stride 2 and LayerNorm: (B, C_in, 2H, 2W) -> (B, C, H, W)."""
    proj = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
    return nn.Sequential(OrderedDict(proj=proj, norm=ChannelNorm(channels, eps=EPS)))


def encoder_block(config: LRFormerConfig, stage: int, index: int, size: Size, drop_path: float) -> Block:
    """Block ``index`` of a stage (both from 0)."""
    channels = config.channels[stage]
    assert config.pooled_size is not None
    return Block(
        LowResolutionAttention(channels, HEADS[stage], size, config.pooled_size, skip=config.skip),
        [ChannelNorm(channels, eps=EPS) for _ in range(2)],
        ratio=RATIOS[stage],
        drop_path=drop_path,
        layer_scale=LAYER_SCALE[stage],
        pre_norm=stage == 2 and config.depths[stage] > PRE_NORM_DEPTH and index in PRE_NORMS,
    )
