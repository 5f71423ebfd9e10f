"""What a contract puts before a network: from a camera's bytes to its input."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from hiresvit.data.pixels import ORDERS, yuv_matrix
from hiresvit.data.preprocess import placing
from hiresvit.export.contract import CHROMA, INPUT, LUMA
from hiresvit.export.resampling import resample
from hiresvit.export.sketch import Sketch
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, Yuv

_PLANES = [0, 3, 1, 2]  # N, H, W, C -> N, C, H, W


def draw_input(sketch: Sketch, spec: ModelSpec, contract: ContractSpec) -> str:
    """From the graph's inputs to the network's (N, 3, H, W) in FP32: bytes, size, normalisation, free parts."""
    preprocess = spec.preprocess
    if contract.pixels == "nv12":
        image = _of_nv12(sketch, contract.yuv or "bt709", contract.size or spec.imgsz)
        if preprocess.channels == "bgr":
            image = sketch.gather(image, [2, 1, 0], 1)
    else:
        image = _of_channels(sketch, contract, preprocess)
    if contract.name == "image" or contract.size is None:
        return _normalised(sketch, image, preprocess)
    size, (sizes, corner, region) = contract.size, placing(contract.size, preprocess, spec.imgsz)
    for target in sizes[:-1]:
        image, size = resample(sketch, image, preprocess, size=size, target=target), target
    part = slice(corner[0], corner[0] + region.height), slice(corner[1], corner[1] + region.width)
    image = resample(sketch, image, preprocess, size=size, target=sizes[-1], part=part)
    image = _normalised(sketch, image, preprocess)
    if (region.height, region.width) == spec.imgsz:
        return image
    below, beside = spec.imgsz[0] - region.top - region.height, spec.imgsz[1] - region.left - region.width
    return sketch.add("Pad", image, sketch.ints(0, 0, region.top, region.left, 0, 0, below, beside))


def _of_channels(sketch: Sketch, contract: ContractSpec, spec: PreprocessSpec) -> str:
    """Three planes in the network's order, of interleaved channels in the camera's."""
    order = ORDERS[contract.pixels][:: -1 if spec.channels == "bgr" else 1]
    # TensorRT takes UINT8 into a Cast alone; ONNX Runtime moves bytes in a fifth of the time.
    image = INPUT if sketch.for_cpu else sketch.cast(INPUT, TensorProto.FLOAT)
    image = sketch.add("Transpose", image, perm=_PLANES)
    if order != tuple(range(len(contract.pixels))):
        image = sketch.gather(image, order, 1)
    return sketch.cast(image, TensorProto.FLOAT) if sketch.for_cpu else image


def _of_nv12(sketch: Sketch, yuv: Yuv, size: tuple[int, int]) -> str:
    """RGB planes of whole grey levels, as `hiresvit.data.pixels.from_nv12` rounds them.

    What chroma adds is computed at its own size. No product is one of matrices, which TensorRT may cut off.
    """
    matrix, bias = yuv_matrix(yuv)
    planes = sketch.add("Transpose", sketch.cast(CHROMA, TensorProto.FLOAT), perm=_PLANES)
    colour = sketch.constant((bias + 0.5)[:, None, None])  # halves up
    for index in range(2):
        plane = sketch.slice(planes, index, index + 1, 1)
        part = sketch.add("Mul", plane, sketch.constant(matrix[:, index + 1, None, None]))
        colour = sketch.add("Add", part, colour)
    wide = sketch.add(
        "Resize",
        colour,
        "",
        sketch.constant([1, 1, 2, 2]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    luma = sketch.add("Unsqueeze", sketch.cast(LUMA, TensorProto.FLOAT), sketch.ints(1))
    if matrix[0, 0] != 1:
        luma = sketch.add("Mul", luma, sketch.constant(matrix[0, 0]))
    levels = sketch.add("Clip", sketch.add("Add", wide, luma), sketch.constant(0.0), sketch.constant(255.5))
    return sketch.add("Floor", levels)


def _normalised(sketch: Sketch, image: str, spec: PreprocessSpec) -> str:
    """``(x / 255 - mean) / std`` as one product and one sum.

    Every family's first convolution is padded with zeros of the normalised input, so neither goes into its weights.
    """
    mean, std = np.array(spec.mean), np.array(spec.std)
    scaled = sketch.add("Mul", image, sketch.constant((1 / (255 * std))[:, None, None]))
    return sketch.add("Add", scaled, sketch.constant((-mean / std)[:, None, None]))
