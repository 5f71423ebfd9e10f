"""Labels over a picture: what is mixed, what is counted, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.dataset import Labels, palette
from hiresvit.data.image import load_image
from hiresvit.data.pairs import load_labels
from hiresvit.data.scenes import sample_image
from hiresvit.errors import UsageError
from hiresvit.report.overlay import class_shares, draw_legend, overlay, save_labels, save_overlay

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


def legend(size: tuple[int, int], names: list[str]) -> tuple[NDArray[Any], list[tuple[int, int, int]]]:
    """A grey picture (width, height) after a legend was drawn into it, and the colours that were asked for."""
    picture = Image.new("RGB", size, (128, 128, 128))
    colours = [(255, 10 * k, 255 - 10 * k) for k in range(len(names))]
    draw_legend(picture, [(name, np.array(colour, np.uint8)) for name, colour in zip(names, colours, strict=True)])
    return np.asarray(picture), colours


@pytest.mark.parametrize("size", [(160, 120), (640, 480), (4000, 3000)])
def test_a_legend_has_each_colour_in_order_and_grows_with_the_picture(size: tuple[int, int]) -> None:
    drawn, colours = legend(size, ["road", "traffic light", "sky"])
    rows = []
    for colour in colours:
        places = np.argwhere((drawn == colour).all(-1))
        assert len(places) >= (min(size) // 40 - 2) ** 2
        rows.append(places[:, 0].mean())
    assert rows == sorted(rows)
    changed = np.argwhere((drawn != 128).any(-1))
    assert changed[:, 0].max() == size[1] - 1, "at the bottom"
    assert len(changed) < 0.5 * size[0] * size[1]


def test_a_legend_says_how_many_it_has_no_place_for() -> None:
    few, many = legend((400, 200), [f"c{k}" for k in range(12)]), legend((400, 200), [f"c{k}" for k in range(20)])
    assert all((few[0] == colour).all(-1).any() for colour in few[1])
    there = [bool((many[0] == colour).all(-1).any()) for colour in many[1]]
    assert there[:5] == [True] * 5
    assert not there[-1]


@pytest.mark.parametrize("size", [(4, 4), (20, 400), (400, 8)])
def test_a_picture_without_place_stays_as_it_is(size: tuple[int, int]) -> None:
    assert (legend(size, ["a long name", "b"])[0] == 128).all()


@pytest.mark.parametrize("name", ["路", "a\nb\x1b[31m", "x" * 10_000, "", "\u202eabc", "\ud800"])
def test_names_that_no_font_has(name: str) -> None:
    assert (legend((640, 480), [name, "b"])[0] != 128).any()


@pytest.mark.parametrize("count", [2, 19, 256, 300])
def test_labels_are_read_back_as_they_were(count: int, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, count, (30, 40)).astype(np.uint8 if count <= 256 else np.int32)
    meaning = Labels(tuple(map(str, range(count))), palette(count))
    save_labels(tmp_path / "l.png", labels, meaning)
    np.testing.assert_array_equal(load_labels(tmp_path / "l.png"), labels)
    depth, kind = (tmp_path / "l.png").read_bytes()[24:26]
    assert (depth, kind) == ((8, 3) if count <= 256 else (16, 0)), "one byte a pixel for readers that unpack nothing"
    if count <= 256:
        np.testing.assert_array_equal(load_image(tmp_path / "l.png"), meaning.colours[labels])
