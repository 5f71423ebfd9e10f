"""Where two networks part, as tables for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table

from hiresvit.report.tables import Values, counted, make_table, number_text

WORST = 10
"""So many modules are shown beside the first beyond the tolerance."""

_KINDS = {
    "scale": "a constant factor",
    "saturation": "clipped at a bound",
    "nan": "NaN or Inf",
    "outliers": "a few values",
    "everything": "all of it",
}


def layers_report(found: Values) -> list[RenderableType]:
    """The first module beyond the tolerance in a line, the worst modules, and what could not be compared."""
    modules: Sequence[Values] = found["modules"]
    beyond = sum(row["verdict"] is not None for row in modules)
    least = f"{found['tolerance']:g} dB"
    if first := found["first"]:
        head = f"{first['module']} ({first['kind']}) is the first of {beyond} modules below {least}: {_said(first)}"
    elif modules:
        head = f"all {len(modules)} modules stay within {least}"
    else:
        head = "the modules could not be compared: " + "; ".join(found["failed"])
    exact = sum(row["max_abs"] == 0 for row in modules)
    table = [_table(found)] if exact < len(modules) else []
    equal = [f"{exact} modules are equal"] if exact else []
    return [*table, f"\n{head}", *equal, *_whole(found), *_unmatched(found), *smallest_report(found)]


def smallest_report(found: Values) -> list[RenderableType]:
    """The smallest graph that the engine gets wrong, or that there is none; nothing if none was looked for."""
    if "smallest" not in found:
        return []
    least, small = f"{found['tolerance']:g} dB", found["smallest"]
    if small is None and found["first"] is None:
        return [f"nothing found: {found['test']} is within {least} of ONNX Runtime's CPU on the same graph"]
    if small is None:
        return [
            f"nothing to reduce: what computes {found['test']} gives what ONNX Runtime's CPU gives for the same graph,"
            f" within {least}, and for its parts that end in {found['first']['module']}: the graph differs from the"
            " reference, or the copy with marked tensors alone does"
        ]
    rows = [(n["module"], n["op"], ", ".join(n["reads"]), ", ".join(n["makes"])) for n in small["nodes"]]
    engine, versions = small["engine"], [f"{name} {version}" for name, version in small["versions"].items() if version]
    where = engine["chip"] or f"{engine['backend']} {engine['device']}".strip()
    title = f"{small['file']}: the smallest graph found, {counted(len(rows), 'node')} of {small['steps']}"
    lines = [
        f"{where}{', emulated' if engine['emulated'] else ''}; {', '.join(versions)}: {_fault(small)}",
        f"inputs, expected and given answers: {small['arrays']}; {counted(small['tried'], 'graph')} tried",
    ]
    return [make_table(title, "module", "operator", "reads", "makes", rows=rows), "\n" + lines[0], lines[1]]


def _fault(small: Values) -> str:
    """What the engine does with the smallest graph."""
    if small["kind"] != "parts":
        return f"{'refused' if small['kind'] == 'refused' else 'fails when it runs'}: {small['message']}"
    apart = f"{small['sqnr_db']:.1f} dB" if small["sqnr_db"] is not None else "NaN, Inf or nothing like it"
    return f"{small['output']} has {apart} against ONNX Runtime's CPU"


def _whole(found: Values) -> list[str]:
    """The answer of both as they are, where a marked tensor ends no fusion."""
    whole = found.get("whole")
    if whole is None or whole["max_abs"] == 0:
        return []
    if whole["sqnr_db"] is None:
        return [f"as a whole, with nothing marked: {whole['output']} has NaN or Inf, or the reference is 0"]
    line = f"as a whole, with nothing marked: {whole['output']} has {whole['sqnr_db']:.1f} dB"
    if found["first"] is None and whole["sqnr_db"] < found["tolerance"]:
        line += "; a tensor that is marked ends a fusion, so the fault is in one: --smallest FILE looks for it"
    return [line]


def _table(found: Values) -> Table:
    """The worst that differ at all, in the order in which they are computed, and the first beyond the tolerance."""
    modules: Sequence[Values] = found["modules"]
    differing = [place for place, row in enumerate(modules) if row["max_abs"] != 0]
    worst = sorted(differing, key=lambda place: _rank(modules[place]))[:WORST]
    shown = {*worst, *(place for place, row in enumerate(modules) if row == found["first"])}
    images = counted(found["images"], "image")
    title = f"{found['test']} against {found['reference']}: the worst of {len(modules)} modules, {images}"
    columns = ("module", "kind", ">SQNR dB", ">max abs", ">cosine", ">scale", "difference")
    return make_table(title, *columns, rows=[_row(modules[place]) for place in sorted(shown)])


def _rank(row: Values) -> float:
    return -math.inf if row["sqnr_db"] is None else float(row["sqnr_db"])


def _row(row: Values) -> tuple[str, ...]:
    numbers = (number_text(row[name], form) for name, form in (("max_abs", ".2e"), ("cosine", ".6f"), ("scale", ".4f")))
    return (row["module"], row["kind"], number_text(row["sqnr_db"], ".1f"), *numbers, _KINDS.get(row["verdict"], ""))


def _said(row: Values) -> str:
    """How its difference looks, in a few words."""
    if row["verdict"] == "scale":
        return f"{_KINDS['scale']}, {row['scale']:.4g}"
    if row["verdict"] == "nan":
        return f"{row['non_finite']} values are NaN or Inf"
    share = {"saturation": "clipped", "outliers": "outliers"}.get(row["verdict"])
    return _KINDS[row["verdict"]] + (f", {100 * row[share]:.0f} % of the error" if share else "")


def _unmatched(found: Values) -> list[str]:
    lines = []
    for side in ("reference", "test"):
        if names := found["unmatched"][side]:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"note: {len(names)} modules only in {found[side]}: {', '.join(names[:3])}{more}")
    return lines
