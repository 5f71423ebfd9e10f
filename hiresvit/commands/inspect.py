"""`hiresvit inspect`: what can be said of a network without running it."""

from __future__ import annotations

from pathlib import Path

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import one_bundle


@opt.grouped
def inspect(
    source: opt.Anything, *, entry: opt.Entry = None, device: opt.DeviceOptions, as_json: opt.Json = False
) -> None:
    """Verify a bundle and say what is in it; of a plan also what it moves, and the least time that takes."""
    board = device.board()
    out.load_onnxruntime()
    from hiresvit.report.results import inspect_report
    from hiresvit.workflows.inspect import inspect_source

    found = inspect_source(str(one_bundle(Path(source))) if source else source, entry=entry, board=board)
    out.answer(as_json, found, inspect_report(found))
