"""Small sweeps for tests: jobs of the stand-in, and the agenda for them."""

from __future__ import annotations

from pathlib import Path

from hiresvit.workflows.sweep.artefacts import Cache
from hiresvit.workflows.sweep.jobs import GIVEN, MADE, Job
from hiresvit.workflows.sweep.plan import Cell, SweepPlan, SweptModel
from hiresvit.workflows.sweep.run import Agenda
from hiresvit.workflows.sweep.store import Row, Store


def cell_of(device: str, label: str = "net", weights: Path | None = None) -> Cell:
    return Cell(SweptModel("hrvit_nano", label, weights), "64x64", "fp32", "tensor", "onnxruntime", device)


def export(device: str, *words: str, label: str = "net", content: str = "one") -> Job:
    return Job(("export", "--made", MADE, "--content", content, *words), device, (cell_of(device, label),), makes=True)


def bench(device: str, source: Job | None, *words: str, label: str = "net") -> Job:
    given = ("--given", GIVEN) if source else ()
    return Job(("bench", *given, *words), device, (cell_of(device, label),), source)


def plan_for(jobs: list[Job], timeout_s: float = 60.0) -> SweepPlan:
    return SweepPlan(tuple(job.cells[0] for job in jobs), ("bench",), jobs[0].device, timeout_s=timeout_s)


def agenda_of(jobs: list[Job], folder: Path) -> Agenda:
    return Agenda(jobs, Store(folder / "s.jsonl"), Cache(folder / "s.artefacts"))


def same(row: Row) -> dict[str, object]:
    """What of a row must not depend on when and where it was made."""
    values = {name: getattr(row, name) for name in ("key", "line", "cells", "device", "exit_code", "artefact")}
    document = {key: value for key, value in (row.document or {}).items() if key != "span"}
    return {**values, "last_line": row.last_line, "document": document}
