"""What a contract puts behind a network: from logits to labels of the picture's size, or to the best classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from hiresvit.data.preprocess import Region, valid_region
from hiresvit.export.contract import CLASSES, CONFIDENCE, LABELS, PROBABILITIES
from hiresvit.export.resampling import HEIGHT, WIDTH, scale_to
from hiresvit.export.sketch import Sketch
from hiresvit.spec import ContractSpec, LabelType, ModelSpec

_TYPES: dict[LabelType, int] = {
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


def draw_classes(sketch: Sketch, logits: str, contract: ContractSpec) -> None:
    """The best of FP32 logits (N, C) and the softmax's probability of each; of equals the lowest comes first."""
    best = sketch.add("TopK", logits, sketch.ints(contract.top_k or 1), outputs=2, axis=-1)
    shares = sketch.add("Softmax", logits, axis=-1)
    sketch.give(CLASSES, "Cast", best, to=_TYPES[contract.label_type or "int32"])
    sketch.give(PROBABILITIES, "GatherElements", shares, best, axis=-1)


class _Side(NamedTuple):
    """One axis of logits that lie over a network's input, of which a part shows the picture."""

    axis: int
    cells: int
    start: int
    shown: int
    whole: int
    target: int
    """Pixels: where the part begins, how many it has, those of the whole input, those that the picture has."""


def draw_labels(
    sketch: Sketch,
    logits: tuple[str, str],
    shape: tuple[int, int, int],
    spec: ModelSpec,
    contract: ContractSpec,
) -> None:
    """Labels and, if asked, confidence of logits (N, C, h, w), by their names in the network's type and in FP32.

    ``shape`` is C, h, w. The labels are those of `hiresvit.runtime.labels.label_map`.
    """
    size = contract.size or spec.imgsz
    region = valid_region(size, spec.preprocess, spec.imgsz) if contract.name == "camera" else Region(0, 0, *spec.imgsz)
    facts = zip((HEIGHT, WIDTH), shape[1:], region[:2], region[2:], spec.imgsz, size, strict=True)
    sides = [_Side(*fact) for fact in facts]
    own, single = logits
    axis = 1
    # Else what the network gives, be it FP16, is what the best is looked for in
    if any((side.cells, side.shown) != (side.target, side.whole) for side in sides):
        single, axis = _resized(sketch, single, shape[0], sides)
        own = single
    winner = sketch.add("ArgMax", own, axis=axis, keepdims=0)
    kind = contract.label_type or "uint8"
    if kind == "uint8":  # TensorRT makes UINT8 of floating point alone
        winner = sketch.cast(winner, TensorProto.FLOAT)
    sketch.give(LABELS, "Cast", winner, to=_TYPES[kind])
    if contract.confidence:
        _draw_confidence(sketch, single, axis)


def _draw_confidence(sketch: Sketch, logits: str, axis: int) -> None:
    """``floor(255 p + 0.5)`` of the best class's probability: one over the sum of e to the distances from it."""
    distance = sketch.add("Sub", logits, sketch.reduce("ReduceMax", logits, axis))
    total = sketch.reduce("ReduceSum", sketch.add("Exp", distance), axis)
    share = sketch.add("Add", sketch.add("Div", sketch.constant(255.0), total), sketch.constant(0.5))
    flat = sketch.add("Squeeze", sketch.add("Floor", share), sketch.ints(axis))
    sketch.give(CONFIDENCE, "Cast", flat, to=TensorProto.UINT8)


def _resized(sketch: Sketch, logits: str, classes: int, sides: list[_Side]) -> tuple[str, int]:
    """Logits of the part that shows the picture at the picture's size, and which axis their classes are on."""
    if any(side.shown != side.whole != side.cells for side in sides):
        return _mixed(sketch, logits, sides), 1
    cells = []
    for side in sides:
        if side.shown != side.whole:
            logits = sketch.slice(logits, side.start, side.start + side.shown, side.axis)
        cells.append(side.cells if side.shown == side.whole else side.shown)
    target = [side.target for side in sides]
    if cells == target:
        return logits, 1
    factors = [scale_to(*pair) for pair in zip(cells, target, strict=True)]
    if not sketch.for_cpu:
        return _linear(sketch, logits, [1, 1, *factors], [classes, *target]), 1
    # ONNX Runtime takes half the time where a pixel's classes lie side by side.
    last = sketch.add("Transpose", logits, perm=[0, 2, 3, 1])
    return _linear(sketch, last, [1, *factors, 1], [*target, classes]), 3


def _linear(sketch: Sketch, source: str, factors: list[float], sizes: list[int]) -> str:
    """Bilinear, half-pixel centres, edges repeated: to sizes where the batch is known, else by factors."""
    known = isinstance(sketch.batch, int)
    given = ("", sketch.ints(int(sketch.batch), *sizes)) if known else (sketch.constant(factors),)
    return sketch.add("Resize", source, "", *given, mode="linear", coordinate_transformation_mode="half_pixel")


def _mixed(sketch: Sketch, logits: str, sides: list[_Side]) -> str:
    """The same where a cell is larger than a pixel and the part ends within one: each of two cells with its share.

    Nothing beyond the centres of the part's first and last pixel is looked at.
    """
    for side in reversed(sides):
        each, end = side.cells / side.whole, side.start + side.shown
        least = max((side.start + 0.5) * each - 0.5, 0) if side.start else 0
        most = side.cells - 1 if end == side.whole else max((end - 0.5) * each - 0.5, 0)
        place = (side.start + (np.arange(side.target) + 0.5) * side.shown / side.target) * each - 0.5
        place = np.clip(place, least, most)
        first = place.astype(np.int64)
        share = place - first
        near = sketch.gather(logits, first, side.axis)
        far = sketch.gather(logits, np.minimum(first + 1, side.cells - 1), side.axis)
        weight = sketch.constant(share if side.axis == WIDTH else share[:, None])
        logits = sketch.add("Add", near, sketch.add("Mul", sketch.add("Sub", far, near), weight))
    return logits
