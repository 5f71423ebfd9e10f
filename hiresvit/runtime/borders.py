"""The pixels between four logits that are not all of one class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Floats: TypeAlias = NDArray[np.float32]
_Ints: TypeAlias = NDArray[np.intp]
_Bools: TypeAlias = NDArray[np.bool_]
_VALUES = 2**18  # that are made at a time


class Side(NamedTuple):
    """Pixels of one axis by cells: where those of each begin (one more at the end), and where in its cell each lies.

    The first cell begins at the logit ``begin``.
    """

    begin: int
    starts: _Ints
    part: _Floats


def paint_borders(
    labels: NDArray[Any], logits: NDArray[Any], best: NDArray[Any], cells: tuple[_Ints, _Ints], sides: tuple[Side, Side]
) -> None:
    """Write the labels of some cells of contiguous logits (C, h, w), each given by its row and column.

    ``labels`` (H, W) are those of the pixels of some rows of cells; ``best`` (h', w) are the best classes of the
    logits around these; ``sides`` are the pixels' rows and columns.
    """
    y, x = cells
    rows, columns = sides
    height, width = best.shape
    flat, pixels = logits.reshape(len(logits), -1), labels.reshape(-1)
    for some in _parts(y, x, len(logits), rows, columns):
        top, left = y[some], x[some]
        below, right = np.minimum(top + 1, height - 1) * width, np.minimum(left + 1, width - 1)
        top = top * width
        corners = np.stack((top + left, top + right, below + left, below + right))
        found = best.reshape(-1)[corners]
        low, high = found.min(0), found.max(0)
        corners += rows.begin * width
        lower, upper, two = _two_classes(flat, corners, found, low, high)
        (down, fy), (across, fx) = _pixels(y[some], rows), _pixels(left, columns)
        winner = np.where(_between(upper, fy, fx) > _between(lower, fy, fx), high, low)
        if not two.all():
            more = np.flatnonzero(~two)
            winner[..., more] = _best(flat, corners[:, more], fy[:, more], fx[:, more])
        pixels[(down * labels.shape[1])[:, None] + across] = winner


def _two_classes(
    flat: NDArray[Any], corners: _Ints, found: NDArray[Any], low: NDArray[Any], high: NDArray[Any]
) -> tuple[_Floats, _Floats, _Bools]:
    """The logits (4, n) of the classes ``low`` and ``high`` of n cells, and where no other class can come first."""
    values = flat.take(corners.reshape(-1), 1, mode="clip").astype(np.float32, copy=False)
    ends, places = np.tile((low, high), 4), np.arange(corners.size)
    lower, upper = (values[end, places].reshape(corners.shape) for end in ends)
    values[ends, places] = -np.inf
    rest = values.max(0).reshape(corners.shape)
    return lower, upper, ((found == low) | (found == high)).all(0) & _some_mixture_is_above(lower, upper, rest)


def _some_mixture_is_above(one: _Floats, other: _Floats, rest: _Floats) -> _Bools:
    """Whether one ``t one + (1 - t) other``, t from 0 to 1, is above ``rest`` at all four corners (4, n)."""
    ahead = one - other
    with np.errstate(all="ignore"):
        equal_at = (rest - other) / ahead
    least = np.where(ahead > 0, equal_at, 0).max(0)
    most = np.where(ahead < 0, equal_at, 1).min(0)
    above: _Bools = ((ahead != 0) | (other > rest)).all(0) & (least < most)
    return above


def _parts(y: _Ints, x: _Ints, classes: int, rows: Side, columns: Side) -> Iterator[slice]:
    """Cells, as many at a time as have few logits at a corner and few pixels."""
    if not len(y):
        return
    most = [int(np.diff(side.starts)[index].max()) for index, side in ((y, rows), (x, columns))]
    each = max(_VALUES // max(most[0] * most[1], 4 * classes), 1)
    for start in range(0, len(y), each):
        yield slice(start, start + each)


def _pixels(index: _Ints, side: Side) -> tuple[_Ints, _Floats]:
    """The pixels (k, n) of n cells and where they lie in them; the last is repeated where a cell has fewer than k."""
    first, last = side.starts[index], side.starts[index + 1] - 1
    pixels = np.minimum(first + np.arange((last - first).max() + 1)[:, None], last)
    return pixels, side.part[pixels]


def _between(corners: _Floats, down: _Floats, across: _Floats) -> _Floats:
    """(rows, columns, n) between the logits (4, n) at the corners, in `hiresvit.runtime.labels`' own order."""
    top = corners[0] + (corners[1] - corners[0]) * across
    step = corners[2] + (corners[3] - corners[2]) * across
    step -= top
    values: _Floats = step * down[:, None]
    values += top
    return values


def _best(flat: NDArray[Any], corners: _Ints, down: _Floats, across: _Floats) -> _Ints:
    """The best of all classes, of equals the lowest: (rows, columns, n)."""
    planes = (plane[corners].astype(np.float32, copy=False) for plane in flat)
    best = _between(next(planes), down, across)
    winner = np.zeros(best.shape, np.intp)
    for index, plane in enumerate(planes, 1):
        values = _between(plane, down, across)
        np.copyto(winner, index, where=values > best)
        np.maximum(best, values, out=best)
    return winner
