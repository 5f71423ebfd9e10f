"""What a frame takes in joules, as `hiresvit bench --power` measures it: each side alone, beside an idle machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hiresvit.device.power.find import look_for_meters
from hiresvit.device.power.meter import Meter, sampling
from hiresvit.errors import HiresvitError
from hiresvit.evaluation import energy

Busy = Callable[[float], int]
"""Keeps a side at work for so many seconds, and says how many frames that were."""


@dataclass
class Power:
    """By side what `energy.energy` says, or None where there is no meter or no frame; why is in ``notes``."""

    sides: dict[str, dict[str, Any]] | None = None
    notes: list[str] = field(default_factory=list)
    failures: dict[str, HiresvitError] = field(default_factory=dict)
    interrupt: KeyboardInterrupt | None = None


def measure_power(runs: Mapping[str, Busy], seconds: float) -> Power:
    """A window of ``seconds`` (at least `energy.LEAST_S`) with nothing to do, then one for each side.

    The sides cannot take turns as for their latency: a meter averages over tenths of a second. The first meter that
    works here is taken. A side that raises a HiresvitError is left out; what was measured before Ctrl-C stays.
    """
    found = Power()
    meters = look_for_meters()
    meter = next((one for one in meters.values() if isinstance(one, Meter)), None)
    if meter is None:
        found.notes = [f"--power: none of {', '.join(meters)} measures here; `hiresvit doctor` says why"]
        return found
    window_s = max(seconds, energy.LEAST_S)
    found.sides = {}
    try:
        with sampling(meter) as idle:
            time.sleep(window_s)
        for name, run in runs.items():
            try:
                with sampling(meter) as trace:
                    began = time.monotonic_ns()
                    frames = run(window_s)
                    end = time.monotonic_ns()
            except HiresvitError as error:
                found.failures[name] = error
                continue
            if frames:
                found.sides[name] = energy.energy(trace, (began, end), idle, frames)
    except KeyboardInterrupt as interrupt:
        found.interrupt = interrupt
    return found


def keep_busy(run: Callable[[], object], batch: int) -> Busy:
    """A side that is called again and again."""

    def work(seconds: float) -> int:
        frames, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            run()
            frames += batch
        return frames

    return work
