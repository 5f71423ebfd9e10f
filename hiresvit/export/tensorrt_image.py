"""The image for a first convolution of stride 2: four pixels as one of four times the channels.

TensorRT wants channels in fours and writes an image of three, which it casts to FP16 in any case, with one of zeros. Of
2x2 pixels together come twelve. The 3x3 kernel is then one of 2x2 cells, with zeros where it does not reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hiresvit.export.draft import Draft, Site
from hiresvit.graph.index import GraphIndex, attributes, operand


def image_sites(index: GraphIndex) -> Iterator[Site]:
    """Convolutions of the image, or of its cast to FP16: 3x3, stride 2, a border of one, both sides even."""
    for node in index.nodes:
        if node.op_type != "Conv" or index.types.get(node.output[0]) != "float16":
            continue
        maker = index.producer.get(node.input[0])
        first = node.input[0] if maker is None else maker.input[0] if maker.op_type == "Cast" else ""
        weight, sizes, said = index.array(node.input[1]), index.shapes.get(node.input[0], ()), attributes(node)
        if first not in index.inputs or weight is None or weight.shape[2:] != (3, 3) or said.get("group", 1) != 1:
            continue
        plain = list(said.get("pads", ())) == [1, 1, 1, 1] and set(said.get("dilations", (1,))) == {1}
        halves = plain and list(said.get("strides", ())) == [2, 2] and weight.shape[1] % 4 != 0
        if halves and len(sizes) == 4 and all(side is not None and side % 2 == 0 for side in sizes[2:]):
            yield Site(node.output[0], frozenset(), partial(_write, node=node, weight=weight))


def _write(draft: Draft, node: NodeProto, weight: NDArray[Any]) -> None:
    near, channels = node.name, weight.shape[1]
    height, width = (size // 2 for size in draft.index.shapes[node.input[0]][2:] if size is not None)
    cells = draft.add("Reshape", [node.input[0], draft.constant([-1, height, 2, width, 2])], near)
    cells = draft.add("Transpose", [cells], near, perm=[0, 2, 4, 1, 3])
    cells = draft.add("Reshape", [cells, draft.constant([-1, 4 * channels, height, width])], near)
    inputs = [cells, draft.constant(of_cells(weight)), *([operand(node, 2)] if operand(node, 2) else [])]
    draft.add("Conv", inputs, near, output=node.output[0], kernel_shape=[2, 2], pads=[1, 1, 0, 0], strides=[1, 1])


def of_cells(weight: NDArray[Any]) -> NDArray[Any]:
    """A 3x3 kernel (O, C, 3, 3) of stride 2 for cells of 2x2 pixels: (O, 4 C, 2, 2), a cell's pixels row by row."""
    wide = np.pad(weight, ((0, 0), (0, 0), (1, 0), (1, 0)))  # the row above the kernel's first is in the same cell
    outputs, channels = weight.shape[:2]
    parts = wide.reshape(outputs, channels, 2, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(parts.reshape(outputs, 4 * channels, 2, 2))
