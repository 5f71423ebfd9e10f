"""What a sweep found, as plain values: its cells, what failed, the fronts, and the best within a budget.

A cell's accuracy and its time go together only where both were measured of the same bytes, by their sha256. For a board
that has only a program of ours for times, the accuracy of the same bytes elsewhere stands in, and is marked.
A front is of one device class, task, yardstick and kind of time.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hiresvit.errors import UsageError
from hiresvit.report.accuracy import WORDS
from hiresvit.report.front import Point, alike, best_within, front
from hiresvit.report.page import machine_of, yardstick
from hiresvit.report.tables import Values

MODES = ("frame", "call", "stream", "offline")
"""Kinds of time, the one that is asked for first first."""
MAKERS = ("export", "build")
PROGRAM = "hiresvit-run"  # of cpp/: what times a network on a board that has nothing else
_STEPS = ("export", "build", "verify", "eval", "bench")
_NAMELESS = re.compile(r"[^A-Za-z0-9_.-]+")

Found = dict[str, Any]
_Key = tuple[tuple[str, str], ...]  # a cell's axes and their values, sorted


def make_sweep(
    sources: Sequence[Values], *, budget_ms: float | None = None, device: str | None = None
) -> dict[str, Any]:
    """The ``sweep`` of a page, of `hiresvit.report.sweep_schema`.

    ``sources`` have the ``file``, whether its last line was ``cut``, and its ``rows``: those of
    `hiresvit.workflows.sweep.store.Row`, whose documents were checked. Raises UsageError for a budget that is no time,
    and for a ``device`` that is none of the sweep's classes.
    """
    if budget_ms is not None and not 0 < budget_ms < math.inf:
        raise UsageError(f"--budget-ms {budget_ms}: give milliseconds, more than 0")
    cells = _cells(sources)
    named = _named_axes(cells)
    for cell in cells:
        cell["name"] = cell_name(cell["axes"], named)
    devices = list(dict.fromkeys(cell["axes"]["device"] for cell in cells))
    if device is not None and device not in devices:
        raise UsageError(f"--device {device}: the sweep has {', '.join(devices)}")
    fronts = _fronts(cells)
    best: list[Found] = []
    for one in devices if budget_ms is not None else ():
        if device in (None, one):
            best += _best(one, fronts, float(budget_ms or 0.0), cells, sources)
    return {
        "files": [{"file": one["file"], "rows": len(one["rows"]), "cut": one["cut"]} for one in sources],
        "devices": devices,
        "cells": cells,
        "failures": [failure for source in sources for failure in _failures(source, named)],
        "workers": _workers(sources),
        "fronts": fronts,
        "best": best,
    }


def cell_name(axes: Values, named: Iterable[str]) -> str:
    """A cell for people, by the axes that are named."""
    return " ".join(filter(None, (axes[axis] for axis in named)))


def _named_axes(cells: Iterable[Values]) -> list[str]:
    """What cells are called by: not by a contract or a runner that all of them have."""
    differ = [axis for axis in ("contract", "runner") if len({cell["axes"][axis] for cell in cells}) > 1]
    return ["model", "size", "precision", *differ]


def _cells(sources: Sequence[Values]) -> list[Found]:
    found: dict[_Key, Found] = {}
    for source in sources:
        asked = {row["command"] for row in source["rows"]} - {"export"}
        had: dict[_Key, set[str]] = {}
        for row in source["rows"]:
            for axes in row["cells"]:
                key = tuple(sorted(axes.items()))
                had.setdefault(key, set()).update(asked if row["line"].startswith(PROGRAM) else {row["command"]})
                _take(found.setdefault(key, _empty(axes)), row)
        for key, commands in had.items():
            wanted = asked if found[key]["axes"]["runner"] == "tensorrt" else asked - {"build"}
            lacking = [step for step in _STEPS if step in wanted - commands] if wanted else ["eval or bench"]
            found[key]["missing"] += [step for step in lacking if step not in found[key]["missing"]]
    cells = list(found.values())
    _stand_in(cells)
    return cells


def _stand_in(cells: Sequence[Found]) -> None:
    """Name the file of a time that a board's program took, and give it the accuracy that another cell has of it.

    It is the export's file with that role, if all exports of the cell have the same one.
    """
    known: dict[str, list[Found]] = {}
    for cell in cells:
        where = f"{cell['axes']['device']}, {cell['axes']['runner']}"
        for one in cell["accuracies"]:
            known.setdefault(one["sha256"], []).append({**one, "elsewhere": where})
    for cell in cells:
        exported = cell.pop("files")
        for time in cell["times"]:
            role = time.pop("role")
            sums = {files[role] for files in exported if role in files}
            if len(sums) == 1:
                [time["sha256"]] = sums
                cell["accuracies"] += [one for one in known.get(time["sha256"], ()) if one not in cell["accuracies"]]


def _empty(axes: Values) -> Found:
    lists: Found = {key: [] for key in ("accuracies", "times", "failed", "missing", "verified", "files")}
    return {"name": "", "axes": dict(axes), "trained": None, **lists}


def _take(cell: Found, row: Values) -> None:
    """What a row says of one of its cells."""
    ran = {key: row[key] for key in ("worker", "version", "started")}
    document = row["document"] or {}
    why = reason(row)
    if why is not None:
        cell["failed"].append({"command": row["command"], "exit_code": row["exit_code"], "why": why, **ran})
    elif row["command"] == "export":
        cell["trained"] = _weights(document).get("sha256") is not None
        files = (document.get("manifest") or {}).get("files", [])
        cell["files"].append({file["role"]: file["sha256"] for file in files})
    elif row["command"] == "verify":
        cell["verified"].append(ran)
    elif row["command"] == "eval":
        cell["accuracies"] += [{**one, **ran} for one in _accuracy(document["accuracy"])]
    elif row["command"] == "bench":
        side = next(iter(document["latency"]["sides"].values()))
        role = (side.get("origin") or {}).get("role") if row["line"].startswith(PROGRAM) else None
        cell["times"].append({**_time(document["latency"]), "role": role, **ran})


def _weights(document: Values) -> Values:
    """What an export's document says of the weights."""
    found: Values = (document.get("manifest") or {}).get("weights") or {}
    return found


