"""A page as blocks under headings, from the plain values of `hiresvit.report.page`: what is asked first is first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiresvit.report.blocks import (
    NOT_MEASURED,
    Block,
    Cell,
    Chart,
    Lines,
    Part,
    Table,
    cells,
    part,
)
from hiresvit.report.bundle_parts import bundle_part
from hiresvit.report.documents import MODES
from hiresvit.report.front import Point
from hiresvit.report.page import left_out, runs_on
from hiresvit.report.plots import scatter_chart
from hiresvit.report.result_parts import Pictures, result_parts
from hiresvit.report.sweep_parts import sweep_parts
from hiresvit.report.sweep_words import UNITS
from hiresvit.report.tables import Values

_STATES = {"other": "ANOTHER VERSION", "apart": "in no bundle here"}


def page_title(page: Values) -> str:
    """What a page is about."""
    swept = [one["file"] for one in page["sweep"]["files"]] if page["sweep"] else []
    names = swept + [bundle["name"] for bundle in page["bundles"]] or [result["file"] for result in page["results"]]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def page_parts(page: Values, pictures: Pictures) -> list[Part]:
    """The sections of a page."""
    found: list[Block] = [
        *(sweep_parts(page["sweep"]) if page["sweep"] else ()),
        *part("One table: accuracy, time and energy of the same file", _table(page)),
        *part("Accuracy against time", _pareto(page["pareto"], left_out(page))),
        *result_parts(page, pictures),
        *(bundle_part(bundle) for bundle in page["bundles"]),
    ]
    return [one for one in found if isinstance(one, Part)]


def _table(page: Values) -> list[Block]:
    rows: Sequence[dict[str, Any]] = page["rows"]
    modes = [mode for mode in MODES if any(mode in row["modes"] for row in rows)] or ["frame"]
    heads = [f">{mode}: p50 / p99 ms" for mode in modes]
    columns = ("file, sha256", "runs on", ">accuracy", *heads, ">J a frame")
    yardsticks = {row["yardstick"] for row in rows if row["yardstick"]}
    body = [
        cells(
            _file_cell(row, left_out(page)),
            _runner_cell(row),
            _accuracy_cell(row, named=len(yardsticks) > 1),
            *(_time_cell(row["modes"].get(mode)) for mode in modes),
            _energy_cell(row),
        )
        for row in rows
    ]
    if not body:
        return []
    said = (
        "A row is one file, known by its sum: its accuracy, times and energy are of these very bytes, on one machine."
        " Times are of the host's clock, copies included. Intervals are of 95 %, by a bootstrap over the pictures."
    )
    title = f"accuracy on {next(iter(yardsticks))}" if len(yardsticks) == 1 else ""
    return [Table(title, columns, tuple(body)), Lines((said,))]


def _file_cell(row: Values, alone: str) -> Cell:
    """What a row is called, without the name of a bundle that is ``alone``."""
    origin = row["origin"]
    under = ", ".join(filter(None, (_STATES.get(row["state"]), origin["file"], (origin["sha256"] or "no file")[:12])))
    return Cell(row["name"].removeprefix(alone), under, "bad" if row["state"] == "other" else "")


def _runner_cell(row: Values) -> Cell:
    words, _, threads = runs_on(row["origin"]).partition(", ")
    return Cell(words or NOT_MEASURED, ", ".join(filter(None, (threads, row["machine"]))))


def _accuracy_cell(row: Values, *, named: bool) -> Cell:
    found = row["accuracy"]
    if not found:
        return Cell(NOT_MEASURED)
    under = [] if found["low"] is None else [f"{found['low']:.2f} to {found['high']:.2f}"]
    return Cell(
        f"{found['value']:.2f} % {found['metric']}", ", ".join([*under, *([row["yardstick"]] if named else [])])
    )


def _time_cell(measured: Values | None) -> Cell:
    if not measured:
        return Cell(NOT_MEASURED)
    p99 = NOT_MEASURED if measured["p99_ms"] is None else f"{measured['p99_ms']:.2f}"
    rate = "" if measured["throughput"] is None else f"{measured['throughput']:.1f} pictures/s"
    return Cell(f"{measured['median_ms']:.2f} / {p99}", rate)


def _energy_cell(row: Values) -> Cell:
    for mode in ("frame", "stream", "offline", "call"):
        measured = row["modes"].get(mode) or {}
        if measured.get("joules_per_frame") is not None:
            watts = measured["watts"]
            under = f"of {UNITS[mode]}" + ("" if watts is None else f", {watts:.1f} W")
            return Cell(f"{measured['joules_per_frame']:.3g}", under)
    return Cell(NOT_MEASURED)


def _pareto(groups: Sequence[Values], alone: str) -> list[Block]:
    """A chart for each yardstick and mode with something to compare; the line joins what nothing is better than."""
    blocks: list[Block] = []
    for group in groups:
        points = [
            Point(p["name"].removeprefix(alone), p["machine"], p["latency_ms"], p["value"], p["low"], p["high"])
            for p in group["points"]
        ]
        title = (
            f"{group['metric']} against the median of {UNITS.get(group['mode'], group['mode'])}: {group['yardstick']}"
        )
        if len(points) < 2:
            continue
        across = f"ms, {group['mode']}, median"
        svg = scatter_chart(points, title=title, across=across, up=f"{group['metric']}, %")
        blocks.append(Chart(svg, f"{title}. To the left and up is better; bars are 95 % intervals."))
    if groups and not blocks:
        return [
            Lines(("Only one file has both an accuracy and a time of one kind: there is nothing to set beside it.",))
        ]
    return blocks
