"""The machine while `hiresvit bench` measures: what it was before and after, and what changed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from hiresvit.device.host import cpu_time, host_state
from hiresvit.device.power.meter import sampling
from hiresvit.device.state import clock_meter, clocks_moved, device_state, state_changes

_CLOCKS_EVERY_S = 1.0


@dataclass
class Watched:
    """``environment`` is the state that a report has: host, device before, ``after``, and ``changes`` in words.

    ``marks`` are what a run that is to be quoted must not have: throttling, changes, clocks that moved.
    """

    environment: dict[str, Any] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)


@contextmanager
def watched() -> Iterator[Watched]:
    """Watch the machine while the block runs; what is yielded is filled when it has ended."""
    seen = Watched()
    before, began = device_state(), cpu_time()
    meter = clock_meter()
    with sampling(meter, _CLOCKS_EVERY_S) if meter else nullcontext() as clocks:
        yield seen
    host, after = host_state(began, cpu_time()), device_state()
    changes = state_changes(before, after)
    moved = clocks_moved(clocks) if clocks else []
    throttled = sorted({*(before["throttled"] or ()), *(after["throttled"] or ())})
    seen.environment = {**host, **before, "after": after, "changes": changes, "clocks_moved": moved}
    seen.marks = [
        *([f"throttled: {', '.join(throttled)}"] if throttled else []),
        *changes,
        *([f"clocks that are free to move did: {'; '.join(moved)}; lock them"] if moved else []),
    ]
