"""What a labelled data set is: the protocol, a sample, and two views on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import UsageError
from hiresvit.spec import ModelSpec, Task

IGNORE = 255  # the label of a pixel that counts for nothing, where a data set does not say another
Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Sample:
    """A uint8 (H, W, 3) RGB image and its labels: integers (H, W), or one class."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8] | NDArray[np.uint16] | int


class Dataset(Protocol):
    """Labelled pictures, made or read one at a time.

    ``classes``: those that the labels use, by their number in the network's answer; ``colours``: of those that have
    one. ``ignore`` is the label of what counts for nothing.
    """

    name: str
    task: Task
    classes: Mapping[int, str]
    colours: Mapping[int, Colour]
    ignore: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class Part:
    """Some samples of a data set, by their numbers in it."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.name, self.task = dataset.name, dataset.task
        self.classes, self.colours, self.ignore = dataset.classes, dataset.colours, dataset.ignore
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


class Kept(Part):
    """A data set that stays in memory once it was drawn, which takes as long as answering it does."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, range(len(dataset)))
        self.draw = cache(super().__getitem__)

    def __getitem__(self, index: int) -> Sample:
        return self.draw(index)


def check_fit(spec: ModelSpec, dataset: Dataset) -> None:
    """Raise UsageError unless the network has the data set's task, and an answer for each of its classes."""
    if spec.task != dataset.task:
        raise UsageError(
            f"{spec.name} is a network to {spec.task}, {dataset.name} has labels to {dataset.task};"
            " give a network and a data set of one task"
        )
    missing = [i for i in dataset.classes if not 0 <= i < spec.num_classes]
    if missing:
        name = dataset.classes[missing[0]]
        raise UsageError(
            f"{spec.name} answers classes 0 to {spec.num_classes - 1}, {dataset.name} has class {missing[0]}"
            f" ({name}); give a network with the data set's classes"
        )
