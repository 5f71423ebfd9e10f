"""`hiresvit bench`: how long networks take."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sources
from hiresvit.errors import GateError, UsageError


@dataclass(frozen=True)
class Timing:
    """How it is measured."""

    min_s: Annotated[float, typer.Option(help="Seconds to measure each side for.")] = 3.0
    budget_ms: Annotated[float | None, typer.Option(help="Most the median may take.")] = None
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph", help="Launch the kernels of a plan as one.")] = False


@opt.grouped
def bench(
    sources: Annotated[list[str], typer.Argument(help="Model names, .onnx files or bundle folders.")],
    *,
    model: Annotated[opt.ModelOptions, opt.Without(*opt.PICTURES)],
    graph: opt.Graph = None,
    timing: Timing,
    runner: Annotated[
        list[str] | None,
        typer.Option("--runner", metavar="NAME", help=f"What opens files, may be repeated: {opt.RUNNERS}."),
    ] = None,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Measure latency, several networks in turn."""
    for option, value in (("--min-s", timing.min_s), ("--budget-ms", timing.budget_ms)):
        if value is not None and not 0 <= value < math.inf:
            raise UsageError(f"{option} {value:g}: give a number of 0 or more")
    model.given()  # says what is wrong with an option before anything is loaded
    from hiresvit.report.results import latency_tables
    from hiresvit.workflows.bench import measure_sources

    used = threads or len(os.sched_getaffinity(0))
    runners: list[str | None] = [*runner] if runner else [None]
    sides = [(source, name) for name in runners for source in sources]
    with ExitStack() as stack:
        opened = open_sources(
            stack, sides, model, graph, threads=threads, threads_used=used, cuda_graph=timing.cuda_graph
        )
        latency = {"threads": used, **measure_sources(opened, timing.min_s)}
    budget = timing.budget_ms
    over = [
        f"{name}: the median is {side['median_ms']:.2f} ms, --budget-ms allows {budget:g}"
        for name, side in latency["sides"].items()
        if budget is not None and side["median_ms"] > budget
    ]
    missed = GateError("; ".join(over)) if over else None
    out.answer(as_json, {"latency": latency}, latency_tables(latency), missed, notes_of(opened))
