"""What a sweep's page says first: cautions, the numbers at a glance, and the answers to a budget in a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hiresvit.report.tables import Values, counted

UNITS = {"frame": "a frame", "call": "a call", "stream": "a frame of a stream", "offline": "a batch"}
_CLOCK_S = 2.0  # a clock that is further off is said


def sweep_cautions(sweep: Values) -> Iterator[dict[str, str]]:
    """Alarms, warnings and notes as `hiresvit.report.cautions` has them, one for each kind of trouble."""
    about = ", ".join(one["file"] for one in sweep["files"])
    cells = sweep["cells"]
    if failures := sweep["failures"]:
        hit = {name for failure in failures for name in failure["cells"]}
        text = f"{counted(len(failures), 'command')} failed, in {len(hit)} of {counted(len(cells), 'cell')}: see below"
        yield {"level": "alarm", "about": about, "text": text}
    for file in (one["file"] for one in sweep["files"] if one["cut"]):
        yield {"level": "warning", "about": file, "text": "its last line was cut off and is left out"}
    kinds: tuple[tuple[str, str, Callable[[Values], Any]], ...] = (
        ("alarm", "throttled while they were measured", lambda time: time["throttled"]),
        ("warning", "have uncertain times (what bench says stands beside them)", lambda time: time["warnings"]),
        ("warning", "ran on an emulator: their answers count, no time is shown", lambda time: time["emulated"]),
        (
            "warning",
            "were timed on a CPU, which imitates FP16 and INT8: their times say nothing about a GPU",
            lambda time: time["imitated"] and not time["emulated"],
        ),
    )
    for level, text, wrong in kinds:
        names = [cell["name"] for cell in cells if any(wrong(time) for time in cell["times"])]
        if names:
            yield {"level": level, "about": about, "text": f"{_of(names, len(cells))} {text}"}
    unfinished = [cell["name"] for cell in cells if any(not one["complete"] for one in cell["accuracies"])]
    if unfinished:
        yield {"level": "warning", "about": about, "text": f"{_of(unfinished, len(cells))} were evaluated in part only"}
    fresh = list(dict.fromkeys(cell["axes"]["model"] for cell in cells if cell["trained"] is False))
    if fresh:
        text = f"nobody trained the weights of {', '.join(fresh)}: no accuracy of them means anything"
        yield {"level": "warning", "about": about, "text": text}
    yield from _machines(sweep, about)


def _machines(sweep: Values, about: str) -> Iterator[dict[str, str]]:
    versions = Counter(one["version"] for one in sweep["workers"])
    if len(versions) > 1:
        text = f"measured by several versions of hiresvit: {', '.join(versions)}"
        yield {"level": "warning", "about": about, "text": text}
    for device in sweep["devices"]:
        times = [time for cell in sweep["cells"] if cell["axes"]["device"] == device for time in cell["times"]]
        kinds = {" in power mode ".join(filter(None, (time["kind"], time["power_mode"]))) for time in times} - {""}
        if len(kinds) > 1:
            text = f"the class {device} is of unlike machines: {', '.join(sorted(kinds))}; its times are not comparable"
            yield {"level": "warning", "about": about, "text": text}
    for one in sweep["workers"]:
        if abs(one["clock_off_s"] or 0.0) > _CLOCK_S:
            text = f"its clock was {one['clock_off_s']:+.0f} s off; durations are not affected"
            yield {"level": "note", "about": one["host"], "text": text}
        if one["again"]:
            text = f"{counted(one['again'], 'command')} had to be begun again, since a worker was lost"
            yield {"level": "note", "about": one["host"], "text": text}
    if lacking := [cell["name"] for cell in sweep["cells"] if cell["missing"] and not cell["failed"]]:
        text = f"{_of(lacking, len(sweep['cells']))} are not finished: `hiresvit sweep` with the same plan goes on"
        yield {"level": "note", "about": about, "text": text}


def some(names: Sequence[str], most: int) -> str:
    """So many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _of(names: Sequence[str], whole: int) -> str:
    return f"{len(names)} of {counted(whole, 'cell')}"


def sweep_cards(sweep: Values) -> Iterator[dict[str, Any]]:
    """The numbers at a glance."""
    cells = sweep["cells"]
    done = [cell for cell in cells if not cell["missing"] and not cell["failed"]]
    detail = f"{counted(len(sweep['failures']), 'command')} failed; classes: {', '.join(sweep['devices'])}"
    yield {"what": "cells done", "value": f"{len(done)} of {len(cells)}", "detail": detail}
    if sweep["best"]:
        for answer in sweep["best"]:
            point = answer["point"]
            value = f"{point['value']:.2f} % {answer['metric']}" if answer["fits"] else None
            what = f"best within {answer['budget_ms']:g} ms on {answer['device']}"
            detail = f"{point['name']}, {point_words(point, answer['mode'])}" if answer["fits"] else best_line(answer)
            yield {"what": what, "value": value, "detail": detail}
        return
    for device in sweep["devices"]:
        group = next((group for group in sweep["fronts"] if group["device"] == device), None)
        what = f"most accurate on {device}"
        if group is None:
            yield {"what": what, "value": None, "detail": "no cell has both an accuracy and a time of the same file"}
            continue
        top = max(group["points"], key=lambda point: (point["value"], -point["median_ms"]))
        detail = f"{top['name']}, {point_words(top, group['mode'])}; {group['yardstick']}"
        yield {"what": what, "value": f"{top['value']:.2f} % {group['metric']}", "detail": detail}


def point_words(point: Values, mode: str) -> str:
    """A point's time in words."""
    tail = "" if point["p99_ms"] is None else f", p99 {point['p99_ms']:.2f} ms"
    return f"{point['median_ms']:.2f} ms {UNITS[mode]}{tail}"


def span_words(found: Values) -> str:
    """``68.00 to 73.10``, "" without an interval."""
    if found["low"] is None or found["high"] is None:
        return ""
    return f"{found['low']:.2f} to {found['high']:.2f}"


def best_line(answer: Values) -> str:
    """The answer to a budget."""
    device, point, budget = answer["device"], answer["point"], f"{answer['budget_ms']:g} ms"
    if point is None:
        return (
            f"{device}: no cell has both an accuracy and a time of the same file, so none is the best within {budget}"
        )
    span = span_words(point)
    accuracy = f"{point['value']:.2f} % {answer['metric']}{f' ({span})' if span else ''}"
    found = f"{point['name']}, {accuracy}, {point_words(point, answer['mode'])}"
    if not answer["fits"]:
        return f"{device}: nothing takes at most {budget} {UNITS[answer['mode']]}; the nearest is {found}"
    doubts = [f"accuracy of the same file on {point['elsewhere']}"] if point["elsewhere"] else []
    doubts += [f"as accurate within the intervals, and faster: {some(point['faster'], 3)}"] if point["faster"] else []
    if point["p99_ms"] is not None and point["p99_ms"] > answer["budget_ms"]:
        doubts.append("its p99 is over the budget")
    doubts += point["warnings"]
    return "; ".join([f"{device}: the most accurate within {budget} is {found}; {answer['yardstick']}", *doubts])
