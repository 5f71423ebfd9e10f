"""`hiresvit report` on the file of a sweep, whose rows our own commands wrote of a tiny bundle."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from hiresvit.cli import main
from hiresvit.report.documents import check_page
from hiresvit.report.sweep import make_sweep
from hiresvit.workflows.report import is_sweep, read_sweep


def page_of(path: Path, *options: str) -> Any:
    target = path.parent / "page.json"
    assert main(["report", str(path), *options, "-o", str(target), "--force"]) == 0
    page = json.loads(target.read_text())
    check_page(page)
    return page


def copied(sweep_file: Path, tmp_path: Path) -> Path:
    target = tmp_path / "again.jsonl"
    target.write_bytes(sweep_file.read_bytes())
    return target


def test_cells_have_what_their_documents_say(sweep_file: Path, tmp_path: Path) -> None:
    sweep = page_of(copied(sweep_file, tmp_path))["sweep"]
    rows = read_sweep(sweep_file)["rows"]
    assert [cell["axes"]["precision"] for cell in sweep["cells"]] == ["fp32", "fp16", "int8"]
    for cell in sweep["cells"][:2]:
        own = [row for row in rows if row["cells"][0] == cell["axes"] and len(row["cells"]) == 1]
        [side] = [s for row in own if row["command"] == "bench" for s in row["document"]["latency"]["sides"].values()]
        [metrics] = [row["document"]["accuracy"]["sides"][0]["metrics"] for row in own if row["command"] == "eval"]
        assert [time["median_ms"] for time in cell["times"]] == [side["median_ms"]]
        assert [one["value"] for one in cell["accuracies"]] == [metrics["miou"]["value"]]
        assert cell["missing"] == cell["failed"] == []
        assert cell["verified"]
    [group] = sweep["fronts"]
    assert [(group["device"], group["task"], group["mode"])] == [("cpu", "segment", "call")]
    assert {point["cell"] for point in group["points"]} == {0, 1}


def test_what_failed_says_why_and_what_it_takes_with_it(sweep_file: Path, tmp_path: Path, cli: Cli) -> None:
    path = copied(sweep_file, tmp_path)
    sweep = page_of(path)["sweep"]
    [failure] = sweep["failures"]
    assert (failure["command"], failure["exit_code"]) == ("export", -9)
    assert failure["why"] == "killed while it wrote int8.onnx"
    assert failure["cells"] == ["tiny 64x96 int8 on cpu"]
    lost = sweep["cells"][2]
    assert lost["missing"] == ["verify", "eval", "bench"]
    assert lost["times"] == lost["accuracies"] == []
    result = cli("report", path, "-o", tmp_path / "page.md")
    assert "alarm: again.jsonl: 1 command failed, in 1 of 3 cells" in result.out
    assert "-9, SIGKILL" in result.out
    assert "-9, SIGKILL" in (tmp_path / "page.md").read_text()


def test_the_best_within_a_budget_comes_with_commands_that_parse(sweep_file: Path, tmp_path: Path, cli: Cli) -> None:
    path = copied(sweep_file, tmp_path)
    result = cli("report", path, "--budget-ms", "100000", "--device", "cpu", "--json", "-o", tmp_path / "page.html")
    [best] = json.loads(result.out)["report"]["sweep"]["best"]
    assert best["fits"]
    top = max(page_of(path)["sweep"]["fronts"][0]["points"], key=lambda point: (point["value"], -point["median_ms"]))
    assert best["point"]["name"] == top["name"]
    words = [shlex.split(line) for line in best["commands"]]
    assert [line[:2] for line in words] == [["hiresvit", name] for name in ("export", "eval", "bench")]
    name = words[0][words[0].index("-o") + 1]
    assert all(line[2] == name for line in words[1:])
    assert not any("{" in word or word == "--json" for line in words for word in line)
    for line in best["commands"]:
        assert line.replace("&", "&amp;") in (tmp_path / "page.html").read_text()


def test_no_cell_within_a_budget_names_the_nearest_and_no_commands(sweep_file: Path, tmp_path: Path, cli: Cli) -> None:
    path = copied(sweep_file, tmp_path)
    result = cli("report", path, "--budget-ms", "0.0001", "-o", tmp_path / "page.html")
    [line] = [line for line in result.out.splitlines() if line.startswith("cpu: nothing")]
    assert "at most 0.0001 ms a call; the nearest is tiny 64x96" in line
    assert "hiresvit export" not in result.out
    assert result.code == 0


BAD = {
    "another class": (("--budget-ms", "5", "--device", "orin-nx"), "the sweep has cpu"),
    "a class without a budget": (("--device", "cpu"), "give both"),
    "no time": (("--budget-ms", "-3"), "give milliseconds"),
    "not a number": (("--budget-ms", "nan"), "give milliseconds"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_budget_that_cannot_be_answered_is_refused(what: str, sweep_file: Path, tmp_path: Path, cli: Cli) -> None:
    options, words = BAD[what]
    result = cli("report", sweep_file, *options, "-o", tmp_path / "page.html")
    assert result.code == 2
    assert words in result.err
    assert not (tmp_path / "page.html").exists()


def test_a_budget_needs_a_sweep(tiny_bundle: Path, tmp_path: Path, cli: Cli) -> None:
    result = cli("report", tiny_bundle, "--budget-ms", "5", "-o", tmp_path / "page.html")
    assert result.code == 2
    assert "hiresvit sweep" in result.err


def test_a_last_line_that_is_cut_is_left_out_and_said(sweep_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes(sweep_file.read_bytes()[:-40])
    page = page_of(path)
    assert page["sweep"]["files"] == [
        {"file": "cut.jsonl", "rows": len(read_sweep(sweep_file)["rows"]) - 1, "cut": True}
    ]
    assert any("cut off" in line["text"] for line in page["warnings"])


def test_a_sweep_is_known_by_its_first_line(sweep_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "results.txt"
    other.write_bytes(sweep_file.read_bytes())
    assert is_sweep(other)
    (tmp_path / "result.json").write_text('{"schema_version": 1, "latency": {}}')
    assert not is_sweep(tmp_path / "result.json")
    assert page_of(other)["sweep"]["files"][0]["file"] == "results.txt"


def damaged(change: Any) -> Any:
    def make(lines: list[dict[str, Any]]) -> str:
        change(lines)
        return "\n".join(json.dumps(line) for line in lines) + "\n"

    return make


DAMAGED = {
    "no row": (lambda _: "", 1, "no result of a sweep yet"),
    "a line of something else": (lambda lines: json.dumps(lines[0]) + "\n{}\n", 7, ":2 is no result of a sweep"),
    "a newer version": (damaged(lambda lines: lines[0].update(schema_version=2)), 7, "version 1"),
    "a cell without axes": (damaged(lambda lines: lines[0].update(cells=[{"model": 3}])), 7, ":1 is no result"),
    "too deep": (lambda _: '{"key": ' + "[" * 100_000 + "\n", 7, ":1 is no result of a sweep"),
    "a document that is none": (
        damaged(lambda lines: lines[-1].update(document={"schema_version": 1, "latency": 3}, exit_code=0)),
        7,
        "latency must be object",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_sweep_is_said_in_a_line(what: str, sweep_file: Path, tmp_path: Path, cli: Cli) -> None:
    make, code, words = DAMAGED[what]
    path = tmp_path / "bad.jsonl"
    path.write_text(make([json.loads(line) for line in sweep_file.read_text().splitlines()]))
    result = cli("report", path, "-o", tmp_path / "page.html")
    assert result.code == code
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_a_sweep_can_stand_beside_a_bundle(sweep_file: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.json"
    assert main(["report", str(tiny_bundle), str(sweep_file), "-o", str(target)]) == 0
    page = json.loads(target.read_text())
    assert len(page["bundles"]) == 1
    assert len(page["sweep"]["cells"]) == 3
    assert page["sweep"] == make_sweep([{"file": sweep_file.name, **read_sweep(sweep_file)}])
