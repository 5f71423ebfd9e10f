"""A stream at a fixed rate in numbers: missed frames, jitter, queue, and latency from when a frame was due.

The words are those of Isaac ROS's ros2_benchmark (basic_performance_calculator.py): missed are frames that were sent
and not answered, jitter is how much the time from one answer to the next changes: |(t2 - t1) - (t1 - t0)|.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hiresvit.evaluation.statistics import LatencyStats, Parts, latency_stats


@dataclass(frozen=True)
class Answered:
    """A frame that has an answer: its number from 0, the nanoseconds of a clock when it was there, its parts."""

    index: int
    done_ns: int
    parts: Parts


def stream_stats(
    fps: float, sent: int, began_ns: int, answered: Sequence[Answered]
) -> tuple[LatencyStats, dict[str, Any]]:
    """Statistics of latency, and what is a stream's own, of ``sent`` frames at ``fps`` from ``began_ns`` on.

    A frame's latency runs from when it was due, so that a producer that comes too late is not to its credit;
    ``throughput`` is the rate of answers. ``queue`` is how many frames that got an answer were under way when another
    was due. Jitter needs three answers and is None without. UsageError if there is no answer.
    """
    due = [began_ns + round(1e9 * frame.index / fps) for frame in answered]
    done = [frame.done_ns for frame in answered]
    stats = latency_stats([d - a for d, a in zip(done, due, strict=True)], 1, [frame.parts for frame in answered])
    seconds = (done[-1] - done[0]) / 1e9
    rate = (len(done) - 1) / seconds if seconds > 0 else None
    jitter = np.abs(np.diff(done, 2)) / 1e6 if len(done) > 2 else None
    # both lists ascend: those that were due before less those that were answered before
    depths = [place - bisect_right(done, moment) for place, moment in enumerate(due)]
    missed = sent - len(answered)
    share = f"missed frames: {missed} of {sent} at {fps:g} a second got no answer"
    stats = replace(
        stats,
        throughput=rate if rate is not None else stats.throughput,
        # the latency of a stream wavers with the queue; what it is measured for is not how steady a call is
        warnings=(*[share] * (missed > 0), *(word for word in stats.warnings if not word.startswith("unstable"))),
    )
    return stats, {
        "fps": fps,
        "sent": sent,
        "answered": len(answered),
        "missed": missed,
        "missed_percent": 100 * missed / sent,
        "mean_fps": rate,
        "jitter_ms": None
        if jitter is None
        else {"mean": float(jitter.mean()), "max": float(jitter.max()), "std": float(jitter.std())},
        "queue": {"mean": float(np.mean(depths)), "max": max(depths)},
    }
