"""A sweep as parts of a page, and as tables for a terminal, from the plain values of `hiresvit.report.sweep`."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress

from rich.console import RenderableType

from hiresvit.report.blocks import NOT_MEASURED, Block, Cell, Chart, Code, Lines, Table, Tone, as_printed, cells, part
from hiresvit.report.front import Point
from hiresvit.report.plots import scatter_chart
from hiresvit.report.sweep import Found, pairs
from hiresvit.report.sweep_words import UNITS, best_line, some, span_words
from hiresvit.report.tables import Values, make_table, number_text

_TIMED_OUT = 124
_MOST_NAMES = 12  # of cells that a failure takes with it, in a table
_FRONT = (
    "on the front",
    ">ms",
    ">p99",
    ">accuracy %",
    ">interval",
    ">J a frame",
    "faster, and as accurate within the intervals",
)


def sweep_parts(sweep: Values) -> list[Block]:
    """The sections of a sweep, the answers to a budget first."""
    return [
        *part("The best within a budget", [block for answer in sweep["best"] for block in _best(answer)]),
        *(one for device in sweep["devices"] for one in part(device, _device(sweep, device))),
        *part("What failed", _failures(sweep["failures"])),
        *part("Where it ran", _workers(sweep["workers"])),
    ]


def sweep_report(sweep: Values) -> list[RenderableType]:
    """Fronts, failures and the answers to a budget, for a terminal."""
    items: list[RenderableType] = [_front_table(group) for group in sweep["fronts"]]
    if sweep["failures"]:
        rows = [(one["command"], one["device"], _code(one), one["why"], _taken(one)) for one in sweep["failures"]]
        items.append(make_table("failed", "command", "on", "exit code", "why", "takes with it", rows=rows))
    for answer in sweep["best"]:
        items += [f"\n{best_line(answer)}", *(f"  {line}" for line in answer["commands"])]
    return items


def _best(answer: Values) -> Iterator[Block]:
    yield Lines((best_line(answer),))
    if answer["commands"]:
        yield Code("\n".join(answer["commands"]))


def _device(sweep: Values, device: str) -> list[Block]:
    """A chart and its front for each task, yardstick and kind of time, then every cell."""
    own = [cell for cell in sweep["cells"] if cell["axes"]["device"] == device]
    groups = [group for group in sweep["fronts"] if group["device"] == device]
    blocks: list[Block] = []
    for group in groups:
        title = f"{group['metric']} against the median of {UNITS[group['mode']]}: {group['yardstick']}"
        shown = sorted(group["points"], key=lambda point: not point["front"])  # whose names come first
        points = [Point(p["name"], "", p["median_ms"], p["value"], p["low"], p["high"]) for p in shown]
        svg = scatter_chart(points, title=title, across=f"ms, {group['mode']}, median", up=f"{group['metric']}, %")
        words = "To the left and up is better; bars are 95 % intervals, the line joins what nothing is better than."
        blocks += [Chart(svg, f"{title}. {words}"), *as_printed([_front_table(group)])]
    if not groups:
        said = "No cell has both an accuracy and a time of the same file, so nothing can be set against anything."
        blocks.append(Lines((said,)))
    heads = ("cell", ">accuracy", ">time: p50 / p99 ms", ">J a frame", "measured on", "state")
    yardsticks = {one["yardstick"] for cell in own for one in cell["accuracies"]}
    rows = tuple(row for cell in own for row in _cell_rows(cell, named=len(yardsticks) > 1))
    title = f"every cell, accuracy on {next(iter(yardsticks))}" if len(yardsticks) == 1 else "every cell"
    return [*blocks, Table(title, heads, rows)]


def _front_table(group: Values) -> RenderableType:
    """What nothing is better than, the fastest first, and what else might be as accurate."""
    kept = [point for point in group["points"] if point["front"]]
    rows = [
        (
            point["name"] + (" (uncertain)" if point["warnings"] else ""),
            f"{point['median_ms']:.2f}",
            number_text(point["p99_ms"], ".2f"),
            f"{point['value']:.2f}" + (f" ({point['elsewhere']})" if point["elsewhere"] else ""),
            span_words(point),
            number_text(point["joules_per_frame"], ".3g"),
            some(point["faster"], 1),
        )
        for point in kept
    ]
    title = f"{group['device']}: {group['metric']} against the time of {UNITS[group['mode']]}"
    return make_table(f"{title}, {group['task']}, {group['yardstick']}", *_FRONT, rows=rows)


def _cell_rows(cell: Values, *, named: bool) -> Iterator[tuple[Cell, ...]]:
    """A row for each accuracy and time of a cell, or one that says why there is none; ``named`` shows yardsticks."""
    measured = list(pairs(cell)) or [(None, None)]
    for number, (accuracy, time) in enumerate(measured):
        ran = ", ".join(dict.fromkeys(_ran(one) for one in (time, accuracy) if one)) or NOT_MEASURED
        version = ", ".join(dict.fromkeys(f"hiresvit {one['version']}" for one in (time, accuracy) if one))
        when = max((one["started"][:16] for one in (time, accuracy) if one), default="")
        yield cells(
            Cell(cell["name"] if not number else f"{cell['name']}, again"),
            _accuracy_cell(accuracy, named=named),
            _time_cell(time),
            None if not time or time["joules_per_frame"] is None else _energy_cell(time),
            Cell(ran, ", ".join(filter(None, (version, when)))),
            _state_cell(cell if not number else {"failed": (), "missing": (), "verified": ()}, time),
        )


def _ran(one: Found) -> str:
    return ", ".join(filter(None, (one["worker"], one.get("machine"))))


def _accuracy_cell(found: Found | None, *, named: bool) -> Cell:
    if found is None:
        return Cell(NOT_MEASURED)
    where = f"measured on {found['elsewhere']}" if found["elsewhere"] else ""
    under = [span_words(found), found["yardstick"] if named else "", where, "" if found["complete"] else "in part"]
    return Cell(f"{found['value']:.2f} % {found['metric']}", ", ".join(filter(None, under)))


def _time_cell(found: Found | None) -> Cell:
    if found is None:
        return Cell(NOT_MEASURED)
    if found["median_ms"] is None:
        return Cell(NOT_MEASURED, "an emulator ran it, which has no latency" if found["emulated"] else "")
    tone: Tone = "bad" if found["throttled"] else "doubtful" if found["warnings"] else ""
    p99 = NOT_MEASURED if found["p99_ms"] is None else f"{found['p99_ms']:.2f}"
    return Cell(f"{found['median_ms']:.2f} / {p99}", UNITS[found["mode"]], tone)


def _energy_cell(found: Found) -> Cell:
    return Cell(f"{found['joules_per_frame']:.3g}", "" if found["watts"] is None else f"{found['watts']:.1f} W")


def _state_cell(cell: Values, time: Found | None) -> Cell:
    """What failed, what is missing, or that all is there, and what bench says of the time."""
    failed = [f"{one['command']} failed ({_code(one)})" for one in cell["failed"]]
    missing = [f"no {step}" for step in cell["missing"]]
    under = [one["why"] for one in cell["failed"]]
    under += [f"throttled: {why}" for why in time["throttled"]] + time["warnings"] if time else []
    if cell["verified"]:
        under.append(f"verified on {some([one['worker'] for one in cell['verified']], _MOST_NAMES)}")
    tone: Tone = "bad" if failed else "doubtful" if missing else ""
    return Cell(", ".join([*failed, *missing]) or "measured", "; ".join(under), tone)


def _failures(failures: Sequence[Values]) -> list[Block]:
    if not failures:
        return []
    rows = [
        cells(
            Cell(one["command"], one["line"]),
            Cell(one["device"], f"{one['worker']}, hiresvit {one['version']}"),
            Cell(_code(one), f"begun {one['attempts']} times" if one["attempts"] > 1 else "", "bad"),
            Cell(one["why"]),
            Cell(_taken(one)),
        )
        for one in failures
    ]
    return [Table("", ("command", "on", "exit code", "why", "takes with it"), tuple(rows))]


def _code(one: Values) -> str:
    """An exit code, with what it means where it is a signal or the end of a worker's patience."""
    code = one["exit_code"]
    with suppress(ValueError):
        if code < 0:
            return f"{code}, {signal.Signals(-code).name}"
    return f"{code}, out of time" if code == _TIMED_OUT else str(code)


def _taken(failure: Values) -> str:
    """Which cells, and how many, have nothing because of a failure."""
    return (
        f"{len(failure['cells'])}: {some(failure['cells'], _MOST_NAMES)}"
        if len(failure["cells"]) > 1
        else failure["cells"][0]
    )


def _workers(workers: Sequence[Values]) -> list[Block]:
    rows = [
        cells(
            one["host"],
            one["version"],
            str(one["commands"]),
            ", ".join(one["devices"]),
            None if one["clock_off_s"] is None else f"{one['clock_off_s']:+.1f}",
        )
        for one in workers
    ]
    return [Table("", ("machine", "hiresvit", ">commands", "classes", ">clock off, s"), tuple(rows))]
