"""A network's answers for pictures: what each is called, and each written and told, whatever is wrong with another."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.image import STDIN, load_image
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.workflows.answer import Classification, Detection
from hiresvit.workflows.predictor import Predictor


@dataclass(frozen=True)
class Target:
    """A picture, and where its overlay and, if they are wanted, its labels go."""

    image: Path
    overlay: Path
    labels: Path | None


def name_one(image: Path, output: Path | None, labels: Path | None, task: str = "segment") -> Target:
    """The target of a single picture: files that are named, else ``STEM-TASK.png`` in the current folder.

    A folder that is there, or a name without an ending, takes a file of that name. Raises UsageError for what is no
    PNG or the picture itself.
    """
    stem = _stem(image)
    name = f"{stem}-{task}.png"
    overlay = _in_folder(output, name) if output else Path(name)
    target = Target(image, overlay, _in_folder(labels, f"{stem}.png") if labels else None)
    for option, path in (("--output", target.overlay), ("--labels", target.labels)):
        if path is not None and path.suffix.lower() != ".png":
            what = "the overlay is" if option == "--output" else "labels are"
            raise UsageError(f"{option} {path}: {what} a PNG, give a name that ends in .png")
    _check([target])
    return target


def name_many(images: Sequence[Path], output: Path, labels: Path | None, task: str = "segment") -> list[Target]:
    """Targets in folders: each picture's place below the folder that all have in common, ``STEM-TASK.png``.

    Labels are ``STEM.png``, as a data set's are. Two pictures that differ in their endings only get these into their
    names. Raises UsageError for a folder that cannot be one, for both being one, and if a picture would be replaced.
    """
    for option, folder in (("--output", output), ("--labels", labels)):
        if folder is not None and (folder.suffix.lower() == ".png" or (folder.exists() and not folder.is_dir())):
            raise UsageError(f"{option} {folder}: there are several pictures, give a folder")
    if labels is not None and os.path.abspath(labels) == os.path.abspath(output):
        raise UsageError(f"--labels {labels}: this is where the overlays go; choose another folder")
    parents = [Path(os.path.abspath(image)).parent for image in images]
    root = os.path.commonpath(parents)
    taken: set[str] = set()
    targets = []
    for image, parent in zip(images, parents, strict=True):
        place, stem = parent.relative_to(root), _stem(image)
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        for name in itertools.chain((stem, f"{stem}-{image.suffix[1:]}"), numbered):
            if (key := str(place / name).casefold()) not in taken:
                taken.add(key)
                break
        below = labels / place / f"{name}.png" if labels is not None else None
        targets.append(Target(image, output / place / f"{name}-{task}.png", below))
    _check(targets)
    return targets


def answer_picture(predictor: Predictor, target: Target, image: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    """The answer for one picture as plain values; an overlay and a segmentation's labels are written.

    Raises HiresvitError for a picture that cannot be read, an answer that is none, and a file that cannot be written.
    """
    found = predictor(load_image(target.image) if image is None else image)
    row: dict[str, Any] = {"image": str(target.image)}
    if isinstance(found, Classification):
        return row | {"top": [{"class": r.index, "name": r.name, "probability": r.probability} for r in found.top]}
    if isinstance(found, Detection):
        boxes = found.save(target.overlay)
        return row | {"output": str(target.overlay), "bytes": target.overlay.stat().st_size, "boxes": boxes}
    shares = found.save(target.overlay)
    row |= {"output": str(target.overlay), "bytes": target.overlay.stat().st_size}
    if target.labels is not None:
        found.save_labels(target.labels)
        row["label_map"] = str(target.labels)
    return row | {"shares": shares}


def answer_pictures(predictor: Predictor, targets: Sequence[Target]) -> Iterator[dict[str, Any]]:
    """`answer_picture` for one after the other; of one that has none the reason is its ``error``."""
    for target in targets:
        try:
            yield answer_picture(predictor, target)
        except HiresvitError as error:
            yield {"image": str(target.image), "error": str(error)}


def _stem(image: Path) -> str:
    return "stdin" if str(image) in STDIN else image.stem


def _in_folder(path: Path, name: str) -> Path:
    return path / name if path.is_dir() or not path.suffix else path


def _check(targets: Sequence[Target]) -> None:
    """Raise UsageError if anything that is written is one of the pictures, or the same file twice."""
    pictures = {os.path.realpath(target.image) for target in targets}
    for target in targets:
        if target.labels is not None and os.path.realpath(target.labels) == os.path.realpath(target.overlay):
            raise UsageError(f"--labels {target.labels}: this is the overlay; choose another name")
        for option, path in (("--output", target.overlay), ("--labels", target.labels)):
            if path is not None and os.path.realpath(path) in pictures:
                raise UsageError(f"{option} {path}: this is the picture itself; choose another name")
