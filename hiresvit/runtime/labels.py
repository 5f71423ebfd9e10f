"""From logits to labels of the picture's size.

The logits are resized bilinearly and then the best class is taken, which is how mmseg computes the published mIoU; of
equals it is the lowest. Between four neighbouring logits a resized one is their convex combination. A class that is the
best at all four is therefore the best everywhere between them, and nothing has to be computed there: what is left are
the cells along the borders of classes (`hiresvit.runtime.borders`).

What a part of the work needs is made once and by the thread that asks for the labels: memory that other threads
allocate comes without pages, and to get those costs more than the arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import Region
from hiresvit.errors import HiresvitError
from hiresvit.runtime.borders import Side, paint_borders

_VALUES = 2**18  # that are worked on at a time: they stay in a core's cache
_BAND = 2**21  # logits in which borders are looked for at a time
_MOST_BORDER = 0.3  # of the cells; with more of them every pixel is computed, which is cheaper then
_THREADS = 2  # more than two wait for memory

Labels: TypeAlias = "NDArray[np.uint8] | NDArray[np.int32]"
_Floats: TypeAlias = NDArray[np.float32]
_Ints: TypeAlias = NDArray[np.intp]


class Taps(NamedTuple):
    """For each pixel of one axis two logits, and the weight of the second."""

    first: _Ints
    second: _Ints
    part: _Floats

    def of(self, pixels: slice) -> Taps:
        """Those of some of the pixels."""
        return Taps(self.first[pixels], self.second[pixels], self.part[pixels])

    def from_row(self, start: int) -> Taps:
        """The same if the logits before ``start`` are not there."""
        return Taps(self.first - start, self.second - start, self.part)


def nearest(labels: NDArray[Any], size: tuple[int, int], region: Region) -> NDArray[Any]:
    """Labels (H, W) for a picture of ``size``: of the part of a map that shows it, the nearest."""
    rows, columns = (
        start + ((np.arange(target) + 0.5) * side / target).astype(np.intp)
        for target, start, side in zip(size, region[:2], region[2:], strict=True)
    )
    return labels[rows[:, None], columns]


def label_map(
    logits: NDArray[Any], size: tuple[int, ...], region: Region, imgsz: tuple[int, int], *, threads: int | None = None
) -> Labels:
    """Argmax over C of logits (C, h, w), of a region of the input resized bilinearly to (H, W); of equals the lowest.

    uint8, or int32 above 256 classes. It is what resizing all logits in float32 gives, except where two classes are
    equal to the last bits. A few rows of each class at a time: all logits at the image's size would take 5 GB for 150
    classes at 2048x4096. ``threads`` is the most that are taken, by default two. Raises HiresvitError if a logit that
    is looked at is NaN or Inf.
    """
    labels = empty_labels(len(logits), size)
    paint_labels(np.ascontiguousarray(logits), axes_of(logits.shape, size, region, imgsz), labels, threads=threads)
    return labels


def label_map_with_confidence(
    logits: NDArray[Any], size: tuple[int, ...], region: Region, imgsz: tuple[int, int], *, threads: int | None = None
) -> tuple[Labels, NDArray[np.uint8]]:
    """`label_map`, and how probable each label is: ``floor(255 p + 0.5)`` of the softmax of the resized logits.

    For that every pixel is computed from every class, which takes several times as long.
    """
    labels, sure = empty_labels(len(logits), size), np.empty(size, np.uint8)
    axes = axes_of(logits.shape, size, region, imgsz)
    paint_labels(np.ascontiguousarray(logits), axes, labels, sure, threads=threads)
    return labels, sure


def empty_labels(classes: int, size: tuple[int, ...]) -> Labels:
    """Place for labels (H, W): uint8, or int32 above 256 classes."""
    return np.empty(size, np.uint8) if classes <= 256 else np.empty(size, np.int32)


def check_finite(logits: NDArray[Any]) -> None:
    """Raise HiresvitError, with their number, if any are NaN or Inf."""
    if bad := logits.size - np.count_nonzero(np.isfinite(logits)):
        raise HiresvitError(f"{bad} of {logits.size} logits are NaN or Inf; compare with fp32")


def axes_of(shape: tuple[int, ...], size: tuple[int, ...], region: Region, imgsz: tuple[int, int]) -> tuple[Taps, Taps]:
    """What the rows and columns of a picture of ``size`` are mixed of; ``shape`` (C, h, w) is that of the logits."""
    return (
        _taps(shape[1], size[0], region.top, region.height, imgsz[0]),
        _taps(shape[2], size[1], region.left, region.width, imgsz[1]),
    )


def _taps(source: int, target: int, start: int, region: int, whole: int) -> Taps:
    """Half-pixel centres, repeated edges.

    The target lies over ``region`` of ``whole`` pixels of the input from ``start`` on, all of which the source lies
    over; nothing beyond the centres of the region's first and last pixel is looked at.
    """
    each = source / whole
    first_centre, last_centre = ((pixel + 0.5) * each - 0.5 for pixel in (start, start + region - 1))
    least, most = max(first_centre, 0) if start else 0, source - 1 if start + region == whole else max(last_centre, 0)
    centre = np.clip(start * each + (np.arange(target) + 0.5) * region * each / target - 0.5, least, most)
    first = centre.astype(np.intp)
    return Taps(first, np.minimum(first + 1, source - 1), (centre - first).astype(np.float32))


class _Scratch:
    """What one thread works in: float32 and boolean values of a few rows of each class."""

    def __init__(self, classes: int, width: int) -> None:
        self.rows = max(_VALUES // (classes * width), 1)
        size = self.rows * classes * width
        self.floats = [np.empty(size * times, np.float32) for times in (2, 2, 1, 1)]
        self.best = np.empty(self.rows * width, np.float32)
        self.equal = np.empty(size, bool)

    def float(self, number: int, shape: tuple[int, ...]) -> _Floats:
        return _shaped(self.floats[number], shape)

    def winners(self, block: _Floats, labels: Labels) -> _Floats:
        """Write the index of the best class of (C, h, w), of equals the lowest, and return its values (h, w)."""
        best: _Floats = np.max(block, 0, out=_shaped(self.best, block.shape[1:]))
        _check_block(block)
        if labels.dtype != np.uint8:
            labels[...] = block.argmax(0)
            return best
        rank = np.equal(block, best, out=_shaped(self.equal, block.shape)).view(np.uint8)
        rank *= np.arange(len(block) - 1, -1, -1).astype(np.uint8)[:, None, None]
        np.max(rank, 0, out=labels)
        np.subtract(len(block) - 1, labels, out=labels)
        return best


def _shaped(buffer: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return buffer[: int(np.prod(shape))].reshape(shape)


class _NotFinite(Exception):  # noqa: N818  (counted before anybody hears of it)
    """Some logits are NaN or Inf."""


def _check_block(block: _Floats) -> None:
    """Raise _NotFinite for NaN and Inf: the sum of finite numbers is finite, or else they are looked at."""
    if not np.isfinite(block.sum()) and not np.isfinite(block).all():
        raise _NotFinite


def paint_labels(
    logits: NDArray[Any],
    axes: tuple[Taps, Taps],
    labels: Labels,
    sure: NDArray[np.uint8] | None = None,
    *,
    threads: int | None = None,
) -> None:
    """Write the labels (H, W), and if asked how probable each is, of contiguous logits (C, h, w)."""
    rows, columns = axes
    count = min(threads or len(os.sched_getaffinity(0)), _THREADS)
    crew = [_Scratch(len(logits), max(len(columns.first), logits.shape[2])) for _ in range(count)]
    by_cell = sure is None and labels.size > logits[0].size // 2  # else not all of the logits are looked at

    def label(scratch: _Scratch, band: slice) -> None:
        looked = rows.of(band)
        if not by_cell or not _label_cells(scratch, logits, looked, columns, labels[band]):
            _label_pixels(scratch, logits, (looked, columns), labels[band], None if sure is None else sure[band])

    try:
        _share(crew, label, _bands(rows.first, logits[:, 0].size, count))
    except _NotFinite:
        check_finite(logits)
        raise


def add_probabilities(
    logits: NDArray[Any], axes: tuple[Taps, Taps], total: _Floats, *, threads: int | None = None
) -> None:
    """Add to (C, H, W) the softmax over C of contiguous logits (C, h, w), which are resized first."""
    rows, columns = axes
    count = min(threads or len(os.sched_getaffinity(0)), _THREADS)
    crew = [_Scratch(len(logits), max(len(columns.first), logits.shape[2])) for _ in range(count)]

    def add(scratch: _Scratch, band: slice) -> None:
        for top in range(band.start, band.stop, scratch.rows):
            part = slice(top, min(top + scratch.rows, band.stop))
            full = _resized(scratch, logits, rows.of(part), columns)
            full -= full.max(0)
            np.exp(full, out=full)
            full /= full.sum(0)
            total[:, part] += full

    _share(crew, add, _bands(rows.first, logits[:, 0].size, count))


def _bands(first: _Ints, each: int, count: int) -> list[slice]:
    """The pixels of one axis in parts of whole cells, about as many a thread as there are; ``each`` is a row's cost."""
    parts = -(-int(first[-1] + 1 - first[0]) * each // (count * _BAND)) * count
    edges = np.searchsorted(first, first[:: max(len(first) // parts, 1)])  # where cells begin
    return [slice(a, b) for a, b in pairwise([*np.unique(edges).tolist(), len(first)])]


def _share(crew: list[_Scratch], work: Callable[[_Scratch, slice], None], bands: list[slice]) -> None:
    """Do all bands, each by whoever is free; this thread is one of the crew."""
    left = iter(bands)

    def take(scratch: _Scratch) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # Inf is found later, and this is a thread's own setting
            for band in left:
                work(scratch, band)

    with ThreadPoolExecutor(len(crew)) as pool:  # starts a thread only for what is submitted
        others = [pool.submit(take, scratch) for scratch in crew[1:]]
        take(crew[0])
    for other in others:
        other.result()


def _label_cells(scratch: _Scratch, logits: NDArray[Any], rows: Taps, columns: Taps, labels: Labels) -> bool:
    """Label some rows by cells; False, and nothing is labelled, if borders are everywhere."""
    start, end = int(rows.first[0]), int(rows.second[-1]) + 1
    best = np.empty((end - start, logits.shape[2]), labels.dtype)
    each = scratch.equal.size // logits[:, 0].size
    for top in range(0, len(best), each):
        part = best[top : top + each]
        block = logits[:, start + top : start + top + len(part)]
        scratch.winners(block.astype(np.float32, copy=False), part)
    border = np.zeros(best.shape, bool)
    across = best[:, :-1] != best[:, 1:]
    border[:, :-1] = across
    border[:-1] |= best[:-1] != best[1:]
    border[:-1, :-1] |= across[1:]
    tops = np.searchsorted(rows.first, np.arange(start, start + len(best) + 1))
    lefts = np.searchsorted(columns.first, np.arange(best.shape[1] + 1))
    seen = [np.diff(starts) > 0 for starts in (tops, lefts)]
    border &= seen[1]
    border[~seen[0]] = False
    y, x = np.divmod(np.flatnonzero(border), best.shape[1])
    if len(y) > _MOST_BORDER * np.count_nonzero(seen[0]) * np.count_nonzero(seen[1]):
        return False
    best.take(columns.first, 1, mode="clip").take(rows.first - start, 0, out=labels, mode="clip")
    paint_borders(labels, logits, best, (y, x), (Side(start, tops, rows.part), Side(0, lefts, columns.part)))
    return True


def _label_pixels(
    scratch: _Scratch, logits: NDArray[Any], taps: tuple[Taps, Taps], labels: Labels, sure: NDArray[np.uint8] | None
) -> None:
    """Every pixel of some rows from every class, and how probable its label is."""
    for part in (slice(top, top + scratch.rows) for top in range(0, len(labels), scratch.rows)):
        full = _resized(scratch, logits, taps[0].of(part), taps[1])
        best = scratch.winners(full, labels[part])
        if sure is not None:
            full -= best
            np.exp(full, out=full)
            sure[part] = np.floor(255 / full.sum(0) + np.float32(0.5))


def _resized(scratch: _Scratch, logits: NDArray[Any], rows: Taps, columns: Taps) -> _Floats:
    """(C, H, W) of the rows and columns of contiguous logits that are asked for: across, and then down."""
    used, place = np.unique(np.concatenate((rows.first, rows.second)), return_inverse=True)
    block = logits.take(used, 1, mode="clip").astype(np.float32, copy=False)
    classes, wide = len(logits), (len(logits), len(used), len(columns.first))
    left, right = scratch.float(0, wide), scratch.float(1, wide)
    block.take(columns.first, 2, out=left, mode="clip")
    block.take(columns.second, 2, out=right, mode="clip")
    _mix(left, right, columns.part)
    tall = (classes, len(rows.first), len(columns.first))
    top, bottom = scratch.float(2, tall), scratch.float(3, tall)
    left.take(place[: tall[1]], 1, out=top, mode="clip")
    left.take(place[tall[1] :], 1, out=bottom, mode="clip")
    _mix(top, bottom, rows.part[:, None])
    return top


def _mix(first: _Floats, second: _Floats, part: _Floats) -> None:
    """Make ``first`` what lies between the two at ``part``."""
    second -= first
    second *= part
    first += second


def resized_plane(plane: NDArray[Any], axes: tuple[Taps, Taps]) -> _Floats:
    """One class of the logits (h, w) at a picture's size, float32 (H, W)."""
    rows, columns = axes
    wide = plane[:, columns.first].astype(np.float32)
    _mix(wide, plane[:, columns.second].astype(np.float32), columns.part)
    full = wide[rows.first]
    _mix(full, wide[rows.second], rows.part[:, None])
    return full
