"""What is said about an INT8 plan beside the FP16 plan."""

from __future__ import annotations

from typing import Any

import pytest

from hiresvit.report.int8 import int8_verdict


@pytest.fixture
def plans() -> dict[str, dict[str, Any]]:
    return {
        "fp16": {"kernel_total": 100, "plan_bytes": 1000},
        "int8": {"kernel_total": 120, "plan_bytes": 1500},
    }


def test_it_says_when_int8_is_not_worth_it(plans: dict[str, dict[str, Any]]) -> None:
    accuracy = {"metric": "mIoU", "rows": {"fp32": 90.0, "fp16": 90.0, "int8": 88.5}}
    worse, cost = int8_verdict(plans["fp16"], plans["int8"], accuracy)
    assert worse.startswith("INT8 is not worth it by what can be seen without a GPU: the INT8 plan has 120 kernels")
    assert "50% larger" in worse
    assert cost == "INT8 costs 1.50 points of mIoU against FP16"
    [smaller] = int8_verdict(plans["fp16"], plans["int8"] | {"plan_bytes": 500}, None)
    assert smaller.startswith("INT8 saves memory only")
    [fewer] = int8_verdict(plans["fp16"], plans["int8"] | {"kernel_total": 90}, None)
    assert fewer.endswith("measure both on the device")
    assert "not worth" not in fewer
