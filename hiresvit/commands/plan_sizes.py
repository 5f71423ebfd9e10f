"""`hiresvit plan-sizes`: what input sizes cost, and which of them pad nothing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import UsageError
from hiresvit.spec import Task


@dataclass(frozen=True)
class SizesOptions:
    """Which sizes; a field is called as its option is."""

    near: Annotated[
        str | None,
        typer.Option("--near", metavar="HxW", help="Sizes around this one; default: around the family's own."),
    ] = None
    budget_macs: Annotated[
        float | None,
        typer.Option("--budget-macs", metavar="G", help="The largest sizes of at most so many GMACs."),
    ] = None
    aspect: Annotated[
        str | None,
        typer.Option("--aspect", metavar="W:H", help="Shape of your pictures, as 16:9; default: that of --near."),
    ] = None
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=49, help="Rows of the table.")] = 8


@opt.grouped
def plan_sizes(
    model: opt.Model,
    *,
    task: Annotated[Task | None, typer.Option("--task", help="Default: the family's own.")] = None,
    sizes: SizesOptions,
    settings: Annotated[
        opt.Texts, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the family: windows=1,2,9,9, ...")
    ] = None,
    device: opt.DeviceOptions,
    as_json: opt.Json = False,
) -> None:
    """Say what input sizes cost, and which of them waste nothing in padding, before you train at one."""
    near, budget_macs, aspect = sizes.near, sizes.budget_macs, sizes.aspect
    asked = _read_near(near)
    if aspect is not None and (budget_macs is None or near is not None):
        raise UsageError(f"--aspect {aspect}: goes with --budget-macs, and not with --near, which has a shape itself")
    shape = _read_aspect(aspect) or asked
    if budget_macs is not None and not 0 < budget_macs < math.inf:
        raise UsageError(f"--budget-macs {budget_macs:g}: give a number above 0, in 10^9 multiply-accumulates")
    from hiresvit.models.create import find_spec
    from hiresvit.report.sizes import sizes_report
    from hiresvit.workflows.plan_sizes import sizes_near, sizes_within

    board = device.board()
    found = find_spec(model, task=task, **opt.parse_settings(settings))
    with out.progress() as on_step:
        if budget_macs is None:
            plan = sizes_near(found.spec, asked or found.spec.imgsz, sizes.count, on_step)
        else:
            plan = sizes_within(found.spec, 1e9 * budget_macs, shape or found.spec.imgsz, sizes.count, on_step)
        if board is not None:
            from hiresvit.workflows.bound_sizes import bound_rows

            plan |= {"device": board.name, "sizes": bound_rows(found.spec, plan["sizes"], board, on_step)}
    notes = [*found.notes, *([plan["refused"]] if plan["refused"] else [])]
    out.answer(as_json, {"plan_sizes": plan}, sizes_report(plan), notes=notes)


def _read_near(text: str | None) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d{1,9})[xX](\d{1,9})", (text or "").strip(), re.ASCII)
    if text is not None and match is None:
        raise UsageError(f"--near {text}: give HEIGHTxWIDTH such as 512x1024")
    return (int(match[1]), int(match[2])) if match else None


def _read_aspect(text: str | None) -> tuple[int, int] | None:
    """``16:9``, width to height, as (height, width)."""
    match = re.fullmatch(r"(\d{1,5}):(\d{1,5})", (text or "").strip(), re.ASCII)
    if text is not None and (match is None or not (int(match[1]) and int(match[2]))):
        raise UsageError(f"--aspect {text}: give WIDTH:HEIGHT such as 16:9")
    return (int(match[2]), int(match[1])) if match else None
