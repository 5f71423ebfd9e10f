"""Mask2Former's pixel decoder: multi-scale deformable attention over three maps, then one step of a feature pyramid.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022, section 3.2; the
attention is Zhu et al., "Deformable DETR", ICLR 2021, equation 3. Written from the papers and from notes on how
mmdet 3.3 behaves, whose module names are the checkpoints' keys.

    maps of strides 4, 8, 16, 32 -> tokens of 32, 16 and 8, coarse to fine -> 6 layers of deformable attention
    -> tokens of three levels, and a map of stride 4 (a pyramid's step) that masks are products with

B batch, D = 256 channels, N tokens of all levels, L = 3 levels, P = 4 points, h = 8 heads of d = 32; (H_l, W_l) a
level's map. Tokens are rows (B*N, D): a Linear is one Gemm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import double_bias, linear_from
from hiresvit.models.layers import Size, size_at, to_map, upsample

CHANNELS = 256
HEADS = 8
POINTS = 4
GROUPS = 32  # of the GroupNorms
ENCODER_LAYERS = 6
ENCODER_FFN_CHANNELS = 1024
LEVEL_STRIDES = (32, 16, 8)  # of the levels, in their order
TEMPERATURE = 10000


class PixelDecoder(nn.Module):
    """Four maps (B, C_i, ..), strides 4, 8, 16, 32 -> tokens (B*H_l*W_l, D) of each level, a map (B, D, H/4, W/4).

    Static in the image's size ``imgsz``.
    """

    def __init__(self, in_channels: Sequence[int], imgsz: Size) -> None:
        super().__init__()
        self.sizes = [size_at(imgsz, stride) for stride in LEVEL_STRIDES]
        finest, *coarser = in_channels
        self.input_convs = nn.ModuleList(NormedConv(c, 1, bias=True) for c in reversed(coarser))
        self.level_encoding: nn.Module = nn.Embedding(len(LEVEL_STRIDES), CHANNELS)
        self.encoder = Encoder(self.sizes)
        self.lateral_convs = nn.ModuleList([NormedConv(finest, 1, bias=False)])
        self.output_convs = nn.ModuleList([NormedConv(CHANNELS, 3, bias=False)])
        self.mask_feature = MaskFeature()
        sines = [sine_positions(size) for size in self.sizes]
        self.sines = nn.Buffer(torch.cat(sines).to(torch.get_default_dtype()), persistent=False)  # (N, D)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        finest, *coarser = maps
        projected = [conv(x) for conv, x in zip(self.input_convs, reversed(coarser), strict=True)]
        rows = torch.cat([x.flatten(2) for x in projected], dim=2).transpose(1, 2)  # (B, N, D)
        levels = self.split(self.encoder(rows.reshape(-1, CHANNELS), self.positions()))
        coarse = to_map(levels[-1], self.sizes[-1])  # (B, D, H/8, W/8)
        merged = self.lateral_convs[0](finest) + upsample(coarse, 2, "bilinear")
        return levels, self.mask_feature(F.relu(self.output_convs[0](merged)))

    def positions(self) -> Tensor | None:
        """What is added to tokens where they are queries, (N, D); None where it is folded."""
        if not isinstance(self.level_encoding, nn.Embedding):
            return None
        levels = zip(torch.split(self.sines, self.encoder.counts), self.level_encoding.weight, strict=True)
        return torch.cat([sines + level for sines, level in levels])

    def split(self, rows: Tensor) -> list[Tensor]:
        """(B*N, D) -> rows of each level."""
        counts = self.encoder.counts
        parts = torch.split(rows.reshape(-1, sum(counts), CHANNELS), counts, dim=1)
        return [part.reshape(-1, CHANNELS) for part in parts]

    def fold_(self) -> None:
        """Positions into what reads them: the places and the weights of the points."""
        positions = self.positions()
        assert positions is not None
        for layer in self.encoder.layers:
            assert isinstance(layer, EncoderLayer)
            layer.self_attn.fold_points_(positions)
        self.level_encoding = nn.Identity()


class MaskFeature(nn.Conv2d):
    """What masks are products with: D channels of D, of each place."""

    lowest_precision = "fp16"  # the sign of a mask hides keys

    def __init__(self) -> None:
        super().__init__(CHANNELS, CHANNELS, 1)


class NormedConv(nn.Module):
    """A convolution and a GroupNorm, without an activation: keys ``conv``, ``gn``; to D channels."""

    def __init__(self, in_channels: int, kernel: int, *, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, CHANNELS, kernel, padding=kernel // 2, bias=bias)
        self.gn = GroupNorm()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gn(self.conv(x))
        return out


class GroupNorm(nn.GroupNorm):
    """GroupNorm on a map (B, D, H, W), as a norm of each group's numbers and then of each channel an affine.

    ONNX's own GroupNormalization has another meaning up to opset 20 than from 21 on, and Qualcomm's HTP has none;
    InstanceNormalization is everywhere, and TensorRT makes one kernel of it. Statistics stay in FP32: they are sums of
    up to 8*H*W squares.
    """

    lowest_precision = "fp32"

    def __init__(self) -> None:
        super().__init__(GROUPS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        grouped = x.reshape(-1, GROUPS, CHANNELS // GROUPS * height, width)
        normed = F.instance_norm(grouped, eps=self.eps).reshape(-1, CHANNELS, height, width)
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


class Encoder(nn.Module):
    """Six layers of deformable attention: rows (B*N, D) -> rows (B*N, D)."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(ENCODER_LAYERS))

    @property
    def counts(self) -> list[int]:
        """How many tokens each level has."""
        return [height * width for height, width in self.sizes]

    def forward(self, rows: Tensor, positions: Tensor | None) -> Tensor:
        for layer in self.layers:
            rows = layer(rows, positions)
        return rows


