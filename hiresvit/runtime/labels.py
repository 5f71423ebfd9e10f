"""From logits to labels of the picture's size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import Region

_BAND = 2**19  # pixels labelled at a time: their logits stay in a CPU's cache


def nearest(labels: NDArray[Any], size: tuple[int, int], region: Region) -> NDArray[Any]:
    """Labels (H, W) for a picture of ``size``: of the part of a map that shows it, the nearest."""
    rows, columns = (
        start + ((np.arange(target) + 0.5) * side / target).astype(np.intp)
        for target, start, side in zip(size, region[:2], region[2:], strict=True)
    )
    return labels[rows[:, None], columns]


def label_map(
    logits: NDArray[Any], size: tuple[int, ...], region: Region, imgsz: tuple[int, int]
) -> NDArray[np.uint8] | NDArray[np.int32]:
    """Argmax over C of logits (C, h, w), of a region of the input resized bilinearly to (H, W); of equals the lowest.

    Some rows at a time, and of them one class: all logits at the image's size would take 5 GB for 150 classes at
    2048x4096.
    """
    height, width = size
    top, bottom, down = _taps(logits.shape[1], height, region.top, region.height, imgsz[0])
    left, right, across = _taps(logits.shape[2], width, region.left, region.width, imgsz[1])
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
    source: int, target: int, start: int, region: int, whole: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Two source indices and the second's weight per target index; half-pixel centres, repeated edges.

    The target lies over ``region`` of ``whole`` pixels of the input from ``start`` on, all of which the source lies
    over; nothing beyond the centres of the region's first and last pixel is looked at.
    """
    each = source / whole
    first_centre, last_centre = ((pixel + 0.5) * each - 0.5 for pixel in (start, start + region - 1))
    least, most = max(first_centre, 0) if start else 0, source - 1 if start + region == whole else max(last_centre, 0)
    centre = np.clip(start * each + (np.arange(target) + 0.5) * region * each / target - 0.5, least, most)
    first = centre.astype(np.intp)
    return first, np.minimum(first + 1, source - 1), (centre - first).astype(np.float32)
