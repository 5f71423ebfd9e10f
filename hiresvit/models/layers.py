"""Layers that more than one family uses. Shapes: B batch, C channels, H and W the map, N = H*W tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


def size_at(imgsz: Size, stride: int) -> Size:
    """Height and width of the map with this stride."""
    return imgsz[0] // stride, imgsz[1] // stride


def real_pairs(length: int, window: int) -> int:
    """Pairs of positions in the same window, along a side of ``length`` that is cut into windows from its start."""
    whole, rest = divmod(length, window)
    return whole * window**2 + rest**2


def to_tokens(x: Tensor) -> Tensor:
    """Rows of one token each, so that a Linear is one Gemm with its bias inside: (B, C, H, W) -> (B*H*W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def to_map(x: Tensor, size: Size) -> Tensor:
    """The inverse of `to_tokens`: (B*H*W, C) -> (B, C, H, W)."""
    return x.reshape(-1, *size, x.shape[-1]).permute(0, 3, 1, 2)


def upsample(x: Tensor, factor: int, mode: str) -> Tensor:
    """Enlarge a map by a whole factor, ``nearest`` or ``bilinear``: (B, C, H, W) -> (B, C, factor*H, factor*W).

    A factor, not a size: the graph then holds two constants and no shape arithmetic, whatever the batch is.
    """
    return x if factor == 1 else F.interpolate(x, scale_factor=float(factor), mode=mode)


def averages(length: int, count: int) -> Tensor:
    """(count, length), float64: the weights of PyTorch's adaptive average pooling along one side."""
    index = torch.arange(count, device="cpu")[:, None]
    start, end = index * length // count, -(-(index + 1) * length // count)
    position = torch.arange(length, device="cpu")
    return ((position >= start) & (position < end)).double() / (end - start)


def blends(source: int, target: int) -> Tensor:
    """(target, source), float64: the weights of a bilinear resize along one side, corners not aligned."""
    centre = (torch.arange(target, dtype=torch.float64, device="cpu")[:, None] + 0.5) * source / target - 0.5
    distance = (centre.clamp(0, source - 1) - torch.arange(source, device="cpu")).abs()
    return (1 - distance).clamp(min=0)


def conv_bn_gelu(in_channels: int, channels: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """A 3x3 convolution with BatchNorm and GELU: (B, C_in, H, W) -> (B, C, H/stride, W/stride)."""
    return nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1), nn.BatchNorm2d(channels), nn.GELU()


def drop_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth per stage and block: from 0 in the first block in equal steps to ``last`` in the last."""
    rates = iter([last * block / (sum(depths) - 1) for block in range(sum(depths))])
    return [list(islice(rates, depth)) for depth in depths]


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample while training (stochastic depth, Huang et al. 2016).

    Works on tokens (B*H*W, C), where ``tokens`` is H*W and rows are grouped by sample, and on maps (B, C, H, W).
    """

    def __init__(self, rate: float, tokens: int = 1) -> None:
        super().__init__()
        self.rate = rate
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty(x.shape[0] // self.tokens, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)
        return (x.reshape(len(mask), -1) * (mask / keep)).reshape(x.shape)


def pointwise(linear: nn.Linear, x: Tensor) -> Tensor:
    """A Linear over the channels of a map, as a 1x1 convolution: (B, C_in, H, W) -> (B, C_out, H, W)."""
    return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
