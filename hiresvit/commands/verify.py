"""`hiresvit verify`: whether a bundle is whole, answers here as it should, and says true numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hiresvit.bundle.stages import RUNNABLE, either
from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import one_bundle


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.", readable=False)],
    *,
    runner: Annotated[
        list[str] | None,
        typer.Option("--runner", metavar="NAME", help=f"What runs its files, may be repeated: {opt.RUNNERS}."),
    ] = None,
    graph: Annotated[
        list[str] | None,
        typer.Option("--graph", help=f"Only these, may be repeated: {either(RUNNABLE)}; default: all."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE|fresh",
            help="What it was made from: compute the report's parity again with PyTorch.",
        ),
    ] = None,
    threads: opt.Threads = None,
    output: opt.Save = None,
    as_json: opt.Json = False,
) -> None:
    """Check a bundle: sums, golden pair, plans and the numbers of its report.

    Ends with 7 for what is damaged, stale or does not match, with 4 for an answer or a number that misses, with 6 for a
    runner that cannot start.
    """
    out.load_onnxruntime()
    from hiresvit.report.verify import verify_report
    from hiresvit.workflows.verify import verify_bundle

    with out.progress() as on_step:
        found, failure = verify_bundle(
            one_bundle(bundle),
            runners=runner or (),
            graphs=graph or (),
            weights=weights,
            threads=threads,
            on_step=on_step,
        )
    out.answer(as_json, {"verify": found}, verify_report(found), failure, [], save=output)
