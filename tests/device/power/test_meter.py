"""A meter is read beside the work, and what goes wrong with it is a note."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from hiresvit.device.power import meter as module
from hiresvit.device.power.meter import Meter, Reading, Timed, polled, sampling


def asked(read: object) -> Meter:
    return Meter("ina3221", "a test", "W", ("VIN",), polled(read))  # type: ignore[arg-type]


def test_it_reads_first_each_interval_and_last() -> None:
    seen: list[int] = []

    def read() -> Reading:
        seen.append(time.monotonic_ns())
        return {"VIN": float(len(seen))}

    began = time.monotonic_ns()
    with sampling(asked(read), 0.01) as trace:
        while len(seen) < 5:
            time.sleep(0.001)
    ended = time.monotonic_ns()
    assert [value["VIN"] for value in trace.values] == [float(count + 1) for count in range(len(seen))]
    assert sorted(trace.times_ns) == trace.times_ns
    assert all(began <= time_ns <= ended for time_ns in trace.times_ns)
    assert all(b - a >= 9_000_000 for a, b in zip(trace.times_ns, trace.times_ns[1:-1], strict=False)), "not by halves"
    assert trace.notes == []


def test_even_a_short_block_has_two_readings() -> None:
    with sampling(asked(lambda: {"VIN": 1.0}), 60.0) as trace:
        pass
    assert len(trace.values) == 2


def test_a_refused_reading_is_left_out() -> None:
    answers: Iterator[float | OSError] = iter([1.0, BlockingIOError(11, "try again"), 3.0])

    def read() -> Reading:
        answer = next(answers, 4.0)
        if isinstance(answer, OSError):
            raise answer
        return {"VIN": answer}

    with sampling(asked(read), 0.001) as trace:
        while len(trace.values) < 3:
            time.sleep(0.001)
    assert [value["VIN"] for value in trace.values[:3]] == [1.0, 3.0, 4.0]


def test_a_meter_that_never_answers_is_a_note_and_no_error() -> None:
    def read() -> Reading:
        raise OSError(6, "No such device or address")

    with sampling(asked(read), 0.001) as trace:
        time.sleep(0.02)
    assert trace.values == []
    assert trace.notes == ["ina3221 stopped answering: [Errno 6] No such device or address"]


def test_a_meter_that_hangs_does_not_hang_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_JOIN_S", 0.05)
    release = threading.Event()

    def readings(stop: threading.Event, interval_s: float) -> Iterator[Timed]:
        yield 1, {"VIN": 1.0}
        release.wait()

    with sampling(Meter("tegrastats", "a test", "W", ("VIN",), readings)) as trace:
        pass
    release.set()
    assert trace.notes == ["tegrastats still did not answer 0.05 s after the measurement"]


def test_an_error_of_the_measured_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError), sampling(asked(lambda: {"VIN": 1.0})):
        _ = 1 / 0


def test_reading_that_costs_much_is_done_less_often() -> None:
    def read() -> Reading:
        until = time.thread_time_ns() + 4_000_000  # 2 % of a CPU is then one reading in 0.2 s
        while time.thread_time_ns() < until:
            pass
        return {"VIN": 1.0}

    with sampling(asked(read), 0.001) as trace:
        while len(trace.times_ns) < 2:
            time.sleep(0.001)
    assert trace.times_ns[1] - trace.times_ns[0] >= 190_000_000
