"""From an image file to the network's input: the only Python definition of preprocessing.

Every size here is (height, width); images are uint8 HWC RGB arrays. Which family takes which, and from where that is
known, is in `hiresvit.models.preprocessing`; the resampling itself in `hiresvit.data.resample`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.bands import Buffers, in_bands
from hiresvit.data.resample import resample
from hiresvit.errors import UsageError
from hiresvit.spec import PreprocessSpec

_BAND = 2**18  # numbers that are made at a time
_MOST = 2**16  # of a side, as in a manifest


def preprocess(image: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int]) -> NDArray[np.float32]:
    """Turn a uint8 (h, w, 3) RGB image into the float32 (1, 3, H, W) input, for imgsz = (H, W).

    Resized as ``spec.resize`` says, then ``(x / 255 - mean) / std`` in float32; what `valid_region` leaves free is
    zero. Raises UsageError on an image of another type or shape, on a spec or size that cannot be served, and on
    ``resize="slide"``, which makes several inputs of an image.
    """
    region, shown = _placed(image, spec, imgsz)
    filled = np.empty((1, 3, *imgsz), np.float32)
    if shown.shape[:2] != imgsz:
        filled[...] = 0
    _normalise(shown, spec, filled[0, :, region[0], region[1]])
    return filled


def example_input(image: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int]) -> NDArray[np.float32]:
    """One input of an image, to compare or calibrate with: `preprocess`'s, and of a slide its window in the middle."""
    if spec.resize != "slide":
        return preprocess(image, spec, imgsz)
    picture = slide_picture(image, spec, imgsz)
    placed = windows((picture.shape[0], picture.shape[1]), imgsz, stride_of(spec, imgsz))
    top, left = placed[len(placed) // 2]
    return preprocess(picture[top : top + imgsz[0], left : left + imgsz[1]], window_spec(spec), imgsz)


def network_picture(image: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int]) -> NDArray[np.uint8]:
    """What `preprocess` normalises, uint8 RGB (H, W, 3): what is left free has the grey levels nearest to the mean.

    Raises as `preprocess` does.
    """
    region, shown = _placed(image, spec, imgsz)
    order = slice(None, None, -1 if spec.channels == "bgr" else 1)
    level = np.floor(np.clip(np.array(spec.mean[order]) * 255, 0, 255) + 0.5).astype(np.uint8)
    filled = np.tile(level, (*imgsz, 1))
    filled[region] = shown
    return filled


def normalise(image: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """``(x / 255 - mean) / std`` of a uint8 RGB (h, w, 3) image, float32 (h, w, 3) in the order of ``channels``."""
    planes: NDArray[np.float32] = np.empty((3, *image.shape[:2]), np.float32)
    _normalise(image, spec, planes)
    return np.moveaxis(planes, 0, 2)


def _normalise(image: NDArray[np.uint8], spec: PreprocessSpec, planes: NDArray[np.float32]) -> None:
    """`normalise` into (3, h, w)."""
    ordered = image[..., :: -1 if spec.channels == "bgr" else 1]

    def work(bands: Iterator[slice], _: Buffers) -> None:
        for band in bands:
            for channel, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True)):
                plane = planes[channel, band]
                plane[...] = ordered[band, :, channel]
                plane /= np.float32(255)
                plane -= np.float32(mean)
                plane /= np.float32(std)

    in_bands(image.shape[0], 3 * image.shape[1], _BAND, work)


def slide_picture(image: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int]) -> NDArray[np.uint8]:
    """The uint8 RGB picture that windows of ``imgsz`` are cut out of (`windows`): no side of it is under the input's.

    Each window is then what `preprocess` takes with `window_spec`. Raises UsageError as `preprocess` does.
    """
    _check(image, spec, imgsz)
    return resample(image, slide_size((image.shape[0], image.shape[1]), spec, imgsz), spec)


def slide_size(size: tuple[int, int], spec: PreprocessSpec, imgsz: tuple[int, int]) -> tuple[int, int]:
    """The size of `slide_picture`'s for an image of a size."""
    return _scaled(size, spec, imgsz)[-1]


def window_input(
    part: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int], corner: tuple[int, int] = (0, 0)
) -> NDArray[np.float32]:
    """The float32 (1, 3, H, W) input that shows a uint8 RGB image as it is, from ``corner`` on, and zeros around it.

    The image must fit in; a window over the border of a picture shows what there is of it.
    """
    filled = np.zeros((1, 3, *imgsz), np.float32)
    (top, left), (height, width) = corner, part.shape[:2]
    _normalise(part, spec, filled[0, :, top : top + height, left : left + width])
    return filled


