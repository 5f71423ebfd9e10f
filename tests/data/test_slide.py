"""Windows of a picture: where they lie, and what is cut into them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresvit.data.preprocess import (
    describe,
    example_input,
    network_picture,
    preprocess,
    slide_picture,
    stride_of,
    valid_region,
    window_spec,
    windows,
)
from hiresvit.errors import UsageError
from hiresvit.spec import PreprocessSpec

SLIDE = PreprocessSpec("slide", filter="opencv", rounding="round")


def ramp(height: int, width: int) -> Any:
    return (np.arange(height * width * 3) * 7 % 251).astype(np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize(
    ("size", "imgsz", "stride", "tops", "lefts"),
    [
        # Cityscapes in mmsegmentation's 1024 crops with stride 768
        ((1024, 2048), (1024, 1024), (768, 768), [0], [0, 768, 1024]),
        ((512, 683), (512, 512), (341, 341), [0], [0, 171]),
        ((1024, 2048), (512, 1024), (512, 1024), [0, 512], [0, 1024]),
        ((100, 100), (100, 100), (75, 75), [0], [0]),
        ((101, 175), (100, 100), (75, 75), [0, 1], [0, 75]),
        ((100, 176), (100, 100), (75, 75), [0], [0, 75, 76]),
    ],
)
def test_windows_are_where_mmsegmentation_puts_them(size: Any, imgsz: Any, stride: Any, tops: Any, lefts: Any) -> None:
    assert windows(size, imgsz, stride) == [(top, left) for top in tops for left in lefts]


sides = st.tuples(st.integers(1, 60), st.integers(1, 60))


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([None, 1, 7, 40]), st.sampled_from(["floor", "round"]))
def test_every_pixel_is_in_a_window_and_no_window_leaves_the_picture(
    size: tuple[int, int], imgsz: tuple[int, int], short: int | None, rounding: Any
) -> None:
    spec = replace(SLIDE, short_side=short, rounding=rounding)
    picture = slide_picture(ramp(*size), spec, imgsz)
    height, width = picture.shape[:2]
    seen = np.zeros((height, width), bool)
    for top, left in windows((height, width), imgsz, stride_of(spec, imgsz)):
        part = seen[top : top + imgsz[0], left : left + imgsz[1]]
        assert part.shape == imgsz
        part[:] = True
    assert seen.all()
    if min(picture.shape[:2]) > (short or 0) and picture.shape[:2] != size:  # enlarged, no further than it must be
        assert imgsz[0] == picture.shape[0] or imgsz[1] == picture.shape[1]


@pytest.mark.parametrize(
    ("size", "short", "rounding", "scaled"),
    [
        ((600, 800), None, "round", (600, 800)),
        ((600, 800), 512, "round", (512, 683)),  # 682.67
        ((600, 800), 512, "floor", (512, 682)),
        ((600, 300), 512, "round", (1024, 512)),
        ((600, 300), None, "round", (1024, 512)),  # as large as a window
        ((100, 4000), 512, "round", (512, 20480)),
        ((300, 300), 400, "floor", (512, 512)),  # the window is larger than what was asked for
    ],
)
def test_a_picture_is_scaled_once(size: Any, short: int | None, rounding: Any, scaled: Any) -> None:
    spec = replace(SLIDE, short_side=short, rounding=rounding)
    assert slide_picture(np.zeros((*size, 3), np.uint8), spec, (512, 512)).shape[:2] == scaled


def test_without_a_size_a_picture_is_left_as_it_is_and_a_window_is_a_part_of_it() -> None:
    image = ramp(9, 12)
    picture = slide_picture(image, SLIDE, (8, 8))
    np.testing.assert_array_equal(picture, image)
    part = picture[1:9, 4:12]
    x = preprocess(part, window_spec(SLIDE), (8, 8))
    np.testing.assert_array_equal(x, preprocess(part, replace(SLIDE, resize="stretch"), (8, 8)))


def test_one_input_of_a_slide_is_refused() -> None:
    for made in (preprocess, network_picture):
        with pytest.raises(UsageError, match=r"resize=slide makes several inputs of a picture: hiresvit\.Predictor"):
            made(ramp(9, 9), SLIDE, (8, 8))
    with pytest.raises(UsageError, match="several inputs"):
        valid_region((9, 9), SLIDE, (8, 8))


def test_an_example_is_a_window_that_is_really_cut_out() -> None:
    image = ramp(9, 16)
    x = example_input(image, replace(SLIDE, stride=(4, 4)), (8, 8))
    np.testing.assert_array_equal(x, preprocess(image[1:9, 0:8], window_spec(SLIDE), (8, 8)))  # of 6 the fourth
    keep = replace(SLIDE, resize="keep")
    np.testing.assert_array_equal(example_input(image, keep, (8, 8)), preprocess(image, keep, (8, 8)))


def test_strides() -> None:
    assert stride_of(SLIDE, (513, 1024)) == (384, 768)
    assert stride_of(SLIDE, (1, 1)) == (1, 1)
    assert stride_of(replace(SLIDE, stride=(5, 8)), (8, 8)) == (5, 8)
    with pytest.raises(UsageError, match="stride 8x9: it must be at most the input's size, 8x8"):
        stride_of(replace(SLIDE, stride=(8, 9)), (8, 8))
    with pytest.raises(UsageError, match="no windows"):
        windows((7, 9), (8, 8), (6, 6))


def test_it_is_said_in_words() -> None:
    said = describe(replace(SLIDE, short_side=512), (512, 512))
    assert said.startswith("scaled so that the shorter side is 512, up where it is smaller than 512x512; ")
    assert "windows of 512x512, 384x384 apart, their logits averaged; bilinear by OpenCV" in said
    assert describe(SLIDE, (512, 512)).startswith("not scaled, up where")
