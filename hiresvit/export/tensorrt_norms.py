"""LayerNorms cut in two: the numbers of each row, and what is done with them where the row is read again.

TensorRT joins the second half of a norm with its reader, and keeps the row for it in FP32 with the mean taken off:
twice the bytes. Here that reader takes the row itself, in FP16, and the two numbers of the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hiresvit.export.draft import Draft, Site, sole_reader
from hiresvit.export.tensorrt_taps import BORDER, Depthwise, depthwise, of_channels, write_taps
from hiresvit.graph.index import GraphIndex, attributes, operand

_AXES_AS_INPUT = 18  # of ReduceMean, from this opset on


@dataclass(frozen=True)
class Norm:
    """A LayerNormalization of rows (N, C) between two casts, the second of which makes ``tensor``."""

    source: str
    near: str
    epsilon: float
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    gone: frozenset[str]


def norm_that_makes(index: GraphIndex, tensor: str) -> Norm | None:
    """The norm of rows in FP16 that makes a tensor for one reader alone; None if something else does."""
    back = index.producer.get(tensor)
    norm = index.producer.get(back.input[0]) if back is not None and back.op_type == "Cast" else None
    if back is None or norm is None or norm.op_type != "LayerNormalization" or len(norm.output) != 1:
        return None
    cast = index.producer.get(norm.input[0])
    rows = index.shapes.get(norm.input[0], ())
    scale, shift = index.array(norm.input[1]), index.array(operand(norm, 2))
    said = attributes(norm)
    if cast is None or cast.op_type != "Cast" or len(rows) != 2 or said.get("axis", -1) not in (-1, 1) or scale is None:
        return None
    alone = sole_reader(index, tensor) is not None and sole_reader(index, norm.output[0]) is not None
    if not alone or index.types.get(cast.input[0]) != "float16" or index.types.get(tensor) != "float16":
        return None
    gone = {tensor, norm.output[0]} | ({norm.input[0]} if sole_reader(index, norm.input[0]) is not None else set())
    shift = np.zeros(len(scale)) if shift is None else shift
    epsilon = float(said.get("epsilon", 1e-5))
    return Norm(cast.input[0], norm.name, epsilon, scale.astype(np.float32), shift.astype(np.float32), frozenset(gone))


def norm_sites(index: GraphIndex) -> Iterator[Site]:
    """Norms in front of a Concat of rows, and of a depthwise convolution of the map that the rows are."""
    for node in index.nodes:
        if node.op_type == "Concat" and attributes(node).get("axis") in (1, -1):
            norms = [norm_that_makes(index, name) for name in node.input]
            places = [place for place, norm in enumerate(norms) if norm is not None]
            if len(places) == 1 and (norm := norms[places[0]]) is not None:
                yield Site(node.output[0], norm.gone, partial(_write_joined, node=node, place=places[0], norm=norm))
        elif (conv := depthwise(index, node)) is not None and conv.stride == (1, 1):
            yield from _in_front(index, conv)


def _in_front(index: GraphIndex, conv: Depthwise) -> Iterator[Site]:
    turned = index.producer.get(conv.node.input[0])
    if turned is None or turned.op_type != "Transpose" or list(attributes(turned).get("perm", ())) != [0, 3, 1, 2]:
        return
    shaped = index.producer.get(turned.input[0])
    if shaped is None or shaped.op_type != "Reshape" or sole_reader(index, shaped.output[0]) is None:
        return
    if sole_reader(index, turned.output[0]) is None or (norm := norm_that_makes(index, shaped.input[0])) is None:
        return
    gone = norm.gone | {turned.output[0], shaped.output[0]}
    yield Site(conv.node.output[0], gone, partial(_write_convolved, conv=conv, norm=norm))


def write_rows(draft: Draft, near: str, rows: str, epsilon: float) -> tuple[str, str]:
    """Of FP32 rows (N, C) the mean, and one over the deviation; each (N, 1)."""

    def mean_of(tensor: str) -> str:
        if (draft.index.opset or 0) < _AXES_AS_INPUT:
            return draft.add("ReduceMean", [tensor], near, axes=[-1])
        return draft.add("ReduceMean", [tensor, draft.constant([-1])], near)

    mean = mean_of(rows)
    off = draft.add("Sub", [rows, mean], near)
    variance = mean_of(draft.add("Mul", [off, off], near))
    shifted = draft.add("Add", [variance, draft.constant(np.array(epsilon, np.float32))], near)
    return mean, draft.add("Reciprocal", [draft.add("Sqrt", [shifted], near)], near)


def _write_rows(draft: Draft, norm: Norm) -> tuple[str, str]:
    """1/sigma and mean/sigma of each row, (N, 1) in FP32."""
    mean, rate = write_rows(draft, norm.near, draft.single(norm.source, norm.near), norm.epsilon)
    return rate, draft.add("Mul", [mean, rate], norm.near)


def _write_joined(draft: Draft, node: NodeProto, place: int, norm: Norm) -> None:
    """The rows are joined first, and then scaled and shifted where they came through the norm."""
    near = node.name
    rate, offset = _write_rows(draft, norm)
    names = [norm.source if k == place else name for k, name in enumerate(node.input)]
    joined = draft.single(draft.add("Concat", names, near, axis=1), near)
    widths = [draft.index.shapes[name][1] or 0 for name in node.input]
    around = (sum(widths[:place]), sum(widths[place + 1 :]))

    def across(per_channel: NDArray[Any], elsewhere: float) -> str:
        """A number for each column of what is joined."""
        values = np.pad(per_channel, around, constant_values=elsewhere)[None].astype(np.float32)
        return draft.constant(values)

    scale = across(norm.scale, 0)
    factor = draft.add("Mul", [rate, scale], near)
    factor = draft.add("Add", [factor, across(np.zeros_like(norm.scale), 1)], near)
    joined = draft.add("Mul", [joined, factor], near)
    joined = draft.add("Sub", [joined, draft.add("Mul", [offset, scale], near)], near)
    if np.any(norm.shift):
        joined = draft.add("Add", [joined, across(norm.shift, 0)], near)
    draft.half(joined, near, node.output[0])


def _write_convolved(draft: Draft, conv: Depthwise, norm: Norm) -> None:
    """The border is put around the rows and their numbers, so that what is normalised there is zero."""
    near = conv.node.name
    (height, width), channels = conv.size, len(norm.scale)
    border = draft.constant(BORDER)

    def bordered(rows: str, count: int) -> str:
        cells = draft.add("Reshape", [rows, draft.constant([-1, height, width, count])], near)
        return draft.add("Pad", [draft.add("Transpose", [cells], near, perm=[0, 3, 1, 2]), border], near)

    rate, offset = (bordered(name, 1) for name in _write_rows(draft, norm))
    # Cast behind the border: a cast in front of it would be that of the rows, and kept in FP32.
    image = draft.single(bordered(norm.source, channels), near)
    image = draft.add("Sub", [draft.add("Mul", [image, rate], near), offset], near)
    if not np.all(norm.scale == 1):
        image = draft.add("Mul", [image, draft.constant(of_channels(norm.scale))], near)
    if np.any(norm.shift):
        # 1 inside and 0 on the border, but no constant: TensorRT would store it for each channel.
        inside = draft.add("Sign", [rate], near)
        inside = draft.add("Mul", [inside, draft.constant(of_channels(norm.shift))], near)
        image = draft.add("Add", [image, inside], near)
    draft.half(write_taps(draft, conv, image), near, conv.node.output[0])
