"""One job on one machine: a child process of ours in a folder of its own, whatever becomes of it a result."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from hiresvit.errors import ArtefactError
from hiresvit.workflows.sweep.artefacts import Cache
from hiresvit.workflows.sweep.jobs import GIVEN, MADE, WEIGHTS

_TAIL = 4096
TIMED_OUT = 124
"""The exit code of what ran past its time, as that of `timeout`."""


@dataclass(frozen=True)
class Ran:
    """How a command ended; see `hiresvit.workflows.sweep.store.Row`."""

    worker: str
    started: str
    seconds: float
    exit_code: int
    last_line: str
    artefact: str | None
    document: dict[str, Any] | None


def who_am_i() -> str:
    """This process, for people: ``host:pid``."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_job(
    argv: tuple[str, ...],
    cache: Cache,
    *,
    given: str | None = None,
    weights: Path | None = None,
    makes: bool = False,
    timeout_s: float = 3600.0,
) -> Ran:
    """Run ``hiresvit *argv`` with its placeholders filled in; what it makes goes into the cache.

    ``given`` is the sum of the artefact that it takes, which must be in the cache: ArtefactError if not.
    """
    source = cache.find(given) if given else None
    if given and source is None:
        raise ArtefactError(f"artefact {given[:12]} is not in {cache.root}")
    cache.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="job-", dir=cache.root) as folder:
        made = Path(folder, "made")
        made.mkdir()
        filled = [
            text.replace(GIVEN, str(source)).replace(MADE, str(made)).replace(WEIGHTS, str(weights)) for text in argv
        ]
        started = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        began = time.monotonic()
        code, printed, said = _run([sys.executable, "-m", "hiresvit", *filled], Path(folder), timeout_s)
        seconds = time.monotonic() - began
        document = _document(printed)
        artefact = cache.keep(made) if makes and code == 0 else None
    if code == TIMED_OUT:
        said = f"it was ended after {timeout_s:g} s"
    return Ran(who_am_i(), started, seconds, code, said if code else "", artefact, document)


def _run(argv: list[str], folder: Path, timeout_s: float) -> tuple[int, bytes, str]:
    """Exit code, stdout and the last line of stderr; the child and all it started end with this call."""
    output, errors = folder / "stdout", folder / "stderr"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=folder, start_new_session=True
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    lines = errors.read_bytes()[-_TAIL:].decode(errors="replace").split("\n")
    return code, output.read_bytes(), next((line.strip() for line in reversed(lines) if line.strip()), "")


def _document(printed: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(printed)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


@contextmanager
def alone(cache: Cache, device: str) -> Iterator[None]:
    """Hold a device for the time of a measurement: no other process of this machine has it meanwhile."""
    cache.root.mkdir(parents=True, exist_ok=True)
    with (cache.root / f"{device}.lock").open("wb") as stream:
        while True:
            try:
                flock(stream, LOCK_EX | LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        yield
