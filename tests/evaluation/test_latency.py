from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiresvit.device.host import CpuTime
from hiresvit.errors import UsageError
from hiresvit.evaluation import latency
from hiresvit.evaluation.latency import FEW, Side, measure_latency
from hiresvit.evaluation.statistics import LatencyStats, Parts, Ratio, latency_stats, ratio

MS = 1_000_000

Runs = dict[str, Callable[[], object] | Side]


class Clock:
    """Nanoseconds that pass only when a run says so."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def __call__(self) -> int:
        return self.now

    def run(self, name: str, *durations: int) -> Callable[[], None]:
        """A run that takes the next of these durations, over and over."""

        def call() -> None:
            self.now += durations[self.calls.count(name) % len(durations)]
            self.calls.append(name)

        return call


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


def test_sides_take_turns_and_the_order_rotates() -> None:
    clock = Clock()
    runs = {name: clock.run(name, MS) for name in "abc"}
    stats = measure_latency(runs, warmup_s=0, min_s=0, min_iterations=3, clock=clock)
    warmup, measured = clock.calls[:3], clock.calls[3:]
    assert "".join(warmup) == "abc"
    assert "".join(measured) == "abcbcacab"
    assert {name: s.calls for name, s in stats.items()} == {"a": 3, "b": 3, "c": 3}


def test_samples_of_one_index_are_of_one_round() -> None:
    clock = Clock()
    runs = {"a": clock.run("a", 7, 1 * MS, 2 * MS, 3 * MS), "b": clock.run("b", 7, 10 * MS, 20 * MS, 30 * MS)}
    stats = measure_latency(runs, warmup_s=0, min_s=0, min_iterations=3, clock=clock)
    assert stats["a"].samples_ns == (1 * MS, 2 * MS, 3 * MS)  # the warm-up call of 7 ns is not among them
    assert stats["b"].samples_ns == (10 * MS, 20 * MS, 30 * MS)
    assert ratio(stats["b"], stats["a"]) == Ratio(10, 10, 10)


def test_what_the_gpu_says_is_asked_after_each_call_and_not_timed() -> None:
    clock = Clock()
    times = [
        {"h2d_ms": 0.0, "compute_ms": 99.0, "d2h_ms": 0.0},
        {"h2d_ms": 1.0, "compute_ms": 5.0, "d2h_ms": 0.3},
        {"h2d_ms": 2.0, "compute_ms": 9.0, "d2h_ms": 0.1},
        {"h2d_ms": 9.0, "compute_ms": 6.0, "d2h_ms": 0.2},
    ]

    def last_times() -> Parts:
        clock.now += 1000 * MS  # as if it took a second
        return times[clock.calls.count("a") - 1]

    runs: Runs = {"a": Side(clock.run("a", MS), parts=last_times), "b": clock.run("b", 2 * MS)}
    stats = measure_latency(runs, warmup_s=0, min_s=0, min_iterations=3, clock=clock)
    assert stats["a"].samples_ns == (MS, MS, MS)
    # the medians; the warm-up call of 99 ms is not among them
    assert (stats["a"].h2d_ms, stats["a"].gpu_compute_ms, stats["a"].d2h_ms) == (2.0, 6.0, 0.2)
    assert (stats["b"].h2d_ms, stats["b"].gpu_compute_ms, stats["b"].d2h_ms) == (None, None, None)
    json.dumps(stats["a"].to_json(), allow_nan=False)


def test_a_side_has_a_batch_and_notes_of_its_own() -> None:
    clock = Clock()
    runs: Runs = {"a": Side(clock.run("a", MS, 2 * MS), batch=3, notes=("a word",)), "b": clock.run("b", MS)}
    stats = measure_latency(runs, warmup_s=0, min_s=0, min_iterations=2, clock=clock)
    assert stats["a"].throughput == pytest.approx(3 * 2 / 0.003)
    assert stats["b"].throughput == pytest.approx(2 / 0.002)  # one image a call
    # mean 1.5, deviation 0.5
    assert stats["a"].warnings == ("a word", "unstable: coefficient of variation 33.3 % is over 2.5 %")
    assert stats["b"].warnings == ()


def test_slow_calls_are_few_and_said() -> None:
    """10 s a call, as on a machine that others use: 10 rounds of it would take minutes."""
    clock = Clock()
    runs = {"slow": clock.run("slow", 10_000 * MS), "fast": clock.run("fast", MS)}
    stats = measure_latency(runs, min_s=1.0, max_s=10.0, clock=clock)
    assert {name: side.calls for name, side in stats.items()} == {"slow": FEW, "fast": FEW}
    assert len(clock.calls) == 2 * (1 + FEW), "and one to warm up"
    assert all(side.warnings == ("measured 3 calls, not 10: they take long here",) for side in stats.values())
    clock = Clock()
    stats = measure_latency({"a": clock.run("a", 2_000 * MS)}, min_s=30.0, max_s=30.0, clock=clock)
    assert stats["a"].calls == 15, "what was asked for is kept"
    assert stats["a"].warnings == ()


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        ((10.0, 4.0, 4.0, 0.0), ""),  # ours
        ((10.0, 5.0, 4.0, 1.0), ""),  # a little of others
        ((10.0, 20.0, 4.0, 0.0), "load 7.9"),
        ((10.0, 20.0, 4.0, 9.0), "load 7.9, 0.9 of that by other guests of its host"),
        ((0.1, 0.2, 0.0, 0.0), ""),  # too short to tell
    ],
)
def test_a_machine_that_others_use_is_said(
    monkeypatch: pytest.MonkeyPatch, passed: tuple[float, float, float, float], said: str
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("os.getloadavg", lambda: (7.9, 3.0, 1.0))
    start = CpuTime(100.0, 50.0, 20.0, 3.0)
    counters = iter([start, start, CpuTime(*(a + b for a, b in zip(vars(start).values(), passed, strict=True)))])
    monkeypatch.setattr(latency, "cpu_time", lambda: next(counters))
    clock = Clock()
    [stats] = measure_latency({"a": clock.run("a", MS)}, min_s=0, clock=clock).values()
    words = f"the machine is busy, other programs took 1.6 of its 2 CPUs meanwhile ({said})"
    assert stats.warnings == ((words,) if said else ())


def test_durations_are_counted_over_all_sides() -> None:
    clock = Clock()
    runs = {"slow": clock.run("slow", 150 * MS), "fast": clock.run("fast", 50 * MS)}
    stats = measure_latency(runs, warmup_s=0.4, min_s=1.0, min_iterations=2, clock=clock)
    # A round takes 200 ms: 2 x 0.4 s of warm-up are 4 rounds, 2 x 1 s are 10.
    assert len(clock.calls) == 2 * (4 + 10)
    assert stats["slow"].calls == stats["fast"].calls == 10
    assert stats["fast"].throughput == pytest.approx(20)  # by its own time, not the other side's


def test_the_number_of_iterations_is_a_floor() -> None:
    clock = Clock()
    stats = measure_latency({"a": clock.run("a", 10_000 * MS)}, min_iterations=10, clock=clock)
    assert stats["a"].calls == 10
    assert len(clock.calls) == 11


def test_ratios_are_paired() -> None:
    a = latency_stats([20 * MS, 40 * MS, 90 * MS])
    b = latency_stats([10 * MS, 10 * MS, 30 * MS])
    assert ratio(a, b).median == 3  # of 2, 4, 3; the ratio of the medians would be 4
    many = latency_stats([MS * (i + 1) for i in range(10)])
    one = latency_stats([MS] * 10)
    assert ratio(many, one) == Ratio(5.5, 1, 9)
    with pytest.raises(UsageError, match="3 calls against 10"):
        ratio(a, many)


def test_impossible_measurements_are_refused() -> None:
    clock = Clock()
    run = {"a": clock.run("a", MS)}
    with pytest.raises(UsageError, match="0 runs"):
        measure_latency({})
    with pytest.raises(UsageError, match="min_iterations 0"):
        measure_latency(run, min_iterations=0, clock=clock)
    with pytest.raises(UsageError, match="warmup_s -1"):
        measure_latency(run, warmup_s=-1, clock=clock)
    with pytest.raises(UsageError, match="at least 1 ns"):
        measure_latency({"a": clock.run("a", 0)}, warmup_s=0, min_s=0, clock=clock)
    with pytest.raises(UsageError, match="at least 1 ns"):
        latency_stats([])


def test_a_run_that_fails_is_not_swallowed() -> None:
    def broken() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        measure_latency({"a": broken})


def test_the_real_clock_measures_real_work() -> None:
    stats = measure_latency({"sum": lambda: np.arange(1000).sum()}, warmup_s=0, min_s=0, min_iterations=5)["sum"]
    assert isinstance(stats, LatencyStats)
    assert stats.calls == 5
    assert stats.min_ms > 0
