"""`hiresvit convert`: a checkpoint in a file of our own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.errors import UsageError


@opt.grouped
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Checkpoint as the authors' code saves it.", readable=False)
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.", readable=False)],
    *,
    name: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="A name of `hiresvit list`; default: as the file's tensors say."),
    ] = None,
    model: Annotated[opt.ModelOptions, opt.Without("weights", "imgsz", *opt.PICTURES)],
    classes: opt.Classes = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Check a checkpoint against a model and write it as safetensors.

    The file has the weights of one task under the names of our models, and says which model they are for.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: what is written is safetensors, give a name that ends in .safetensors")
    from hiresvit.data.labels import labels_to_json, read_classes
    from hiresvit.export.contract import untrained_note
    from hiresvit.models.create import convert_weights, find_spec, recognise_spec
    from hiresvit.report.tables import size_text

    given = model.given()
    asked = find_spec(name, source, **given) if name else recognise_spec(source, **given)
    spec, missing = asked.spec, model.allow_missing is not None
    labels = read_classes(classes, spec.num_classes) if classes else None
    report = convert_weights(
        spec,
        source,
        target,
        ema=model.ema,
        entry=model.entry,
        allow_missing_head=missing,
        labels=labels,
        force=force,
    )
    size, named = target.stat().st_size, labels or report.labels
    notes = [*asked.notes, *report.lines(source), *([untrained_note(report.untrained)] if report.untrained else [])]
    found = {"output": str(target), "bytes": size, "model": spec.name, "task": spec.task}
    found |= {key: getattr(report, key) for key in ("source", "loaded", "left_out", "fresh", "untrained")}
    found |= {"notes": notes, "labels": named and labels_to_json(named)}
    wrote = f"wrote {target}: {size_text(size)}, {spec.name} for {spec.task}"
    following = f"next: hiresvit export {shlex.quote(str(target))}"
    out.answer(as_json, found, [*(f"note: {line}" for line in notes), wrote, following])
