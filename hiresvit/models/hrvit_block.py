"""The block of HRViT: attention in two directions, the diversity-enhanced shortcut, the mixed-scale feed-forward.

Part of `hiresvit.models.hrvit`; its docstring has the paper, the map of the network and the letters of the shapes.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import affine_into_, conv_like, double_bias, fold_bn, linear_from
from hiresvit.models.layers import DropPath, Size, pointwise, real_pairs, to_map, to_tokens

# The authors add -100; exp(-100) is a subnormal number, slow on every CPU, while exp(-1e4) is 0. Both vanish beside 1
# in float32 and float64, and -1e4 fits float16.
MASKED = -1e4


class Block(nn.Module):
    """One HRViT block (paper, Figure 3) on tokens (B*N, C)."""

    def __init__(self, channels: int, size: Size, *, head_dim: int, window: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(channels)
        self.attn = Attention(channels, head_dim, window, size)
        self.des = DiversityShortcut(channels)
        self.ffn_norm = nn.LayerNorm(channels)
        self.ffn = MixCFN(channels, ratio, size)
        self.drop_path = DropPath(drop_path, size[0] * size[1])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mix(self.attn(self.attn_norm(x)), self.des(x)))
        x = x + self.drop_path(self.ffn(self.ffn_norm(x)))
        return x

    def mix(self, attended: Tensor, shortcut: Tensor) -> Tensor:
        """Project both and add; folded, the two projections are one over the concatenated channels."""
        if isinstance(self.des.proj_left, nn.Identity):
            out: Tensor = self.attn.to_out(torch.cat([attended, shortcut], dim=1))
            return out
        out = self.attn.attn_bn(self.attn.to_out(attended)) + self.des.proj_left(shortcut)
        return out

    def fold_(self) -> None:
        """Norm affines into the projections behind them; the two output projections into one."""
        self.attn_norm = affine_into_(self.attn_norm, self.attn.to_qkv)
        self.ffn_norm = affine_into_(self.ffn_norm, self.ffn.fc1)
        out, left = self.attn.to_out[0], self.des.proj_left
        assert isinstance(out, nn.Linear)
        assert isinstance(left, nn.Linear)
        weight = torch.cat([out.weight.double(), left.weight.double()], dim=1)
        self.attn.to_out[0] = linear_from(weight, double_bias(out) + double_bias(left), out.weight)
        self.des.proj_left = nn.Identity()


class Attention(nn.Module):
    """HRViTAttn (paper, section 3.2): cross-shaped window attention with K = V and a convolution beside it.

    Tokens (B*N, C) -> activated sum (B*N, C), still to be projected by `to_out` (see `Block.mix`).
    """

    def __init__(self, channels: int, head_dim: int, window: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.width = channels // 2
        self.heads = max(1, self.width // head_dim)
        self.head_dim = self.width // self.heads
        self.to_qkv = StripeProjection(channels, self.head_dim)
        self.parallel_conv = nn.Sequential(nn.Hardswish(), nn.Conv2d(channels, channels, 3, padding=1, groups=channels))
        self.to_out = nn.Sequential(nn.Linear(channels, channels))
        self.attn_bn = nn.BatchNorm1d(channels)
        nn.init.zeros_(self.attn_bn.weight)  # the authors start the attention path at zero
        height, width = size
        self.lines = window == 1 and self.heads == 1
        square = height == width  # then both halves have the same stripes and share one attention
        self.rows = Stripes(window, height, width, maps=2 if square else 1, heads=self.heads)
        self.columns = None if square else Stripes(window, width, height, maps=1, heads=self.heads)

    def forward(self, x: Tensor) -> Tensor:
        qv = self.to_qkv(x)  # (B*N, 2C), channels (half, q|v, c)
        v, across, down = self.line_by_line(qv) if self.lines else self.stripe_by_stripe(qv)
        local = self.parallel_conv(v.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, H, W, C)
        beside = torch.split(local, self.width, dim=3)
        # Added before they are joined: Qualcomm's compiler loses a Transpose before a Concat that an Add reads.
        attended = torch.cat([across + beside[0], down.transpose(1, 2) + beside[1]], dim=3)  # (B, H, W, C)
        return F.hardswish(attended).reshape(-1, 2 * self.width)

    def line_by_line(self, qv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stripes of one line and one head: the map's own lines are the batch, nothing is rearranged.

        Returns the values (B, H, W, C) and both directions' results (B, H, W, c) and (B, W, H, c).
        """
        height, width = self.size
        halves = torch.split(qv.reshape(-1, height, width, 4 * self.width), 2 * self.width, dim=3)  # each (B, H, W, 2c)
        across = self.attend_lines(halves[0]).reshape(-1, height, width, self.width)
        down = self.attend_lines(halves[1].transpose(1, 2)).reshape(-1, width, height, self.width)
        return torch.cat([half[..., self.width :] for half in halves], dim=3), across, down

    def attend_lines(self, qv: Tensor) -> Tensor:
        """Softmax(q v^T) v inside each line of (B, H, W, 2c) -> (B*H, W, c).

        On three axes: on four TensorRT copies the values twice, as keys and as values.
        """
        q, v = torch.split(qv.reshape(-1, qv.shape[2], 2 * self.width), self.width, dim=2)
        return (q @ v.transpose(1, 2)).softmax(dim=2) @ v

    def stripe_by_stripe(self, qv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The general case; returns what `line_by_line` does."""
        qv = qv.reshape(-1, *self.size, 2, 2 * self.width)  # (B, H, W, half, q|v c)
        v = qv[..., self.width :].reshape(-1, *self.size, 2 * self.width)
        across, down = torch.split(qv, 1, dim=3)
        down = down.transpose(1, 2)  # (B, W, H, 1, 2c)
        if self.columns is None:
            across, down = self.attend([across, down], self.rows)
        else:
            (across,), (down,) = self.attend([across], self.rows), self.attend([down], self.columns)
        return v, across, down

    def attend(self, maps: list[Tensor], stripes: Stripes) -> tuple[Tensor, ...]:
        """Softmax(q v^T) v inside each stripe of rows: each (B, H, W, 1, 2c) -> (B, H, W, c)."""
        if stripes.padding:  # after the projection, so that padded keys are 0
            maps = [F.pad(x, (0, 0) * 3 + (0, stripes.padding)) for x in maps]
        qv = torch.cat(maps, dim=1)
        if self.heads == 1:  # no axis of heads: nothing to transpose
            windows = qv.reshape(-1, stripes.count, stripes.length, 2 * self.head_dim)
            q, v = torch.split(windows, self.head_dim, dim=3)  # (B, n, L, d)
        else:
            windows = qv.reshape(-1, stripes.count, stripes.length, 2 * self.heads, self.head_dim)
            q, v = torch.split(windows.transpose(2, 3), self.heads, dim=2)  # (B, n, h, L, d)
        scores = q @ v.transpose(-2, -1)  # (B, n, h, L, L)
        if stripes.mask is not None:
            scores = scores + stripes.mask
        out = scores.softmax(dim=-1) @ v  # (B, n, h, L, d)
        if self.heads > 1:
            out = out.transpose(2, 3)  # (B, n, L, h, d)
        out = out.reshape(-1, stripes.rows, stripes.width, self.width)
        return torch.split(out, stripes.parts, dim=1)[:: 2 if stripes.padding else 1]

    def real_shares(self) -> dict[str, Fraction]:
        """Of the products of q, k and v those without padding (`hiresvit.models.cost`); nothing else is padded."""
        cuts = [self.rows] if self.columns is None else [self.rows, self.columns]
        return {"": Fraction(sum(cut.real for cut in cuts), sum(cut.all_pairs for cut in cuts))}

    def fold_(self) -> None:
        """The BatchNorm into the output projection."""
        out = self.to_out[0]
        assert isinstance(out, nn.Linear)
        self.to_out[0] = fold_bn(out, self.attn_bn)
        self.attn_bn = nn.Identity()  # type: ignore[assignment]


class Stripes(nn.Module):
    """How ``maps`` maps of height x width, one below the other, are cut into stripes of ``window`` rows.

    The last stripe of a map is padded at the bottom. ``parts`` are the heights [map, padding, ...] of the result.
    """

    def __init__(self, window: int, height: int, width: int, *, maps: int, heads: int) -> None:
        super().__init__()
        self.padding = -height % window
        self.width = width
        self.length = window * width
        self.rows = maps * (height + self.padding)
        self.count = self.rows // window
        self.all_pairs = self.count * self.length**2  # of positions in the same stripe
        self.real = maps * real_pairs(height, window) * width**2  # those of them without padding
        self.parts = [height, self.padding] * maps if self.padding else [height] * maps
        mask: Tensor | None = None
        if self.padding:
            mask = torch.zeros(maps, self.count // maps, 1, self.length)  # (map, n, query, key)
            mask[:, -1, :, (window - self.padding) * width :] = MASKED  # only padded keys are masked
            mask = mask.flatten(0, 1)  # (n, query, key)
            mask = mask if heads == 1 else mask.unsqueeze(1)  # (n, h, query, key)
        self.mask: Tensor | None
        self.register_buffer("mask", mask, persistent=False)


class StripeProjection(nn.Linear):
    """C -> [q, v] of both halves. Checkpoints order the 2C outputs (q|v, half, c); stripes want (half, q|v, c).

    The scale d^-1/2 multiplies the q rows here, so that nothing stands between the two attention matmuls.
    """

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__(channels, 2 * channels)
        self.scale = head_dim**-0.5

    def arranged(self, rows: Tensor) -> Tensor:
        """Rows of the weight or bias, reordered and scaled."""
        parts = rows.reshape(2, 2, -1, *rows.shape[1:])  # (q|v, half, c, ...)
        return torch.stack([parts[0] * self.scale, parts[1]], dim=1).reshape(rows.shape)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.arranged(self.weight), self.arranged(self.bias))

    def deployed(self) -> nn.Linear:
        """The same map as a plain Linear."""
        return linear_from(self.arranged(self.weight.double()), self.arranged(self.bias.double()), self.weight)


class DiversityShortcut(nn.Module):
    """DES (paper, section 3.2): a projection of C = k*p channels as the Kronecker product of a kxk and a pxp matrix.

    The paper's activation is Hardswish, the authors' code has GELU. Folded, both factors are unrolled to (C, C):
    more multiplications, but two plain Gemms instead of two batches of tiny ones, and the second joins `to_out`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        exponent = channels.bit_length() - 1
        p = 2 ** (exponent - exponent // 2)
        self.k, self.p = channels // p, p
        self.proj_right: nn.Module = RightFactor(p, p)
        self.proj_left: nn.Module = LeftFactor(self.k, self.k)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B*N, C) -> activated tokens (B*N, C), still to be mixed by `proj_left` (see `Block.mix`)."""
        return F.gelu(self.proj_right(x))

    def fold_(self) -> None:
        """Unroll both Kronecker factors."""
        assert isinstance(self.proj_right, RightFactor)
        assert isinstance(self.proj_left, LeftFactor)
        self.proj_right = self.proj_right.unrolled(self.k)
        self.proj_left = self.proj_left.unrolled(self.p)


class RightFactor(nn.Linear):
    """p x p on the fast index of a channel i*p + j."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(x.shape[0], -1, self.in_features)).flatten(1)

    def unrolled(self, k: int) -> nn.Linear:
        """I_k (x) R as one Linear of k*p channels."""
        eye = torch.eye(k, dtype=torch.float64, device=self.weight.device)
        return linear_from(torch.kron(eye, self.weight.double()), double_bias(self).repeat(k), self.weight)


class LeftFactor(nn.Linear):
    """k x k on the slow index of a channel i*p + j."""

    def forward(self, x: Tensor) -> Tensor:
        columns = x.reshape(x.shape[0], self.in_features, -1).transpose(1, 2)  # (B*N, p, k)
        return super().forward(columns).transpose(1, 2).flatten(1)

    def unrolled(self, p: int) -> nn.Linear:
        """A (x) I_p as one Linear of k*p channels."""
        eye = torch.eye(p, dtype=torch.float64, device=self.weight.device)
        weight = torch.kron(self.weight.double().contiguous(), eye)
        return linear_from(weight, double_bias(self).repeat_interleave(p), self.weight)


class MixCFN(nn.Module):
    """Mixed-scale convolutional feed-forward network (paper, section 3.2) on tokens (B*N, C).

    Half of the widened channels pass a depthwise 3x3, half a 5x5; folded, the 3x3 is a 5x5 with a border of zeros.
    """

    def __init__(self, channels: int, ratio: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.conv: nn.Module = MixConv(ratio * channels)
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        wide = pointwise(self.fc1, to_map(x, self.size))  # (B, rC, H, W)
        return to_tokens(pointwise(self.fc2, F.gelu(self.conv(wide))))


class MixConv(nn.Module):
    """Depthwise 3x3 on the first half of the channels, 5x5 on the second."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv_3 = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.conv_5 = nn.Conv2d(half, half, 5, padding=2, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        small, large = x.chunk(2, dim=1)
        return torch.cat([self.conv_3(small), self.conv_5(large)], dim=1)

    def deployed(self) -> nn.Conv2d:
        """The same map as one depthwise 5x5 convolution."""
        small = F.pad(self.conv_3.weight.double(), (1, 1, 1, 1))
        weight = torch.cat([small, self.conv_5.weight.double()])
        bias = torch.cat([double_bias(self.conv_3), double_bias(self.conv_5)])
        merged = nn.Conv2d(len(weight), len(weight), 5, padding=2, groups=len(weight))
        return conv_like(merged, weight, bias, like=self.conv_5.weight)
