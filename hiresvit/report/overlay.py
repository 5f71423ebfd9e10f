"""Labels painted over a picture for people to look at, and how much of it is of which class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.dataset import Labels
from hiresvit.data.preprocess import check_image
from hiresvit.errors import UsageError
from hiresvit.files import atomic_path


def overlay(image: NDArray[np.uint8], labels: NDArray[Any], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mix a uint8 (H, W, 3) image half and half with the colours (K, 3) of the classes of its labels (H, W).

    Raises UsageError if the sizes differ or a label is outside 0..K-1.
    """
    check_image(image)
    if labels.shape != image.shape[:2]:
        raise UsageError(f"labels are {labels.shape}, the image is {image.shape[:2]}; they must be of one size")
    if labels.min() < 0 or labels.max() >= len(colours):
        found = f"{labels.min()} to {labels.max()}"
        raise UsageError(f"labels run from {found}; {len(colours)} classes end at {len(colours) - 1}")
    return np.asarray((image.astype(np.uint16) + colours[labels] + 1) >> 1, np.uint8)


def save_overlay(target: Path, image: NDArray[np.uint8], labels: NDArray[Any], meaning: Labels) -> list[dict[str, Any]]:
    """Write the overlay as a PNG and return `class_shares`."""
    painted = Image.fromarray(overlay(image, labels, meaning.colours))
    with atomic_path(target) as temporary:
        painted.save(temporary, "PNG")
    return class_shares(labels, meaning.names)


def class_shares(labels: NDArray[Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The share of each class that is there, largest first: its number, its name, and 0 to 1 of the pixels."""
    counts = np.bincount(labels.ravel(), minlength=len(names))
    rows = [{"class": k, "name": names[k], "share": int(n) / labels.size} for k, n in enumerate(counts) if n]
    return sorted(rows, key=lambda row: -row["share"])