def reason(row: Values) -> str | None:
    """Why a command has no result, in words; None for one that has."""
    if row["exit_code"]:
        return str(row["last_line"]) or "it said nothing"
    document = row["document"] or {}
    if row["command"] == "eval":
        sides = (document.get("accuracy") or {}).get("sides") or [None]
    elif row["command"] == "bench":
        sides = list((document.get("latency") or {}).get("sides", {}).values()) or [None]
    else:
        return None
    if sides[0] is None:
        return "it printed no result"
    return str(sides[0]["failure"]["message"]) if sides[0].get("failure") else None


def _accuracy(accuracy: Values) -> Iterator[Found]:
    """The first side's first metric, which is the bundle's or the plan's that the sweep gave."""
    side = accuracy["sides"][0]
    metric = next((name for name in WORDS if (side["metrics"].get(name) or {}).get("value") is not None), None)
    if metric is not None:
        yield {
            **{key: side["metrics"][metric][key] for key in ("value", "low", "high")},
            "metric": WORDS[metric],
            "task": accuracy["task"],
            "yardstick": yardstick(accuracy),
            "complete": accuracy["complete"],
            "elsewhere": None,
            "sha256": (side["origin"] or {}).get("sha256"),
        }


def _time(latency: Values) -> Found:
    """The first side's time; what an emulator took is none."""
    name, side = next(iter(latency["sides"].items()))
    origin = side.get("origin") or {}
    emulated = bool(origin.get("emulated"))
    power = (latency.get("power") or {}).get(name) or {}
    environment = latency.get("environment") or {}
    throttled = environment.get("throttled") or (environment.get("after") or {}).get("throttled") or []
    marks = [mark.removeprefix(f"{name}: ") for mark in latency.get("marks") or ()]
    stopped = [f"stopped: {latency['stopped']}"] if latency.get("stopped") else []
    times: Found = {key: side.get(key) for key in ("median_ms", "p90_ms", "p99_ms", "cv_percent")}
    times |= {key: power.get(key) for key in ("watts", "joules_per_frame")}
    return {
        "mode": latency.get("mode") or "call",
        **(dict.fromkeys(times) if emulated else times),
        "emulated": emulated,
        "imitated": origin.get("role") in ("fp16", "int8") and origin.get("device") == "CPU",
        "warnings": list(dict.fromkeys([*side["warnings"], *marks, *stopped])),
        "throttled": list(throttled),
        "machine": machine_of(environment),
        "kind": _said(environment.get("board") or environment.get("cpu")),
        "power_mode": _said(environment.get("power_mode")),
        "sha256": origin.get("sha256"),
    }


