"""UPerNet, the segmentation head of Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018.

A pyramid of pools looks at the coarsest map as a whole, a feature pyramid carries the result down to the finest
one. Written from the paper; module names are the keys of mmseg's checkpoints. The auxiliary head that such
checkpoints also hold (``auxiliary_head.*``) is for training only and not built.

B batch, C channels of a map, D channels of the head, H W the finest map, h w the coarsest, s its scales.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import conv_like, double_bias
from hiresvit.models.layers import Size, averages, blends, upsample

CHANNELS = 512  # of the heads in the papers that use it
SCALES = (1, 2, 3, 6)
LEVELS = 4


class UPerNetHead(nn.Module):
    """Four maps (B, C_i, H_i, W_i), each half as fine as the one before -> logits (B, classes, H, W).

    ``size`` is (h, w) of the coarsest map.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, num_classes: int, *, size: Size) -> None:
        super().__init__()
        *finer, coarsest = in_channels
        self.psp_modules = PyramidPooling(coarsest, channels, size)
        self.bottleneck = ConvBlock(coarsest + len(SCALES) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvBlock(c, channels, 1) for c in finer)
        self.fpn_convs = nn.ModuleList(ConvBlock(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = PyramidFusion(channels, size)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *finer, coarsest = maps
        top = self.bottleneck(torch.cat([coarsest, self.psp_modules(coarsest)], dim=1))  # (B, D, h, w)
        outs = [top]
        for x, lateral, smooth in zip(
            reversed(finer), reversed(self.lateral_convs), reversed(self.fpn_convs), strict=True
        ):
            top = lateral(x) + upsample(top, 2, "bilinear")
            outs.insert(0, smooth(top))
        out: Tensor = self.conv_seg(self.dropout(self.fpn_bottleneck(outs)))
        return out


class ConvBlock(nn.Module):
    """A convolution without bias, BatchNorm and ReLU under mmcv's names: keys ``conv``, ``bn``."""

    pairs = (("conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class PyramidPooling(nn.ModuleList):
    """Averages over an s x s grid, projected, back at the map's size: (B, C, h, w) -> (B, 4D, h, w).

    Grids need not divide the map, and may be finer than it: cells then overlap, as PyTorch defines it.
    """

    def __init__(self, in_channels: int, channels: int, size: Size) -> None:
        super().__init__(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvBlock(in_channels, channels, 1)) for scale in SCALES
        )
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        pooled = [F.interpolate(path(x), size=self.size, mode="bilinear") for path in self]
        return torch.cat(pooled, dim=1)

    def deployed(self) -> PooledTokens:
        """The same map as products with constants; the BatchNorms are folded already."""
        return PooledTokens([path[1].conv for path in self], self.size)  # type: ignore[index]


class PooledTokens(nn.Module):
    """`PyramidPooling` without pools and resizes, which no runtime takes at such sizes: (B, C, h, w) -> (B, 4D, h, w).

    Pooling and resizing are linear and separable, so each is a product with a constant matrix. All grids
    together have T = 50 cells: one product pools them, one convolution projects every cell with the weights of
    every grid, and one batched product keeps each grid's own and spreads it over the map.
    """

    def __init__(self, convs: Sequence[nn.Conv2d], size: Size) -> None:
        super().__init__()
        self.size = size
        like = convs[0].weight
        weight = torch.cat([conv.weight.double() for conv in convs])
        self.project = conv_like(convs[0], weight, torch.cat([double_bias(conv) for conv in convs]))
        pools, spreads = zip(*[grid_matrices(scale, size) for scale in SCALES], strict=True)
        spread = torch.block_diag(*spreads)  # type: ignore[no-untyped-call]
        spread = spread.unflatten(1, (len(SCALES), -1)).transpose(0, 1)  # (4, T, h*w)
        self.pool = nn.Buffer(torch.cat(pools, dim=1).to(like), persistent=False)  # (h*w, T)
        self.spread = nn.Buffer(spread.contiguous().to(like), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        cells = x.reshape(-1, x.shape[1], 1, x.shape[2] * x.shape[3]) @ self.pool  # (B, C, 1, T)
        projected = F.relu(self.project(cells))  # (B, 4D, 1, T)
        grids = projected.reshape(-1, len(SCALES), projected.shape[1] // len(SCALES), self.pool.shape[1])
        return (grids @ self.spread).reshape(-1, projected.shape[1], *self.size)  # (B, 4, D, h*w)


class PyramidFusion(ConvBlock):
    """All maps at the finest size, concatenated and convolved: four (B, D, H_i, W_i) -> (B, D, H, W)."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__(LEVELS * channels, channels, 3)
        self.size = size

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        resized = [upsample(x, 2**i, "bilinear") for i, x in enumerate(maps)]
        return super().forward(torch.cat(resized, dim=1))

    def deployed(self) -> FusedPyramid:
        """The same map with each product at the size of its input; the BatchNorm is folded already."""
        return FusedPyramid(self.conv, self.size)


class FusedPyramid(nn.Module):
    """`PyramidFusion` with less to multiply: four maps (B, D, H_i, W_i) -> (B, D, H, W).

    A 3x3 convolution is three 1x3 convolutions, one for each row of the kernel, shifted and added. A 1x3
    convolution commutes with a resize of the height, so a coarse map h x w is only widened, convolved as
    h x W, and what is left (resize, shift, zero padding and sum) is a product with a constant (H, 3h), one
    product for all coarse maps. Of 39 G multiplications at 512 channels and 64x64, 16 G are left. The same in
    both directions leaves 13 G, but takes more kernels and a transposed copy of nine times the map.
    """

    def __init__(self, conv: nn.Conv2d, size: Size) -> None:
        super().__init__()
        like, channels = conv.weight, conv.out_channels
        first, *rest = conv.weight.double().chunk(LEVELS, dim=1)  # each (D, D, 3, 3)
        plain = nn.Conv2d(channels, channels, 3, padding=1, device="meta")
        self.finest = conv_like(plain, first, double_bias(conv), like=like)
        self.lines, rows = nn.ModuleList(), []
        for level, weight in enumerate(rest, start=1):
            line = nn.Conv2d(
                channels, 3 * channels, (1, 3), padding=(0, 1), bias=False, dtype=like.dtype, device=like.device
            )
            line.weight.data.copy_(weight.transpose(1, 2).reshape(line.weight.shape))  # channels (D, row)
            self.lines.append(line)
            rows.append(shifted_resize(size[0] * 2 ** (LEVELS - 1 - level), 2**level))
        self.rows = nn.Buffer(torch.cat(rows, dim=1).to(like), persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        finest, *coarse = maps
        stacked = []
        for level, (x, line) in enumerate(zip(coarse, self.lines, strict=True), start=1):
            wide = F.interpolate(x, scale_factor=(1.0, 2.0**level), mode="bilinear")  # (B, D, h, W)
            stacked.append(line(wide).reshape(-1, x.shape[1], 3 * x.shape[2], wide.shape[3]))
        return F.relu(self.finest(finest) + self.rows @ torch.cat(stacked, dim=2))  # (H, 3h) (B, D, 3h, W)


def shifted_resize(length: int, factor: int) -> Tensor:
    """A line enlarged bilinearly and padded with zeros, seen by each tap of a kernel of 3, in float64.

    (factor * length, 3 * length): column ``k * length + i`` is what pixel i gives to tap k of each output.
    """
    padded = F.pad(blends(length, length * factor), (0, 0, 1, 1))
    return torch.cat([padded[k : k + length * factor] for k in range(3)], dim=1)


def grid_matrices(scale: int, size: Size) -> tuple[Tensor, Tensor]:
    """Of a map h x w: pooling to scale x scale (h*w, s*s) and the bilinear resize back (s*s, h*w), in float64."""
    pools = [averages(length, scale) for length in size]
    spreads = [blends(scale, length) for length in size]
    return torch.kron(*pools).T, torch.kron(*spreads).T
