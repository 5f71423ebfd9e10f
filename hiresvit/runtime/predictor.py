"""An image in, labels or a class out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import preprocess, valid_region
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ModelSpec

_BAND = 2**19  # pixels labelled at a time: their logits stay in a CPU's cache


@dataclass(frozen=True, eq=False)
class SegmentResult:
    """``labels`` (H, W) at the image's own size: uint8, or int32 above 256 classes."""

    labels: NDArray[np.uint8] | NDArray[np.int32]


@dataclass(frozen=True)
class ClassifyResult:
    """``top``: (class index, probability), best first."""

    top: tuple[tuple[int, float], ...]


class Predictor:
    """Preprocess, run, read the answer. Raises UsageError if the network and the spec do not fit together."""

    def __init__(self, runner: Runner, spec: ModelSpec, *, top_k: int = 5) -> None:
        if spec.task == "features":
            raise UsageError(f"{spec.name}: feature maps are no answer to draw; give a classify or segment model")
        if spec.task == "segment" and spec.preprocess.resize == "crop":
            raise UsageError(f"{spec.name}: resize=crop leaves pixels without a label; segmentation stretches or keeps")
        if top_k < 1:
            raise UsageError(f"top_k {top_k}: give at least 1")
        if len(runner.inputs) != 1 or len(runner.outputs) != 1:
            sides = f"{len(runner.inputs)} inputs and {len(runner.outputs)} outputs"
            raise UsageError(f"{spec.name}: the network has {sides}; a predictor takes one of each")
        self.runner = runner
        self.spec = spec
        self.top_k = top_k

    def predict(self, image: NDArray[np.uint8]) -> SegmentResult | ClassifyResult:
        """Answer for one uint8 (H, W, 3) RGB image.

        The logits of the part of the input that shows the image are resized bilinearly to the image's size, and only
        then comes the argmax: the heads answer at stride 4 or 8, labels enlarged from there have staircase borders, and
        it is how mmseg computes the published mIoU. Raises HiresvitError if the network returns NaN or Inf.
        """
        feed = preprocess(image, self.spec.preprocess, self.spec.imgsz)
        logits = self.runner({self.runner.inputs[0].name: feed})[self.runner.outputs[0].name]
        self._check(logits)
        if self.spec.task == "classify":
            return ClassifyResult(_top(logits[0], self.top_k))
        region = valid_region(image.shape[:2], self.spec.preprocess, self.spec.imgsz)
        return SegmentResult(_labels(logits[0], image.shape[:2], region, self.spec.imgsz))

    def _check(self, logits: NDArray[Any]) -> None:
        rank = 2 if self.spec.task == "classify" else 4
        if logits.ndim != rank or logits.shape[:2] != (1, self.spec.num_classes):
            want = f"(1, {self.spec.num_classes}{', h, w' if rank == 4 else ''})"
            raise UsageError(f"{self.spec.name}: the network returned {logits.shape}; its spec says {want}")
        if bad := logits.size - np.count_nonzero(np.isfinite(logits)):
            raise HiresvitError(f"{self.spec.name}: {bad} of {logits.size} logits are NaN or Inf; compare with fp32")


def _top(logits: NDArray[Any], k: int) -> tuple[tuple[int, float], ...]:
    z = logits.astype(np.float64)
    p = np.exp(z - z.max())
    p /= p.sum()
    best = np.argsort(-p, kind="stable")[:k]  # stable: of equals the lowest index comes first
    return tuple((int(i), float(p[i])) for i in best)


def _labels(
    logits: NDArray[Any], size: tuple[int, ...], region: tuple[int, int], imgsz: tuple[int, int]
) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Argmax over C of logits (C, h, w), of a region of the input resized bilinearly to (H, W); of equals the lowest.

    Some rows at a time, and of them one class: all logits at the image's size would take 5 GB for 150 classes at
    2048x4096.
    """
    height, width = size
    top, bottom, down = _taps(logits.shape[1], height, region[0], imgsz[0])
    left, right, across = _taps(logits.shape[2], width, region[1], imgsz[1])
    labels: NDArray[np.uint8] | NDArray[np.int32]
    labels = np.zeros(size, np.uint8 if len(logits) <= 256 else np.int32)
    rows = max(_BAND // width, 1)
    for band in (slice(start, start + rows) for start in range(0, height, rows)):
        first, last = top[band][0], bottom[band][-1]
        best = np.full(labels[band].shape, -np.inf, np.float32)
        for index, plane in enumerate(logits[:, first : last + 1].astype(np.float32, copy=False)):
            wide = plane[:, left]  # of h, W
            wide += (plane[:, right] - wide) * across
            full = wide[top[band] - first]  # of H, W
            full += (wide[bottom[band] - first] - full) * down[band, None]
            np.copyto(labels[band], index, where=full > best)
            np.maximum(best, full, out=best)
    return labels


def _taps(
    source: int, target: int, region: int, whole: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Two source indices and the second's weight per target index; half-pixel centres, repeated edges.

    The target lies over the first ``region`` of ``whole`` pixels of the input, all of which the source lies over;
    nothing beyond the centre of the region's last pixel is looked at.
    """
    span = source * region / whole
    last = source - 1 if region == whole else max(span - source / whole / 2 - 0.5, 0)
    centre = np.clip((np.arange(target) + 0.5) * span / target - 0.5, 0, last)
    first = centre.astype(np.intp)
    return first, np.minimum(first + 1, source - 1), (centre - first).astype(np.float32)
