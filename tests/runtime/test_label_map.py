"""Labels of the picture's size: what resizing every logit says, from a small part of the work."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hiresvit.runtime.labels as labels_module
from hiresvit.data.preprocess import Region
from hiresvit.errors import HiresvitError
from hiresvit.runtime import borders
from hiresvit.runtime.labels import label_map, label_map_with_confidence

Floats = NDArray[np.float32]
SIZES = [(64, 96), (135, 240), (150, 31), (17, 300), (31, 47), (32, 48), (5, 6), (16, 7), (1, 1), (1, 200), (9, 1)]


def random_logits(classes: int = 7) -> Floats:
    """Every cell is a border."""
    return np.random.default_rng(classes).standard_normal((classes, 32, 48), dtype=np.float32)


def smooth_logits(classes: int = 7) -> Floats:
    """Sums of a few waves, and in places nearly equal: borders are lines, and three or four classes meet."""
    random = np.random.default_rng(classes)
    y, x = np.mgrid[:32, :48].astype(np.float32)
    waves = [random.uniform(-0.25, 0.25, 4) for _ in range(classes)]
    return np.stack([np.sin(a * x + b * y + 9 * c) + np.cos(b * x - a * y + 9 * d) for a, b, c, d in waves])


def third_logits() -> Floats:
    """A class that is nowhere the best at a corner, and comes first in the middle between two others."""
    logits = np.full((4, 32, 48), -9, np.float32)
    logits[0, :, ::2], logits[1, :, 1::2] = 4, 4.1
    logits[0, :, 1::2], logits[1, :, ::2] = -4, -4.3
    logits[3, 5:20] = 2.5
    return logits + np.linspace(0, 0.1, 48, dtype=np.float32) * np.arange(4, dtype=np.float32)[:, None, None]


def plain(logits: NDArray[Any], size: tuple[int, int], region: Region, imgsz: tuple[int, int]) -> NDArray[np.float64]:
    """All logits at the picture's size, in float64: half-pixel centres, edges repeated, in plain words."""
    exact = logits.astype(np.float64)

    def mix(values: NDArray[Any], axis: int, start: int, length: int) -> NDArray[Any]:
        source, target, whole = values.shape[axis], size[axis - 1], imgsz[axis - 1]
        each = source / whole
        low = (start + 0.5) * each - 0.5 if start else 0.0
        high = (start + length - 0.5) * each - 0.5 if start + length < whole else source - 1.0
        centre = np.clip((start + (np.arange(target) + 0.5) * length / target) * each - 0.5, max(low, 0), max(high, 0))
        first = np.floor(centre).astype(int)
        part = (centre - first).reshape([-1 if i == axis else 1 for i in range(3)])
        mixed: NDArray[Any] = (
            values.take(first, axis) * (1 - part) + values.take(np.minimum(first + 1, source - 1), axis) * part
        )
        return mixed

    tall = mix(exact, 1, region.top, region.height)
    return mix(tall, 2, region.left, region.width)


def check(found: NDArray[Any], expected: NDArray[np.float64]) -> None:
    """Labels are the best, where the best is ahead of the second by more than float32's rounding of logits up to 9."""
    two = np.sort(expected, 0)[-2:]
    sure = two[1] - two[0] > 2e-5
    assert sure.mean() > 0.97
    np.testing.assert_array_equal(found[sure], expected.argmax(0)[sure])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("make", [random_logits, smooth_logits, third_logits])
def test_labels_are_the_best_of_the_resized_logits(make: Callable[[], Floats], size: tuple[int, int]) -> None:
    logits, whole = make(), Region(0, 0, 64, 96)
    expected = plain(logits, size, whole, (64, 96))
    check(label_map(logits, size, whole, (64, 96)), expected)
    np.testing.assert_array_equal(
        label_map(logits, size, whole, (64, 96), threads=1), label_map(logits, size, whole, (64, 96), threads=2)
    )


@pytest.mark.parametrize("region", [Region(0, 0, 64, 60), Region(10, 0, 40, 96), Region(3, 21, 55, 41)], ids=str)
@pytest.mark.parametrize("size", [(135, 240), (20, 33)], ids=str)
def test_only_the_part_that_shows_the_picture_counts(region: Region, size: tuple[int, int]) -> None:
    for logits in (random_logits(), smooth_logits()):
        check(label_map(logits, size, region, (64, 96)), plain(logits, size, region, (64, 96)))


