"""A meter, and its readings taken in the background while something else is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Unit = Literal["W", "J", "MHz"]
Reading = dict[str, float]
Timed = tuple[int, Reading]

INTERVAL_S = 0.1
"""Ten readings a second: an INA3221 averages over about as long, and reading it costs some milliseconds."""

MAX_LOAD = 0.02
"""The share of a CPU that reading may take: it takes power itself."""

_JOIN_S = 5.0


@dataclass(frozen=True)
class Meter:
    """Something that can be read: ``rails`` in ``unit``, where J is a counter of joules since any time.

    ``measures`` says in words what it sees of the machine. ``readings(stop, interval_s)`` yields a time of
    `time.monotonic_ns` (on Linux the clock of `time.perf_counter_ns`, too) and what each rail had then, until ``stop``
    is set.
    """

    name: str
    measures: str
    unit: Unit
    rails: tuple[str, ...]
    readings: Callable[[threading.Event, float], Iterator[Timed]]
    notes: tuple[str, ...] = ()


@dataclass
class Trace:
    """What a meter read, in the order of time: ``times_ns[i]`` is when ``values[i]`` held."""

    source: str
    unit: Unit
    times_ns: list[int] = field(default_factory=list)
    values: list[Reading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def polled(read: Callable[[], Reading]) -> Callable[[threading.Event, float], Iterator[Timed]]:
    """The readings of what answers when it is asked: one at once, one each interval, one at the end.

    A reading that the system refuses (OSError) is left out; if it refuses all of them, that error is raised. Where
    reading costs more than `MAX_LOAD`, the interval grows.
    """

    def readings(stop: threading.Event, interval_s: float) -> Iterator[Timed]:
        refused: OSError | None = None
        yielded = last = False
        while True:
            began, worked = time.monotonic_ns(), time.thread_time_ns()
            try:
                values = read()
            except OSError as error:
                refused = error
            else:
                yielded = True
                yield (began + time.monotonic_ns()) // 2, values
            if last:
                break
            least_s = (time.thread_time_ns() - worked) / 1e9 / MAX_LOAD
            last = stop.wait(max(interval_s, least_s) - (time.monotonic_ns() - began) / 1e9)
        if refused and not yielded:
            raise refused

    return readings


@contextmanager
def sampling(meter: Meter, interval_s: float = INTERVAL_S) -> Iterator[Trace]:
    """Read a meter in a thread of its own while the block runs; the trace is complete when the block has ended.

    What goes wrong with the meter meanwhile is a note of the trace, never an error of what is measured.
    """
    trace = Trace(meter.name, meter.unit, notes=list(meter.notes))
    stop = threading.Event()
    thread = threading.Thread(target=_collect, args=(meter, interval_s, stop, trace), daemon=True)
    thread.start()
    try:
        yield trace
    finally:
        stop.set()
        thread.join(_JOIN_S)
        if thread.is_alive():
            trace.notes.append(f"{meter.name} still did not answer {_JOIN_S:g} s after the measurement")


def _collect(meter: Meter, interval_s: float, stop: threading.Event, trace: Trace) -> None:
    try:
        for time_ns, reading in meter.readings(stop, interval_s):
            trace.times_ns.append(time_ns)
            trace.values.append(reading)
    except Exception as error:  # a driver's library raises about anything, and nobody could catch it here
        trace.notes.append(f"{meter.name} stopped answering: {' '.join(str(error).split()) or type(error).__name__}")
