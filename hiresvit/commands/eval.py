"""`hiresvit eval`: how often a network is right."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import open_sources
from hiresvit.errors import UsageError


@opt.grouped
def evaluate(
    source: opt.Anything,
    *,
    dataset: Annotated[str, typer.Option(help="Labelled pictures: scenes.")],
    limit: Annotated[int | None, typer.Option(min=1, help="How many; default: 200 scenes.")] = None,
    model: opt.ModelOptions,
    graph: opt.Graph = None,
    running: opt.RunnerOptions,
    as_json: opt.Json = False,
) -> None:
    """Measure accuracy on labelled pictures."""
    model.given()  # says what is wrong with an option before anything is loaded
    from hiresvit.data.scenes import HELD_OUT_COUNT, find_dataset
    from hiresvit.evaluation import accuracy
    from hiresvit.report.int8 import accuracy_table

    make_dataset = find_dataset(dataset)
    with ExitStack() as stack:
        [opened] = open_sources(stack, [source], model, graph, running)
        spec = opened.spec
        if spec is None:
            raise UsageError(f"{source} does not say what its answers mean; give one that hiresvit exported")
        pictures = make_dataset(HELD_OUT_COUNT if limit is None else limit, spec.imgsz)
        with out.progress() as on_step:
            found = accuracy.evaluate(opened.runner, spec, pictures, on_step=on_step)
    document = {"source": opened.label, **found.to_json()}
    out.answer(as_json, document, [accuracy_table(document)])
