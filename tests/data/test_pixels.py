"""A camera's pixels against the arithmetic as it is written down, a number at a time."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiresvit.data.pixels import from_nv12, from_pixels, to_nv12, to_pixels, yuv_matrix
from hiresvit.errors import UsageError
from hiresvit.spec import Pixels, Yuv


def rgb_of(y: int, cb: int, cr: int, yuv: Yuv) -> list[int]:
    """In fractions, rounded once, halves up."""
    matrix, bias = yuv_matrix(yuv)
    found = []
    for row, add in zip(matrix, bias, strict=True):
        exact = sum(Fraction(weight) * value for weight, value in zip(row, (y, cb, cr), strict=True)) + Fraction(add)
        found.append(min(max(floor(exact + Fraction(1, 2)), 0), 255))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(get_args(Yuv)), st.integers(0, 2**32 - 1))
def test_nv12_to_rgb_is_the_formula(half: int, wide: int, yuv: Yuv, seed: int) -> None:
    rng = np.random.default_rng(seed)
    luma = rng.choice([0, 15, 16, 17, 127, 128, 200, 235, 236, 255], (2 * half, 2 * wide)).astype(np.uint8)
    chroma = rng.choice([0, 1, 16, 90, 127, 128, 129, 240, 255], (half, wide, 2)).astype(np.uint8)
    found = from_nv12(luma, chroma, yuv)
    for row, column in np.ndindex(luma.shape):
        cb, cr = chroma[row // 2, column // 2]
        assert found[row, column].tolist() == rgb_of(int(luma[row, column]), int(cb), int(cr), yuv)


def test_black_white_and_grey_have_no_colour() -> None:
    for yuv, black, white in (("bt601", 16, 235), ("bt709", 16, 235), ("bt601-full", 0, 255), ("bt709-full", 0, 255)):
        luma = np.array([[black, white], [black - 1 if black else 0, (black + white) // 2]], np.uint8)
        found = from_nv12(luma, np.full((1, 1, 2), 128, np.uint8), yuv)  # type: ignore[arg-type]
        assert found[0].tolist() == [[0] * 3, [255] * 3]
        assert found[1, 0].tolist() == [0] * 3
        assert len(set(found[1, 1].tolist())) == 1


def test_planes_need_not_be_contiguous() -> None:
    rng = np.random.default_rng(0)
    luma, chroma = rng.integers(0, 256, (8, 24)).astype(np.uint8), rng.integers(0, 256, (4, 12, 2)).astype(np.uint8)
    found = from_nv12(luma[:, 4:16], chroma[:, 2:8], "bt709")
    np.testing.assert_array_equal(found, from_nv12(luma[:, 4:16].copy(), chroma[:, 2:8].copy(), "bt709"))


@pytest.mark.parametrize(
    ("luma", "chroma"),
    [
        ((4, 5), (2, 2, 2)),
        ((3, 4), (1, 2, 2)),
        ((4, 4), (2, 2)),
        ((4, 4), (4, 4, 2)),
        ((0, 0), (0, 0, 2)),
        ((4, 4, 1), (2, 2, 2)),
    ],
)
def test_planes_that_do_not_belong_together_are_refused(luma: Any, chroma: Any) -> None:
    with pytest.raises(UsageError, match=r"NV12 planes are .*; even \(H, W\) and \(H/2, W/2, 2\) are needed"):
        from_nv12(np.zeros(luma, np.uint8), np.zeros(chroma, np.uint8), "bt709")


@pytest.mark.parametrize("pixels", [name for name in get_args(Pixels) if name != "nv12"])
def test_orders_come_back(pixels: Pixels) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).astype(np.uint8)
    feed = to_pixels(image, pixels)
    assert feed["image"].shape == (1, 3, 5, len(pixels))
    assert feed["image"][0, 0, 0, pixels.index("r")] == image[0, 0, 0]
    np.testing.assert_array_equal(from_pixels(feed, pixels), image)


def test_a_grey_picture_survives_nv12() -> None:
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)
    for yuv in get_args(Yuv):
        assert np.abs(from_nv12(*to_nv12(image, yuv), yuv).astype(int) - image).max() <= 1
    with pytest.raises(UsageError, match="needs its colours"):
        to_pixels(image, "nv12")