def windows(size: tuple[int, int], imgsz: tuple[int, int], stride: tuple[int, int]) -> list[tuple[int, int]]:
    """(top, left) of the windows of ``imgsz`` that cover a picture of a size, row by row.

    They lie ``stride`` apart, and the last of a row or column ends where the picture does, as in mmsegmentation's
    `EncoderDecoder.slide_inference`. Raises UsageError if the picture is smaller than a window.
    """
    if any(side < long for side, long in zip(size, imgsz, strict=True)) or min(stride) < 1:
        raise UsageError(f"no windows of {imgsz} with stride {stride} in a picture of {size}: it must be as large")
    tops, lefts = (
        [min(i * step, side - long) for i in range(-(-(side - long) // step) + 1)]
        for side, long, step in zip(size, imgsz, stride, strict=True)
    )
    return list(product(tops, lefts))


def stride_of(spec: PreprocessSpec, imgsz: tuple[int, int]) -> tuple[int, int]:
    """How far apart windows are: three quarters of the input, unless the spec says it.

    Raises UsageError if that is more than the input, which would leave pixels out.
    """
    if spec.stride is None:
        return max(imgsz[0] * 3 // 4, 1), max(imgsz[1] * 3 // 4, 1)
    if any(step > side for step, side in zip(spec.stride, imgsz, strict=True)):
        step, size = ("x".join(map(str, pair)) for pair in (spec.stride, imgsz))
        raise UsageError(f"stride {step}: it must be at most the input's size, {size}, or pixels are left out")
    return spec.stride


def window_spec(spec: PreprocessSpec) -> PreprocessSpec:
    """How a picture of the network's own size becomes its input, whatever was done to get that size."""
    return replace(spec, resize="stretch", stride=None, short_side=None)


def _placed(
    image: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int]
) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
    """Where in the input the resized image lies, and the image itself."""
    _check(image, spec, imgsz)
    top, left, height, width = valid_region((image.shape[0], image.shape[1]), spec, imgsz)
    for size in _scaled(image.shape[:2], spec, imgsz):
        image = resample(image, size, spec)
    if spec.resize == "crop":
        start, side = (_start(side - kept, spec) for side, kept in zip(image.shape[:2], imgsz, strict=True))
        image = image[start : start + imgsz[0], side : side + imgsz[1]]
    return (slice(top, top + height), slice(left, left + width)), image


class Region(NamedTuple):
    """A part of the input, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def valid_region(size: tuple[int, int], spec: PreprocessSpec, imgsz: tuple[int, int]) -> Region:
    """The part of the input that shows the image of a size.

    All of it, unless the aspect ratio is kept: then the rest is filled. Raises UsageError on ``resize="slide"``.
    """
    if spec.resize == "slide":
        raise UsageError("resize=slide makes several inputs of a picture: hiresvit.Predictor runs them (`windows`)")
    if spec.resize not in ("keep", "letterbox"):
        return Region(0, 0, *imgsz)
    height, width = _scaled(size, spec, imgsz)[-1]
    centred = spec.resize == "letterbox"
    return Region((imgsz[0] - height) // 2 * centred, (imgsz[1] - width) // 2 * centred, height, width)


class Placing(NamedTuple):
    """How an image of one size gets into the input, size by size."""

    sizes: list[tuple[int, int]]
    """What it is resampled to, one after the other; one that it has already changes nothing."""
    corner: tuple[int, int]
    """Where in the last of them the part begins that is kept."""
    region: Region
    """Where in the input that part lies."""


def placing(size: tuple[int, int], spec: PreprocessSpec, imgsz: tuple[int, int]) -> Placing:
    """What `preprocess` does with an image of a size (height, width). Raises UsageError as `valid_region` does."""
    region, sizes, corner = valid_region(size, spec, imgsz), _scaled(size, spec, imgsz), (0, 0)
    if spec.resize == "crop":
        corner = _start(sizes[-1][0] - imgsz[0], spec), _start(sizes[-1][1] - imgsz[1], spec)
    return Placing(sizes, corner, region)


def describe(spec: PreprocessSpec, imgsz: tuple[int, int]) -> str:
    """In one line what `preprocess` does, with its numbers and nothing else's."""
    by = {"pillow": "Pillow, antialiased", "opencv": "OpenCV, not antialiased"}[spec.filter]
    size = f"{imgsz[0]}x{imgsz[1]}"
    if spec.resize == "stretch":
        how = f"stretched to {size}"
    elif spec.resize == "crop":
        cover = "x".join(str(math.floor(side / spec.crop_pct)) for side in imgsz)
        how = f"scaled to cover {cover}, of which the central {size} is taken (crop_pct {spec.crop_pct:g})"
    elif spec.resize == "slide":
        scaled = f"scaled so that the shorter side is {spec.short_side}" if spec.short_side else "not scaled"
        step = "x".join(map(str, stride_of(spec, imgsz)))
        how = f"{scaled}, up where it is smaller than {size}; windows of {size}, {step} apart, their logits averaged"
    else:
        up = f", each side up to a multiple of {spec.divisor}" if spec.divisor > 1 else ""
        where = "at the right and the bottom" if spec.resize == "keep" else "on both sides of it"
        how = f"scaled to fit into {size}{up}, the rest filled with the mean {where}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    order = " of blue, green, red: the network takes BGR" if spec.channels == "bgr" else ""
    return f"{how}; {spec.interpolation} by {by}; mean {mean}, std {std}{order}"


def check_preprocess(spec: PreprocessSpec) -> None:
    """Raise UsageError unless every value of a spec is one that `preprocess` can serve."""
    hints = get_type_hints(PreprocessSpec)
    for name in ("resize", "interpolation", "filter", "rounding", "channels"):
        value, allowed = getattr(spec, name), get_args(hints[name])
        if value not in allowed:
            raise UsageError(f"{name} {value!r}: it must be {' or '.join(allowed)}")
    if spec.filter == "opencv" and spec.interpolation != "bilinear":
        raise UsageError(
            f"interpolation {spec.interpolation} with OpenCV's filter: only bilinear is known of it; "
            f"give filter=pillow, too (--preprocess filter=pillow)"
        )
    if not _is_number(spec.crop_pct) or not 0 < spec.crop_pct <= 1:
        raise UsageError(f"crop_pct {spec.crop_pct}: it must be over 0 and at most 1")
    for name, side in (("divisor", spec.divisor), ("short_side", 1 if spec.short_side is None else spec.short_side)):
        if not _is_side(side):
            raise UsageError(f"{name} {side!r}: it must be a whole number from 1 to {_MOST}")
    stride = (1, 1) if spec.stride is None else spec.stride
    if not isinstance(stride, tuple) or len(stride) != 2 or not all(map(_is_side, stride)):
        raise UsageError(f"stride {stride!r}: it must be two whole numbers from 1 to {_MOST}, height and width")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if not isinstance(values, tuple) or len(values) != 3 or not all(map(_is_number, values)):
            raise UsageError(f"{name} {values!r}: it must be three finite numbers, of red, green and blue from 0 to 1")
    if min(spec.std) <= 0:
        raise UsageError(f"std {spec.std!r}: each must be over 0")


def _check(image: NDArray[np.uint8], spec: PreprocessSpec, imgsz: tuple[int, int]) -> None:
    check_image(image)
    check_preprocess(spec)
    if min(imgsz) < 1:
        raise UsageError(f"imgsz {imgsz}: height and width must be positive")


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise UsageError unless the array is a uint8 (H, W, 3) image with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(f"image is {image.dtype} {image.shape}; it must be uint8 (height, width, 3) RGB")


def _scaled(size: tuple[int, int], spec: PreprocessSpec, imgsz: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes that an image is resampled to, one after the other; a crop comes after them."""
    if spec.resize == "stretch":
        return [imgsz]
    height, width = size
    if spec.resize == "slide":
        pairs = [(1, 1) if spec.short_side is None else (spec.short_side, min(size)), *zip(imgsz, size, strict=True)]
        longer, shorter = max(pairs, key=lambda pair: Fraction(*pair))
        if spec.rounding == "round":
            return [(int(height * (longer / shorter) + 0.5), int(width * (longer / shorter) + 0.5))]
        return [(height * longer // shorter, width * longer // shorter)]
    if spec.resize == "crop":
        cover = math.floor(imgsz[0] / spec.crop_pct), math.floor(imgsz[1] / spec.crop_pct)
        if spec.rounding == "round":  # PaddleClas: in floating point, halves to even
            scale = max(cover[0] / height, cover[1] / width)
            return [(round(height * scale), round(width * scale))]
        if cover[0] * width >= cover[1] * height:  # the height is what has to be covered
            return [(cover[0], cover[0] * width // height)]
        return [(cover[1] * height // width, cover[1])]
    scale = min(imgsz[0] / height, imgsz[1] / width)
    more = 0.5 if spec.rounding == "round" else 0  # mmcv: halves up
    fitted = [min(max(int(side * scale + more), 1), most) for side, most in zip(size, imgsz, strict=True)]
    aligned = [min(-(-side // spec.divisor) * spec.divisor, most) for side, most in zip(fitted, imgsz, strict=True)]
    return [(fitted[0], fitted[1]), (aligned[0], aligned[1])]


def _start(over: int, spec: PreprocessSpec) -> int:
    """Where the centre begins, of ``over`` pixels too many."""
    return over // 2 if spec.rounding == "round" else round(over / 2)


def _is_side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
