"""What is printed of a plan's traffic, from a document that was worked out by hand."""

from __future__ import annotations

from typing import Any

from hiresvit.device.boards import BOARDS, choose_board
from hiresvit.engine.kernels import Kernel
from hiresvit.engine.roofline import describe
from hiresvit.engine.traffic import traffic
from hiresvit.report.tables import render
from hiresvit.report.traffic import traffic_facts, traffic_report
from hiresvit.spec import TensorSpec


def kernel(number: int, dtype: str = "float16") -> Kernel:
    x, y = (TensorSpec(name, dtype, (number, 500_000)) for name in "xy")
    return Kernel(f"k{number}", "kgen", (x,), (), (y,), "", (f"stage.{number}/Add",))


FOUND = traffic([kernel(number) for number in range(1, 13)], [{"fp16": 10**9}, *[{}] * 11])


def text(found: dict[str, Any]) -> str:
    return " ".join(render(traffic_report(found)).split())


def test_the_ten_that_move_most_with_their_modules() -> None:
    lines = render(traffic_report({**describe(FOUND, BOARDS["orin-nx"]), "best_shapes": {}})).splitlines()
    title = next(number for number, line in enumerate(lines) if "the 10 of 12 kernels that move most" in line)
    rows = [line.split() for line in lines[title + 3 : title + 13]]
    assert rows[0][0] == "24.00"
    assert [row[-1] for row in rows] == [f"stage.{number}" for number in range(12, 2, -1)]


def test_sums_and_the_bound() -> None:
    said = text(describe(FOUND, BOARDS["orin-nx"]))
    assert "activations in all 156.00 MB" in said  # 12 * 13 / 2 times 2 MB
    assert "1 GMACs in fp16" in said
    assert "operations a byte 12.8" in said  # 2e9 / 156e6
    assert "1.523 ms of bytes, 0.133 ms of products" in said  # over 102.4 GB/s and 15 TFLOP/s
    assert "lower bound on orin-nx" in said
    assert "its L2 of 4 MiB could save" in said
    assert "a bound and no prediction" in said


def test_without_a_cache_or_a_board() -> None:
    assert "L2" not in text(describe(FOUND, choose_board(None, 100.0, 10.0)))
    assert "lower bound" not in text(describe(FOUND))


def test_what_is_not_counted_is_said() -> None:
    odd = [kernel(1), *(kernel(number, "complex") for number in range(2, 5))]
    said = text({**describe(traffic(odd)), "best_shapes": {"x": [2, 3]}})
    assert "products unknown" in said
    assert "what it multiplies is not known" in said
    assert "not counted, since TensorRT says no size or type: x, y; the sums are too small" in said
    assert "at the profile's best shape: x 2x3" in said
    assert "products unknown" in text(describe(traffic(odd), BOARDS["thor"]))


def test_streams() -> None:
    assert "may run beside each other" in text(describe(FOUND, BOARDS["thor"], overlapped=True))


def test_facts_of_a_built_plan() -> None:
    moved = {"read_bytes": 2_000_000, "written_bytes": 1_000_000, "weight_bytes": 500, "macs": {}, "untold": 2}
    assert traffic_facts({"traffic": moved}) == {
        "activations moved a call": "3.0 MB, without 2 tensors",
        "weights read a call": "500 B",
    }
    assert traffic_facts({"traffic": None}) == traffic_facts({}) == {}
