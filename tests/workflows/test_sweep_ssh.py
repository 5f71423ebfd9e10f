"""A board without Python: what is measured there over a real sshd, what is copied, and what goes wrong in one line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sweep_stand_in
from conftest import Cli
from sshd import Sshd, running
from sweeps import agenda_of, cell_of, export, plan_for

from hiresvit.errors import MissingDependency
from hiresvit.version import __version__
from hiresvit.workflows.sweep import worker
from hiresvit.workflows.sweep.cluster import open_cluster, run_on_cluster
from hiresvit.workflows.sweep.jobs import Job
from hiresvit.workflows.sweep.run import run_here
from hiresvit.workflows.sweep.ssh import BoardLost, boards_of, look_at, run_on_board
from hiresvit.workflows.sweep.store import Row
from hiresvit.workflows.sweep.worker import TIMED_OUT

# Says what it is given, and when; ends its connection for each line that is taken out of ~/kills.
PROGRAM = f"""#!/bin/sh
[ "$1" = --version ] && echo {__version__} && exit 0
if [ -s ~/kills ]; then
  sed -i 1d ~/kills; p=$$
  while case $(cat /proc/$p/comm) in sshd*) false;; esac; do p=$(awk '/^PPid/ {{ print $2 }}' /proc/$p/status); done
  kill -9 $p
fi
began=$(date +%s.%N)
[ "$1" = sleep ] && sleep "$2"
[ "$1" = fail ] && echo "error: the graph is illegal" >&2 && exit 3
echo '{{"schema_version": 1, "given": "'$(cat ./network)'", "words": "'"$*"'", "span": ['$began, $(date +%s.%N)']}}'
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd"), {}) as found:
        yield found


