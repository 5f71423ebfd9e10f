"""What the graphs for Qualcomm's HTP are like and what its emulator made of them, for people, from plain dicts."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType

from hiresvit.report.int8 import accuracy_tables, calibration_lines, fallback_line
from hiresvit.report.parity import parity_table
from hiresvit.report.tables import Values, counted
from hiresvit.spec import HTP_FORMS

_CHANGES = {"gelus": "GELU", "masks": "mask", "batch_norms": "BatchNormalization"}
TOP_REFUSED = 5


def htp_report(htp: Values) -> list[RenderableType]:
    """Of each form what was done to the graph and which nodes were refused, and how far the emulator is from PyTorch.

    ``htp`` is that of a manifest, by form. No time is in it: the emulator's says nothing of a chip.
    """
    forms = {form: htp[form] for form in HTP_FORMS if form in htp}  # JSON does not keep the order
    items: list[RenderableType] = [line for form, found in forms.items() for line in _lines(form, found)]
    items += [item for one in _distinct(forms.values()) for item in accuracy_tables(one)]
    seen = {form: found for form, found in forms.items() if found["emulated"]}
    sizes = {(*found["emulated"]["imgsz"], found["emulated"]["images"]) for found in seen.values()}
    for height, width, images in sorted(sizes):
        stages = [
            {"stage": f"htp_{form} on {found['chip']['name']}", **found["emulated"]}
            for form, found in seen.items()
            if found["emulated"]["imgsz"] == [height, width]
        ]
        items.append(
            parity_table({"stages": stages, "images": images}, f"emulated HTP at {height}x{width} beside PyTorch")
        )
    return items


def _distinct(forms: Iterable[Values]) -> list[Values]:
    """The accuracies of the forms, without one whose rows are all in another's: 8 bits have those of 16, too."""
    found = [one["accuracy"] for one in forms if "accuracy" in one]
    return [one for one in found if not any(one["rows"].items() < other["rows"].items() for other in found)]


def _lines(form: str, found: Values) -> Iterable[str]:
    chip, changes = found["chip"], found.get("changes", {})
    done = ", ".join(f"{changes[key]} x {what}" for key, what in _CHANGES.items() if changes.get(key)) or "nothing"
    yield f"htp {form}: for {chip['title']} ({chip['part']}, V{chip['arch']}), rewritten: {done}"
    if calibration := found.get("calibration"):
        yield from calibration_lines(calibration, f"htp {form}")
    if quantize := found.get("quantize"):
        yield f"htp {form}: {_quantized(quantize)}"
    if fallback := found.get("fallback"):
        yield fallback_line(fallback, f"htp {form}", "with 16 bits")
    if refused := found["refused"]:
        yield f"htp {form}: {counted(len(refused), 'node')} would not run on the HTP"
        for row in refused[:TOP_REFUSED]:
            yield f"  {row['op']} of {row['module'] or row['node']}: {row['reason']}"
    if found["emulated"] is None:
        yield f"htp {form}: not emulated"


def _quantized(made: Values) -> str:
    """How many tensors have which type."""
    tensors = ", ".join(f"{count} {kind}" for kind, count in sorted(made.get("tensors", {}).items())) or "no"
    return f"{counted(len(made.get('layers', ())), 'layer')} with weights of 8 bits, activations: {tensors}"
