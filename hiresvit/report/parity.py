"""How far graphs are from what they were made of, as a table for people, from plain dicts."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from hiresvit.report.tables import Values, counted, make_table, number_text


def parity_table(parity: Values, title: str | None = None) -> Table:
    """One row per stage and output: the worst image, and what the gate asks for."""
    stages = parity["stages"]
    gated = any(stage["gate"] for stage in stages)
    title = title or f"parity with {parity.get('reference', 'the reference')}"
    title += f", the worst of {counted(parity['images'], 'image')}"
    columns = ["stage", "output", ">max abs", ">cosine", ">SQNR dB", ">equal %", *["gate: dB, cosine, %"] * gated]
    rows = [
        (stage["stage"], output["name"], *_parity_cells(output), *([_gate_text(stage["gate"])] if gated else []))
        for stage in stages
        for output in stage["report"]["outputs"]
    ]
    return make_table(title, *columns, rows=rows)


def _parity_cells(output: Values) -> list[str]:
    agreement = "" if output["agreement"] is None else f"{100 * output['agreement']:.3f}"
    if output["non_finite"]:
        return [f"{output['non_finite']} NaN or Inf", "", "", agreement]
    sqnr = "exact" if output["exact"] else number_text(output["sqnr_db"], ".1f")
    return [number_text(output["max_abs"], ".2e"), number_text(output["cosine"], ".7f"), sqnr, agreement]


def _gate_text(gate: Mapping[str, float] | None) -> str:
    """``compare`` holds to what was asked for, an export to all three."""
    parts = (("min_sqnr_db", 1), ("min_cosine", 1), ("min_agreement", 100))
    return ", ".join(f"{scale * gate[name]:g}" if name in gate else "-" for name, scale in parts) if gate else "-"
