"""The observers against whole arrays: numpy's own histogram and quantiles, and searches written out at length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from hiresvit.calibration import observers
from hiresvit.calibration.observers import BINS, METHODS, Method, amax_of, histogram
from hiresvit.errors import UsageError

Floats = NDArray[np.float32]

TINY = float(np.finfo(np.float32).tiny)


def largest(values: Floats) -> float:
    return float(np.abs(values).max())


def reference_histogram(values: Floats, amax: float) -> NDArray[np.int64]:
    """Numpy puts right what it misses at a bin's edge, in float64, where the edges are exact."""
    return np.histogram(np.abs(values).astype(np.float64), BINS, (0.0, amax))[0].astype(np.int64)


def draws(seed: int = 0, count: int = 200_000) -> dict[str, Floats]:
    """Activations as networks have them."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(count)
    channels = rng.standard_normal((count // 64, 64)) * np.exp(rng.standard_normal(64))
    found = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "sparse": np.maximum(normal - 1.3, 0),
        "hardswish": normal * np.clip(normal + 3, 0, 6) / 6,
        "laplace": rng.laplace(size=count),
        "softmax": rng.dirichlet(np.full(64, 0.3), count // 64).ravel(),
        "uniform": rng.random(count),
        "stray": np.append(normal, 60),
        "heavy tails": rng.standard_t(3, count),
        "channels": channels.ravel(),
        "signs": np.sign(normal),
        "few": normal[:300],
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


DRAWS = draws()


# Histogram


@given(
    values=hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    beyond=st.floats(1, 4, width=32),
)
@example(values=np.array([1, 0.5, 0.25, -0.75], np.float32), beyond=1.0)  # all on edges
@example(values=np.array([3, 1, 2, 1.5, np.nextafter(np.float32(1.5), np.float32(0))], np.float32), beyond=1.0)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_histogram_is_exact(values: Floats, beyond: float) -> None:
    amax = max(largest(values) * beyond, TINY)
    amax = float(np.float32(amax))
    assert np.array_equal(histogram(values, amax), reference_histogram(values, amax))


@given(top=st.floats(TINY, 2.0**100, width=32), data=st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_neighbours_of_an_edge_fall_on_its_two_sides(top: float, data: st.DataObject) -> None:
    edge = data.draw(st.integers(1, BINS - 1)) * top / BINS  # exact in float64
    at = np.float32(edge)
    values = np.array([np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(np.inf))])
    assert np.array_equal(histogram(values, top), reference_histogram(values, top))


@pytest.mark.parametrize("name", DRAWS)
def test_histogram_of_the_parts_is_that_of_the_whole(name: str) -> None:
    values = DRAWS[name]
    amax = largest(values)
    whole = histogram(values, amax)
    assert np.array_equal(whole, reference_histogram(values, amax))
    assert int(whole.sum()) == values.size
    cuts = np.sort(np.random.default_rng(1).integers(0, values.size, 5))
    parts = [histogram(part, amax) for part in np.split(values, cuts)]
    assert np.array_equal(whole, np.sum(parts, 0))
    square = np.resize(values, (4, 100, 100))
    assert np.array_equal(histogram(square.transpose(2, 0, 1), amax), histogram(square.ravel(), amax))


def test_what_is_beyond_the_range_is_in_the_last_bin() -> None:
    counts = histogram(np.array([0, 1, -1.0001, 3e38], np.float32), 1.0)
    assert (counts[0], counts[-1], counts.sum()) == (1, 3, 4)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = DRAWS["laplace"][:5000]
    whole = histogram(values, 20.0)
    monkeypatch.setattr(observers, "_BLOCK", 7)
    assert np.array_equal(histogram(values, 20.0), whole)
    assert histogram(np.empty((0, 3), np.float32), 1.0).sum() == 0


# Percentile


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.9, 99.99, 100.0])
@pytest.mark.parametrize("name", DRAWS)
def test_percentile_is_numpys_quantile_to_a_bin(name: str, percentile: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "PERCENTILE", percentile)
    values = DRAWS[name]
    amax = largest(values)
    found = amax_of(histogram(values, amax), amax, "percentile")
    # The value below which that share lies, without interpolation; it is reported as the upper edge of its bin.
    exact = float(np.quantile(np.abs(values).astype(np.float64), percentile / 100, method="inverted_cdf"))
    assert exact <= found <= exact + 1.0001 * amax / BINS


def test_the_percentile_is_9999() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[:3] = 9998, 1, 1
    assert amax_of(counts, 1.0, "percentile") == 2 / BINS


# MSE


def quantized(values: NDArray[np.float64], amax: float) -> NDArray[np.float64]:
    step = amax / 127
    return np.asarray(np.clip(np.round(values / step), -127, 127) * step)


def squared_error(values: Floats, amax: float) -> float:
    wide = values.astype(np.float64)
    return float(np.mean((wide - quantized(wide, amax)) ** 2))


@pytest.mark.parametrize("name", DRAWS)
def test_mse_is_as_good_as_the_best_clip_of_a_search_over_the_array(name: str) -> None:
    values = DRAWS[name]
    amax = largest(values)
    found = amax_of(histogram(values, amax), amax, "mse")
    errors = {clip: squared_error(values, amax * clip) for clip in observers._CLIPS.tolist()}
    best = min(errors.values())
    # The histogram does not know where in its bin a value lies, which at the scale chosen can be taken for an error
    # of up to a bin's width; where every value is exact (signs), that is all the error there is. Elsewhere candidates
    # next to the best one, 2 % away, are better or worse than it by less than 2 %.
    assert squared_error(values, found) <= 1.02 * best + (amax / BINS) ** 2
    if name not in ("signs", "uniform"):
        assert squared_error(values, found) <= squared_error(values, amax)


def test_the_expected_error_is_that_of_a_fine_grid() -> None:
    rng = np.random.default_rng(3)
    counts = (rng.integers(0, 1000, BINS) * np.exp(-np.arange(BINS) / 150)).astype(np.int64)
    grid = (np.arange(BINS * 64) + 0.5) / (BINS * 64)  # 64 points in every bin
    weights = np.repeat(counts, 64) / (64 * counts.sum())
    errors = [float(weights @ (grid - quantized(grid, clip)) ** 2) for clip in observers._CLIPS.tolist()]
    # The grid misses where in a 64th of a bin a level ends: 5e-4 of the error where a step has the fewest points, 16.
    assert observers._squared_errors(counts) == pytest.approx(errors, rel=2e-3)
    assert amax_of(counts, 8.0, "mse") == 8 * observers._CLIPS[int(np.argmin(errors))]


# Entropy


def divergence(counts: NDArray[np.float64], kept: int) -> float:
    """KL(P || Q) of a candidate, step by step as it is described."""
    p = counts[:kept].copy()
    beyond = counts[kept:].sum()
    p[-1] += beyond
    if beyond > counts.sum() / 100:
        return math.inf
    q = np.zeros(kept)
    level_of = np.arange(kept) * 128 // kept
    for level in range(128):
        bins = np.flatnonzero(level_of == level)
        mass = counts[bins].sum()
        if level == 127 and mass == 0 and beyond > 0:
            mass = 1.0
        used = bins[p[bins] > 0]
        if used.size:
            q[used] = mass / used.size
    p, q = p / p.sum(), q / q.sum()
    here = p > 0
    with np.errstate(divide="ignore"):
        return float((p[here] * np.log(p[here] / q[here])).sum())


@pytest.mark.parametrize("name", ["normal", "sparse", "hardswish", "softmax", "stray", "few", "signs"])
def test_entropy_is_the_best_candidate_of_a_search(name: str) -> None:
    values = DRAWS[name]
    amax = largest(values)
    counts = histogram(values, amax)
    kept = round(amax_of(counts, amax, "entropy") / amax * BINS)
    bins = counts.astype(np.float64)
    bins[0] = min(bins[0], bins[1])  # 0 is exact in every range
    # Every candidate is a slow one; a seventh of them, and all around the one that was found.
    candidates = {*range(128, BINS + 1, 7), *range(max(128, kept - 20), min(BINS, kept + 20) + 1)}
    found = {k: divergence(bins, k) for k in candidates}
    # Two orders of summing 2048 terms of up to 12 nats: 1e-12; and ties go to the widest, to 1e-9.
    assert found[kept] <= min(found.values()) + 2e-9
    assert all(value > found[kept] - 2e-9 for k, value in found.items() if k > kept)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", DRAWS)
def test_the_choice_scales_with_the_data(name: str, method: Method) -> None:
    values = DRAWS[name]
    amax = largest(values)
    found = amax_of(histogram(values, amax), amax, method)
    for power in (2.0**-30, 0.125, 2.0**40):  # exact in FP32, so the histogram is the same
        scaled = (values * np.float32(power)).astype(np.float32)
        assert amax_of(histogram(scaled, amax * power), amax * power, method) == found * power


def test_entropy_of_a_relu_does_not_clip_for_the_zeros_sake() -> None:
    zeros = amax_of(histogram(DRAWS["relu"], largest(DRAWS["relu"])), largest(DRAWS["relu"]), "entropy")
    without = DRAWS["relu"][DRAWS["relu"] > 0]
    plain = amax_of(histogram(without, largest(without)), largest(without), "entropy")
    assert zeros == pytest.approx(plain, rel=0.02)  # a bin or two of 2048 at 4 of 5 sigma
    assert zeros > 3  # 2.07 if the zeros were spread over the first level's bins, which costs 20 dB


@pytest.mark.parametrize("name", [*DRAWS, "away from 0"])
def test_entropy_clips_one_value_in_100_at_most(name: str) -> None:
    """Between 0.5 and 1, P and Q are alike where all but the smallest values are clipped."""
    away = np.random.default_rng(0).uniform(0.5, 1, 10_000).astype(np.float32)
    values = DRAWS.get(name, away)
    values = values[np.abs(values) > largest(values) / BINS]  # bin 0 counts no more than bin 1
    found = amax_of(histogram(values, largest(values)), largest(values), "entropy")
    assert np.count_nonzero(np.abs(values) >= found) <= values.size / 100 + (found == largest(values)) * values.size


def test_of_ranges_that_lose_as_little_the_widest_is_taken() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[5] = 7  # no candidate loses anything
    assert amax_of(counts, 3.0, "entropy") == 3


def test_one_stray_value_does_not_forbid_clipping() -> None:
    values = DRAWS["stray"]  # normal, and a 60
    chosen = {method: amax_of(histogram(values, 60.0), 60.0, method) for method in METHODS}
    assert chosen["minmax"] == 60
    assert 3 < chosen["percentile"] < 6
    assert 3 < chosen["entropy"] < 6
    # Clipping is weighed against rounding: (60 - c) / 200,001 = c / (12 * 127**2) at c = 29.5, to two candidates.
    assert chosen["mse"] == pytest.approx(29.5, rel=0.05)


# All of them


@given(
    counts=hnp.arrays(np.int64, BINS, elements=st.integers(0, 2**40), fill=st.just(0)),
    amax=st.floats(TINY, 2.0**127, width=32),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_choice_is_a_range_within_the_tensors(counts: NDArray[np.int64], amax: float) -> None:
    counts[-1] += 1  # the value that amax comes from
    assert amax_of(counts, amax, "minmax") == amax
    for method in METHODS:
        assert 0 < amax_of(counts, amax, method) <= amax


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [0, 1, 127, 128, BINS - 1])
def test_a_single_bin_is_enough(method: Method, place: int) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[place] = 5
    found = amax_of(counts, 2.0, method)
    assert 0 < found <= 2
    if place == BINS - 1:
        assert found == 2  # a tensor of one magnitude keeps it


def test_what_cannot_be_served_is_refused() -> None:
    counts = np.ones(BINS, np.int64)
    with pytest.raises(UsageError, match="method 'kl': choose one of minmax, percentile, entropy, mse"):
        amax_of(counts, 1.0, "kl")  # type: ignore[arg-type]
    for amax in (0.0, -1.0, math.nan, math.inf, 1e-39):
        with pytest.raises(UsageError, match="amax"):
            amax_of(counts, amax, "mse")
        with pytest.raises(UsageError, match="amax"):
            histogram(np.ones(3, np.float32), amax)
    for wrong in (np.zeros(BINS, np.int64), counts[1:], counts - 2):
        with pytest.raises(UsageError, match="2048 bins with values"):
            amax_of(wrong, 1.0, "entropy")
    for broken in (math.nan, math.inf, -math.inf):
        with pytest.raises(UsageError, match="NaN or Inf"):
            histogram(np.array([1, broken], np.float32), 1.0)
