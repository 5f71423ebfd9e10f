"""A picture that is larger than the network's input, by windows that slide over it.

The logits of all windows are added up at the picture's size and divided by how many there are at each pixel, as in
mmsegmentation's `EncoderDecoder.slide_inference`. Rows that no window is missing for are labelled at once, and what
is kept of the logits is as high as a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import Region
from hiresvit.runtime.labels import Labels, Taps, axes_of, empty_labels, paint_labels, resized_plane

_CHUNK = 2**21  # logits that are labelled at a time


class Piece(NamedTuple):
    """Rows of a picture's answer: which, the logits (C, h, w) that they are mixed of, and how."""

    rows: slice
    logits: NDArray[Any]
    axes: tuple[Taps, Taps]


def slide_labels(
    logits_at: Callable[[int, int], NDArray[Any]],
    placed: Iterable[tuple[int, int]],
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    classes: int,
    *,
    confidence: bool = False,
    threads: int | None = None,
) -> tuple[Labels, NDArray[np.uint8] | None]:
    """Labels (H, W), and their confidence if asked, of a picture from the logits of its windows.

    Takes what `slide_pieces` takes.
    """
    size = sizes[2]
    labels, sure = empty_labels(classes, size), np.empty(size, np.uint8) if confidence else None
    for rows, logits, axes in slide_pieces(logits_at, placed, sizes, classes):
        paint_labels(logits, axes, labels[rows], None if sure is None else sure[rows], threads=threads)
    return labels, sure


def slide_pieces(
    logits_at: Callable[[int, int], NDArray[Any]],
    placed: Iterable[tuple[int, int]],
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    classes: int,
    shown: Region | None = None,
) -> Iterator[Piece]:
    """The averaged logits of a picture's windows, float32, some rows of the answer at a time, in order.

    ``logits_at(top, left)`` are those of one window, (C, h, w), and ``placed`` where windows lie, row by row (see
    `hiresvit.data.preprocess.windows`). ``sizes`` are the window's, that of the picture which it slides over, and that
    of the answer. ``shown`` is the part of the picture that is one, where the rest of it is filled.
    """
    window, picture, size = sizes
    places = [(top, [left for _, left in row]) for top, row in groupby(placed, key=lambda place: place[0])]
    tops, lefts = [top for top, _ in places], places[0][1]
    rows, columns = axes_of((classes, *picture), size, shown or Region(0, 0, *picture), picture)
    down, across = (
        _count(starts, side, whole) for starts, side, whole in zip((tops, lefts), window, picture, strict=True)
    )
    kept = min(window[0] + 1, picture[0])
    sums = np.zeros((classes, kept, picture[1]), np.float32)
    begin = 0  # the row of the picture that the sums begin with
    for top, following in zip(tops, [*tops[1:], picture[0]], strict=True):
        if (start := max(top - 1, 0)) > begin:  # a row above is kept, to mix the next with
            _shift(sums, start - begin)
            begin = start
        for left in lefts:
            _add(sums[:, top - begin : top - begin + window[0], left : left + window[1]], logits_at(top, left))
        sums[:, top - begin : following - begin] /= down[top:following, None] * across
        for chunk in _chunks(rows, top, following, classes * picture[1]):
            looked = rows.of(chunk)
            first, last = int(looked.first[0]), int(looked.second[-1])
            piece = np.ascontiguousarray(sums[:, first - begin : last + 1 - begin])
            yield Piece(chunk, piece, (looked.from_row(first), columns))


def _count(starts: list[int], side: int, whole: int) -> NDArray[np.float32]:
    """How many windows lie over each pixel of one axis."""
    found = np.zeros(whole, np.float32)
    for start in starts:
        found[start : start + side] += 1
    return found


def _shift(sums: NDArray[np.float32], rows: int) -> None:
    for plane in sums:  # numpy copies what overlaps, and a plane is little
        plane[:-rows] = plane[rows:]
        plane[-rows:] = 0


def _add(target: NDArray[np.float32], logits: NDArray[Any]) -> None:
    """Add a window's logits, enlarged to its size if need be."""
    _, height, width = target.shape
    axes = axes_of(logits.shape, (height, width), Region(0, 0, height, width), (height, width))
    for into, plane in zip(target, logits, strict=True):
        np.add(into, plane if plane.shape == into.shape else resized_plane(plane, axes), out=into)


def _chunks(rows: Taps, top: int, following: int, each: int) -> list[slice]:
    """The rows of labels that need no row from ``following`` on and are not of an earlier turn, some at a time."""
    edges = [*range(top, following, max(_CHUNK // each, 1)), following]
    places = np.searchsorted(rows.second, edges).tolist()
    return [slice(a, b) for a, b in pairwise(places) if b > a]
