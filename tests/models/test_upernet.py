"""UPerNet against a slow reading of its definition, its deployed form, and the sizes that papers print with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lively import enliven
from torch import Tensor, nn

from hiresvit.models.fold import fold
from hiresvit.models.macs import count_params
from hiresvit.models.upernet import SCALES, UPerNetHead

# Two orders of the same sums in float64; a wrong cell or a lost bias is above 1e-3.
EXACT = 1e-10
CHANNELS = (4, 6, 8, 10)

# The coarsest map: grids divide it, do not divide it, are finer than it.
SIZES = [(6, 6), (7, 5), (16, 9), (2, 2), (1, 3)]


def pyramid(size: tuple[int, int], batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, size[0] * 2**i, size[1] * 2**i, dtype=torch.float64, generator=generator)
        for c, i in zip(CHANNELS, (3, 2, 1, 0), strict=True)
    ]


def head_of(size: tuple[int, int]) -> UPerNetHead:
    head = UPerNetHead(CHANNELS, 12, 5, size=size)
    enliven(head)
    return head.double().eval()


def pooled_by_hand(x: Tensor, scale: int) -> Tensor:
    """Cell (i, j) is the mean of the pixels that it touches: rows floor(i*h/s) to ceil((i+1)*h/s), and so on."""
    height, width = x.shape[2:]
    out = torch.empty(*x.shape[:2], scale, scale, dtype=x.dtype)
    for i in range(scale):
        for j in range(scale):
            rows = slice(i * height // scale, -(-(i + 1) * height // scale))
            columns = slice(j * width // scale, -(-(j + 1) * width // scale))
            out[:, :, i, j] = x[:, :, rows, columns].mean(dim=(2, 3))
    return out


def resized_by_hand(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with pixel centres at half: one axis after the other, from the two nearest pixels."""
    for axis, length in zip((2, 3), size, strict=True):
        old = x.shape[axis]
        lines = []
        for i in range(length):
            at = min(max((i + 0.5) * old / length - 0.5, 0.0), old - 1.0)
            low = min(int(at), old - 1)
            high = min(low + 1, old - 1)
            lines.append(x.select(axis, low) * (1 - at + low) + x.select(axis, high) * (at - low))
        x = torch.stack(lines, dim=axis)
    return x


def head_by_hand(head: nn.Module, maps: list[Tensor]) -> Tensor:
    """The head in evaluation mode, from the parameters under the checkpoints' names."""
    p: dict[str, Tensor] = head.state_dict()

    def conv(name: str, x: Tensor) -> Tensor:
        weight = p[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        mean, var, scale, shift = (
            p[f"{name}.bn.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    size: Any = tuple(maps[3].shape[2:])
    pyramid = [
        resized_by_hand(conv(f"psp_modules.{i}.1", pooled_by_hand(maps[3], scale)), size)
        for i, scale in enumerate((1, 2, 3, 6))
    ]
    laterals = [conv(f"lateral_convs.{i}", x) for i, x in enumerate(maps[:3])]
    laterals.append(conv("bottleneck", torch.cat([maps[3], *pyramid], dim=1)))
    for i in (2, 1, 0):
        finer: Any = tuple(laterals[i].shape[2:])
        laterals[i] = laterals[i] + resized_by_hand(laterals[i + 1], finer)
    outs = [*(conv(f"fpn_convs.{i}", x) for i, x in enumerate(laterals[:3])), laterals[3]]
    finest: Any = tuple(maps[0].shape[2:])
    fused = conv("fpn_bottleneck", torch.cat([resized_by_hand(x, finest) for x in outs], dim=1))
    return F.conv2d(fused, p["conv_seg.weight"], p["conv_seg.bias"])


@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_by_hand(size: tuple[int, int]) -> None:
    head, maps = head_of(size), pyramid(size)
    expected = head_by_hand(head, maps)
    assert expected.shape == (2, 5, 8 * size[0], 8 * size[1])
    for form in (head, fold(head)):
        torch.testing.assert_close(form(maps), expected, rtol=0, atol=EXACT)


@torch.no_grad()
def test_float32() -> None:
    """Twelve convolutions in float32, each off by about 1e-7 of values of order 1."""
    head, maps = head_of((7, 5)), pyramid((7, 5))
    expected = head(maps)
    folded = fold(head.float())
    torch.testing.assert_close(folded([x.float() for x in maps]).double(), expected, rtol=0, atol=1e-5)


def test_what_is_left() -> None:
    folded = fold(head_of((7, 5)))
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.AdaptiveAvgPool2d) for layer in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    with torch.device("meta"):
        blank = UPerNetHead(CHANNELS, 12, 5, size=(7, 5))
    assert {value.device.type for value in (*fold(blank).parameters(), *fold(blank).buffers())} == {"meta"}


def test_keys() -> None:
    """mmseg's names."""
    names = {key.rpartition(".")[0] for key in UPerNetHead(CHANNELS, 12, 5, size=(7, 5)).state_dict()}
    blocks = ["bottleneck", "fpn_bottleneck"]
    blocks += [f"psp_modules.{i}.1" for i in range(len(SCALES))]
    blocks += [f"{kind}.{i}" for kind in ("lateral_convs", "fpn_convs") for i in range(3)]
    assert names == {f"{block}.{part}" for block in blocks for part in ("conv", "bn")} | {"conv_seg"}


# Channels, backbone without its head (M), whole segmentor with 150 classes (M), as the papers' tables print them.
PUBLISHED = [
    ((32, 64, 128, 256), 7.758, 35.95, 0.006),
    ((48, 96, 240, 384), 20.311, 49.70, 0.006),
    ((64, 128, 256, 512), 25.508, 55.82, 0.006),
    ((32, 64, 128, 256), 6.28, 34.5, 0.06),
    ((32, 64, 128, 256), 8.29, 36.5, 0.06),
    ((48, 96, 192, 384), 14.97, 44.2, 0.06),
    ((64, 128, 256, 512), 32.86, 63.2, 0.06),
]


@pytest.mark.parametrize(("channels", "backbone", "whole", "digits"), PUBLISHED, ids=str)
def test_params(channels: tuple[int, ...], backbone: float, whole: float, digits: float) -> None:
    """HRViT-b1 to b3 and MixFormer-B1 to B4, to the last printed digit.

    Their trained model also has an auxiliary head on the third map: 3x3 to 256 channels, BatchNorm, classifier.
    """
    with torch.device("meta"):
        head = UPerNetHead(channels, 512, 150, size=(16, 16))
    auxiliary = 9 * channels[2] * 256 + 2 * 256 + (256 + 1) * 150
    assert backbone + (count_params(head) + auxiliary) / 1e6 == pytest.approx(whole, abs=digits)
