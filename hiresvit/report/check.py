"""What `hiresvit check` prints, from the document of its ``--json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table

from hiresvit.report.results import engine_report
from hiresvit.report.tables import Values, make_table, page_width, wrapped
from hiresvit.report.traffic import traffic_report

_LEVELS = ("illegal", "hazard", "advice")
_VERDICTS = {True: "legal", False: "ILLEGAL", None: "unknown"}
_SHOWN = 8  # modules of a table
_SPOTS = 6  # things that a paragraph names of a kind
_NAMED = 3  # nodes that it names for each


def check_report(found: Values) -> list[RenderableType]:
    """Verdicts, then what was found, then what the build made of the graph."""
    width = page_width()
    items: list[RenderableType] = [verdict_table(found["targets"])]
    items += filter(None, (findings_text(found["targets"], level, width) for level in _LEVELS))
    items += [_wrapped(line, width) for row in found["targets"] for line in chip_lines(row)]
    if compiled := found["compiled"]:
        items += engine_report(compiled["engine"])
        items.append(f"\nproducts, by multiply-accumulates: {_shares(compiled['macs'])}")
        items += _attention_items(compiled["attentions"])
        if compiled["traffic"]:
            items += traffic_report(compiled["traffic"])
        if compiled["leftovers"]:
            items.append(leftover_table(compiled["leftovers"]))
        if compiled["uncounted"]:
            items.append(_wrapped(f"multiplies, and cannot be counted: {_first(compiled['uncounted'])}", width))
    if found["refused"]:
        items.append(_wrapped(f"\nTensorRT-RTX makes no plan of it: {found['refused']}", width))
    return [*items, *([_wrapped(f"\n{found['skipped']}", width)] if found["skipped"] else [])]


def verdict_table(targets: Iterable[Values]) -> Table:
    """One row per target: legal, illegal or not known, and how much was found."""
    rows = []
    for row in targets:
        levels = [finding["level"] for finding in row["findings"]]
        counts = [str(levels.count(level)) for level in _LEVELS]
        rows.append((row["target"], row["title"], _VERDICTS[row["legal"]], *counts))
    return make_table(None, "target", "what it is", "verdict", *(f">{level}" for level in _LEVELS), rows=rows)


def chip_lines(row: Values) -> list[str]:
    """What Qualcomm's compiler made of the graph for a chip, or why it said nothing; [] for another target."""
    judged = row["compiler"] or {"report": None, "skipped": None, "died": None}
    if said := judged["skipped"] or judged["died"]:
        return [f"\n{row['target']}: not compiled: {said}"]
    report = judged["report"]
    if report is None:
        return []
    nodes = f"{report['nodes_htp']} nodes on the HTP, {report['nodes_cpu']} refused"
    size = f", context {report['context_bytes'] / 1e6:.1f} MB" if report["context_bytes"] else ""
    products = ", ".join(f"{count} {name}" for name, count in report["arithmetic"].items())
    lines = [f"\n{row['target']}, by Qualcomm's compiler: {nodes}{size}{f'; {products}' if products else ''}"]
    lines += [f"  it warns: {warning}" for warning in report["warnings"][:_SPOTS]]
    more = len(report["warnings"]) - _SPOTS
    return [*lines, *([f"  and {more} warnings more: see --json"] if more > 0 else [])]


def leftover_table(leftovers: Sequence[Values]) -> Table:
    """What is computed in FP32, by PyTorch module, the most first."""
    rows = [
        (row["module"] or "the graph", ", ".join(row["ops"]), f"{row['macs'] / 1e6:.2f}", str(row["kernels"]))
        for row in leftovers[:_SHOWN]
    ]
    if len(leftovers) > _SHOWN:
        rows.append((f"and {len(leftovers) - _SHOWN} more", "", "", ""))
    return make_table("computed in FP32", "module", "operators", ">MMACs", ">kernels beside", rows=rows)


def findings_text(targets: Sequence[Values], level: str, width: int) -> str:
    """What was found at a level, a paragraph for each rule and what it minds; "" if there is nothing.

    One that several targets share stands once, with their names.
    """
    groups: dict[tuple[str, str], dict[str, list[Values]]] = {}
    for row in targets:
        for finding in row["findings"]:
            if finding["level"] == level:
                whom = "the chip" if row["compiler"] else "TensorRT"
                why = _why(finding).replace(row["title"], whom)  # alike but for whom it is about
                groups.setdefault((finding["rule"], why), {}).setdefault(row["target"], []).append(finding)
    lines = [f"\n{level}"] if groups else []
    for (rule, why), found in groups.items():
        for names, findings in _alike(found):
            whom = "every target" if len(names) == len(targets) > 1 else ", ".join(names)
            lines += _paragraph(rule, whom, findings, why if len(names) > 1 else _why(findings[0]), width)
    return "\n".join(lines)


def _why(finding: Values) -> str:
    """Why the target minds, and what to do."""
    return str(finding["message"]).removeprefix(finding["what"]).removeprefix(": ")


def _alike(found: Mapping[str, list[Values]]) -> list[tuple[list[str], list[Values]]]:
    """The targets about which the same things were found, together, with these."""
    groups: dict[str, tuple[list[str], list[Values]]] = {}
    for target, findings in found.items():
        key = repr([(finding["what"], finding["nodes"]) for finding in findings])
        groups.setdefault(key, ([], findings))[0].append(target)
    return list(groups.values())


def _paragraph(rule: str, whom: str, findings: Sequence[Values], why: str, width: int) -> list[str]:
    """Which rule, for whom and at how many nodes; what is there and at which nodes; what to do."""
    count = sum(finding["count"] for finding in findings)
    nodes = f", {count} node{'s' if count > 1 else ''}" if count else ""
    lines = wrapped(f"  {rule} ({whom}{nodes})", width, "    ")
    for finding in findings[:_SPOTS]:
        names = list(finding["nodes"])
        more = f" and {finding['count'] - _NAMED} more" if finding["count"] > _NAMED else ""
        where = f" [{', '.join(names[:_NAMED])}{more}]" if names else ""
        lines += wrapped(f"    {finding['what']}{where}", width, "      ")
    if len(findings) > _SPOTS:
        lines.append(f"    and {len(findings) - _SPOTS} more of the kind: see --json")
    return [*lines, *wrapped(f"    -> {why}", width, "       ")]


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


def _wrapped(text: str, width: int) -> str:
    start = text[: len(text) - len(text.lstrip("\n"))]
    return start + "\n".join(wrapped(text.lstrip("\n"), width, "  "))


def _first(names: Sequence[str]) -> str:
    """The first of many names, and how many there are beside."""
    more = f" and {len(names) - _NAMED} more: see --json" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shares(macs: Values) -> str:
    total = sum(macs.values())
    return ", ".join(f"{100 * count / total:.1f} % {name}" for name, count in macs.items() if total) or "none"
