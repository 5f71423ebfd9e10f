"""The file of a sweep's results: one JSON object a line, written as they come, read again to go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.files import naming_target
from hiresvit.schema import ANY, NUMBER, TEXT, compile_schema, many, read_json, record, some
from hiresvit.workflows.sweep.plan import AXES

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """What became of one job.

    ``started`` is the worker's time, UTC, and ``clock_off_s`` how far that is ahead of the time where the plan is run.
    ``exit_code`` is the command's, negative for the signal that ended it; ``last_line`` the last that it said of an
    error. ``artefact`` is the sum of what it made, ``document`` what it printed with ``--json``. ``attempts`` is how
    often it was begun: more than once where a worker was lost.
    """

    key: str
    command: str
    line: str
    cells: tuple[dict[str, str], ...]
    device: str
    worker: str
    started: str
    seconds: float
    exit_code: int
    last_line: str = ""
    artefact: str | None = None
    document: dict[str, Any] | None = None
    attempts: int = 1
    clock_off_s: float | None = None
    version: str = ""


def _schema() -> dict[str, Any]:
    fields = dict.fromkeys(Row.__dataclass_fields__, ANY)
    fields |= dict.fromkeys(("key", "command", "line", "device", "worker", "started", "last_line", "version"), TEXT)
    fields |= {"seconds": NUMBER, "exit_code": {"type": "integer"}, "attempts": {"type": "integer"}}
    fields |= {"artefact": some(TEXT), "document": some({"type": "object"}), "clock_off_s": some(NUMBER)}
    return record(
        {"schema_version": {"type": "integer"}, **fields, "cells": many(record(dict.fromkeys(AXES, TEXT)), 1)}
    )


class Store:
    """The results that are there, and where the next ones go."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was cut is dropped. Raises ArtefactError for one that is no result."""
        self.path = path
        self.rows: dict[str, Row] = {}
        self.cut = False
        check = compile_schema(_schema())
        data = path.read_bytes() if path.exists() else b""
        whole, newline, rest = data.rpartition(b"\n")
        self.cut = bool(rest)
        self._size = len(whole) + len(newline)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                values = read_json(line)
                check(values)
                if values.pop("schema_version") != SCHEMA_VERSION:
                    raise ValueError(f"it is not of version {SCHEMA_VERSION}, which this hiresvit reads")
                row = Row(**{**values, "cells": tuple(values["cells"])})
            except ValueError as error:
                raise ArtefactError(f"{path}:{number} is no result of a sweep: {error}") from error
            self.rows[row.key] = row

    def add(self, row: Row) -> None:
        """Append one result; it is on the disk when this returns."""
        line = json.dumps({"schema_version": SCHEMA_VERSION, **asdict(row)}, allow_nan=False)
        with naming_target(self.path), self.path.open("r+b" if self.path.exists() else "wb") as stream:
            stream.truncate(self._size)  # of a line that was cut
            stream.seek(self._size)
            stream.write(line.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            self._size = stream.tell()
        self.rows[row.key] = row


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """A file of results that nobody else writes meanwhile; without any it is not left behind.

    Raises what `Store` does, and HiresvitError if another sweep writes it.
    """
    with ExitStack() as stack:
        with naming_target(path):
            stream = stack.enter_context(path.open("ab"))
        try:
            flock(stream, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise HiresvitError(f"{path} is being written by another sweep: wait, or give another -o") from error
        try:
            yield Store(path)
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()
