"""The state this machine is in while something is measured: board, power mode, clocks, temperatures, throttling.

Everything is read from files and from tools that may be missing; what cannot be known is None. Where it stands on a
Jetson: Jetson Linux Developer Guide, "Platform Power and Performance"; elsewhere: Linux, Documentation/ABI.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hiresvit.device.platform import find_tool
from hiresvit.device.power import nvml
from hiresvit.device.power.meter import Meter, Reading, Trace, polled

DRIFT = 0.02
"""A locked clock that is off by more has changed: what counts frequencies is no better."""

_TOOL_S = 10.0
# Of devfreq: 17000000.gpu, 17000000.gv11b, on Thor gpu-gpc-0. Its video engines need not stand still.
_GPU_NAME = re.compile(r"\.gpu$|\.g[avp]\d\db$|^gpu-gpc-")
_SHOWN_CLOCK = re.compile(
    r"^(cpu\d+|GPU|gpu-gpc-\d+|EMC):? .*?MinFreq=(\d+) MaxFreq=(\d+) CurrentFreq=(\d+)(?: FreqOverride=(\d))?"
)
_SLOWS = re.compile(r"throttle-alert|cpufreq|devfreq|^Processor$")  # cooling by slowing down, not by a fan

Clocks = dict[str, dict[str, float | None]]


def device_state(root: Path = Path("/")) -> dict[str, Any]:
    """What holds now, as plain JSON values; ``root`` is where /sys, /proc, /etc and the tools are looked for.

    ``power_mode`` is nvpmodel's name, for its ids mean other modes on other boards. ``clocks`` has for each clock its
    ``mhz`` and the limits ``min_mhz`` and ``max_mhz`` that it moves between; ``clocks_locked`` says whether all have
    nowhere to move. ``throttled`` names what slows the machine down now; ``throttle_counts`` are events since the
    system started: ``oc1_event_cnt`` to ``oc3_event_cnt`` on Orin are under-voltage, mean and momentary over-current.
    """
    clocks = _shown_clocks(root) or _clocks(root)
    return {
        "board": _board(root),
        "jetson_linux": _jetson_linux(root),
        "jetpack": _jetpack(root),
        "power_mode": _power_mode(root),
        "clocks_locked": _locked(clocks),
        "clocks": clocks or None,
        "governor": _governor(root),
        "temperatures_c": _temperatures(root) or None,
        "throttled": _throttled(root),
        "throttle_counts": _throttle_counts(root) or None,
    }


def state_changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What two states of this machine differ in that changes what is measured, in words; empty if nothing does.

    Of a clock that is free to move only the limits are compared: `clocks_moved` says how far it went.
    """
    changes = []
    for key, name in (("power_mode", "the power mode"), ("governor", "the CPU governor")):
        if before[key] != after[key]:
            changes.append(f"{name} changed from {before[key]} to {after[key]}")
    changes += _clock_changes(before["clocks"] or {}, after["clocks"] or {})
    for reason in sorted(set(after["throttled"] or ()) - set(before["throttled"] or ())):
        changes.append(f"throttling began: {reason}")
    counts = before["throttle_counts"] or {}
    for name, count in (after["throttle_counts"] or {}).items():
        if count > counts.get(name, count):
            changes.append(f"it was throttled: {name} counted {count - counts[name]} more")
    return changes


def clock_meter(root: Path = Path("/")) -> Meter | None:
    """The clocks in MHz, cheap enough to be read once a second while something is measured; None without any."""

    def read() -> Reading:
        return {name: clock["mhz"] for name, clock in _clocks(root).items() if clock["mhz"] is not None}

    names = tuple(read())
    return Meter("clocks", "the clocks", "MHz", names, polled(read)) if names else None


def clocks_moved(trace: Trace) -> list[str]:
    """In words, each clock that a trace of `clock_meter` saw more than `DRIFT` below its highest; CPUs in one line."""
    moved = {}
    for name in dict.fromkeys(name for reading in trace.values for name in reading):
        seen = [reading[name] for reading in trace.values if name in reading]
        if min(seen) < (1 - DRIFT) * max(seen):
            moved[name] = (min(seen), max(seen))
    cpus = {name: bounds for name, bounds in moved.items() if name.startswith("cpu")}
    if len(cpus) > 1:
        lows, highs = zip(*cpus.values(), strict=True)
        others = {name: bounds for name, bounds in moved.items() if name not in cpus}
        moved = {f"of {len(cpus)} CPUs": (min(lows), max(highs)), **others}
    return [f"the clock {name} moved between {low:.0f} and {high:.0f} MHz" for name, (low, high) in moved.items()]


def _clock_changes(before: Clocks, after: Clocks) -> Iterator[str]:
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        if (limits := _limits(old)) != (now := _limits(new)):
            yield f"the limits of the clock {name} changed from {limits} to {now}"
        elif _locked({name: old}) and old["mhz"] and new["mhz"] and abs(new["mhz"] / old["mhz"] - 1) > DRIFT:
            yield f"the clock {name} is locked and changed from {old['mhz']:.0f} to {new['mhz']:.0f} MHz"