def _said(value: Any) -> str | None:
    return str(value) if value else None


def _failures(source: Values, named: Sequence[str]) -> Iterator[Found]:
    """What has no result, and what cannot be done without it."""
    for row in source["rows"]:
        why = reason(row)
        if why is not None:
            kept = ("command", "line", "device", "worker", "version", "exit_code", "attempts")
            names = [f"{cell_name(cell, named)} on {cell['device']}" for cell in row["cells"]]
            yield {"file": source["file"], **{key: row[key] for key in kept}, "why": why, "cells": names}


def _workers(sources: Iterable[Values]) -> list[Found]:
    """Each machine that ran something, as each version of hiresvit."""
    found: dict[tuple[str, str], Found] = {}
    for row in (row for source in sources for row in source["rows"]):
        host = row["worker"].rpartition(":")[0] or row["worker"]
        one = found.setdefault(
            (host, row["version"]),
            {"host": host, "version": row["version"], "commands": 0, "devices": [], "clock_off_s": None, "again": 0},
        )
        one["commands"] += 1
        one["again"] += row["attempts"] > 1
        one["devices"] += [] if row["device"] in one["devices"] else [row["device"]]
        off = row["clock_off_s"]
        if off is not None and abs(off) >= abs(one["clock_off_s"] or 0.0):
            one["clock_off_s"] = off
    return list(found.values())


def pairs(cell: Values) -> Iterator[tuple[Found | None, Found | None]]:
    """Accuracies and times of a cell that are of the same bytes, then those that nothing goes with."""
    accuracies: dict[tuple[Any, ...], Found] = {}
    for one in cell["accuracies"]:  # a later one of the same bytes by the same yardstick counts
        accuracies[one["sha256"], one["task"], one["yardstick"], one["metric"]] = one
    met = set()
    for time in cell["times"]:
        own = [key for key in accuracies if key[0] == time["sha256"] and key[0] is not None]
        met.update(own)
        yield from ((accuracies[key], time) for key in own)
        if not own:
            yield None, time
    yield from ((one, None) for key, one in accuracies.items() if key not in met)


def _fronts(cells: Sequence[Values]) -> list[Found]:
    groups: dict[tuple[str, ...], list[Found]] = {}
    for number, cell in enumerate(cells):
        timed = [(a, t) for a, t in pairs(cell) if a and t and t["median_ms"] is not None]
        for accuracy, time in timed:
            same = [t for a, t in timed if a["yardstick"] == accuracy["yardstick"] and t["mode"] == time["mode"]]
            point = {
                "cell": number,
                "name": cell["name"] + (f" ({time['worker']}, {time['started'][:16]})" if len(same) > 1 else ""),
                **{key: time[key] for key in ("median_ms", "p99_ms", "joules_per_frame", "warnings", "worker")},
                **{key: accuracy[key] for key in ("value", "low", "high", "sha256", "elsewhere")},
            }
            words = (accuracy["task"], accuracy["yardstick"], accuracy["metric"], time["mode"])
            groups.setdefault((cell["axes"]["device"], *words), []).append(point)
    ordered = sorted(groups.items(), key=lambda one: MODES.index(one[0][4]))
    keys = ("device", "task", "yardstick", "metric", "mode")
    return [{**dict(zip(keys, key, strict=True)), "points": _placed(points)} for key, points in ordered]


