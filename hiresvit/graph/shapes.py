"""Types and shapes of a graph's values, and the sizes of its products, from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from hiresvit.spec import TensorSpec

Tensors = Mapping[str, TensorSpec]
Shapes = Mapping[str, Sequence[int]]
"""Of a graph's inputs, by name."""

_READ = 64  # a constant with more values is no shape: its type and shape are all that inference needs of it


@dataclass(frozen=True)
class Product:
    """``batch`` products of (rows, inner) by (inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.rows * self.inner * self.columns


def infer_tensors(model: ModelProto, shapes: Shapes | None = None) -> dict[str, TensorSpec]:
    """Every value whose type is known, for inputs of ``shapes``, and of those that it does not name for a batch of 1.

    An axis that stays unknown is ``"?"``; of a value whose rank is unknown nothing is said. Weights are not read,
    they may be in another file.
    """
    # ONNX would otherwise copy all weights, twice. What is no shape becomes an input of the same type.
    small = ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    small.graph.node.extend(model.graph.node)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    small.graph.input.extend(value for value in model.graph.input if value.name not in weights)
    for value in small.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, (shapes or {}).get(value.name, (1,)), strict=False):
            if not _is_static(dim):
                dim.dim_value = size
    for tensor in weights.values():
        if tensor.data_location != TensorProto.EXTERNAL and math.prod(tensor.dims) <= _READ:
            small.graph.initializer.append(tensor)
        small.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    with suppress(onnx.shape_inference.InferenceError, onnx.checker.ValidationError):  # no opset, for one
        small = onnx.shape_inference.infer_shapes(small, data_prop=True)
    graph = small.graph
    found = (_spec(value) for value in (*graph.input, *graph.value_info, *graph.output))
    return {spec.name: spec for spec in found if spec is not None}


def _is_static(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether an axis has a size; -1 is how some write that it has none."""
    return dim.HasField("dim_value") and dim.dim_value >= 0


def has_dynamic_batch(model: ModelProto) -> bool:
    """Whether axis 0 of an input is dynamic."""
    weights = {tensor.name for tensor in model.graph.initializer}
    firsts = (v.type.tensor_type.shape.dim[:1] for v in model.graph.input if v.name not in weights)
    return any(not _is_static(dim) for dims in firsts for dim in dims)


def constants_of(graph: GraphProto) -> set[str]:
    """The initializers, and what is made of nothing else; a node with a body may read more than it says."""
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in topological order, as ONNX requires
        if any(attribute.HasField("g") for attribute in node.attribute):
            continue
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
    return constants


def name_of(node: NodeProto) -> str:
    """Its name, or the one that TensorRT's parser gives it (run: RTX 1.7)."""
    return node.name or f"node_of_{node.output[0]}"


def module_of(node: str) -> str:
    """The PyTorch module of a node that is named ``module.path/OpType``."""
    return node.rpartition("/")[0]


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Values by name; text is bytes, as ONNX has it."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def sizes_of(name: str, tensors: Tensors) -> tuple[int, ...] | None:
    """Its shape; None if that is not static."""
    shape = tensors[name].shape if name in tensors else ("?",)
    sizes = tuple(size for size in shape if isinstance(size, int))
    return sizes if len(sizes) == len(shape) else None


def matmul_sizes(node: NodeProto, tensors: Tensors) -> Product | None:
    """The sizes of a MatMul, or of an Einsum of two operands; None if they are not known, or it has another number."""
    if len(node.input) != 2:
        return None
    left, right, out = (sizes_of(name, tensors) for name in (*node.input, node.output[0]))
    if left is None or right is None or out is None:
        return None
    if node.op_type == "Einsum":
        return _einsum_sizes(attributes_of(node)["equation"].decode(), left, right)
    if min(len(left), len(right)) < 2:  # a vector
        return Product(1, math.prod(out), left[-1], 1)
    return Product(math.prod(out[:-2]), left[-2], left[-1], right[-1])


def _einsum_sizes(equation: str, left: tuple[int, ...], right: tuple[int, ...]) -> Product | None:
    """Letters of both operands and the result are batch, of both operands alone the inner length."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    first, comma, second = operands.partition(",")
    if not arrow:  # then it is the letters that are there once
        result = "".join(sorted(letter for letter in {*first, *second} if operands.count(letter) == 1))
    if "." in equation or not comma or (len(first), len(second)) != (len(left), len(right)):
        return None
    sizes = {**dict(zip(first, left, strict=True)), **dict(zip(second, right, strict=True))}
    shared = set(first) & set(second)

    def size(letters: set[str]) -> int:
        return math.prod(sizes[letter] for letter in letters)

    return Product(
        batch=size(shared & set(result)),
        rows=size(set(first) - shared),
        inner=size(shared - set(result)),
        columns=size(set(second) - shared),
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec | None:
    kind = value.type.tensor_type
    if not kind.elem_type or not kind.HasField("shape"):
        return None
    try:
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except KeyError:  # there is no such type
        return None
    shape = tuple(dim.dim_value if _is_static(dim) else "?" for dim in kind.shape.dim)
    return TensorSpec(value.name, dtype, shape)
