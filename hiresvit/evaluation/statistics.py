"""Latency's statistics by trtexec's definitions, and how certain a median is.

Percentile p of N samples is element max(N - 1 - floor((1 - p / 100) N), 0) of the ascending sort, computed in
integers (trtexec's float32 takes the next larger sample for p = 99 when N is a multiple of 100); the median
of an even N is the mean of the middle two; the coefficient of variation is the population's standard
deviation over the mean. No sample is ever removed. What was not measured is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from hiresvit.errors import UsageError

MAX_CV_PERCENT = 2.5
"""Above this coefficient of variation a run is marked unstable, as trtexec does."""

MAX_ENQUEUE = 0.8
"""Above this share of the GPU's time the host's queueing may hold the GPU up, as trtexec warns."""

_SURE = 1.96  # of a normal distribution 95 % lie within so many deviations

Parts = Mapping[str, "float | None"]
"""Milliseconds of the parts of one call by name, as ``h2d_ms``; None for what has no clock."""


@dataclass(frozen=True)
class LatencyStats:
    """Host wall time of one call in milliseconds, copies included, and the raw samples in nanoseconds.

    ``throughput`` is images per second: batch x calls over the time that these calls took. The last four are medians
    of the parts of a call: what the GPU says of copies in, kernels and copies out, None for what runs on a CPU, and
    ``parts`` with these and every other that was timed, by name; None where nothing was. ``warnings`` are the side's
    notes and what is to be said of its samples.
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
    parts: dict[str, float | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """Ratios a / b of the same rounds: above 1, a is slower. p10 and p90 say how far to trust it."""

    median: float
    p10: float
    p90: float


def latency_stats(
    samples_ns: Sequence[int], batch: int = 1, parts: Sequence[Parts] = (), notes: Sequence[str] = ()
) -> LatencyStats:
    """Statistics of samples in the order they were taken, with the parts of each call that has them.

    UsageError unless all samples are positive.
    """
    if not samples_ns or min(samples_ns) <= 0:
        raise UsageError("every call must take at least 1 ns by the clock; put more work into a call")
    ms = sorted(ns / 1e6 for ns in samples_ns)
    mean, std = float(np.mean(ms)), float(np.std(ms))
    stats = LatencyStats(
        calls=len(ms),
        min_ms=ms[0],
        max_ms=ms[-1],
        mean_ms=mean,
        median_ms=float(np.median(ms)),
        p90_ms=percentile(ms, 90),
        p95_ms=percentile(ms, 95),
        p99_ms=percentile(ms, 99),
        std_ms=std,
        cv_percent=100 * std / mean,
        throughput=batch * len(ms) / (sum(samples_ns) / 1e9),
        warnings=(*notes, *_unstable("", ms)),
        samples_ns=tuple(samples_ns),
    )
    return _with_parts(stats, parts) if parts else stats


def no_stats(why: str) -> dict[str, Any]:
    """What stands in a document for a side of which nothing was measured."""
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(LatencyStats))
    return nothing | {"calls": 0, "warnings": [why], "samples_ns": []}


def ratio(a: LatencyStats, b: LatencyStats) -> Ratio:
    """How many times as long a call of ``a`` takes as one of ``b``, round by round.

    Both must come from one `measure_latency`: a ratio within a round cancels what slows the whole machine
    down. Raises UsageError if their numbers of rounds differ.
    """
    if a.calls != b.calls:
        raise UsageError(f"{a.calls} calls against {b.calls}; ratios need sides measured together, round by round")
    return paired_ratio(a.samples_ns, b.samples_ns)


def paired_ratio(a: Sequence[int], b: Sequence[int]) -> Ratio:
    """`ratio` of samples; what one has more, as a run that was interrupted leaves it, has no pair."""
    pairs = sorted(x / y for x, y in zip(a, b, strict=False))
    return Ratio(float(np.median(pairs)), percentile(pairs, 10), percentile(pairs, 90))


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The element of an ascending sort that trtexec takes."""
    excluded = (100 - percent) * len(ascending) // 100
    return ascending[max(len(ascending) - 1 - excluded, 0)]


def median_error(samples: Sequence[float]) -> float:
    """Half the 95 % confidence interval of the median in per cent of it, infinite for fewer than 6 samples.

    By order statistics, which need no normal distribution: elements n/2 -+ 1.96 sqrt(n)/2 of the sort, the upper one
    plus 1 (Conover, Practical Nonparametric Statistics, 3.2). Unlike a standard deviation, which is nvbench's
    criterion, it falls with every sample that is taken.
    """
    count = len(samples)
    below, above = (round(count / 2 + sign * _SURE * math.sqrt(count) / 2) for sign in (-1, 1))
    if below < 1 or above + 1 > count:
        return math.inf
    ascending = sorted(samples)
    median = float(np.median(ascending))
    return 100 * (ascending[above] - ascending[below - 1]) / 2 / median if median else math.inf


def _unstable(what: str, ms: Sequence[float]) -> tuple[str, ...]:
    mean = float(np.mean(ms))
    cv = 100 * float(np.std(ms)) / mean if mean else 0.0
    return (
        (f"unstable{what}: coefficient of variation {cv:.1f} % is over {MAX_CV_PERCENT} %",)
        if cv > MAX_CV_PERCENT
        else ()
    )


def _with_parts(stats: LatencyStats, parts: Sequence[Parts]) -> LatencyStats:
    """With the medians of the parts, and trtexec's words where the GPU waits for the host or for copies."""
    medians: dict[str, float | None] = {}
    for name in parts[0]:
        values = [value for one in parts if (value := one[name]) is not None]
        medians[name] = float(np.median(values)) if values else None
    warnings = [*stats.warnings]
    compute, enqueue = medians.get("compute_ms"), medians.get("enqueue_ms")
    if compute is not None:
        warnings += _unstable(" on the GPU", [one["compute_ms"] or 0.0 for one in parts])
        if enqueue is not None and enqueue > MAX_ENQUEUE * compute:
            warnings.append(
                f"enqueue-bound: queueing takes the host {enqueue:.3f} ms, over {MAX_ENQUEUE:g} x the GPU's"
                f" {compute:.3f} ms; a CUDA graph (--cuda-graph) may help"
            )
        for name, what in (("h2d_ms", "in"), ("d2h_ms", "out")):
            copy = medians.get(name)
            if copy is not None and copy >= compute:
                warnings.append(
                    f"copies {what} take as long as the network: {copy:.3f} ms against {compute:.3f} ms on the GPU;"
                    " smaller types or a contract of pixels and labels may help"
                )
    return replace(
        stats,
        warnings=tuple(warnings),
        h2d_ms=medians.get("h2d_ms"),
        d2h_ms=medians.get("d2h_ms"),
        gpu_compute_ms=compute,
        parts=medians,
    )
