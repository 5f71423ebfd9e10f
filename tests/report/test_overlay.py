"""Labels over a picture: what is mixed, what is counted, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hiresvit.data.dataset import Labels, palette
from hiresvit.data.preprocess import load_image
from hiresvit.data.scenes import sample_image
from hiresvit.errors import UsageError
from hiresvit.report.overlay import class_shares, overlay, save_overlay

COLOURS = palette(19)


def test_overlay_mixes_image_and_colours() -> None:
    image = sample_image(1, 8, 8)
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 19
    half = overlay(image, labels, COLOURS)
    expected = (image.astype(float) + COLOURS[labels]) / 2
    np.testing.assert_allclose(half, expected, atol=0.5)  # rounded to uint8


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((4, 5), int), "one size"),
        (np.full((4, 4), 3), "3 classes end at 2"),
        (np.full((4, 4), -1), "labels run from -1"),
    ],
)
def test_overlays_that_make_no_sense_are_refused(labels: NDArray[Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        overlay(sample_image(1, 4, 4), labels, palette(3))


def test_shares_are_of_the_classes_that_are_there() -> None:
    found = class_shares(np.array([[2, 2, 0, 2]], np.uint8), ("a", "b", "c"))
    assert found == [{"class": 2, "name": "c", "share": 0.75}, {"class": 0, "name": "a", "share": 0.25}]


def test_what_is_saved_has_the_colours_that_were_given(tmp_path: Path) -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    meaning = Labels(("a", "b"), np.array([[200, 100, 0], [0, 100, 200]], np.uint8))
    labels = np.array([[0, 1], [1, 1]], np.uint8)
    shares = save_overlay(tmp_path / "o.png", black, labels, meaning)
    assert [row["name"] for row in shares] == ["b", "a"]
    np.testing.assert_array_equal(load_image(tmp_path / "o.png"), meaning.colours[labels] // 2)
    assert [path.name for path in tmp_path.iterdir()] == ["o.png"], "nothing temporary is left"
