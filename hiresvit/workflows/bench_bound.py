"""The measured time of a plan as a multiple of the least that it could take (docs/roofline.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiresvit.device.boards import Board
from hiresvit.workflows.open import Source
from hiresvit.workflows.plan_traffic import bound_of_plan

Bounds = dict[str, dict[str, Any]]
"""The ``roofline`` of `hiresvit.engine.roofline.describe` for each side that has one."""


def find_bounds(
    sources: Mapping[str, Source], board: Board | None, batch: int | None, mode: str
) -> tuple[Bounds, list[str]]:
    """The bounds of plans on a board, or on the GPU that runs them where the table has it; and what is to be noted.

    A frame of a stream waits for others, and a batch that a plan was not counted at moves other bytes: no bound then.
    Raises ArtefactError for a plan whose kernels are not known, if a board was asked for.
    """
    found: Bounds = {}
    notes = []
    for name, source in sources.items():
        if source.plan is None or mode == "stream":
            continue
        if batch is not None and any(shape[:1] != (batch,) for shape in source.runner.best_shapes.values()):
            notes += [f"{name}: no lower bound, its bytes are counted at another batch than {batch}"] if board else []
        elif bound := bound_of_plan(source.plan, board, source.runner.about.device):
            found[name] = bound
    if board and not found and not notes:
        what = "a frame of a stream also waits" if mode == "stream" else "none of what is measured is a plan"
        notes.append(f"--device: no lower bound, {what}")
    return found, notes


def multiples(side: Mapping[str, Any], bound: Mapping[str, Any] | None, mode: str) -> dict[str, Any] | None:
    """What a side took, against its bounds; None where nothing comparable was measured.

    By the GPU's own clock where it was asked, else the host's time of a call, which has the copies too; ``clock`` says
    which. Of a frame only the GPU's is comparable.
    """
    gpu = side.get("gpu_compute_ms")
    time_ms = gpu if gpu is not None or mode == "frame" else side.get("median_ms")
    if bound is None or not time_ms:
        return None
    cached = bound["cached_ms"]
    return {
        **bound,
        "clock": "call" if gpu is None else "gpu",
        "time_ms": time_ms,
        "multiple": time_ms / bound["bound_ms"],
        "cached_multiple": time_ms / cached if cached else None,
    }
