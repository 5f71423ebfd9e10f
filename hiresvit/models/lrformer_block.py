"""The block of LRFormer: convolutional positions, attention at a low resolution, a feed-forward with a convolution.

Part of `hiresvit.models.lrformer`; its docstring has the paper, the map of the network and the letters of the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import (
    affine_into_,
    bn_scale_shift,
    conv_like,
    double_bias,
    linear_from,
    scale_after,
    scale_before,
)
from hiresvit.models.layers import DropPath, Size, averages, blends, to_map, to_tokens, upsample

# Sizes of the four poolings for keys and values, in sixteenths of the size for queries (the authors' code).
KEY_SIXTEENTHS = (11, 8, 6, 4)
# Of the norms before attention and feed-forward and after a patch embedding; the one inside attention has 1e-5.
EPS = 1e-6


class Block(nn.Module):
    """One LRFormer block on a map (B, C, H, W); ``norms`` are those of attention and feed-forward."""

    def __init__(
        self,
        attn: LowResolutionAttention,
        norms: Sequence[nn.Module],
        *,
        ratio: int,
        drop_path: float,
        layer_scale: bool,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        channels = attn.channels
        self.size = attn.size
        self.pre_norm: nn.Module = nn.BatchNorm2d(channels) if pre_norm else nn.Identity()
        self.cpe: nn.Module = ResidualConv(channels)
        self.norm1, self.norm2 = norms
        self.attn = attn
        self.mlp = FeedForward(channels, ratio)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), 1e-6)) if layer_scale else None
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), 1e-6)) if layer_scale else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, local: nn.Module | None = None) -> Tensor:
        x = self.cpe(self.pre_norm(x))
        x = x + self.drop_path(scaled(self.attn(self.norm1(x), local), self.layer_scale_1))
        out: Tensor = x + self.drop_path(scaled(self.mlp(self.norm2(x)), self.layer_scale_2))
        return out

    def fold_(self) -> None:
        """Layer scales into the projections before them, norms' affines into what follows, `pre_norm` into `cpe`."""
        if self.layer_scale_1 is not None and self.layer_scale_2 is not None:
            self.attn.proj = scale_after(self.attn.proj, self.layer_scale_1.double())
            self.mlp.fc2 = scale_after(self.mlp.fc2, self.layer_scale_2.double())
            self.layer_scale_1 = self.layer_scale_2 = None
        if isinstance(self.norm1, nn.BatchNorm2d):
            self.attn.absorb_(self.norm1)
            self.norm1 = nn.Identity()
        if isinstance(self.norm2, nn.BatchNorm2d):
            self.mlp.fc1 = scale_before(self.mlp.fc1, *bn_scale_shift(self.norm2))
            self.norm2 = nn.Identity()
        else:
            assert isinstance(self.norm2, ChannelNorm)
            self.norm2 = affine_into_(self.norm2, self.mlp.fc1)
        if isinstance(self.pre_norm, nn.BatchNorm2d):
            self.cpe = conv_after_norm(self.cpe, self.pre_norm, self.size)
            self.pre_norm = nn.Identity()


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """A map (B, C, H, W) times a factor for each channel, if there is one."""
    return x if scale is None else x * scale[:, None, None]


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualConv(nn.Conv2d):
    """``x + DW3x3(x)`` on a map (B, C, H, W); deployed, the 1 is in the centre of the kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)

    def deployed(self) -> nn.Conv2d:
        """The same map as a plain depthwise convolution."""
        weight = self.weight.double()
        centre = torch.zeros_like(weight)
        centre[:, :, 1, 1] = 1
        return conv_like(self, weight + centre, double_bias(self))


def conv_after_norm(conv: nn.Module, norm: nn.BatchNorm2d, size: Size) -> nn.Module:
    """``conv(norm(x))`` for a depthwise ``conv`` with zero padding, which the norm's shift does not reach.

    The scale goes into the kernel. What the kernel makes of the shift differs at the border: a constant map.
    """
    assert isinstance(conv, nn.Conv2d)
    scale, shift = bn_scale_shift(norm)
    weight = conv.weight.double()
    ones = torch.ones(1, len(shift), *size, dtype=torch.float64, device=shift.device)
    offset = F.conv2d(ones * shift[:, None, None], weight, padding=conv.padding, groups=conv.groups)
    folded = conv_like(conv, weight * scale[:, None, None, None], double_bias(conv))
    return nn.Sequential(folded, Offset(offset.to(conv.weight.dtype)))


class Offset(nn.Module):
    """Adds a constant map."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Buffer(value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class LowResolutionAttention(nn.Module):
    """LRSA, the paper's low-resolution self-attention of a normalised map (B, C, H, W) to itself.

    Queries are the map pooled to ``pooled`` on its short side, keys and values four smaller poolings, ``local`` their
    convolutions if they have any. The result is resized to the map. ``skip`` uses the map itself in place of
    a pooling that would not make it smaller, as the paper says; the authors' code enlarges it.
    """

    def __init__(self, channels: int, heads: int, size: Size, pooled: int, *, skip: bool) -> None:
        super().__init__()
        self.channels, self.heads, self.size = channels, heads, size
        bases = [pooled, *(round(part * pooled / 16 + 0.001) for part in KEY_SIXTEENTHS)]
        query, *keys = [size if skip and base >= min(size) else pooled_size(base, size) for base in bases]
        self.queries = query[0] * query[1]
        self.keys = sum(height * width for height, width in keys)
        self.pooling: nn.Module = Pooling(size, query, keys)
        self.resize: nn.Module = Resize(query, size)
        self.q: nn.Module = nn.Sequential(nn.Linear(channels, channels))
        self.kv: nn.Module = nn.Sequential(nn.Linear(channels, 2 * channels))
        self.norm: nn.Module = nn.LayerNorm(channels)
        self.proj = nn.Linear(channels, channels)
        self.scale: float | None = (channels // heads) ** -0.5

    def forward(self, x: Tensor, local: nn.Module | None) -> Tensor:
        queries, keys = self.pooling(x, local)  # (B*Q, C), (B*T, C)
        d = self.channels // self.heads
        q = self.q(queries).reshape(-1, self.queries, self.heads, d).transpose(1, 2)  # (B, h, Q, d)
        q = q if self.scale is None else q * self.scale
        kv = self.kv(self.norm(keys)).reshape(-1, self.keys, 2 * self.heads, d).transpose(1, 2)
        k, v = torch.split(kv, self.heads, dim=1)  # (B, h, T, d)
        mixed = (q @ k.transpose(2, 3)).softmax(dim=3) @ v  # (B, h, Q, d)
        mixed = self.proj(mixed.transpose(1, 2).reshape(-1, self.channels))  # (B*Q, C)
        out: Tensor = self.resize(mixed)
        return out

    def fold_(self) -> None:
        """The scale into the queries, the keys' norm into their projection, poolings into constants."""
        assert self.scale is not None
        assert isinstance(self.norm, nn.LayerNorm)
        assert isinstance(self.pooling, Pooling)
        assert isinstance(self.resize, Resize)
        like = self.proj.weight
        q, self.kv = only_layer(self.q), only_layer(self.kv)
        self.q = linear_from(q.weight.double().flatten(1) * self.scale, double_bias(q) * self.scale, like)
        self.scale = None
        self.norm = affine_into_(self.norm, self.kv)
        self.pooling = ConstantPooling(self.pooling, like)
        self.resize = self.resize.constant(like)

    def absorb_(self, norm: nn.BatchNorm2d) -> None:
        """Take in the BatchNorm before a folded attention. An average of an affine is the affine of the average."""
        scale, shift = bn_scale_shift(norm)
        assert isinstance(self.q, nn.Linear)
        self.q = scale_before(self.q, scale, shift)
        dtype = self.q.weight.dtype
        self.norm = nn.Sequential(Affine(scale.to(dtype), shift.to(dtype)), self.norm)


def only_layer(projection: nn.Module) -> nn.Linear | nn.Conv2d:
    """The projection itself, out of the sequence that the encoder's checkpoints have around it."""
    layer = projection[0] if isinstance(projection, nn.Sequential) else projection
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


class Affine(nn.Module):
    """``x * scale + shift`` on rows (M, C)."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class FeedForward(nn.Module):
    """The paper's inverted-residual feed-forward on a map (B, C, H, W)."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        wide = ratio * channels
        self.fc1 = nn.Conv2d(channels, wide, 1)
        self.conv = ResidualConv(wide)
        self.fc2 = nn.Conv2d(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.conv(F.gelu(self.fc1(x))))  # wide: (B, rC, H, W)
        return out


# --- poolings and resizes, as functions and as constants ---


def pooled_size(base: int, size: Size) -> Size:
    """The map (H, W) pooled so that its short side is ``base``; the 0.001 makes a half go up (the authors' code)."""
    height, width = size
    if width >= height:
        return base, round(width * base / height + 0.001)
    return round(height * base / width + 0.001), base


class Pooling(nn.Module):
    """A map (B, C, H, W) -> queries (B*Q, C) and keys (B*T, C), the four poolings one after the other."""

    def __init__(self, size: Size, query: Size, keys: Sequence[Size]) -> None:
        super().__init__()
        self.size, self.query, self.keys = size, query, tuple(keys)

    def forward(self, x: Tensor, local: nn.Module | None) -> tuple[Tensor, Tensor]:
        maps = [F.adaptive_avg_pool2d(x, key) for key in self.keys]
        if local is not None:
            maps = local(maps)
        return to_tokens(F.adaptive_avg_pool2d(x, self.query)), join(maps)


def join(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, ..) -> all their tokens (B*T, C)."""
    return torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2).reshape(-1, maps[0].shape[1])


class ConstantPooling(nn.Module):
    """`Pooling` as two products with constants that poolings share, rows of the map first, and means of the queries.

    Queries that are the map itself are left alone. Keys are means of equal cells of the queries where these are
    means of equal cells of the map: ``nested``, by key.
    """

    def __init__(self, pooling: Pooling, like: Tensor) -> None:
        super().__init__()
        self.size, self.query, self.keys = pooling.size, pooling.query, pooling.keys
        self.pools_queries = self.query != self.size
        even = self.pools_queries and divides(self.query, self.size)
        self.nested = [even and divides(key, self.query) for key in self.keys]
        shapes = [key for key, nested in zip(self.keys, self.nested, strict=True) if not nested]
        shapes = [self.query, *shapes] if self.pools_queries else shapes
        self.heights = [height for height, _ in shapes]
        self.width = shapes[0][1]  # none is wider
        columns = [filled(averages(self.size[1], width), self.width).expand(height, -1, -1) for height, width in shapes]
        self.rows = nn.Buffer(
            torch.cat([averages(self.size[0], height) for height in self.heights]).to(like), persistent=False
        )
        self.columns = nn.Buffer(torch.cat(columns).to(like), persistent=False)

    def forward(self, x: Tensor, local: nn.Module | None) -> tuple[Tensor, Tensor]:
        channels, (height, width) = x.shape[1], self.size
        queries = to_tokens(x)
        pooled = self.rows @ queries.reshape(-1, height, width * channels)  # (B, rows, W*C)
        pooled = self.columns @ pooled.reshape(-1, len(self.rows), width, channels)  # (B, rows, width, C)
        parts = list(torch.split(pooled, self.heights, dim=1))
        if self.pools_queries:
            queries = parts.pop(0).reshape(-1, channels)  # (B*Q, C)
        maps = [
            means(queries, self.query, key) if nested else parts.pop(0)[:, :, : key[1]]
            for key, nested in zip(self.keys, self.nested, strict=True)
        ]  # each (B, h, w, C)
        if local is not None:
            convolved = local([x.permute(0, 3, 1, 2) for x in maps])
            maps = [x.permute(0, 2, 3, 1) for x in convolved]
        keys = [x.reshape(-1, h * w, channels) for x, (h, w) in zip(maps, self.keys, strict=True)]
        return queries, torch.cat(keys, dim=1).reshape(-1, channels)


def divides(small: Size, large: Size) -> bool:
    """Whether a map can be cut into equal cells, one for each pixel of a smaller one."""
    return large[0] % small[0] == 0 and large[1] % small[1] == 0


def means(rows: Tensor, source: Size, target: Size) -> Tensor:
    """Tokens (B*h*w, C) of a map -> the means of its equal cells (B, h', w', C)."""
    (height, width), channels = target, rows.shape[1]
    across = source[1] // width
    x = rows.reshape(-1, height, source[0] // height, source[1] * channels).mean(dim=2)
    return x.reshape(-1, height, width, across, channels).mean(dim=3)


class Resize(nn.Module):
    """Tokens (B*Q, C) of a small map -> the map resized bilinearly (B, C, H, W)."""

    def __init__(self, source: Size, target: Size) -> None:
        super().__init__()
        self.source, self.target = source, target
        factors = {divmod(large, small) for large, small in zip(target, source, strict=True)}
        self.factor = min(factors)[0] if len(factors) == 1 and not min(factors)[1] else None

    def forward(self, rows: Tensor) -> Tensor:
        x = to_map(rows, self.source)
        if self.factor is None:
            return F.interpolate(x, size=self.target, mode="bilinear")
        return upsample(x, self.factor, "bilinear")

    def constant(self, like: Tensor) -> nn.Module:
        """Itself where both sides grow by the same whole factor, else two products with constants."""
        return self if self.factor is not None else ConstantResize(self, like)


class ConstantResize(nn.Module):
    """`Resize` by any factor as two products with constants, rows first."""

    def __init__(self, resize: Resize, like: Tensor) -> None:
        super().__init__()
        self.source, self.target = resize.source, resize.target
        self.rows = nn.Buffer(blends(self.source[0], self.target[0]).to(like), persistent=False)
        self.columns = nn.Buffer(blends(self.source[1], self.target[1]).to(like), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        channels, width = rows.shape[1], self.source[1]
        x = self.rows @ rows.reshape(-1, self.source[0], width * channels)  # (B, H, w*C)
        x = self.columns @ x.reshape(-1, self.target[0], width, channels)  # (B, H, W, C)
        return x.permute(0, 3, 1, 2)


def filled(rows: Tensor, height: int) -> Tensor:
    """With rows of zeros below, up to ``height``."""
    return F.pad(rows, (0, 0, 0, height - len(rows)))
