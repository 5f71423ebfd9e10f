"""An image in, labels or a class out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import preprocess, valid_region
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.runtime.labels import label_map
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ModelSpec


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
        return SegmentResult(label_map(logits[0], image.shape[:2], region, self.spec.imgsz))

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
