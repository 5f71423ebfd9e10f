"""`hiresvit run`: a network's answer for a picture, or for each of many."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiresvit.commands import options as opt
from hiresvit.commands import output as out
from hiresvit.commands.opening import notes_of, open_sources
from hiresvit.errors import HiresvitError, UsageError

if TYPE_CHECKING:
    from hiresvit.workflows.run import Target


@dataclass(frozen=True)
class WrittenOptions:
    """What is written."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Overlay; default: ./PICTURE-TASK.png. Of several pictures, a folder.",
            readable=False,
        ),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", help="Also write the labels, a palette PNG. Of several pictures, a folder.", readable=False
        ),
    ] = None


@opt.grouped
def run(
    source: opt.Anything,
    images: Annotated[
        list[str], typer.Argument(metavar="PICTURE...", help="Pictures, folders, 'patterns*'; - is stdin.")
    ],
    *,
    written: WrittenOptions,
    dataset: opt.DatasetOptions,
    model: opt.ModelOptions,
    graph: opt.Graph = None,
    running: opt.RunnerOptions,
    as_json: opt.Json = False,
) -> None:
    """Answer for pictures: overlay, top-5 or boxes."""
    began = time.monotonic()
    model.given()  # says what is wrong with an option before anything is loaded
    named = dataset.name()
    from hiresvit.data.image import load_image
    from hiresvit.data.labels import assumption, find_labels, read_classes
    from hiresvit.data.open import open_dataset
    from hiresvit.workflows.predictor import Predictor
    from hiresvit.workflows.run import answer_picture, answer_pictures

    targets, single, notes = _targets(images, written.output, written.labels)
    picture = load_image(targets[0].image) if single else None
    for note in notes:
        out.print_note(note)
    with ExitStack() as stack:
        [opened] = open_sources(stack, [(source, running.runner)], model, graph, threads=running.threads)
        spec = opened.spec
        if spec is None:
            raise UsageError(f"{source} does not say what its answers mean; give one that hiresvit exported")
        if written.output and spec.task not in ("segment", "detect"):
            raise UsageError(f"--output is for the overlay of a segmentation or of boxes; the task is {spec.task}")
        if written.labels and spec.task != "segment":
            raise UsageError(f"--labels is for the labels of a segmentation; the task is {spec.task}")
        if spec.task == "detect":
            targets = _targets(images, written.output, None, "detect")[0]
        pictures = open_dataset(named, folder=dataset.data, split=dataset.split, imgsz=spec.imgsz) if named else None
        known = read_classes(dataset.classes, spec.num_classes) if dataset.classes else opened.labels
        meaning = find_labels(spec, pictures, known)
        predictor = Predictor.of_source(opened, meaning)
        if single:
            rows = [answer_picture(predictor, targets[0], picture)]
        else:
            on_step, rows = stack.enter_context(out.progress()), []
            for row in answer_pictures(predictor, targets):
                rows.append(row)
                on_step("answer", len(rows) / len(targets))
                if "error" in row:
                    out.print_note(row["error"])
    document: dict[str, Any] = {"source": opened.label, "task": spec.task, "labels": {"source": meaning.source}}
    document |= {"left_out": notes, "pictures": rows}
    if single:
        document |= rows[0]
    emulated = opened.runner.about.emulated  # whose seconds nobody shall take for a device's
    following = [] if emulated else [f"next: hiresvit bench {shlex.quote(source)}"]
    said = [*notes_of([opened]), *([assumed] if (assumed := assumption(meaning)) else [])]
    report = _report(rows, single, None if emulated else began)
    out.answer(as_json, document, [*report, *following], _failure(rows), said)


def _targets(
    texts: list[str], output: Path | None, labels: Path | None, task: str = "segment"
) -> tuple[list[Target], bool, list[str]]:
    """What is read and written, whether it is a single file that was named, and what was left out."""
    from hiresvit.data.source import find_files
    from hiresvit.workflows.run import name_many, name_one

    folders = [Path(text) for text in texts if os.path.isdir(text)]
    default = f"{Path(os.path.abspath(folders[0])).name}-{task}" if len(texts) == len(folders) == 1 else task
    folder = output or Path(default)
    for option, path in (("--output", folder), ("--labels", labels)):
        if path is not None and any(one.samefile(path) for one in folders if path.exists()):
            raise UsageError(f"{option} {path}: this is where the pictures are; choose another folder")
    found = find_files(texts, besides=[path for path in (folder, labels) if path is not None])
    single = len(texts) == len(found.paths) == 1 and not folders
    if single:
        return [name_one(found.paths[0], output, labels, task)], True, found.notes()
    return name_many(found.paths, folder, labels, task), False, found.notes()


def _report(rows: list[dict[str, Any]], single: bool, began: float | None) -> list[Any]:
    """The answers as tables, and what was written."""
    from hiresvit.report.results import boxes_table, pictures_table, shares_table, top_table
    from hiresvit.report.tables import size_text

    seconds = "" if began is None else f", in {time.monotonic() - began:.1f} s"
    painted = [row for row in rows if "output" in row]
    if not single:
        total = size_text(sum(row["bytes"] for row in painted))
        folder = os.path.commonpath([os.path.dirname(row["output"]) or "." for row in painted]) if painted else ""
        wrote = f"wrote {len(painted)} overlays to {folder}: {total}{seconds}"
        return [pictures_table(rows), f"\n{wrote}"] if painted else [pictures_table(rows)]
    [row] = rows
    if not painted:
        return [top_table(row["top"])]
    also = f", {row['label_map']}" if "label_map" in row else ""
    wrote = f"\nwrote {row['output']}: {size_text(row['bytes'])}{also}{seconds}"
    return [boxes_table(row["boxes"]) if "boxes" in row else shares_table(row["shares"]), wrote]


def _failure(rows: list[dict[str, Any]]) -> HiresvitError | None:
    """What ends the command if pictures have no answer."""
    if not (failed := [row for row in rows if "error" in row]):
        return None
    return HiresvitError(f"{len(failed)} of {len(rows)} pictures have no answer, the others do: {failed[0]['error']}")
