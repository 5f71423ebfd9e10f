"""A sweep on a Dask cluster of two workers of different classes, which are processes as `dask worker` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sweep_stand_in
from conftest import Cli, environment
from sweeps import agenda_of, bench, cell_of, export, plan_for, same

from hiresvit.errors import MissingDependency
from hiresvit.workflows.sweep import cluster, worker
from hiresvit.workflows.sweep.cluster import open_cluster, run_on_cluster
from hiresvit.workflows.sweep.jobs import Job
from hiresvit.workflows.sweep.run import run_here
from hiresvit.workflows.sweep.store import Row

pytest.importorskip("distributed", reason="the extra sweep is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own are not ours to mend

HERE = Path(__file__).parent
OTHER_VERSION = "from hiresvit.workflows.sweep import cluster\ncluster.__version__ = '9.9'\n"
WITHOUT = """
from hiresvit.workflows.sweep import cluster
def about():
    raise ImportError("no hiresvit here")
cluster.about = about
"""
# A preload is run twice.
OTHER_CLOCK = """
from hiresvit.workflows.sweep import cluster
if cluster.about.__name__ == "about":
    real = cluster.about
    cluster.about = lambda: {**real(), "time": real()["time"] + 100}
"""


def started(*words: str, folder: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([environment()["PYTHONPATH"], str(HERE)])
    quiet = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]],
        cwd=folder,
        env={**environment(), **quiet, "PYTHONPATH": path, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Cluster:
    """A scheduler, and what starts workers of it."""

    address: str
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @contextmanager
    def worker(self, *classes: str, before: str = "") -> Iterator[None]:
        preload = [str(HERE / "sweep_stand_in.py")]
        if before:
            preload.append(str(self.folder / f"before{len(list(self.folder.iterdir()))}.py"))
            Path(preload[-1]).write_text(before)
        words = [word for path in preload for word in ("--preload", path)]
        resources = " ".join(f"{name}=1" for name in classes)
        process = started(
            "dask_worker", self.address, "--nthreads", "1", "--resources", resources, "--no-dashboard",
            *words, folder=self.folder,
        )  # fmt: skip
        try:
            yield
        finally:
            ended(process)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler of its own process, without a worker."""
    folder = tmp_path_factory.mktemp("scheduler")
    process = started(
        "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show",
        "--scheduler-file", str(folder / "scheduler.json"), folder=folder,
    )  # fmt: skip
    until = time.monotonic() + 60
    while True:
        try:
            address = json.loads((folder / "scheduler.json").read_text())["address"]
            break
        except (OSError, ValueError):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
    yield Cluster(address, folder)
    ended(process)


@pytest.fixture(scope="module")
def two(empty: Cluster) -> Iterator[Cluster]:
    """With a worker of class orin and one of class rtx."""
    with empty.worker("orin"), empty.worker("rtx"):
        yield empty


@dataclass
class Swept:
    rows: list[Row]
    notes: list[str]
    left: int


