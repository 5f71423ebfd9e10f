"""What `hiresvit verify` found, as tables for people; from the plain dict that ``--json`` prints."""

from __future__ import annotations

from rich.console import RenderableType

from hiresvit.report.tables import Values, make_table, number_text, size_text


def verify_report(found: Values) -> list[RenderableType]:
    """The files in a line, then a table each for the golden pair, the plans and the numbers that were recomputed."""
    total = size_text(sum(entry["bytes"] for entry in found["files"]))
    by = f" by hiresvit {found['hiresvit']}" if found["hiresvit"] else ""
    items: list[RenderableType] = [
        f"{found['bundle']}: {len(found['files'])} files, {total}, all sums as the manifest says; made"
        f" {found['created']}{by}"
    ]
    if found["unlisted"]:
        items.append(f"not listed in the manifest, and not looked at: {', '.join(found['unlisted'])}")
    items += _sides(found["sides"])
    if found["plans"]:
        items += _plans(found["plans"])
    if found["parity"]:
        items += _parity(found["parity"])
    return items


def _sides(sides: list[Values]) -> list[RenderableType]:
    rows, whys = [], []
    for side in sides:
        origin = side["origin"]
        by = f"{origin['backend']} {origin['version']}, {origin['device']}" if origin else side["runner"] or ""
        rows.append((side["graph"], by, *_measures(side), _gate(side["gate"] or {}), side["verdict"]))
        if side["why"]:
            whys.append(f"{side['graph']}: {side['why']}")
    columns = ("file", "by", ">max abs", ">SQNR dB", ">equal %", ">answer %", ">at least", "")
    return [make_table("the golden pair, replayed", *columns, rows=rows), *whys]


def _measures(side: Values) -> tuple[str, str, str, str]:
    """The largest difference, the least SQNR and agreement of all outputs, and how much of the answer is equal."""
    report, answer = side["report"] or {}, side["answer"]
    outputs = report.get("outputs", [report] if report else [])
    sqnr = [row["sqnr_db"] for row in outputs if row.get("sqnr_db") is not None]
    apart = [row["max_abs"] for row in outputs if row.get("max_abs") is not None]
    equal = [row["agreement"] for row in outputs if row.get("agreement") is not None]
    exact = bool(outputs) and all(row.get("exact") for row in outputs)
    return (
        number_text(max(apart, default=None), ".2e"),
        "exact" if exact else number_text(min(sqnr, default=None), ".1f"),
        number_text(100 * min(equal) if equal else None, ".3f"),
        number_text(100 * answer["agreement"] if answer else None, ".3f"),
    )


def _gate(gate: Values) -> str:
    parts = [f"{gate['min_sqnr_db']:g} dB"] if "min_sqnr_db" in gate else []
    return ", ".join([*parts, *([f"{100 * gate['min_agreement']:g} %"] if "min_agreement" in gate else [])])


def _plans(plans: list[Values]) -> list[RenderableType]:
    rows = [
        (
            plan["plan"],
            plan["graph"],
            f"{plan['backend'] or ''} {plan['version'] or ''}".strip(),
            plan["device"] or plan["compute_capability"] or "",
            plan["verdict"],
        )
        for plan in plans
    ]
    table = make_table("plans and what stands beside them", "plan", "of", "built by", "for", "", rows=rows)
    return [table, *(f"{plan['plan']}: {plan['why']}" for plan in plans if plan["why"])]


def _parity(parity: Values) -> list[RenderableType]:
    rows = []
    for stage in parity["stages"]:
        for name, stated in stage["stated"].items():
            now = stage["found"][name]
            for measure, before in stated.items():
                wrong = any(line.startswith(f"{name}: {measure} ") for line in stage["differs"])
                cells = (number_text(value, ".6g") or "none" for value in (before, now.get(measure)))
                rows.append((name, measure, *cells, "differs" if wrong else ""))
    allowed = ", ".join(f"{name} {value:g}" for name, value in parity["tolerance"].items())
    return [
        make_table(
            "the report's parity, computed again", "stage, output", "measure", ">stated", ">here", "", rows=rows
        ),
        f"the same within {allowed}; above {parity['noise_db']:g} dB only the order of sums is left",
    ]
