"""A graph for TensorRT only: the same numbers with fewer bytes between its kernels.

TensorRT makes one kernel of whatever moves, adds and multiplies number by number, and puts what stands behind a product
into that product's kernel. A layer that is neither is a kernel of its own, which reads a map and writes another. Two
kinds of them are written otherwise here, with operators that it joins to their neighbours; what each saves says
docs/performance.md. ONNX Runtime has a kernel for each operator, and would take longer for both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hiresvit.export.rewrites import replace_all, share_constants
from hiresvit.graph.index import GraphIndex, index_graph
from hiresvit.graph.operators import LAYOUT, WEIGHTED
from hiresvit.graph.precision import LOWEST_KEY, read_lowest

_TAPS = [(row, column) for row in range(3) for column in range(3)]
_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # channels of a map, to the end and back


def for_tensorrt(model: ModelProto) -> ModelProto:
    """Return a copy of an FP32 graph with its norms in front of products, and small convolutions, in TensorRT's terms.

    A LayerNormalization of rows whose readers are all products with constant weights becomes a factor behind them:
    ``W (g n(x) + s) + b = rstd(x) (W' x) + (b + W s)``, where W' is W g with the mean of each row taken off, in
    float64. The rows are then not written again as normalised ones. Its statistics stay FP32 in an FP16 graph.

    A depthwise 3x3 convolution of stride 1 that no product reads becomes nine shifted copies, weighted and added, with
    the channels last.
    """
    out = ModelProto()
    out.CopyFrom(model)
    index = index_graph(out)
    edit = _Edit()
    pinned = dict(read_lowest(index.metadata))
    for node in index.nodes:
        if products := _products_behind(index, node):
            _put_behind(index, node, products, edit)
            pinned[node.name.rpartition("/")[0]] = "fp32"
        elif _is_small(index, node):
            edit.nodes[node.name] = list(_shifted(index, node, edit))
    replace_all(out.graph.node, [made for node in index.nodes for made in edit.nodes.get(node.name, [node])])
    del out.graph.value_info[:]
    out.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in edit.constants.items())
    share_constants(out.graph)
    if pinned:
        helper.set_model_props(out, {**index.metadata, LOWEST_KEY: json.dumps(pinned, sort_keys=True)})
    return out


class _Edit:
    """What takes the place of nodes, by their names, and the constants that it needs."""

    def __init__(self) -> None:
        self.nodes: dict[str, list[NodeProto]] = {}
        self.constants: dict[str, NDArray[Any]] = {}

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Keep a constant; returns its name."""
        self.constants[name] = value
        return name


def _products_behind(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
    """The readers of a norm of rows if it can become a factor behind them; none if it cannot."""
    if node.op_type != "LayerNormalization" or len(node.output) != 1 or node.output[0] in index.outputs:
        return []
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    rows = len(index.shapes.get(node.input[0], ())) == 2 and axis in (-1, 1)
    known = all(index.array(name) is not None for name in node.input[1:] if name)
    readers = [reader for reader, place in index.reads(node.output[0]) if place == 0]
    if not (rows and known and readers and len(readers) == len(index.reads(node.output[0]))):
        return []
    # Rows that are also added to the result are there anyway: then it pays where another product reads them, too,
    # because TensorRT makes one of the two.
    beside = [reader for reader, _ in index.reads(node.input[0]) if reader is not node]
    pays = not beside or any(_is_linear(index, reader) for reader in beside)
    return readers if pays and all(_is_linear(index, reader) for reader in readers) else []


def _is_linear(index: GraphIndex, node: NodeProto) -> bool:
    """Whether it is a Gemm as PyTorch's Linear becomes one: constant weights (out, in), a bias."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return (
        node.op_type == "Gemm"
        and len(node.input) == 3
        and all(index.array(name) is not None for name in node.input[1:])
        and (values.get("transA", 0), values.get("transB", 0)) == (0, 1)
        and (values.get("alpha", 1.0), values.get("beta", 1.0)) == (1.0, 1.0)
    )


def _put_behind(index: GraphIndex, norm: NodeProto, products: list[NodeProto], edit: _Edit) -> None:
    source, rstd = norm.input[0], f"{norm.output[0]}/rstd"
    epsilon = np.float32(next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5))
    edit.nodes[norm.name] = list(_statistics(index, norm.name.rpartition("/")[0], source, rstd, epsilon, edit))
    scale, shift = _affine(index, norm)
    for product in products:
        weight, bias, target = index.array(product.input[1]), index.array(product.input[2]), product.output[0]
        assert weight is not None
        assert bias is not None
        wide = weight.astype(np.float64) * scale
        centred = (wide - wide.mean(axis=1, keepdims=True)).astype(weight.dtype)
        moved = (bias + weight.astype(np.float64) @ shift).astype(bias.dtype)
        raw, scaled, module = f"{target}/raw", f"{target}/scaled", product.name.rpartition("/")[0]
        edit.nodes[product.name] = [
            helper.make_node(
                "Gemm", [source, edit.constant(f"{target}/centred", centred)], [raw], product.name, transB=1
            ),
            helper.make_node("Mul", [raw, rstd], [scaled], f"{module}/Mul_rstd"),
            helper.make_node(
                "Add", [scaled, edit.constant(f"{target}/shift", moved)], [target], f"{module}/Add_bias"
            ),
        ]


def _affine(index: GraphIndex, norm: NodeProto) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scale and the shift of a norm with a constant affine, float64."""
    scale, shift = (index.array(name) if name else None for name in (*norm.input, "")[1:3])
    assert scale is not None
    wide = scale.astype(np.float64)
    return wide, np.zeros_like(wide) if shift is None else shift.astype(np.float64)


def _statistics(
    index: GraphIndex, module: str, source: str, rstd: str, epsilon: np.float32, edit: _Edit
) -> Iterator[NodeProto]:
    """1 / sqrt(variance + epsilon) of each row, as (rows, 1)."""
    mean, off, square, variance, safe, std = (f"{rstd}/{what}" for what in ("mean", "off", "sq", "var", "safe", "std"))
    old = index.opset is not None and index.opset < 18  # axes were an attribute
    axes = [] if old else [edit.constant("tensorrt/axes", np.array([1], np.int64))]
    steps = [
        ("ReduceMean", [source, *axes], mean),
        ("Sub", [source, mean], off),
        ("Mul", [off, off], square),
        ("ReduceMean", [square, *axes], variance),
        ("Add", [variance, edit.constant(f"tensorrt/epsilon_{epsilon:g}", np.array(epsilon))], safe),
        ("Sqrt", [safe], std),
        ("Reciprocal", [std], rstd),
    ]
    for number, (op, inputs, output) in enumerate(steps):
        more = {"axes": [1]} if old and op == "ReduceMean" else {}
        yield helper.make_node(op, inputs, [output], f"{module}/{op}_{number}", **more)


def _is_small(index: GraphIndex, node: NodeProto) -> bool:
    """Whether it is a depthwise 3x3 convolution of stride 1 between things that are no products."""
    weight, sizes = index.array(node.input[1]) if node.op_type == "Conv" else None, index.sizes(node.output[0])
    if weight is None or weight.shape[1:] != (1, 3, 3) or sizes is None or len(node.input) < 3:
        return False
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    usual = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": sizes[1]}
    if any(values.get(name) != value for name, value in usual.items()):
        return False
    return not any(reader.op_type in WEIGHTED for reader in _behind(index, node))


def _behind(index: GraphIndex, node: NodeProto) -> Iterator[NodeProto]:
    """The readers of a node that do more than lay its numbers out anew."""
    for name in node.output:
        for reader, _ in index.reads(name):
            if reader.op_type in LAYOUT:
                yield from _behind(index, reader)
            else:
                yield reader


def _shifted(index: GraphIndex, node: NodeProto, edit: _Edit) -> Iterator[NodeProto]:
    """The nodes in place of a convolution: padded, cut nine times, weighted, added."""
    source, target = node.input[0], node.output[0]
    weight, sizes = index.array(node.input[1]), index.sizes(target)
    assert weight is not None
    assert sizes is not None
    last, padded = f"{target}/last", f"{target}/padded"
    border = edit.constant("tensorrt/border", np.array([0, 1, 1, 0, 0, 1, 1, 0], np.int64))
    axes = edit.constant("tensorrt/sides", np.array([1, 2], np.int64))

    def made(op: str, inputs: list[str], output: str, **more: object) -> NodeProto:
        return helper.make_node(op, inputs, [output], f"{node.name}/{output.rpartition('/')[2]}", **more)

    yield made("Transpose", [source], last, perm=_LAST)
    yield made("Pad", [last, border], padded)
    total = ""
    for row, column in _TAPS:
        place = f"{row}{column}"
        starts = edit.constant(f"tensorrt/from_{place}", np.array([row, column], np.int64))
        ends = [row + sizes[2], column + sizes[3]]
        until = edit.constant(f"tensorrt/to_{ends[0]}_{ends[1]}", np.array(ends, np.int64))
        tap = edit.constant(f"{target}/tap_{place}", np.ascontiguousarray(weight[:, 0, row, column]))
        yield made("Slice", [padded, starts, until, axes], f"{target}/cut_{place}")
        yield made("Mul", [f"{target}/cut_{place}", tap], f"{target}/part_{place}")
        if total:
            yield made("Add", [total, f"{target}/part_{place}"], f"{target}/sum_{place}")
        total = f"{target}/sum_{place}" if total else f"{target}/part_{place}"
    yield made("Add", [total, node.input[2]], f"{target}/shifted")
    yield made("Transpose", [f"{target}/shifted"], target, perm=_FIRST)
