"""The file of a sweep whose rows are what our own commands said of a tiny bundle, run in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiresvit.bundle.manifest import read_manifest
from hiresvit.cli import main
from hiresvit.workflows.sweep.artefacts import Cache, sum_of
from hiresvit.workflows.sweep.jobs import Job, jobs_of
from hiresvit.workflows.sweep.plan import read_plan
from hiresvit.workflows.sweep.run import Agenda, row_of
from hiresvit.workflows.sweep.store import Row, Store
from hiresvit.workflows.sweep.worker import Ran

PLAN = """
models = [{ model = "hrvit_b1", label = "tiny" }]
sizes = ["64x96"]
precisions = ["fp32", "fp16", "int8"]
steps = ["verify", "eval", "bench"]
data = { dataset = "scenes", limit = 2 }
arguments = { bench = ["--min-s", 0.05, "--max-s", 0.05, "--threads", 1], eval = ["--threads", 1] }
"""
STARTED = "2026-11-28T01:00:00.000+00:00"


def write_sweep(bundle: Path, folder: Path) -> Path:
    """A sweep of three cells: FP32 and FP16 have all; INT8 has nothing, since its export was ended by a signal."""
    (folder / "plan.toml").write_text(PLAN)
    store = Store(folder / "sweep.jsonl")
    agenda = Agenda(jobs_of(read_plan(folder / "plan.toml")), store, Cache(folder / "artefacts"))
    while batch := list(agenda.ready()):
        for ready in batch:
            agenda.finish(ready, row_of(ready, _ran(ready.job, bundle, folder), clock_off_s=0.1))
    return store.path


def _ran(job: Job, bundle: Path, folder: Path) -> Ran:
    ended = Ran("board-1:77", STARTED, 2.0, 0, "", None, None)
    if job.command == "export" and job.cells[0].precision == "int8":
        return replace(ended, exit_code=-9, last_line="killed while it wrote int8.onnx")
    if job.command == "export":
        document = {"schema_version": 1, "manifest": read_manifest(bundle / "manifest.json").to_json()}
        return replace(ended, artefact=sum_of(bundle), document=json.loads(json.dumps(document)))
    said = folder / f"{job.command}-{job.cells[0].precision}.json"
    argv = [word.replace("{given}/bundle", str(bundle)) for word in job.argv if word != "--json"]
    assert main([*argv, "-o", str(said)]) == 0
    return replace(ended, document=json.loads(said.read_text()))


def rows_of(path: Path) -> list[Row]:
    return list(Store(path).rows.values())


def row_for(rows: list[dict[str, Any]], command: str, precision: str) -> dict[str, Any]:
    [found] = [row for row in rows if row["command"] == command and row["cells"][0]["precision"] == precision]
    return found
