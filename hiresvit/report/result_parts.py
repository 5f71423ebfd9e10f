"""What a page says of the documents that eval, bench, compare and verify wrote, each with the file it is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hiresvit.report.accuracy import accuracy_report, worst_words
from hiresvit.report.blocks import (
    NOT_MEASURED,
    Block,
    Chart,
    Lines,
    Picture,
    Table,
    as_printed,
    cells,
    part,
)
from hiresvit.report.latency import FRAME_PARTS, GPU_PARTS, latency_tables
from hiresvit.report.layers import layers_report
from hiresvit.report.plots import latency_chart, module_chart, parts_chart
from hiresvit.report.results import compare_report
from hiresvit.report.tables import Values
from hiresvit.report.verify import verify_report

Pictures = Mapping[tuple[str, str], tuple[str | None, str]]
"""`data:` addresses of what results name, or None and why, by the result's file and the name in it."""


def result_parts(page: Values, pictures: Pictures) -> list[Block]:
    """The parts of all results."""
    results = page["results"]
    return [
        *part("Accuracy", _each(results, "accuracy", _accuracy)),
        *part("The worst pictures", _worst(results, pictures)),
        *part("Latency", _each(results, "latency", _latency)),
        *part("Machine and power", _machines(results)),
        *part("Compared", _each(results, "parity", lambda found: as_printed(compare_report(found)))),
        *part("Layers", _each(results, "layers", _layers)),
        *part("Verified", _each(results, "verify", lambda found: as_printed(verify_report(found)))),
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
    """The tables of the command, with those of the classes for who asks; the worst pictures have their own part."""
    blocks = as_printed(accuracy_report({**found, "worst": []}))
    classes = [block for block in blocks if isinstance(block, Table)][1:]  # the sides come first
    return [*(block for block in blocks if block not in classes), *part("By class", classes, folded=True)]


def _worst(results: Sequence[Values], pictures: Pictures) -> list[Block]:
    blocks: list[Block] = []
    for result in results:
        for row in (result["document"].get("accuracy") or {}).get("worst", ()):
            data, why = pictures.get((result["file"], row["image"] or ""), (None, "not drawn"))
            blocks.append(Picture(data, row["image"] or "", worst_words(row) + ("" if data else f", {why}")))
    return blocks


def _latency(found: Values) -> list[Block]:
    """The tables of the command, where the samples lie, and what a call or a frame is made of."""
    printed, sides = as_printed(latency_tables(found)), found["sides"]
    said = [line for block in printed if isinstance(block, Lines) for line in block.lines]
    stopped = tuple(line for line in said if line.startswith("stopped:"))
    blocks: list[Block] = [block for block in printed if not isinstance(block, Lines)]
    blocks += [Lines(stopped)] if stopped else []
    samples = {name: side["samples_ns"] for name, side in sides.items() if side.get("samples_ns")}
    if samples:
        title = "how many of the calls took no longer than a time"
        blocks.append(Chart(latency_chart(samples, title=title), f"{title}; p50, p90 and p99 are marked"))
    parts = {name: _parts(side) for name, side in sides.items()}
    if shown := {name: found for name, found in parts.items() if found}:
        title = "what the time is made of"
        blocks.append(Chart(parts_chart(shown, title=title, unit="ms"), f"{title}: medians in ms"))
    rest = tuple(line for line in said if line not in stopped)
    return [*blocks, *part("What was said of it", [Lines(rest)] if rest else [], folded=True)]


def _parts(side: Values) -> dict[str, float]:
    """What follows one after the other: of a frame its steps, else of a plan's call what the GPU's clock says."""
    values = {**side, **(side.get("parts") or {})}
    for names in (FRAME_PARTS, GPU_PARTS):
        if found := {name: values[key] for key, name in names.items() if values.get(key) is not None}:
            return found
    return {}


def _machines(results: Sequence[Values]) -> list[Block]:
    """What is known of the machine of each measurement, beside each other, and what a meter said of each side."""
    timed = {result["file"]: result["document"]["latency"] for result in results if "latency" in result["document"]}
    power = {
        f"{file}: {name}": one
        for file, found in timed.items()
        for name, one in (found.get("power") or {}).items()
        if one is not None
    }
    blocks = _side_by_side(
        "the machine", {file: _state(found.get("environment") or {}) for file, found in timed.items()}
    )
    if timed and not power:
        blocks.append(Lines((f"Power was {NOT_MEASURED}: no result has what a meter said.",)))
    return [*blocks, *_side_by_side("power", power)]


def _state(environment: Values) -> dict[str, Any]:
    """With the clocks of a kind in one line, and of what was read once more afterwards what had changed."""
    found = {key: value for key, value in environment.items() if key != "after"}
    after = {key: value for key, value in (environment.get("after") or {}).items() if value != environment.get(key)}
    states = [found, after] if after else [found]
    for state in states:
        if isinstance(clocks := state.get("clocks"), Mapping):
            kinds: dict[str, list[str]] = {}
            for name, clock in clocks.items():
                text = ", ".join(f"{fact} {value}" for fact, value in _flat(clock)) if clock else NOT_MEASURED
                kinds.setdefault(text, []).append(name)
            state["clocks"] = "; ".join(f"{' '.join(names)}: {text}" for text, names in kinds.items())
    return found | ({"afterwards": after} if after else {})


def _side_by_side(title: str, columns: Mapping[str, Values]) -> list[Block]:
    """A row for each fact, a column for each whose facts they are."""
    found = {name: dict(_flat(values)) for name, values in columns.items()}
    facts = list(dict.fromkeys(fact for values in found.values() for fact in values))
    rows = [cells(fact, *(values.get(fact) for values in found.values())) for fact in facts]
    return [Table(title, ("", *found), tuple(rows))] if rows else []


def _layers(found: Values) -> list[Block]:
    """The tables of the command, and the signal to noise along the network."""
    values = [(row["module"], row["sqnr_db"]) for row in found["modules"]]
    blocks = as_printed(layers_report(found))
    if sum(value is not None for _, value in values) > 1:
        first, title = found["first"], "signal to noise of each module, in the order of the network"
        svg = module_chart(values, title=title, up="SQNR, dB", marked=first and first["module"])
        blocks.append(Chart(svg, title + ("; the first beyond the tolerance is marked" if first else "")))
    return blocks


def _flat(values: Values, above: str = "") -> Iterable[tuple[str, str]]:
    """Facts of nested values, each under the names that lead to it."""
    for key, value in values.items():
        name = f"{above}{key.replace('_', ' ')}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}: ")
        else:
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
