"""A picture at another size, by either of the two resamplings that models were trained with, to the bit.

Pillow's filters widen when they shrink (antialias), as torchvision's and timm's transforms use them. OpenCV's
``INTER_LINEAR`` always mixes the four nearest pixels, as mmcv's transforms use it: shrunk by five, four pixels of
twenty-five count. Its arithmetic is written down here, because no device that runs a network needs OpenCV for anything
else; tests/data/test_resample.py holds it against OpenCV's own numbers. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.bands import Buffers, in_bands
from hiresvit.spec import PreprocessSpec

Picture = NDArray[np.uint8]
_Ints = NDArray[np.integer[Any]]
_Taps = tuple[_Ints, _Ints, _Ints, _Ints]
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_BAND = 2**17  # numbers of a result that are made at a time
_ONE = np.float32(2048)  # OpenCV's coefficients are 11-bit fixed-point numbers


def resample(image: Picture, size: tuple[int, int], spec: PreprocessSpec) -> Picture:
    """A uint8 (h, w, 3) image at ``size``, uint8, by the filter and interpolation of ``spec``."""
    if image.shape[:2] == size:
        return image
    if spec.filter == "opencv":
        return _opencv_linear(image, size)
    return _pillow(image, size, _PILLOW[spec.interpolation])


def _pillow(image: Picture, size: tuple[int, int], method: Image.Resampling) -> Picture:
    """What Pillow 13 gives, by any Pillow.

    It rounds to bytes between its two passes. Up to 12 the columns came first, since then that is so unless the rows
    get fewer by more than twice as many as the columns do.
    """
    shown = Image.fromarray(image)
    (height, width), (rows, columns) = image.shape[:2], size
    if height - rows > max(2 * (width - columns), 0):
        shown = shown.resize((width, rows), method)
    return np.asarray(shown.resize((columns, rows), method))


def _opencv_linear(image: Picture, size: tuple[int, int]) -> Picture:
    """What ``cv2.resize(image, size[::-1])`` gives on x86, from OpenCV 4.5 to 5.0.

    Columns first: ``p0 a0 + p1 a1`` with 11-bit coefficients, cut by 4 bits. Then rows, each product cut by 16 bits
    before the two are added, and the sum rounded by 2 bits. (Halved in both directions that is the mean of four pixels,
    which OpenCV computes on its own path.)
    """
    columns, rows = opencv_taps(image.shape[1], size[1]), opencv_taps(image.shape[0], size[0])
    flat = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    found = np.empty((*size, 3), np.uint8)
    work = partial(_linear_bands, image=flat, columns=columns, rows=rows, found=found)
    in_bands(size[0], 4 * size[1], _BAND, work)
    return found


def _linear_bands(
    bands: Iterator[slice], buffers: Buffers, *, image: Picture, columns: _Taps, rows: _Taps, found: Picture
) -> None:
    """Bands of ``found`` of an image (h, 3 w): pixels of four bytes, because those can be moved as one number each."""
    # the weights' upper and lower bits, so that no number has more than 16: p a >> 4 is p (a >> 4) + (p (a & 15) >> 4)
    halves = [np.repeat(part, 4).astype(np.uint16) for a in columns[2:] for part in (a >> 4, a & 15)]
    for band in bands:
        top, bottom, b0, b1 = (part[band] for part in rows)
        used, place = np.unique(np.concatenate((top, bottom)), return_inverse=True)  # no other row is looked at
        across = _across(_four_bytes(image, used, buffers), columns[:2], halves, buffers)
        shape = len(top), across.shape[1]
        total, more = buffers("total", shape, np.int32), buffers("more", shape, np.int32)
        for sums, at, weight in ((total, place[: len(top)], b0), (more, place[len(top) :], b1)):
            taken = across.take(at, 0, out=buffers("taken", shape, np.uint16), mode="clip")
            np.multiply(taken, weight[:, None], out=sums)
            np.right_shift(sums, 16, out=sums)
        total += more
        total += 2
        total >>= 2
        mixed = total.reshape(len(top), -1, 4)
        for channel in range(3):
            found[band, :, channel] = mixed[..., channel]


def _across(pixels: NDArray[np.uint32], at: Sequence[_Ints], halves: Sequence[_Ints], buffers: Buffers) -> _Ints:
    """``(p0 a0 + p1 a1) >> 4`` of four-byte pixels, as bytes (rows, 4 columns) of 16 bits."""
    sides: list[_Ints] = []
    for name, index in zip(("left", "right"), at, strict=True):
        taken = buffers("pixels", (len(pixels), len(index)), np.uint32)
        bytes_ = pixels.take(index, 1, out=taken, mode="clip").view(np.uint8)
        sides.append(buffers(name, bytes_.shape, np.uint16))
        sides[-1][...] = bytes_
    left, right = sides
    total, more = (buffers(name, left.shape, np.uint16) for name in ("across", "more across"))
    np.multiply(left, halves[1], out=total)
    np.multiply(right, halves[3], out=more)
    total += more
    total >>= 4
    left *= halves[0]
    right *= halves[2]
    total += left
    total += right
    return total


def _four_bytes(image: Picture, rows: _Ints, buffers: Buffers) -> NDArray[np.uint32]:
    """Rows of an image (h, 3 w) as (rows, w) numbers: a pixel's three bytes and the one that follows them."""
    height, width = len(rows), image.shape[1] // 3
    taken = buffers("rows", (height * width * 3 + 1,), np.uint8)  # also the last pixel has a byte that follows
    image.take(rows, 0, out=taken[:-1].reshape(height, -1), mode="clip")
    unaligned: NDArray[np.uint32] = np.ndarray((height, width), np.uint32, taken, strides=(width * 3, 3))
    found = buffers("four", (height, width), np.uint32)
    found[...] = unaligned
    return found


def opencv_taps(source: int, target: int) -> _Taps:
    """For each target index two source indices and their weights, in 2048ths; positions are float32 on the way."""
    scale = 1 / (target / source)
    centre = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(centre)
    part = centre - first
    index = first.astype(np.int64)
    weights = (np.rint((1 - part) * _ONE).astype(np.int32), np.rint(part * _ONE).astype(np.int32))
    return np.clip(index, 0, source - 1), np.clip(index + 1, 0, source - 1), *weights
