"""`hiresvit compare`: how far one network's answers are from another's."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.limit_options import LIMITS, LimitOptions
from hiresvit.commands.opening import How, notes_of, open_sources
from hiresvit.errors import ArtefactError, HiresvitError, MissingDependency, UsageError

if TYPE_CHECKING:
    from hiresvit.workflows.open import Source


@dataclass(frozen=True)
class Comparing:
    """What two networks are compared on, and at which places."""

    image: Annotated[list[Path] | None, typer.Option(help="A picture to compare on, too.", readable=False)] = None
    images: Annotated[int, typer.Option(min=0, help="How many drawn pictures to compare on.")] = 4
    layers: Annotated[bool, typer.Option("--layers", help="Compare at the boundary of every PyTorch module.")] = False
    layer_sqnr: Annotated[
        float | None, typer.Option("--layer-sqnr", metavar="DB", help="Least SQNR of a module; by precision.")
    ] = None
    smallest: Annotated[
        Path | None,
        typer.Option(
            "--smallest",
            metavar="FILE",
            help="With --layers: write the smallest graph that the runner gets wrong.",
            readable=False,
        ),
    ] = None

    def check(self, limits: dict[str, float]) -> None:
        """Raise UsageError for a limit of the other way to compare."""
        if self.smallest is not None and not self.layers:
            raise UsageError("--smallest goes on from what --layers finds, which is not given")
        if self.smallest is not None and self.smallest.suffix != ".onnx":
            raise UsageError(f"--smallest {self.smallest}: the file is an ONNX graph, name it NAME.onnx")
        for path in () if self.smallest is None else (self.smallest, self.smallest.with_suffix(".npz")):
            if path.exists():  # it may be the very graph that is compared
                raise UsageError(f"--smallest {self.smallest}: {path} exists; choose another name, or remove it")
        if self.layer_sqnr is not None and not self.layers:
            raise UsageError("--layer-sqnr is a limit of --layers, which is not given")
        if self.layer_sqnr is not None and not math.isfinite(self.layer_sqnr):  # nothing is below NaN
            raise UsageError(f"--layer-sqnr {self.layer_sqnr:g}: give a number")
        if self.layers and limits:
            given = ", ".join(LIMITS[name] for name in limits)
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
    limits: LimitOptions,
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
        a, b = _open(stack, reference, test, model, running, refused=comparing.smallest is not None)
        if comparing.layers:
            from hiresvit.report.layers import layers_report
            from hiresvit.workflows.compare_layers import compare_sources_by_layer

            with out.progress() as on_step:
                found, missed = compare_sources_by_layer(
                    a,
                    b,
                    images,
                    drawn=comparing.images,
                    runner=running.runner,
                    tolerance=comparing.layer_sqnr,
                    smallest=comparing.smallest,
                    on_step=on_step,
                )
            document, report, notes = {"layers": found}, layers_report(found), []
        else:
            from hiresvit.report.results import compare_report
            from hiresvit.workflows.compare import compare_sources

            found, missed = compare_sources(a, b, images, drawn=comparing.images, limits=asked)
            notes = found.pop("notes")
            document, report = {"parity": found}, compare_report(found)
    out.answer(as_json, document, report, missed, [*notes_of([a, b]), *notes], save=output)


def _open(
    stack: ExitStack, reference: str, test: str, model: opt.ModelOptions, running: Running, *, refused: bool
) -> list[Source]:
    """Both sides; a graph that its runner does not take stands for itself if ``refused`` ones are wanted, too."""
    pair, how = [(reference, None), (test, running.runner)], How(threads=running.threads)
    try:
        return open_sources(stack, pair, model, running.graph, **how)
    except (UsageError, MissingDependency, ArtefactError):
        raise
    except HiresvitError as error:
        if not refused or running.runner is None or not Path(test).is_file():
            raise
        from hiresvit.workflows.watched import Refused

        a, b = open_sources(stack, [(reference, None), (test, None)], model, running.graph, **how)
        return [a, replace(b, runner=Refused(b.runner, error), label=f"{b.label} ({running.runner})")]
