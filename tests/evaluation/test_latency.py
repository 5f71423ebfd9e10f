from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hiresvit.device.host import CpuTime
from hiresvit.errors import HiresvitError, MissingDependency, UsageError
from hiresvit.evaluation import latency
from hiresvit.evaluation.latency import FEW, Limits, Side, measure_latency, measure_sides, sides_report
from hiresvit.evaluation.statistics import LatencyStats, Parts, Ratio, latency_stats, median_error, ratio

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


def bad(name: str) -> Callable[[], object]:
    def call() -> None:
        raise MissingDependency(f"{name} is not here")

    return call


class TestStopping:
    """A `Limits.rel_error` of e: 2 % of samples that are 1 or 1.1 ms in turn is known to within 5 % at best."""

    def stopped(self, *durations: int, **limits: Any) -> tuple[int, str]:
        clock = Clock()
        measured = measure_sides({"a": Side(clock.run("a", *durations))}, Limits(warmup_s=0, **limits), clock)
        return len(measured.samples["a"]), measured.stopped

    def test_steady_calls_stop_at_the_least(self) -> None:
        found = self.stopped(MS, min_s=0.1, max_s=60, rel_error=1.0)
        assert found == (100, "100 rounds, 0.1 s for each side, every median within 0 %")

    def test_wavering_calls_go_on_until_they_are_certain(self) -> None:
        """Of 1, 2, .. 100 ms over and over the median's interval narrows with the root of their number."""
        order = [MS * (7 * i % 100 + 1) for i in range(100)]
        count, words = self.stopped(*order, min_s=0.1, max_s=600, rel_error=5.0)
        assert "every median within" in words
        assert median_error([order[i % 100] for i in range(1, count + 1)]) <= 5.0
        # looked at each time there is a tenth more of them: not much sooner would have been enough
        assert median_error([order[i % 100] for i in range(1, int(count / 1.21))]) > 5.0

    def test_or_until_time_is_up(self) -> None:
        count, words = self.stopped(MS, 3 * MS, min_s=0.1, max_s=1.0, rel_error=1.0)
        assert 500 <= count <= 501
        assert words == "time is up: 1.0 s for each side; the median of a is known to within 50 %, not 1 %"

    def test_slow_calls(self) -> None:
        count, words = self.stopped(10_000 * MS, min_s=3.0, max_s=9.0, slow_s=10.0, rel_error=1.0)
        assert (count, words) == (3, "time is up: calls take long, 3 rounds in 30 s for each side")

    def test_slow_calls_on_a_busy_machine_get_half_the_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(latency, "load_words", lambda *_: ("busy",))
        count, words = self.stopped(10_000 * MS, min_s=3.0, max_s=9.0, slow_s=10.0, rel_error=1.0)
        assert count == 1
        assert words == "time is up: others use this machine and calls take long, 1 rounds in 10 s for each side"


def test_a_side_that_fails_is_left_out_and_the_others_go_on() -> None:
    clock = Clock()
    ok = clock.run("ok", MS)

    def late() -> None:
        clock.now += 2 * MS
        clock.calls.append("late")
        if clock.calls.count("late") > 4:
            raise HiresvitError("no more")

    sides = {"never": Side(bad("CUDA")), "ok": Side(ok), "late": Side(late)}
    measured = measure_sides(sides, Limits(warmup_s=0, min_s=0, min_iterations=10), clock)
    report = json.loads(json.dumps(sides_report(sides, measured), allow_nan=False))
    found = report["sides"]
    assert list(found) == list(sides)
    assert (found["ok"]["calls"], found["late"]["calls"], found["never"]["calls"]) == (10, 3, 0)
    assert found["never"]["median_ms"] is None, "not measured is not 0"
    assert found["never"]["warnings"] == ["CUDA is not here"]
    assert {name: type(error) for name, error in measured.failures.items()} == {
        "never": MissingDependency,
        "late": HiresvitError,
    }
    assert report["ratios"] == {"late/ok": {"median": 2.0, "p10": 2.0, "p90": 2.0}}, "of the rounds that both have"
    assert report["complete"] is True


def test_a_side_that_failed_keeps_nobody_waiting_for_its_median() -> None:
    clock = Clock()
    twice = [None, None]

    def late() -> None:
        if not twice:
            raise HiresvitError("no more")
        twice.pop()

    sides = {"ok": Side(clock.run("ok", MS)), "late": Side(late)}
    measured = measure_sides(sides, Limits(warmup_s=0, min_s=0.01, max_s=60, rel_error=1.0), clock)
    assert len(measured.samples["ok"]) < 100
    assert measured.stopped.endswith("every median within 0 %")


def test_an_interrupted_run_keeps_what_it_has() -> None:
    clock = Clock()

    def interrupted() -> None:
        clock.now += MS
        clock.calls.append("b")
        if clock.calls.count("b") == 5:
            raise KeyboardInterrupt

    sides = {"a": Side(clock.run("a", MS)), "b": Side(interrupted)}
    measured = measure_sides(sides, Limits(warmup_s=0), clock)
    report = sides_report(sides, measured)
    assert isinstance(measured.interrupt, KeyboardInterrupt)
    assert (report["complete"], report["stopped"]) == (False, "interrupted")
    # a warm-up call, then the order changes each round: of the last round b had its turn first, and did not end
    assert (report["sides"]["a"]["calls"], report["sides"]["b"]["calls"]) == (3, 3)


def test_interrupted_in_the_warm_up_nothing_is_measured() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    sides = {"a": Side(interrupted)}
    measured = measure_sides(sides, Limits())
    report = sides_report(sides, measured)
    assert report["sides"]["a"]["calls"] == 0
    assert report["sides"]["a"]["warnings"] == ["interrupted before its turn"]
    assert report["complete"] is False


def test_the_real_clock_measures_real_work() -> None:
    stats = measure_latency({"sum": lambda: np.arange(1000).sum()}, warmup_s=0, min_s=0, min_iterations=5)["sum"]
    assert isinstance(stats, LatencyStats)
    assert stats.calls == 5
    assert stats.min_ms > 0
