"""An FP32 graph rewritten in FP16, with casts at the borders of the islands that stay FP32.

Each tensor gets one version for each type its readers ask for. A constant is written in each of them, an
integer is cast straight to each of them, and any other tensor gets one Cast, which all its readers share.
The result is meant for strongly typed networks: the types in the graph are the precision of the engine.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hiresvit.errors import IllegalGraphError, UsageError
from hiresvit.export.fp16_typing import Op, Versions, decide, float_tensors, fresh
from hiresvit.export.rewrites import replace_all
from hiresvit.graph.dtypes import FLOAT, HALF, LARGEST, SMALLEST_NORMAL
from hiresvit.graph.file import require_weights
from hiresvit.graph.index import array_of, graphs_of, index_graph
from hiresvit.graph.operators import ISLANDS


@dataclass(frozen=True)
class ValueLoss:
    """``count`` of the ``total`` values of a constant are lost; ``extreme`` is the largest of those."""

    name: str
    count: int
    total: int
    extreme: float


@dataclass(frozen=True)
class Fp16Report:
    """What `to_fp16` did. ``nodes_fp32`` have float tensors but none in FP16; ``casts`` are those added.

    ``overflow``: constants with finite values beyond ±65504, clamped to it. ``flushed``: constants with
    values that became 0 (2**-25 and below). ``subnormal``: how many values of all constants are below 2**-14
    and kept only some of their 11 bits.
    """

    nodes_fp16: int
    nodes_fp32: int
    casts: int
    overflow: tuple[ValueLoss, ...]
    flushed: tuple[ValueLoss, ...]
    subnormal: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def to_fp16(
    model: ModelProto, *, io: Literal["fp32", "fp16"] = "fp32", islands: Collection[str] = ISLANDS
) -> tuple[ModelProto, Fp16Report]:
    """Rewrite an FP32 graph in FP16; ``model`` stays as it is, and equal graphs give equal bytes.

    ``io``: the type of the float inputs and outputs, whose names stay. ``islands``: operators that compute in
    FP32 between casts. Node names, metadata and symbolic axes stay; Constant nodes of floats become
    initializers. A value that is finite in FP32 stays finite: beyond ±65504 it is clamped, and reported.

    Raises UsageError for a graph without FP32 tensors or with FP16 or BF16 ones, with subgraphs, local
    functions, weights outside the proto, or operators that ONNX does not define; IllegalGraphError for a
    graph that fails `onnx.checker` with full type check, before or after.
    """
    if io not in ("fp32", "fp16"):
        raise UsageError(f"io={io!r}: choose 'fp32' or 'fp16'")
    for island in islands:
        if not onnx.defs.has(island):
            raise UsageError(f"island {island!r} is no ONNX operator: give names like {sorted(ISLANDS)}")
    _reject_unsupported(model)
    result = inferred(model, "the graph to convert")
    graph = result.graph
    _simplify_constants(graph, float_tensors(index_graph(result, infer=False)))
    io_type = HALF if io == "fp16" else FLOAT
    ops, versions = decide(index_graph(result, infer=False), islands, io_type)

    overflow, flushed, subnormal = _convert_initializers(graph, versions)
    casts = _rewrite_nodes(graph, ops, versions)
    _retype_values(graph, versions, io_type)
    halves = sum(any(dtype == HALF for _, dtype in (*op.inputs, *op.outputs)) for op in ops)
    floats = sum(any((*op.inputs, *op.outputs)) for op in ops)
    report = Fp16Report(halves, floats - halves, casts, tuple(overflow), tuple(flushed), subnormal)
    return inferred(result, "the converted graph"), report


def _reject_unsupported(model: ModelProto) -> None:
    graph = model.graph
    if model.functions:
        raise UsageError("the graph has local functions: inline them first, with onnx.inliner")
    if graph.sparse_initializer:
        raise UsageError("the graph has sparse initializers: write them as dense ones first")
    for node in graph.node:
        if any(True for _ in graphs_of(node)):
            raise UsageError(f"{node.op_type} node {node.name!r} has a subgraph: export without control flow")
    require_weights(model)
    if defaults := {t.name for t in graph.initializer} & {i.name for i in graph.input}:
        raise UsageError(f"input {min(defaults)!r} has a default value: remove it from inputs or initializers")


def inferred(model: ModelProto, what: str) -> ModelProto:
    """A copy with the type and shape of every tensor in ``value_info``, checked in full. Raises IllegalGraphError."""
    graph = model.graph
    made = {value.name for value in (*graph.input, *graph.initializer)}
    made.update(name for node in graph.node for name in node.output)
    if lost := {value.name for value in (*graph.output, *graph.value_info)} - made:  # the checker does not look
        raise IllegalGraphError(f"{what} is not valid ONNX: nothing makes {min(lost)!r}")
    try:
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise IllegalGraphError(f"{what} is not valid ONNX: {' '.join(str(error).split())}") from error


def _simplify_constants(graph: GraphProto, floats: Collection[str]) -> None:
    """Make a float Constant an initializer, and a Cast from FP32 to FP32, which does nothing, an Identity."""
    kept: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and (value := _float_constant(node)):
            graph.initializer.add().CopyFrom(value)
            graph.initializer[-1].name = node.output[0]
            continue
        kept.append(node)
        if node.op_type == "Cast" and node.input[0] in floats and node.output[0] in floats:
            node.op_type = "Identity"
            del node.attribute[:]
    replace_all(graph.node, kept)


def _float_constant(node: NodeProto) -> TensorProto | None:
    attribute = node.attribute[0]
    if attribute.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), np.float32))
    return attribute.t if attribute.name == "value" and attribute.t.data_type == FLOAT else None


def _convert_initializers(graph: GraphProto, versions: Versions) -> tuple[list[ValueLoss], list[ValueLoss], int]:
    """Write each float initializer in every type asked for; return overflow, flushed and subnormal."""
    overflow: list[ValueLoss] = []
    flushed: list[ValueLoss] = []
    subnormal = 0
    tensors: list[TensorProto] = [t for t in graph.initializer if t.name not in versions]
    for tensor in graph.initializer:
        for dtype, name in versions.get(tensor.name, {}).items():
            if dtype == FLOAT:
                copy = deepcopy(tensor)
            else:
                values = array_of(tensor)
                half = _saturated(values)
                overflow += _loss(tensor.name, values, np.isfinite(values) & (np.abs(values) > LARGEST))
                flushed += _loss(tensor.name, values, (half == 0) & (values != 0))
                subnormal += int(np.count_nonzero((half != 0) & (np.abs(half) < SMALLEST_NORMAL)))
                copy = numpy_helper.from_array(half)
                copy.doc_string = tensor.doc_string
            copy.name = name
            tensors.append(copy)
    replace_all(graph.initializer, tensors)
    return overflow, flushed, subnormal


def _saturated(values: NDArray[Any]) -> NDArray[np.float16]:
    """In float16: ±inf and NaN stay what they are, and everything else stays finite."""
    clamped = np.where(np.isinf(values), values, np.clip(values, -LARGEST, LARGEST))
    return np.asarray(clamped, np.float16)


def _loss(name: str, values: NDArray[Any], lost: NDArray[np.bool_]) -> list[ValueLoss]:
    gone = values[lost]
    return [ValueLoss(name, gone.size, values.size, float(gone[np.abs(gone).argmax()]))] if gone.size else []


def _rewrite_nodes(graph: GraphProto, ops: list[Op], versions: Versions) -> int:
    """Rename what the nodes read and write, with the casts right behind; return how many casts were added."""
    taken = {op.node.name for op in ops}
    nodes: list[NodeProto] = []

    def add_casts(tensor: str, source: str | None = None) -> None:
        (_, made), *others = versions[tensor].items()
        for dtype, name in others:
            cast_name = fresh(f"{name}/Cast", taken)
            nodes.append(helper.make_node("Cast", [source or made], [name], cast_name, to=dtype))

    for value in graph.input:
        if value.name in versions:
            add_casts(value.name)
    for op in ops:
        node = deepcopy(op.node)
        nodes.append(node)
        for k, dtype in enumerate(op.reads):
            if dtype:
                node.input[k] = versions[node.input[k]][dtype]
        for k, dtype in enumerate(op.writes):
            if dtype:
                node.output[k] = versions[op.node.output[k]][dtype]
                add_casts(op.node.output[k], node.input[0] if op.makes_float else None)
        if op.makes_float:
            next(a for a in node.attribute if a.name == "to").i = op.writes[0] or FLOAT
    replace_all(graph.node, nodes)
    return len(nodes) - len(ops)


def _retype_values(graph: GraphProto, versions: Versions, io_type: int) -> None:
    """Give each version its type, and the shape of the tensor it is a version of."""
    border = {v.name for v in (*graph.input, *graph.output)}
    values = [value for value in graph.value_info if value.name not in versions]
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dtype, name in versions.get(value.name, {}).items():
            if name not in border:
                copy = deepcopy(value)
                copy.name = name
                copy.type.tensor_type.elem_type = dtype
                values.append(copy)
    for value in (*graph.input, *graph.output):
        if value.name in versions:
            value.type.tensor_type.elem_type = io_type
    replace_all(graph.value_info, values)
