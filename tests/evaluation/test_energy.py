"""Joules of traces whose joules are known: from pieces of straight lines, whose areas are trapezoids."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest

from hiresvit.device.power.meter import Trace
from hiresvit.device.power.tegrastats import parse
from hiresvit.errors import UsageError
from hiresvit.evaluation.energy import energy, total_rails

S = 10**9
START = 7_654_321 * S  # a machine that has been on for a while: float64 seconds of that would lose microseconds
# What ten readings a second cannot see is when a step was between two of them: half an interval times its watts, here
# 1.3 J of three steps at worst, of 1,900 J.
WITHIN = 1e-3

# Seconds, watts at the begin and at the end: a step, ramps up and down, a plateau, below zero.
Pieces = Sequence[tuple[float, float, float]]
GPU: Pieces = ((12.0, 3.0, 3.0), (27.0, 12.0, 31.0), (30.0, 31.0, 31.0), (24.0, 20.0, 4.0), (27.0, 4.0, 4.0))
CPU: Pieces = ((30.0, -0.4, -0.4), (60.0, -0.4, 6.0), (30.0, 2.0, 2.0))
SYS: Pieces = ((120.0, 5.0, 7.0),)
BOARD = {"VDD_GPU_SOC": GPU, "VDD_CPU_CV": CPU, "VIN_SYS_5V0": SYS}


def watts_at(pieces: Pieces, second: float) -> float:
    for length, begin, end in pieces:
        if second <= length:
            return begin + (end - begin) * second / length
        second -= length
    return pieces[-1][2]


def joules_of(pieces: Pieces, begin: float, end: float) -> float:
    """The area under the pieces, by hand: length times the mean of both ends."""
    total, at = 0.0, 0.0
    for length, _, _ in pieces:
        a, b = max(begin, at), min(end, at + length)
        if b > a:
            inner = 1e-9  # at a step the end of one piece is not the begin of the next
            total += (b - a) * (watts_at(pieces, a + inner) + watts_at(pieces, b - inner)) / 2
        at += length
    return total


def sampled(rails: dict[str, Pieces], seed: int, *, until: float = 120.0, interval: float = 0.1) -> Trace:
    """Readings about every interval, each up to 40 % of it early or late, as a busy machine takes them."""
    dice = random.Random(seed)
    seconds = [0.0]
    while seconds[-1] < until:
        seconds.append(seconds[-1] + interval * dice.uniform(0.6, 1.4))
    values = [{rail: watts_at(pieces, second) for rail, pieces in rails.items()} for second in seconds]
    return Trace("ina3221", "W", [START + round(second * S) for second in seconds], values)


def window(begin: float, end: float) -> tuple[int, int]:
    return START + round(begin * S), START + round(end * S)


def rectangles(trace: Trace, rail: str, begin: float, end: float) -> float:
    """The wrong integral that suggests itself: each reading holds until the next."""
    times = [(time - START) / S for time in trace.times_ns]
    pairs = zip(pairwise(times), trace.values, strict=False)
    return sum((min(b, end) - max(a, begin)) * value[rail] for (a, b), value in pairs if min(b, end) > max(a, begin))


def steady(rails: dict[str, float], seconds: float = 10.0) -> Trace:
    """Two readings of a machine that rests."""
    return Trace("ina3221", "W", [START, START + round(seconds * S)], [rails, rails])


IDLE = {"VDD_GPU_SOC": 3.0, "VDD_CPU_CV": -1.0, "VIN_SYS_5V0": 5.0}


@pytest.mark.parametrize("seed", range(20))
def test_known_joules_within_a_thousandth(seed: int) -> None:
    begin, end, frames = 1.234567, 117.654321, 1000
    known = {rail: joules_of(pieces, begin, end) for rail, pieces in BOARD.items()}
    found = energy(sampled(BOARD, seed), window(begin, end), steady(IDLE), frames)
    assert found["window_s"] == pytest.approx(end - begin, abs=1e-9)
    assert found["watts"] * (end - begin) == pytest.approx(sum(known.values()), rel=WITHIN)
    assert found["idle_watts"] == 7.0
    taken = sum(known.values()) - 7.0 * (end - begin)
    assert found["joules_per_frame"] * frames == pytest.approx(taken, rel=WITHIN)
    assert found["rails"]["VIN_SYS_5V0"] * (end - begin) == pytest.approx(known["VIN_SYS_5V0"], rel=1e-6)
    assert found["notes"] == ["the watts are the sum of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0"]


def test_the_areas_by_hand() -> None:
    """12 s at 3 W, 27 s from 12 to 31 W, 30 s at 31 W: 36 + 580.5 + 930 J; from 2 s on 6 J less."""
    assert joules_of(GPU, 0, 69) == pytest.approx(1546.5, abs=1e-6)
    assert joules_of(GPU, 2, 69) == pytest.approx(1540.5, abs=1e-6)
    assert joules_of(CPU, 0, 90) == pytest.approx(-12 + 168, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_ramp_tells_trapezoids_from_rectangles(seed: int) -> None:
    """Half an interval times 25 W is 1.25 J of 210: rectangles miss by six thousandths, trapezoids by nothing."""
    ramp: dict[str, Pieces] = {"VDD_IN": ((14.0, 5.0, 30.0),)}
    trace, known = sampled(ramp, seed, until=14.0), joules_of(ramp["VDD_IN"], 1.01, 13.01)
    found = energy(trace, window(1.01, 13.01), None, 1)
    assert found["watts"] * 12 == pytest.approx(known, rel=1e-6)
    assert abs(rectangles(trace, "VDD_IN", 1.01, 13.01) / known - 1) > 3 * WITHIN
    edges_left_out = energy(trace, window(1.01, 13.0), None, 1)  # the last 10 ms of 30 W are seen
    assert edges_left_out["watts"] * 11.99 < (1 - WITHIN) * known


def test_a_line_of_tegrastats_has_a_mean_that_is_not_ours() -> None:
    """Of what tegrastats wrote only its first number, now, gives the joules; not the mean since it began."""
    trace = sampled({"VDD_IN": ((5.0, 4.0, 4.0), (35.0, 20.0, 20.0))}, 7)
    now = [value["VDD_IN"] for value in trace.values]
    means = [sum(now[: count + 1]) / (count + 1) for count in range(len(now))]
    lines = [f"GR3D_FREQ 9% VDD_IN {1000 * w:.0f}mW/{1000 * m:.0f}mW" for w, m in zip(now, means, strict=True)]
    exchanged = [f"GR3D_FREQ 9% VDD_IN {1000 * m:.0f}mW/{1000 * w:.0f}mW" for w, m in zip(now, means, strict=True)]
    found, wrong = (
        energy(Trace("tegrastats", "W", trace.times_ns, [parse(line) for line in side]), window(6, 36), None, 1)
        for side in (lines, exchanged)
    )
    assert found["joules_per_frame"] == pytest.approx(600, rel=WITHIN)
    assert wrong["joules_per_frame"] < 0.95 * 600


def test_a_counter_of_joules_is_read_at_the_edges() -> None:
    """10 W for 20 s, then 30 W. What happened between two readings is in the counter."""
    times = [0.0, 7.0, 19.0, 20.0, 33.0, 40.0]
    joules = [0.0, 70.0, 190.0, 200.0, 590.0, 800.0]
    values = [{"package-0": 5e6 + value, "package-0/core": value / 2, "psys": 2 * value} for value in joules]
    trace = Trace("rapl", "J", [START + round(time * S) for time in times], values)
    idle = Trace("rapl", "J", [START, START + 10 * S], [{"package-0": 0.0}, {"package-0": 40.0}])
    found = energy(trace, window(10, 30), idle, 50)
    assert found["watts"] * 20 == pytest.approx(100 + 300, abs=1e-6)
    assert found["idle_watts"] == pytest.approx(4)
    assert found["joules_per_frame"] == pytest.approx((400 - 80) / 50)
    assert found["rails"]["psys"] == pytest.approx(2 * found["watts"]), "said, and not added"


@pytest.mark.parametrize("unit", ["W", "J"])
def test_a_meter_that_goes_silent_takes_no_watts_away(unit: Literal["W", "J"]) -> None:
    """20 W for 12 s, and then nothing for 8 s."""
    seconds = np.arange(0, 12.01, 0.1)
    values = [{"VIN": 20.0 if unit == "W" else 20.0 * second} for second in seconds]
    trace = Trace("nvml", unit, [START + round(second * S) for second in seconds], values)
    found = energy(trace, window(2, 20), None, 18)
    assert found["watts"] == pytest.approx(20)
    assert found["joules_per_frame"] == pytest.approx(20)
    assert found["notes"][0] == "nvml said nothing for 8.0 s of the window: no watts are of that part"
    after = energy(trace, window(13, 20), steady({"VIN": 4.0}), 1)
    assert (after["watts"], after["joules_per_frame"]) == (None, None), "what it said before is not of this window"
    assert after["idle_watts"] == 4
    assert energy(trace, window(2, 12), steady({"VDD": 4.0}), 1)["idle_watts"] is None, "another rail is not this one"
    gap = Trace("nvml", "W", [START, START + 5 * S, START + 20 * S], [{"VIN": 20.0}] * 3)
    assert energy(gap, window(0, 20), None, 1)["notes"][1].endswith("what was between is a straight line")


def test_less_than_idle_stays_negative() -> None:
    found = energy(steady({"VDD_IN": 4.0}, 20.0), window(0, 20), steady({"VDD_IN": 5.0}), 10)
    assert found["joules_per_frame"] == pytest.approx(-2)


def test_what_is_too_little_is_said() -> None:
    short = energy(sampled({"VIN": ((40.0, 5.0, 5.0),)}, 1, until=9.0), window(2, 5.5), None, 1)
    assert short["samples"] == pytest.approx(35, abs=3)
    assert short["notes"] == [
        "a window of 3.5 s: joules need 10 s or more to be quoted",
        "no idle window was measured: the joules of a frame contain what the machine takes idle",
    ]
    trace = sampled({"VIN": ((40.0, 5.0, 5.0),)}, 1, until=12.0)
    stopped = energy(trace, window(2, 22), steady({"VIN": 1.0}), 1)
    assert stopped["notes"][0].startswith("ina3221 said nothing for 9.9 s")
    few = energy(steady({"VIN": 5.0}, 0.5), window(0, 0.5), steady({"VIN": 1.0}), 1)
    assert few["notes"][1] == "2 readings in the window: joules need 20 or more to be quoted"


@pytest.mark.parametrize("readings", [0, 1])
def test_what_was_not_measured_is_null(readings: int) -> None:
    trace = Trace("nvml", "W", [START][:readings], [{"GPU0": 70.0}][:readings], ["nvml stopped answering: GPU is lost"])
    found = energy(trace, window(0, 10), trace, 5)
    assert (found["rails"], found["watts"], found["idle_watts"], found["joules_per_frame"]) == ({}, None, None, None)
    assert found["notes"][0] == "nvml stopped answering: GPU is lost"


def test_the_total_by_board() -> None:
    assert total_rails(["VDD_GPU", "VIN", "VDD_IN"]) == ("VIN",)
    assert total_rails(["POM_5V_GPU", "POM_5V_IN"]) == ("POM_5V_IN",)
    assert total_rails(["VDD_GPU_SOC", "VDDQ_VDD2_1V8AO", "VIN_SYS_5V0"]) == ("VDD_GPU_SOC", "VIN_SYS_5V0")
    assert total_rails(["package-0", "package-0/core", "package-0/dram", "psys"]) == ("package-0", "package-0/dram")
    assert total_rails(["GPU0", "GPU1"]) == ("GPU0", "GPU1")


@pytest.mark.parametrize(("length", "frames"), [(0, 1), (10, 0)])
def test_a_window_needs_time_and_frames(length: int, frames: int) -> None:
    with pytest.raises(UsageError, match="at least one frame"):
        energy(steady({"VIN": 1.0}), window(0, length), None, frames)
