"""How often a network is right on labelled pictures: mIoU and pixel accuracy, or top-1 and top-5.

Intersections and unions are summed over the whole data set before they are divided, as for the published mIoU of
Cityscapes and ADE20K. The mean of the IoUs of single pictures would be another number. Accuracies are in per cent,
shares from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.dataset import Dataset, Sample, check_fit
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner, TopClasses
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, ModelSpec, Task

_TOP = 5


@dataclass(frozen=True)
class ClassAccuracy:
    """One class of the data set: its IoU, and how many pixels (which share of the labelled ones) are of it.

    ``iou`` is None for a class that is neither in the labels nor among the answers.
    """

    index: int
    name: str
    iou: float | None
    share: float
    pixels: int


@dataclass(frozen=True)
class Accuracy:
    """What `evaluate` found.

    ``foreign`` is the share of answers (pixels, or pictures) that are classes which the data set lacks: always wrong.
    Segmentation has ``miou``, ``pixel_accuracy`` and ``classes``; classification ``top1`` and ``top5``, the latter
    only above five classes, because it says nothing below.
    """

    dataset: str
    task: Task
    images: int
    foreign: float
    miou: float | None = None
    pixel_accuracy: float | None = None
    classes: tuple[ClassAccuracy, ...] = ()
    top1: float | None = None
    top5: float | None = None

    @property
    def metric(self) -> float:
        """The one number of the task: mIoU or top-1."""
        found = self.miou if self.task == "segment" else self.top1
        assert found is not None  # `evaluate` fills in what the task has
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; without what the task does not have."""
        return {key: value for key, value in asdict(self).items() if value is not None and value != ()}


def evaluate(
    runner: Runner,
    spec: ModelSpec,
    dataset: Dataset,
    *,
    contract: ContractSpec | None = None,
    on_step: OnStep = silent,
) -> Accuracy:
    """Answer the data set's pictures, each at its own size, and count what is right.

    mIoU is the mean over the classes that the data set declares and that occur in its labels or among the answers.
    ``contract`` is what the runner takes and gives, by default tensors. ``on_step("evaluate", fraction)`` is called
    after each picture.

    Raises UsageError if the network's task or classes do not fit the data set; HiresvitError for an empty data set,
    labels that it does not declare, and a network that returns NaN or Inf.
    """
    check_fit(spec, dataset)
    if len(dataset) == 0:
        raise HiresvitError(f"{dataset.name} has no images; nothing can be measured on it")
    answers = _answers(PictureRunner(runner, spec, contract, top_k=_TOP), dataset, on_step)
    count = _segmentation if spec.task == "segment" else _classification
    return count(answers, spec.num_classes, dataset)


def confusion_matrix(
    labels: NDArray[Any], predicted: NDArray[Any], num_classes: int, ignore: int = 255
) -> NDArray[np.int64]:
    """How many pixels of which class (row) got which answer (column): int64 (num_classes, num_classes).

    ``labels`` and ``predicted`` are integers of one shape; pixels labelled ``ignore`` are left out. Raises
    UsageError if the shapes differ or an answer is no class, HiresvitError if a label is none.
    """
    if labels.shape != predicted.shape:
        raise UsageError(f"labels are {labels.shape}, answers {predicted.shape}; they must be of one size")
    counted = labels != ignore
    truth, answer = labels[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for values, what, kind in ((truth, "label", HiresvitError), (answer, "answer", UsageError)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            wrong = values.min() if values.min() < 0 else values.max()
            raise kind(f"{what} {wrong}: allowed are 0 to {num_classes - 1}, and the label {ignore} for none")
    flat = np.bincount(truth * num_classes + answer, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def iou_per_class(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union in per cent, (C,); NaN for a class that is neither in the labels nor an answer."""
    both = np.diag(matrix).astype(np.float64)
    either = matrix.sum(0) + matrix.sum(1) - both
    iou = np.full(len(matrix), np.nan)
    np.divide(100 * both, either, out=iou, where=either > 0)
    return iou


def _answers(
    predictor: PictureRunner, dataset: Dataset, on_step: OnStep
) -> Iterator[tuple[int, Sample, LabelMap | TopClasses]]:
    for index in range(len(dataset)):
        sample = dataset[index]
        yield index, sample, predictor.predict(sample.image)
        on_step("evaluate", (index + 1) / len(dataset))


def _segmentation(answers: Iterator[tuple[int, Sample, Any]], num_classes: int, dataset: Dataset) -> Accuracy:
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for index, sample, answer in answers:
        labels = np.asarray(sample.labels)
        if labels.shape != sample.image.shape[:2]:
            size = "x".join(map(str, sample.image.shape[:2]))
            raise HiresvitError(
                f"{dataset.name}, image {index}: labels are {labels.shape}, the image is {size}; repair the pair"
            )
        _check_labels(np.unique(labels[labels != dataset.ignore]), dataset, index)
        matrix += confusion_matrix(labels, answer.labels, num_classes, dataset.ignore)
    pixels = int(matrix.sum())
    if pixels == 0:
        raise HiresvitError(f"{dataset.name}: none of {len(dataset)} images has a pixel with a label; give others")
    iou, declared = iou_per_class(matrix), sorted(dataset.classes)
    rows = []
    for i in declared:
        known, count = None if np.isnan(iou[i]) else float(iou[i]), int(matrix[i].sum())
        rows.append(ClassAccuracy(i, dataset.classes[i], known, count / pixels, count))
    return Accuracy(
        dataset=dataset.name,
        task="segment",
        images=len(dataset),
        foreign=float((pixels - matrix[:, declared].sum()) / pixels),
        miou=float(np.nanmean(iou[declared])),
        pixel_accuracy=float(100 * np.trace(matrix) / pixels),
        classes=tuple(rows),
    )


def _classification(answers: Iterator[tuple[int, Sample, Any]], num_classes: int, dataset: Dataset) -> Accuracy:
    first = among_top = foreign = 0
    for index, sample, answer in answers:
        truth = np.asarray(sample.labels)
        if truth.ndim:
            raise HiresvitError(
                f"{dataset.name}, image {index}: labels are {truth.shape}; classification needs one class"
            )
        _check_labels(truth[None], dataset, index)
        best = [found for found, _ in answer.top]
        first += best[0] == int(truth)
        among_top += int(truth) in best
        foreign += best[0] not in dataset.classes
    return Accuracy(
        dataset=dataset.name,
        task="classify",
        images=len(dataset),
        foreign=foreign / len(dataset),
        top1=100 * first / len(dataset),
        top5=100 * among_top / len(dataset) if num_classes > _TOP else None,
    )


def _check_labels(found: NDArray[Any], dataset: Dataset, index: int) -> None:
    """Raise HiresvitError if a label is not among the declared classes."""
    if wrong := [int(value) for value in found if int(value) not in dataset.classes]:
        allowed = ", ".join(map(str, sorted(dataset.classes)))
        ignored = f", and {dataset.ignore} for none" if dataset.task == "segment" else ""
        raise HiresvitError(
            f"{dataset.name}, image {index}: label {wrong[0]}; allowed are {allowed}{ignored}; repair the labels"
        )
