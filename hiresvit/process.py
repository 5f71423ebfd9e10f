"""Run a module in a child process: native code may crash, hang or leak there without taking us along."""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any

from hiresvit.errors import HiresvitError

_STDERR_LINES = 20
_STDERR_BYTES = 1 << 16


@dataclass(frozen=True)
class ChildResult:
    """How a child ended: exit code (negative: minus the signal that killed it) and last stderr lines."""

    returncode: int
    stderr: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """In words: ``exited with code 3`` or ``was killed by SIGSEGV``."""
        if self.returncode >= 0:
            return f"exited with code {self.returncode}"
        try:
            name = signal.Signals(-self.returncode).name
        except ValueError:  # a real-time signal has no name
            name = f"signal {-self.returncode}"
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"


# What a child starts with. The current folder, which `python -c` and `python -m` put in front before Python 3.11 can be
# told not to, goes before anything is imported: a file onnx.py in it must not shadow the library.
_START = "import sys; sys.path[:] = filter(None, sys.path); from hiresvit.process import start_child; start_child()"
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def run_child(
    argv: Sequence[str], *, on_line: Callable[[str], None] | None = None, timeout_s: float | None = None
) -> ChildResult:
    """Run ``python *argv`` to its end, for example ``run_child(["-m", "package.module", "argument"])``.

    Each line of the child's stdout goes to ``on_line`` as it comes, without its newline. The child imports
    what this process imports (its ``sys.path``, not the current folder). Whatever is raised meanwhile,
    KeyboardInterrupt included, first kills the child and all it has started; if this process dies, so does the child.
    After ``timeout_s`` it is killed, too: the result is that of SIGKILL.

    Raises HiresvitError when no process can be started. A child that fails is a result, not an exception.
    """
    with _temporary_file() as stderr:  # a file, not a pipe: nobody has to drain it
        process = _start(argv, stderr, stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
        assert process.stdout is not None
        alarm = threading.Timer(timeout_s or 0, os.killpg, (process.pid, signal.SIGKILL))
        with process.stdout as stdout:
            try:
                if timeout_s is not None:
                    alarm.start()
                for line in stdout:
                    if on_line is not None:
                        on_line(line.rstrip("\n"))
                # Not waited for before the alarm is off, so that the id it kills is still the child's own.
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                alarm.cancel()
                process.wait()
            except BaseException:
                alarm.cancel()
                os.killpg(process.pid, signal.SIGKILL)  # not yet waited for, so the id is still its own
                process.wait()
                raise
        return ChildResult(process.returncode, _last_lines(stderr))


def _start(argv: Sequence[str], stderr: IO[bytes], **how: Any) -> subprocess.Popen[Any]:
    """A child that imports what we import, in a process group of its own. Raises HiresvitError."""
    modules = os.pathsep.join(path or os.getcwd() for path in sys.path)
    safe = {"PYTHONSAFEPATH": "1"}  # from Python 3.11 on; for what it starts in its turn
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _START, str(os.getpid()), *argv],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": modules, **safe},
            start_new_session=True,  # so that one kill reaches all of it
            **how,
        )
    except OSError as error:
        raise HiresvitError(f"cannot start {sys.executable}: {error.strerror}") from error


class Worker:
    """A child that answers as long as it is wanted: ``python *argv FD``, which serves a `Connection` on that number.

    What it prints is kept from our own stdout and stderr, where native code would mix with what a user reads.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._said, self._before = _temporary_file(), 0
        self._ours, theirs = Pipe()
        try:
            self._process = _start(
                [*argv, str(theirs.fileno())], self._said, stdout=self._said, pass_fds=[theirs.fileno()]
            )
        except BaseException:
            self._ours.close()
            self._said.close()
            raise
        finally:
            theirs.close()

    def ask(self, question: Any) -> Any:
        """What the child answers; values are pickled, so ask only our own code.

        Raises ChildProcessError, with how it ended and its last line, if it dies over that. An interruption kills it.
        """
        self._before = os.fstat(self._said.fileno()).st_size
        try:
            self._ours.send(question)
            return self._ours.recv()
        except (EOFError, OSError) as error:
            self._process.wait()
            died = ChildResult(self._process.returncode, _last_lines(self._said))
            last = f": {died.stderr[-1]}" if died.stderr else ""
            raise ChildProcessError(f"{died.outcome}{last}") from error
        except BaseException:
            self.close()
            raise

    def said(self) -> str:
        """What it has printed since it was last asked."""
        # by place: it writes where the descriptor stands, which is shared
        size = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), size - self._before, self._before).decode("utf-8", "replace")

    def close(self) -> None:
        """End the child; closing it again does nothing."""
        self._ours.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close()


def serve(answer: Callable[[Any], Any], descriptor: int) -> None:
    """A `Worker`'s child: answer what is asked on a descriptor until the other end closes."""
    with Connection(descriptor) as asked, suppress(EOFError):
        while True:
            asked.send(answer(asked.recv()))


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise HiresvitError(f"cannot make a temporary file: {error.strerror}; set TMPDIR to a folder for it") from error


def start_child() -> None:
    """The first thing that a child of `run_child` does: bind its life to its parent's, and run what it is for."""
    _, parent, *sys.argv[:] = sys.argv
    with suppress(OSError, AttributeError):  # another system than Linux: there it outlives its parent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before we said so
        os.kill(os.getpid(), signal.SIGKILL)
    kind = sys.argv[0]
    if kind == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(kind, run_name="__main__")


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far, in bytes; Linux only.

    A child calls it at its end and reports it. ``wait4`` and ``getrusage`` would be wrong: Linux carries
    ``ru_maxrss`` over ``exec``, so the child of a parent that holds 3 GB never shows less than 3 GB.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def trim_memory() -> None:
    """Give freed memory back to the system: the C library keeps it, in pieces that the next tensors do not fit in."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _last_lines(stream: IO[bytes]) -> tuple[str, ...]:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - _STDERR_BYTES))
    lines = stream.read().decode("utf-8", "replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())[-_STDERR_LINES:]
