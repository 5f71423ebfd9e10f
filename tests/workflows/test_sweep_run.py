"""A sweep on one machine: what is done is not done again, what fails is a row, what is interrupted ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import sweep_stand_in
from conftest import Cli, environment, hiresvit_command
from sweeps import agenda_of, bench, export, plan_for

from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.workflows.sweep import worker
from hiresvit.workflows.sweep.artefacts import Cache, pack, sum_of
from hiresvit.workflows.sweep.jobs import MADE, Job
from hiresvit.workflows.sweep.run import Agenda, run_here
from hiresvit.workflows.sweep.store import Row, Store, open_store
from hiresvit.workflows.sweep.worker import TIMED_OUT, hold


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "COMMAND", sweep_stand_in.COMMAND)


def swept(jobs: list[Job], folder: Path, timeout_s: float = 60.0) -> tuple[list[Row], Agenda]:
    """The rows of what was run, and the agenda at its end."""
    rows: list[Row] = []
    agenda = agenda_of(jobs, folder)
    run_here(plan_for(jobs, timeout_s), agenda, lambda row, *_: rows.append(row), pytest.fail)
    return rows, agenda


def chain(*words: str, **made: str) -> list[Job]:
    source = export("cpu", **made)
    return [source, bench("cpu", source, *words), bench("cpu", source, *words, "--content", "again")]


def test_a_restart_runs_nothing(tmp_path: Path) -> None:
    rows, agenda = swept(chain(), tmp_path)
    assert [row.command for row in rows] == ["export", "bench", "bench"]
    assert [row.document and row.document["given"] for row in rows] == [None, "one", "one"]
    assert (agenda.failed, agenda.left) == (0, 0)
    before = (tmp_path / "s.jsonl").read_bytes()
    again, agenda = swept(chain(), tmp_path)
    assert (again, len(agenda.done)) == ([], 3)
    assert (tmp_path / "s.jsonl").read_bytes() == before


def test_the_plan_that_moves_least_is_measured_first(tmp_path: Path) -> None:
    """Of three builds; what takes no plan keeps its place before them."""
    source = export("cpu")
    jobs, measured = [source], []
    for moves in (300, 100, 200):
        plan = replace(bench("cpu", source, "--made", MADE, "--moves", str(moves)), makes=True)
        jobs.append(replace(plan, argv=("build", *plan.argv[1:])))
        measured.append(replace(bench("cpu", jobs[-1]), argv=("bench", "--exit", "0", "--content", str(moves))))
    rows, _ = swept([*jobs, bench("cpu", source), *measured], tmp_path)
    assert [row.command for row in rows] == ["export", "build", "build", "build", "bench", "bench", "bench", "bench"]
    assert [row.line.rpartition(" ")[2] for row in rows[5:]] == ["100", "200", "300"]


def test_a_restart_runs_what_changed_and_what_that_makes_new(tmp_path: Path) -> None:
    swept(chain(), tmp_path)
    source, first, second = chain()
    assert [row.command for row in swept([source, first, second, bench("gpu", source)], tmp_path)[0]] == ["bench"]
    assert [row.command for row in swept(chain("--sleep", "0.01"), tmp_path)[0]] == ["bench"] * 2
    assert [row.command for row in swept(chain(content="two"), tmp_path)[0]] == ["export", "bench", "bench"]


def build_chain(last: str) -> list[Job]:
    source = export("cpu")
    words = ("build", "--given", "{given}", "--made", "{made}", "--content", "plan")
    plan = Job(words, "cpu", source.cells, source, makes=True)
    return [source, plan, bench("cpu", plan, "--content", last)]


def test_an_artefact_that_is_gone_is_made_again_only_if_something_takes_it(tmp_path: Path) -> None:
    def delete() -> None:
        for folder in (tmp_path / "s.artefacts").iterdir():
            if folder.is_dir():
                subprocess.run(["rm", "-r", folder], check=True)

    swept(build_chain("a"), tmp_path)
    delete()
    assert swept(build_chain("a"), tmp_path)[0] == []
    rows, agenda = swept(build_chain("b"), tmp_path)
    assert [row.command for row in rows] == ["export", "build", "bench"], "the plan's own source, too"
    assert agenda.left == 0


def test_a_failure_is_a_row_and_blocks_what_needs_it(tmp_path: Path) -> None:
    source, other = export("cpu", "--exit", "5"), export("cpu", content="two")
    jobs = [source, other, bench("cpu", source), bench("cpu", other, "--exit", "3"), bench("cpu", other)]
    rows, agenda = swept(jobs, tmp_path)
    assert [(row.command, row.exit_code, row.last_line) for row in rows] == [
        ("export", 5, "error: it went wrong"),
        ("export", 0, ""),
        ("bench", 3, "error: it went wrong"),
        ("bench", 0, ""),
    ]
    assert rows[0].artefact is None
    assert (agenda.failed, agenda.blocked, agenda.left) == (2, {jobs[2]}, 0)
    assert swept(jobs, tmp_path)[0] == [], "a failure is a result"


def test_a_crash_and_a_time_that_is_up_are_rows(tmp_path: Path) -> None:
    (tmp_path / "kill").write_text("")
    crash = Job(("bench", "--sleep", "x"), "cpu", bench("cpu", None).cells)
    rows, _ = swept([crash, bench("cpu", None, "--sleep", "30")], tmp_path, timeout_s=1.0)
    assert (rows[0].exit_code, "invalid float" in rows[0].last_line) == (2, True)
    assert (rows[1].exit_code, rows[1].last_line) == (TIMED_OUT, "it was ended after 1 s")


def test_a_line_that_was_cut_is_run_again(tmp_path: Path) -> None:
    rows, _ = swept(chain(), tmp_path)
    path = tmp_path / "s.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert Store(path).cut
    again, _ = swept(chain(), tmp_path)
    assert [row.key for row in again] == [rows[2].key]
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3
    assert lines[:2] == whole.splitlines()[:2]
    assert not Store(path).cut


@pytest.mark.parametrize(
    "damage", [b"not JSON", b"[]", b'{"schema_version": 1}', b"\xff\xfe", b'{"schema_version": 2'], ids=repr
)
def test_a_line_in_the_middle_that_is_damaged_is_named(tmp_path: Path, damage: bytes) -> None:
    swept(chain(), tmp_path)
    path = tmp_path / "s.jsonl"
    lines = path.read_bytes().splitlines()
    lines[1] = damage
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ArtefactError, match=r"s\.jsonl:2 is no result of a sweep"):
        Store(path)


def test_one_sweep_writes_a_file_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with open_store(path), pytest.raises(HiresvitError, match="another sweep"), open_store(path):
        pass
    assert not path.exists(), "nothing was found, nothing is left"


def test_the_sum_of_a_folder_is_of_what_is_in_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for name, manifest in (("a", "at noon"), ("b", "at one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "network").write_text("same")
        (tmp_path / name / "manifest.json").write_text(manifest)
    assert sum_of(tmp_path / "a") == sum_of(tmp_path / "b"), "a manifest has times in it"
    archive, key = pack(tmp_path / "a"), sum_of(tmp_path / "a")
    assert cache.keep(tmp_path / "a") == key == cache.keep(tmp_path / "b")
    far = Cache(tmp_path / "far")
    assert sum_of(far.unpack(key, archive)) == key
    with pytest.raises(ArtefactError, match="changed on its way"):
        far.unpack("0" * 64, archive)
    assert [path.name for path in far.root.iterdir()] == [key]


HOLD = """
import sys, time
from pathlib import Path
from hiresvit.workflows.sweep.artefacts import Cache
from hiresvit.workflows.sweep.worker import hold
print("here", flush=True)
with hold(Cache(Path(sys.argv[1])), "cpu", alone=sys.argv[2] == "alone"):
    print(time.monotonic(), flush=True)
