"""LRFormer's two heads: the decoder of the segmentors, and the classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import conv_like, double_bias, fold_bn
from hiresvit.models.heads import ConvModule
from hiresvit.models.layers import Size, upsample
from hiresvit.models.lrformer_block import Block, LowResolutionAttention

HEADS = 8
RATIO = 4
POOLED_SIZE = 32  # the paper says 16; its multiply-accumulates are those of 32
CLASSIFIER_CHANNELS = 1280


class LRHead(nn.Module):
    """The paper's decoder: maps of strides 4, 8, 16, 32 -> logits (B, classes, H/8, W/8).

    ``in_channels`` are those of the maps; ``size`` is that of the map of stride 8, to which the two coarser ones are
    resized. The one of stride 4 is not read.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, size: Size, num_classes: int, *, skip: bool) -> None:
        super().__init__()
        self.squeeze1 = Squeeze(in_channels[1:], (1, 2, 4), channels)
        self.fuse_block1 = decoder_block(channels, size, skip=skip)
        self.squeeze2 = Squeeze((channels, in_channels[3]), (1, 4), channels)
        self.fuse_block2 = decoder_block(channels, size, skip=skip)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = self.fuse_block1(self.squeeze1(maps[1:]))
        x = self.fuse_block2(self.squeeze2([x, maps[3]]))
        out: Tensor = self.conv_seg(self.dropout(x))
        return out


class Squeeze(ConvModule):
    """Maps (B, C_i, ..), each resized by its whole factor, concatenated -> 1x1 convolution, BatchNorm, ReLU."""

    def __init__(self, in_channels: Sequence[int], factors: Sequence[int], channels: int) -> None:
        super().__init__(sum(in_channels), channels, norm=True)
        self.in_channels, self.factors = list(in_channels), tuple(factors)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(torch.cat(resized(maps, self.factors), dim=1))

    def deployed(self) -> nn.Module:
        """A 1x1 convolution commutes with a bilinear resize: one for every map, then the sum."""
        assert self.bn is not None
        conv = fold_bn(self.conv, self.bn)
        bias = double_bias(conv)
        parts = []
        for weight in torch.split(conv.weight.double(), self.in_channels, dim=1):
            parts.append(conv_like(self.conv, weight, bias))
            bias = torch.zeros_like(bias)  # goes into the first map only
        return SummedSqueeze(parts, self.factors)


class SummedSqueeze(nn.Module):
    """`Squeeze` with a convolution for each map."""

    def __init__(self, convs: Sequence[nn.Conv2d], factors: Sequence[int]) -> None:
        super().__init__()
        self.convs, self.factors = nn.ModuleList(convs), tuple(factors)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        squeezed = [conv(x) for conv, x in zip(self.convs, maps, strict=True)]
        first, *rest = resized(squeezed, self.factors)
        # The full-size convolution comes last: runtimes add and activate in the same pass.
        return F.relu(first + sum(rest[1:], start=rest[0]))


def resized(maps: Sequence[Tensor], factors: Sequence[int]) -> list[Tensor]:
    """Every map enlarged bilinearly by its factor."""
    return [upsample(x, f, "bilinear") for x, f in zip(maps, factors, strict=True)]


class DecoderAttention(LowResolutionAttention):
    """The decoder's, whose checkpoints name and shape the projections otherwise."""

    def __init__(self, channels: int, heads: int, size: Size, pooled: int, *, skip: bool) -> None:
        super().__init__(channels, heads, size, pooled, skip=skip)
        self.q = PointwiseLinear(channels, channels, 1)
        self.kv = nn.Linear(channels, 2 * channels)


class PointwiseLinear(nn.Conv2d):
    """A Linear on rows, with the weights of a 1x1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


def decoder_block(channels: int, size: Size, *, skip: bool) -> Block:
    """The encoder's block with BatchNorms, and without convolutions of the pooled maps."""
    attn = DecoderAttention(channels, HEADS, size, POOLED_SIZE, skip=skip)
    norms = [nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)]
    return Block(attn, norms, ratio=RATIO, drop_path=0.0, layer_scale=True)


class Classifier(nn.Module):
    """Not in the authors' repository; names and activation are ours.

    All five parameter counts of the paper's ImageNet table have a 1x1 convolution to 1280 channels with a BatchNorm
    before the pooling. Map (B, C, H, W) of stride 32 -> logits (B, classes).
    """

    pairs = (("proj", "bn"),)

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, CLASSIFIER_CHANNELS, 1)
        self.bn = nn.BatchNorm2d(CLASSIFIER_CHANNELS)
        self.fc = nn.Linear(CLASSIFIER_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.bn(self.proj(x)))
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out
