"""Depthwise convolutions as sums of nine slices, and the blocks of two branches that they are written so in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hiresvit.export.draft import Draft, Site, sole_reader
from hiresvit.graph.dtypes import HALF
from hiresvit.graph.index import GraphIndex, attributes, operand
from hiresvit.graph.operators import LAYOUT, WEIGHTED

BORDER = (0, 0, 1, 1, 0, 0, 1, 1)
"""A row and a column of zeros around a map, as Pad takes them."""
_BORDER_LAST = (0, 1, 1, 0, 0, 1, 1, 0)  # with the channels last
_PLACE = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}


@dataclass(frozen=True)
class Depthwise:
    """A 3x3 depthwise convolution with a border of one pixel: weights (C, 3, 3), bias (C,), output height and width."""

    node: NodeProto
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: tuple[int, int]
    size: tuple[int, int]


def depthwise(index: GraphIndex, node: NodeProto) -> Depthwise | None:
    """What a node is if it is such a convolution in FP16, of constant weights and at a static size."""
    if node.op_type != "Conv" or index.types.get(node.output[0]) != "float16":
        return None
    said = attributes(node)
    weight, bias = index.array(node.input[1]), index.array(operand(node, 2))
    height, width = (*index.shapes.get(node.output[0], ()), None, None)[2:4]
    if weight is None or height is None or width is None or weight.shape[1:] != (1, 3, 3):
        return None
    plain = list(said.get("pads", ())) == [1, 1, 1, 1] and set(said.get("dilations", (1,))) == {1}
    if not plain or said.get("group", 1) != len(weight) or (bias is None and operand(node, 2)):
        return None
    stride = tuple(said.get("strides", (1, 1)))
    bias = np.zeros(len(weight)) if bias is None else bias
    return Depthwise(node, weight[:, 0].astype(np.float32), bias.astype(np.float32), stride, (height, width))


def write_taps(draft: Draft, conv: Depthwise, bordered: str, *, last: bool = False) -> str:
    """The convolution of a map in FP32 that has its border; FP32. ``last``: its channels are its last axis."""
    near = conv.node.name
    total = ""
    axes, step = draft.constant([1, 2] if last else [2, 3]), draft.constant(conv.stride)
    shaped = _of_last if last else of_channels
    for y, x in np.ndindex(3, 3):
        ends = [first + (size - 1) * s + 1 for first, size, s in zip((y, x), conv.size, conv.stride, strict=True)]
        moved = draft.add("Slice", [bordered, draft.constant([y, x]), draft.constant(ends), axes, step], near)
        tap = draft.add("Mul", [moved, draft.constant(shaped(conv.weight[:, y, x]))], near)
        total = draft.add("Add", [total, tap], near) if total else tap
    return draft.add("Add", [total, draft.constant(shaped(conv.bias))], near) if np.any(conv.bias) else total


def of_channels(values: NDArray[Any]) -> NDArray[np.float32]:
    """One number for each channel of a map."""
    return values.astype(np.float32)[None, :, None, None]


def _of_last(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def lone_sites(index: GraphIndex) -> Iterator[Site]:
    """Depthwise convolutions of stride 1 that no product reads: what does is joined with them."""
    for node in index.nodes:
        conv = depthwise(index, node)
        if conv is None or conv.stride != (1, 1) or node.output[0] in index.outputs:
            continue
        if not any(reader.op_type in WEIGHTED for reader in _behind(index, node)):
            yield Site(node.output[0], frozenset(), partial(_write_lone, conv=conv))


def _behind(index: GraphIndex, node: NodeProto) -> Iterator[NodeProto]:
    """The readers of a node that do more than lay its numbers out anew."""
    for reader, _ in index.reads(node.output[0]):
        if reader.op_type in LAYOUT:
            yield from _behind(index, reader)
        else:
            yield reader


def _write_lone(draft: Draft, conv: Depthwise) -> None:
    """With the channels last: otherwise TensorRT turns a large map in a kernel of its own."""
    near = conv.node.name
    turned = draft.add("Transpose", [conv.node.input[0]], near, perm=[0, 2, 3, 1])
    bordered = draft.single(draft.add("Pad", [turned, draft.constant(_BORDER_LAST)], near), near)
    total = draft.add("Cast", [write_taps(draft, conv, bordered, last=True)], near, to=HALF)
    draft.add("Transpose", [total], near, output=conv.node.output[0], perm=[0, 3, 1, 2])


def branch_sites(index: GraphIndex) -> Iterator[Site]:
    """BatchNorms that only depthwise convolutions read: a convolution with what is added to it, or one by itself.

    That with a sum behind it reads the map itself and normalises it in FP32. One by itself reads the norm, which
    stays: were both written alike TensorRT would compute both in one kernel, which keeps the one that has to wait
    for its sum in FP32 until then.
    """
    for norm in index.nodes:
        if norm.op_type != "BatchNormalization" or index.types.get(norm.input[0]) != "float16":
            continue
        convs = [depthwise(index, reader) for reader, _ in index.reads(norm.output[0])]
        if norm.output[0] in index.outputs or index.array(norm.input[3]) is None:
            continue
        found = [conv for conv in convs if conv is not None]
        if len(found) != len(convs):
            continue
        for conv in found:
            terms = sum_behind(index, conv.node.output[0])
            if terms:
                gone = {conv.node.output[0], *(made for made, _ in terms)} | _enlarged(index, terms)
                yield Site(terms[-1][0], frozenset(gone), partial(_write_sum, conv=conv, norm=norm, terms=terms))
            else:
                yield Site(conv.node.output[0], frozenset(), partial(_write_single, conv=conv, norm=norm))


def sum_behind(index: GraphIndex, tensor: str) -> list[tuple[str, str]]:
    """The Adds behind a tensor, one behind the other: what each makes, and what it adds of the same shape."""
    terms: list[tuple[str, str]] = []
    shape = index.shapes.get(tensor)
    while (reader := sole_reader(index, tensor)) is not None and reader.op_type == "Add":
        other = reader.input[1] if reader.input[0] == tensor else reader.input[0]
        if index.shapes.get(other) != shape or other in index.constants:
            break
        tensor = reader.output[0]
        terms.append((tensor, other))
    return terms


def _enlarged(index: GraphIndex, terms: list[tuple[str, str]]) -> set[str]:
    """Of what is added that which a Resize makes by repetition, for this sum alone."""
    return {other for _, other in terms if _repeats(index, other) is not None and sole_reader(index, other) is not None}


def _repeats(index: GraphIndex, tensor: str) -> tuple[int, int] | None:
    """How often a Resize repeats each row and column; None if it does something else."""
    node = index.producer.get(tensor)
    if node is None or node.op_type != "Resize" or any(attributes(node).get(k) != v for k, v in _PLACE.items()):
        return None
    before, after = index.shapes.get(node.input[0], ()), index.shapes.get(tensor, ())
    sides = [(a, b) for a, b in zip(before[2:], after[2:], strict=True) if a is not None and b is not None]
    if len(sides) != 2 or any(b % a for a, b in sides) or before[1] != after[1]:
        return None
    return sides[0][1] // sides[0][0], sides[1][1] // sides[1][0]


def _write_sum(draft: Draft, conv: Depthwise, norm: NodeProto, terms: list[tuple[str, str]]) -> None:
    index, near = draft.index, conv.node.name
    source = draft.single(norm.input[0], near)
    scale, shift = _affine(index, norm)
    normed = draft.add("Mul", [source, draft.constant(of_channels(scale))], near)
    normed = draft.add("Add", [normed, draft.constant(of_channels(shift))], near)
    total = write_taps(draft, conv, draft.add("Pad", [normed, draft.constant(BORDER)], near))
    enlarged = _enlarged(index, terms)
    for _, other in terms:
        if other == norm.input[0]:
            term = source
        else:
            term = draft.single(_write_repeated(draft, other, near) if other in enlarged else other, near)
        total = draft.add("Add", [total, term], near)
    draft.half(total, near, terms[-1][0])


def _write_single(draft: Draft, conv: Depthwise, norm: NodeProto) -> None:
    near = conv.node.name
    bordered = draft.add("Pad", [norm.output[0], draft.constant(BORDER)], near)
    draft.half(write_taps(draft, conv, draft.single(bordered, near)), near, conv.node.output[0])


def _write_repeated(draft: Draft, tensor: str, near: str) -> str:
    """A Resize as an Expand between two Reshapes: of that TensorRT needs no kernel."""
    repeats = _repeats(draft.index, tensor)
    assert repeats is not None
    small = draft.index.producer[tensor].input[0]
    channels, height, width = (size or 0 for size in draft.index.shapes[small][1:])
    cells = draft.add("Reshape", [small, draft.constant([-1, height, 1, width, 1])], near)
    cells = draft.add("Expand", [cells, draft.constant([1, 1, repeats[0], 1, repeats[1]])], near)
    return draft.add("Reshape", [cells, draft.constant([-1, channels, height * repeats[0], width * repeats[1]])], near)


def _affine(index: GraphIndex, norm: NodeProto) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scale and the shift that a BatchNorm comes to."""
    gamma, beta, mean, variance = (np.asarray(index.array(name), np.float64) for name in norm.input[1:5])
    scale = gamma / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
    return scale, beta - mean * scale
