"""What a network says about a picture, with the names and colours of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.dataset import Labels
from hiresvit.files import atomic_path
from hiresvit.report.overlay import class_shares, paint_boxes, paint_overlay, save_labels, save_overlay


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A class for each pixel of a picture.

    ``labels`` (H, W) are of the picture's own size: uint8, int32 above 256 classes, or the type that the contract says.
    ``confidence`` is how probable each is, uint8 (H, W), 255 for certain; None where it was not asked for. ``names``
    and ``colours``, uint8 (K, 3), are those of the classes, ``picture`` is the uint8 (H, W, 3) RGB picture.
    """

    picture: NDArray[np.uint8]
    labels: NDArray[Any]
    confidence: NDArray[np.uint8] | None
    meaning: Labels

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class."""
        return self.meaning.names

    @property
    def colours(self) -> NDArray[np.uint8]:
        """A colour for each class, uint8 (K, 3) RGB."""
        return self.meaning.colours

    @property
    def shares(self) -> list[dict[str, Any]]:
        """The classes that are there, largest first: ``class``, ``name`` and ``share`` from 0 to 1 of the pixels."""
        return class_shares(self.labels, self.names)

    def overlay(self) -> Image.Image:
        """The picture, half and half with the colours of its labels, with a legend."""
        return paint_overlay(self.picture, self.labels, self.meaning)[0]

    def save(self, path: Path | str) -> list[dict[str, Any]]:
        """Write the overlay as a PNG, and return the shares. Raises HiresvitError if it cannot be written."""
        return save_overlay(Path(path), self.picture, self.labels, self.meaning)

    def save_labels(self, path: Path | str) -> None:
        """Write the labels as a PNG of numbers, which the colours are the palette of. Raises as `save`."""
        save_labels(Path(path), self.labels, self.meaning)


@dataclass(frozen=True)
class Ranked:
    """One of the classes that a picture most probably is of."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Classification:
    """What a picture is of: ``top``, best first, of equals the lowest index first."""

    top: tuple[Ranked, ...]


@dataclass(frozen=True, eq=False)
class Detection:
    """Boxes in a picture, best first, N of them.

    ``boxes`` (N, 4), float32: left, top, right, bottom in pixels of the uint8 (H, W, 3) RGB ``picture``. ``scores``
    (N,), float32, from 0 to 1; ``classes`` (N,), int32.
    """

    picture: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    meaning: Labels

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class."""
        return self.meaning.names

    @property
    def found(self) -> list[dict[str, Any]]:
        """Plain values, best first: ``class``, ``name``, ``score`` and ``box`` (left, top, right, bottom)."""
        rows = zip(self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        return [{"class": k, "name": self.names[k], "score": score, "box": box} for k, score, box in rows]

    def overlay(self) -> Image.Image:
        """The picture with its boxes, their names and scores."""
        return paint_boxes(self.picture, self.found, self.meaning.colours)

    def save(self, path: Path | str) -> list[dict[str, Any]]:
        """Write the overlay as a PNG, and return what was found. Raises HiresvitError if it cannot be written."""
        with atomic_path(Path(path)) as temporary:
            self.overlay().save(temporary, "PNG", compress_level=3)
        return self.found


Answer: TypeAlias = Segmentation | Classification | Detection
