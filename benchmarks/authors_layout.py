"""HRViT once more, in the layout that the paper and the notes on the authors' code describe, for `gpu_torch.py`.

Plain PyTorch, written from docs/hrvit.md and the paper (arXiv 2111.01236), with no line of anybody's code: tokens
(B, N, C) in the norms and projections, maps (B, C, H, W) around windows and convolutions, with a permutation at each
change; windows cut with axes of their own; q and v in maps of their own for each half; the scale on the scores; the
mask made where it is added; the shortcut's two small matrices; every map of the fusion at its own size; norms where
they stand. Names are the checkpoint's, so the weights of `hiresvit.create_model` load. For inference: no drop path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.models.family import configured
from hiresvit.models.heads import HRNetHead, SegFormerHead
from hiresvit.models.hrvit import VARIANTS, HRViTConfig
from hiresvit.spec import ModelSpec

MASKED = -100.0


def in_authors_layout(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """An HRViT that classifies, or segments with SegFormer's head, with the weights of ``model``, not folded.

    Image (B, 3, H, W) -> logits as ``model`` has them. Raises UsageError for another network.
    """
    config = VARIANTS.get(spec.name) and configured(VARIANTS, spec)
    if not config or spec.task not in ("classify", "segment") or config.head != "segformer":
        raise UsageError(f"{spec.name} {spec.task}: of HRViT's classifier and SegFormer's head only there is a layout")
    layout: nn.Module = Classifier(config, spec.num_classes)
    if spec.task == "segment":
        layout = Segmentor(config, spec.num_classes)
    layout.load_state_dict(model.state_dict())
    return layout.eval()


class Backbone(nn.Module):
    """Image -> four maps."""

    def __init__(self, config: HRViTConfig) -> None:
        super().__init__()
        self.stem = Stem()
        layers: list[nn.Module] = []
        incoming: tuple[int, ...] = (64,)
        for blocks in config.blocks:
            outgoing = (*incoming, *config.channels[len(incoming) : len(blocks)])
            layers += [Fusion(incoming, outgoing), Stage(config, outgoing, blocks)]
            incoming = config.channels[: len(blocks)]
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.features([self.stem(image)])
        return maps


class Classifier(Backbone):
    """Image -> logits (B, classes)."""

    def __init__(self, config: HRViTConfig, classes: int) -> None:
        super().__init__(config)
        self.head = HRNetHead(config.channels, classes)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.head(super().forward(image))
        return logits


class Segmentor(nn.Module):
    """Image -> logits (B, classes, H/4, W/4)."""

    def __init__(self, config: HRViTConfig, classes: int) -> None:
        super().__init__()
        self.backbone, self.decode_head = Backbone(config), SegFormerHead(config.channels, config.decoder, classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.decode_head(self.backbone(image))
        return logits


class Stem(nn.Module):
    """Two convolutions of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(image)))
        return torch.relu(self.bn2(self.conv2(x)))


