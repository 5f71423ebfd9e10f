"""The host's counters and names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from hiresvit.device import host
from hiresvit.device.host import CpuTime, cpu_name, cpu_time, host_state


def test_the_systems_counters_are_read() -> None:
    before = cpu_time()
    deadline = time.process_time() + 0.2
    while time.process_time() < deadline:
        pass
    after = cpu_time()
    if before is not None and after is not None:  # None on another system than Linux
        spent = after.since(before)
        assert spent.clock > 0
        assert spent.steal <= spent.work
        assert 0.2 <= spent.own <= spent.work + 0.05  # ours is a part of all, counted in hundredths


def test_only_our_own_cpus_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """user nice system idle iowait irq softirq steal guest guest_nice, in hundredths of a second."""
    lines = ("cpu 9 9 9 9 9 9 9 9 0 0", "cpu0 100 0 0 50 0 0 0 20 0 0", "cpu1 1 2 3 900 9 4 5 6 0 0")
    (tmp_path / "stat").write_text("\n".join(lines))
    monkeypatch.setattr(host, "Path", lambda _: tmp_path / "stat")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1})
    found = cpu_time()
    assert found is not None
    ticks = os.sysconf("SC_CLK_TCK")
    # without idle 900 and iowait 9
    assert (found.work * ticks, found.steal * ticks) == pytest.approx((1 + 2 + 3 + 4 + 5 + 6, 6))


def test_what_is_said_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 1})
    found = host_state(CpuTime(0.0, 0.0, 0.0, 0.0), CpuTime(10.0, 8.0, 1.0, 5.0))
    assert found["affinity"] == [1, 3]
    assert found["steal_percent"] == 25  # 5 of 2 x 10 seconds
    assert found["cpu"] == cpu_name() != ""
    json.dumps(found, allow_nan=False)
    assert host_state(None, None)["steal_percent"] is None, "not measured is not 0"
