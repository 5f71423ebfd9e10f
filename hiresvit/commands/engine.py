"""The commands about plans: `build` one, `check` whether a graph will make a good one."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hiresvit.bundle.stages import BUILDABLE, either
from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import UsageError

BuildGraph = Annotated[Path, typer.Argument(metavar="GRAPH", help="An .onnx file or a bundle folder.")]
BundleGraph = Annotated[
    str | None,
    typer.Option("--graph", help=f"Which of a bundle: {BUILDABLE[0]} (default), {either(BUILDABLE[1:])}."),
]
Backend = Annotated[
    str | None, typer.Option("--backend", help="tensorrt or tensorrt_rtx; default: what is installed.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shapes", metavar="NAME=MIN:OPT:MAX", help="Shapes of a dynamic input, as 1x3x512x512."),
]
Workspace = Annotated[
    float | None,
    typer.Option("--workspace", metavar="MIB", help="Most scratch memory; default: all there is."),
]
TimingCache = Annotated[
    Path | None, typer.Option("--timing-cache", metavar="DIR", help="Keep TensorRT's measurements here.")
]
OptLevel = Annotated[int | None, typer.Option("--opt-level", metavar="N", help="0 (quick) to 5; default: 3.")]
AuxStreams = Annotated[
    int, typer.Option("--aux-streams", metavar="N", help="Streams beside the first; each costs memory.")
]
HwCompat = Annotated[
    Literal["ampere+", "same"] | None,
    typer.Option("--hw-compat", help="TensorRT: also for other GPUs, or others of the same capability."),
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="TensorRT: a plan that later versions load, too.")
]
Sm = Annotated[
    str | None, typer.Option("--sm", metavar="86,89,120", help="TensorRT-RTX: the GPUs to compile for.")
]


def build(
    graph: BuildGraph,
    *,
    which: BundleGraph = None,
    backend: Backend = None,
    shapes: Shapes = None,
    workspace: Workspace = None,
    timing_cache: TimingCache = None,
    opt_level: OptLevel = None,
    aux_streams: AuxStreams = 0,
    hw_compat: HwCompat = None,
    version_compatible: VersionCompatible = False,
    sm: Sm = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build nothing; print the line for NVIDIA's own program.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: ./STEM.plan, or ./BUNDLE-fp16.plan")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Build a plan, and say what became of the graph.

    Precision is in the graph: there is no option for it. Beside the plan is written what is known about it.
    """
    began = time.monotonic()
    settings = parse_build(
        backend=backend,
        shapes=shapes,
        workspace=workspace,
        timing_cache=timing_cache,
        opt_level=opt_level,
        max_aux_streams=aux_streams,
        hw_compat=hw_compat,
        version_compatible=version_compatible,
        sm=sm,
    )
    from hiresvit.report.results import engine_report
    from hiresvit.workflows.build import build_file, trtexec_lines

    if dry_run:
        lines = trtexec_lines(graph, output, settings, which)
        out.answer(as_json, {"lines": lines}, [f"# {line['title']}\n{line['line']}" for line in lines])
        return
    with out.progress() as on_step:
        made = build_file(
            graph,
            output,
            settings,
            graph=which,
            force=force,
            on_progress=lambda phase, done: on_step(f"build: {phase}", done),
        )
    plan = shlex.quote(str(made.paths[0]))
    following = f"run {plan} PHOTO.jpg" if made.report.device else f"inspect {plan}"
    engine = made.report.to_json()
    found = {"graph": str(graph), "output": [str(path) for path in made.paths], "engine": engine}
    out.answer(
        as_json,
        found,
        [*engine_report(engine), out.wrote_line(made.paths, began), f"next: hiresvit {following}"],
    )


def check(
    graph: BuildGraph,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="jetpack6, jetpack7, trt11 or rtx; may be repeated; default: all."),
    ] = None,
    which: BundleGraph = None,
    shapes: Shapes = None,
    require_precision: Annotated[
        str | None,
        typer.Option("--require-precision", metavar="fp16:95%", help="Least share of the products in it."),
    ] = None,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Our own rules only, which need nothing installed.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Say whether a graph is legal for a target, and what becomes of it.

    First our own rules, then TensorRT-RTX's parser and a build that needs no GPU. An illegal graph gives exit
    code 3, a precision that is not reached 4.
    """
    settings = parse_build(shapes=shapes)
    if require_precision and no_build:
        raise UsageError("--require-precision looks at a build: leave --no-build out")
    from hiresvit.check.check import check_graph
    from hiresvit.check.targets import TARGETS, find_target
    from hiresvit.report.check import check_report
    from hiresvit.workflows.build import find_graph

    targets = [find_target(name) for name in dict.fromkeys(target or TARGETS)]
    path = find_graph(graph, which)
    with out.progress() as on_step:
        found = check_graph(
            path,
            targets,
            settings,
            build=not no_build,
            require=require_precision,
            on_progress=lambda phase, done: on_step(f"build: {phase}", done),
        )
    document = found.to_json()
    out.answer(as_json, document, check_report(document), found.failure)


def parse_build(
    *, shapes: list[str] | None, workspace: float | None = None, sm: str | None = None, **rest: Any
) -> Any:
    """`BuildSettings` from what was typed. Raises UsageError on texts that cannot be read."""
    from hiresvit.engine.build import BuildSettings
    from hiresvit.engine.profiles import parse_shapes

    if (
        workspace is not None and not 1 <= workspace * 2**20 < 2**60
    ):  # as an integer of 64 bits with room to spare
        raise UsageError(f"--workspace {workspace:g}: give a size in MiB, more than 0, as 512")
    numbers = (sm or "").split(",") if sm is not None else []
    if not all(re.fullmatch(r" *\d{2,3} *", number, re.ASCII) for number in numbers):
        raise UsageError(f"--sm {sm}: give numbers such as 86,89,120")
    return BuildSettings(
        shapes=parse_shapes(shapes or ()),
        workspace=None if workspace is None else int(workspace * 2**20),
        sm=tuple(int(number) for number in numbers),
        **rest,
    )
