"""From a detector's raw outputs to boxes in a picture: what `hiresvit.spec.AnchorSpec` says, in NumPy.

All arithmetic behind the network is in float64, so that another implementation gives the same boxes. Order decides
ties: candidates are sorted by score, and of equals first comes the finer level, then the cell row by row, the anchor,
the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import Region
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import AnchorSpec, Feed

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Boxes:
    """What was found, best first, N of it.

    ``boxes`` (N, 4), float32: left, top, right, bottom in pixels of the picture, whose first pixel lies from 0 to 1.
    ``scores`` (N,), float32, from 0 to 1. ``classes`` (N,), int32.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]


def find_boxes(outputs: Feed, anchors: AnchorSpec, size: tuple[int, int], region: Region) -> Boxes:
    """The boxes in a picture of ``size`` (H, W), which ``region`` of the network's input shows.

    ``outputs`` are ``logits_S`` (1, A*K, h, w) and ``deltas_S`` (1, A*4, h, w) for every stride S. Raises UsageError
    for outputs of other names or shapes, HiresvitError if any are NaN or Inf.
    """
    boxes, scores, classes = find_candidates(outputs, anchors, size, region)
    kept = keep_best(boxes, classes, anchors.iou_threshold, anchors.max_boxes)
    return Boxes(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), classes[kept].astype(np.int32))


def find_candidates(
    outputs: Feed, anchors: AnchorSpec, size: tuple[int, int], region: Region
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """What `find_boxes` chooses from, best first: boxes (N, 4) in the picture, scores (N,) and classes (N,)."""
    found = [_candidates(outputs, stride, anchors) for stride in anchors.strides]
    boxes, scores, classes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    boxes = _in_picture(boxes, size, region)
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores, classes = boxes[real], scores[real], classes[real]
    best = np.argsort(-scores, kind="stable")
    return boxes[best], scores[best], classes[best]


def anchor_boxes(stride: int, size: tuple[int, int], anchors: AnchorSpec) -> Floats:
    """The anchors of a level whose map is ``size`` (h, w): (h, w, A, 4) left, top, right, bottom, in input pixels."""
    ratios, scales = np.array(anchors.ratios)[:, None], np.array(anchors.scales)
    side = anchors.base * stride * scales
    half = np.stack([(side / np.sqrt(ratios)).ravel(), (side * np.sqrt(ratios)).ravel()], axis=-1) / 2  # (A, 2)
    centres = np.stack(np.meshgrid(*(np.arange(length) * float(stride) for length in size[::-1])), axis=-1)
    return np.concatenate([centres[:, :, None] - half, centres[:, :, None] + half], axis=-1)


def decode_boxes(boxes: Floats, deltas: Floats, anchors: AnchorSpec) -> Floats:
    """Anchors (N, 4), moved and resized by raw deltas (N, 4): left, top, right, bottom."""
    moved = deltas * np.array(anchors.stds) + np.array(anchors.means)
    most = abs(math.log(anchors.size_clamp))
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * moved[:, :2]
    half = sides * np.exp(np.clip(moved[:, 2:], -most, most)) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def keep_best(boxes: Floats, classes: NDArray[Any], iou_threshold: float, most: int) -> NDArray[np.intp]:
    """Class-wise NMS: which of boxes (N, 4), sorted by score, remain, at most ``most``.

    A box goes if one of its class that remained overlaps it by more than the threshold. Boxes have an area.
    """
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        one, left = left[0], left[1:]
        kept.append(int(one))
        left = left[(classes[left] != classes[one]) | (overlaps(boxes[one], boxes[left]) <= iou_threshold)]
    return np.array(kept, dtype=np.intp)


def overlaps(one: Floats, boxes: Floats) -> Floats:
    """The IoU of a box (4,) with each of others (N, 4); all have an area."""
    shared = np.prod(np.maximum(np.minimum(boxes[:, 2:], one[2:]) - np.maximum(boxes[:, :2], one[:2]), 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(one[2:] - one[:2])
    found: Floats = shared / (areas - shared)
    return found


def _candidates(outputs: Feed, stride: int, anchors: AnchorSpec) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """A level's boxes (N, 4) in input pixels, scores (N,) and classes (N,), best first."""
    logits, deltas = (_output(outputs, f"{kind}_{stride}") for kind in ("logits", "deltas"))
    count, size = anchors.per_cell, (logits.shape[1], logits.shape[2])
    if logits.shape[0] % count or deltas.shape != (count * 4, *size):
        raise UsageError(
            f"outputs of stride {stride} are {logits.shape} and {deltas.shape}; {count} anchors a cell need"
            f" ({count}*classes, h, w) and ({count * 4}, h, w)"
        )
    classes = logits.shape[0] // count
    # A scalar of NumPy's: Python's own would be rounded to the outputs' type before it is compared
    least = np.float64(math.log(anchors.score_threshold / (1 - anchors.score_threshold)))
    channel, cell = np.nonzero(logits.reshape(len(logits), -1) > least)
    values = logits.reshape(len(logits), -1)[channel, cell].astype(np.float64)
    anchor, kind = np.divmod(channel, classes)
    order = np.lexsort((kind, anchor, cell, -values))[: anchors.per_level]
    anchor, kind, cell, values = anchor[order], kind[order], cell[order], values[order]
    standing = anchor_boxes(stride, size, anchors).reshape(-1, count, 4)[cell, anchor]
    moved = deltas.reshape(count, 4, -1)[anchor, :, cell].astype(np.float64)
    return decode_boxes(standing, moved, anchors), 1 / (1 + np.exp(-values)), kind


def _output(outputs: Feed, name: str) -> NDArray[Any]:
    """One output of one picture (C, h, w)."""
    if name not in outputs:
        raise UsageError(f"no output {name} among {', '.join(outputs)}: the anchors are of another graph")
    found = outputs[name]
    if found.ndim != 4 or len(found) != 1:
        raise UsageError(f"output {name} is {found.shape}; boxes are of one picture, (1, channels, h, w)")
    if bad := found.size - int(np.count_nonzero(np.isfinite(found))):
        raise HiresvitError(f"{bad} of {found.size} values of {name} are NaN or Inf; compare with fp32")
    picture: NDArray[Any] = found[0]
    return picture


def _in_picture(boxes: Floats, size: tuple[int, int], region: Region) -> Floats:
    """Boxes in input pixels (N, 4) cut at the region's borders, in pixels of the picture that it shows."""
    start = np.array([region.left, region.top] * 2, dtype=np.float64)
    sides = np.array([region.width, region.height] * 2, dtype=np.float64)
    whole = np.array([size[1], size[0]] * 2, dtype=np.float64)
    return np.clip(boxes - start, 0, sides) * (whole / sides)
