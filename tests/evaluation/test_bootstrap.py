"""Intervals: they cover what they should, and a pair's is as narrow as its differences."""

from __future__ import annotations

import numpy as np
import pytest

from hiresvit.evaluation.bootstrap import RESAMPLES, interval, resampled_sums


def test_nineteen_of_twenty_intervals_cover_the_true_share() -> None:
    """Of 300 experiments of 400 coin tosses 285 are expected to, give or take 4 (a standard deviation)."""
    rng, share = np.random.default_rng(0), 0.8
    covered = 0
    for _ in range(300):
        tosses = (rng.random((400, 1)) < share).astype(float)
        found = interval(resampled_sums(tosses, resamples=300)[:, 0] / 400)
        assert found is not None
        covered += found[0] <= share <= found[1]
    assert 285 - 16 <= covered <= 285 + 12


def test_its_width_is_that_of_the_binomial() -> None:
    tosses = (np.arange(2500) % 5 > 0).astype(float)[:, None]  # 80 %
    found = interval(resampled_sums(tosses)[:, 0] / 2500)
    assert found is not None
    deviation = np.sqrt(0.8 * 0.2 / 2500)
    assert (found[1] - found[0]) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.1)


def test_a_pair_has_the_same_draws() -> None:
    """Two sides that are right on the same pictures differ by nothing, in every draw."""
    rng = np.random.default_rng(1)
    one = (rng.random((100, 3)) < 0.5).astype(float)
    other = one.copy()
    other[7] = 1 - one[7]
    differences = resampled_sums(other) - resampled_sums(one)
    assert (resampled_sums(one) == resampled_sums(one.copy())).all()
    assert np.isin(differences, np.arange(-12, 13)).all()
    assert 0.3 < (differences[:, 0] == 0).mean() < 0.45, "a picture is in no draw with a probability of 1/e"
    assert (resampled_sums(one, seed=1) != resampled_sums(one)).any()
    assert resampled_sums(one).shape == (RESAMPLES, 3)


def test_a_draw_has_as_many_pictures_as_there_are() -> None:
    for count in (2, 63, 500):
        sums = resampled_sums(np.ones((count, 1)), resamples=130)
        assert (sums == count).all()


def test_where_nothing_is_known_there_is_no_interval() -> None:
    assert interval(np.array([np.nan, np.nan])) is None
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
