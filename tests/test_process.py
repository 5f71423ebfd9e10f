from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hiresvit.errors import HiresvitError
from hiresvit.process import ChildResult, Worker, peak_rss_bytes, run_child


def test_lines_arrive_in_order_and_without_newline() -> None:
    lines: list[str] = []
    result = run_child(["-c", "print('one'); print(); print('drei ä')"], on_line=lines.append)
    assert lines == ["one", "", "drei ä"]
    assert result == ChildResult(0, ())


def test_a_line_arrives_while_the_child_still_runs(tmp_path: Path) -> None:
    flag = tmp_path / "seen"
    code = f"""
import pathlib, sys, time
print("ready", flush=True)
deadline = time.monotonic() + 30
while not pathlib.Path({str(flag)!r}).exists():
    if time.monotonic() > deadline:
        sys.exit("nobody answered")
    time.sleep(0.01)
"""
    result = run_child(["-c", code], on_line=lambda line: flag.touch())
    assert result.returncode == 0, result.stderr


def test_exit_code_and_last_stderr_lines() -> None:
    code = "import sys\nfor i in range(40): print(f'line {i}\\n', file=sys.stderr)\nsys.exit(3)"
    result = run_child(["-c", code])
    assert result.outcome == "exited with code 3"
    assert result.stderr == tuple(f"line {i}" for i in range(20, 40))


def test_stderr_of_many_megabytes_does_not_block_the_child() -> None:
    result = run_child(["-c", "import sys\nfor _ in range(200): sys.stderr.write('x' * 9999 + '\\n')"])
    assert result.returncode == 0
    assert 0 < len(result.stderr) <= 20


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "was killed by SIGSEGV"),
        (signal.SIGKILL, "was killed by SIGKILL (often: out of memory)"),
        (signal.SIGRTMIN + 1, f"was killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_a_signal_is_named(number: int, words: str) -> None:
    result = run_child(["-c", f"import os; os.kill(os.getpid(), {int(number)})"])
    assert result.returncode == -number
    assert result.outcome == words


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_an_exception_kills_the_child_and_what_it_started(error: BaseException) -> None:
    code = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(grandchild.pid, flush=True)
time.sleep(60)
"""
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        raise error

    with pytest.raises(type(error)):
        run_child(["-c", code], on_line=on_line)
    with pytest.raises(ChildProcessError):  # nothing left to wait for
        os.waitpid(-1, os.WNOHANG)
    deadline = time.monotonic() + 10  # who reaps the orphan is not us
    while _runs(pids[0]):
        assert time.monotonic() < deadline, "the grandchild is still there"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_child_imports_what_we_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("print('found')")
    monkeypatch.syspath_prepend(tmp_path)
    lines: list[str] = []
    assert run_child(["-m", "only_here"], on_line=lines.append).returncode == 0
    assert lines == ["found"]


@pytest.mark.parametrize("argv", [["-c", "import numpy"], ["-m", "numpy.version"]], ids=["code", "module"])
def test_a_file_in_the_current_folder_shadows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    for name in ("numpy", "runpy", "ctypes", "hiresvit"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    result = run_child(argv)
    assert result.returncode == 0, result.stderr


def test_a_child_dies_with_its_parent() -> None:
    """A parent that is killed cannot kill what it has started, and native code may look at nothing for minutes."""
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = f"from hiresvit.process import run_child; run_child(['-c', {child!r}], on_line=print)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _runs(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.01)


def test_a_child_whose_parent_is_gone_before_it_starts_does_nothing() -> None:
    code = "from hiresvit.process import start_child; start_child()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", code, "1", "-c", "print('ran')"]  # whose parent is another
    done = subprocess.run(argv, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


SERVER = """
import os, sys
from hiresvit.process import serve

def answer(question):
    print("heard", type(question).__name__, flush=True)
    os.write(2, b"a line of native code\\n")
    if question == "die":
        os.abort()
    return question

serve(answer, int(sys.argv[1]))
"""


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(["-c", SERVER])
    yield made
    made.close()


def test_a_worker_answers_as_often_as_it_is_asked(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    assert [worker.ask(question) for question in (1, "two", None)] == [1, "two", None]
    assert worker.said() == "heard NoneType\na line of native code\n", "since it was last asked"
    assert capfd.readouterr() == ("", "")


def test_a_picture_of_full_hd_goes_to_a_worker_and_back(worker: Worker) -> None:
    feeds = {"image": np.random.default_rng(0).standard_normal((1, 3, 1080, 1920), dtype=np.float32)}
    answer = worker.ask(feeds)
    assert np.array_equal(answer["image"], feeds["image"])


def test_a_worker_that_dies(worker: Worker) -> None:
    with pytest.raises(ChildProcessError, match=r"was killed by SIGABRT: a line of native code"):
        worker.ask("die")
    with pytest.raises(ChildProcessError, match="was killed by SIGABRT"):
        worker.ask("still there?")
    worker.close()


def test_a_worker_that_is_closed_is_gone(worker: Worker) -> None:
    worker.ask(1)
    worker.close()
    worker.close()
    assert worker._process.returncode in (0, -signal.SIGKILL)  # it may be quicker than the signal
    with pytest.raises(ChildProcessError):  # nothing left to wait for
        os.waitpid(worker._process.pid, os.WNOHANG)


def test_an_interruption_ends_a_worker(worker: Worker) -> None:
    worker.ask(1)
    os.kill(worker._process.pid, signal.SIGSTOP)  # native code that looks at nothing
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        worker.ask(2)
    assert worker._process.returncode == -signal.SIGKILL


def test_a_worker_dies_with_its_parent() -> None:
    code = (
        f"from hiresvit.process import Worker; w = Worker(['-c', {SERVER!r}]); w.ask(1); print(w._process.pid); input()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _runs(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.01)


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(HiresvitError, match="a temporary file: No space left on device; set TMPDIR"):
        run_child(["-c", ""])


def test_the_child_has_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIRESVIT_TEST", "7")
    lines: list[str] = []
    code = "import os; print(os.environ['HIRESVIT_TEST'], 'PATH' in os.environ)"
    run_child(["-c", code], on_line=lines.append)
    assert lines == ["7 True"]


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(HiresvitError, match="cannot start /nonexistent/python: No such file"):
        run_child(["-c", ""])


def test_peak_rss_is_the_childs_own_and_not_its_parents() -> None:
    ballast = b"\1" * (200 << 20)
    code = "from hiresvit.process import peak_rss_bytes; print(peak_rss_bytes())"
    lines: list[str] = []
    run_child(["-c", code], on_line=lines.append)
    assert peak_rss_bytes() > len(ballast)
    # A bare interpreter is 10 to 20 MB; ru_maxrss would say more than the ballast.
    assert 1 << 20 < int(lines[0]) < 100 << 20


def test_peak_rss_remembers_what_was_freed() -> None:
    code = """
from hiresvit.process import peak_rss_bytes
ballast = b"1" * (150 << 20)
del ballast
print(peak_rss_bytes())
"""
    lines: list[str] = []
    run_child(["-c", code], on_line=lines.append)
    assert int(lines[0]) > 150 << 20
