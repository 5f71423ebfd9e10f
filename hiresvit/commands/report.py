"""`hiresvit report`: bundles and what was measured of them, as one page to forward."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import UsageError

_SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json"}


def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE|RESULT.json|SWEEP.jsonl...",
            help="Bundle folders, what eval, bench, compare and verify wrote with -o, and files of sweeps.",
            readable=False,
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: report.html", readable=False),
    ] = None,
    kind: Annotated[
        Literal["html", "md", "json"] | None,
        typer.Option("--format", help="One HTML file (default), Markdown or JSON; else by the file's suffix."),
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option("--budget-ms", metavar="MS", help="Name a sweep's most accurate cell within this time."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="CLASS", help="Of this class only, with --budget-ms.")
    ] = None,
    force: opt.ForceFile = False,
    as_json: opt.Json = False,
) -> None:
    """Write what is known of bundles as one page: a file without network or scripts."""
    began = time.monotonic()
    by_suffix = _SUFFIXES.get(output.suffix.lower()) if output else kind or "html"
    if kind and by_suffix and kind != by_suffix:
        raise UsageError(f"--format {kind} and {output}: leave --format out, or choose another name")
    form = kind or by_suffix
    if form is None:
        raise UsageError(f"{output}: its suffix says no format; end it in .html, .md or .json, or give --format")
    if device is not None and budget_ms is None:
        raise UsageError("--device names the class that --budget-ms is for: give both")
    target = output or Path(f"report.{form}")
    from hiresvit.report.sweep_parts import sweep_report
    from hiresvit.workflows.report import write_report

    page = write_report(sources, target, form, force=force, budget_ms=budget_ms, device=device)  # type: ignore[arg-type]
    loud = [line for line in page["warnings"] if line["level"] != "note"]
    found = {"output": str(target), "format": form, "bytes": target.stat().st_size}
    found |= {"bundles": len(page["bundles"]), "results": len(page["results"]), "warnings": loud}
    sweep = page["sweep"]
    found |= {"sweep": {key: sweep[key] for key in ("files", "failures", "fronts", "best")}} if sweep else {}
    lines = [f"{line['level']}: {line['about']}: {line['text']}" for line in loud]
    out.answer(
        as_json, {"report": found}, [*lines, *(sweep_report(sweep) if sweep else ()), out.wrote_line([target], began)]
    )
