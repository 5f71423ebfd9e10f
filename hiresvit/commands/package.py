"""`hiresvit package`: a bundle as a server, a pipeline or a program takes it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from hiresvit.bundle.stages import RUNNABLE, either
from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import one_bundle


def package(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.", readable=False)],
    *,
    kind: Annotated[
        Literal["cpp", "triton", "deepstream", "isaac-ros", "python"],
        typer.Option("--format", help="What takes it: a C++ or Python program, or one of NVIDIA's."),
    ],
    graph: Annotated[
        str | None,
        typer.Option("--graph", help=f"Which of the bundle: {either(RUNNABLE)}; default: what suits the format."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Default: ./BUNDLE-FORMAT", readable=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a package that is there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Write a bundle as another program takes it, with a README of what to do on the board.

    A bundle whose contract does not fit is refused with the line that exports one which does.
    """
    began = time.monotonic()
    bundle = one_bundle(source)
    from hiresvit.workflows.package.package import package_bundle

    made = package_bundle(bundle, kind, output, graph=graph, force=force)
    found = {"bundle": str(bundle), "format": kind, "output": str(made.folder), "files": list(made.files)}
    readme = shlex.quote(str(made.folder / "README.md"))
    items = [out.wrote_line([made.folder / name for name in made.files], began), f"next: read {readme}"]
    out.answer(as_json, found, items, notes=made.notes)
