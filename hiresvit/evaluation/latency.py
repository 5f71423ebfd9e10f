"""Latency of several sides in turn, so that they share the machine's state; the numbers are `statistics`'."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hiresvit.device.host import CpuTime, cpu_time, load_words
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.statistics import (
    LatencyStats,
    Parts,
    latency_stats,
    median_error,
    no_stats,
    paired_ratio,
)

BUDGET_S = 10.0
"""Seconds for each side after which the rounds end early, if nobody has asked for longer ones."""

FEW = 3
"""The least that is measured then: a median that one odd call does not make."""

SETTLE_S = 0.03
"""The rest before each call: several times as long as idle workers of PyTorch and ONNX Runtime spin."""

_GROWTH = 1.1  # of the rounds from one look at the medians' errors to the next: sorting them costs nothing by the call


@dataclass(frozen=True)
class Side:
    """A network that is measured: ``run`` calls it once, on ``batch`` images.

    ``parts`` says what the last call was made of; it is asked after each call, outside of its time.
    """

    run: Callable[[], object]
    batch: int = 1
    parts: Callable[[], Parts | None] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """How long is measured; seconds are for each side and counted over all of them together.

    After ``warmup_s`` (at least one call) follow ``min_s`` seconds and ``min_iterations`` rounds at least, and then
    others until every median is known to within ``rel_error`` per cent (`median_error`) or ``max_s`` are over. After
    ``slow_s`` seconds `FEW` rounds are enough. Before each call the machine rests for ``settle_s``, untimed: the idle
    workers of a thread pool spin on for some milliseconds and would slow the next side down.
    """

    warmup_s: float = 0.2
    min_s: float = 3.0
    min_iterations: int = 10
    max_s: float = math.inf
    rel_error: float = math.inf
    slow_s: float = math.inf
    settle_s: float = 0.0


@dataclass
class Measured:
    """What came of the rounds: by side the nanoseconds of its calls and the parts of those that have any.

    ``stopped`` says in words what ended them, ``failures`` which sides did not come to the end, ``interrupt`` is
    Ctrl-C or a signal. ``notes`` are of the machine.
    """

    samples: dict[str, list[int]]
    parts: dict[str, list[Parts]]
    stopped: str = ""
    failures: dict[str, HiresvitError] = field(default_factory=dict)
    interrupt: KeyboardInterrupt | None = None
    notes: tuple[str, ...] = ()


def measure_latency(
    runs: Mapping[str, Callable[[], object] | Side],
    *,
    warmup_s: float = 0.2,
    min_s: float = 3.0,
    min_iterations: int = 10,
    max_s: float = math.inf,
    settle_s: float = 0.0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, LatencyStats]:
    """Call every side once per round, the order rotated by one each round, and time each call by itself.

    Warm-up rounds (at least one) take ``warmup_s`` seconds per side; then follow at least ``min_iterations``
    rounds and ``min_s`` seconds per side, both counted over all sides together, so that one slow side does
    not stretch the run. After ``max_s`` seconds per side `FEW` rounds are enough, and a warning says so; on a machine
    that others use half as long and one. ``settle_s`` is as in `Limits`. ``clock`` returns nanoseconds. Sample i of
    every side comes from round i. Raises UsageError if there is nothing to run, on impossible limits, and if the clock
    is too coarse to see a call, and whatever a run raises.
    """
    limits = Limits(warmup_s, min_s, min_iterations, slow_s=max_s, settle_s=settle_s)
    sides = {name: run if isinstance(run, Side) else Side(run) for name, run in runs.items()}
    measured = measure_sides(sides, limits, clock)
    for error in (measured.interrupt, *measured.failures.values()):
        if error is not None:
            raise error
    return side_stats(sides, measured)


def latency_report(sides: Mapping[str, Callable[[], object] | Side], *, min_s: float) -> dict[str, Any]:
    """Measure all sides and compare each with the first, as plain JSON values: ``sides`` and ``ratios``."""
    stats = measure_latency(sides, min_s=min_s, max_s=max(BUDGET_S, min_s), settle_s=SETTLE_S)
    return {"sides": {name: side.to_json() for name, side in stats.items()}, "ratios": _ratios(stats)}


def measure_sides(
    sides: Mapping[str, Side], limits: Limits, clock: Callable[[], int] = time.perf_counter_ns
) -> Measured:
    """The rounds of `measure_latency` with what came of each side, also if one fails or the run is interrupted.

    A side that raises a HiresvitError is left out from then on. Raises UsageError for impossible limits.
    """
    if not sides or limits.warmup_s < 0 or limits.min_s < 0 or limits.min_iterations < 1:
        raise UsageError(
            f"{len(sides)} runs, warmup_s {limits.warmup_s}, min_s {limits.min_s}, min_iterations"
            f" {limits.min_iterations}; at least 1 run, 0 s, 0 s and 1 iteration are needed"
        )
    before = cpu_time()
    warm = _rounds(sides, clock, limits.settle_s, _warm(limits))
    if warm.interrupt or len(warm.failures) == len(sides):
        return Measured({}, {}, warm.stopped, warm.failures, warm.interrupt)
    left = {name: side for name, side in sides.items() if name not in warm.failures}
    began = cpu_time()
    found = _rounds(left, clock, limits.settle_s, _stopping(limits, busy=bool(load_words(before, began))))
    found.failures = {**warm.failures, **found.failures}
    found.notes = _notes(found, limits, began)
    return found


def side_stats(sides: Mapping[str, Side], measured: Measured) -> dict[str, LatencyStats]:
    """Statistics of every side that was called, its notes and the machine's with them."""
    stats = {}
    for name, samples in measured.samples.items():
        if samples:
            side = sides[name]
            found = latency_stats(samples, side.batch, measured.parts[name], side.notes)
            stats[name] = replace(found, warnings=found.warnings + measured.notes)
    return stats