Sweep = Callable[..., Swept]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Run jobs on a cluster; the workers' cache is not this machine's."""

    def run(jobs: list[Job], on: Cluster, *, folder: str = "here", **options: Any) -> Swept:
        rows: list[Row] = []
        notes: list[str] = []
        (tmp_path / folder).mkdir(exist_ok=True)
        agenda = agenda_of(jobs, tmp_path / folder)
        options = {"cache": str(tmp_path / "there"), "wait_s": 30, **options}
        with open_cluster(None, on.address, set()) as client:
            run_on_cluster(plan_for(jobs), agenda, client, lambda row, *_: rows.append(row), notes.append, **options)
        return Swept(rows, notes, agenda.left)

    return run


def disjoint(rows: list[Row]) -> bool:
    spans = sorted(row.document["span"] for row in rows if row.document)
    return all(first[1] <= second[0] for first, second in pairwise(spans))


def plan_of_two_classes() -> list[Job]:
    sources = [export("orin", label=name, content=name) for name in ("a", "b")]
    broken = export("orin", "--exit", "5", label="c")
    jobs = [*sources, broken, bench("rtx", broken)]
    for device in ("orin", "rtx"):
        jobs += [bench(device, source, "--sleep", "0.1") for source in sources]
        jobs += [bench(device, sources[0], "--exit", "3")]
    return jobs


def test_each_class_has_its_own_and_one_at_a_time_and_it_is_what_the_loop_says(
    two: Cluster, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sweep(plan_of_two_classes(), two)
    at = {device: {row.worker for row in found.rows if row.device == device} for device in ("orin", "rtx")}
    assert [len(workers) for workers in at.values()] == [1, 1]
    assert at["orin"] != at["rtx"]
    for device in at:
        assert disjoint([row for row in found.rows if row.device == device and row.command == "bench"])
    assert found.left == 0
    archives = [note for note in found.notes if "goes to" in note]
    assert len(archives) == 0, "both workers are of this machine and have one cache"

    monkeypatch.setattr(worker, "COMMAND", sweep_stand_in.COMMAND)
    (tmp_path / "serial").mkdir()
    rows: list[Row] = []
    jobs = plan_of_two_classes()
    run_here(plan_for(jobs), agenda_of(jobs, tmp_path / "serial"), lambda row, *_: rows.append(row), pytest.fail)
    assert sorted(map(str, map(same, rows))) == sorted(map(str, map(same, found.rows)))
    assert sweep(plan_of_two_classes(), two).rows == [], "a restart runs nothing"


def test_archives_go_where_they_are_not_once(two: Cluster, sweep: Sweep, tmp_path: Path) -> None:
    weights = tmp_path / "w.bin"
    weights.write_text("weights")
    words = ("export", "--made", "{made}", "--content", "x", "--weights", "{weights}")
    source = Job(words, "orin", (cell_of("orin", weights=weights),), makes=True)
    first = sweep([source], two)
    assert [row.document and row.document["weights"] for row in first.rows] == ["weights"]
    assert sum("goes to" in note for note in first.notes) == 1, "the weights"
    jobs = [source, bench("rtx", source), bench("rtx", source, "--sleep", "0.01")]
    second = sweep(jobs, two, cache=str(tmp_path / "elsewhere"))
    assert [row.document and row.document["given"] for row in second.rows] == ["x", "x"]
    assert sum("goes to" in note for note in second.notes) == 1, "of two jobs the second finds it"


def test_a_worker_that_is_killed_is_begun_again_once(empty: Cluster, sweep: Sweep, tmp_path: Path) -> None:
    kills = tmp_path / "kills"
    kills.write_text("once")
    with empty.worker("fragile"):
        found = sweep([bench("fragile", None, "--kill", str(kills))], empty)
        assert [(row.exit_code, row.attempts) for row in found.rows] == [(0, 2)]
        assert sum("is lost; bench of net: it is begun again" in note for note in found.notes) == 1
        kills.write_text("once\ntwice")
        jobs = [bench("fragile", None, "--kill", str(kills), "--sleep", "0.01"), bench("fragile", None, "--sleep", "0")]
        found = sweep(jobs, empty)
    assert [row.line for row in found.rows] == ["hiresvit bench --sleep 0"]
    assert sum("that was attempt 2: it stays open" in note for note in found.notes) == 1
    assert found.left == 1


def test_a_worker_of_another_version_is_refused_and_a_clock_that_is_off_is_said(
    empty: Cluster, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_FIRST_S", 0.1)
    with (
        empty.worker("old", before=OTHER_VERSION),
        empty.worker("late", before=OTHER_CLOCK),
        empty.worker("bare", before=WITHOUT),
    ):
        found = sweep([bench("late", None), bench("old", None)], empty, wait_s=8)
    assert sum("is refused: " in note and "has hiresvit 9.9, this is" in note for note in found.notes) == 1
    assert sum("it does not answer as hiresvit" in note for note in found.notes) == 1
    assert sum("+100 s off" in note for note in found.notes) == 1
    assert [(row.device, round(row.clock_off_s or 0, -1)) for row in found.rows] == [("late", 100)]
    assert sum("1 jobs wait for a worker of class old, which nobody is" in note for note in found.notes) == 1
    assert found.left == 1


def test_a_scheduler_that_is_not_there_and_a_class_that_nobody_is(
    empty: Cluster, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_S", 0.5)
    (tmp_path / "p.toml").write_text('models = ["hrvit_nano"]\nsizes = ["64x64"]\n')
    result = cli("sweep", tmp_path / "p.toml", "--scheduler", "tcp://127.0.0.1:9")
    said = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert (result.code, len(said)) == (6, 1), result.err
    assert "no scheduler answers at tcp://127.0.0.1:9" in said[0]
    assert "Traceback" not in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.toml"]
    result = cli("sweep", tmp_path / "p.toml", "--scheduler", empty.address, "--wait-s", "0.2")
    assert result.code == 6, result.err
    assert "2 of 2 commands are open, what was to run them is not there" in result.err
    for words in (("--workers", "2", "--scheduler", "x"), ("--wait-s", "3")):
        assert cli("sweep", tmp_path / "p.toml", *words).code == 2


def test_a_scheduler_that_goes_away_ends_it_in_one_line(tmp_path: Path, sweep: Sweep) -> None:
    distributed: Any = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as gone:
        on = Cluster(gone.scheduler_address, tmp_path)
        timer = threading.Timer(1.0, gone.close)
        timer.start()
        with pytest.raises(MissingDependency, match="the scheduler is gone; what is done is kept"):
            sweep([bench("orin", None)], on)
        timer.join()
