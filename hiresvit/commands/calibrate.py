"""`hiresvit calibrate`: an INT8 graph from an FP32 graph."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import one_bundle


@opt.grouped
def calibrate(
    graph: Annotated[
        Path, typer.Argument(help="An FP32 graph of ours (simplified.onnx), or a bundle with one.", readable=False)
    ],
    *,
    calibration: opt.CalibrationOptions,
    io: Annotated[Literal["fp32", "fp16"], typer.Option(help="Types at the INT8 graph's ends.")] = "fp32",
    threads: opt.Threads = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: ./GRAPH-int8.onnx", readable=False)
    ] = None,
    force: opt.ForceFile = False,
    as_json: opt.Json = False,
) -> None:
    """Make an INT8 graph and its table of ranges from an FP32 graph and pictures."""
    began = time.monotonic()
    chosen, graph = calibration.settings(threads), one_bundle(graph)
    out.load_onnxruntime()
    from hiresvit.report.int8 import int8_report
    from hiresvit.workflows.calibrate import quantize_file

    with out.progress() as on_step:
        made = quantize_file(graph, output, chosen, io=io, force=force, on_step=on_step)
    following = f"next: hiresvit compare {shlex.quote(str(graph))} {shlex.quote(str(made.paths[0]))}"
    found = {"graph": str(graph), "output": [str(path) for path in made.paths], "int8": made.report}
    found["notes"] = list(made.notes)
    notes = [f"note: {note}" for note in made.notes]
    out.answer(as_json, found, [*int8_report(made.report), *notes, out.wrote_line(made.paths, began), following])
