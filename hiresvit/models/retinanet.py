"""RetinaNet: a feature pyramid and two small convolutional towers that every level shares.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, section 3, and "Focal Loss for Dense Object
Detection", ICCV 2017, section 4. Where they leave a choice it is that of mmdet's ``retinanet_r50_fpn`` and of the PVT
configurations made from it; module names are the keys of mmdet's checkpoints. What the outputs mean is in
`hiresvit.spec.AnchorSpec`, what makes boxes of them in `hiresvit.runtime.boxes`.

    the three coarsest maps - lateral 1x1, top-down by repetition, 3x3 - two more levels by 3x3 of stride 2, the first
    of them on the backbone's coarsest map and not on the pyramid's (add_extra_convs="on_input") - the head on all five

B batch, K classes, A anchors of a cell, D = 256 channels, h w a level's map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.models.layers import upsample
from hiresvit.spec import AnchorSpec, ModelSpec

CHANNELS = 256
DEPTH = 4  # convolutions of a tower before its last
USED = 3  # of the backbone's maps
PRIOR = 0.01  # the score of everything at the start of training

_LIVELY = 100  # answers of fresh weights that are above the threshold


class Detector(nn.Module):
    """Backbone, pyramid, head: (B, 3, H, W) -> logits (B, A*K, h, w) of every level, then deltas (B, A*4, h, w).

    ``channels`` are those of the backbone's maps, of which the last three are read. A level of stride S is
    ceil(H / S) x ceil(W / S).
    """

    def __init__(self, backbone: nn.Module, channels: Sequence[int], spec: ModelSpec) -> None:
        super().__init__()
        assert spec.anchors is not None
        self.backbone = backbone
        self.neck = FPN(channels[-USED:], len(spec.anchors.strides))
        self.bbox_head = RetinaHead(spec.num_classes, spec.anchors)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        levels = [self.bbox_head(level) for level in self.neck(self.backbone(image)[-USED:])]
        return (*(logits for logits, _ in levels), *(deltas for _, deltas in levels))


class ConvLayer(nn.Module):
    """A convolution under mmcv's name, ``conv``."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class FPN(nn.Module):
    """Maps (B, C_i, h_i, w_i), each half as fine as the one before -> ``levels`` maps (B, D, ..), the finest first."""

    def __init__(self, in_channels: Sequence[int], levels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvLayer(c, CHANNELS, 1) for c in in_channels)
        extra = [in_channels[-1], *[CHANNELS] * (levels - len(in_channels) - 1)]
        self.fpn_convs = nn.ModuleList(
            [
                *(ConvLayer(CHANNELS, CHANNELS, 3) for _ in in_channels),
                *(ConvLayer(c, CHANNELS, 3, stride=2) for c in extra),
            ]
        )
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                nn.init.zeros_(_bias(conv))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        merged = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + upsample(merged[i], 2, "nearest")
        out = [conv(x) for conv, x in zip(self.fpn_convs, merged, strict=False)]
        coarser = maps[-1]
        for conv in self.fpn_convs[len(merged) :]:
            coarser = conv(coarser)
            out.append(coarser)
        return out


class RetinaHead(nn.Module):
    """One level (B, D, h, w) -> logits before the sigmoid (B, A*K, h, w) and deltas (B, A*4, h, w)."""

    def __init__(self, num_classes: int, anchors: AnchorSpec) -> None:
        super().__init__()
        self.cls_convs = nn.ModuleList(ConvLayer(CHANNELS, CHANNELS, 3) for _ in range(DEPTH))
        self.reg_convs = nn.ModuleList(ConvLayer(CHANNELS, CHANNELS, 3) for _ in range(DEPTH))
        self.retina_cls = nn.Conv2d(CHANNELS, anchors.per_cell * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(CHANNELS, anchors.per_cell * 4, 3, padding=1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.normal_(conv.weight, std=0.01)
                nn.init.zeros_(_bias(conv))
        nn.init.constant_(_bias(self.retina_cls), math.log(PRIOR / (1 - PRIOR)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.towers(x)
        return self.retina_cls(logits), self.retina_reg(deltas)

    def towers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the two last convolutions read, (B, D, h, w) each."""
        one = other = x
        for conv in self.cls_convs:
            one = F.relu(conv(one))
        for conv in self.reg_convs:
            other = F.relu(conv(other))
        return one, other


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def standardise_boxes(model: nn.Module, spec: ModelSpec, images: Tensor) -> None:
    """Make a fresh detector answer with a handful of boxes of many classes on ``images`` (B, 3, H, W), in place.

    Every channel of logits and deltas gets its own mean and deviation over all cells of all levels: logits a deviation
    of 1 around what leaves a hundred of them above the score's threshold, deltas 0.3 around 0. A tower of fresh weights
    shrinks its input a thousandfold, so each of its convolutions is scaled to keep it.
    """
    anchors = spec.anchors
    assert isinstance(model, Detector)
    assert anchors is not None
    head = model.bbox_head
    with torch.inference_mode():
        levels = model.neck(model.backbone(images)[-USED:])
    for tower, last in ((head.cls_convs, head.retina_cls), (head.reg_convs, head.retina_reg)):
        reached = [level.clone() for level in levels]
        for conv in tower:
            assert isinstance(conv, ConvLayer)
            reached = [F.relu(level) for level in _standardise(conv.conv, reached)]
        reached = _standardise(last, reached)
        with torch.no_grad():
            if last is head.retina_reg:
                last.weight.mul_(0.3)
                _bias(last).mul_(0.3)
            else:
                values = torch.cat([level.flatten() for level in reached])
                least = torch.topk(values, min(_LIVELY, len(values))).values[-1].bfloat16().float()
                threshold = math.log(anchors.score_threshold / (1 - anchors.score_threshold))
                _bias(last).add_(threshold - least)


def _standardise(conv: nn.Conv2d, levels: list[Tensor]) -> list[Tensor]:
    """Give every channel of a convolution mean 0 and deviation 1 over all levels; what it then makes of them."""
    with torch.no_grad():
        found = torch.cat([conv(level).double().flatten(2) for level in levels], dim=2)
        # Rounded, so that the order of summation, which follows the number of threads, does not show in the weights.
        std, mean = (value.bfloat16().double() for value in torch.std_mean(found, dim=(0, 2)))
        std = torch.where(std > 0, std, 1.0)
        conv.weight.div_(std[:, None, None, None])
        _bias(conv).sub_(mean).div_(std)
        return [conv(level) for level in levels]
