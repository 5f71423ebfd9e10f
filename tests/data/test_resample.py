"""OpenCV's bilinear against OpenCV's own numbers (tests/golden/preprocess_golden.py made them)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import PIL
import pytest
from by_path import GOLDEN, load
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hiresvit.data.resample import resample
from hiresvit.spec import PreprocessSpec

recipe = load(GOLDEN / "preprocess_golden.py")
RESAMPLED: list[Any] = json.loads((GOLDEN / "preprocess.json").read_text())["resampled"]
OPENCV = PreprocessSpec(filter="opencv")
sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


@pytest.mark.parametrize(("source", "target", "digest"), RESAMPLED, ids=str)
def test_opencv_to_the_bit(source: list[int], target: list[int], digest: str) -> None:
    """Shrunk, enlarged, halved (which OpenCV does in another way), halved along one side, and single rows."""
    found = resample(recipe.picture(*source), (target[0], target[1]), OPENCV)
    assert found.dtype == np.uint8
    assert recipe.digest(found) == digest


@settings(max_examples=50, deadline=None)
@given(sizes, sizes, st.integers(0, 255), st.sampled_from(["pillow", "opencv"]))
def test_flat_stays_flat_at_any_size(source: tuple[int, int], size: tuple[int, int], level: int, by: Any) -> None:
    found = resample(np.full((*source, 3), level, np.uint8), size, replace(OPENCV, filter=by))
    assert found.shape == (*size, 3)
    # OpenCV cuts both products of two rows before it adds them, which may cost one of 1024 quarters, never a level
    np.testing.assert_array_equal(found, level)


@pytest.mark.parametrize("by", ["pillow", "opencv"])
def test_the_same_size_is_the_same_picture(by: Any) -> None:
    image = recipe.picture(9, 14)
    np.testing.assert_array_equal(resample(image, (9, 14), replace(OPENCV, filter=by)), image)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("source", "target", "rows_first"),
    [
        *[((300, 40), (90, 31), True), ((90, 70), (60, 60), True)],
        *[((40, 300), (31, 90), False), ((90, 80), (60, 60), False)],
    ],
)
def test_pillow_takes_the_passes_in_the_order_of_its_version_13(
    source: tuple[int, int], target: tuple[int, int], rows_first: bool, method: Any
) -> None:
    """Each pass by a call of its own, which every Pillow does alike; the other order has other bytes here."""
    image = recipe.picture(*source)
    kind = Image.Resampling[method.upper()]
    halves = [(source[1], target[0]), (target[1], source[0])]  # of (width, height): rows first, columns first
    by_rows, by_columns = (
        np.asarray(Image.fromarray(image).resize(half, kind).resize(target[::-1], kind)) for half in halves
    )
    found = resample(image, target, PreprocessSpec(interpolation=method))
    np.testing.assert_array_equal(found, by_rows if rows_first else by_columns)
    assert (by_rows != by_columns).any()
    if int(PIL.__version__.partition(".")[0]) >= 13:
        np.testing.assert_array_equal(found, np.asarray(Image.fromarray(image).resize(target[::-1], kind)))


def test_opencv_does_not_antialias() -> None:
    """Of stripes of one pixel it may see one colour alone, where Pillow sees their mean."""
    stripes = np.zeros((30, 30, 3), np.uint8)
    stripes[:, ::2] = 200
    assert resample(stripes, (10, 10), OPENCV).std() > 90
    assert resample(stripes, (10, 10), PreprocessSpec())[:, 1:-1].std() < 25
