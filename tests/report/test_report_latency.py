"""What `bench` measured as tables, beyond what an export has (tests/report/test_report.py)."""

from __future__ import annotations

from typing import Any

from hiresvit.evaluation.statistics import latency_stats, no_stats
from hiresvit.report.latency import latency_tables
from hiresvit.report.tables import render

MS = 1_000_000


def document(**more: Any) -> dict[str, Any]:
    steady = latency_stats([5 * MS] * 4, parts=[{"decode_ms": 1.5, "network_ms": 3.25}] * 4).to_json()
    failed = no_stats("no GPU") | {"failure": {"message": "b: no GPU", "exit_code": 6}}
    sides = {"a": steady | {"failure": None, "stream": None}, "b": failed | {"stream": None}}
    return {"mode": "frame", "threads": 2, "stopped": "4 rounds", "sides": sides, "ratios": {}, "marks": [], **more}


def shown(values: dict[str, Any]) -> str:
    return render(latency_tables(values))


def said(text: str) -> str:
    """Without the breaks of titles, which are as wide as their tables."""
    return " ".join(text.split())


def test_a_side_that_failed_has_a_row_and_a_reason() -> None:
    text = shown(document())
    assert "time of one frame in ms, from a picture's file to its answer, 2 threads, sides in turn" in said(text)
    [row] = [line.split() for line in text.splitlines() if line.startswith("b ")]
    assert row == ["b", "0"], "what was not measured is empty and not 0"
    assert "failed: b: no GPU" in text
    assert "note: no GPU" not in text, "said once"
    assert "stopped: 4 rounds" in text


def test_one_side_has_no_turns() -> None:
    one = document(threads=1)
    del one["sides"]["b"]
    text = said(shown(one))
    assert "to its answer, 1 thread" in text
    assert "1 threads" not in text
    assert "in turn" not in text


def test_parts_that_were_measured_have_columns() -> None:
    rows = [line.split() for line in shown(document()).splitlines()]
    assert ["side", "decode", "network"] in rows
    assert ["a", "1.500", "3.250"] in rows


def test_a_stream_has_a_table() -> None:
    values = document(mode="stream")
    values["sides"]["a"]["stream"] = {
        "fps": 30.0,
        "sent": 90,
        "missed": 9,
        "missed_percent": 10.0,
        "mean_fps": 27.0,
        "jitter_ms": None,
        "queue": {"mean": 0.5, "max": 2},
    }
    text = shown(values)
    assert "one after the other" in said(text)
    assert "a stream of 30 frames a second, jitter in ms" in said(text)
    assert ["a", "90", "9", "10.0", "27.0", "0.50", "2"] in [line.split() for line in text.splitlines()]


def test_marks_are_said_once() -> None:
    values = document(marks=["a: unstable: much", "throttled: hot"])
    values["sides"]["a"]["warnings"] = ["unstable: much"]
    text = shown(values)
    assert text.count("unstable") == 1
    assert "note: throttled: hot" in text


def test_power_has_a_table() -> None:
    found = {"source": "nvml", "watts": 50.0, "idle_watts": None, "joules_per_frame": 0.25, "window_s": 10.0}
    text = shown(document(power={"a": found}))
    assert ["a", "nvml", "50.00", "0.2500", "10.0"] in [line.split() for line in text.splitlines()]
    assert "power" not in shown(document(power=None)), "nobody asked, or no meter: a note says that"
