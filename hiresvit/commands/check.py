"""`hiresvit check`: whether a graph will make a good plan."""

from __future__ import annotations

from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import one_bundle
from hiresvit.errors import UsageError


@opt.grouped
def check(
    graph: opt.BuildGraph,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="jetpack6, jetpack7, trt11 or rtx (default: these), or a chip as ar1 or sm8650; may be repeated.",
        ),
    ] = None,
    which: opt.BundleGraph = None,
    shapes: opt.Shapes = None,
    device: opt.DeviceOptions,
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

    First our own rules, then TensorRT-RTX's parser and a build that needs no GPU, or, for a chip, Qualcomm's
    compiler. An illegal graph gives exit code 3, a precision that is not reached 4.
    """
    from hiresvit.engine.build import BuildSettings
    from hiresvit.engine.profiles import parse_shapes

    settings = BuildSettings(shapes=parse_shapes(shapes or ()))
    board = device.board()
    if board and no_build:
        raise UsageError("--device holds a plan to its limits, and --no-build makes none: leave one of them out")
    if require_precision and no_build:
        raise UsageError("--require-precision looks at a build: leave --no-build out")
    from hiresvit.check.check import check_graph
    from hiresvit.check.targets import TARGETS, find_target
    from hiresvit.report.check import check_report
    from hiresvit.workflows.build import find_graph
    from hiresvit.workflows.build_htp import find_checked

    targets = list(dict.fromkeys(find_target(name) for name in target or TARGETS))
    chips = [one.chip for one in targets if one.chip]
    if board and len(chips) == len(targets):
        raise UsageError("--device holds TensorRT's plan to its limits, and --target names chips only: leave one out")
    source = one_bundle(graph)
    path = find_checked(source, chips, which) if len(chips) == len(targets) else find_graph(source, which)
    with out.progress() as on_step:
        found = check_graph(
            path,
            targets,
            settings,
            build=not no_build,
            require=require_precision,
            on_progress=lambda phase, done: on_step(f"build: {phase}", done),
        )
    document = found.to_json(board)
    out.answer(as_json, document, check_report(document), found.failure)
