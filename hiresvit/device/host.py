"""The host's processors: which they are, which of them we may use, and what others take of them meanwhile."""

from __future__ import annotations

import os
import platform
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSY = 0.25
"""Above this share of the CPUs taken by others a measurement says so; an idle desktop takes a few per cent."""

LEAST_S = 0.5
"""A shorter measurement says nothing of others: the system counts in hundredths of a second."""


@dataclass(frozen=True)
class CpuTime:
    """Seconds: of a clock, of work on the CPUs that we may use, our own of these, and what a host kept back of them.

    A guest's ``work`` counts ``steal``, too.
    """

    clock: float
    work: float
    own: float
    steal: float

    def since(self, before: CpuTime) -> CpuTime:
        """What passed from an earlier one to this."""
        return CpuTime(*(b - a for a, b in zip(vars(before).values(), vars(self).values(), strict=True)))


def cpu_time() -> CpuTime | None:
    """What the counters say now, proc_stat(5); None on another system than Linux."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = stolen = 0
    for name, *counts in map(str.split, lines):
        if name in mine:
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, counts)
            ticks += user + nice + system + irq + softirq + steal
            stolen += steal
    second = os.sysconf("SC_CLK_TCK")
    return CpuTime(time.monotonic(), ticks / second, time.process_time(), stolen / second)


def load_words(before: CpuTime | None, after: CpuTime | None) -> tuple[str, ...]:
    """What is to be said of a machine that others used meanwhile; nothing if that is not known or not much."""
    if before is None or after is None:
        return ()
    spent, cpus = after.since(before), len(os.sched_getaffinity(0))
    others = spent.work - spent.own
    if spent.clock < LEAST_S or others < BUSY * cpus * spent.clock:
        return ()
    load = f"load {os.getloadavg()[0]:.1f}"
    taken = spent.steal / spent.clock
    stolen = f", {taken:.1f} of that by other guests of its host" if taken >= 0.1 else ""
    return (
        f"the machine is busy, other programs took {others / spent.clock:.1f} of its {cpus} CPUs meanwhile"
        f" ({load}{stolen})",
    )


def host_state(before: CpuTime | None, after: CpuTime | None) -> dict[str, Any]:
    """What a report says of the host between two readings of `cpu_time`, as plain JSON values.

    ``load`` is the system's mean of the last minute, our own work in it; ``steal_percent`` is of the CPUs in
    ``affinity``, which are those that we may use, of ``cpus``.
    """
    mine = sorted(os.sched_getaffinity(0))
    spent = after.since(before) if before and after else None
    return {
        "host": platform.node(),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "affinity": mine,
        "load": os.getloadavg()[0],
        "steal_percent": 100 * spent.steal / (spent.clock * len(mine)) if spent and spent.clock >= LEAST_S else None,
    }


def cpu_name() -> str:
    """The processor's own name where the system says it, as on a PC; else what kind it is."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)", text, re.M):
            return found[1].strip()
    return platform.processor() or platform.machine()