@pytest.fixture
def board(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Sshd:
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(worker, "COMMAND", sweep_stand_in.COMMAND)
    (server.folder / "home" / "kills").write_text("")
    server.settle()
    server.program(PROGRAM)
    return server


def on_board(source: Job, *words: str) -> Job:
    return Job(("hiresvit-run", *words), "orin", (cell_of("orin"),), source)


def swept(jobs: list[Job], board: Sshd, folder: Path) -> tuple[list[Row], list[str], int]:
    rows: list[Row] = []
    notes: list[str] = []
    agenda = agenda_of(jobs, folder)
    boards = boards_of([f"orin={board.host}"])
    run_here(plan_for(jobs, timeout_s=2), agenda, lambda row, *_: rows.append(row), notes.append, boards)
    return rows, notes, agenda.left


def test_a_board_measures_a_copy_that_it_keeps(board: Sshd, tmp_path: Path) -> None:
    source = export("cpu", content="kept")
    jobs = [source, on_board(source, "a b", "{given}/bundle", "$HOME"), on_board(source, "fail")]
    jobs.append(on_board(source, "sleep", "9"))
    rows, notes, left = swept(jobs, board, tmp_path)
    made, good, failed, late = rows
    assert (notes, left) == ([], 0)
    assert (good.command, good.line) == ("bench", "hiresvit-run a b {given}/bundle $HOME")
    assert good.document is not None
    assert (good.document["given"], good.document["words"]) == ("kept", "a b ./bundle $HOME")
    assert (good.worker, good.device, good.exit_code) == ("127.0.0.1", "orin", 0)
    assert (failed.exit_code, failed.last_line, failed.document) == (3, "the graph is illegal", None)
    assert (late.exit_code, late.last_line) == (TIMED_OUT, "it was ended after 2 s")
    places = board.folder / "home" / ".cache" / "hiresvit" / "sweep"
    assert made.artefact is not None
    copied = places / made.artefact / "network"
    before = copied.stat().st_ino
    assert [row.command for row in swept([*jobs, on_board(source, "more")], board, tmp_path)[0]] == ["bench"]
    assert copied.stat().st_ino == before, "copied once"
    assert not list(places.glob("*.*")), "nothing is half there"


def test_one_measurement_at_a_time(board: Sshd, tmp_path: Path) -> None:
    source = export("cpu", content="alone")
    [made], *_ = swept([source], board, tmp_path)
    assert made.artefact is not None
    given, cache = made.artefact, agenda_of([source], tmp_path).cache
    there = boards_of([f"orin={board.host}"])["orin"]
    spans: list[Any] = []

    def measure() -> None:
        ran = run_on_board(there, ("hiresvit-run", "sleep", "0.4"), cache, given, 20)
        spans.append((ran.document or {})["span"])

    threads = [threading.Thread(target=measure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = sorted(spans)
    assert first[1] <= second[0]


def test_a_board_that_goes_away_is_tried_again_once(board: Sshd, tmp_path: Path) -> None:
    kills = board.folder / "home" / "kills"
    source = export("cpu", content="away")
    kills.write_text("once\n")
    rows, notes, left = swept([source, on_board(source, "x")], board, tmp_path)
    assert [(row.command, row.attempts) for row in rows] == [("export", 1), ("bench", 2)]
    assert (len(notes), left) == (1, 0)
    assert "cannot be reached" in notes[0]
    assert "bench of net: it is begun again" in notes[0]
    kills.write_text("once\ntwice\n")
    rows, notes, left = swept([source, on_board(source, "y")], board, tmp_path)
    assert (rows, left) == ([], 1)
    assert "attempt 2: it stays open" in notes[1]


def said(board: Sshd, host: str | None = None) -> str:
    [there] = boards_of([f"orin={host or board.host}"]).values()
    with pytest.raises(MissingDependency) as raised:
        look_at(there)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_wrong_with_a_board_is_one_line(board: Sshd) -> None:
    [there] = boards_of([f"orin={board.host}"]).values()
    assert abs(look_at(there)) < 2
    assert "try `ssh -p 9 127.0.0.1`" in said(board, "127.0.0.1:9")
    board.settle(key=False)
    assert "ssh-copy-id" in said(board)
    board.settle(known=False)
    assert "accept it once with `ssh -p" in said(board)
    board.settle()
    board.program(PROGRAM.replace(__version__, "9.9"))
    assert f"has hiresvit-run 9.9, this is {__version__}: build cpp/ there" in said(board)
    other = bytearray(Path("/bin/true").read_bytes())
    other[18:20] = (0xF3, 0x00) if other[18] != 0xF3 else (0x3E, 0x00)  # of another machine
    board.program(bytes(other))
    assert "cannot run its hiresvit-run" in said(board)
    (board.folder / "there" / "hiresvit-run").unlink()
    assert "has no hiresvit-run on the PATH that ssh gives" in said(board)


def test_a_board_that_is_not_there_ends_it_before_anything_runs(board: Sshd, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "p.toml").write_text('models = ["hrvit_nano"]\nsizes = ["64x64"]\ndevices = ["orin"]\nmake = "cpu"\n')
    result = cli("sweep", tmp_path / "p.toml", "--ssh", "orin=127.0.0.1:9", "--json")
    assert (result.code, json.loads(result.out)["error"]["exit_code"]) == (6, 6)
    assert (
        sum(line.startswith("error: board 127.0.0.1 (orin) cannot be reached") for line in result.err.splitlines()) == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["p.toml"]
    assert issubclass(BoardLost, MissingDependency)


@pytest.mark.filterwarnings("default")  # Dask's own
def test_boards_are_measured_beside_a_cluster(board: Sshd, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra sweep is not installed")
    source = export("cpu", content="beside")
    swept([source], board, tmp_path)
    (board.folder / "home" / "kills").write_text("once\n")
    jobs = [source, on_board(source, "x"), on_board(source, "y")]
    agenda = agenda_of(jobs, tmp_path)
    rows: list[Row] = []
    notes: list[str] = []
    with open_cluster(0, None, set()) as client:
        run_on_cluster(
            plan_for(jobs),
            agenda,
            client,
            lambda row, *_: rows.append(row),
            notes.append,
            boards=boards_of([f"orin={board.host}"]),
        )
    assert sorted((row.line, row.attempts) for row in rows) == [("hiresvit-run x", 2), ("hiresvit-run y", 1)]
    assert (len(notes), agenda.left) == (1, 0)
    assert "it is begun again" in notes[0]
