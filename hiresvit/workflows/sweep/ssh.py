"""A board without Python: its measurements by ``hiresvit-run`` over the system's own ssh, from a bundle copied once.

Nothing is stored here, no password is asked for, and host keys are checked as the system checks them.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import IO

from hiresvit.errors import MissingDependency, UsageError
from hiresvit.version import __version__
from hiresvit.workflows.sweep.artefacts import Cache, pack
from hiresvit.workflows.sweep.jobs import GIVEN, PROGRAM
from hiresvit.workflows.sweep.plan import NAME
from hiresvit.workflows.sweep.worker import TIMED_OUT, Ran, document_of

PLACE = "$HOME/.cache/hiresvit/sweep"
"""On a board: where bundles are, by their sums."""
_CONNECT_S = 10
_LOST = 255  # ssh's own exit code for a connection that it has not, or has no more

_open: set[subprocess.Popen[bytes]] = set()


class BoardLost(MissingDependency):
    """A board that cannot be reached, or not any more."""


@dataclass(frozen=True)
class Board:
    """Where a class of devices is: ``host`` as ssh takes it, ``user@name`` or a name of its configuration."""

    device: str
    host: str
    port: int | None = None

    def ssh(
        self, script: str, *, stdin: IO[bytes] | int = subprocess.DEVNULL, timeout_s: float
    ) -> tuple[int, str, str]:
        """Run a POSIX shell's script there: exit code, stdout, stderr. Raises BoardLost without a connection."""
        port = ["-p", str(self.port)] if self.port else []
        options = ["BatchMode=yes", f"ConnectTimeout={_CONNECT_S}", "ServerAliveInterval=10", "ServerAliveCountMax=3"]
        settings = [word for option in options for word in ("-o", option)]
        line = ["ssh", "-T", *settings, *port, "--", self.host, f"sh -c {shlex.quote(script)}"]
        try:
            process = subprocess.Popen(line, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError as error:
            raise MissingDependency("--ssh needs the program ssh: sudo apt-get install openssh-client") from error
        with process:
            _open.add(process)
            try:
                printed, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as error:
                raise BoardLost(f"board {self.host} ({self.device}) did not end within {timeout_s:g} s") from error
            finally:
                process.kill()  # if it was not at its end
                _open.discard(process)
        said = errors.decode("utf-8", "replace").strip()
        if process.returncode in (_LOST, -signal.SIGKILL):
            last = _last(said, process.returncode)
            raise BoardLost(f"board {self.host} ({self.device}) cannot be reached: {last}; {_advice(said, self)}")
        return process.returncode, printed.decode("utf-8", "replace"), said


def close_connections() -> None:
    """End every connection that another thread has open, whose commands then count as lost."""
    for process in list(_open):
        process.kill()


def _last(said: str, code: int) -> str:
    """The last line that was said of an error, without the program's own word for one."""
    return said.splitlines()[-1].removeprefix("error: ") if said else f"exited with code {code}"


def _advice(said: str, board: Board) -> str:
    plain = f"ssh {f'-p {board.port} ' if board.port else ''}{board.host}"
    if "Permission denied" in said:
        return f"put a key of yours there (ssh-copy-id) so that `{plain}` asks for no password"
    if "Host key verification failed" in said:
        return f"look at its key and accept it once with `{plain}`"
    return f"try `{plain}`"


def boards_of(given: list[str]) -> dict[str, Board]:
    """The boards of ``CLASS=user@board[:port]``, by class. Raises UsageError for anything else."""
    boards: dict[str, Board] = {}
    for text in given:
        found = re.fullmatch(rf"({NAME.pattern})=([^\s:=-][^\s:=]*)(?::(\d{{1,5}}))?", text)
        port = int(found[3]) if found and found[3] else None
        if found is None or (port is not None and not 1 <= port <= 65535):
            raise UsageError(f"--ssh {text}: give CLASS=user@board or CLASS=user@board:port, as orin-nx=me@orin.local")
        device, host = found[1], found[2]
        if device in boards:
            raise UsageError(f"--ssh {text}: {device} is {boards[device].host} already; a class has one board")
        boards[device] = Board(device, host, port)
    return boards


def look_at(board: Board) -> float:
    """Whether a board can measure; seconds that its clock is ahead of ours.

    Raises BoardLost without a connection, MissingDependency for a program that is not there, not for its machine, or
    not of this version.
    """
    script = f"date +%s; uname -m; command -v {PROGRAM} || exit 90; {PROGRAM} --version"
    began = time.time()
    code, printed, said = board.ssh(script, timeout_s=3 * _CONNECT_S)
    here = (began + time.time()) / 2
    clock, machine, *rest = [*printed.split("\n"), "", ""]
    where = f"board {board.host} ({board.device})"
    how = "build cpp/ there and `sudo cmake --install cpp/build` (docs/sweep.md)"
    if code == 90:
        raise MissingDependency(f"{where} has no {PROGRAM} on the PATH that ssh gives: {how}")
    if code:
        raise MissingDependency(f"{where}, which is {machine}, cannot run its {PROGRAM} ({_last(said, code)}): {how}")
    if rest[1] != __version__:
        raise MissingDependency(f"{where} has {PROGRAM} {rest[1]}, this is {__version__}: {how}")
    return float(clock) - here if clock.isdigit() else 0.0


def run_on_board(board: Board, argv: tuple[str, ...], cache: Cache, given: str, timeout_s: float) -> Ran:
    """Run ``hiresvit-run`` on the board's copy of an artefact; it is copied if the board has it not.

    One measurement at a time: the board holds a lock meanwhile. Raises BoardLost if it goes away.
    """
    copy_to(board, cache, given)
    line = shlex.join(word.replace(GIVEN, ".") for word in argv)
    script = f"cd {PLACE}/{given} && exec flock ../lock timeout {timeout_s:g} {line}"
    started, began = datetime.now(timezone.utc).isoformat(timespec="milliseconds"), time.monotonic()
    code, printed, said = board.ssh(script, timeout_s=2 * timeout_s + 60)
    why = f"it was ended after {timeout_s:g} s" if code == TIMED_OUT else _last(said, code)
    return Ran(
        worker=board.host,
        started=started,
        seconds=time.monotonic() - began,
        exit_code=code,
        last_line=why if code else "",
        artefact=None,
        document=document_of(printed),
    )


def copy_to(board: Board, cache: Cache, key: str) -> bool:
    """Put an artefact on a board, whole or not at all; False if it was there."""
    code, _, _ = board.ssh(f"test -d {PLACE}/{key}", timeout_s=3 * _CONNECT_S)
    if code == 0:
        return False
    folder = cache.find(key)
    assert folder is not None
    script = (
        f"set -e; D={PLACE}; P=$D/{key}.$$; mkdir -p $P; trap 'rm -rf $P' EXIT; tar -xf - -C $P;"
        f" mv $P $D/{key} || test -d $D/{key}"
    )
    with tempfile.TemporaryFile() as archive:
        archive.write(pack(folder))
        archive.seek(0)
        code, _, said = board.ssh(script, stdin=archive, timeout_s=3600)
    if code:
        raise BoardLost(f"board {board.host} ({board.device}) does not take a bundle: {_last(said, code)}")
    return True
