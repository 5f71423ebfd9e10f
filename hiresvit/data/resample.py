"""A picture at another size, by either of the two resamplings that models were trained with, to the bit.

Pillow's filters widen when they shrink (antialias), as torchvision's and timm's transforms use them. OpenCV's
``INTER_LINEAR`` always mixes the four nearest pixels, as mmcv's transforms use it: shrunk by five, four pixels of
twenty-five count. Its arithmetic is written down here, because no device that runs a network needs OpenCV for anything
else; tests/data/test_resample.py holds it against OpenCV's own numbers. Sizes are (height, width).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.spec import PreprocessSpec

Picture = NDArray[np.uint8]
_Ints = NDArray[np.integer[Any]]
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ONE = np.float32(2048)  # OpenCV's coefficients are 11-bit fixed-point numbers


def resample(image: Picture, size: tuple[int, int], spec: PreprocessSpec) -> Picture:
    """A uint8 (h, w, 3) image at ``size``, uint8, by the filter and interpolation of ``spec``."""
    if image.shape[:2] == size:
        return image
    if spec.filter == "opencv":
        return _opencv_linear(image, size)
    return np.asarray(Image.fromarray(image).resize(size[::-1], _PILLOW[spec.interpolation]))


def _opencv_linear(image: Picture, size: tuple[int, int]) -> Picture:
    """What ``cv2.resize(image, size[::-1])`` gives on x86, from OpenCV 4.5 to 5.0.

    Columns first: ``p0 a0 + p1 a1`` with 11-bit coefficients, cut by 4 bits. Then rows, each product cut by 16 bits
    before the two are added, and the sum rounded by 2 bits. (Halved in both directions that is the mean of four pixels,
    which OpenCV computes on its own path.)
    """
    left, right, a0, a1 = opencv_taps(image.shape[1], size[1])
    top, bottom, b0, b1 = opencv_taps(image.shape[0], size[0])
    rows, place = np.unique(np.concatenate((top, bottom)), return_inverse=True)  # no other row is looked at
    used = image[rows]
    across = used[:, left] * a0[:, None] + used[:, right] * a1[:, None]
    across >>= 4
    found = across[place[: size[0]]] * b0[:, None, None] >> 16
    found += across[place[size[0] :]] * b1[:, None, None] >> 16
    found += 2
    return np.asarray(found >> 2, np.uint8)


def opencv_taps(source: int, target: int) -> tuple[_Ints, _Ints, _Ints, _Ints]:
    """For each target index two source indices and their weights, in 2048ths; positions are float32 on the way."""
    scale = 1 / (target / source)
    centre = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(centre)
    part = centre - first
    index = first.astype(np.int64)
    weights = (np.rint((1 - part) * _ONE).astype(np.int32), np.rint(part * _ONE).astype(np.int32))
    return np.clip(index, 0, source - 1), np.clip(index + 1, 0, source - 1), *weights
