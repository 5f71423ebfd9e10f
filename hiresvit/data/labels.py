"""What classes are called and how they are painted."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.dataset import Colour, Dataset, check_fit
from hiresvit.spec import ModelSpec

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
class Labels:
    """What a network's answers mean: a name for each class, and its colour as a row of uint8 (K, 3)."""

    names: tuple[str, ...]
    colours: NDArray[np.uint8]


def find_labels(spec: ModelSpec, dataset: Dataset | None = None) -> Labels:
    """The data set's names and colours for a network's answers; without one, what the number of classes suggests.

    Nineteen classes to segment are taken for Cityscapes', others are ``class 0``, ``class 1`` and so on, and so is
    what a data set leaves out. Raises UsageError if the network does not fit the data set.
    """
    count = spec.num_classes
    if dataset is not None:
        check_fit(spec, dataset)
        colours = palette(count)
        for index, colour in dataset.colours.items():
            colours[index] = colour
        return Labels(tuple(dataset.classes.get(i, f"class {i}") for i in range(count)), colours)
    if spec.task == "segment" and count == len(CITYSCAPES):
        return Labels(tuple(CITYSCAPES), np.array(list(CITYSCAPES.values()), np.uint8))
    return Labels(tuple(f"class {i}" for i in range(count)), palette(count))


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Colours (num_classes, 3) for classes that have none of their own: hues a golden ratio apart."""
    colours = [
        colorsys.hsv_to_rgb(i * 0.6180339887 % 1, (0.9, 0.6, 0.75)[i % 3], (0.95, 0.7)[i % 2])
        for i in range(num_classes)
    ]
    return np.round(np.array(colours) * 255).astype(np.uint8)
