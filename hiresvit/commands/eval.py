"""`hiresvit eval`: how often networks are right, each beside the first."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sides
from hiresvit.commands.protocol_options import ProtocolOptions
from hiresvit.errors import UsageError


@dataclass(frozen=True)
class Looking:
    """How many pictures are measured, and which are shown."""

    limit: Annotated[int | None, typer.Option(min=1, help="How many; default: 200 scenes, or all of a folder.")] = None
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst pictures to name and draw.")] = 3
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Draw them there; default: beside the file of -o.", readable=False),
    ] = None


@dataclass(frozen=True)
class Running:
    """What computes."""

    graph: opt.Graph = None
    runner: Annotated[
        list[str] | None,
        typer.Option("--runner", metavar="NAME", help=f"What opens files, may be repeated: {opt.RUNNERS}."),
    ] = None
    threads: opt.Threads = None


@opt.grouped
def evaluate(
    sources: Annotated[list[str], typer.Argument(help="Model names, .onnx files, plans or bundle folders.")],
    *,
    pictures: Annotated[opt.DatasetOptions, opt.Without("classes")],
    looking: Looking,
    protocol: ProtocolOptions,
    model: opt.ModelOptions,
    running: Running,
    output: opt.Save = None,
    as_json: opt.Json = False,
) -> None:
    """Measure accuracy on labelled pictures, of several networks in one pass, each beside the first."""
    given = model.given()  # says what is wrong with an option before anything is loaded
    dataset = pictures.name()
    if dataset is None:
        raise UsageError(
            "Missing option '--dataset': give --data DIR with labelled pictures, or --dataset scenes to try it out"
        )
    if looking.draw is not None and looking.draw.exists() and not looking.draw.is_dir():
        raise UsageError(f"--draw {looking.draw}: a file; give a folder, which is made if it is not there")
    from hiresvit.report.accuracy import accuracy_report
    from hiresvit.workflows.evaluate import EvalSettings, evaluate_sources

    what = EvalSettings(
        dataset,
        pictures.data,
        pictures.split,
        looking.limit,
        protocol=protocol.find,
        worst=looking.worst,
        draw=looking.draw,
        output=output,
        options=repr(sorted(given.items())),
        threads=running.threads,
    )
    runners: list[str | None] = [*running.runner] if running.runner else [None]
    named = [(source, name) for name in runners for source in sources]
    with ExitStack() as stack:
        sides = open_sides(stack, named, model, running.graph, threads=running.threads)
        with out.progress() as on_step:
            found = evaluate_sources(sides, what, on_step=on_step)
    notes = [*notes_of(sides), *found.notes]
    report = accuracy_report(found.document["accuracy"])
    try:
        out.answer(as_json, found.document, report, found.failure, notes, save=output)
    finally:
        if what.state is not None and output is not None and found.document["accuracy"]["complete"]:
            with suppress(OSError):
                if output.stat().st_mtime_ns >= what.state.stat().st_mtime_ns:  # it is of this run
                    what.state.unlink()