class Fusion(nn.Module):
    """Every map becomes GELU of the sum over all incoming maps, each brought to its size."""

    def __init__(self, incoming: Sequence[int], outgoing: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(path(source, target, incoming[source], width) for source in range(len(incoming)))
            for target, width in enumerate(outgoing)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fused = []
        for paths in self.blocks:
            assert isinstance(paths, nn.ModuleList)
            moved = [one(x) for one, x in zip(paths, maps, strict=True)]
            total = moved[0]
            for x in moved[1:]:
                total = total + x
            fused.append(F.gelu(total))
        return fused


def path(source: int, target: int, incoming: int, outgoing: int) -> nn.Module:
    """What brings a map of one branch to another."""
    if source == target:
        return nn.Sequential()
    if source > target:
        enlarge = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(nn.Conv2d(incoming, outgoing, 1), nn.BatchNorm2d(outgoing), enlarge)
    stride = 2 ** (target - source)
    shrink = nn.Conv2d(incoming, incoming, stride + 1, stride, stride // 2, groups=incoming, bias=False)
    return nn.Sequential(shrink, nn.BatchNorm2d(incoming), nn.Conv2d(incoming, outgoing, 1), nn.BatchNorm2d(outgoing))


class Stage(nn.Module):
    """The branches of a module."""

    def __init__(self, config: HRViTConfig, incoming: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        channels = config.channels[: len(blocks)]
        self.patch_embed = nn.ModuleList(map(PatchEmbed, incoming, channels))
        self.branches = nn.ModuleList(
            nn.ModuleList(Block(config, branch) for _ in range(depth)) for branch, depth in enumerate(blocks)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(width) for width in channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out = []
        for x, embed, blocks, norm in zip(maps, self.patch_embed, self.branches, self.norm, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            size = (x.shape[2], x.shape[3])
            tokens = embed(x)
            for block in blocks:
                tokens = block(tokens, size)
            out.append(to_map(norm(tokens), size))
        return out


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, H, W), in memory, too."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


class PatchEmbed(nn.Module):
    """Map -> tokens."""

    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.proj = nn.Sequential(nn.Conv2d(incoming, channels, 1), depthwise)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.norm(to_tokens(self.proj(x)))
        return tokens


class Block(nn.Module):
    """Attention beside the shortcut, then the feed-forward."""

    def __init__(self, config: HRViTConfig, branch: int) -> None:
        super().__init__()
        channels = config.channels[branch]
        self.attn_norm, self.ffn_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = Attention(channels, config.head_dim, config.windows[branch])
        self.des = Shortcut(channels)
        self.ffn = MixCFN(channels, config.ratios[branch])

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + (self.attn(self.attn_norm(x), size) + self.des(x))
        out: Tensor = x + self.ffn(self.ffn_norm(x), size)
        return out


class Attention(nn.Module):
    """Half the channels look along stripes of rows, half along stripes of columns; keys are the values."""

    def __init__(self, channels: int, head_dim: int, window: int) -> None:
        super().__init__()
        self.window, self.heads = window, max(1, channels // 2 // head_dim)
        self.to_qkv = nn.Linear(channels, 2 * channels)
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.parallel_conv = nn.Sequential(nn.Hardswish(), depthwise)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))
        self.attn_bn = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        q, v = (to_map(part, size) for part in self.to_qkv(x).chunk(2, dim=2))
        local = self.parallel_conv(v)
        (q, q_down), (v, v_down) = q.chunk(2, dim=1), v.chunk(2, dim=1)
        down = self.attend(q_down.transpose(2, 3), v_down.transpose(2, 3)).transpose(2, 3)
        attended = F.hardswish(torch.cat([self.attend(q, v), down], dim=1) + local)
        out = self.to_out(to_tokens(attended))
        normed: Tensor = self.attn_bn(out.transpose(1, 2)).transpose(1, 2)
        return normed

    def attend(self, q: Tensor, v: Tensor) -> Tensor:
        """Within stripes of rows: (B, c, H, W) twice -> (B, c, H, W)."""
        batch, channels, height, width = q.shape
        padding = -height % self.window
        if padding:
            q, v = (F.pad(x, (0, 0, 0, padding)) for x in (q, v))
        count, dim, length = (height + padding) // self.window, channels // self.heads, self.window * width
        cut = (batch, self.heads, dim, count, self.window, width)
        q, v = (x.reshape(cut).permute(0, 3, 1, 4, 5, 2).reshape(-1, self.heads, length, dim) for x in (q, v))
        scores = q @ v.transpose(2, 3) * dim**-0.5  # (B*n, h, L, L)
        if padding:
            mask = torch.zeros(count, 1, 1, length, device=q.device, dtype=q.dtype)
            mask[-1, :, :, (self.window - padding) * width :] = MASKED
            scores = (scores.reshape(batch, count, *scores.shape[1:]) + mask).flatten(0, 1)
        out = (scores.softmax(dim=-1) @ v).reshape(batch, count, self.heads, self.window, width, dim)
        out = out.permute(0, 2, 5, 1, 3, 4).reshape(batch, channels, -1, width)
        return torch.narrow(out, 2, 0, height)


class Shortcut(nn.Module):
    """DES: C = k * p channels through a p x p matrix, GELU and a k x k matrix."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        exponent = channels.bit_length() - 1
        self.p = 2 ** (exponent - exponent // 2)
        k = channels // self.p
        self.proj_right, self.proj_left = nn.Linear(self.p, self.p), nn.Linear(k, k)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.proj_right(x.reshape(*x.shape[:2], -1, self.p)))
        out: Tensor = self.proj_left(y.transpose(2, 3)).transpose(2, 3)
        return out.flatten(2)


class MixCFN(nn.Module):
    """Feed-forward with a depthwise 3x3 on half of its channels and a 5x5 on the other half."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        wide, half = ratio * channels, ratio * channels // 2
        self.fc1, self.fc2 = nn.Linear(channels, wide), nn.Linear(wide, channels)
        small = nn.Conv2d(half, half, 3, padding=1, groups=half)
        large = nn.Conv2d(half, half, 5, padding=2, groups=half)
        self.conv = nn.ModuleDict({"conv_3": small, "conv_5": large})

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        small, large = to_map(self.fc1(x), size).chunk(2, dim=1)
        mixed = torch.cat([self.conv["conv_3"](small), self.conv["conv_5"](large)], dim=1)
        out: Tensor = self.fc2(F.gelu(to_tokens(mixed)))
        return out
