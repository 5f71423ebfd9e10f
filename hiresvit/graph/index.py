"""An ONNX graph as the rules of `hiresvit.check` see it."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from hiresvit.errors import HiresvitError, UsageError

if TYPE_CHECKING:
    from hiresvit.check.targets import Target

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

    ``nodes`` are those of the graph itself, each after what it reads (ONNX wants that of a file too, the parser does
    not), ``inner`` those of its If, Loop and Scan bodies, ``circle`` those that wait for each other. ``complaint`` is
    what ONNX's strict inference says, with the numbers of nodes for their names. ``shapes`` has None for an axis that
    is not static. ``constants`` are initializers and Constant nodes, ``fixed`` they and what is computed
    of them or of static shapes alone, ``inputs`` what is fed. ``profiled`` says that the build gets the sizes of
    dynamic axes.
    """

    target: Target
    profiled: bool
    graph: GraphProto
    opset: int | None
    nodes: tuple[NodeProto, ...]
    inner: tuple[NodeProto, ...]
    circle: tuple[NodeProto, ...]
    complaint: str
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
    nodes, circle = in_order(graph.node)
    values, complaint = _inferred(model, nodes)
    types, shapes = _types_and_shapes(values)
    for name, tensor in constants.items():
        types[name], shapes[name] = type_name(tensor.data_type), tuple(tensor.dims)
    readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for node in nodes:
        for index, name in enumerate(node.input):
            readers[name].append((node, index))
        if node.op_type == "QuantizeLinear" and node.output and quantized_type(node, types) is None:
            # To ONNX it is uint8, to TensorRT int8: see the rule no_zero_point.
            types[node.output[0]] = "int8"
    opsets = {o.domain: o.version for o in model.opset_import}
    return View(
        target=target,
        profiled=profiled,
        graph=graph,
        opset=opsets.get("", opsets.get("ai.onnx")),
        nodes=tuple(nodes),
        inner=tuple(node for outer in nodes for node in _bodies(outer)),
        circle=tuple(circle),
        complaint=complaint,
        inputs={value.name: value for value in graph.input if value.name not in constants},
        outputs={value.name: value for value in graph.output},
        sparse=tuple(tensor.values.name for tensor in graph.sparse_initializer),
        constants=constants,
        fixed=_fixed(nodes, constants, shapes),
        types=types,
        shapes=shapes,
        producer={name: node for node in nodes for name in node.output if name},
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


def is_read_as_data(view: View, name: str) -> bool:
    """Whether a result depends on a tensor's values."""
    pending, seen = [name], {name}
    while pending:
        now = pending.pop()
        if now in view.outputs:
            return True
        for reader, _ in view.reads(now):
            if reader.op_type in ("Shape", "Size"):
                continue
            new = set(reader.output) - seen - {""}
            seen |= new
            pending.extend(new)
    return False


def name_of(node: NodeProto) -> str:
    """The node's name, or what it makes if it has none."""
    return node.name or f"{node.op_type} of {', '.join(node.output)}"


def printable(text: str) -> str:
    """A text with what is no sign of its own spelled out: a name may hold a newline or move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


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
        if node.op_type == "Constant" and node.domain in OWN_DOMAINS and node.output:
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
    nodes: Iterable[NodeProto],
    constants: Mapping[str, TensorProto],
    shapes: Mapping[str, tuple[int | None, ...]],
) -> frozenset[str]:
    fixed = set(constants)
    for node in nodes:
        sized = node.op_type in ("Shape", "Size") and len(node.input) > 0
        static = sized and None not in shapes.get(node.input[0], (None,))
        if static or (node.input and fixed.issuperset(names_read(node))):
            fixed.update(node.output)
    return frozenset(fixed)


def _inferred(model: ModelProto, nodes: Iterable[NodeProto]) -> tuple[dict[str, ValueInfoProto], str]:
    """Type and shape of every value, and the complaint of strict inference, "" if there is none.

    Inferred without the large weights, else as the graph states them. What it states comes second: a stale
    ``value_info`` must not hide a type that the operators make.
    """
    graph = model.graph
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(
        OperatorSetIdProto(domain=_plain(opset.domain), version=opset.version) for opset in model.opset_import
    )
    light.graph.name = graph.name or "graph"
    light.graph.node.extend(nodes)
    for number, node in enumerate(light.graph.node):
        node.name, node.domain = str(number), _plain(node.domain)
        for inner in _bodies(node):
            inner.name = ""  # a number there would be one of ours
    light.graph.input.extend(graph.input)
    for value in light.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:  # what some write for a dynamic axis, ONNX takes for a size
                dim.ClearField("dim_value")
    for tensor in graph.initializer:
        bare = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        light.graph.initializer.append(tensor if tensor.ByteSize() <= _SMALL else bare)
    stated = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    found, complaint = None, ""
    for strict in (True, False):
        try:
            found = onnx.shape_inference.infer_shapes(light, strict_mode=strict, data_prop=True).graph
            break
        except (
            onnx.shape_inference.InferenceError,
            onnx.checker.ValidationError,
            RuntimeError,
            ValueError,
        ) as error:
            complaint = complaint or str(error)
    if found is None:
        return stated, complaint  # no opset, for one, or a node without operands
    inferred = {value.name: value for value in found.value_info if value.type.WhichOneof("value")}
    return stated | inferred, complaint


def _plain(domain: str) -> str:
    return "" if domain in OWN_DOMAINS else domain


def in_order(nodes: Sequence[NodeProto]) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes, each after those that it reads and otherwise as they were; and those that wait for each other."""
    makers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    waits = [{makers[name] for name in names_read(node) if name in makers} for node in nodes]
    followers: dict[int, list[int]] = defaultdict(list)
    for number, makers_of_it in enumerate(waits):
        for maker in makers_of_it:
            followers[maker].append(number)
    ready, order = [number for number, left in enumerate(waits) if not left], []
    while ready:  # a heap: the first of those that can come next
        number = heapq.heappop(ready)
        order.append(number)
        for follower in followers[number]:
            waits[follower].discard(number)
            if not waits[follower]:
                heapq.heappush(ready, follower)
    waiting = set(range(len(nodes))).difference(order)
    stuck = sorted(waiting)
    needed = {number: len(waiting.intersection(followers[number])) for number in stuck}
    idle = [number for number in stuck if not needed[number]]
    while idle:  # it only waits for a circle and is not in it
        number = idle.pop()
        for maker in waits[number]:
            needed[maker] -= 1
            if not needed[maker]:
                idle.append(maker)
    return [nodes[k] for k in (*order, *stuck)], [nodes[k] for k in stuck if needed[k]]


def names_read(node: NodeProto) -> set[str]:
    """The tensors that a node reads, or a body of it from around the node."""
    names = {name for name in node.input if name}
    for graph in graphs_of(node):
        inside = {name for inner in graph.node for name in names_read(inner)}
        inside.update(value.name for value in graph.output)
        made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        names |= inside - made - {name for inner in graph.node for name in inner.output}
    return names


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
    for graph in graphs_of(node):
        for inner in graph.node:
            yield inner
            yield from _bodies(inner)


def graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of an If, a Loop or a Scan."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