def _placed(points: Sequence[Found]) -> list[Found]:
    """Points, the fastest first, each with whether it is on the front, and whose accuracy cannot be told from its."""
    points = sorted(points, key=lambda point: (point["median_ms"], -point["value"]))
    known = [_point(str(number), point) for number, point in enumerate(points)]
    kept = {one.name for one in front(known)}
    placed = []
    for one, point in zip(known, points, strict=True):
        others = [points[int(other.name)] for other in alike(one, known)]
        found = {"front": one.name in kept, "alike": [other["name"] for other in others]}
        found["faster"] = [other["name"] for other in others if other["median_ms"] < point["median_ms"]]
        placed.append({**point, **found})
    return placed


def _point(name: str, point: Values) -> Point:
    return Point(name, "", point["median_ms"], point["value"], point["low"], point["high"])


def _best(
    device: str, fronts: Sequence[Values], budget: float, cells: Sequence[Values], sources: Sequence[Values]
) -> Iterator[Found]:
    """For each task and yardstick of a class the answer to a budget, by the kind of time that is asked for first."""
    seen: set[tuple[str, ...]] = set()
    for group in fronts:
        words = group["task"], group["yardstick"], group["metric"]
        if group["device"] != device or words in seen:
            continue
        seen.add(words)
        points = group["points"]
        known = [_point(str(number), point) for number, point in enumerate(points)]
        found = best_within(known, budget)
        point = points[int((found or min(known, key=lambda one: (one.x, -one.y))).name)]
        answer = {key: group[key] for key in ("device", "task", "yardstick", "metric", "mode")}
        answer |= {"budget_ms": budget, "fits": found is not None, "point": point}
        lines = command_lines(cells[point["cell"]], point["sha256"], sources) if found else []
        yield {**answer, "commands": lines}
    if not seen:
        nothing = dict.fromkeys(("task", "yardstick", "metric", "mode", "point"))
        yield {"device": device, **nothing, "budget_ms": budget, "fits": False, "commands": []}


def command_lines(cell: Values, digest: str, sources: Iterable[Values]) -> list[str]:
    """What makes and measures the file with this sum, as lines to be typed; folders are called after the cell."""
    rows = [row for source in sources for row in source["rows"] if cell["axes"] in row["cells"] and not reason(row)]
    wanted, chain = {digest}, {}
    for command in reversed(_STEPS):  # what was made last names what it was made from
        for row in rows:
            sums = set(re.findall(r'"([0-9a-f]{64})"', json.dumps(row["document"])))
            by_program = command == "bench" and not sums
            if row["command"] == command and (wanted & sums or by_program):
                chain[command] = row
        if command in MAKERS and command in chain:
            wanted |= set(re.findall(r'"([0-9a-f]{64})"', json.dumps(chain[command]["document"])))
    name = _NAMELESS.sub("-", cell["name"]).strip("-.") or "network"
    weights = _weights((chain.get("export") or {}).get("document") or {}).get("source")
    places = {
        "{made}/bundle": name,
        "{given}/bundle": name,
        "{made}/network.plan": f"{name}.plan",
        "{given}/network.plan": f"{name}.plan",
        "{weights}": str(weights or "WEIGHTS"),
    }
    return [
        _typed(chain[command]["line"], places) for command in ("export", "build", "eval", "bench") if command in chain
    ]


def _typed(line: str, places: Mapping[str, str]) -> str:
    """A row's command line with its placeholders filled in, quoted for a shell: whatever it holds is an argument."""
    words = [word for word in line.split() if word != "--json"]
    for place, name in places.items():
        words = [word.replace(place, name) for word in words]
    return shlex.join(words)
