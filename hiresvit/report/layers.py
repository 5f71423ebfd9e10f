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
    else:
        head = f"all {len(modules)} modules stay within {least}"
    exact = sum(row["max_abs"] == 0 for row in modules)
    table = [_table(found)] if exact < len(modules) else []
    return [*table, f"\n{head}", *([f"{exact} modules are equal"] if exact else []), *_unmatched(found)]


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
