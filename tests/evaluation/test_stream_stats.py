"""A stream's numbers, worked out on paper."""

from __future__ import annotations

import pytest

from hiresvit.errors import UsageError
from hiresvit.evaluation.stream import Answered, stream_stats

MS = 1_000_000
BEGAN = 7_000 * MS


def answered(*rows: tuple[int, int]) -> list[Answered]:
    """Of (number of the frame, ms after the beginning when its answer was there)."""
    return [Answered(index, BEGAN + ms * MS, {"network_ms": 5.0}) for index, ms in rows]


def test_a_stream_by_hand() -> None:
    """100 a second: due at 0, 10, 20 .. ms. Frames 2 and 3 got no answer, and frame 5 was due behind the last."""
    stats, stream = stream_stats(100.0, 6, BEGAN, answered((0, 12), (1, 22), (4, 60), (5, 66)))
    assert stats.samples_ns == (12 * MS, 12 * MS, 20 * MS, 16 * MS), "from when each was due: 0, 10, 40 and 50"
    assert (stream["sent"], stream["answered"], stream["missed"]) == (6, 4, 2)
    assert stream["missed_percent"] == pytest.approx(100 / 3)
    # 10, 38 and 6 ms from one answer to the next: that changes by 28 and by 32
    assert stream["jitter_ms"] == pytest.approx({"mean": 30.0, "max": 32.0, "std": 2.0})
    # 3 answers in 54 ms behind the first
    assert stream["mean_fps"] == stats.throughput == pytest.approx(3 / 0.054)
    # at 0 none, at 10 frame 0 (until 12), at 40 none, at 50 frame 4 (until 60)
    assert stream["queue"] == {"mean": 0.5, "max": 1}
    assert stats.parts == {"network_ms": 5.0}
    assert stats.warnings == ("missed frames: 2 of 6 at 100 a second got no answer",)


def test_too_few_answers_for_a_jitter() -> None:
    stats, stream = stream_stats(100.0, 2, BEGAN, answered((0, 5), (1, 15)))
    assert (stream["missed"], stream["jitter_ms"], stats.warnings) == (0, None, ())
    _, stream = stream_stats(100.0, 1, BEGAN, answered((0, 5)))
    assert (stream["mean_fps"], stream["jitter_ms"]) == (None, None)
    with pytest.raises(UsageError, match="every call must take"):
        stream_stats(100.0, 1, BEGAN, [])
