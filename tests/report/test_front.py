"""The Pareto front by hand-made points: what is better is further to the left and higher up."""

from __future__ import annotations

import random

from hiresvit.report.front import Point, alike, best_within, front


def at(x: float, y: float, low: float | None = None, high: float | None = None) -> Point:
    return Point(f"{x}/{y}", "", x, y, low, high)


def test_no_point_and_one_point() -> None:
    assert front([]) == []
    assert front([at(5, 60)]) == [at(5, 60)]
    assert best_within([], 10) is None


def test_of_equal_times_the_most_accurate_is_on_it() -> None:
    assert front([at(5, 60), at(5, 70), at(5, 65)]) == [at(5, 70)]


def test_of_equal_accuracies_the_fastest_is_on_it() -> None:
    assert front([at(7, 70), at(5, 70), at(6, 70)]) == [at(5, 70)]


def test_points_that_are_equal_in_both_are_all_on_it() -> None:
    twins = [at(5, 70)._replace(name="a"), at(5, 70)._replace(name="b")]
    assert front([*twins, at(6, 69), at(4, 60)]) == [at(4, 60), *twins]
    assert front([*twins, at(4, 71)]) == [at(4, 71)]


def test_the_front_is_what_its_definition_says_in_any_order() -> None:
    chosen = random.Random(0)
    points = [at(chosen.randint(1, 9), chosen.randint(1, 9)) for _ in range(60)]
    wanted = [p for p in points if not any(q.x <= p.x and q.y >= p.y and (q.x, q.y) != (p.x, p.y) for q in points)]
    for _ in range(5):
        chosen.shuffle(points)
        assert sorted(front(points)) == sorted(wanted)


def test_intervals_that_overlap_are_alike_and_those_without_one_are_not() -> None:
    best, near, far, bare = at(5, 70, 68, 72), at(4, 67, 65, 68), at(3, 60, 58, 62), at(2, 70)
    assert alike(best, [best, near, far, bare]) == [near]
    assert alike(bare, [best, near, far, bare]) == []


def test_the_best_within_a_budget_is_the_most_accurate_then_the_fastest() -> None:
    points = [at(5, 70), at(4, 70), at(9, 80), at(1, 40)]
    assert best_within(points, 8) == at(4, 70)
    assert best_within(points, 9) == at(9, 80)
    assert best_within(points, 0.5) is None
