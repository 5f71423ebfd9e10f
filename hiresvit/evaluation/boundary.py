"""How well the borders of an answer lie on those of the labels: the BF measure, of one picture.

Csurka, Larlus, Perronnin: What is a good evaluation measure for semantic segmentation? BMVC 2013. For each class the
border of what is labelled so is held against the border of what is answered so. Precision is the share of the answer's
border pixels with a pixel of the labels' border at a Euclidean distance below 0.75 % of the picture's diagonal, recall
the other way round, and F their harmonic mean. A picture's score is the mean over its classes, a data set's the mean
over its pictures.

The paper leaves open what a border pixel is. Here it is a pixel of the class with one of another class above, below, to
its left or its right. Ignored pixels are of no class in both maps, and no border lies along them or along the edge of
the picture; so a class that fills a picture has no border, and a class with a border in neither map does not count.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

NONE = -1  # the class of a pixel that is ignored


def boundary_scores(
    labels: NDArray[Any], answer: NDArray[Any], counted: NDArray[np.bool_], num_classes: int
) -> NDArray[np.float64]:
    """F of each class from 0 to 1, float64 (num_classes,); NaN for one without a border in both maps.

    ``labels`` and ``answer`` are classes (H, W), of which those outside 0 to num_classes - 1 get no score, ``counted``
    (H, W) where they count.
    """
    truth, found = (_borders(np.where(counted, one.astype(np.int32), NONE), num_classes) for one in (labels, answer))
    limit, area = _limit(*labels.shape), labels.size

    def count(points: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(points // area, minlength=num_classes)

    ours, theirs = count(found), count(truth)
    hits = count(found[_near(found, truth, labels.shape, limit)])
    seen = count(truth[_near(truth, found, labels.shape, limit)])
    scores = np.where((ours > 0) | (theirs > 0), 0.0, np.nan)
    both = (hits > 0) & (seen > 0)
    precision, recall = hits[both] / ours[both], seen[both] / theirs[both]
    scores[both] = 2 * precision * recall / (precision + recall)
    return scores


def _limit(height: int, width: int) -> int:
    """The largest squared distance in pixels that is below 0.75 % of the diagonal: in whole numbers, so exactly."""
    return (9 * (height * height + width * width) - 1) // 160_000


def _borders(classes: NDArray[np.int32], num_classes: int) -> NDArray[np.int64]:
    """The border pixels of all classes as rising numbers, (class * W + column) * H + row."""
    border = np.zeros(classes.shape, np.bool_)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = classes[one], classes[other]
        differ = (a != b) & (a != NONE) & (b != NONE)
        border[one] |= differ
        border[other] |= differ
    height, width = classes.shape
    column, row = np.nonzero(border.T)
    kinds = classes[row, column].astype(np.int64)
    known = kinds < num_classes
    return np.sort(((kinds * width + column) * height + row)[known])


def _near(
    points: NDArray[np.int64], others: NDArray[np.int64], shape: tuple[int, ...], limit: int
) -> NDArray[np.bool_]:
    """Which points have another of their class within ``limit``: column by column, the nearest columns first.

    In a column that is dx away those count that are at most sqrt(limit - dx^2) rows away, and as the numbers rise by
    class, column and row, the first that is not above them is found by bisection.
    """
    height, width = shape
    found = np.zeros(len(points), np.bool_)
    if not len(others):
        return found
    for distance in range(isqrt(limit) + 1):
        reach = isqrt(limit - distance * distance)
        for step in {distance, -distance}:
            left = np.flatnonzero(~found)
            column, row = points[left] // height, points[left] % height
            inside = (column % width + step >= 0) & (column % width + step < width)
            left, column, row = left[inside], column[inside] + step, row[inside]
            first = column * height + np.maximum(row - reach, 0)
            last = column * height + np.minimum(row + reach, height - 1)
            place = np.minimum(np.searchsorted(others, first), len(others) - 1)
            found[left] = (others[place] >= first) & (others[place] <= last)
    return found