"""


@pytest.mark.parametrize(("ours", "theirs"), [("alone", "alone"), ("alone", "shared"), ("shared", "alone")])
def test_a_measurement_has_its_device_alone_between_processes(tmp_path: Path, ours: str, theirs: str) -> None:
    line = [sys.executable, "-c", HOLD, str(tmp_path), theirs]
    with ExitStack() as stack:
        with hold(Cache(tmp_path), "cpu", alone=ours == "alone"):
            started = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, text=True)
            other = stack.enter_context(started)
            assert other.stdout is not None
            assert other.stdout.readline() == "here\n"
            time.sleep(0.2)
            released = time.monotonic()
        assert float(other.stdout.readline()) >= released


def test_exports_share_a_device(tmp_path: Path) -> None:
    with hold(Cache(tmp_path), "cpu", alone=False):
        subprocess.run([sys.executable, "-c", HOLD, tmp_path, "shared"], env=environment(), timeout=60, check=True)


PATCHED = """
from hiresvit.workflows.sweep import worker
import sweep_stand_in
worker.COMMAND = sweep_stand_in.COMMAND
import hiresvit.workflows.sweep.jobs as jobs
from sweeps import bench
jobs.jobs_of = lambda plan, boards=(): [bench("cpu", None), bench("cpu", None, "--sleep", "60")]
"""


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "p.toml").write_text('models = ["hrvit_nano"]\nsizes = ["64x64"]\n')
    path = {"PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], str(Path(__file__).parent)])}
    with subprocess.Popen(
        hiresvit_command("sweep", "p.toml", before=PATCHED),
        cwd=tmp_path,
        env={**environment(), **path},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_an_interruption_keeps_what_is_done_and_leaves_no_child(
    tmp_path: Path, interrupted: subprocess.Popen[str]
) -> None:
    assert interrupted.stderr is not None
    for line in interrupted.stderr:
        if "1/2" in line:
            break
    children: list[int] = []
    while not children:  # of the second command
        found = Path(f"/proc/{interrupted.pid}/task/{interrupted.pid}/children").read_text().split()
        children = [int(pid) for pid in found]
        time.sleep(0.02)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(timeout=20) == 130
    assert [json.loads(line)["exit_code"] for line in (tmp_path / "p.jsonl").read_text().splitlines()] == [0]
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_sweep_that_failed_says_so_with_its_code(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.toml").write_text('models = ["hrvit_nano"]\nsizes = ["64x64"]\n')
    source = export("cpu", "--exit", "1")
    monkeypatch.setattr(
        "hiresvit.workflows.sweep.jobs.jobs_of", lambda *_: [source, bench("cpu", source), bench("cpu", None)]
    )
    killed = tmp_path / "p.artefacts" / "half-of-a-killed-worker"
    (killed / "made").mkdir(parents=True)
    result = cli("sweep", tmp_path / "p.toml", "--json")
    document = json.loads(result.out)
    assert result.code == document["error"]["exit_code"] == 4
    assert not killed.exists()
    assert "1 of 3 commands failed, 1 need those: their rows say why" in result.err
    assert {key: document["sweep"][key] for key in ("jobs", "done", "failed", "blocked", "open")} == {
        "jobs": 3, "done": 2, "failed": 1, "blocked": 1, "open": 0,
    }  # fmt: skip


@pytest.mark.slow
def test_a_real_network_is_exported_and_measured(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "COMMAND", ("-m", "hiresvit"))
    (tmp_path / "p.toml").write_text(
        'models = ["hrvit_nano"]\nsizes = ["64x64"]\nprecisions = ["fp32"]\nsteps = ["verify", "bench"]\n'
        "[arguments]\nexport = ['--images', 1]\nbench = ['--min-s', 0.1, '--max-s', 0.2]\n"
    )
    result = cli("sweep", tmp_path / "p.toml")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert result.code == 0, [row["last_line"] for row in rows]
    assert [row["command"] for row in rows] == ["export", "verify", "bench"]
    [side] = rows[2]["document"]["latency"]["sides"].values()
    assert side["median_ms"] > 0
    assert "3 of 3 commands are done" in cli("sweep", tmp_path / "p.toml").err
