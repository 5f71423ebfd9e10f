"""`hiresvit run`: a network's answer for one picture."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sources
from hiresvit.errors import UsageError


@opt.grouped
def run(
    source: opt.Anything,
    image: Annotated[Path, typer.Argument(help="A picture.")],
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Overlay; default: ./IMAGE-segment.png")] = None,
    dataset: opt.DatasetOptions,
    model: opt.ModelOptions,
    graph: opt.Graph = None,
    running: opt.RunnerOptions,
    as_json: opt.Json = False,
) -> None:
    """Answer for one picture: overlay or top-5."""
    began = time.monotonic()
    model.given()  # says what is wrong with an option before anything is loaded
    target, named = _overlay_name(image, output), dataset.name()
    from hiresvit.data.labels import assumption, find_labels, read_classes
    from hiresvit.data.open import open_dataset
    from hiresvit.data.preprocess import load_image
    from hiresvit.report.overlay import save_overlay
    from hiresvit.report.results import shares_table, top_table
    from hiresvit.report.tables import size_text
    from hiresvit.runtime.predictor import ClassifyResult, Predictor

    picture = load_image(image)
    with ExitStack() as stack:
        [opened] = open_sources(stack, [(source, running.runner)], model, graph, threads=running.threads)
        spec = opened.spec
        if spec is None:
            raise UsageError(f"{source} does not say what its answers mean; give one that hiresvit exported")
        if output and spec.task != "segment":
            raise UsageError(f"--output is for the overlay of a segmentation; the task is {spec.task}")
        pictures = open_dataset(named, folder=dataset.data, imgsz=spec.imgsz) if named else None
        known = read_classes(dataset.classes, spec.num_classes) if dataset.classes else opened.labels
        labels = find_labels(spec, pictures, known)
        found = Predictor(opened.runner, spec).predict(picture)
    notes = [*notes_of([opened]), *([assumed] if (assumed := assumption(labels)) else [])]
    document: dict[str, Any] = {"source": opened.label, "image": str(image), "task": spec.task}
    document["labels"] = {"source": labels.source}
    if isinstance(found, ClassifyResult):
        top = [{"class": index, "name": labels.names[index], "probability": p} for index, p in found.top]
        out.answer(as_json, document | {"top": top}, [top_table(top)], notes=notes)
        return
    shares = save_overlay(target, picture, found.labels, labels)
    size = target.stat().st_size
    wrote = f"\nwrote {target}: {size_text(size)}, in {time.monotonic() - began:.1f} s"
    following = f"next: hiresvit bench {shlex.quote(source)}"
    document |= {"output": str(target), "bytes": size, "shares": shares}
    out.answer(as_json, document, [shares_table(shares), wrote, following], notes=notes)


def _overlay_name(image: Path, output: Path | None) -> Path:
    target = output or Path(f"{image.stem}-segment.png")
    if target.suffix.lower() != ".png":
        raise UsageError(f"--output {target}: the overlay is a PNG, give a name that ends in .png")
    if target.exists() and image.exists() and target.samefile(image):
        raise UsageError(f"--output {target}: this is the picture itself; choose another name")
    return target
