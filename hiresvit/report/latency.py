"""What `bench` and an export measured, as tables: the document `{"latency": ...}`, or what a manifest has of it."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType
from rich.table import Table

from hiresvit.bundle.stages import GRAPHS
from hiresvit.report.tables import Values, counted, make_table, number_text
from hiresvit.report.traffic import bench_table

GPU_PARTS = {"h2d_ms": "copy in", "gpu_compute_ms": "GPU", "d2h_ms": "copy out"}
"""What a plan's call is made of by the GPU's clock."""
FRAME_PARTS = {"decode_ms": "decode", "prepare_ms": "prepare", "network_ms": "network", "answer_ms": "answer"}
"""What a frame is made of by the host's."""
_SIDES = ("pytorch", *GRAPHS)  # the order of an export, which JSON does not keep
_TITLES = {
    "call": "latency of one call in ms",
    "frame": "time of one frame in ms, from a picture's file to its answer",
    "stream": "latency of a stream's frames in ms, from when they were due",
    "offline": "time of one call in ms, nothing waits between calls",
}
_PARTS = {**FRAME_PARTS, "enqueue_ms": "enqueue", "latency_ms": "H2D+GPU+D2H"}


def latency_tables(latency: Values) -> list[RenderableType]:
    """One row per side, what the others are divided by first; its parts; what stopped it, and lines on the sides."""
    sides, ratios = latency["sides"], latency["ratios"]
    base = next((name for name in sides if any(key.endswith(f"/{name}") for key in ratios)), "")
    names = sorted(sides, key=lambda name: (name != base, place(name)))
    mode = latency.get("mode", "call")
    turns = ", one after the other" if mode == "stream" else ", sides in turn"
    title = f"{_TITLES[mode]}, {counted(latency['threads'], 'thread')}{turns if len(sides) > 1 else ''}"
    gpu = GPU_PARTS if any(side.get("gpu_compute_ms") is not None for side in sides.values()) else {}
    columns = ["side", ">median", ">p90", ">p99", *(f">{part}" for part in gpu.values()), ">cv %", ">per s", ">calls"]
    table = make_table(title, *columns, *([f">x {base} (p10 to p90)"] if ratios else []))
    for name in names:
        side, ratio = sides[name], ratios.get(f"{name}/{base}")
        times = [number_text(side.get(key), ".2f") for key in ("median_ms", "p90_ms", "p99_ms", *gpu)]
        rest = [number_text(side["cv_percent"], ".1f"), number_text(side["throughput"], ".1f"), str(side["calls"])]
        spread = f"{ratio['median']:.3f} ({ratio['p10']:.3f} to {ratio['p90']:.3f})" if ratio else ""
        table.add_row(name, *times, *rest, *([spread] if ratios else []))
    rows = {name: sides[name] for name in names}
    return [
        table,
        *_parts_tables(rows),
        *bench_table(rows),
        *_stream_tables(rows),
        *_power_tables(latency),
        *_lines(latency),
    ]


def place(side: str) -> int:
    """Where a side or a graph stands in an export."""
    return _SIDES.index(side) if side in _SIDES else 0


def _parts_tables(sides: Mapping[str, Values]) -> list[Table]:
    """The parts that no column of the first table has."""
    parts = {name: side["parts"] for name, side in sides.items() if side.get("parts")}
    shown = {key: title for key, title in _PARTS.items() if any(found.get(key) is not None for found in parts.values())}
    if not shown:
        return []
    rows = [(name, *(number_text(found.get(key), ".3f") for key in shown)) for name, found in parts.items()]
    return [make_table("parts of it, medians in ms", "side", *(f">{title}" for title in shown.values()), rows=rows)]


def _stream_tables(sides: Mapping[str, Values]) -> list[Table]:
    streams = {name: side["stream"] for name, side in sides.items() if side.get("stream")}
    if not streams:
        return []
    columns = (">sent", ">missed", ">%", ">answers per s", ">jitter mean", ">max", ">queue mean", ">max")
    rows = []
    for name, found in streams.items():
        jitter: Values = found["jitter_ms"] or {}
        counts = (str(found["sent"]), str(found["missed"]), f"{found['missed_percent']:.1f}")
        spread = (number_text(jitter.get(key), ".2f") for key in ("mean", "max"))
        queue = (f"{found['queue']['mean']:.2f}", str(found["queue"]["max"]))
        rows.append((name, *counts, number_text(found["mean_fps"], ".1f"), *spread, *queue))
    fps = next(iter(streams.values()))["fps"]
    return [make_table(f"a stream of {fps:g} frames a second, jitter in ms", "side", *columns, rows=rows)]


def _power_tables(latency: Values) -> list[Table]:
    power = {name: found for name, found in (latency.get("power") or {}).items() if found}
    if not power:
        return []
    rows = [
        (
            name,
            found["source"],
            *(number_text(found[key], ".2f") for key in ("watts", "idle_watts")),
            number_text(found["joules_per_frame"], ".4f"),
            f"{found['window_s']:.1f}",
        )
        for name, found in power.items()
    ]
    columns = ("side", "meter", ">W", ">W idle", ">J a frame, idle left out", ">window s")
    return [make_table("power", *columns, rows=rows)]


def _lines(latency: Values) -> list[RenderableType]:
    """What stopped it, sides that failed, the sides that waver, and what marks the whole run."""
    kinds: dict[str, list[str]] = {}
    for name, side in latency["sides"].items():
        if side.get("failure"):
            continue
        for warning in side["warnings"]:
            kinds.setdefault(warning.partition(":")[0], []).append(name)
    failed = {name: side["failure"] for name, side in latency["sides"].items() if side.get("failure")}
    return [
        *([f"stopped: {latency['stopped']}"] if latency.get("stopped") else []),
        *(f"failed: {name}: {failure['message'].removeprefix(f'{name}: ')}" for name, failure in failed.items()),
        *(f"note: {kind}: {', '.join(names)}" for kind, names in kinds.items()),
        *(f"note: {mark}" for mark in other_marks(latency)),
    ]


def other_marks(latency: Values) -> list[str]:
    """What marks a run beyond its sides' own warnings."""
    sides = latency["sides"].items()
    said = {words for name, side in sides for word in side["warnings"] for words in (word, f"{name}: {word}")}
    return [mark for mark in latency.get("marks") or () if mark not in said]
