"""What a sweep's rows are made into: real rows, changed one thing at a time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from sweep_rows import row_for

from hiresvit.report.sweep import make_sweep
from hiresvit.report.sweep_words import best_line, sweep_cautions
from hiresvit.workflows.report import read_sweep

Rows = list[dict[str, Any]]


@pytest.fixture
def rows(sweep_file: Path) -> Rows:
    return copy.deepcopy(read_sweep(sweep_file)["rows"])


def swept(*sources: Rows, **asked: Any) -> dict[str, Any]:
    return make_sweep([{"file": f"{n}.jsonl", "cut": False, "rows": rows} for n, rows in enumerate(sources)], **asked)


def side_of(row: dict[str, Any]) -> Any:
    document = row["document"]
    return (
        document["accuracy"]["sides"][0]
        if row["command"] == "eval"
        else next(iter(document["latency"]["sides"].values()))
    )


def measured(rows: Rows, precision: str, ms: float, *miou: float) -> None:
    """Give a cell a time, and an accuracy with its interval."""
    side_of(row_for(rows, "bench", precision)).update(median_ms=ms, p99_ms=2 * ms)
    found = dict(zip(("value", "low", "high"), miou, strict=True))
    side_of(row_for(rows, "eval", precision))["metrics"]["miou"].update(found)


def said(sweep: dict[str, Any]) -> str:
    return "\n".join(f"{line['level']}: {line['text']}" for line in sweep_cautions(sweep))


def test_the_budget_decides_which_cell_is_best(rows: Rows) -> None:
    measured(rows, "fp32", 9.0, 70.0, 69.0, 71.0)
    measured(rows, "fp16", 4.0, 60.0, 59.0, 61.0)
    for budget, name, fits in ((10, "fp32", True), (9, "fp32", True), (5, "fp16", True), (3, "fp16", False)):
        [best] = swept(rows, budget_ms=budget)["best"]
        assert (best["point"]["name"], best["fits"]) == (f"tiny 64x96 {name}", fits)
        assert bool(best["commands"]) == fits
    assert "its p99 is over the budget" in best_line(swept(rows, budget_ms=10)["best"][0])


def test_overlapping_intervals_are_said(rows: Rows) -> None:
    measured(rows, "fp32", 9.0, 70.0, 68.0, 72.0)
    measured(rows, "fp16", 4.0, 69.0, 67.0, 71.0)
    sweep = swept(rows, budget_ms=10)
    assert "as accurate within the intervals, and faster: tiny 64x96 fp16" in best_line(sweep["best"][0])
    assert all(point["alike"] for point in sweep["fronts"][0]["points"])
    measured(rows, "fp16", 4.0, 60.0, 59.0, 61.0)
    assert not any(point["alike"] for point in swept(rows)["fronts"][0]["points"])


@pytest.mark.parametrize("other", ["device", "protocol", "dataset", "mode"])
def test_what_was_measured_otherwise_has_a_front_of_its_own(other: str, rows: Rows) -> None:
    if other == "device":
        for row in rows:
            for cell in row["cells"]:
                cell["device"] = "orin-nx" if cell["precision"] == "fp16" else "cpu"
    elif other == "mode":
        row_for(rows, "bench", "fp16")["document"]["latency"]["mode"] = "frame"
    else:
        row_for(rows, "eval", "fp16")["document"]["accuracy"][other]["name"] = "another"
    fronts = swept(rows)["fronts"]
    assert [len(group["points"]) for group in fronts] == [1, 1]
    if other == "mode":
        assert [group["mode"] for group in fronts] == ["frame", "call"]
        assert [best["mode"] for best in swept(rows, budget_ms=1e9)["best"]] == ["frame"]
    assert len(swept(rows)["fronts"]) == 2


def test_accuracy_and_time_of_other_bytes_are_not_set_together(rows: Rows) -> None:
    side_of(row_for(rows, "bench", "fp32"))["origin"]["sha256"] = "ab" * 32
    sweep = swept(rows)
    assert [point["cell"] for point in sweep["fronts"][0]["points"]] == [1]
    assert sweep["cells"][0]["times"]
    assert sweep["cells"][0]["accuracies"]


def test_an_emulators_time_is_none(rows: Rows) -> None:
    side_of(row_for(rows, "bench", "fp32"))["origin"]["emulated"] = True
    sweep = swept(rows)
    [time] = sweep["cells"][0]["times"]
    assert time["median_ms"] is time["p99_ms"] is time["joules_per_frame"] is None
    assert [point["cell"] for point in sweep["fronts"][0]["points"]] == [1]
    assert "ran on an emulator" in said(sweep)


def test_without_accuracy_there_is_no_front_and_that_is_the_answer(rows: Rows) -> None:
    sweep = swept([row for row in rows if row["command"] != "eval"], budget_ms=5)
    assert sweep["fronts"] == []
    [best] = sweep["best"]
    assert best["point"] is None
    assert "no cell has both" in best_line(best)


def test_the_same_cell_on_two_workers_is_two_points(rows: Rows) -> None:
    again = copy.deepcopy([row for row in rows if row["command"] == "bench"])
    for row in again:
        row.update(key="0" * 64, worker="board-2:5", version="9.9")
    sweep = swept(rows, again)
    assert [time["worker"] for time in sweep["cells"][0]["times"]] == ["board-1:77", "board-2:5"]
    names = [point["name"] for point in sweep["fronts"][0]["points"]]
    assert len(set(names)) == 4
    assert sum("board-2:5" in name for name in names) == 2
    assert "several versions" in said(sweep)


def test_a_side_that_failed_is_a_failure_whatever_the_exit_code(rows: Rows) -> None:
    side_of(row_for(rows, "bench", "fp32"))["failure"] = {"message": "out of memory"}
    sweep = swept(rows)
    assert [failure["why"] for failure in sweep["failures"]] == [
        "out of memory",
        "killed while it wrote int8.onnx",
    ] or {failure["why"] for failure in sweep["failures"]} == {"out of memory", "killed while it wrote int8.onnx"}
    assert sweep["cells"][0]["times"] == []


def test_energy_is_what_the_meter_said_and_null_without_one(rows: Rows) -> None:
    latency = row_for(rows, "bench", "fp32")["document"]["latency"]
    name = next(iter(latency["sides"]))
    latency["power"] = {
        name: {"source": "m", "watts": 5.0, "idle_watts": 2.0, "joules_per_frame": 0.25, "window_s": 1.0}
    }
    points = {point["cell"]: point for point in swept(rows)["fronts"][0]["points"]}
    assert points[0]["joules_per_frame"] == 0.25
    assert points[1]["joules_per_frame"] is None


def test_commands_are_quoted_whatever_a_row_says(rows: Rows) -> None:
    row_for(rows, "bench", "fp32")["line"] += " ; rm -rf $HOME `id`"
    measured(rows, "fp32", 1.0, 99.0, 98.0, 99.5)
    [best] = swept(rows, budget_ms=10)["best"]
    assert best["commands"][-1].endswith("';' rm -rf '$HOME' '`id`'")


def test_what_was_not_begun_is_missing(rows: Rows) -> None:
    only = [row for row in rows if not (row["command"] == "bench" and row["cells"][0]["precision"] == "fp16")]
    sweep = swept(only)
    assert [cell["missing"] for cell in sweep["cells"]] == [[], ["bench"], ["verify", "eval", "bench"]]
    exports = [row for row in rows if row["command"] == "export"]
    assert {tuple(cell["missing"]) for cell in swept(exports)["cells"]} == {("eval or bench",)}


def test_a_clock_that_is_off_a_lost_worker_and_unlike_machines_are_said(rows: Rows) -> None:
    rows[0].update(clock_off_s=40.0, attempts=2)
    row_for(rows, "bench", "fp32")["document"]["latency"]["environment"]["cpu"] = "another CPU"
    text = said(swept(rows))
    assert "+40 s off" in text
    assert "begun again" in text
    assert "unlike machines" in text
    assert "nobody trained the weights of tiny" in text


def test_a_board_that_only_times_has_the_accuracy_of_the_same_bytes_elsewhere(rows: Rows) -> None:
    board = copy.deepcopy(row_for(rows, "bench", "fp32"))
    board.update(key="0" * 64, device="orin-nx", worker="me@orin", line="hiresvit-run {given}/bundle x.png --json")
    export = row_for(rows, "export", "fp32")
    cell = {**board["cells"][0], "device": "orin-nx"}
    board["cells"], export["cells"] = [cell], [*export["cells"], cell]
    origin = side_of(board)["origin"]
    side_of(board)["origin"] = {"role": origin["role"], "backend": "onnxruntime", "emulated": False}
    sweep = swept([*rows, board], budget_ms=1e9)
    [there] = [group for group in sweep["fronts"] if group["device"] == "orin-nx"]
    [point] = there["points"]
    assert point["sha256"] == origin["sha256"]
    assert point["value"] == side_of(row_for(rows, "eval", "fp32"))["metrics"]["miou"]["value"]
    assert point["elsewhere"] == "cpu, onnxruntime"
    assert sweep["cells"][point["cell"]]["missing"] == []
    [best] = [best for best in sweep["best"] if best["device"] == "orin-nx"]
    assert "accuracy of the same file on cpu, onnxruntime" in best_line(best)
    assert best["commands"][-1] == "hiresvit-run tiny-64x96-fp32 x.png"
