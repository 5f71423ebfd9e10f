"""What `hiresvit check` prints, from the document of its ``--json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table

from hiresvit.report.results import engine_report
from hiresvit.report.tables import Values, make_table

_LEVELS = ("illegal", "hazard", "advice")
_VERDICTS = {True: "legal", False: "ILLEGAL", None: "unknown"}
_SHOWN = 8  # modules of a table


def check_report(found: Values) -> list[RenderableType]:
    """Verdicts, then what was found, then what the build made of the graph."""
    items: list[RenderableType] = [verdict_table(found["targets"])]
    items += [line for level in _LEVELS for line in _finding_lines(found["targets"], level)]
    if compiled := found["compiled"]:
        items += engine_report(compiled["engine"])
        items.append(f"\nproducts, by multiply-accumulates: {_shares(compiled['macs'])}")
        items += _attention_items(compiled["attentions"])
        if compiled["leftovers"]:
            items.append(leftover_table(compiled["leftovers"]))
        if compiled["uncounted"]:
            items.append(f"multiplies, and cannot be counted: {', '.join(compiled['uncounted'])}")
    if found["refused"]:
        items.append(f"TensorRT-RTX makes no plan of it: {found['refused']}")
    return [*items, *([found["skipped"]] if found["skipped"] else [])]


def verdict_table(targets: Iterable[Values]) -> Table:
    """One row per target: legal, illegal or not known, and how much was found."""
    rows = []
    for row in targets:
        levels = [finding["level"] for finding in row["findings"]]
        counts = [str(levels.count(level)) for level in _LEVELS]
        rows.append((row["target"], row["title"], _VERDICTS[row["legal"]], *counts))
    return make_table(None, "target", "what it is", "verdict", *(f">{level}" for level in _LEVELS), rows=rows)


def leftover_table(leftovers: Sequence[Values]) -> Table:
    """What is computed in FP32, by PyTorch module, the most first."""
    rows = [
        (row["module"] or "the graph", ", ".join(row["ops"]), f"{row['macs'] / 1e6:.2f}", str(row["kernels"]))
        for row in leftovers[:_SHOWN]
    ]
    if len(leftovers) > _SHOWN:
        rows.append((f"and {len(leftovers) - _SHOWN} more", "", "", ""))
    return make_table("computed in FP32", "module", "operators", ">MMACs", ">kernels beside", rows=rows)


def _finding_lines(targets: Sequence[Values], level: str) -> list[str]:
    """What was found at a level, each once, with the targets that it is about."""
    about: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in targets:
        for finding in row["findings"]:
            if finding["level"] == level:
                text = _finding_text(finding)
                key = (finding["rule"], text.replace(row["title"], "TensorRT"))  # alike but for whom it is about
                about.setdefault(key, []).append((row["target"], text))
    lines = []
    for (rule, common), found in about.items():
        names = "every target" if len(found) == len(targets) > 1 else ", ".join(name for name, _ in found)
        lines.append(f"{level}, {names} ({rule}): {common if len(found) > 1 else found[0][1]}")
    return lines


def _finding_text(finding: Values) -> str:
    if not finding["count"]:
        return str(finding["message"])
    more = finding["count"] - len(finding["nodes"])
    where = ", ".join(finding["nodes"]) + (f" and {more} more" if more > 0 else "")
    return f"{finding['message']} [{where}]"


def _attention_items(attentions: Sequence[Values]) -> list[RenderableType]:
    """A row for each reason that attentions are not fused for, with one of them."""
    loose: dict[str, list[Values]] = {}
    for row in attentions:
        if not row["fused"]:
            loose.setdefault(row["reason"], []).append(row["attention"])
    if not loose:
        return []
    cells = [(str(len(rows)), reason, rows[0]["node"]) for reason, rows in loose.items()]
    return [make_table("attentions that TensorRT-RTX did not fuse", ">number", "why", "first", rows=cells)]


def _shares(macs: Values) -> str:
    total = sum(macs.values())
    return ", ".join(f"{100 * count / total:.1f} % {name}" for name, count in macs.items() if total) or "none"
