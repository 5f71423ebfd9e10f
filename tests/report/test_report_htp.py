"""What a bundle's forms for the HTP say to people."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table

from hiresvit.report.context import context_report
from hiresvit.report.htp import htp_report

CHIP = {"name": "ar1", "title": "Snapdragon AR1 Gen 1", "part": "SSG2125P", "soc_model": 58, "arch": 73}


def form(**rows: float) -> dict[str, Any]:
    accuracy = {"metric": "mIoU", "data": "scenes", "images": 4, "rows": rows}
    return {"chip": CHIP, "emulated": None, "refused": [], "accuracy": accuracy}


def tables(items: list[RenderableType]) -> list[Table]:
    return [item for item in items if isinstance(item, Table)]


def test_accuracies_of_the_same_pictures_are_one_table() -> None:
    wide, narrow = form(fp32=80.0, a16w8=79.5), form(fp32=80.0, a16w8=79.5, a8w8=79.0)
    assert [table.row_count for table in tables(htp_report({"a16w8": wide, "a8w8": narrow}))] == [3]
    other = form(fp32=70.0, a16w8=69.0)
    assert [table.row_count for table in tables(htp_report({"a16w8": other, "a8w8": narrow}))] == [2, 3]


def test_a_context_of_which_little_is_known_is_shown() -> None:
    report: dict[str, Any] = {
        **dict.fromkeys(("soc_model", "arch", "vtcm_mb", "context_bytes", "peak_rss_bytes")),
        **{"chip": "ar1", "versions": {"qairt": None}, "nodes_htp": 0, "nodes_cpu": 0, "refused": [], "seconds": 0.0},
        **{"operators": {}, "arithmetic": {}, "macs": {"u8,s8": 0}, "departed": [], "warnings": []},
    }
    (table,) = tables(context_report(report))
    assert table.row_count == 11
