"""The state of boards as their owners published it, laid out in a folder; what is not there is None."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from board_files import CLOCKS_R36, CLOCKS_R39, CLOCKS_THOR_LOCKED, STATE, lay_out, tool

from hiresvit.device import state as module
from hiresvit.device.power.meter import sampling
from hiresvit.device.state import clock_meter, clocks_moved, device_state, state_changes


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Orin NX, seen by somebody who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lay_out(tmp_path, STATE)
    tool(
        tmp_path,
        "nvpmodel",
        "[ $1 = -q ] && printf 'NVPM WARN: fan mode is not set!\\nNV Power Mode: MAXN_SUPER\\n2\\n'",
    )
    return tmp_path


def test_a_board(board: Path) -> None:
    found = device_state(board)
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "board": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
        "jetson_linux": "36.4.4",
        "jetpack": "6.2.1+b38",
        "power_mode": "MAXN_SUPER",
        "clocks_locked": False,
        "clocks": {
            "cpu0": {"mhz": 1510.4, "min_mhz": 729.6, "max_mhz": 1510.4},
            "cpu4": {"mhz": 729.6, "min_mhz": 729.6, "max_mhz": 1510.4},
            "17000000.gpu": {"mhz": 306.0, "min_mhz": 306.0, "max_mhz": 624.75},
        },
        "governor": "schedutil",
        "temperatures_c": {"cpu-thermal": 51.187, "tj-thermal": 52.5},
        "throttled": [],
        "throttle_counts": {"oc1_event_cnt": 0, "oc2_event_cnt": 15, "oc3_event_cnt": 37},
    }


def test_nothing_is_there_and_nothing_fails(tmp_path: Path) -> None:
    found = device_state(tmp_path)
    assert set(found.values()) == {None}
    assert state_changes(found, found) == []
    assert clock_meter(tmp_path) is None


def test_of_this_machine(tmp_path: Path) -> None:
    here = device_state()
    assert json.loads(json.dumps(here)) == here
    assert here.keys() == device_state(tmp_path).keys()


def test_a_machine_that_is_no_jetson(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            "sys/class/dmi/id/sys_vendor": "LENOVO",
            "sys/class/dmi/id/product_name": "20Y5000QGE",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4",
            "sys/class/thermal/cooling_device0/type": "Processor",
            "sys/class/thermal/cooling_device0/cur_state": "2",
        },
    )
    found = device_state(tmp_path)
    assert found["board"] == "LENOVO 20Y5000QGE"
    assert found["throttled"] == ["Processor (thermal)"]
    assert found["throttle_counts"] == {"core_throttle_count": 7}


@pytest.mark.parametrize(
    ("shown", "locked", "clocks"),
    [
        (CLOCKS_R36, False, {"cpu0": 1510.4, "GPU": 306.0, "EMC": 2133.0}),
        (CLOCKS_R39, False, {"cpu0": 960.0, "GPU": 306.0, "EMC": 665.6}),
        (CLOCKS_THOR_LOCKED, True, {"cpu0": 2601.0, "cpu13": 2601.0, "gpu-gpc-0": 1575.0, "EMC": 4266.0}),
        (CLOCKS_THOR_LOCKED.replace("Override=1", "Override=0"), False, None),
        (CLOCKS_THOR_LOCKED.replace("-0 MinFreq=1575", "-0 MinFreq=315"), False, None),
        (CLOCKS_THOR_LOCKED.replace("cpu13: Governor=schedutil MinFreq=2601", "cpu13: MinFreq=972"), False, None),
    ],
)
def test_root_sees_more_clocks(
    board: Path, monkeypatch: pytest.MonkeyPatch, shown: str, locked: bool, clocks: dict[str, float] | None
) -> None:
    tool(board, "jetson_clocks", f"[ $1 = --show ] && cat <<'END'\n{shown}END\n")
    assert "EMC" not in device_state(board)["clocks"], "it is for root only"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = device_state(board)
    assert found["clocks_locked"] is locked
    if clocks:
        assert {name: clock["mhz"] for name, clock in found["clocks"].items()} == clocks


def test_locked_by_the_files_alone(board: Path) -> None:
    for clock, low in (
        ("system/cpu/cpufreq/policy0/scaling", 1510400),
        ("system/cpu/cpufreq/policy4/scaling", 1510400),
    ):
        lay_out(board, {f"sys/devices/{clock}_min_freq": str(low)})
    assert device_state(board)["clocks_locked"] is False
    lay_out(board, {"sys/class/devfreq/17000000.gpu/min_freq": "624750000"})
    assert device_state(board)["clocks_locked"] is True


def test_tools_that_fail(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOOL_S", 0.1)
    for script in ("exit 3", "exec sleep 30", "printf '\\377'"):
        tool(board, "nvpmodel", script)
        assert device_state(board)["power_mode"] is None
    (board / "usr/bin/nvpmodel").chmod(0o644)
    assert device_state(board)["power_mode"] is None


def changed(state: dict[str, Any], *keys: str, to: Any) -> dict[str, Any]:
    after = copy.deepcopy(state)
    place = after
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return after


def test_changes_in_words(board: Path) -> None:
    before = device_state(board)
    assert state_changes(before, before) == []

    def words(*keys: str, to: Any) -> list[str]:
        return state_changes(before, changed(before, *keys, to=to))

    assert words("power_mode", to="15W") == ["the power mode changed from MAXN_SUPER to 15W"]
    assert words("governor", to="performance") == ["the CPU governor changed from schedutil to performance"]
    assert words("clocks", "17000000.gpu", "max_mhz", to=306.0) == [
        "the limits of the clock 17000000.gpu changed from 306-625 MHz to 306-306 MHz"
    ]
    assert words("throttled", to=["gpu-throttle-alert (thermal)"]) == ["throttling began: gpu-throttle-alert (thermal)"]
    assert words("throttle_counts", "oc3_event_cnt", to=39) == ["it was throttled: oc3_event_cnt counted 2 more"]
    assert words("temperatures_c", "cpu-thermal", to=60.0) == []
    assert words("clocks", "cpu4", "mhz", to=1510.4) == [], "it is free to move"
    assert words("clocks", to=None) == words("throttled", to=None) == words("throttle_counts", to=None) == []


def test_a_locked_clock_that_moves(board: Path) -> None:
    before = changed(device_state(board), "clocks", to={"GPU": {"mhz": 918.0, "min_mhz": 918.0, "max_mhz": 918.0}})
    slower = changed(before, "clocks", "GPU", "mhz", to=612.0)
    assert state_changes(before, slower) == ["the clock GPU is locked and changed from 918 to 612 MHz"]
    assert state_changes(before, changed(before, "clocks", "GPU", "mhz", to=917.2)) == []


def test_clocks_that_move_meanwhile(board: Path) -> None:
    meter = clock_meter(board)
    assert meter is not None
    assert (meter.unit, meter.rails) == ("MHz", ("cpu0", "cpu4", "17000000.gpu"))
    with sampling(meter, 0.005) as trace:
        while len(trace.values) < 2:
            pass
        lay_out(board, {"sys/class/devfreq/17000000.gpu/cur_freq": "612000000"})
        for policy, now in (("policy0", 729600), ("policy4", 1190400)):
            lay_out(board, {f"sys/devices/system/cpu/cpufreq/{policy}/scaling_cur_freq": str(now)})
    assert clocks_moved(trace) == [
        "the clock of 2 CPUs moved between 730 and 1510 MHz",
        "the clock 17000000.gpu moved between 306 and 612 MHz",
    ]
    trace.values[:] = trace.values[:1] * 2
    assert clocks_moved(trace) == [], "two clusters of CPUs need not agree"
