"""How each family's authors turn a picture into an input, by task: `PreprocessSpec`s and where they stand written.

| family | task | what they do | where it stands |
|---|---|---|---|
| HRViT | classify | timm, crop_pct 0.9, bicubic | HRViT `models/hrvit.py` (`_cfg`), `pretrain.py`; timm 0.4.12 |
| LRFormer | classify | 256/224 of the size, bicubic | no code of it is public: DeiT's and PVT's protocol, assumed |
| MixFormer | classify | shorter side to 256, bicubic, rounded | PaddleClas 60239c9, `mixformer_b?.yaml` |
| HIRI-ViT | classify | size / 0.96, bicubic | no code of it is public: as `YehLi/ImageNetModel`, assumed |
| HRViT | segment | mmcv's `Resize(keep_ratio=True)` | HRViT `segmentation/configs`, `test_pipeline`; mmcv-full 1.3.0 |
| LRFormer | segment | the same, then stretched to multiples of 32 | LRFormer `configs_local/lrformer`, `AlignResize` |
| LRFormer+ | segment | the same as HRViT | LRFormer `configs_local/lrformer`, the base's `test_pipeline` |
| MixFormer, HIRI-ViT | segment | the same as HRViT | no code of it is public: mmsegmentation's, assumed |
| MixFormer, HIRI-ViT | detect | the same | mmdet's `coco_detection`: `Resize(keep_ratio=True)`, padded; assumed |

They test segmentors at any size, with the photo's shorter side at 512 or 1024; a network for a device has one size, so
that a photo is scaled to fit and the rest is filled as mmcv's `Pad` does it. Where photo and input have one aspect
ratio (Cityscapes' at 1024x2048) nothing is filled, and all of it is what the authors do. `features` are those of a
dense head and take its row. benchmarks/preprocess_parity.py runs the authors' libraries beside this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from hiresvit.data.preprocess import check_preprocess
from hiresvit.errors import UsageError
from hiresvit.spec import PreprocessSpec, Resize, Task

Rows = Mapping[Task, PreprocessSpec]

_MMCV = PreprocessSpec("keep", "bilinear", filter="opencv", rounding="round")
_ALIGNED = replace(_MMCV, divisor=32)
_CROP = PreprocessSpec("crop", "bicubic")

HRVIT: Rows = {"classify": replace(_CROP, crop_pct=0.9), "segment": _MMCV, "features": _MMCV}
LRFORMER: Rows = {"classify": _CROP, "segment": _ALIGNED, "features": _ALIGNED}
LRFORMER_PLUS: Rows = {"segment": _MMCV, "masks": _MMCV}
MIXFORMER: Rows = {
    "classify": replace(_CROP, rounding="round"),
    "segment": _MMCV,
    "features": _MMCV,
    "detect": _MMCV,
}
HIRI_VIT: Rows = {
    "classify": replace(_CROP, crop_pct=0.96),
    "segment": _MMCV,
    "features": _MMCV,
    "detect": _MMCV,
}
NANO: Rows = {"segment": PreprocessSpec(), "features": PreprocessSpec()}
"""Ours: trained on scenes of its own size, which nothing resizes; other pictures are stretched to it."""

_SLIDE = ("stride", "short_side")
_ONLY: Mapping[str, tuple[Resize, ...]] = {
    "crop_pct": ("crop",),
    "divisor": ("keep", "letterbox"),
    "stride": ("slide",),
    "short_side": ("slide",),
}


def changed(spec: PreprocessSpec, task: Task, changes: Mapping[str, Any]) -> PreprocessSpec:
    """A family's row with a user's own values, by the names of `PreprocessSpec`'s fields.

    Raises UsageError on a name or value that there is not, on one that would change nothing, on a crop for a segmentor
    and on windows for anything else.
    """
    known = list(vars(spec))
    if unknown := [name for name in changes if name not in known]:
        raise UsageError(f"preprocessing has no {unknown[0]}: there are {', '.join(known)}")
    idle = [name for name, resizes in _ONLY.items() if changes.get("resize", spec.resize) not in resizes]
    found = PreprocessSpec.from_json({**vars(spec), **{name: None for name in _SLIDE if name in idle}, **changes})
    check_preprocess(found)
    for name in idle:
        if name in changes:
            raise UsageError(f"{name} is for resize={' or '.join(_ONLY[name])}; here it is {found.resize}")
    for name in ("mean", "std"):
        if max(values := getattr(found, name)) > 1:
            given, scaled = (",".join(f"{value / by:.6g}" for value in values) for by in (1, 255))
            raise UsageError(f"{name} {given}: it is of pixels from 0 to 1; if yours is of 0 to 255, give {scaled}")
    if task in ("segment", "detect") and found.resize == "crop":
        what = "label" if task == "segment" else "box"
        others = ", ".join(name for name in get_args(Resize) if name != "crop")
        raise UsageError(f"resize=crop leaves pixels without a {what}: to {task}, give one of {others}")
    if task != "segment" and found.resize == "slide":
        raise UsageError(f"resize=slide averages the logits of windows, for segment only; the task is {task}")
    return found
