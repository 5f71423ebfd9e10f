"""An ONNX graph as the rules of `legality` see it, and what a rule is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.export.targets import Target

Level = Literal["illegal", "hazard", "advice"]
Spot = tuple[NodeProto | None, str]
"""A node, or None for the whole graph, and what is there."""

OWN_DOMAINS = ("", "ai.onnx")
"""The names of ONNX's own domain."""

NUMBERS = frozenset(
    {"float", "float16", "bfloat16", "double", "int64", "int32", "int8", "uint8", "bool"}
    | {"int4", "float8e4m3fn", "float8e8m0", "float4e2m1"}
)
"""The types of tensor that TensorRT has; DOUBLE it makes FP32."""

_SHOWN = {"float": "FP32", "float16": "FP16", "bfloat16": "BF16", "float8e4m3fn": "FP8", "float4e2m1": "FP4"}
_SMALL = 4096  # bytes of a constant that shape inference may want to read


@dataclass(frozen=True)
class View:
    """A graph and what it is to be built for; types are ONNX's names in lower case, as ``float16``.

    ``nodes`` are those of the graph itself, ``inner`` those of its If, Loop and Scan bodies. ``shapes`` has None for
    an axis that is not static. ``constants`` are initializers and Constant nodes, ``fixed`` they and what is computed
    of them or of static shapes alone, ``inputs`` what is fed. ``profiled`` says that the build gets the sizes of
    dynamic axes.
    """

    target: Target
    profiled: bool
    opset: int | None
    nodes: tuple[NodeProto, ...]
    inner: tuple[NodeProto, ...]
    inputs: Mapping[str, ValueInfoProto]
    outputs: Mapping[str, ValueInfoProto]
    sparse: tuple[str, ...]
    constants: Mapping[str, TensorProto]
    fixed: frozenset[str]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]
    producer: Mapping[str, NodeProto]
    readers: Mapping[str, list[tuple[NodeProto, int]]]

    def array(self, name: str) -> NDArray[Any] | None:
        """The values of a constant; None for any other tensor. Raises HiresvitError for one that is damaged."""
        if name not in self.constants or self.types[name] not in NUMBERS:
            return None
        try:
            return numpy_helper.to_array(self.constants[name])
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise HiresvitError(f"the graph's constant {name!r} does not decode: {reason}") from error

    def type_of(self, node: NodeProto, index: int) -> str:
        """The type of a node's input; "" if it is absent or not known."""
        return self.types.get(node.input[index], "") if index < len(node.input) else ""

    def reads(self, name: str) -> list[tuple[NodeProto, int]]:
        """Who reads a tensor, and as which input."""
        return self.readers.get(name, [])


@dataclass(frozen=True)
class Rule:
    """One thing to look for. ``reason`` says why the target minds and what to do; ``{target}`` is its title.

    ``elsewhere`` gives the level on targets where it is another one; None: there it is nothing at all.
    """

    name: str
    level: Level
    reason: str
    find: Callable[[View], Iterable[Spot]]
    elsewhere: Mapping[str, Level | None] = field(default_factory=dict)


def look(model: ModelProto, target: Target, profiled: bool) -> View:
    """The view of a graph. Raises UsageError for weights outside the proto, which the rules read, HiresvitError for
    local functions that cannot be resolved.
    """
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            reason = " ".join(str(error).split())
            raise HiresvitError(f"the graph's local functions cannot be resolved: {reason}") from error
    graph = model.graph
    constants = _constants(graph)
    types, shapes = _types_and_shapes(_inferred(model))
    for name, tensor in constants.items():
        types[name], shapes[name] = type_name(tensor.data_type), tuple(tensor.dims)
    readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers[name].append((node, index))
        if node.op_type == "QuantizeLinear" and quantized_type(node, types) is None:
            # To ONNX it is uint8, to TensorRT int8: see the rule no_zero_point.
            types[node.output[0]] = "int8"
    opsets = {o.domain: o.version for o in model.opset_import}
    return View(
        target=target,
        profiled=profiled,
        opset=opsets.get("", opsets.get("ai.onnx")),
        nodes=tuple(graph.node),
        inner=tuple(node for outer in graph.node for node in _bodies(outer)),
        inputs={value.name: value for value in graph.input if value.name not in constants},
        outputs={value.name: value for value in graph.output},
        sparse=tuple(tensor.values.name for tensor in graph.sparse_initializer),
        constants=constants,
        fixed=_fixed(graph, constants, shapes),
        types=types,
        shapes=shapes,
        producer={name: node for node in graph.node for name in node.output if name},
        readers=readers,
    )


