"""`hiresvit sweep`: a plan's cells, each by our own commands, down to one file of results."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import GateError, HiresvitError, MissingDependency, UsageError

if TYPE_CHECKING:
    from hiresvit.workflows.sweep.plan import SweepPlan
    from hiresvit.workflows.sweep.run import Agenda, OnRow
    from hiresvit.workflows.sweep.ssh import Board
    from hiresvit.workflows.sweep.store import Row


@dataclass(frozen=True)
class Places:
    """Where a sweep's commands run."""

    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Processes on this machine, by Dask.")
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="A Dask cluster that is there, tcp://HOST:8786."),
    ] = None
    ssh: Annotated[
        list[str] | None,
        typer.Option(
            "--ssh",
            metavar="CLASS=USER@BOARD[:PORT]",
            help="A board without Python is this class: hiresvit-run measures there. May be repeated.",
        ),
    ] = None
    wait_s: Annotated[
        float | None,
        typer.Option("--wait-s", min=0, help="With --scheduler: seconds to wait for a class that nobody is."),
    ] = None

    def check(self) -> dict[str, Board]:
        """The boards, each looked at. Raises UsageError for options that do not go together."""
        from hiresvit.workflows.sweep.ssh import boards_of, look_at

        if self.workers is not None and self.scheduler is not None:
            raise UsageError("--workers and --scheduler: one makes a cluster, the other takes what is there; give one")
        if self.wait_s is not None and self.scheduler is None:
            raise UsageError(f"--wait-s {self.wait_s:g} is for --scheduler ADDRESS: here every class is there")
        boards = boards_of(self.ssh or [])
        for board in boards.values():
            off = look_at(board)
            if abs(off) > 2:
                out.print_note(f"the clock of {board.host} is {off:+.0f} s off; durations are not affected")
        return boards

    def run(self, plan: SweepPlan, agenda: Agenda, boards: dict[str, Board], on_row: OnRow) -> None:
        """Every job that is open."""
        from hiresvit.workflows.sweep.run import run_here

        if self.workers is None and self.scheduler is None:
            run_here(plan, agenda, on_row, out.print_note, boards)
            return
        from hiresvit.workflows.sweep.cluster import CACHE, open_cluster, run_on_cluster

        cache = CACHE if self.scheduler else str(agenda.cache.root)
        devices = {job.device for job in agenda.jobs} - boards.keys()
        with open_cluster(self.workers, self.scheduler, devices) as client:
            run_on_cluster(plan, agenda, client, on_row, out.print_note, cache=cache, boards=boards, wait_s=self.wait_s)


@opt.grouped
def sweep(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What to measure (docs/sweep.md).", readable=False)],
    *,
    places: Places,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.jsonl",
            help="Default: beside the plan. One that is there goes on.",
            readable=False,
        ),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Measure a plan's models, sizes, precisions, runners and devices, and keep each result as it comes.

    A command that fails is a result, too. The same command again goes on where it was. Ends with 4 if a command failed,
    with 6 if a worker or board was not there for one.
    """
    from hiresvit.workflows.sweep.artefacts import Cache
    from hiresvit.workflows.sweep.jobs import jobs_of, left_out, shared
    from hiresvit.workflows.sweep.plan import read_plan
    from hiresvit.workflows.sweep.run import Agenda
    from hiresvit.workflows.sweep.ssh import boards_of
    from hiresvit.workflows.sweep.store import open_store

    target = output or plan.with_suffix(".jsonl")
    swept = read_plan(plan)
    classes = boards_of(places.ssh or [])
    jobs = jobs_of(swept, classes)
    counts = ", ".join(f"{count} {name}" for name, count in shared(jobs).items())
    out.print_note(f"{len(swept.cells)} cells: {counts}")
    if missing := left_out(swept, classes):
        out.print_note(f"left out, hiresvit-run benches on ONNX Runtime only: {', '.join(missing)}")
    if dry_run:
        lines = [job.line for job in jobs]
        out.answer(as_json, {"sweep": {"cells": len(swept.cells), "lines": lines}}, lines)
        return
    boards = places.check()
    with open_store(target) as store:
        if store.cut:
            out.print_note(f"{target}: the last line was cut; it is dropped and its job run again")
        cache = Cache(target.with_suffix(".artefacts").absolute())
        cache.clear()
        agenda = Agenda(jobs, store, cache)
        if agenda.done:
            out.print_note(f"{target}: {len(agenda.done)} of {len(jobs)} commands are done")
        if len(agenda.done) < len(jobs):
            places.run(swept, agenda, boards, _teller(len(jobs) - len(agenda.done)))
    counted = {"jobs": len(jobs), "done": len(agenda.done), "failed": agenda.failed, "blocked": len(agenda.blocked)}
    found: dict[str, Any] = {"cells": len(swept.cells), **counted, "open": agenda.left, "file": str(target)}
    said = f"{len(agenda.done)} of {len(jobs)} commands are done"
    items = [said, f"\nwrote {target}\nnext: hiresvit report {shlex.quote(str(target))}"]
    out.answer(as_json, {"sweep": found}, items, _failure(agenda))


def _failure(agenda: Agenda) -> HiresvitError | None:
    """What is missing of a sweep at its end, if anything is."""
    need = f", {len(agenda.blocked)} need those" if agenda.blocked else ""
    failed = f"{agenda.failed} of {len(agenda.jobs)} commands failed{need}"
    if agenda.left:
        also = f"; {failed}" if agenda.failed else ""
        return MissingDependency(
            f"{agenda.left} of {len(agenda.jobs)} commands are open, what was to run them is not there: the same"
            f" command goes on{also}"
        )
    return GateError(f"{failed}: their rows say why") if agenda.failed else None


def _teller(jobs: int) -> OnRow:
    """Says each result, and how long the rest of ``jobs`` takes where that is over a minute."""
    began = time.monotonic()
    here = 0

    def on_row(row: Row, done: int, total: int) -> None:
        nonlocal here
        here += 1
        left = (time.monotonic() - began) / here * (jobs - here)
        rest = f", about {left / 60:.0f} min left" if left > 60 else ""
        cell = row.cells[0]
        what = f"{row.command} {cell['model']} {cell['size']} {cell['precision']}".replace("  ", " ")
        ended = f"{row.seconds:.1f} s" if row.exit_code == 0 else f"exit {row.exit_code}: {row.last_line}"
        out.print_note(f"{done}/{total} {what} on {row.device} ({row.worker}): {ended}{rest}")

    return on_row
