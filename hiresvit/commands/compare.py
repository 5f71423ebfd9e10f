"""`hiresvit compare`: how far one network's answers are from another's."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sources
from hiresvit.errors import UsageError


@dataclass(frozen=True)
class PictureOptions:
    """What two networks are compared on."""

    image: Annotated[list[Path] | None, typer.Option(help="A picture to compare on, too.", readable=False)] = None
    images: Annotated[int, typer.Option(min=0, help="How many drawn pictures to compare on.")] = 4


@dataclass(frozen=True)
class Comparing(PictureOptions):
    """What is compared there: answers, or where two networks part."""

    layers: Annotated[bool, typer.Option("--layers", help="Compare at the boundary of every PyTorch module.")] = False
    layer_sqnr: Annotated[
        float | None, typer.Option("--layer-sqnr", metavar="DB", help="Least SQNR of a module; by precision.")
    ] = None

    def check(self, limits: dict[str, float]) -> None:
        """Raise UsageError for a limit of the other way to compare."""
        if self.layer_sqnr is not None and not self.layers:
            raise UsageError("--layer-sqnr is a limit of --layers, which is not given")
        if self.layer_sqnr is not None and not math.isfinite(self.layer_sqnr):  # nothing is below NaN
            raise UsageError(f"--layer-sqnr {self.layer_sqnr:g}: give a number")
        if self.layers and limits:
            given = ", ".join(opt.LIMITS[name] for name in limits)
            raise UsageError(f"{given}: of the answers, and --layers compares modules: take --layer-sqnr")


@dataclass(frozen=True)
class Running:
    """What computes."""

    graph: opt.Graph = None
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
    comparing: Comparing,
    limits: opt.LimitOptions,
    running: Running,
    as_json: opt.Json = False,
    output: opt.Save = None,
) -> None:
    """Compare two networks' answers on pictures, or with --layers what each of their modules gives."""
    asked = limits.limits()
    comparing.check(asked)
    model.given()  # says what is wrong with an option before anything is loaded
    from hiresvit.data.image import load_image

    images = [load_image(path) for path in comparing.image or ()]
    with ExitStack() as stack:
        pair = [(reference, None), (test, running.runner)]
        a, b = open_sources(stack, pair, model, running.graph, threads=running.threads)
        if comparing.layers:
            from hiresvit.report.layers import layers_report
            from hiresvit.workflows.compare_layers import compare_sources_by_layer

            with out.progress() as on_step:
                limit, how = comparing.layer_sqnr, running.runner
                found, missed = compare_sources_by_layer(
                    a, b, images, drawn=comparing.images, runner=how, tolerance=limit, on_step=on_step
                )
            document, report, notes = {"layers": found}, layers_report(found), []
        else:
            from hiresvit.report.results import compare_report
            from hiresvit.workflows.compare import compare_sources

            found, missed = compare_sources(a, b, images, drawn=comparing.images, limits=asked)
            notes = found.pop("notes")
            document, report = {"parity": found}, compare_report(found)
    out.answer(as_json, document, report, missed, [*notes_of([a, b]), *notes], save=output)
