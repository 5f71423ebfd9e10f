from __future__ import annotations

from typing import Any

from hiresvit.device.power.meter import Trace
from hiresvit.device.state import device_state
from hiresvit.evaluation.energy import energy
from hiresvit.evaluation.statistics import latency_stats
from hiresvit.report.blocks import Table
from hiresvit.report.documents import check_result
from hiresvit.report.markdown import markdown_page
from hiresvit.report.page import make_page
from hiresvit.report.result_parts import result_parts

SECOND = 10**9
ORIGIN = {"sha256": "ab" * 32, "backend": "TensorRT", "device": "Orin", "role": "plan", "file": "fp16.plan"}


def measured(mode: str = "frame", watts: float = 10.0, **environment: Any) -> dict[str, Any]:
    """A document with what the meter's and the clock's own code make of known readings."""
    times = [*range(0, 21 * SECOND, SECOND)]
    trace = Trace("ina3221", "W", times, [{"VIN": watts} for _ in times])
    side = latency_stats([5_000_000, 6_000_000, 7_000_000]).to_json() | {"origin": ORIGIN, "failure": None}
    document = {
        "schema_version": 1,
        "latency": {
            "mode": mode,
            "threads": 1,
            "sides": {"a": side | {"warnings": []}},
            "ratios": {},
            "environment": {"host": "board", **device_state(), **environment},
            "power": {"a": energy(trace, (0, 20 * SECOND), None, 100)},
        },
    }
    check_result(document)
    return document


def page_of(*found: dict[str, Any]) -> Any:
    return make_page([], [{"file": f"{n}.json", "document": one} for n, one in enumerate(found)], created="now")


def test_joules_stand_in_the_row_of_the_file_that_took_them() -> None:
    [row] = page_of(measured())["rows"]
    assert row["modes"]["frame"]["joules_per_frame"] == 2.0
    assert row["modes"]["frame"]["watts"] == 10.0
    assert row["machine"] == "board"
    assert "2 J a frame" in markdown_page(page_of(measured()))


def test_machines_stand_beside_each_other() -> None:
    clocks = {f"cpu{n}": {"mhz": 2000.0, "min_mhz": 2000.0, "max_mhz": 2000.0} for n in range(4)}
    page = page_of(measured(clocks=clocks, power_mode="MAXN"), measured(mode="call", power_mode="15W"))
    [table] = [
        block
        for one in result_parts(page, {})
        for block in getattr(one, "blocks", ())
        if isinstance(block, Table) and block.title == "the machine"
    ]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["power mode"] == ["MAXN", "15W"]
    assert rows["clocks"][0] == "cpu0 cpu1 cpu2 cpu3: mhz 2000, min mhz 2000, max mhz 2000"
    assert [row["machine"] for row in page["rows"]] == ["board, MAXN", "board, 15W"]


def test_a_second_measurement_of_a_mode_has_a_row_of_its_own() -> None:
    assert len(page_of(measured(), measured(mode="call"))["rows"]) == 1
    assert len(page_of(measured(), measured())["rows"]) == 2


def test_what_had_changed_afterwards_is_shown_alone() -> None:
    state: dict[str, Any] = {"temperatures_c": {"cpu": 50.0}, "governor": "performance"}
    text = markdown_page(page_of(measured(**state, after={**state, "temperatures_c": {"cpu": 71.5}})))
    assert "afterwards: temperatures c: cpu | 71.5 |" in text
    assert "afterwards: governor" not in text


def test_throttling_and_marks_are_at_the_top() -> None:
    document = measured(throttled=["cpu-therm"])
    document["latency"]["marks"] = ["throttled: cpu-therm", "the power mode changed from MAXN to 15W"]
    found = [(line["level"], line["text"]) for line in page_of(document)["warnings"]]
    assert found[0] == ("alarm", "the device throttled while it was measured: cpu-therm")
    assert ("warning", "the power mode changed from MAXN to 15W") in found
    assert len([text for _, text in found if "throttled" in text]) == 1
