"""What `hiresvit plan-sizes` prints."""

from __future__ import annotations

from rich.console import RenderableType

from hiresvit.report.tables import Values, make_table, size_text

_WHAT = """
padding: the share of the multiply-accumulates that have a padded position on either side
activations: the most that PyTorch holds at once for one image without gradients, in FP16, without weights
training: what it keeps of one image for the backward pass, in FP32, without weights and gradients"""


def sizes_report(plan: Values) -> list[RenderableType]:
    """A row per size, and what its columns are."""
    rows = [
        (
            "x".join(map(str, row["imgsz"])) + (" (asked)" if row["asked"] else ""),
            f"{row['macs'] / 1e9:.2f}",
            f"{100 * row['padding']:.1f} %" if row["padded_macs"] else "none",
            size_text(row["activation_bytes"]),
            size_text(row["training_bytes"]),
        )
        for row in plan["sizes"]
    ]
    title = f"{plan['model']}, {plan['task']}: {_which(plan)}"
    return [
        title,
        make_table(None, "height x width", ">GMACs", ">padding", ">activations", ">training", rows=rows),
        _WHAT,
    ]


def _which(plan: Values) -> str:
    if plan["near"]:
        return f"sizes near {plan['near'][0]}x{plan['near'][1]}, least padding first"
    height, width = plan["shape"]
    return f"the largest within {plan['budget_macs'] / 1e9:g} GMACs for pictures of {width}:{height}"
