"""From an image file to the network's input: the only Python definition of preprocessing.

Every size here is (height, width); images are uint8 HWC RGB arrays. Both filters are Pillow's, which
antialias when they shrink and round to uint8, as torchvision does on Pillow images.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import PreprocessSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # what is looked for in folders
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def load_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture as uint8 (H, W, 3) RGB, turned as its EXIF orientation says.

    Of an animation it is the first frame. Transparent pixels are laid on white; 16-bit greys are scaled to 8 bits.
    Raises HiresvitError if the file is missing, is no image, is damaged, or declares more pixels than Pillow's guard
    against decompression bombs allows (179 million).
    """
    if not Path(path).is_file():
        raise HiresvitError(f"{path}: no such file; give the path of a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF; large but still allowed sizes
            with Image.open(path) as picture:
                return np.array(_to_rgb(ImageOps.exif_transpose(picture)))
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HiresvitError(f"{path}: not a readable image ({reason}); give a JPEG, PNG, WebP or TIFF") from error


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


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, where plain `convert` would clip 16-bit greys and bare hidden colours."""
    if picture.mode == "F":
        raise ValueError("pixels are floats, whose range is unknown")
    if picture.mode.startswith("I"):  # 16-bit grey: I;16, or I from an older Pillow
        grey: NDArray[Any] = np.asarray(picture).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"pixels run from {grey.min()} to {grey.max()}, beyond 16 bits")
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")
