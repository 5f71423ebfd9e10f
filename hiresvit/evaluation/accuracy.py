"""How often one network is right on labelled pictures: mIoU and pixel accuracy, or top-1 and top-5.

Intersections and unions are summed over the whole data set before they are divided, as for the published mIoU of
Cityscapes and ADE20K. The mean of the IoUs of single pictures would be another number. Accuracies are in per cent,
shares from 0 to 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from hiresvit.data.dataset import Dataset, check_fit
from hiresvit.errors import HiresvitError
from hiresvit.evaluation.counts import TOP, check_labelled, check_sample, class_rows, columns, count, foreign, metrics
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.picture_runner import PictureRunner
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, ModelSpec, Task


@dataclass(frozen=True)
class ClassAccuracy:
    """One class of the data set: its IoU, and how many pixels (which share of the labelled ones) are of it.

    ``iou`` is None for a class that is neither in the labels nor among the answers, ``accuracy``, the share of its
    labels that are right, for one that is not in the labels.
    """

    index: int
    name: str
    iou: float | None
    accuracy: float | None
    share: float
    pixels: int


@dataclass(frozen=True)
class Accuracy:
    """What `evaluate` found.

    ``foreign`` is the share of answers (pixels, or pictures) that are classes which the data set lacks: always wrong.
    Segmentation has ``miou``, ``mean_accuracy``, ``pixel_accuracy`` and ``classes``; classification ``top1`` and
    ``top5``, the latter only above five classes, because it says nothing below.
    """

    dataset: str
    task: Task
    images: int
    foreign: float
    miou: float | None = None
    mean_accuracy: float | None = None
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
    predictor, sums = PictureRunner(runner, spec, contract, top_k=TOP), np.zeros(columns(dataset))
    for index in range(len(dataset)):
        sample = dataset[index]
        check_sample(sample, dataset, index)
        sums += count(sample, predictor.predict(sample.image), dataset, borders=False)
        on_step("evaluate", (index + 1) / len(dataset))
    check_labelled(sums, dataset, len(dataset))
    found = {name: float(value) for name, value in metrics(sums, dataset, spec.num_classes).items()}
    found.pop("boundary_f", None)  # nobody looked
    names = [field.name for field in fields(ClassAccuracy)]
    rows = class_rows(sums, dataset) if spec.task == "segment" else []
    return Accuracy(
        dataset=dataset.name,
        task=dataset.task,
        images=len(dataset),
        foreign=foreign(sums, dataset),
        classes=tuple(ClassAccuracy(**{name: row[name] for name in names}) for row in rows),
        **found,
    )
