"""Statistics against trtexec's definitions, worked out on paper (tests/golden/README.md)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiresvit.errors import UsageError
from hiresvit.evaluation.statistics import Parts, Ratio, latency_stats, median_error, ratio

MS = 1_000_000
GOLDEN = Path(__file__).parents[1] / "golden" / "trtexec_times.json"


def test_hand_computed_statistics() -> None:
    stats = latency_stats([4 * MS, 2 * MS, 4 * MS, 4 * MS, 5 * MS, 5 * MS, 7 * MS, 9 * MS], batch=2)
    # The textbook's eight numbers: mean 5, population standard deviation 2.
    assert (stats.mean_ms, stats.std_ms, stats.cv_percent) == pytest.approx((5, 2, 40))
    assert (stats.calls, stats.min_ms, stats.max_ms, stats.median_ms) == (8, 2, 9, 4.5)
    assert (stats.p90_ms, stats.p95_ms, stats.p99_ms) == (9, 9, 9)
    assert stats.throughput == pytest.approx(2 * 8 / 0.040)
    assert stats.samples_ns[:2] == (4 * MS, 2 * MS)  # as they came
    assert (stats.h2d_ms, stats.d2h_ms, stats.gpu_compute_ms) == (None, None, None)


@pytest.mark.parametrize(
    ("count", "p90", "p95", "p99"),
    [(1, 1, 1, 1), (9, 9, 9, 9), (10, 9, 10, 10), (20, 18, 19, 20), (100, 90, 95, 99), (1000, 900, 950, 990)],
)
def test_percentiles_are_trtexecs(count: int, p90: int, p95: int, p99: int) -> None:
    # Samples 1 ms .. N ms: element N - 1 - floor((1 - p / 100) N) of the sort is N - floor(...) ms.
    stats = latency_stats([MS * (i + 1) for i in reversed(range(count))])
    assert (stats.p90_ms, stats.p95_ms, stats.p99_ms) == (p90, p95, p99)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200))
def test_statistics_are_ordered(samples: list[int]) -> None:
    stats = latency_stats(samples)
    order = [stats.min_ms, stats.median_ms, stats.p90_ms, stats.p95_ms, stats.p99_ms, stats.max_ms]
    # With an even N the median may lie above p90's element only if N < 10, where p90 is the maximum anyway.
    assert order == sorted(order)
    assert stats.samples_ns == tuple(samples)
    json.dumps(stats.to_json(), allow_nan=False)


def test_an_unstable_run_is_marked() -> None:
    steady = latency_stats([1000, 1000, 1000, 1040])
    assert steady.cv_percent < 2.5
    assert steady.warnings == ()
    assert latency_stats([1000, 1000, 1000, 1100]).warnings == (
        "unstable: coefficient of variation 4.2 % is over 2.5 %",
    )


def test_statistics_of_recorded_calls_are_trtexecs() -> None:
    """The numbers are those of tests/golden/README.md, not of this code."""
    rows = json.loads(GOLDEN.read_text(encoding="utf-8"))
    names = {"h2dMs": "h2d_ms", "computeMs": "compute_ms", "d2hMs": "d2h_ms", "enqueueMs": "enqueue_ms"}
    parts: list[Parts] = [{ours: row[theirs] for theirs, ours in names.items()} for row in rows]
    stats = latency_stats([round(row["latencyMs"] * MS) for row in rows], parts=parts)
    assert (stats.min_ms, stats.max_ms) == (2.05, 3.0)
    assert stats.mean_ms == pytest.approx(2.2925, abs=1e-12)
    assert stats.median_ms == pytest.approx(2.175, abs=1e-12)
    assert (stats.p90_ms, stats.p95_ms, stats.p99_ms) == (3.0, 3.0, 3.0)
    assert stats.std_ms == pytest.approx(0.2797655, abs=5e-8)
    assert stats.cv_percent == pytest.approx(12.2035, abs=5e-5)
    assert (stats.h2d_ms, stats.gpu_compute_ms, stats.d2h_ms) == pytest.approx((0.11, 2.0, 0.05), abs=1e-12)
    assert stats.parts == pytest.approx({"h2d_ms": 0.11, "compute_ms": 2.0, "d2h_ms": 0.05, "enqueue_ms": 1.7})
    assert [warning.partition(":")[0] for warning in stats.warnings] == [
        "unstable",
        "unstable on the GPU",
        "enqueue-bound",
    ]
    assert "9.8 %" in stats.warnings[1]


def test_statistics_of_many_calls_are_trtexecs() -> None:
    stats = latency_stats([(7 * i % 200 + 1) * MS // 10 for i in range(200)])  # 7 and 200 share no factor
    assert (stats.p90_ms, stats.p95_ms, stats.p99_ms, stats.max_ms) == (18.0, 19.0, 19.8, 20.0)
    assert (stats.mean_ms, stats.median_ms) == pytest.approx((10.05, 10.05), abs=1e-12)
    assert stats.std_ms == pytest.approx(5.773431, abs=5e-7)


@pytest.mark.parametrize(
    ("enqueue", "h2d", "d2h", "said"),
    [
        (0.8, 0.9, 0.9, []),
        (0.81, 0.9, 0.9, ["enqueue-bound"]),
        (0.8, 1.0, 0.9, ["copies in take as long as the network"]),
        (0.8, 0.9, 1.0, ["copies out take as long as the network"]),
        (None, 0.0, 0.0, []),
    ],
)
def test_trtexecs_warnings(enqueue: float | None, h2d: float, d2h: float, said: list[str]) -> None:
    parts: Parts = {"enqueue_ms": enqueue, "h2d_ms": h2d, "compute_ms": 1.0, "d2h_ms": d2h}
    stats = latency_stats([3 * MS] * 4, parts=[parts] * 4)
    assert [warning.partition(":")[0] for warning in stats.warnings] == said
    assert stats.parts == parts


# Sign-test tables: the ranks, from 1, of the 95 % confidence interval of a median.
@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (30, 10, 21), (100, 40, 61)])
def test_how_certain_a_median_is(count: int, low: int, high: int) -> None:
    samples = [float(rank) for rank in range(1, count + 1)][::-1]
    assert median_error(samples) == pytest.approx(100 * (high - low) / 2 / ((count + 1) / 2))


def test_few_samples_are_not_certain() -> None:
    assert median_error([1.0] * 5) == math.inf
    assert median_error([]) == math.inf
    assert median_error([1.0] * 6) == 0


def test_ratios_are_paired() -> None:
    a = latency_stats([20 * MS, 40 * MS, 90 * MS])
    b = latency_stats([10 * MS, 10 * MS, 30 * MS])
    assert ratio(a, b).median == 3  # of 2, 4, 3; the ratio of the medians would be 4
    many = latency_stats([MS * (i + 1) for i in range(10)])
    one = latency_stats([MS] * 10)
    assert ratio(many, one) == Ratio(5.5, 1, 9)
    with pytest.raises(UsageError, match="3 calls against 10"):
        ratio(a, many)
