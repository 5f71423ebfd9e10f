"""The block of MixFormer: window attention and a depthwise convolution side by side, each gating the other.

Part of `hiresvit.models.mixformer`; its docstring has the paper, the map of the network and the letters of the shapes.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import (
    FoldableSequential,
    affine_into_,
    bn_scale_shift,
    double_bias,
    fold_norm_linear,
    linear_from,
)
from hiresvit.models.layers import DropPath, Size, real_pairs, to_map, to_tokens

WINDOW = 7
CELLS = WINDOW * WINDOW
MLP_RATIO = 4
# The parts of a `Mixing` that run on every position of the padded map.
ON_PADDING = ("proj_attn", "proj_cnn", "dwconv3x3", "projection", "qkv", "spatial_interaction")
# The narrowest head that TensorRT fuses into one attention kernel. Of narrower ones all channels are repeated, behind
# the projection: TensorRT copies q, k and v into the attention's layout in any case, and reads what is repeated once.
# Zeros would be one tensor more to read.
FUSED_HEAD_DIM = 16
# Rows of FP16 numbers start at 16 bytes if their length is a multiple of this; tensor cores want that.
ALIGNED = 8


class Block(nn.Module):
    """One MixFormer block on tokens (B*N, C)."""

    def __init__(self, channels: int, heads: int, size: Size, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn: nn.Module = Mixing(channels, heads, size)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels)
        self.drop_path = DropPath(drop_path, size[0] * size[1])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x

    def fold_(self) -> None:
        """The deployed mixing, and norm affines into the projections behind them."""
        assert isinstance(self.attn, Mixing)
        self.attn = deployed = DeployedMixing(self.attn)
        self.norm1 = affine_into_(self.norm1, deployed.proj_in)
        self.norm2 = affine_into_(self.norm2, self.mlp.fc1)


class Mlp(nn.Module):
    """Two Linears with a GELU between, on tokens (B*N, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, MLP_RATIO * channels)
        self.fc2 = nn.Linear(MLP_RATIO * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class WindowAttention(nn.Module):
    """How a map of ``size`` is cut into 7x7 windows, and the attention inside them.

    Maps are padded below and to the right with zeros, which attend and are attended to like any other cell: the
    authors' code has no mask.
    """

    def __init__(self, width: int, heads: int, size: Size) -> None:
        super().__init__()
        self.width, self.heads, self.head_dim = width, heads, width // heads
        self.copies = 1
        self.size = size
        self.padding = (-size[0] % WINDOW, -size[1] % WINDOW)
        self.padded = (size[0] + self.padding[0], size[1] + self.padding[1])

    def pad(self, x: Tensor) -> Tensor:
        """Zeros to whole windows: tokens (B*N, C) -> (B*Np, C)."""
        if not any(self.padding):
            return x
        padding = (0, 0, 0, self.padding[1], 0, self.padding[0])
        return F.pad(x.reshape(-1, *self.size, x.shape[1]), padding).reshape(-1, x.shape[1])

    def to_windows(self, x: Tensor) -> Tensor:
        """Tokens (B*Np, c) row by row -> the same window by window, (B*nW*49, c)."""
        across = self.padded[1] // WINDOW
        return x.reshape(-1, WINDOW, across, WINDOW * x.shape[1]).transpose(1, 2).reshape(-1, x.shape[1])

    def attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """Softmax(q k^T + bias) v inside windows: (B*nW*49, 3*h*d) window by window -> map (B, Hp, Wp, a).

        The channels of each head are taken ``copies`` times: q k^T is then that many times what it was.
        """
        qkv = qkv.reshape(-1, CELLS, 3 * self.heads, self.head_dim).transpose(1, 2)
        if self.copies > 1:
            qkv = torch.cat([qkv] * self.copies, dim=3)
        q, k, v = torch.split(qkv, self.heads, dim=1)  # (B*nW, h, 49, d)
        scores = q @ k.transpose(2, 3) + bias  # (B*nW, h, 49, 49)
        out = (scores.softmax(dim=3) @ v)[..., : self.head_dim].transpose(1, 2)  # (B*nW, 49, h, d)
        # Of five axes: four would do, but Qualcomm's compiler refuses them for a map that is not square (docs/htp.md).
        out = out.reshape(-1, self.padded[1] // WINDOW, WINDOW, WINDOW, self.width)
        return out.transpose(1, 2).reshape(-1, *self.padded, self.width)

    def crop(self, x: Tensor, axis: int) -> Tensor:
        """A map without its padding, Hp and Wp -> H and W; ``axis`` is that of the height."""
        if not any(self.padding):
            return x
        return x.narrow(axis, 0, self.size[0]).narrow(axis + 1, 0, self.size[1])


class Mixing(WindowAttention):
    """The paper's mixing block: tokens (B*N, C) -> (B*N, C).

    All of it sees the padding, also the statistics that its BatchNorms gather in training.
    """

    def __init__(self, channels: int, heads: int, size: Size) -> None:
        width = channels // 2
        super().__init__(width, heads, size)
        self.proj_attn = nn.Linear(channels, width)
        self.proj_attn_norm = nn.LayerNorm(width)
        self.proj_cnn = nn.Linear(channels, channels)
        self.proj_cnn_norm = nn.LayerNorm(channels)
        self.dwconv3x3 = FoldableSequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.BatchNorm2d(channels), nn.GELU()
        )
        self.channel_interaction = interaction(channels, channels // 8, width)
        self.projection = nn.Conv2d(channels, width, 1)
        self.conv_norm = nn.BatchNorm2d(width)
        self.qkv = HeadProjection(width, heads)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.index = nn.Buffer(torch.tensor(relative_positions()), persistent=False)
        self.spatial_interaction = interaction(width, channels // 16, 1)
        self.attn_norm = nn.LayerNorm(width)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pad(x)
        local = to_map(self.proj_cnn_norm(self.proj_cnn(x)), self.padded)
        local = self.dwconv3x3(local)  # (B, C, Hp, Wp)
        mean = local.mean(dim=(2, 3), keepdim=True)
        channel_gate = self.channel_interaction(mean).sigmoid()  # (B, a, 1, 1)
        qkv = self.qkv(self.proj_attn_norm(self.to_windows(self.proj_attn(x))))
        attended = self.attend(qkv, self.position_bias()) * channel_gate.permute(0, 2, 3, 1)  # (B, Hp, Wp, a)
        spatial_gate = self.spatial_interaction(attended.permute(0, 3, 1, 2)).sigmoid()  # (B, 1, Hp, Wp)
        local = self.conv_norm(self.projection(local) * spatial_gate)  # (B, a, Hp, Wp)
        joint = torch.cat([self.attn_norm(attended), local.permute(0, 2, 3, 1)], dim=3)  # (B, Hp, Wp, C)
        out: Tensor = self.proj(self.crop(joint, 1).flatten(0, 2))
        return out

    def real_shares(self) -> dict[str, Fraction]:
        """Of the products of each part those without padding (`hiresvit.models.cost`); `proj` is behind the crop."""
        cells = Fraction(self.size[0] * self.size[1], self.padded[0] * self.padded[1])
        pairs = [
            Fraction(real_pairs(side, WINDOW), full * WINDOW) for side, full in zip(self.size, self.padded, strict=True)
        ]
        return {"": pairs[0] * pairs[1], **dict.fromkeys(ON_PADDING, cells)}

    def position_bias(self) -> Tensor:
        """The bias of every pair of cells in a window (1, h, 49, 49)."""
        return self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]


class DeployedMixing(WindowAttention):
    """A `Mixing` with the same outputs and fewer, larger steps.

    The attention's output and the gated convolution s*y meet in one projection over [norm(attended), s*y, s]:

        W [norm(attended), BN(s (P y + p))] + b = W_1 norm(attended) + M (s*y) + m s + (b + W_2 shift)

    with W = [W_1, W_2], BN(x) = scale*x + shift, M = W_2 diag(scale) P and m = W_2 (scale*p). That has as many
    multiplications as P followed by W, and one product less. The column s is repeated, with weights of zero, to
    an aligned length.

    The zeros of the padding are put in behind the first projection, where a token of zeros becomes the projection's
    bias: so the bias is added behind them, and the projection sees no padding and takes the affine of norm1. Beyond
    both branches and the mean for the channel gate every token is for itself, so the padding is cropped there.
    """

    def __init__(self, trained: Mixing) -> None:
        super().__init__(trained.width, trained.heads, trained.size)
        like = trained.proj.weight
        inward = (trained.proj_attn, trained.proj_cnn)
        weight, bias = torch.cat([x.weight.double() for x in inward]), torch.cat([*map(double_bias, inward)])
        padded_bias = None
        if any(self.padding):
            padded_bias, bias = bias.to(like.dtype), torch.zeros_like(bias)
        self.padded_bias: Tensor | None
        self.register_buffer("padded_bias", padded_bias, persistent=False)
        self.proj_in = linear_from(weight, bias, like)
        self.copies = -(-FUSED_HEAD_DIM // self.head_dim)
        self.qkv, self.proj_attn_norm = trained.qkv.deployed_behind(trained.proj_attn_norm, self.copies)
        self.position_bias = nn.Buffer(trained.position_bias().detach().contiguous(), persistent=False)
        self.proj_cnn_norm = trained.proj_cnn_norm  # stays whole: the convolution behind it pads with zeros
        self.dwconv3x3 = trained.dwconv3x3
        self.channel_interaction = trained.channel_interaction
        self.spatial_interaction = on_tokens(trained.spatial_interaction)
        self.gates = ALIGNED - 3 * self.width % ALIGNED
        self.proj, self.attn_norm = self.merged_output(trained)

    def merged_output(self, trained: Mixing) -> tuple[nn.Linear, nn.LayerNorm]:
        """The projection described above, and the norm without the affine that went into it."""
        scale, shift = bn_scale_shift(trained.conv_norm)
        first, second = torch.split(trained.proj.weight.double(), self.width, dim=1)
        first, bias, norm = fold_norm_linear(trained.attn_norm, first, double_bias(trained.proj))
        scaled = second * scale
        gate = F.pad((scaled @ double_bias(trained.projection))[:, None], (0, self.gates - 1))
        weight = torch.cat([first, scaled @ trained.projection.weight.double().flatten(1), gate], dim=1)
        return linear_from(weight, bias + second @ shift, trained.proj.weight), norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj_in(x)
        if self.padded_bias is not None:
            x = self.pad(x) + self.padded_bias
        attended, local = torch.split(x, [self.width, 2 * self.width], dim=1)  # (B*Np, a), (B*Np, C)
        local = self.dwconv3x3(to_map(self.proj_cnn_norm(local), self.padded))  # (B, C, Hp, Wp)
        mean = local.mean(dim=(2, 3), keepdim=True)
        channel_gate = self.channel_interaction(mean).sigmoid()  # (B, a, 1, 1)
        qkv = self.qkv(self.proj_attn_norm(self.to_windows(attended)))
        attended = self.crop(self.attend(qkv, self.position_bias), 1)  # (B, H, W, a)
        attended = (attended * channel_gate.permute(0, 2, 3, 1)).reshape(-1, self.width)  # (B*N, a)
        spatial_gate = self.spatial_interaction(attended).sigmoid()  # (B*N, 1)
        # Cropped before it is transposed: TensorRT then needs a kernel less.
        local = to_tokens(self.crop(local, 2)) * spatial_gate  # (B*N, C)
        joint = torch.cat([self.attn_norm(attended), local, *[spatial_gate] * self.gates], dim=1)
        out: Tensor = self.proj(joint)
        return out


class HeadProjection(nn.Linear):
    """Tokens (B*N, a) -> [q, k, v], each (head, d): (B*N, 3a).

    The scale d^-1/2 multiplies the q rows here, so that nothing but the bias stands between the attention's matmuls.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, 3 * width)
        self.heads, self.head_dim = heads, width // heads

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scaled(self.weight), self.scaled(self.bias))

    def scaled(self, rows: Tensor) -> Tensor:
        """Rows of the weight or bias, those of q times the scale."""
        q, kv = torch.split(rows, [self.in_features, 2 * self.in_features])
        return torch.cat([q * self.head_dim**-0.5, kv])

    def deployed_behind(self, norm: nn.LayerNorm, copies: int) -> tuple[nn.Linear, nn.LayerNorm]:
        """A plain Linear with the affine of the norm before it, for an attention that takes ``copies`` of each channel
        of q and k; the plain norm.
        """
        weight, bias, plain = fold_norm_linear(norm, self.weight.double(), double_bias(self))
        rows = self.scaled(torch.cat([weight, bias[:, None]], dim=1))  # (3*h*d, a + 1)
        rows[: self.in_features] /= copies
        return linear_from(rows[:, :-1], rows[:, -1], self.weight), plain


def interaction(channels: int, hidden: int, out: int) -> FoldableSequential:
    """The paper's channel or spatial interaction, from one branch to the gate of the other: keys 0, 1, 3."""
    return FoldableSequential(
        nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.GELU(), nn.Conv2d(hidden, out, 1)
    )


def on_tokens(layers: nn.Sequential) -> nn.Sequential:
    """A sequence of 1x1 convolutions and activations, for rows of channels."""

    def row_wise(layer: nn.Module) -> nn.Module:
        if not isinstance(layer, nn.Conv2d):
            return layer
        return linear_from(layer.weight.double().flatten(1), double_bias(layer), layer.weight)

    return nn.Sequential(*map(row_wise, layers))


def relative_positions() -> list[list[int]]:
    """Row of the bias table for each pair (query, key) of a window's cells, 49 x 49."""
    cells = [(y, x) for y in range(WINDOW) for x in range(WINDOW)]
    span = 2 * WINDOW - 1
    return [[(qy - ky + WINDOW - 1) * span + qx - kx + WINDOW - 1 for ky, kx in cells] for qy, qx in cells]
