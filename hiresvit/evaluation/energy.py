"""Joules per frame from what a meter read: the integral over the measured window less what the machine takes idle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.device.power.meter import Trace
from hiresvit.errors import UsageError

LEAST_S = 10.0
"""A shorter window is said: the monitors average over tenths of a second."""

LEAST_SAMPLES = 20

SILENT_S = 1.0
"""A longer gap between two readings is said: a frame's power can hide in it."""

# The whole board where that is measured. Jetson Linux Developer Guide, "Power monitors".
_TOTALS = ("VIN", "VDD_IN", "POM_5V_IN")
# Else the parts that add up: of AGX Orin (VDDQ_VDD2_1V8AO is fed from VIN_SYS_5V0), Thor, AGX Xavier.
_PARTS = frozenset(
    (
        "VDD_GPU_SOC",
        "VDD_CPU_CV",
        "VIN_SYS_5V0",
        "VDD_GPU",
        "VDD_CPU_SOC_MSS",
        "GPU",
        "CPU",
        "SOC",
        "CV",
        "VDDRQ",
        "SYS5V",
    )
)


def total_rails(rails: Iterable[str]) -> tuple[str, ...]:
    """The rails whose sum is the machine, as far as it is measured."""
    names = tuple(rails)
    if total := [name for name in _TOTALS if name in names]:
        return (total[0],)
    if parts := tuple(name for name in names if name in _PARTS):
        return parts
    # GPUs, and packages of CPUs with their memory: package-0/core is inside package-0, psys spans all.
    return tuple(name for name in names if ("/" not in name or name.endswith("/dram")) and name != "psys")


def energy(trace: Trace, window: tuple[int, int], idle_trace: Trace | None, frames: int) -> dict[str, Any]:
    """The power document of a window that answered ``frames`` frames, as plain JSON values.

    ``window`` is its begin and end in nanoseconds of the trace's clock. Watts are integrated by the trapezoid rule over
    the readings and the interpolated ones at the window's edges; counters of joules are read at both edges. Of a
    meter that began late or went silent the watts are means over the part of the window that it saw.
    ``rails`` are mean watts, ``watts`` those of the machine (`total_rails`), idle power included; ``joules_per_frame``
    is what the frames took beyond ``idle_watts``, the mean over the whole idle trace. Negative readings count
    as they are: a rail's zero is calibrated no better. What was not measured is None and a note says why. Raises
    UsageError if the window has no length or no frame.
    """
    begin, end = window
    if end <= begin or frames < 1:
        raise UsageError(f"{frames} frames in {(end - begin) / 1e9:g} s; a window of at least one frame is needed")
    window_s = (end - begin) / 1e9
    samples = sum(begin <= time_ns <= end for time_ns in trace.times_ns)
    notes = [*trace.notes, *_window_notes(trace, window, samples)]
    means = _mean_watts(trace, window)
    idle_means = {} if idle_trace is None else _mean_watts(idle_trace, _span(idle_trace))
    total = total_rails(means or idle_means)
    watts = sum(means[rail] for rail in total) if means else None
    idle_watts = None
    if idle_trace is None:
        notes.append("no idle window was measured: the joules of a frame contain what the machine takes idle")
    elif idle_means and idle_means.keys() >= set(total):
        idle_watts = sum(idle_means[rail] for rail in total)
    else:
        notes.append("too few readings of the idle machine: the joules of a frame contain what it takes idle")
    if len(total) > 1:
        notes.append(f"the watts are the sum of {', '.join(total)}")
    return {
        "source": trace.source,
        "rails": means,
        "watts": watts,
        "idle_watts": idle_watts,
        "joules_per_frame": None if watts is None else (watts - (idle_watts or 0.0)) * window_s / frames,
        "window_s": window_s,
        "samples": samples,
        "notes": notes,
    }


def _span(trace: Trace) -> tuple[int, int]:
    return (trace.times_ns[0], trace.times_ns[-1]) if trace.times_ns else (0, 0)


def _mean_watts(trace: Trace, window: tuple[int, int]) -> dict[str, float]:
    """Of each rail over what was seen of the window; empty where that is nothing."""
    rails = dict.fromkeys(rail for reading in trace.values for rail in reading)
    seconds = (window[1] - window[0]) / 1e9
    means = {}
    for rail in rails:
        rows = [
            (time, reading[rail]) for time, reading in zip(trace.times_ns, trace.values, strict=True) if rail in reading
        ]
        times = np.array([time - window[0] for time, _ in rows], np.float64) / 1e9
        values = np.array([value for _, value in rows], np.float64)
        begin, end = max(float(times[0]), 0.0), min(float(times[-1]), seconds)
        if end > begin:
            means[rail] = _joules(trace.unit, times, values, begin, end) / (end - begin)
    return means


def _joules(unit: str, times: NDArray[np.float64], values: NDArray[np.float64], begin: float, end: float) -> float:
    """From ``begin`` to ``end`` in seconds, both between the first and the last of ``times``."""
    first, last = np.interp([begin, end], times, values)
    if unit == "J":
        return float(last - first)
    inside = (times > begin) & (times < end)
    t = np.concatenate([[begin], times[inside], [end]])
    w = np.concatenate([[first], values[inside], [last]])
    return float(np.sum(np.diff(t) * (w[1:] + w[:-1])) / 2)


def _window_notes(trace: Trace, window: tuple[int, int], samples: int) -> Iterator[str]:
    begin, end = window
    if end - begin < LEAST_S * 1e9:
        yield f"a window of {(end - begin) / 1e9:.1f} s: joules need {LEAST_S:g} s or more to be quoted"
    if samples < LEAST_SAMPLES:
        yield f"{samples} readings in the window: joules need {LEAST_SAMPLES} or more to be quoted"
    inside = [time for time in trace.times_ns if begin < time < end]
    silent, after, before = max((b - a, a, b) for a, b in pairwise([begin, *inside, end]))
    if silent > SILENT_S * 1e9:
        between = bool(trace.times_ns) and trace.times_ns[0] <= after and before <= trace.times_ns[-1]
        how = "what was between is a straight line" if between else "no watts are of that part"
        yield f"{trace.source} said nothing for {silent / 1e9:.1f} s of the window: {how}"
