"""Sums of maps that are enlarged bilinearly: one kernel, with four numbers gathered where each Resize takes four.

TensorRT makes a kernel of each Resize, which reads the sum so far and writes it again. Here the whole sum is one, with
the map that is not enlarged: TensorRT would otherwise add the coarse maps early and keep that sum, at full size, until
the fine one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hiresvit.export.draft import Draft, Site, sole_reader
from hiresvit.graph.dtypes import HALF
from hiresvit.graph.index import GraphIndex, attributes

_LEAST = 3  # enlarged maps in a sum: TensorRT joins one with its sum by itself, and of two it keeps less
_SAID = {"mode": b"linear", "coordinate_transformation_mode": b"half_pixel"}


@dataclass(frozen=True)
class Sum:
    """Adds of maps of one shape: ``plain`` ones, and those that ``enlarged`` nodes make for this sum alone.

    ``made`` is what it makes, behind a ReLU if ``relu``; ``gone`` are the tensors on the way.
    """

    near: str
    made: str
    relu: bool
    plain: tuple[str, ...]
    enlarged: tuple[NodeProto, ...]
    gone: frozenset[str]


def resize_sites(index: GraphIndex) -> Iterator[Site]:
    """Sums in which three or more maps are enlarged by a Resize, with the ReLU behind."""
    for node in index.nodes:
        if node.op_type == "Add" and (found := _sum(index, node)) is not None:
            yield Site(found.made, found.gone, partial(_write, found=found))


def _sum(index: GraphIndex, last: NodeProto) -> Sum | None:
    """The sum that ends in an Add; None if it goes on, or enlarges too little."""
    made = last.output[0]
    behind = sole_reader(index, made)
    shape = index.shapes.get(made, ())
    if (behind is not None and behind.op_type == "Add") or len(shape) != 4 or index.types.get(made) != "float16":
        return None
    gone = {made}
    terms = [term for name in last.input for term in _terms(index, name, gone)]
    if any(index.shapes.get(name) != shape or name in index.constants for name in terms):
        return None
    found = {name: node for name in terms if (node := _bilinear(index, name)) is not None}
    if len(found) < _LEAST:
        return None
    relu = behind is not None and behind.op_type == "Relu"
    out = behind.output[0] if behind is not None and relu else made
    plain = tuple(name for name in terms if name not in found)
    return Sum(last.name, out, relu, plain, tuple(found.values()), frozenset((gone | set(found)) - {out}))


def _terms(index: GraphIndex, tensor: str, gone: set[str]) -> list[str]:
    """What an Add that only the sum reads adds, and so on; it is ``gone`` then."""
    maker = index.producer.get(tensor)
    if maker is None or maker.op_type != "Add" or sole_reader(index, tensor) is None:
        return [tensor]
    gone.add(tensor)
    return [term for name in maker.input for term in _terms(index, name, gone)]


def _bilinear(index: GraphIndex, tensor: str) -> NodeProto | None:
    """The Resize that makes a map for one reader alone, bilinearly, each side a whole number of times as long."""
    node = index.producer.get(tensor)
    if node is None or node.op_type != "Resize" or sole_reader(index, tensor) is None:
        return None
    said = attributes(node)
    if any(said.get(name) != value for name, value in _SAID.items()) or said.get("antialias", 0):
        return None
    before, after = index.shapes.get(node.input[0], ()), index.shapes.get(tensor, ())
    sides = [(a, b) for a, b in zip(before[2:], after[2:], strict=True) if a is not None and b is not None]
    whole = len(sides) == 2 and all(b % a == 0 for a, b in sides)
    return node if whole and before[1] == after[1] else None


def _write(draft: Draft, found: Sum) -> None:
    near = found.near
    terms = [_single(draft, name, near) for name in found.plain]
    terms += [_enlarged(draft, node, near) for node in found.enlarged]
    total = terms[0]
    for term in terms[1:]:
        total = draft.add("Add", [total, term], near)
    total = draft.add("Relu", [total], near) if found.relu else total
    half = draft.add("Cast", [total], near, to=HALF)
    draft.add("Transpose", [half], near, output=found.made, perm=[0, 3, 1, 2])


def _single(draft: Draft, tensor: str, near: str) -> str:
    """A map in FP32 with the channels last."""
    return draft.single(draft.add("Transpose", [tensor], near, perm=[0, 2, 3, 1]), near)


def _enlarged(draft: Draft, node: NodeProto, near: str) -> str:
    rows = _single(draft, node.input[0], near)
    before, after = draft.index.shapes[node.input[0]], draft.index.shapes[node.output[0]]
    for axis, source, target in zip((1, 2), before[2:], after[2:], strict=True):
        assert source is not None
        assert target is not None
        first, second, share = neighbours(source, target)
        weight = share.reshape(-1, 1, 1) if axis == 1 else share.reshape(-1, 1)
        parts = []
        for places, factor in ((first, 1 - weight), (second, weight)):
            line = draft.add("Gather", [rows, draft.constant(places)], near, axis=axis)
            parts.append(draft.add("Mul", [line, draft.constant(factor)], near))
        rows = draft.add("Add", parts, near)
    return rows


def neighbours(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Of each place of a side that is enlarged: two places of the side before, and the second one's share (half_pixel).

    The shares of a whole factor are odd multiples of half its inverse.
    """
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    first = np.floor(centre).astype(np.int64)
    return first, np.minimum(first + 1, source - 1), (centre - first).astype(np.float32)
