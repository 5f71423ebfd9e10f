"""What a check prints: from made-up documents, for people."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hiresvit.report.check import _first, _shares, check_report, chip_lines
from hiresvit.report.tables import render


def finding(rule: str, what: str, why: str, *nodes: str, level: str = "illegal") -> dict[str, Any]:
    message = f"{what}: {why}"
    return {"rule": rule, "level": level, "nodes": list(nodes), "count": len(nodes), "what": what, "message": message}


def document(*rows: tuple[str, bool | None, list[dict[str, Any]]], **rest: Any) -> dict[str, Any]:
    targets = [
        {"target": name, "title": f"TensorRT of {name}", "legal": legal, "findings": findings, "compiler": None}
        for name, legal, findings in rows
    ]
    return {"graph": "g.onnx", "targets": targets, "compiled": None, "refused": None, "skipped": None, **rest}


def lines(found: dict[str, Any]) -> list[str]:
    return render(check_report(found)).splitlines()


def test_findings_that_differ_in_whom_they_are_about_are_one() -> None:
    rows = [(name, False, [finding("form", "Foo", f"TensorRT of {name} lacks it", "n")]) for name in "ab"]
    end = ["    Foo [n]", "    -> TensorRT lacks it"]
    assert lines(document(*rows))[-4:] == ["illegal", "  form (every target, 1 node)", *end]
    assert lines(document(*rows, ("c", True, [])))[-3:] == ["  form (a, b, 1 node)", *end]
    assert lines(document(rows[0]))[-3:] == ["  form (a, 1 node)", "    Foo [n]", "    -> TensorRT of a lacks it"]


def test_findings_that_differ_are_two() -> None:
    rows = [(name, False, [finding("opset", f"not up to {limit}", "so")]) for name, limit in (("a", 20), ("b", 21))]
    assert lines(document(*rows))[-7:] == [
        "illegal",
        *("  opset (a)", "    not up to 20", "    -> so"),
        *("  opset (b)", "    not up to 21", "    -> so"),
    ]


def test_findings_of_a_kind_are_one_paragraph_and_say_how_many() -> None:
    nodes = [f"n{number}" for number in range(5)]
    found = [finding("operator", f"operator Foo{number}", "do without", *nodes) for number in range(9)]
    assert lines(document(("a", False, found)))[-9:] == [
        "  operator (a, 45 nodes)",
        *(f"    operator Foo{number} [n0, n1, n2 and 2 more]" for number in range(6)),
        "    and 3 more of the kind: see --json",
        "    -> do without",
    ]


@pytest.mark.parametrize("columns", [0, 40, 80])
def test_no_line_is_longer_than_the_page_but_for_a_name(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign graph's findings: hundreds of nodes with names of a hundred signs, and a builder that says much."""
    if columns:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
    width = columns or 120
    names = [f"/model/{'layer/' * 20}node_{number}" for number in range(300)]
    rows = [("a", False, [finding("form", "what is there " * 20, "what to do about it " * 20, *names)])]
    found = document(*rows, refused="the builder says so " * 40, skipped="there is no reason " * 30)
    printed = re.sub(r"\x1b\[[\d;]*m", "", render(check_report(found))).splitlines()
    body = printed[printed.index("illegal") :]
    assert max(len(line) for line in body if "/model/" not in line) <= width
    assert [line.strip(" [,") for line in body if "/model/" in line][:2] == names[:2]
    assert max(map(len, printed[: printed.index("illegal")])) <= width


def test_products_of_nothing_are_none() -> None:
    assert _shares({"fp32": 0}) == "none"
    assert _shares({"fp16": 3, "fp32": 1}) == "75.0 % fp16, 25.0 % fp32"


def test_what_tensorrt_rtx_refuses_is_said_with_what_it_means_for_whom() -> None:
    found = document(("a", None, []), ("rtx", False, []), refused="g.onnx: it refuses node n")
    table = [row.split() for row in lines(found)]
    assert [row[4] for row in table if row[:1] in (["a"], ["rtx"])] == ["unknown", "ILLEGAL"]
    assert lines(found)[-1] == "TensorRT-RTX makes no plan of it: g.onnx: it refuses node n"


def test_what_was_not_asked_is_said() -> None:
    assert lines(document(("a", True, []), skipped="not built: so"))[-1] == "not built: so"


def test_of_many_names_and_warnings_a_few_are_shown() -> None:
    names = [f"MatMul '/decoder/layers.{number}/cross_attn/MatMul'" for number in range(80)]
    assert _first(names).endswith("layers.2/cross_attn/MatMul' and 77 more: see --json")
    report = {"nodes_htp": 1, "nodes_cpu": 0, "context_bytes": 0, "arithmetic": {}, "warnings": ["slow"] * 50}
    judged = {"report": report, "skipped": None, "died": None}
    said = chip_lines({"target": "ar1", "compiler": judged})
    assert (len(said), said[-1]) == (8, "  and 44 warnings more: see --json")
