"""`hiresvit compare`: how far one network's answers are from another's."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sources


@dataclass(frozen=True)
class PictureOptions:
    """What two networks are compared on."""

    image: Annotated[list[Path] | None, typer.Option(help="A picture to compare on, too.", readable=False)] = None
    images: Annotated[int, typer.Option(min=0, help="How many drawn pictures to compare on.")] = 4


@dataclass(frozen=True)
class Running:
    """What computes."""

    runner: Annotated[
        str | None, typer.Option("--runner", metavar="NAME", help=f"What opens the second: {opt.RUNNERS}.")
    ] = None
    threads: opt.Threads = None


@opt.grouped
def compare(
    reference: opt.Anything,
    test: opt.Anything,
    *,
    model: opt.ModelOptions,
    graph: opt.Graph = None,
    pictures: PictureOptions,
    limits: opt.LimitOptions,
    running: Running,
    as_json: opt.Json = False,
) -> None:
    """Compare two networks' answers on pictures."""
    asked = limits.limits()
    model.given()  # says what is wrong with an option before anything is loaded
    from hiresvit.data.image import load_image
    from hiresvit.report.results import compare_report
    from hiresvit.workflows.compare import compare_sources

    images = [load_image(path) for path in pictures.image or ()]
    with ExitStack() as stack:
        pair = [(reference, None), (test, running.runner)]
        a, b = open_sources(stack, pair, model, graph, threads=running.threads)
        found, missed = compare_sources(a, b, images, drawn=pictures.images, limits=asked)
    notes = [*notes_of([a, b]), *found.pop("notes")]
    out.answer(as_json, {"parity": found}, compare_report(found), missed, notes)
