"""OpenCV's bilinear against OpenCV's own numbers (tests/golden/preprocess_golden.py made them)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from by_path import GOLDEN, load
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_opencv_does_not_antialias() -> None:
    """Of stripes of one pixel it may see one colour alone, where Pillow sees their mean."""
    stripes = np.zeros((30, 30, 3), np.uint8)
    stripes[:, ::2] = 200
    assert resample(stripes, (10, 10), OPENCV).std() > 90
    assert resample(stripes, (10, 10), PreprocessSpec())[:, 1:-1].std() < 25
