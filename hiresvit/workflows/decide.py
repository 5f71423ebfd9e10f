"""Whether INT8 is worth it, by what was measured on a device: both plans in turn, and what INT8 costs there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hiresvit.calibration.fallback import within
from hiresvit.device.platform import has_driver
from hiresvit.errors import HiresvitError
from hiresvit.evaluation.latency import Side, measure_latency
from hiresvit.evaluation.statistics import ratio
from hiresvit.progress import OnStep
from hiresvit.runtime.open import open_runner
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.spec import ContractSpec, Feed
from hiresvit.workflows.yardstick import Yardstick

LEAST_SPEEDUP = 1.02
"""How many times as fast as FP16 INT8 must be, as NVIDIA's ModelOpt asks (its pull request 2318, 2026-09)."""
LONGEST_S = 10.0  # for each plan, if one call takes that long
MEASURED_S = 2.0


def decide(
    plans: Mapping[str, Path],
    feed: Feed,
    accuracy: Mapping[str, Any] | None,
    proof: Yardstick | None,
    contract: ContractSpec,
    *,
    max_drop: float | None,
    on_step: OnStep,
) -> dict[str, Any]:
    """Measure the plans ``fp16`` and ``int8``, where there are both, and recommend one, as plain JSON values.

    ``recommended`` is None where nothing could be measured, with the reason in ``undecided``. ``speedup`` is how many
    times as fast INT8 is, round by round, ``latency`` the statistics of both. ``accuracy`` is that of the graphs on
    ONNX Runtime, None where it was not measured; on the pictures of ``proof`` the plans are measured, too, and count.
    ``max_drop`` are the points that INT8 may lose to FP32, None for any.
    """
    found: dict[str, Any] = {"recommended": None, "undecided": None, "least_speedup": LEAST_SPEEDUP}
    found |= {"speedup": None, "latency": None, "accuracy": accuracy and dict(accuracy), "max_drop": max_drop}
    if len(plans) < 2:
        return found | {"undecided": "no plans were built"}
    if not has_driver():
        return found | {"undecided": "there is no NVIDIA GPU with a driver here"}
    try:
        with ExitStack() as stack:
            runners = {name: Casting(stack.enter_context(open_runner(path))) for name, path in plans.items()}
            on_step("latency", None)
            found |= race(runners, feed)
            if proof is not None and accuracy is not None and contract.name != "camera":  # whose pictures have its size
                on_step("prove: plans", None)
                rows = {name: proof.metric_of(runner, contract) for name, runner in runners.items()}
                found["accuracy"]["rows"] = accuracy["rows"] | rows
    except HiresvitError as error:
        return found | {"undecided": " ".join(str(error).split())}
    return found | {"recommended": recommend(found["speedup"]["median"], found["accuracy"], max_drop)}


def race(runners: Mapping[str, Runner], feed: Feed, clock: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """``latency`` of ``fp16`` and ``int8``, called in turn on one input, and ``speedup``, their ratio in each round."""
    sides = {name: Side(partial(runner, feed)) for name, runner in runners.items()}
    stats = measure_latency(sides, min_s=MEASURED_S, max_s=LONGEST_S, clock=clock)
    return {
        "latency": {name: side.to_json() for name, side in stats.items()},
        "speedup": asdict(ratio(stats["fp16"], stats["int8"])),
    }


def recommend(speedup: float, accuracy: Mapping[str, Any] | None, max_drop: float | None) -> str:
    """``int8`` if it is `LEAST_SPEEDUP` times as fast and loses no more than it may, else ``fp16``."""
    fast = speedup >= LEAST_SPEEDUP
    rows = accuracy and accuracy["rows"]
    kept = max_drop is None or not rows or within(rows["fp32"] - rows["int8"], max_drop)
    return "int8" if fast and kept else "fp16"
