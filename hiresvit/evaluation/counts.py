"""What is kept of a picture's answer: a row of counts, whose sum over pictures all metrics come from.

A row of a segmentor holds for each of D declared classes the pixels that are rightly of it, that are labelled so and
that are answered so, then the picture's boundary score and whether it has one, then each class's boundary score and
whether it has one: 5 D + 2 numbers. A row of a classifier says whether the best class is right, whether one of the best
five is, and whether the best is foreign, no class of the data set. Accuracies are in per cent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.dataset import Dataset, Sample
from hiresvit.errors import HiresvitError
from hiresvit.evaluation.boundary import boundary_scores
from hiresvit.runtime.picture_runner import LabelMap, TopClasses

TOP = 5
Row = NDArray[np.float64]


def columns(dataset: Dataset) -> int:
    """How many numbers a row has."""
    return 5 * len(dataset.classes) + 2 if dataset.task == "segment" else 4


def needed(dataset: Dataset) -> int:
    """How many of them, from the first on, `metrics` looks at."""
    return 3 * len(dataset.classes) + 2 if dataset.task == "segment" else 4


def check_sample(sample: Sample, dataset: Dataset, index: int) -> None:
    """Raise HiresvitError unless a picture has labels of its size, or one class, and all of them are declared."""
    labels = np.asarray(sample.labels)
    if dataset.task == "classify" and labels.ndim:
        raise HiresvitError(f"{dataset.name}, image {index}: labels are {labels.shape}; classification needs one class")
    if dataset.task == "segment" and labels.shape != sample.image.shape[:2]:
        size = "x".join(map(str, sample.image.shape[:2]))
        raise HiresvitError(
            f"{dataset.name}, image {index}: labels are {labels.shape}, the image is {size}; repair the pair"
        )
    found = np.unique(labels[labels != dataset.ignore] if labels.ndim else labels)
    if wrong := [int(value) for value in found if int(value) not in dataset.classes]:
        allowed = ", ".join(map(str, sorted(dataset.classes)))
        ignored = f", and {dataset.ignore} for none" if dataset.task == "segment" else ""
        raise HiresvitError(
            f"{dataset.name}, image {index}: label {wrong[0]}; allowed are {allowed}{ignored}; repair the labels"
        )


def check_labelled(sums: Row, dataset: Dataset, images: int) -> None:
    """Raise HiresvitError if no pixel of the pictures that were summed has a label."""
    if dataset.task == "segment" and not _by_class(sums, dataset)[1].any():
        raise HiresvitError(f"{dataset.name}: none of {images} images has a pixel with a label; give others")


def count(sample: Sample, answer: LabelMap | TopClasses, dataset: Dataset, *, borders: bool = True) -> Row:
    """The row of a checked picture's answer. Without ``borders`` the boundary scores, the dearest part, stay 0.

    Raises HiresvitError for a label map of another size, and for a label below 0.
    """
    if isinstance(answer, TopClasses):
        best = [found for found, _ in answer.top[:TOP]]
        truth = int(np.asarray(sample.labels))
        return np.array([best[0] == truth, truth in best, best[0] not in dataset.classes, 1], np.float64)
    if answer.labels.shape != np.shape(sample.labels) or answer.labels.min() < 0:
        found = f"{answer.labels.shape}, from {answer.labels.min()} on"
        raise HiresvitError(f"answers are {found}; they must be classes of {np.shape(sample.labels)}")
    declared = sorted(dataset.classes)
    size = len(declared)
    place = np.full(max(*declared, int(answer.labels.max())) + 1, size, np.int32)  # what is foreign is one class more
    place[declared] = range(size)
    labels, counted = np.asarray(sample.labels), np.asarray(sample.labels != dataset.ignore)
    known, found = place[np.where(counted, labels, declared[0])], place[answer.labels]
    right = known[counted & (known == found)]
    row = np.zeros(columns(dataset))
    for number, classes in enumerate((right, known[counted], found[counted])):
        row[number * size : (number + 1) * size] = np.bincount(classes, minlength=size + 1)[:size]
    if borders:
        scores = boundary_scores(known, found, counted, size)
        has = ~np.isnan(scores)
        row[3 * size : 3 * size + 2] = (scores[has].mean(), 1) if has.any() else 0
        row[3 * size + 2 :] = np.concatenate([np.where(has, scores, 0), has])
    return row


def metrics(sums: Row, dataset: Dataset, num_classes: int) -> dict[str, NDArray[np.float64]]:
    """Each metric in per cent, (...), of summed rows (..., at least `needed`); NaN where nothing was to be measured.

    mIoU and the mean accuracy (of a class, the share of its labels that are right) are means over the classes for which
    they exist, as mmseg computes them: in labels or answers, and in labels. There is a top-5 above five classes only.
    """
    if dataset.task == "classify":
        found = {"top1": _share(sums[..., 0], sums[..., 3])}
        if num_classes > TOP:
            found["top5"] = _share(sums[..., 1], sums[..., 3])
        return {name: 100 * value for name, value in found.items()}
    hits, labels, answers = _by_class(sums, dataset)
    found = {
        "miou": _mean(_share(hits, labels + answers - hits)),
        "mean_accuracy": _mean(_share(hits, labels)),
        "pixel_accuracy": _share(hits.sum(-1), labels.sum(-1)),
        "boundary_f": _share(sums[..., 3 * len(dataset.classes)], sums[..., 3 * len(dataset.classes) + 1]),
    }
    return {name: 100 * value for name, value in found.items()}


def class_rows(sums: Row, dataset: Dataset) -> list[dict[str, Any]]:
    """Each declared class of a segmentor's summed row as plain JSON, None for what is not defined for it.

    ``share`` from 0 to 1 is that of the labelled pixels, ``pixels`` how many. A class's boundary score is the mean over
    the pictures that have a border of it.
    """
    hits, labels, answers = _by_class(sums, dataset)
    scores, has = sums[3 * len(hits) + 2 :].reshape(2, len(hits))
    shares = {
        "iou": _share(hits, labels + answers - hits),
        "accuracy": _share(hits, labels),
        "boundary_f": _share(scores, has),
    }
    pixels = labels.sum()
    return [
        {
            "index": index,
            "name": dataset.classes[index],
            **{name: None if np.isnan(values[i]) else float(100 * values[i]) for name, values in shares.items()},
            "share": float(labels[i] / pixels) if pixels else 0.0,
            "pixels": int(labels[i]),
        }
        for i, index in enumerate(sorted(dataset.classes))
    ]


def foreign(sums: Row, dataset: Dataset) -> float:
    """The share of answers, from 0 to 1, that are no class of the data set."""
    if dataset.task == "classify":
        return float(sums[2] / sums[3])
    _, labels, answers = _by_class(sums, dataset)
    return float((labels.sum() - answers.sum()) / labels.sum())


def _by_class(sums: Row, dataset: Dataset) -> Row:
    """Pixels that are right, labelled and answered: (3, ..., D)."""
    size = len(dataset.classes)
    found: Row = np.moveaxis(sums[..., : 3 * size].reshape(*sums.shape[:-1], 3, size), -2, 0)
    return found


def _share(part: Row, whole: Row) -> Row:
    """NaN where there is no whole."""
    found: Row = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return found


def _mean(shares: Row) -> Row:
    """Over the last axis, without NaN."""
    known = ~np.isnan(shares)
    return _share(np.where(known, shares, 0).sum(-1), known.sum(-1).astype(np.float64))