def _limits(clock: dict[str, float | None]) -> str:
    low, high = clock["min_mhz"], clock["max_mhz"]
    return f"{'?' if low is None else f'{low:.0f}'}-{'?' if high is None else f'{high:.0f}'} MHz"


def _locked(clocks: Clocks) -> bool | None:
    known = [clock["min_mhz"] == clock["max_mhz"] for clock in clocks.values() if clock["min_mhz"] is not None]
    return all(known) if known else None


def _board(root: Path) -> str | None:
    names = [_text(root / "proc/device-tree/model")]
    names.append(
        " ".join(filter(None, (_text(root / f"sys/class/dmi/id/{part}") for part in ("sys_vendor", "product_name"))))
    )
    return next(filter(None, names), None)


def _jetson_linux(root: Path) -> str | None:
    """``# R36 (release), REVISION: 4.3, ...`` is 36.4.3."""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else None


def _jetpack(root: Path) -> str | None:
    """The version of the package nvidia-jetpack, which not every image has."""
    status = _text(root / "var/lib/dpkg/status") or ""
    found = re.search(r"^Package: nvidia-jetpack\n(?:\S.*\n| .*\n)*?Version: (\S+)", status, re.M)
    return found[1] if found else None


def _power_mode(root: Path) -> str | None:
    found = re.search(r"NV Power Mode: *(.+)", _said(root, "nvpmodel", "-q"))
    return found[1].strip() if found else None


def _shown_clocks(root: Path) -> Clocks:
    """What `jetson_clocks --show` says, for root only: the one way to see the memory's. Its CPUs are in kHz."""
    if os.geteuid() != 0:
        return {}
    clocks: Clocks = {}
    for line in _said(root, "jetson_clocks", "--show").splitlines():
        if (found := _SHOWN_CLOCK.match(line)) and "Online=0" not in line:
            name, *numbers = found.groups()[:4]
            low, high, now = (int(number) / (1e3 if name.startswith("cpu") else 1e6) for number in numbers)
            if found[5] == "1":  # the memory's limits stay; an override pins it
                low = high = now
            clocks[name] = {"mhz": now, "min_mhz": low, "max_mhz": high}
    return clocks


def _clocks(root: Path) -> Clocks:
    """CPUs by cpufreq, a Jetson's GPU by devfreq, another's by NVML."""
    clocks: Clocks = {}
    for policy in _ordered(root.glob("sys/devices/system/cpu/cpufreq/policy*")):
        values = [_number(policy / f"scaling_{what}_freq", 1e3) for what in ("cur", "min", "max")]
        clocks[policy.name.replace("policy", "cpu")] = dict(zip(("mhz", "min_mhz", "max_mhz"), values, strict=True))
    for device in _ordered(root.glob("sys/class/devfreq/*")):
        if _GPU_NAME.search(device.name):
            values = [_number(device / f"{what}_freq", 1e6) for what in ("cur", "min", "max")]
            clocks[device.name] = dict(zip(("mhz", "min_mhz", "max_mhz"), values, strict=True))
    return clocks | nvml.clocks(root)


def _governor(root: Path) -> str | None:
    policies = _ordered(root.glob("sys/devices/system/cpu/cpufreq/policy*"))
    return ", ".join(dict.fromkeys(filter(None, (_text(policy / "scaling_governor") for policy in policies)))) or None


def _temperatures(root: Path) -> dict[str, float]:
    """By zone; one that is switched off refuses to be read and is left out."""
    found = {}
    for zone in _ordered(root.glob("sys/class/thermal/thermal_zone*")):
        if (name := _text(zone / "type")) and (value := _number(zone / "temp", 1e3)) is not None:
            found[name] = value
    return found | nvml.temperatures(root)


def _throttled(root: Path) -> list[str] | None:
    reasons = nvml.throttle_reasons(root)
    coolers = {path: _text(path / "type") or "" for path in _ordered(root.glob("sys/class/thermal/cooling_device*"))}
    slowing = {path: name for path, name in coolers.items() if _SLOWS.search(name)}
    if reasons is None and not slowing:
        return None
    active = [name for path, name in slowing.items() if (_number(path / "cur_state") or 0) > 0]
    return sorted({*(reasons or ()), *(f"{name} (thermal)" for name in active)})


def _throttle_counts(root: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    files = root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt")
    for file in _ordered((*files, *root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"))):
        if (value := _number(file)) is not None:
            found[file.name] = found.get(file.name, 0) + int(value)
    return found


def _said(root: Path, name: str, *arguments: str) -> str:
    """What a tool prints, nothing if it is not there or fails."""
    if tool := find_tool(name, root):
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [tool, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TOOL_S, check=False
            )
            return done.stdout.decode("utf-8", "replace")
    return ""


def _ordered(paths: Iterable[Path]) -> list[Path]:
    """zone2 before zone10."""
    return sorted(
        paths, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]
    )


def _text(file: Path) -> str | None:
    with suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    return None


def _number(file: Path, scale: float = 1.0) -> float | None:
    with suppress(ValueError):
        return int(_text(file) or "") / scale
    return None
