"""What is said about an INT8 plan beside the FP16 plan: what was measured, or the command that measures it."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from hiresvit.report.int8 import int8_verdict

ACCURACY = {"metric": "mIoU", "rows": {"fp32": 90.25, "fp16": 90.0, "int8": 88.5}}


@pytest.fixture
def plans() -> dict[str, dict[str, Any]]:
    return {
        "fp16": {"kernel_total": 100, "plan_bytes": 1000, **moving(600, 393, 18)},
        "int8": {"kernel_total": 120, "plan_bytes": 1500, **moving(900, 588, 10)},
    }


def moving(read: int, written: int, weights: int, untold: int = 0) -> dict[str, Any]:
    """A plan that moves so many MB."""
    sizes = {"read_bytes": read, "written_bytes": written, "weight_bytes": weights}
    moved = {name: round(1e6 * size) for name, size in sizes.items()}
    return {"backend": "tensorrt_rtx", "traffic": {**moved, "macs": {}, "untold": untold}}


def decision(recommended: str | None, **values: Any) -> dict[str, Any]:
    return {
        "recommended": recommended,
        "undecided": None if recommended else "there is no GPU",
        "least_speedup": 1.02,
        "speedup": {"median": 1.5} if recommended else None,
        "latency": {"int8": {"median_ms": 2.0}, "fp16": {"median_ms": 3.0}} if recommended else None,
        "accuracy": None,
        "max_drop": None,
        **values,
    }


def test_kernels_and_sizes_are_facts_and_no_verdict(plans: dict[str, dict[str, Any]]) -> None:
    for changed, size in (({}, "50% larger"), ({"kernel_total": 90, "plan_bytes": 500}, "50% smaller")):
        facts, _, *said = int8_verdict("b", {**plans, "int8": plans["int8"] | changed}, decision(None))
        assert facts.startswith("the INT8 plan has")
        assert facts.endswith(f"FP16 has 100, and is {size}")
        assert "undecided: there is no GPU" in said[0]
        assert not any("worth it:" in line or "stay with" in line for line in said), "nobody measured"


def test_without_a_measurement_it_gives_the_commands_that_make_one(plans: dict[str, dict[str, Any]]) -> None:
    *_, here, other = int8_verdict("my b", plans, decision(None, accuracy=ACCURACY))
    assert shlex.split(here.partition(": ")[2]) == ["hiresvit", "bench", "my b/fp16.plan", "my b/int8.plan"]
    commands = [shlex.split(part) for part in other.partition(": ")[2].split(" && ")]
    assert commands == [
        ["hiresvit", "build", "my b", "-o", "fp16.plan"],
        ["hiresvit", "build", "my b", "--graph", "int8", "-o", "int8.plan"],
        ["hiresvit", "bench", "fp16.plan", "int8.plan"],
    ]
    undecided, anew = int8_verdict("b", {}, decision(None))
    assert "undecided" in undecided
    assert anew.startswith("this decides it on the board: hiresvit build b ")


@pytest.mark.parametrize("recommended", ["fp16", "int8"])
def test_what_was_measured_is_said_with_its_numbers(plans: dict[str, dict[str, Any]], recommended: str) -> None:
    _, _, cost, said = int8_verdict("b", plans, decision(recommended, accuracy=ACCURACY, max_drop=0.5))
    assert cost == "INT8 costs 1.50 points of mIoU against FP16"
    assert said.startswith({"fp16": "stay with FP16: ", "int8": "INT8 is worth it: "}[recommended])
    assert said.endswith(f"run {recommended}.plan")
    for words in (
        "1.500 times as fast",
        "2.000 ms against 3.000 ms",
        "1.02 is the least",
        "1.75 points of mIoU",
        "0.5 ",
    ):
        assert re.search(re.escape(words), said), said


def moved(plans: dict[str, dict[str, Any]], *, lean: bool = False) -> str:
    """The line about bytes."""
    return int8_verdict("b", plans, decision(None), lean=lean)[1]


def test_a_plan_that_moves_more_is_said_to_be_for_another_network(plans: dict[str, dict[str, Any]]) -> None:
    numbers = "1,488.0 MB of activations and 10.0 of weights against 993.0 MB of activations and 18.0 of weights"
    follows = "at batch 1, on a board whose memory is the limit, INT8 of TensorRT-RTX is not for this network"
    assert moved(plans).startswith(f"INT8 moves 1.48 times what FP16 moves ({numbers}): {follows}; --int8-lean ")
    assert moved(plans, lean=True).endswith("is not for this network"), "it is lean, and cannot be leaner"
    plans["int8"]["backend"] = "tensorrt"  # whose kernels are others than those that the policy is about
    assert moved(plans).endswith("INT8 of TensorRT is not for this network")


def test_weights_count_and_what_moves_less_is_no_reason_against_it(plans: dict[str, dict[str, Any]]) -> None:
    plans["int8"] |= moving(600, 400, 11)  # more activations, and less in all
    assert moved(plans).startswith("INT8 moves 1.00 times what FP16 moves (1,000.0 MB")
    assert "not for" not in moved(plans)


@pytest.mark.parametrize("traffic", [None, moving(1, 1, 1, untold=2)["traffic"]])
def test_what_is_not_known_is_said(plans: dict[str, dict[str, Any]], traffic: Any) -> None:
    plans["int8"]["traffic"] = traffic
    assert moved(plans).startswith("what INT8 moves beside FP16 is not known: ")
    assert moved(plans).endswith("of the plan int8")