def test_the_third_class_would_be_missed_by_looking_at_corners_alone() -> None:
    """So the test above fails if `borders` says that two classes are enough everywhere."""
    logits, size, whole = third_logits(), (64, 96), Region(0, 0, 64, 96)
    assert (label_map(logits, size, whole, (64, 96)) == 3).any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(borders, "_some_mixture_is_above", lambda one, other, rest: np.ones(one.shape[1], bool))
        patch.setattr(labels_module, "_MOST_BORDER", 1.0)
        assert not (label_map(logits, size, whole, (64, 96)) == 3).any()


@pytest.mark.parametrize("make", [random_logits, smooth_logits, third_logits])
def test_both_ways_are_equal_to_the_bit(make: Callable[[], Floats], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells, and pixel by pixel as where borders are everywhere: the same arithmetic in the same order."""
    logits, size, whole = make(), (135, 240), Region(0, 0, 64, 96)
    monkeypatch.setattr(labels_module, "_MOST_BORDER", 2.0)
    by_cells = label_map(logits, size, whole, (64, 96))
    monkeypatch.setattr(labels_module, "_MOST_BORDER", -1.0)
    np.testing.assert_array_equal(label_map(logits, size, whole, (64, 96)), by_cells)


def test_of_equals_it_is_the_lowest_class() -> None:
    logits = np.zeros((5, 4, 6), np.float32)
    logits[2:4] = 1
    assert (label_map(logits, (9, 13), Region(0, 0, 4, 6), (4, 6)) == 2).all()


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (257, np.int32), (300, np.int32)])
def test_many_classes(classes: int, kind: Any) -> None:
    logits = smooth_logits(classes)
    logits[classes - 1, :, 20:30] = 9
    found = label_map(logits, (80, 100), Region(0, 0, 64, 96), (64, 96))
    assert found.dtype == kind
    assert (found == classes - 1).any()
    check(found, plain(logits, (80, 100), Region(0, 0, 64, 96), (64, 96)))


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_and_strides(kind: Any) -> None:
    logits = smooth_logits().astype(kind)
    expected = label_map(logits.astype(np.float32), (80, 100), Region(0, 0, 64, 96), (64, 96))
    np.testing.assert_array_equal(label_map(logits, (80, 100), Region(0, 0, 64, 96), (64, 96)), expected)
    turned = np.asfortranarray(logits)
    np.testing.assert_array_equal(label_map(turned, (80, 100), Region(0, 0, 64, 96), (64, 96)), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [(64, 96), (9, 9)], ids=str)
def test_what_is_not_finite_is_an_error(value: float, size: tuple[int, int]) -> None:
    logits = smooth_logits()
    logits[3, 10:20, 4:44] = value
    for call in (label_map, label_map_with_confidence):
        with pytest.raises(HiresvitError, match=r"400 of 10752 logits are NaN or Inf"):
            call(logits, size, Region(0, 0, 64, 96), (64, 96))


def test_finite_logits_whose_sum_is_not_are_none() -> None:
    logits = np.full((3, 8, 8), 3e38, np.float32)
    logits[1] = 3.1e38
    assert (label_map(logits, (8, 8), Region(0, 0, 8, 8), (8, 8)) == 1).all()


@pytest.mark.parametrize("size", [(64, 96), (135, 240), (9, 9)], ids=str)
def test_confidence_is_the_winners_softmax(size: tuple[int, int]) -> None:
    logits = 3 * smooth_logits()
    labels, sure = label_map_with_confidence(logits, size, Region(0, 0, 64, 96), (64, 96))
    expected = plain(logits, size, Region(0, 0, 64, 96), (64, 96))
    check(labels, expected)
    powers = np.exp(expected - expected.max(0))
    probable = 255 / powers.sum(0)
    assert sure.dtype == np.uint8
    # float32 leaves 1e-5 of a level; a level is lost only where the exact value is that near to a half
    away = np.abs(probable + 0.5 - np.round(probable + 0.5)) > 1e-3
    assert away.mean() > 0.98
    np.testing.assert_array_equal(sure[away], np.floor(probable + 0.5)[away])


def test_never_more_than_a_few_rows_of_each_class() -> None:
    """All logits at the picture's size would take 315 MB, and half of them at once 157."""
    logits = np.random.default_rng(0).standard_normal((150, 32, 64), dtype=np.float32)
    tracemalloc.start()
    try:
        label_map(logits, (512, 1024), Region(0, 0, 32, 64), (32, 64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6
