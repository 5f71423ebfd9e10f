"""`hiresvit convert`: a checkpoint in a file of our own."""

from __future__ import annotations

import shlex
from dataclasses import asdict
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
    name: Annotated[str, typer.Option("--model", metavar="NAME", help="A name of `hiresvit list`.")],
    model: Annotated[opt.ModelOptions, opt.Without("weights", "imgsz", "preprocess")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Check a checkpoint against a model and write it as safetensors.

    The file has the weights of one task under the names of our models, and says which model they are for.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: what is written is safetensors, give a name that ends in .safetensors")
    from hiresvit.models.create import convert_weights, model_spec
    from hiresvit.report.tables import size_text

    spec = model_spec(name, model.task, None, model.num_classes, **model.overrides())
    missing = model.allow_missing is not None
    report = convert_weights(spec, source, target, ema=model.ema, allow_missing_head=missing, force=force)
    size = target.stat().st_size
    found = {"output": str(target), "bytes": size, "model": name, "task": spec.task, **asdict(report)}
    wrote = f"wrote {target}: {size_text(size)}, {name} for {spec.task}"
    classes = f" --num-classes {spec.num_classes}" if model.num_classes else ""
    following = f"next: hiresvit export {name} --task {spec.task}{classes} --weights {shlex.quote(str(target))}"
    items = [*(f"note: {line}" for line in report.lines(source)), wrote, following]
    out.answer(as_json, found, items)
