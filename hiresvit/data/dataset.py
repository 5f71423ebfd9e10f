"""What a labelled data set is: the protocol, a sample, two views on one, and what its labels mean."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import UsageError
from hiresvit.spec import ModelSpec, Task, is_raw

IGNORE = 255  # the label of a pixel that counts for nothing, where a data set does not say another
Colour = tuple[int, int, int]

# Class order, names and colours of Cityscapes' 19 evaluated classes (cityscapesScripts, labels.py).
CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}


@dataclass(frozen=True, eq=False)
class Sample:
    """A uint8 (H, W, 3) RGB image and its labels: integers (H, W), or one class."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8] | NDArray[np.uint16] | int


class Dataset(Protocol):
    """Labelled pictures, made or read one at a time.

    ``classes``: those that the labels use, by their number in the network's answer; ``colours``: of those that have
    one. ``ignore`` is the label of what counts for nothing. ``exact``: whether a network for it answers just these
    classes, as one for Cityscapes does; the classes of others may be some of a network's.
    """

    name: str
    task: Task
    classes: Mapping[int, str]
    colours: Mapping[int, Colour]
    ignore: int
    exact: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def name_of(self, index: int) -> str:
        """What a report calls a picture, without reading it: its path in the data set's folder, or its seed.

        No two pictures of a data set share one, and it stays when the folder is moved.
        """
        ...

    def files_of(self, index: int) -> tuple[Path, ...]:
        """The files that a picture and its labels are read from; none of what is drawn."""
        ...


class Part:
    """Some samples of a data set, by their numbers in it."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.name, self.task = dataset.name, dataset.task
        self.classes, self.colours, self.ignore = dataset.classes, dataset.colours, dataset.ignore
        self.exact = dataset.exact
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def name_of(self, index: int) -> str:
        """As the whole data set calls it."""
        return self.dataset.name_of(self.indices[index])

    def files_of(self, index: int) -> tuple[Path, ...]:
        """Those of the whole data set."""
        return self.dataset.files_of(self.indices[index])


class Kept(Part):
    """A data set that stays in memory once it was drawn, which takes as long as answering it does."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, range(len(dataset)))
        self.draw = cache(super().__getitem__)

    def __getitem__(self, index: int) -> Sample:
        return self.draw(index)


def check_fit(spec: ModelSpec, dataset: Dataset) -> None:
    """Raise UsageError unless the network has the data set's task, and an answer for each of its classes.

    Of an ``exact`` data set also if it has more: with 1001 answers for ImageNet's 1000 the first may be the background
    and all others one off, and 150 are another data set's.
    """
    if spec.task == "detect":
        raise UsageError(
            f"{spec.name} finds boxes, whose accuracy is not measured here: `hiresvit run SOURCE FOLDER --json` writes"
            " them, COCO's pycocotools computes the mAP of that"
        )
    if spec.task != dataset.task:
        raw = f"{spec.name} gives raw {spec.task}" if is_raw(spec.task) else f"{spec.name} is a network to {spec.task}"
        raise UsageError(
            f"{raw}, {dataset.name} has labels to {dataset.task};"
            f" give a network and a data set of one task, such as one exported with --task {dataset.task}"
        )
    missing = [i for i in dataset.classes if not 0 <= i < spec.num_classes]
    if missing:
        name = dataset.classes[missing[0]]
        raise UsageError(
            f"{spec.name} answers classes 0 to {spec.num_classes - 1}, {dataset.name} has class {missing[0]}"
            f" ({name}); give a network with the data set's classes"
        )
    if dataset.exact and spec.num_classes != len(dataset.classes):
        raise UsageError(
            f"{spec.name} answers {spec.num_classes} classes, {dataset.name} has {len(dataset.classes)};"
            " give a network with the data set's classes"
        )


@dataclass(frozen=True)
class ClassList:
    """Names and, where they are given, colours by the class's number; ``ignore`` is -1 where nothing is ignored."""

    task: Task
    classes: Mapping[int, str]
    colours: Mapping[int, Colour]
    ignore: int


@dataclass(frozen=True, eq=False)
class Labels:
    """What a network's answers mean: a name for each class, and its colour as a row of uint8 (K, 3).

    ``source`` says whose names they are: ``checkpoint``, ``file``, ``dataset``, a table of `hiresvit.data.labels`, that
    table assumed, or "" where they are numbers.
    """

    names: tuple[str, ...]
    colours: NDArray[np.uint8]
    source: str = ""


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Colours (num_classes, 3) for classes that have none of their own: hues a golden ratio apart."""
    colours = [
        colorsys.hsv_to_rgb(i * 0.6180339887 % 1, (0.9, 0.6, 0.75)[i % 3], (0.95, 0.7)[i % 2])
        for i in range(num_classes)
    ]
    return np.round(np.array(colours) * 255).astype(np.uint8)
