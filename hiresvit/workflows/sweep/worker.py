"""One job on one machine: a child process of ours in a folder of its own, whatever becomes of it a result."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from fcntl import LOCK_EX, LOCK_SH, flock
from pathlib import Path
from typing import Any

from hiresvit.errors import ArtefactError
from hiresvit.process import run_child
from hiresvit.workflows.sweep.artefacts import Cache
from hiresvit.workflows.sweep.jobs import GIVEN, MADE, WEIGHTS

COMMAND = ("-m", "hiresvit")
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
    with cache.scratch() as folder:
        made = Path(folder, "made")
        made.mkdir()
        filled = [
            text.replace(GIVEN, str(source)).replace(MADE, str(made)).replace(WEIGHTS, str(weights)) for text in argv
        ]
        printed: list[str] = []
        started = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        began = time.monotonic()
        ended = run_child([*COMMAND, *filled], on_line=printed.append, timeout_s=timeout_s)
        seconds = time.monotonic() - began
        code = TIMED_OUT if ended.returncode and seconds >= timeout_s else ended.returncode
        artefact = cache.keep(made) if makes and code == 0 else None
    said = next((line.strip() for line in reversed(ended.stderr) if line.strip()), ended.outcome)
    if code == TIMED_OUT:
        said = f"it was ended after {timeout_s:g} s"
    return Ran(who_am_i(), started, seconds, code, said if code else "", artefact, document_of("\n".join(printed)))


def document_of(printed: str) -> dict[str, Any] | None:
    """What a command printed with ``--json``; None if that is no JSON object."""
    try:
        values = json.loads(printed)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


@contextmanager
def hold(cache: Cache, device: str, *, alone: bool) -> Iterator[None]:
    """Hold a device while a job runs, ``alone`` for a measurement: no other process of this machine has it then.

    What only makes an artefact is held together with others of its kind.
    """
    cache.root.mkdir(parents=True, exist_ok=True)
    with (cache.root / f"{device}.lock").open("wb") as stream:
        flock(stream, LOCK_EX if alone else LOCK_SH)
        yield
