"""What a check prints: from made-up documents, for people."""

from __future__ import annotations

from typing import Any

from hiresvit.report.check import _shares, check_report
from hiresvit.report.tables import render


def finding(rule: str, message: str, *nodes: str, level: str = "illegal") -> dict[str, Any]:
    return {"rule": rule, "level": level, "nodes": list(nodes), "count": len(nodes), "message": message}


def document(*rows: tuple[str, bool | None, list[dict[str, Any]]], **rest: Any) -> dict[str, Any]:
    targets = [
        {"target": name, "title": f"TensorRT of {name}", "legal": legal, "findings": findings}
        for name, legal, findings in rows
    ]
    return {"graph": "g.onnx", "targets": targets, "compiled": None, "refused": None, "skipped": None, **rest}


def lines(found: dict[str, Any]) -> list[str]:
    return render(check_report(found)).splitlines()


def test_findings_that_differ_in_whom_they_are_about_are_one() -> None:
    rows = [(name, False, [finding("form", f"TensorRT of {name} does not take it", "n")]) for name in "ab"]
    assert lines(document(*rows))[-1] == "illegal, every target (form): TensorRT does not take it [n]"
    assert lines(document(*rows, ("c", True, [])))[-1] == "illegal, a, b (form): TensorRT does not take it [n]"
    assert lines(document(rows[0]))[-1] == "illegal, a (form): TensorRT of a does not take it [n]"


def test_findings_that_differ_are_two() -> None:
    rows = [(name, False, [finding("opset", f"not up to {limit}")]) for name, limit in (("a", 20), ("b", 21))]
    assert lines(document(*rows))[-2:] == [
        "illegal, a (opset): not up to 20",
        "illegal, b (opset): not up to 21",
    ]


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
