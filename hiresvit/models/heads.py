"""Task heads that more than one family can carry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.fold import FoldableSequential, conv_like, double_bias, fold_bn
from hiresvit.models.layers import upsample


class Segmentor(nn.Module):
    """A backbone and its head: (B, 3, H, W) -> logits (B, classes, H/s, W/s) at the head's stride s, or raw masks."""

    def __init__(self, backbone: nn.Module, decode_head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.decode_head = backbone, decode_head

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        out: Tensor | tuple[Tensor, ...] = self.decode_head(self.backbone(image))
        return out


class ConvModule(nn.Module):
    """mmcv's naming for a convolution with an optional BatchNorm and ReLU behind it: keys ``conv``, ``bn``."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=not norm)
        self.bn = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else F.relu(self.bn(x))


class SegFormerHead(nn.Module):
    """SegFormer's all-MLP decoder (Xie et al. 2021, section 3.2) as mmseg's HRViT and MiT configs use it.

    Four maps (B, C_i, H_i, W_i) with strides 4, 8, 16, 32 -> logits (B, classes, H/4, W/4). The projections have
    no norm and no activation, so each composes with its slice of the fusing convolution, and a 1x1 convolution
    commutes with a bilinear resize. Folded, map i therefore takes one convolution C_i -> channels at its own
    size, and the maps are added: 4.5 G of b1's 15.2 GMACs at 512x512 become 0.25.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(ConvModule(c, channels, norm=False) for c in in_channels)
        self.fusion_conv = ConvModule(channels * len(in_channels), channels, norm=True)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.folded = False

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        projected = [conv(x) for conv, x in zip(self.convs, maps, strict=True)]
        resized = [upsample(x, 2**i, "bilinear") for i, x in enumerate(projected)]
        if self.folded:
            # The full-size convolution comes last: runtimes add and activate in the same pass.
            coarse = sum(resized[2:], start=resized[1])
            fused = F.relu(resized[0] + coarse)
        else:
            fused = self.dropout(self.fusion_conv(torch.cat(resized, dim=1)))
        out: Tensor = self.conv_seg(fused)
        return out

    def fold_(self) -> None:
        """Compose every projection with its slice of the fusing convolution (exact: see the class)."""
        assert self.fusion_conv.bn is not None
        fusing = fold_bn(self.fusion_conv.conv, self.fusion_conv.bn)
        slices = fusing.weight.double().flatten(1).chunk(len(self.convs), dim=1)
        bias = double_bias(fusing)
        for conv, fuse in zip(self.convs, slices, strict=True):
            assert isinstance(conv, ConvModule)
            weight, shift = fuse @ conv.conv.weight.double().flatten(1), fuse @ double_bias(conv.conv)
            conv.conv = conv_like(conv.conv, weight[:, :, None, None], shift + bias)
            bias = torch.zeros_like(bias)  # the fusing bias goes into the first map only
        self.fusion_conv = nn.Identity()  # type: ignore[assignment]
        self.folded = True


class HRNetHead(nn.Module):
    """HRNetV2's classification head (Wang et al. 2020, section 3.3): four maps -> logits (B, classes).

    Each map is widened by a bottleneck; the finest is brought down step by step and added to the next.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        planes = [32, 64, 128, 256]
        wide = [Bottleneck.expansion * p for p in planes]
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(c, p)) for c, p in zip(in_channels, planes, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            FoldableSequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(wide)
        )
        self.final_layer = FoldableSequential(nn.Conv2d(wide[-1], 2048, 1), nn.BatchNorm2d(2048), nn.ReLU())
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(2048, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        y = self.incre_modules[0](maps[0])
        for x, widen, down in zip(maps[1:], self.incre_modules[1:], self.downsamp_modules, strict=True):
            y = widen(x) + down(y)
        pooled = self.final_layer(y).mean(dim=(2, 3))
        out: Tensor = self.classifier(self.dropout(pooled))
        return out


class Bottleneck(nn.Module):
    """ResNet's bottleneck with a projected shortcut: (B, C, H, W) -> (B, 4 * planes, H, W)."""

    expansion = 4
    pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, in_channels: int, planes: int) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = FoldableSequential(nn.Conv2d(in_channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))
