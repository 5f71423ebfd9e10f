"""How far the boxes of two runs of a detector agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hiresvit.data.preprocess import Region
from hiresvit.runtime.boxes import Boxes, find_boxes, find_candidates, overlaps
from hiresvit.spec import AnchorSpec, Feed

SAME_PLACE = 0.9
"""The least IoU of two boxes that are the same; COCO's thresholds end at 0.95."""
SAME_SCORE = 0.05
"""How far the scores of two boxes that are the same may lie apart. Reckoned, not measured: noise 45 dB below logits of
root mean square 5 is 0.028, and a score at a half moves by a quarter of that."""


def boxes_agree(reference: Feed, test: Feed, anchors: AnchorSpec) -> float:
    """The share of boxes that the other side has, too: the lower of both ways, of the worst picture of a batch.

    A box that comes out of one side (`find_boxes`, the whole input as picture) is looked for among the candidates of
    the other, before NMS and down to half the threshold of the score: one of its class with an IoU of `SAME_PLACE` and
    a score within `SAME_SCORE`. NMS turns rounding into other boxes where two of nearly the same score overlap; that
    is no difference between the networks, and both sides have the same NMS. Without boxes on both sides it is 1.
    """
    batch, _, height, width = reference[f"logits_{anchors.strides[0]}"].shape
    size = (height * anchors.strides[0], width * anchors.strides[0])
    region = Region(0, 0, *size)
    least = 1.0
    for index in range(batch):
        one, other = ({name: v[index : index + 1] for name, v in outputs.items()} for outputs in (reference, test))
        for seen, candidates in ((one, other), (other, one)):
            found = find_boxes(seen, anchors, size, region)
            least = min(least, share_found(found, candidates, anchors, size, region))
    return least


def share_found(boxes: Boxes, outputs: Feed, anchors: AnchorSpec, size: tuple[int, int], region: Region) -> float:
    """The share of boxes in a picture of ``size`` (H, W) that raw outputs have among their candidates; 1 of none."""
    if not len(boxes.scores):
        return 1.0
    wider = replace(anchors, score_threshold=anchors.score_threshold / 2, per_level=2 * anchors.per_level)
    places, scores, classes = find_candidates(outputs, wider, size, region)
    found = 0
    for box, score, kind in zip(boxes.boxes.astype(np.float64), boxes.scores, boxes.classes, strict=True):
        alike = (classes == kind) & (np.abs(scores - score) <= SAME_SCORE)
        found += bool((overlaps(box, places[alike]) >= SAME_PLACE).any())
    return found / len(boxes.scores)
