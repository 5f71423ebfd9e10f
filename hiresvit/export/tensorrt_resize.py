"""Bilinear resizes by a whole factor, as sums of a pixel and its neighbours.

TensorRT joins one Resize with the additions behind it, but no second one. Each of ``f`` pixels in the place of one is a
mean of it and its nearer neighbour along an axis: three shifted maps, each times f constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from onnx import NodeProto

from hiresvit.export.draft import Draft, Site
from hiresvit.graph.dtypes import HALF
from hiresvit.graph.index import GraphIndex, attributes, operand

_CENTRES = (b"half_pixel", b"pytorch_half_pixel")


def resize_sites(index: GraphIndex) -> Iterator[Site]:
    """Resizes that are added to another one."""
    for node in index.nodes:
        factor = _factor(index, node)
        if factor is None:
            continue
        sums = [reader for reader, _ in index.reads(node.output[0]) if reader.op_type == "Add"]
        if any(_adds_resizes(index, each) for each in sums):
            yield Site(node.output[0], frozenset(), partial(_write, node=node, factor=factor))


def _factor(index: GraphIndex, node: NodeProto) -> int | None:
    """Of a bilinear Resize of an FP16 map of static size; None for anything else."""
    if node.op_type != "Resize" or index.types.get(node.output[0]) != "float16" or len(node.input) < 3:
        return None
    said, scales, sizes = attributes(node), index.array(operand(node, 2)), index.shapes.get(node.input[0], ())
    if scales is None or len(sizes) != 4 or None in sizes[1:] or said.get("mode") != b"linear":
        return None
    factor = round(float(scales[-1]))
    centred = said.get("coordinate_transformation_mode", b"half_pixel") in _CENTRES
    return factor if centred and factor > 1 and scales.tolist() == [1, 1, factor, factor] else None


def _adds_resizes(index: GraphIndex, node: NodeProto) -> bool:
    """Whether a chain of additions, of which this is one, has more than one Resize in it."""
    makers = [maker for name in node.input if (maker := index.producer.get(name)) is not None]
    own = sum(_factor(index, maker) is not None for maker in makers)
    before = any(maker.op_type == "Add" and _adds_any(index, maker) for maker in makers)
    behind = any(
        reader.op_type == "Add" and _adds_any(index, reader, but=node.output[0])
        for reader, _ in index.reads(node.output[0])
    )
    return own > 1 or (own == 1 and (before or behind))


def _adds_any(index: GraphIndex, node: NodeProto, but: str = "") -> bool:
    """Whether a Resize is an operand of an addition, or of one of those in front of it."""
    makers = [index.producer.get(name) for name in node.input if name != but]
    return any(
        maker is not None
        and (_factor(index, maker) is not None or (maker.op_type == "Add" and _adds_any(index, maker)))
        for maker in makers
    )


def _write(draft: Draft, node: NodeProto, factor: int) -> None:
    near = node.name
    channels, height, width = (size or 0 for size in draft.index.shapes[node.input[0]][1:])  # static: see `_factor`
    x = draft.single(draft.add("Transpose", [node.input[0]], near, perm=[0, 2, 3, 1]), near)
    sizes = [-1, height, width, channels]
    for axis in (1, 2):
        x = _write_enlarged(draft, near, x, axis=axis, sizes=sizes, factor=factor)
        sizes[axis] *= factor
    x = draft.add("Cast", [x], near, to=HALF)
    draft.add("Transpose", [x], near, perm=[0, 3, 1, 2])
    draft.nodes[-1].output[0] = node.output[0]


def _write_enlarged(draft: Draft, near: str, x: str, *, axis: int, sizes: Sequence[int], factor: int) -> str:
    length = sizes[axis]

    def part(start: int, end: int) -> str:
        return draft.add("Slice", [x, *(draft.constant([value]) for value in (start, end, axis))], near)

    before = draft.add("Concat", [part(0, 1), part(0, length - 1)], near, axis=axis)
    after = draft.add("Concat", [part(1, length), part(length - 1, length)], near, axis=axis)
    offset = (np.arange(factor) + 0.5) / factor - 0.5  # of a new pixel from the centre of the old one
    apart = draft.constant([*sizes[: axis + 1], 1, *sizes[axis + 1 :]])
    total = ""
    for source, share in ((before, np.maximum(-offset, 0)), (x, 1 - np.abs(offset)), (after, np.maximum(offset, 0))):
        weight = draft.constant(share.astype(np.float32).reshape([factor if i == axis + 1 else 1 for i in range(5)]))
        term = draft.add("Mul", [draft.add("Reshape", [source, apart], near), weight], near)
        total = draft.add("Add", [total, term], near) if total else term
    return draft.add("Reshape", [total, draft.constant([*sizes[:axis], length * factor, *sizes[axis + 1 :]])], near)