class EncoderLayer(nn.Module):
    """Deformable attention and feed-forward, each with its residual and a norm behind it."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(sizes)
        self.ffn = FeedForward(ENCODER_FFN_CHANNELS)
        self.norms = nn.ModuleList(nn.LayerNorm(CHANNELS) for _ in range(2))

    def forward(self, rows: Tensor, positions: Tensor | None) -> Tensor:
        rows = self.norms[0](rows + self.self_attn(rows, positions))
        out: Tensor = self.norms[1](rows + self.ffn(rows))
        return out


class FeedForward(nn.Module):
    """Two Linears with a ReLU between them, under mmcv's names: ``layers.0.0``, ``layers.1``; rows to rows."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(CHANNELS, wide), nn.ReLU()), nn.Linear(wide, CHANNELS))

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.layers(rows)
        return out


class DeformableAttention(nn.Module):
    """Each token reads P points of each level and head: places and weights come from the token itself.

    Rows (B*N, D) -> rows (B*N, D). A place is read bilinearly, and is zero outside of the map.
    """

    def __init__(self, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.counts = [height * width for height, width in sizes]
        self.sampling_offsets: nn.Module = nn.Linear(CHANNELS, 2 * HEADS * len(sizes) * POINTS)
        self.attention_weights: nn.Module = nn.Linear(CHANNELS, HEADS * len(sizes) * POINTS)
        self.value_proj = nn.Linear(CHANNELS, CHANNELS)
        self.output_proj = nn.Linear(CHANNELS, CHANNELS)
        self.points: FoldedPoints | None = None
        self.reset_points()

    def reset_points(self) -> None:
        """Points of fresh weights lie on rays, one for each head, a step apart (Deformable DETR, appendix A.4)."""
        assert isinstance(self.sampling_offsets, nn.Linear)
        assert isinstance(self.attention_weights, nn.Linear)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angles = torch.arange(HEADS, device="cpu") * (2 * math.pi / HEADS)
        rays = torch.stack([angles.cos(), angles.sin()], dim=1)
        rays = rays / rays.abs().amax(dim=1, keepdim=True)  # (h, 2), to the border of a square
        steps = torch.arange(1, POINTS + 1, device="cpu")[:, None]
        bias = (rays[:, None, None] * steps).expand(-1, len(self.sizes), -1, -1)  # (h, L, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.flatten())

    def forward(self, rows: Tensor, positions: Tensor | None) -> Tensor:
        found, weights = self.find_points(rows, positions) if self.points is None else self.points(rows)
        tokens, points = sum(self.counts), len(self.sizes) * POINTS
        grids = found.permute(0, 2, 3, 1, 4).reshape(-1, points, tokens, 2)  # (B*h, L*P, N, 2)
        weights = weights.softmax(dim=3).permute(0, 2, 3, 1).reshape(-1, 1, points, tokens)  # (B*h, 1, L*P, N)
        values = self.value_proj(rows).reshape(-1, tokens, CHANNELS).transpose(1, 2)  # (B, D, N)
        of_levels, read = torch.split(values, self.counts, dim=2), []
        for value, grid, size in zip(of_levels, torch.split(grids, POINTS, dim=1), self.sizes, strict=True):
            image = value.reshape(-1, CHANNELS // HEADS, *size)  # (B*h, d, H_l, W_l)
            read.append(F.grid_sample(image, grid, "bilinear", "zeros", align_corners=False))  # (B*h, d, P, N)
        mixed = (torch.cat(read, dim=2) * weights).sum(dim=2).reshape(-1, CHANNELS, tokens)
        out: Tensor = self.output_proj(mixed.transpose(1, 2).reshape(-1, CHANNELS))
        return out

    def find_points(self, rows: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Places (B, N, h, L*P, 2) from -1 to 1 on a map, x before y; weights before their softmax (B, N, h, L*P)."""
        assert positions is not None
        tokens, points = len(positions), len(self.sizes) * POINTS
        queries = rows.reshape(-1, tokens, CHANNELS) + positions
        offsets = self.sampling_offsets(queries).reshape(-1, tokens, HEADS, points, 2)
        centres = centres_of(self.sizes).to(rows)[:, None, None]
        places = 2 * (centres + offsets / extents_of(self.sizes).to(rows).repeat_interleave(POINTS, dim=0)) - 1
        weights = self.attention_weights(queries).reshape(-1, tokens, HEADS, points)
        return places, weights

    def fold_points_(self, positions: Tensor) -> None:
        """Positions (N, D), the tokens' own places and the maps' sizes, into one projection for places and weights."""
        self.points = FoldedPoints(self, positions)
        self.sampling_offsets, self.attention_weights = nn.Identity(), nn.Identity()


class FoldedPoints(nn.Module):
    """What `DeformableAttention.find_points` finds, as one product and a constant for each token.

    ``W (x + p) + b = W x + (W p + b)``, and ``2 (c + o / s) - 1 = (2 / s) o + (2 c - 1)``: exact.
    """

    lowest_precision = "fp16"  # an integer would move a point

    def __init__(self, attention: DeformableAttention, positions: Tensor) -> None:
        super().__init__()
        places, weights = attention.sampling_offsets, attention.attention_weights
        assert isinstance(places, nn.Linear)
        assert isinstance(weights, nn.Linear)
        like, positions = places.weight, positions.double()
        scale = 2 / extents_of(attention.sizes).to(positions)  # (L, 2)
        scale = scale[None, :, None].expand(HEADS, -1, POINTS, -1).flatten()
        centres = 2 * centres_of(attention.sizes).to(positions) - 1  # (N, 2)
        at_places = (positions @ places.weight.double().T + double_bias(places)) * scale
        at_places = at_places + centres.repeat(1, len(scale) // 2)
        at_weights = positions @ weights.weight.double().T + double_bias(weights)
        joint = by_head(places.weight.double() * scale[:, None], weights.weight.double(), dim=0).flatten(0, 1)
        self.project = linear_from(joint, torch.zeros_like(joint[:, 0]), like)
        self.constant = nn.Buffer(by_head(at_places, at_weights, dim=1).to(like), persistent=False)  # (N, h, 3*L*P)
        self.points = len(attention.sizes) * POINTS

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = self.project(rows).reshape(-1, *self.constant.shape) + self.constant
        places, weights = torch.split(found, [2 * self.points, self.points], dim=3)
        return places.reshape(-1, len(self.constant), HEADS, self.points, 2), weights


def by_head(places: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Places and weights of each head side by side: of ``dim``, which counts both by head, (h, 3*L*P) is made."""
    before, after = places.shape[:dim], places.shape[dim + 1 :]
    parts = [part.reshape(*before, HEADS, -1, *after) for part in (places, weights)]
    return torch.cat(parts, dim=dim + 1)


def centres_of(sizes: Sequence[Size]) -> Tensor:
    """Where the tokens of all levels are on their maps, from 0 to 1, x before y: (N, 2), float64."""
    centres = []
    for height, width in sizes:
        y = ((torch.arange(height, dtype=torch.float64) + 0.5) / height)[:, None].expand(height, width)
        x = ((torch.arange(width, dtype=torch.float64) + 0.5) / width).expand(height, width)
        centres.append(torch.stack([x, y], dim=2).reshape(-1, 2))
    return torch.cat(centres)


def extents_of(sizes: Sequence[Size]) -> Tensor:
    """Width and height of each level: (L, 2), float64."""
    return torch.tensor([[width, height] for height, width in sizes], dtype=torch.float64)


def sine_positions(size: Size) -> Tensor:
    """Positions of a map's tokens, (H*W, D), float32, which is what the authors' code computes them in.

    Half of the channels are of y, half of x: sines and cosines in turn, of the place counted from 1 to the side's end
    as a share of a full turn, over 64 powers of the temperature (Carion et al., "DETR", ECCV 2020).
    """
    half = CHANNELS // 2
    index = torch.arange(half, dtype=torch.float32)
    periods = TEMPERATURE ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    sides = []
    for length in size:
        place = torch.arange(1, length + 1, dtype=torch.float32)
        angles = (place / (place[-1] + 1e-6) * (2 * math.pi))[:, None] / periods
        waves = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2)
        sides.append(waves.flatten(1))  # (length, D/2)
    y, x = sides[0][:, None].expand(*size, half), sides[1].expand(*size, half)
    return torch.cat([y, x], dim=2).reshape(-1, CHANNELS)
