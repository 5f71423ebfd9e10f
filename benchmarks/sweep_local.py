"""What a sweep does and costs on this machine's CPU: classes, exclusive use, a killed worker, going on, and overhead.

    python benchmarks/sweep_local.py            all of it, ten minutes on two cores
    python benchmarks/sweep_local.py --no-export    without the twelve exports: a minute

Prints, and asserts nothing of time. What a cell computes is a child that does nothing, but for the exports.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "workflows")]
os.environ["OMP_NUM_THREADS"] = "1"

from sweep_stand_in import COMMAND  # noqa: E402
from sweeps import agenda_of, bench, export, plan_for, same  # noqa: E402

from hiresvit.workflows.sweep import worker  # noqa: E402
from hiresvit.workflows.sweep.cluster import SETTINGS, open_cluster, run_on_cluster  # noqa: E402
from hiresvit.workflows.sweep.jobs import Job, jobs_of  # noqa: E402
from hiresvit.workflows.sweep.plan import read_plan  # noqa: E402
from hiresvit.workflows.sweep.run import run_here  # noqa: E402
from hiresvit.workflows.sweep.store import Row  # noqa: E402

PLAN = """\
models = ["hrvit_nano", {{ model = "hrvit_nano", label = "other", num_classes = 7 }}]
sizes = ["64x64", "64x96", "96x96"]
precisions = ["fp32", "fp16"]
steps = ["bench"]
[arguments]
export = ["--images", 1]
"""
REAL = ("-m", "hiresvit")


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command line of Dask's, which ends with this."""
    line = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:], "--no-dashboard"]
    logs = {"DASK_" + key.replace("-", "_").replace(".", "__").upper(): str(value) for key, value in SETTINGS.items()}
    with subprocess.Popen(
        line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **logs}
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def apart(folder: Path) -> Iterator[tuple[Any, int]]:
    """A client of a scheduler and a worker of class a as one starts them, and the scheduler's process."""
    distributed: Any = importlib.import_module("distributed")
    where = str(folder / "scheduler.json")
    stand_in = str(TESTS / "workflows" / "sweep_stand_in.py")
    options = ("--nthreads", "1", "--resources", "a=1", "--preload", stand_in)
    with started("dask_scheduler", "--port", "0", "--scheduler-file", where) as scheduler:
        while not Path(where).exists():
            time.sleep(0.1)
        with (
            started("dask_worker", "--scheduler-file", where, *options),
            distributed.Client(scheduler_file=where) as client,
        ):
            client.wait_for_workers(1)
            yield client, scheduler.pid


