"""`hiresvit bench`: how long networks take."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sides
from hiresvit.errors import GateError, UsageError

if TYPE_CHECKING:
    from hiresvit.device.boards import Board
    from hiresvit.workflows.bench import BenchSettings

_BOUNDED = {
    "p50": "median_ms",
    "median": "median_ms",
    **{name: f"{name}_ms" for name in ("p90", "p95", "p99", "mean", "max")},
}


@dataclass(frozen=True)
class Measuring:
    """What is measured."""

    mode: Annotated[
        Literal["call", "frame", "stream", "offline"],
        typer.Option(
            "--mode", help="call: the network; frame: a picture's file to labels; stream; offline: throughput."
        ),
    ] = "call"
    image: Annotated[
        Path | None, typer.Option("--image", help="The picture of a frame; default: one is drawn.", readable=False)
    ] = None
    fps: Annotated[float | None, typer.Option("--fps", help="Frames a second of a stream; default: 30.")] = None
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images of a call in mode offline.")] = None
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph", help="Launch the kernels of a plan as one.")] = False

    def check(self) -> None:
        """Raise UsageError for an option that the mode has no use for."""
        frames = ("frame", "stream")
        rows = (
            ("--image", self.image, frames),
            ("--fps", self.fps, ("stream",)),
            ("--batch", self.batch, ("offline",)),
        )
        for option, value, modes in rows:
            if value is not None and self.mode not in modes:
                raise UsageError(f"{option} {value}: for --mode {' and '.join(modes)}, this is {self.mode}")
        if self.fps is not None and not 0.1 <= self.fps <= 1000:  # fewer is no end of waiting, more no end of frames
            raise UsageError(f"--fps {self.fps:g}: give a number from 0.1 to 1000")


@dataclass(frozen=True)
class Timing:
    """How long, and what it must come to."""

    min_s: Annotated[float, typer.Option(help="Seconds to measure each side for, at least.")] = 3.0
    max_s: Annotated[float | None, typer.Option(help="Seconds at most; default: three times --min-s.")] = None
    rel_error: Annotated[
        float, typer.Option("--rel-error", metavar="PERCENT", help="Go on until every median is known to within this.")
    ] = 1.0
    budget_ms: Annotated[
        str | None,
        typer.Option("--budget-ms", metavar="[p99:]MS", help="Most the median, or p90, p95, p99, mean, max, may take."),
    ] = None
    power: Annotated[bool, typer.Option("--power", help="Measure joules a frame, too, 10 s or more a side.")] = False
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a side is unstable, or the machine busy, throttled or changed.")
    ] = False

    def check(self) -> tuple[str, float] | None:
        """The bound of ``--budget-ms`` with its name. Raises UsageError for numbers that cannot be."""
        name, colon, text = (self.budget_ms or "").rpartition(":")
        if colon and name not in _BOUNDED:
            raise UsageError(f"--budget-ms {self.budget_ms}: give MS or NAME:MS with one of {', '.join(_BOUNDED)}")
        try:
            bound = float(text) if self.budget_ms is not None else None
        except ValueError:
            bound = math.nan
        given = (
            ("--min-s", self.min_s),
            ("--max-s", self.max_s),
            ("--rel-error", self.rel_error),
            ("--budget-ms", bound),
        )
        for option, value in given:
            if value is not None and not 0 <= value < math.inf:
                shown = self.budget_ms if option == "--budget-ms" else f"{value:g}"
                raise UsageError(f"{option} {shown}: give a number of 0 or more")
        if self.max_s is not None and self.max_s < self.min_s:
            raise UsageError(f"--max-s {self.max_s:g} is below --min-s {self.min_s:g}; give more, or less to --min-s")
        return None if bound is None else (name or "median", bound)


@dataclass(frozen=True)
class Running(opt.DeviceOptions):
    """What computes, and the device that a plan's time is held to the limits of."""

    runner: Annotated[
        list[str] | None,
        typer.Option("--runner", metavar="NAME", help=f"What opens files, may be repeated: {opt.RUNNERS}."),
    ] = None
    compiled: Annotated[bool, typer.Option("--compile", help="Measure each model name by torch.compile, too.")] = False
    threads: opt.Threads = None

    def sides(self, sources: list[str]) -> list[tuple[str, str | None]]:
        """Each source with each runner."""
        from hiresvit.workflows.open import COMPILED

        runners: list[str | None] = [None] if self.runner is None else [*self.runner]
        runners += [COMPILED] * self.compiled
        return [(source, name) for name in runners for source in sources]


@opt.grouped
def bench(
    sources: Annotated[list[str], typer.Argument(help="Model names, .onnx files, plans or bundle folders.")],
    *,
    model: Annotated[opt.ModelOptions, opt.Without(*opt.PICTURES)],
    graph: opt.Graph = None,
    measuring: Measuring,
    timing: Timing,
    running: Running,
    output: opt.Save = None,
    as_json: opt.Json = False,
) -> None:
    """Measure latency, several networks in turn."""
    bound = timing.check()
    measuring.check()
    board = running.board()
    model.given()  # says what is wrong with an option before anything is loaded
    from hiresvit.device.qnn_api import emulated
    from hiresvit.report.latency import latency_tables
    from hiresvit.runtime.open import chip_of_runner
    from hiresvit.workflows.bench import measure_sources, refused_time

    for name in running.runner or ():
        if chip_of_runner(name) and emulated():  # before minutes of compiling
            raise refused_time(f"--runner {name}")
    used = running.threads or len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        opened = open_sides(
            stack,
            running.sides(sources),
            model,
            graph,
            threads=running.threads,
            threads_used=used,
            cuda_graph=measuring.cuda_graph,
        )
        benched = measure_sources(opened, _settings(measuring, timing, used, board))
    latency: dict[str, Any] = {"threads": used, **benched.report}
    missed = [
        *(_over(latency, *bound) if bound else []),
        *([f"--strict: {mark}" for mark in latency["marks"]] if timing.strict else []),
    ]
    failure: BaseException | None = benched.interrupt
    for name, error in benched.failures.items():
        failure = failure or type(error)(str(error) if str(error).startswith(name) else f"{name}: {error}")
    if missed:
        failure = failure or GateError("; ".join(missed))
    notes = [*notes_of(opened), *benched.notes]
    out.answer(as_json, {"latency": latency}, latency_tables(latency), failure, notes, save=output)


def _settings(measuring: Measuring, timing: Timing, threads: int, board: Board | None) -> BenchSettings:
    from hiresvit.workflows.bench import BenchSettings

    given: dict[str, Any] = {"mode": measuring.mode, "image": measuring.image, "batch": measuring.batch}
    given |= {"min_s": timing.min_s, "max_s": timing.max_s, "rel_error": timing.rel_error, "power": timing.power}
    return BenchSettings(**given, fps=measuring.fps or 30.0, threads=threads, board=board)


def _over(latency: dict[str, Any], name: str, bound: float) -> list[str]:
    """The sides that take longer than ``--budget-ms`` allows."""
    return [
        f"{side}: the {name} is {found[_BOUNDED[name]]:.2f} ms, --budget-ms allows {bound:g}"
        for side, found in latency["sides"].items()
        if found["calls"] and found[_BOUNDED[name]] > bound
    ]
