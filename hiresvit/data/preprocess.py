"""From an image file to the network's input: the only Python definition of preprocessing.

Every size here is (height, width); images are uint8 HWC RGB arrays. Both filters are Pillow's, which
antialias when they shrink and round to uint8, as torchvision does on Pillow images.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.image import load_image as load_image  # noqa: PLC0414 (where it was until 0.1)
from hiresvit.errors import UsageError
from hiresvit.spec import PreprocessSpec

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def preprocess(image: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int]) -> NDArray[np.float32]:
    """Turn a uint8 (h, w, 3) RGB image into the float32 (1, 3, H, W) input, for imgsz = (H, W).

    Resized as ``spec.resize`` says, then ``(x / 255 - mean) / std`` in float32. Raises UsageError on an
    image of another type or shape, and on a spec or size that cannot be served.
    """
    check_image(image)
    if min(imgsz) < 1:
        raise UsageError(f"imgsz {imgsz}: height and width must be positive")
    picture = Image.fromarray(image)
    resized = _crop(picture, spec, imgsz) if spec.resize == "crop" else _resize(picture, spec, imgsz)
    x = np.asarray(resized, dtype=np.float32) / np.float32(255)  # H, W, 3
    x = (x - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])  # 1, 3, H, W


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise UsageError unless the array is a uint8 (H, W, 3) image with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(f"image is {image.dtype} {image.shape}; it must be uint8 (height, width, 3) RGB")


def _resize(picture: Image.Image, spec: PreprocessSpec, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return picture.resize((width, height), _FILTERS[spec.interpolation])


def _crop(picture: Image.Image, spec: PreprocessSpec, imgsz: tuple[int, int]) -> Image.Image:
    """ImageNet's protocol: scale until imgsz / crop_pct is just covered, then take the centre."""
    if not 0 < spec.crop_pct <= 1:
        raise UsageError(f"crop_pct {spec.crop_pct}: it must be over 0 and at most 1")
    height, width = (math.floor(side / spec.crop_pct) for side in imgsz)
    if height * picture.width >= width * picture.height:  # the height is what has to be covered
        size = height, height * picture.width // picture.height
    else:
        size = width * picture.height // picture.width, width
    resized = _resize(picture, spec, size)
    top, left = round((size[0] - imgsz[0]) / 2), round((size[1] - imgsz[1]) / 2)
    return resized.crop((left, top, left + imgsz[1], top + imgsz[0]))
