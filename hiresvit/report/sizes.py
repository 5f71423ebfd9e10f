"""What `hiresvit plan-sizes` prints."""

from __future__ import annotations

from rich.console import RenderableType

from hiresvit.report.tables import Values, make_table, size_text

_WHAT = """
padding: the share of the multiply-accumulates that have a padded position on either side
activations: the most that PyTorch holds at once for one image without gradients, in FP16, without weights
training: what it keeps of one image for the backward pass, in FP32, without weights and gradients"""
_BOUND = """
moved: what all kernels of the FP16 plan read and write in one call, and its weights
at least: a lower bound of the plan's time on {device}, and no prediction; the least for each pixel comes first"""


def sizes_report(plan: Values) -> list[RenderableType]:
    """A row per size, and what its columns are."""
    bounded = plan["device"] is not None
    rows = [
        (
            "x".join(map(str, row["imgsz"])) + (" (asked)" if row["asked"] else ""),
            f"{row['macs'] / 1e9:.2f}",
            f"{100 * row['padding']:.1f} %" if row["padded_macs"] else "none",
            size_text(row["activation_bytes"]),
            size_text(row["training_bytes"]),
            *(_bound(row) if bounded else ()),
        )
        for row in plan["sizes"]
    ]
    title = f"{plan['model']}, {plan['task']}: {_which(plan)}"
    columns = ("height x width", ">GMACs", ">padding", ">activations", ">training")
    extra = (">moved", ">at least", ">ns a pixel") if bounded else ()
    return [
        title,
        make_table(None, *columns, *extra, rows=rows),
        _WHAT + (_BOUND.format(device=plan["device"]) if bounded else ""),
    ]


def _bound(row: Values) -> tuple[str, ...]:
    return size_text(row["moved_bytes"]), f"{row['bound_ms']:.3g} ms", f"{row['bound_ns_per_pixel']:.3g}"


def _which(plan: Values) -> str:
    if plan["near"]:
        order = "least padding first" if plan["device"] is None else f"least time a pixel on {plan['device']} first"
        return f"sizes near {plan['near'][0]}x{plan['near'][1]}, {order}"
    height, width = plan["shape"]
    return f"the largest within {plan['budget_macs'] / 1e9:g} GMACs for pictures of {width}:{height}"
