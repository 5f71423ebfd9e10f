"""What a page says of the documents that eval, bench, compare and verify wrote, each with the file it is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hiresvit.report.blocks import (
    NOT_MEASURED,
    Block,
    Cell,
    Chart,
    Facts,
    Lines,
    Picture,
    Table,
    as_printed,
    cells,
    part,
)
from hiresvit.report.latency import latency_tables
from hiresvit.report.layers import layers_report
from hiresvit.report.page import METRICS, runs_on, yardstick
from hiresvit.report.plots import latency_chart, module_chart, parts_chart
from hiresvit.report.results import compare_report
from hiresvit.report.tables import Values

_ALL_METRICS = {**METRICS, "boundary_f": "boundary F", "top5": "top-5"}
_FRAME_PARTS = {"decode_ms": "decode", "prepare_ms": "prepare", "network_ms": "network", "answer_ms": "answer"}
_GPU_PARTS = {"h2d_ms": "copy in", "gpu_compute_ms": "GPU", "d2h_ms": "copy out"}
_HIDDEN = ("sides", "origin", "samples_ns")


def result_parts(page: Values, pictures: Values) -> list[Block]:
    """The parts of all results; ``pictures`` are `data:` addresses, or why there is none, by result and file name."""
    results = page["results"]
    return [
        *part("Accuracy", _each(results, "accuracy", _accuracy)),
        *part("The worst pictures", _worst(results, pictures)),
        *part("Latency", _each(results, "latency", _latency)),
        *part("Power and machine", _each(results, "latency", _machine)),
        *part("Compared", _each(results, "parity", lambda found: as_printed(compare_report(found)))),
        *part("Layers", _each(results, "layers", _layers)),
        *part("Verified", _each(results, "verify", _verify)),
    ]


def _each(results: Sequence[Values], key: str, make: Any) -> list[Block]:
    """A part for each result that has a document of a kind, called by its file; alone it needs none."""
    return [
        block
        for result in results
        if result["document"].get(key) is not None
        for block in part(result["file"], make(result["document"][key]))
    ]


def _accuracy(found: Values) -> list[Block]:
    names = [name for name in _ALL_METRICS if any(name in (side.get("metrics") or {}) for side in found["sides"])]
    protocol = found["protocol"]
    size = "x".join(map(str, protocol.get("size") or ())) or None
    facts = [
        ("measured on", yardstick(found)),
        ("network's size", size),
        *((name, protocol.get(name)) for name in ("resize", "filter", "scaled", "labels")),
        ("in what it departs from the papers", "; ".join(protocol.get("notes") or ()) or None),
        ("intervals", f"95 %, bootstrap of {found['resamples']} resamples, seed {found.get('seed')}")
        if found.get("resamples")
        else ("intervals", None),
    ]
    first = found["sides"][0]["name"]
    heads = [f">{_ALL_METRICS[name]} %" for name in names]
    columns = ("side", "runs on", *heads, f">beside {first}, points", "keeps", ">equal %")
    rows = [_side_row(side, names) for side in found["sides"]]
    table = Table("", columns, tuple(rows))
    classes = [block for side in found["sides"] for block in _classes(side)]
    return [_facts(facts), table, *part("By class", classes, folded=True)]


def _side_row(side: Values, names: Sequence[str]) -> tuple[Cell, ...]:
    origin, metrics, against = side["origin"], side.get("metrics") or {}, side.get("against")
    if failure := side.get("failure"):
        return cells(side["name"], runs_on(origin), Cell(f"failed: {failure['message']}", tone="bad"))
    main = next((name for name in names if name in metrics), "")
    if against:
        beside = _interval((against.get("metrics") or {}).get(main), "difference", "+.2f")
        keeps = against.get("keeps")
        tone = "bad" if keeps and keeps.startswith("less") else "good" if keeps else ""
        share = against.get("agreement")
        rest = [beside, Cell(keeps or NOT_MEASURED, tone=tone), None if share is None else f"{100 * share:.3f}"]
    else:
        rest = [Cell("the first"), Cell(""), Cell("")]
    return cells(
        Cell(side["name"], (origin.get("sha256") or "")[:12]),
        runs_on(origin),
        *(_interval(metrics.get(name), "value", ".2f") for name in names),
        *rest,
    )


def _interval(found: Values | None, key: str, form: str) -> Cell:
    if not found or found.get(key) is None:
        return Cell(NOT_MEASURED)
    low, high = found.get("low"), found.get("high")
    return Cell(format(found[key], form), "" if low is None or high is None else f"{low:{form}} to {high:{form}}")


def _classes(side: Values) -> list[Block]:
    rows = [
        cells(
            str(row.get("name", row.get("index", ""))),
            *(None if row.get(key) is None else f"{row[key]:.2f}" for key in ("iou", "accuracy", "boundary_f")),
            None if row.get("share") is None else f"{100 * row['share']:.2f}",
        )
        for row in side.get("classes") or ()
    ]
    columns = ("class", ">IoU %", ">accuracy %", ">boundary F %", ">share of pixels %")
    return [Table(side["name"], columns, tuple(rows))] if rows else []


def _worst(results: Sequence[Values], pictures: Values) -> list[Block]:
    blocks: list[Block] = []
    for result in results:
        for row in (result["document"].get("accuracy") or {}).get("worst") or ():
            name = row.get("picture") or f"picture {row.get('index')}"
            share = row.get("agreement")
            words = name if share is None else f"{name}: {100 * share:.2f} % equal answers"
            data, why = pictures.get((result["file"], row.get("image")), (None, "no picture was drawn"))
            blocks.append(Picture(data, row.get("image") or "", words if data else f"{words} ({why})"))
    return blocks


def _latency(found: Values) -> list[Block]:
    """The tables of the command, where the samples lie, and what a call or a frame is made of."""
    blocks, sides = as_printed(latency_tables(found)), found["sides"]
    samples = {name: side["samples_ns"] for name, side in sides.items() if side.get("samples_ns")}
    if samples:
        title = "how many of the calls took no longer than a time"
        blocks.append(Chart(latency_chart(samples, title=title), f"{title}; p50, p90 and p99 are marked"))
    parts = {name: _parts(side) for name, side in sides.items()}
    if shown := {name: found for name, found in parts.items() if found}:
        title = "what the time is made of"
        blocks.append(Chart(parts_chart(shown, title=title, unit="ms"), f"{title}: medians in ms"))
    return blocks


def _parts(side: Values) -> dict[str, float]:
    """What follows one after the other: of a frame its steps, else of a plan's call what the GPU's clock says."""
    values = {**side, **(side.get("parts") or {})}
    for names in (_FRAME_PARTS, _GPU_PARTS):
        if found := {name: values[key] for key, name in names.items() if values.get(key) is not None}:
            return found
    return {}


def _machine(found: Values) -> list[Block]:
    environment, power = found.get("environment"), found.get("power")
    blocks: list[Block] = []
    for name, one in (power or {}).items():
        if one is not None:
            blocks += part(f"Power of {name}", [Facts(tuple(_flat(one)))])
    if not blocks:
        blocks.append(Lines((f"Power was {NOT_MEASURED}: no meter was read.",)))
    if not environment:
        return [*blocks, Lines((f"Of the machine nothing was written down: clocks and load were {NOT_MEASURED}.",))]
    return [*blocks, Facts(tuple(_flat(environment)))]


def _layers(found: Values) -> list[Block]:
    """The tables of the command, and the signal to noise along the network."""
    values = [(row["module"], row["sqnr_db"]) for row in found["modules"]]
    blocks = as_printed(layers_report(found))
    if sum(value is not None for _, value in values) > 1:
        first, title = found["first"], "signal to noise of each module, in the order of the network"
        svg = module_chart(values, title=title, up="SQNR, dB", marked=first and first["module"])
        blocks.append(Chart(svg, title + ("; the first beyond the tolerance is marked" if first else "")))
    return blocks


def _verify(found: Values) -> list[Block]:
    return [Facts(tuple(_flat(found)))]


def _flat(values: Values, above: str = "") -> Iterable[tuple[str, str]]:
    """Facts of nested values, each under the names that lead to it."""
    for key, value in values.items():
        name = f"{above}{key.replace('_', ' ')}"
        if isinstance(value, Mapping) and value and key not in _HIDDEN:
            yield from _flat(value, f"{name}: ")
        elif key not in _HIDDEN:
            yield name, _plain(value)


def _plain(value: Any) -> str:
    """A value in words; what is None was not measured."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)


def _facts(rows: Iterable[tuple[str, Any]]) -> Facts:
    return Facts(tuple((name, _plain(value)) for name, value in rows))
