"""`hiresvit sweep`: a plan's cells, each by our own commands, down to one file of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import UsageError
from hiresvit.workflows.sweep.store import Row


def sweep(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What to measure (docs/sweep.md).", readable=False)],
    *,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Processes on this machine, by Dask.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="A Dask cluster that is there, tcp://HOST:8786."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE.jsonl", help="Default: beside the plan. One that is there goes on."
        ),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Measure a plan's models, sizes, precisions, runners and devices, and keep each result as it comes.

    A command that fails is a result, too. The same command again goes on where it was.
    """
    if workers is not None and scheduler is not None:
        raise UsageError("--workers and --scheduler: one makes a cluster, the other takes one that is there; give one")
    from hiresvit.workflows.sweep.artefacts import Cache
    from hiresvit.workflows.sweep.jobs import jobs_of, shared
    from hiresvit.workflows.sweep.plan import read_plan
    from hiresvit.workflows.sweep.run import Agenda, run_here
    from hiresvit.workflows.sweep.store import Store

    target = output or plan.with_suffix(".jsonl")
    swept = read_plan(plan)
    jobs = jobs_of(swept)
    counts = ", ".join(f"{count} {name}" for name, count in shared(jobs).items())
    out.print_note(f"{len(swept.cells)} cells: {counts}")
    if dry_run:
        lines = [" ".join(("hiresvit", *job.argv)) for job in jobs]
        out.answer(as_json, {"sweep": {"cells": len(swept.cells), "lines": lines}}, lines)
        return
    store = Store(target)
    if store.cut:
        out.print_note(f"{target}: the last line was cut; it is dropped and its job run again")
    agenda = Agenda(jobs, store, Cache(target.with_suffix(".artefacts").absolute()))
    if agenda.done:
        out.print_note(f"{target}: {len(agenda.done)} of {len(jobs)} jobs are done")

    def on_row(row: Row, done: int, total: int) -> None:
        cell = row.cells[0]
        what = f"{row.command} {cell['model']} {cell['size']} {cell['precision']}".replace("  ", " ")
        ended = f"{row.seconds:.1f} s" if row.exit_code == 0 else f"exit {row.exit_code}: {row.last_line}"
        out.print_note(f"{done}/{total} {what} on {row.device} ({row.worker}): {ended}")

    if workers is None and scheduler is None:
        run_here(swept, agenda, on_row)
    else:
        from hiresvit.workflows.sweep.cluster import CACHE, open_cluster, run_on_cluster

        cache = CACHE if scheduler else str(agenda.cache.root)
        with open_cluster(workers, scheduler, {job.device for job in jobs}) as client:
            run_on_cluster(swept, agenda, client, on_row, out.print_note, cache=cache)
    failed = [row for row in agenda.done.values() if row.exit_code]
    found: dict[str, Any] = {
        "cells": len(swept.cells),
        "jobs": len(jobs),
        "done": len(agenda.done),
        "failed": len(failed),
        "blocked": len(agenda.blocked),
        "file": str(target),
    }
    said = (
        f"{len(agenda.done)} of {len(jobs)} commands are done, {len(failed)} failed, {len(agenda.blocked)} need those"
    )
    out.answer(as_json, {"sweep": found}, [said, f"\nwrote {target}\nnext: hiresvit report {target}"])
