"""`hiresvit eval`: how often a network is right."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sources
from hiresvit.errors import UsageError


@opt.grouped
def evaluate(
    source: opt.Anything,
    *,
    pictures: Annotated[opt.DatasetOptions, opt.Without("classes")],
    limit: Annotated[int | None, typer.Option(min=1, help="How many; default: 200 scenes, or all of a folder.")] = None,
    model: opt.ModelOptions,
    graph: opt.Graph = None,
    running: opt.RunnerOptions,
    as_json: opt.Json = False,
) -> None:
    """Measure accuracy on labelled pictures."""
    model.given()  # says what is wrong with an option before anything is loaded
    dataset = pictures.name()
    if dataset is None:
        raise UsageError(
            "Missing option '--dataset': give --data DIR with labelled pictures, or --dataset scenes to try it out"
        )
    from hiresvit.report.int8 import accuracy_table
    from hiresvit.workflows.evaluate import evaluate_source

    with ExitStack() as stack:
        [opened] = open_sources(stack, [(source, running.runner)], model, graph, threads=running.threads)
        with out.progress() as on_step:
            found = evaluate_source(opened, dataset, folder=pictures.data, limit=limit, on_step=on_step)
    out.answer(as_json, found, [accuracy_table(found)], notes=notes_of([opened]))
