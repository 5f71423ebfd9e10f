"""The Pareto front of accuracy against time, what of it the intervals leave open, and the best within a budget.

Every ``x`` is a time, of which less is better, every ``y`` an accuracy, of which more is; ``low`` to ``high`` is its
interval. What has no accuracy is no point.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Point(NamedTuple):
    """A point of a scatter: its name, the group that gives it its colour, and where it is, from ``low`` to ``high``."""

    name: str
    group: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def front(points: Iterable[Point]) -> list[Point]:
    """The points than which no other is better in one way and not worse in the other; the fastest first.

    Of points that are equal in both ways all are on it, or none.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if not kept or point.y > kept[-1].y or (point.x, point.y) == (kept[-1].x, kept[-1].y):
            kept.append(point)
    return kept


def alike(point: Point, points: Iterable[Point]) -> list[Point]:
    """The others whose accuracy cannot be told from that of ``point``: their intervals overlap."""
    return [one for one in points if one is not point and _overlap(one, point)]


def best_within(points: Iterable[Point], most: float) -> Point | None:
    """The most accurate of those that take at most a time, of equal ones the fastest; None if there is none."""
    return max((point for point in points if point.x <= most), key=lambda one: (one.y, -one.x), default=None)


def _overlap(one: Point, other: Point) -> bool:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low <= other.high and other.low <= one.high
