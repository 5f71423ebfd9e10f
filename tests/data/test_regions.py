"""Where a picture lies in the network's input, and what of a spec is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresvit.data.preprocess import describe, network_picture, normalise, preprocess, valid_region
from hiresvit.errors import UsageError
from hiresvit.spec import PreprocessSpec

KEEP = PreprocessSpec("keep", filter="opencv", rounding="round")
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


@pytest.mark.parametrize(
    ("size", "imgsz", "region"),
    [
        ((1024, 2048), (512, 1024), (512, 1024)),
        ((427, 640), (512, 512), (342, 512)),  # 341.6: mmcv rounds half up
        ((1080, 810), (512, 1024), (512, 384)),  # a portrait in a landscape input
        ((5, 4), (10, 10), (10, 8)),
        ((3000, 1), (64, 64), (64, 1)),  # 0.02, where mmcv would leave nothing
    ],
)
def test_the_whole_picture_fits_and_touches_two_sides(size: Any, imgsz: Any, region: Any) -> None:
    assert valid_region(size, KEEP, imgsz) == (0, 0, *region)


def test_a_divisor_lengthens_a_side_up_to_the_input() -> None:
    spec = replace(KEEP, divisor=32)
    assert valid_region((427, 640), spec, (512, 512)) == (0, 0, *(352, 512))
    assert valid_region((427, 640), spec, (512, 510)) == (0, 0, *(352, 510))


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.sampled_from([KEEP, replace(KEEP, divisor=8), PreprocessSpec("keep")]))
def test_the_rest_is_zero_and_nothing_else_is(size: tuple[int, int], imgsz: tuple[int, int], spec: Any) -> None:
    """Of a white picture, which the mean makes far from zero."""
    x = preprocess(np.full((*size, 3), 255, np.uint8), spec, imgsz)
    _, _, height, width = valid_region(size, spec, imgsz)
    assert x.shape == (1, 3, *imgsz)
    assert (x[..., :height, :width] > 2).all()
    assert not x[..., height:, :].any()
    assert not x[..., width:].any()


LETTERBOX = replace(KEEP, resize="letterbox")


@pytest.mark.parametrize(
    ("size", "imgsz", "region"),
    [
        ((1024, 2048), (512, 1024), (0, 0, 512, 1024)),
        ((427, 640), (512, 512), (85, 0, 342, 512)),
        ((1080, 810), (512, 1024), (0, 320, 512, 384)),
        ((5, 4), (10, 11), (0, 1, 10, 8)),  # three free: one before, two after
    ],
)
def test_in_a_letterbox_the_picture_is_in_the_middle(size: Any, imgsz: Any, region: Any) -> None:
    assert valid_region(size, LETTERBOX, imgsz) == region


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.sampled_from([LETTERBOX, replace(LETTERBOX, divisor=8), PreprocessSpec("letterbox")]))
def test_a_letterbox_is_keep_moved(size: tuple[int, int], imgsz: tuple[int, int], spec: Any) -> None:
    image = np.full((*size, 3), 255, np.uint8)
    x, kept = preprocess(image, spec, imgsz), preprocess(image, replace(spec, resize="keep"), imgsz)
    top, left, height, width = valid_region(size, spec, imgsz)
    np.testing.assert_array_equal(np.roll(kept, (top, left), (2, 3)), x)
    for start, long, side in ((top, height, imgsz[0]), (left, width, imgsz[1])):
        assert start == (side - long) // 2
    # the uint8 picture is the same one, and what it is filled with is within half a level of the mean
    picture = network_picture(image, spec, imgsz)
    inside = picture[top : top + height, left : left + width]
    np.testing.assert_array_equal(inside, 255)
    assert (picture == 255).all(-1).sum() == height * width
    assert np.abs(normalise(picture, spec)[~(picture == 255).all(-1)]).max(initial=0) < 0.5 / 255 / 0.22


def test_a_network_of_bgr_gets_blue_first_with_its_own_mean_and_std() -> None:
    """By hand: mmcv's to_rgb=False with mean 103.53, 116.28, 123.675 of blue, green and red."""
    spec = replace(LETTERBOX, channels="bgr", mean=(0.25, 0.5, 0.75), std=(0.5, 0.25, 0.125))
    red, green, blue = 255, 51, 102
    x = preprocess(np.full((2, 4, 3), (red, green, blue), np.uint8), spec, (4, 4))
    np.testing.assert_allclose(x[0, :, 1, 0], [(0.4 - 0.25) / 0.5, (0.2 - 0.5) / 0.25, (1 - 0.75) / 0.125], rtol=1e-6)
    assert not x[0, :, 0].any()
    picture = network_picture(np.full((2, 4, 3), (red, green, blue), np.uint8), spec, (4, 4))
    np.testing.assert_array_equal(picture[1, 0], (red, green, blue))  # still RGB
    np.testing.assert_array_equal(picture[0, 0], (191, 128, 64))  # the mean of red, of green, of blue
    assert "of blue, green, red: the network takes BGR" in describe(spec, (4, 4))


@pytest.mark.parametrize("spec", [PreprocessSpec(), PreprocessSpec("crop")])
def test_without_an_aspect_ratio_all_of_the_input_is_picture(spec: PreprocessSpec) -> None:
    assert valid_region((10, 90), spec, (32, 64)) == (0, 0, *(32, 64))


def test_what_is_said_is_what_is_done() -> None:
    stretch = describe(PreprocessSpec(), (512, 1024))
    assert stretch.startswith("stretched to 512x1024; bilinear by Pillow, antialiased;")
    assert "crop" not in stretch
    crop = describe(PreprocessSpec("crop", "bicubic", 0.9), (224, 224))
    assert crop.startswith("scaled to cover 248x248, of which the central 224x224 is taken (crop_pct 0.9); bicubic by")
    keep = describe(replace(KEEP, divisor=32), (512, 512))
    assert "fit into 512x512, each side up to a multiple of 32, the rest filled" in keep
    assert "bilinear by OpenCV, not antialiased" in keep
    assert "the rest filled with the mean on both sides of it" in describe(LETTERBOX, (512, 512))
    assert "crop" not in keep


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resize": "squash"}, "resize 'squash': it must be stretch or crop or keep"),
        ({"resize": ["crop"]}, "it must be stretch"),
        ({"interpolation": "nearest"}, "it must be bilinear or bicubic"),
        ({"filter": "opencv", "interpolation": "bicubic"}, "only bilinear.*give filter=pillow, too"),
        ({"rounding": None}, "it must be floor or round"),
        ({"crop_pct": float("nan")}, "over 0 and at most 1"),
        ({"crop_pct": "0.9"}, "over 0 and at most 1"),
        ({"divisor": 0}, "a whole number from 1"),
        ({"divisor": True}, "a whole number from 1"),
        ({"short_side": 0}, "short_side 0: it must be a whole number from 1"),
        ({"stride": 4}, "stride 4: it must be two whole numbers"),
        ({"stride": (0, 4)}, "two whole numbers from 1"),
        ({"channels": "rbg"}, "channels 'rbg': it must be rgb or bgr"),
        ({"mean": (0.5, 0.5)}, "three finite numbers"),
        ({"mean": (0.5, 0.5, float("inf"))}, "three finite numbers"),
        ({"std": (0.2, 0.2, 0.0)}, "each must be over 0"),
    ],
    ids=str,
)
def test_a_spec_that_makes_no_sense_is_refused(changes: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        preprocess(np.zeros((4, 4, 3), np.uint8), replace(PreprocessSpec(), **changes), (4, 4))
