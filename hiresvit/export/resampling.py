"""A picture at another size inside a graph, to the bit as Pillow or OpenCV has it: whole grey levels in and out.

Both resize one axis and then the other, by a product with a constant matrix in which a row has a few neighbours that
are not zero; the rows are taken some at a time, with only the columns that they need. FP32 holds a whole number of 24
bits, and TensorRT may multiply FP32 matrices with 11 bits of each number (TF32): OpenCV's coefficients have 11, and
Pillow's, which have 22, are taken as two matrices of 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.resample import opencv_taps
from hiresvit.export.sketch import Sketch
from hiresvit.spec import PreprocessSpec

HEIGHT, WIDTH = 2, 3  # axes of N, 3, H, W
_HALF = 1 << 11  # what half of a coefficient of Pillow's, and a whole one of OpenCV's, is counted in
_ROWS = 64  # of a matrix at a time: fewer are more nodes, more are more products with zeros
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_A = -0.5  # Pillow's bicubic: Keys' with this slope


def resample(
    sketch: Sketch,
    image: str,
    spec: PreprocessSpec,
    *,
    size: tuple[int, int],
    target: tuple[int, int],
    part: tuple[slice, slice] | None = None,
) -> str:
    """Grey levels (N, 3, H, W) of ``size`` at ``target``, as `hiresvit.data.resample.resample` gives them.

    Of them only ``part`` (rows, columns), if given; nothing else is computed.
    """
    rows, columns = part or (slice(0, target[0]), slice(0, target[1]))
    if size == target:
        return _part(sketch, _part(sketch, image, columns, size[1], WIDTH), rows, size[0], HEIGHT)
    if spec.filter == "opencv":
        image = _opencv_width(sketch, image, size[1], target[1], columns)
        return _opencv_height(sketch, image, size[0], target[0], rows)
    passes = [(WIDTH, columns, size[1], target[1]), (HEIGHT, rows, size[0], target[0])]
    # Pillow 13 (its Resample.c); those before it always begin with the width.
    if size[0] - target[0] > max(2 * (size[1] - target[1]), 0):
        passes.reverse()
    for axis, kept, source, side in passes:
        if source == side:
            image = _part(sketch, image, kept, source, axis)
        else:
            image = _pillow_pass(sketch, image, pillow_matrix(source, side, spec.interpolation)[kept], axis)
    return image


def pillow_matrix(source: int, target: int, interpolation: str) -> NDArray[np.int64]:
    """Pillow's coefficients (target, source) for 8-bit pictures, in 2^22ths (its Resample.c)."""
    scale = source / target
    wide = max(scale, 1.0)
    support = _SUPPORT[interpolation] * wide
    centre = (np.arange(target) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)  # cut off towards 0, as C does
    last = np.minimum((centre + support + 0.5).astype(np.int64), source)
    place = np.arange(source)
    x = np.abs(place - centre[:, None] + 0.5) / wide
    weight = np.maximum(1 - x, 0) if interpolation == "bilinear" else _keys(x)
    weight *= (place >= first[:, None]) & (place < last[:, None])
    weight /= weight.sum(1, keepdims=True)
    fixed = weight * _HALF**2
    return np.asarray(np.trunc(fixed + np.copysign(0.5, fixed)), np.int64)


def _keys(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _pillow_pass(sketch: Sketch, image: str, matrix: NDArray[np.int64], axis: int) -> str:
    """An axis of grey levels resized and rounded, halves up. Each sum is of whole numbers of at most 24 bits."""
    upper, lower = _banded(sketch, image, [matrix // _HALF / _HALF, matrix % _HALF / _HALF**2], axis)
    upper = sketch.add("Add", upper, sketch.constant(0.5))
    whole = sketch.add("Floor", upper)
    rest = sketch.add("Add", sketch.add("Sub", upper, whole), lower)
    levels = sketch.add("Add", whole, sketch.add("Floor", rest))
    if (matrix < 0).any():  # it overshoots
        levels = sketch.add("Clip", levels, sketch.constant(0.0), sketch.constant(255.0))
    return levels


def _opencv_width(sketch: Sketch, image: str, source: int, target: int, kept: slice) -> str:
    """In 128ths of a grey level, cut off: products of 8 and 11 bits, of which FP32 holds the sum to the bit."""
    left, right, a0, a1 = (part[kept] for part in opencv_taps(source, target))
    matrix = np.zeros((len(left), source))
    rows = np.arange(len(left))
    np.add.at(matrix, (rows, left), a0)
    np.add.at(matrix, (rows, right), a1)
    return sketch.add("Floor", *_banded(sketch, image, [matrix / 16], WIDTH))


def _opencv_height(sketch: Sketch, image: str, source: int, target: int, kept: slice) -> str:
    """Two products that are each cut off to quarters of a level, and their sum rounded."""
    top, bottom, b0, b1 = (part[kept] for part in opencv_taps(source, target))
    halves = []
    for place, weight in ((top, b0), (bottom, b1)):
        column = sketch.constant((weight / 65536)[:, None])
        halves.append(sketch.add("Floor", sketch.add("Mul", sketch.gather(image, place, HEIGHT), column)))
    quarters = sketch.add("Mul", sketch.add("Add", *halves), sketch.constant(0.25))
    return sketch.add("Floor", sketch.add("Add", quarters, sketch.constant(0.5)))


def _banded(sketch: Sketch, image: str, matrices: Sequence[NDArray[np.float64]], axis: int) -> list[str]:
    """``image`` with an axis multiplied by each of some matrices (new, old) with few neighbours a row, the same."""
    parts: list[list[str]] = [[] for _ in matrices]
    shape = matrices[0].shape
    for start in range(0, shape[0], _ROWS):
        rows = [matrix[start : start + _ROWS] for matrix in matrices]
        used = np.flatnonzero(np.any(np.concatenate(rows), 0))
        near = slice(int(used[0]), int(used[-1]) + 1)
        seen = _part(sketch, image, near, shape[1], axis)
        for made, part in zip(parts, rows, strict=True):
            factor = sketch.constant(part[:, near].T if axis == WIDTH else part[:, near])
            made.append(sketch.add("MatMul", *((seen, factor) if axis == WIDTH else (factor, seen))))
    return [made[0] if len(made) == 1 else sketch.add("Concat", *made, axis=axis) for made in parts]


def _part(sketch: Sketch, image: str, part: slice, whole: int, axis: int) -> str:
    """Some of an axis; the tensor itself if it is all of it."""
    if (part.start, part.stop) == (0, whole):
        return image
    return sketch.slice(image, part.start, part.stop, axis)


def scale_to(source: int, target: int) -> float:
    """The FP32 factor of a Resize that makes ``target`` of ``source``, whose result is cut off to a whole number."""
    factor = np.float32(target / source)
    while math.floor(np.float32(source) * factor) < target or math.floor(source * float(factor)) < target:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)
