"""The blocks of HIRI-ViT: high-resolution convolution, convolutional feed-forward, transformer.

Part of `hiresvit.models.hiri_vit`; its docstring has the paper, the map of the network and the letters of the shapes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import affine_into_, bn_scale_shift, conv_like, double_bias, scale_after, scale_before
from hiresvit.models.layers import DropPath, Size, to_tokens, upsample

HEAD_DIM = 64


class HRBlock(nn.Module):
    """High-resolution block: (B, C, H, W) -> the same, H and W even.

    A light branch at full size, a 3x3 depthwise convolution, beside a heavy one at half the size, which is
    enlarged by repetition. Pre-norm, no norm or activation on the light branch: ours.
    """

    pairs = (("low", "low_norm"),)  # not the first norm, for its shift meets zero padding

    def __init__(self, channels: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.high = depthwise(channels, bias=False)
        self.low = depthwise(channels, stride=2, bias=False)
        self.low_norm = nn.BatchNorm2d(channels)
        self.fc1 = nn.Conv2d(channels, ratio * channels, 1)
        self.fc2 = nn.Conv2d(ratio * channels, channels, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        low = self.fc2(F.gelu(self.fc1(self.low_norm(self.low(n)))))  # (B, C, H/2, W/2)
        out: Tensor = x + self.drop_path(self.high(n) + upsample(low, 2, "nearest"))
        return out


class CFFN(nn.Module):
    """Convolutional feed-forward with its residual: (B, C, H, W) -> the same.

    ``x + FC2(z + DW(z)), z = GELU(FC1(BN(x)))``. Folded, the inner identity is the middle of the kernel.
    """

    def __init__(self, channels: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.fc1 = nn.Conv2d(channels, ratio * channels, 1)
        self.dwconv = depthwise(ratio * channels)
        self.fc2 = nn.Conv2d(ratio * channels, channels, 1)
        self.drop_path = DropPath(drop_path)
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        z = F.gelu(self.fc1(self.norm(x)))
        mixed = self.dwconv(z) if self.folded else z + self.dwconv(z)
        out: Tensor = x + self.drop_path(self.fc2(mixed))
        return out

    def fold_(self) -> None:
        """The BatchNorm into the 1x1 behind it, the identity into the depthwise kernel."""
        self.fc1 = scale_before(self.fc1, *bn_scale_shift(self.norm))
        self.norm = nn.Identity()
        weight = self.dwconv.weight.double().clone()
        weight[:, 0, 1, 1] += 1
        self.dwconv = conv_like(self.dwconv, weight, double_bias(self.dwconv))
        self.folded = True


class Transformer(nn.Module):
    """``x + MHA(LN(x))``, then CFFN: (B, C, H, W) -> the same. Attention is over all tokens of the map."""

    def __init__(self, channels: int, ratio: int, drop_path: float, size: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attn = Attention(channels, size)
        self.drop_path = DropPath(drop_path)
        self.ffn = CFFN(channels, ratio, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm(to_tokens(x))))
        out: Tensor = self.ffn(x)
        return out

    def fold_(self) -> None:
        """The norm's affine into the projection behind it."""
        self.norm = affine_into_(self.norm, self.attn.qkv)


class Attention(nn.Module):
    """Multi-head self-attention with 64 channels a head: tokens (B*N, C) -> map (B, C, H, W).

    The output projection is a 1x1 convolution of the map: runtimes add the residual, a map, in the same pass.
    """

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.size = size
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Conv2d(channels, channels, 1)
        self.scale = HEAD_DIM**-0.5

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.size[0] * self.size[1]
        qkv = self.qkv(x).reshape(-1, tokens, 3 * self.heads, HEAD_DIM).transpose(1, 2)
        q, k, v = torch.split(qkv, self.heads, dim=1)  # (B, heads, N, d)
        scores = (q * self.scale if self.scale != 1 else q) @ k.transpose(2, 3)  # (B, heads, N, N)
        mixed = (scores.softmax(dim=3) @ v).transpose(2, 3)  # (B, heads, d, N)
        out: Tensor = self.proj(mixed.reshape(-1, self.heads * HEAD_DIM, *self.size))
        return out

    def fold_(self) -> None:
        """The scale into the rows of q."""
        scale = torch.ones_like(self.qkv.weight[:, 0], dtype=torch.float64)
        scale[: self.heads * HEAD_DIM] = self.scale
        self.qkv = scale_after(self.qkv, scale)
        self.scale = 1.0


def depthwise(channels: int, stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 depthwise convolution."""
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=bias)