def quantized_type(node: NodeProto, types: Mapping[str, str]) -> str | None:
    """What a QuantizeLinear quantizes to; None if it has neither zero point nor output_dtype."""
    if len(node.input) > 2 and node.input[2]:
        return types.get(node.input[2], "")
    code = attributes(node).get("output_dtype", 0)
    return type_name(code) or None


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def type_name(code: int) -> str:
    """ONNX's name of a type in lower case, "" for no type."""
    known: dict[int, str] = {number: name for name, number in TensorProto.DataType.items()}
    return known.get(code, f"type {code}").lower() if code else ""


def schema_of(node: NodeProto, opset: int | None) -> onnx.defs.OpSchema | None:
    """What ONNX says about an operator of its own, in a version or its newest; None if it has none of that name."""
    newest = onnx.defs.onnx_opset_version()
    try:
        return onnx.defs.get_schema(node.op_type, min(opset or newest, newest), "")
    except onnx.defs.SchemaError:
        return None


def shown(kind: str) -> str:
    """A type as people write it: ``FP16`` for ``float16``."""
    return _SHOWN.get(kind, kind.upper())


def name_of(node: NodeProto) -> str:
    """The node's name, or what it makes if it has none."""
    return node.name or f"{node.op_type} of {', '.join(node.output)}"


def common_module(nodes: Iterable[str]) -> str:
    """The module that all nodes, named ``module.path/OpType``, are in; "" if they share none."""
    paths = [name.rpartition("/")[0].split(".") for name in nodes]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in OWN_DOMAINS:
            for attribute in node.attribute:
                value = helper.get_attribute_value(attribute)
                if attribute.name in ("value_float", "value_floats"):
                    value = numpy_helper.from_array(np.array(value, np.float32))
                elif attribute.name in ("value_int", "value_ints"):
                    value = numpy_helper.from_array(np.array(value, np.int64))
                if isinstance(value, TensorProto):
                    constants[node.output[0]] = value
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in constants.values()):
        raise UsageError("the weights are outside the proto: load them too, with onnx.load(path)")
    return constants


def _fixed(
    graph: GraphProto, constants: Mapping[str, TensorProto], shapes: Mapping[str, tuple[int | None, ...]]
) -> frozenset[str]:
    fixed = set(constants)
    for node in graph.node:
        sized = node.op_type in ("Shape", "Size") and len(node.input) > 0
        static = sized and None not in shapes.get(node.input[0], (None,))
        if static or (node.input and all(name in fixed for name in node.input if name)):
            fixed.update(node.output)
    return frozenset(fixed)


def _inferred(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Type and shape of every value: inferred without the large weights, else as the graph states them.

    What it states comes second: a stale ``value_info`` must not hide a type that the operators make.
    """
    graph = model.graph
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = graph.name or "graph"
    light.graph.node.extend(graph.node)
    light.graph.input.extend(graph.input)
    for tensor in graph.initializer:
        bare = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        light.graph.initializer.append(tensor if tensor.ByteSize() <= _SMALL else bare)
    stated = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    try:
        found = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return stated  # no opset, for one, or a node without operands
    return stated | {value.name: value for value in found.value_info if value.type.WhichOneof("value")}


def _types_and_shapes(
    values: Mapping[str, ValueInfoProto],
) -> tuple[dict[str, str], dict[str, tuple[int | None, ...]]]:
    types, shapes = {}, {}
    for name, value in values.items():
        kind = value.type.tensor_type
        types[name] = type_name(kind.elem_type)
        if kind.HasField("shape"):
            shapes[name] = tuple(
                dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
                for dim in kind.shape.dim
            )
    return types, shapes


def _bodies(node: NodeProto) -> Iterator[NodeProto]:
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            for inner in graph.node:
                yield inner
                yield from _bodies(inner)