@contextmanager
def cluster_of(*classes: tuple[str, ...]) -> Iterator[Any]:
    """A client of a cluster in this process, whose workers are processes with nannies; they run the stand-in."""
    import dask

    distributed: Any = importlib.import_module("distributed")

    options = {"nthreads": 1, "preload": [str(TESTS / "workflows" / "sweep_stand_in.py")], "silence_logs": 50}
    specs = {
        number: {"cls": distributed.Nanny, "options": {**options, "resources": dict.fromkeys(names, 1)}}
        for number, names in enumerate(classes)
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard": False, "dashboard_address": None}}
    with (
        dask.config.set(SETTINGS),
        distributed.SpecCluster(workers=specs, scheduler=scheduler, silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(len(classes))
        yield client


def swept(jobs: list[Job], folder: Path, client: Any = None) -> tuple[list[Row], list[str], float]:
    """The rows and notes of a sweep, and its seconds; on this machine without a client."""
    rows: list[Row] = []
    notes: list[str] = []
    folder.mkdir(exist_ok=True)
    agenda = agenda_of(jobs, folder)
    plan, began = plan_for(jobs, 600), time.monotonic()
    if client is None:
        run_here(plan, agenda, lambda row, *_: rows.append(row), notes.append)
    else:
        cache = str((folder / "there").absolute())
        run_on_cluster(plan, agenda, client, lambda row, *_: rows.append(row), notes.append, cache=cache, wait_s=60)
    return rows, notes, time.monotonic() - began


def overlaps(rows: list[Row]) -> int:
    """How many of the rows began before another of the same class had ended."""
    found = 0
    for device in {row.device for row in rows}:
        spans = sorted(row.document["span"] for row in rows if row.document and row.device == device)
        found += sum(first[1] > second[0] for first, second in pairwise(spans))
    return found


def two_classes(folder: Path) -> None:
    """Two classes, a worker killed in the middle, going on, and the plain loop."""
    (folder / "kill").write_text("once")
    source = export("a")
    jobs = [source, *(bench(name, source, "--sleep", f"0.0{i}") for i in range(1, 6) for name in ("a", "b"))]
    jobs.append(bench("b", source, "--kill", str(folder / "kill")))
    with cluster_of(("a",), ("b",)) as client:
        rows, notes, _ = swept(jobs, folder / "cluster", client)
        again, _, _ = swept(jobs, folder / "cluster", client)
    by_class = {name: {row.worker for row in rows if row.device == name} for name in ("a", "b")}
    serial, _, _ = swept(jobs, folder / "serial")
    equal = sorted(str(same(row)) for row in rows) == sorted(str(same(row)) for row in serial)
    wrong = sum(row.worker in by_class["a"] for row in rows if row.device == "b")
    print(f"{len(rows)} commands on two classes: {wrong} on the wrong one, {overlaps(rows)} at once on one device")
    print(
        f"a worker killed: begun {max(row.attempts for row in rows)} times; said: {[n for n in notes if 'lost' in n]}"
    )
    print(f"a restart ran {len(again)} commands; equal to the plain loop except times: {equal}")


def no_ops(folder: Path, count: int) -> None:
    """What a command costs besides itself, and the scheduler's memory over many."""
    jobs = [bench("a", None, "--content", str(number)) for number in range(count)]
    few, _, seconds = swept(jobs[:20], folder / "few")
    inside = sum(row.seconds for row in few)
    print(f"overhead of a cell in the plain loop: {(seconds - inside) / 20:.3f} s")
    memory: list[float] = []
    rows: list[Row] = []
    (folder / "many").mkdir()
    agenda = agenda_of(jobs, folder / "many")

    def on_row(row: Row, *_: int) -> None:
        rows.append(row)
        memory.append(rss_mb(scheduler))

    with apart(folder) as (client, scheduler):
        began = time.monotonic()
        cache = str((folder / "many" / "there").absolute())
        run_on_cluster(plan_for(jobs, 600), agenda, client, on_row, print, cache=cache, wait_s=60)
        seconds = time.monotonic() - began
    inside = sum(row.seconds for row in rows)
    print(f"overhead of a cell on a cluster: {(seconds - inside) / len(rows):.3f} s, of {len(rows)} that do nothing")
    fifths = [statistics.median(memory[len(memory) * i // 5 : len(memory) * (i + 1) // 5]) for i in range(5)]
    print(f"memory of the scheduler, fifth by fifth: {', '.join(f'{value:.1f}' for value in fifths)} MB")


def exports(folder: Path) -> None:
    """Twelve real exports, by the plain loop and by two workers."""
    worker.COMMAND = REAL
    (folder / "plan.toml").write_text(PLAN.format())
    jobs = [job for job in jobs_of(read_plan(folder / "plan.toml")) if job.command == "export"]
    rows, _, serial = swept(jobs, folder / "one")
    (folder / "two").mkdir()
    found: list[Row] = []
    agenda = agenda_of(jobs, folder / "two")
    with open_cluster(2, None, {"cpu"}) as client:
        began = time.monotonic()
        cache = str(agenda.cache.root.absolute())
        run_on_cluster(
            replace(plan_for(jobs), timeout_s=600),
            agenda,
            client,
            lambda row, *_: found.append(row),
            print,
            cache=cache,
        )
        both = time.monotonic() - began
    failed = sum(row.exit_code != 0 for row in [*rows, *found])
    sums = sorted(str(row.artefact) for row in rows) == sorted(str(row.artefact) for row in found)
    print(f"{len(jobs)} exports, {failed} failed: {serial:.1f} s one after the other, {both:.1f} s by two workers")
    print(f"ratio {both / serial:.2f}; the same artefacts: {sums}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-export", action="store_true")
    parser.add_argument("--cells", type=int, default=1000, help="that do nothing")
    asked = parser.parse_args()
    worker.COMMAND = COMMAND
    with tempfile.TemporaryDirectory() as name:
        two_classes(Path(name))
        no_ops(Path(name), asked.cells)
        if not asked.no_export:
            exports(Path(name))


if __name__ == "__main__":
    main()