def sides_report(sides: Mapping[str, Side], measured: Measured) -> dict[str, Any]:
    """What was measured as plain JSON values, of an interrupted run what there is.

    ``stopped``, ``complete``, ``sides`` and ``ratios`` to the first side that has samples.
    """
    stats = side_stats(sides, measured)
    words = {name: str(error) for name, error in measured.failures.items()}
    return {
        "complete": measured.interrupt is None,
        "stopped": measured.stopped,
        "sides": {
            name: stats[name].to_json() if name in stats else no_stats(words.get(name, "interrupted before its turn"))
            for name in sides
        },
        "ratios": _ratios(stats),
    }


def _ratios(stats: Mapping[str, LatencyStats]) -> dict[str, Any]:
    if not stats:
        return {}
    (first, base), *others = stats.items()
    return {f"{name}/{first}": asdict(paired_ratio(side.samples_ns, base.samples_ns)) for name, side in others}


_Stop = Callable[[int, float, Measured], str]
"""From the rounds done, the seconds per side and the samples: why it is enough, nothing if it is not."""


def _rounds(sides: Mapping[str, Side], clock: Callable[[], int], settle_s: float, stop: _Stop) -> Measured:
    found = Measured({name: [] for name in sides}, {name: [] for name in sides})
    order = list(sides)
    began, each = clock(), 1e9 * len(sides)
    rounds = 0
    try:
        while order:
            if words := stop(rounds, (clock() - began) / each, found):
                found.stopped = words
                return found
            for name in tuple(order):
                side = sides[name]
                if settle_s:
                    time.sleep(settle_s)
                try:
                    start = clock()
                    side.run()
                    elapsed = clock() - start
                    parts = side.parts() if side.parts else None
                except HiresvitError as error:
                    found.failures[name] = error
                    order.remove(name)
                    continue
                found.samples[name].append(elapsed)
                if parts is not None:
                    found.parts[name].append(parts)
            if order:
                order.append(order.pop(0))
            rounds += 1
        found.stopped = "every side failed"
    except KeyboardInterrupt as interrupt:
        found.stopped, found.interrupt = "interrupted", interrupt
    return found


def _warm(limits: Limits) -> _Stop:
    return lambda rounds, taken, _: "warm" if rounds and taken >= limits.warmup_s else ""


def _stopping(limits: Limits, *, busy: bool) -> _Stop:
    """When it is enough. On a busy machine slow calls get half the time, and one round may have to do."""
    slow_s, few = (limits.slow_s / 2, 1) if busy else (limits.slow_s, FEW)
    look = 0

    def stop(rounds: int, taken: float, found: Measured) -> str:
        nonlocal look
        if rounds >= few and taken >= slow_s and rounds < limits.min_iterations:
            because = "others use this machine and calls take" if busy else "calls take"
            return f"time is up: {because} long, {rounds} rounds in {taken:.0f} s for each side"
        if rounds < limits.min_iterations or taken < limits.min_s or (rounds < look and taken < limits.max_s):
            return ""
        look = math.ceil(_GROWTH * rounds)
        going = found.samples.keys() - found.failures.keys()
        error, name = max((median_error(found.samples[name]), name) for name in going)
        if error <= limits.rel_error:
            within = "" if math.isinf(limits.rel_error) else f", every median within {error:.2g} %"
            return f"{rounds} rounds, {taken:.1f} s for each side{within}"
        if taken >= limits.max_s:
            known = "not known" if math.isinf(error) else f"known to within {error:.3g} %"
            return (
                f"time is up: {taken:.1f} s for each side; the median of {name} is {known}, not {limits.rel_error:g} %"
            )
        return ""

    return stop


def _notes(found: Measured, limits: Limits, began: CpuTime | None) -> tuple[str, ...]:
    """What is to be said of all sides: few calls, and other programs."""
    done = max(map(len, found.samples.values()))
    few = f"measured {done} calls, not {limits.min_iterations}: they take long here"
    short = done < limits.min_iterations and not found.interrupt
    return (*[few] * short, *load_words(began, cpu_time()))
