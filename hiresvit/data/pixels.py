"""A camera's pixels: channel orders, and NV12's two planes, to RGB and back.

NV12 has a byte of luma for each pixel and, for each block of two by two, one of Cb and one of Cr, interleaved. Limited
range is 16 to 235 for luma and 16 to 240 for chroma, full range 0 to 255; BT.601 and BT.709 are two sets of weights of
red, green and blue (ITU-R BT.601-7, BT.709-6). A pixel gets the chroma of its block.

The weights are whole numbers of 8192ths, so that every product and sum of bytes is exact in float32: a graph, numpy and
C++ give the same colours in whatever order they add.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.bands import Buffers, in_bands
from hiresvit.errors import UsageError
from hiresvit.spec import Feed, Pixels, Yuv

Picture = NDArray[np.uint8]
_Ints = NDArray[np.integer[Any]]
_BAND = 2**18  # bytes of luma in a band

ORDERS: dict[str, tuple[int, ...]] = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2), "bgra": (2, 1, 0)}
"""Where red, green and blue are among the channels of each layout that is no NV12."""

_BITS = 13  # of the matrix to RGB: 11 bits before the point leave 13 of float32's 24
_STEPS = 2**_BITS
_FINE = 2.0**24  # of the matrix from RGB, in float64

_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # of red and of blue


def yuv_matrix(yuv: Yuv) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(M, b) such that RGB = M (Y, Cb, Cr) + b, all from 0 to 255; in 8192ths, by which no grey level is far off."""
    name, _, full = yuv.partition("-")
    red, blue = _WEIGHTS[name]
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    r_cr, b_cb = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    matrix = np.array(
        [
            [luma, 0, r_cr],
            [luma, -b_cb * blue / green, -r_cr * red / green],
            [luma, b_cb, 0],
        ]
    )
    matrix = np.round(matrix * _STEPS) / _STEPS
    return matrix, -matrix @ np.array([black, 128.0, 128.0])


def from_nv12(luma: Picture, chroma: Picture, yuv: Yuv) -> Picture:
    """RGB (H, W, 3) of luma (H, W) and chroma (H/2, W/2, 2), rounded (halves up) and cut off at 0 and 255.

    Raises UsageError on planes that do not belong together.
    """
    height, width = luma.shape if luma.ndim == 2 else (0, 0)
    if chroma.shape != (height // 2, width // 2, 2) or height % 2 or width % 2 or not luma.size:
        raise UsageError(f"NV12 planes are {luma.shape} and {chroma.shape}; even (H, W) and (H/2, W/2, 2) are needed")
    matrix, bias = yuv_matrix(yuv)
    found = np.empty((height, width, 3), np.uint8)
    steps = np.rint(matrix * _STEPS).astype(np.int32), np.rint(bias * _STEPS).astype(np.int32)
    work = partial(_nv12_bands, luma=luma, chroma=chroma, steps=steps, found=found)
    in_bands(height // 2, 2 * width, _BAND, work)
    return found


def _nv12_bands(
    bands: Iterator[slice],
    buffers: Buffers,
    *,
    luma: Picture,
    chroma: Picture,
    steps: tuple[_Ints, _Ints],
    found: Picture,
) -> None:
    """Bands of blocks of ``found``: the four pixels of a block lie in four arrays, so that chroma need not be repeated.

    In 8192ths, as the matrix is: integers have the same sums, whatever the order.
    """
    matrix, bias = steps
    height, width = chroma.shape[:2]
    blocks = luma.reshape(height, 2, width, 2)
    colours = found.reshape(height, 2, width, 2, 3)
    for band in bands:
        shape = band.stop - band.start, width
        y, total = (buffers(name, (2, 2, *shape), np.int32) for name in ("y", "total"))
        level = buffers("level", (2, 2, *shape), np.uint8)
        for row, column in np.ndindex(2, 2):
            y[row, column] = blocks[band, row, :, column]
        y *= matrix[0, 0]  # luma counts alike in all three
        cb, cr = (chroma[band, :, at].astype(np.int32) for at in (0, 1))
        for channel in range(3):
            part = cb * matrix[channel, 1]
            part += cr * matrix[channel, 2]
            part += bias[channel] + _STEPS // 2  # halves up
            np.add(y, part, out=total)
            total >>= _BITS
            np.clip(total, 0, 255, out=level, casting="unsafe")
            for row, column in np.ndindex(2, 2):
                colours[band, row, :, column, channel] = level[row, column]


def to_nv12(image: Picture, yuv: Yuv) -> tuple[Picture, Picture]:
    """Luma (H, W) and chroma (H/2, W/2, 2), the mean of each block, of an RGB image (H, W, 3). Raises UsageError."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        raise UsageError(f"NV12 of {height}x{width}: both sides must be even")
    matrix, bias = yuv_matrix(yuv)
    inverse = np.round(np.linalg.inv(matrix) * _FINE) / _FINE
    values = image.astype(np.float64) @ inverse.T - np.round(inverse @ bias)  # the latter is (black, 128, 128)
    blocks = values[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean((1, 3))
    luma, chroma = (np.floor(np.clip(part, 0, 255) + 0.5).astype(np.uint8) for part in (values[..., 0], blocks))
    return luma, chroma


def to_pixels(image: Picture, pixels: Pixels, yuv: Yuv | None = None) -> Feed:
    """What a graph takes for an RGB image (H, W, 3): ``image`` (1, H, W, 3 or 4), or ``y`` and ``uv`` for NV12.

    Alpha is 255. Raises UsageError for NV12 of odd sides or without its colours.
    """
    if pixels == "nv12":
        if yuv is None:
            raise UsageError("NV12 needs its colours: bt601, bt709, bt601-full or bt709-full")
        luma, chroma = to_nv12(image, yuv)
        return {"y": luma[None], "uv": chroma[None]}
    ordered = image[..., list(ORDERS[pixels])]
    if len(pixels) == 4:
        ordered = np.concatenate((ordered, np.full_like(image[..., :1], 255)), 2)
    return {"image": np.ascontiguousarray(ordered)[None]}


def from_pixels(feed: Feed, pixels: Pixels, yuv: Yuv | None = None) -> Picture:
    """The RGB image (H, W, 3) that a graph sees in what `to_pixels` makes. Raises UsageError as `from_nv12` does."""
    if pixels == "nv12":
        if yuv is None:
            raise UsageError("NV12 needs its colours: bt601, bt709, bt601-full or bt709-full")
        return from_nv12(feed["y"][0], feed["uv"][0], yuv)
    image: Picture = feed["image"][0][..., list(ORDERS[pixels])]
    return np.ascontiguousarray(image)
