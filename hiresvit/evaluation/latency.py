"""Latency by trtexec's definitions, of several sides in turn so that they share the machine's state.

Percentile p of N samples is element max(N - 1 - floor((1 - p / 100) N), 0) of the ascending sort, computed in
integers (trtexec's float32 takes the next larger sample for p = 99 when N is a multiple of 100); the median
of an even N is the mean of the middle two; the coefficient of variation is the population's standard
deviation over the mean. No sample is ever removed. What was not measured is None, never 0.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hiresvit.errors import UsageError

if TYPE_CHECKING:
    from hiresvit.runtime.runner import GpuTimes

MAX_CV_PERCENT = 2.5
"""Above this coefficient of variation a run is marked unstable, as trtexec does."""

BUDGET_S = 10.0
"""Seconds for each side after which the rounds end early, if nobody has asked for longer ones."""

FEW = 3
"""The least that is measured then: a median that one odd call does not make."""

BUSY = 0.25
"""Above this share of the CPUs taken by others a measurement says so; an idle desktop takes a few per cent."""

LEAST_S = 0.5
"""A shorter measurement says nothing of others: the system counts in hundredths of a second."""

SETTLE_S = 0.03
"""The rest before each call: several times as long as idle workers of PyTorch and ONNX Runtime spin."""


# The host's nanoseconds of one call and, of what runs on a GPU, its parts there.
_Sample = tuple[int, "GpuTimes | None"]


@dataclass(frozen=True)
class LatencyStats:
    """Host wall time of one call in milliseconds, copies included, and the raw samples in nanoseconds.

    ``throughput`` is images per second: batch x calls over the time that these calls took. The last three are
    medians of what the GPU says that the parts of a call took: copies in, kernels, copies out. They are None for
    what runs on a CPU. ``warnings`` are the side's notes and what is to be said of its samples.
    """

    calls: int
    min_ms: float
    max_ms: float
    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    std_ms: float
    cv_percent: float
    throughput: float
    warnings: tuple[str, ...]
    samples_ns: tuple[int, ...]
    h2d_ms: float | None = None
    d2h_ms: float | None = None
    gpu_compute_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Side:
    """A network that is measured: ``run`` calls it once, on ``batch`` images.

    ``gpu_times`` says what the last call took on a GPU; it is asked after each call, outside of its time.
    """

    run: Callable[[], object]
    batch: int = 1
    gpu_times: Callable[[], GpuTimes | None] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ratio:
    """Ratios a / b of the same rounds: above 1, a is slower. p10 and p90 say how far to trust it."""

    median: float
    p10: float
    p90: float


def measure_latency(
    runs: Mapping[str, Callable[[], object] | Side],
    *,
    warmup_s: float = 0.2,
    min_s: float = 3.0,
    min_iterations: int = 10,
    max_s: float = math.inf,
    settle_s: float = 0.0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, LatencyStats]:
    """Call every side once per round, the order rotated by one each round, and time each call by itself.

    Warm-up rounds (at least one) take ``warmup_s`` seconds per side; then follow at least ``min_iterations``
    rounds and ``min_s`` seconds per side, both counted over all sides together, so that one slow side does
    not stretch the run. After ``max_s`` seconds per side `FEW` rounds are enough, and a warning says so. Before each
    call the machine rests for ``settle_s`` seconds, untimed: the idle workers of a thread pool spin on for some
    milliseconds and would slow the next side down. ``clock`` returns nanoseconds. Sample i of every side comes from
    round i. Raises UsageError if there is nothing to run, on impossible limits, and if the clock is too coarse to see
    a call.
    """
    if not runs or warmup_s < 0 or min_s < 0 or min_iterations < 1:
        raise UsageError(
            f"{len(runs)} runs, warmup_s {warmup_s}, min_s {min_s}, min_iterations {min_iterations};"
            " at least 1 run, 0 s, 0 s and 1 iteration are needed"
        )
    sides = {name: run if isinstance(run, Side) else Side(run) for name, run in runs.items()}
    _rounds(sides, clock, settle_s, seconds=warmup_s, least=1)
    before = _cpu_seconds()
    samples = _rounds(sides, clock, settle_s, seconds=min_s, least=min_iterations, budget=max_s)
    notes = _load_notes(before, _cpu_seconds())
    done = len(next(iter(samples.values())))
    if done < min_iterations:
        notes = (f"measured {done} calls, not {min_iterations}: they take long here", *notes)
    return {name: _side_stats(side, samples[name], notes) for name, side in sides.items()}


def latency_report(sides: Mapping[str, Callable[[], object] | Side], *, min_s: float) -> dict[str, Any]:
    """Measure all sides and compare each with the first, as plain JSON values: ``sides`` and ``ratios``."""
    stats = measure_latency(sides, min_s=min_s, max_s=max(BUDGET_S, min_s), settle_s=SETTLE_S)
    (first, base), *others = stats.items()
    return {
        "sides": {name: side.to_json() for name, side in stats.items()},
        "ratios": {f"{name}/{first}": asdict(ratio(side, base)) for name, side in others},
    }


def latency_stats(samples_ns: Sequence[int], batch: int = 1) -> LatencyStats:
    """Statistics of samples in the order they were taken; UsageError unless all are positive."""
    if not samples_ns or min(samples_ns) <= 0:
        raise UsageError("every call must take at least 1 ns by the clock; put more work into a call")
    ms = sorted(ns / 1e6 for ns in samples_ns)
    mean, std = float(np.mean(ms)), float(np.std(ms))
    cv = 100 * std / mean
    unstable = f"unstable: coefficient of variation {cv:.1f} % is over {MAX_CV_PERCENT} %"
    return LatencyStats(
        calls=len(ms),
        min_ms=ms[0],
        max_ms=ms[-1],
        mean_ms=mean,
        median_ms=float(np.median(ms)),
        p90_ms=_percentile(ms, 90),
        p95_ms=_percentile(ms, 95),
        p99_ms=_percentile(ms, 99),
        std_ms=std,
        cv_percent=cv,
        throughput=batch * len(ms) / (sum(samples_ns) / 1e9),
        warnings=(unstable,) if cv > MAX_CV_PERCENT else (),
        samples_ns=tuple(samples_ns),
    )


def ratio(a: LatencyStats, b: LatencyStats) -> Ratio:
    """How many times as long a call of ``a`` takes as one of ``b``, round by round.

    Both must come from one `measure_latency`: a ratio within a round cancels what slows the whole machine
    down. Raises UsageError if their numbers of rounds differ.
    """
    if a.calls != b.calls:
        raise UsageError(f"{a.calls} calls against {b.calls}; ratios need sides measured together, round by round")
    pairs = sorted(x / y for x, y in zip(a.samples_ns, b.samples_ns, strict=True))
    return Ratio(float(np.median(pairs)), _percentile(pairs, 10), _percentile(pairs, 90))


def _side_stats(side: Side, samples: Sequence[_Sample], notes: tuple[str, ...]) -> LatencyStats:
    stats = latency_stats([ns for ns, _ in samples], side.batch)
    stats = replace(stats, warnings=side.notes + stats.warnings + notes)
    times = [(times.h2d_ms, times.d2h_ms, times.compute_ms) for _, times in samples if times is not None]
    if not times:
        return stats
    h2d_ms, d2h_ms, compute_ms = np.median(times, 0).tolist()
    return replace(stats, h2d_ms=h2d_ms, d2h_ms=d2h_ms, gpu_compute_ms=compute_ms)


def _rounds(
    sides: Mapping[str, Side],
    clock: Callable[[], int],
    settle_s: float,
    *,
    seconds: float,
    least: int,
    budget: float = math.inf,
) -> dict[str, list[_Sample]]:
    samples: dict[str, list[_Sample]] = {name: [] for name in sides}
    order = list(sides)
    began, each = clock(), 1e9 * len(sides)
    done = 0
    while True:
        taken = (clock() - began) / each
        if (done >= least and taken >= seconds) or (done >= FEW and taken >= budget):
            return samples
        for name in order:
            side = sides[name]
            if settle_s:
                time.sleep(settle_s)
            start = clock()
            side.run()
            elapsed = clock() - start
            samples[name].append((elapsed, side.gpu_times() if side.gpu_times else None))
        order.append(order.pop(0))
        done += 1


def _cpu_seconds() -> tuple[float, float, float] | None:
    """Seconds on a clock, seconds of work on the CPUs that we may use, and our own share of these; None if unknown.

    A guest also counts what its host kept back (steal). proc_stat(5).
    """
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for name, *counts in map(str.split, lines):
        if name in mine:
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, counts)
            ticks += user + nice + system + irq + softirq + steal
    return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


def _load_notes(before: tuple[float, float, float] | None, after: tuple[float, float, float] | None) -> tuple[str, ...]:
    """What is to be said of a machine that others used meanwhile."""
    if before is None or after is None:
        return ()
    seconds, work, own = (b - a for a, b in zip(before, after, strict=True))
    cpus = len(os.sched_getaffinity(0))
    if seconds < LEAST_S or work - own < BUSY * cpus * seconds:
        return ()
    others, load = (work - own) / seconds, os.getloadavg()[0]
    return (f"the machine is busy, other programs took {others:.1f} of its {cpus} CPUs meanwhile (load {load:.1f})",)


def _percentile(ascending: Sequence[float], percent: int) -> float:
    excluded = (100 - percent) * len(ascending) // 100
    return ascending[max(len(ascending) - 1 - excluded, 0)]
