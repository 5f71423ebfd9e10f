"""An ONNX graph, read once: who makes and who reads a value, what is constant, and every type and size.

A graph is indexed when nothing changes it any more; a pass that has rewritten one indexes the result anew.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hiresvit.errors import HiresvitError, IllegalGraphError
from hiresvit.graph.dtypes import NUMBERS, numpy_name, type_name
from hiresvit.graph.operators import OWN_DOMAINS
from hiresvit.graph.sizes import with_computed

Shapes = Mapping[str, Sequence[int]]
"""Of a graph's inputs, by name."""

_Place = TypeVar("_Place", bound=Hashable)
_SMALL = 4096  # bytes of a constant that shape inference may want to read


@dataclass(frozen=True)
class GraphIndex:
    """A graph as everything that reads one sees it; types are ONNX's names in lower case, as ``float16``.

    ``nodes`` are those of the graph itself, each after what it reads (ONNX wants that of a file too, the parser does
    not), ``inner`` those of its If, Loop and Scan bodies, ``circle`` those that wait for each other; ``functions``
    are the model's own, by domain and name. ``complaint`` is what ONNX's strict inference says, with the numbers of
    nodes for their names. ``shapes`` has None for an axis that is not static. ``constants`` are initializers and
    Constant nodes, ``fixed`` they and what is computed of them or of static shapes alone, ``inputs`` what is fed.
    ``readers`` are nodes and the numbers of their inputs.
    """

    graph: GraphProto
    metadata: Mapping[str, str]
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], onnx.FunctionProto]
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

    @property
    def opset(self) -> int | None:
        """The version of ONNX's own operators."""
        return self.opsets.get("")

    def array(self, name: str) -> NDArray[Any] | None:
        """The values of a constant; None for any other tensor. Raises HiresvitError for one that is damaged, or in
        another file.
        """
        if name not in self.constants or self.types[name] not in NUMBERS:
            return None
        return array_of(self.constants[name], name)

    def type_of(self, node: NodeProto, index: int) -> str:
        """The type of a node's input; "" if it is absent or not known."""
        return self.types.get(operand(node, index), "")

    def dtype(self, name: str) -> str:
        """numpy's name of a tensor's type, ``unknown`` if it is not known."""
        return numpy_name(self.types.get(name, ""))

    def sizes(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor; None if it is not static, or not known."""
        shape = self.shapes.get(name, (None,))
        sizes = tuple(size for size in shape if size is not None)
        return sizes if len(sizes) == len(shape) else None

    def reads(self, name: str) -> list[tuple[NodeProto, int]]:
        """Who reads a tensor, and as which input."""
        return self.readers.get(name, [])


def index_graph(
    model: ModelProto, shapes: Shapes | None = None, *, infer: bool = True, around: Iterable[str] = ()
) -> GraphIndex:
    """Index a graph, with one inference of its types and shapes; weights may be in another file.

    ``shapes`` gives dynamic inputs their sizes, and those that it does not name a batch of 1; None leaves dynamic
    axes as they are. Without ``infer`` types and shapes are what the graph states. ``around`` are inputs that are
    fixed where a body stands (`hiresvit.graph.bodies`).
    """
    graph = model.graph
    constants = _constants(graph)
    nodes, circle = in_order(graph.node)
    values, complaint = _inferred(model, nodes, shapes) if infer else (_stated(graph, graph.input), "")
    types: dict[str, str] = {}
    known: dict[str, tuple[int | None, ...]] = {}
    for name, value in values.items():
        kind = value.type.tensor_type  # each look makes an object, and there are thousands
        types[name] = type_name(kind.elem_type)
        if kind.HasField("shape"):
            known[name] = _sizes(kind.shape)
    for name, tensor in constants.items():
        types[name], known[name] = type_name(tensor.data_type), tuple(tensor.dims)
    readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
    for node in nodes:
        for index, name in enumerate(node.input):
            readers[name].append((node, index))
        if node.op_type == "QuantizeLinear" and node.output and quantized_type(node, types) is None:
            # To ONNX it is uint8, to TensorRT int8: see the rule no_zero_point.
            types[node.output[0]] = "int8"
    opsets = {plain_domain(o.domain): o.version for o in reversed(model.opset_import)}
    return GraphIndex(
        graph=graph,
        metadata={prop.key: prop.value for prop in model.metadata_props},
        opsets=opsets,
        functions={(function.domain, function.name): function for function in model.functions},
        nodes=tuple(nodes),
        inner=tuple(inner for outer in nodes for inner in _bodies(outer)),
        circle=tuple(circle),
        complaint=complaint,
        inputs={value.name: value for value in graph.input if value.name not in constants},
        outputs={value.name: value for value in graph.output},
        sparse=tuple(tensor.values.name for tensor in graph.sparse_initializer),
        constants=constants,
        fixed=_fixed(nodes, {*constants, *around}, known),
        types=types,
        shapes=known,
        producer={name: node for node in nodes for name in node.output if name},
        readers=dict(readers),
    )


def inline_functions(model: ModelProto) -> ModelProto:
    """The graph without local functions. Raises HiresvitError for those that cannot be resolved."""
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise HiresvitError(f"the graph's local functions cannot be resolved: {reason}") from error


def dims_of(value: ValueInfoProto) -> tuple[int | None, ...]:
    """The stated shape of a value; None for a dynamic axis, which some write as -1."""
    return _sizes(value.type.tensor_type.shape)


def _sizes(shape: onnx.TensorShapeProto) -> tuple[int | None, ...]:
    sizes: list[int | None] = []
    for dim in shape.dim:
        size = dim.dim_value  # 0 where there is none
        sizes.append(size if size > 0 or (size == 0 and dim.HasField("dim_value")) else None)
    return tuple(sizes)


def quantized_type(node: NodeProto, types: Mapping[str, str]) -> str | None:
    """What a QuantizeLinear quantizes to; None if it has neither zero point nor output_dtype."""
    if zero_point := operand(node, 2):
        return types.get(zero_point, "")
    return type_name(attributes(node).get("output_dtype", 0)) or None


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values; text is bytes, as ONNX has it."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def operand(node: NodeProto, index: int) -> str:
    """The name of a node's input; "" if it is absent."""
    return node.input[index] if index < len(node.input) else ""


def reached(starts: Iterable[_Place], onward: Callable[[_Place], Iterable[_Place]]) -> set[_Place]:
    """The starts and all that ``onward`` leads to from there."""
    found = set(starts)
    pending = list(found)
    while pending:
        new = set(onward(pending.pop())) - found
        found |= new
        pending.extend(new)
    return found


def is_read_as_data(index: GraphIndex, name: str) -> bool:
    """Whether a result depends on a tensor's values."""

    def onward(read: str) -> Iterator[str]:
        readers = (reader for reader, _ in index.reads(read) if reader.op_type not in ("Shape", "Size"))
        return (made for reader in readers for made in reader.output if made)

    return not index.outputs.keys().isdisjoint(reached([name], onward))


def schema_of(node: NodeProto, opset: int | None) -> onnx.defs.OpSchema | None:
    """What ONNX says about an operator of its own, in a version or its newest; None if it has none of that name."""
    newest = onnx.defs.onnx_opset_version()
    return _schema(node.op_type, min(opset or newest, newest))


@cache  # rules ask of every node
def _schema(op: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, version, "")
    except onnx.defs.SchemaError:
        return None


def parser_name(node: NodeProto) -> str:
    """Its name, or the one that TensorRT's parser gives it (run: RTX 1.7)."""
    return node.name or f"node_of_{node.output[0]}"


def module_of(node: str) -> str:
    """The PyTorch module of a node that is named ``module.path/OpType``."""
    return node.rpartition("/")[0]


def in_order(nodes: Sequence[NodeProto]) -> tuple[list[NodeProto], list[NodeProto]]:
    """The nodes, each after those that it reads and otherwise as they were; and those that wait for each other."""
    makers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    reads = [names_read(node) for node in nodes]
    if all(makers.get(name, -1) < number for number, names in enumerate(reads) for name in names):
        return list(nodes), []  # as nearly every file has them
    waits = [{makers[name] for name in names if name in makers} for names in reads]
    followers: list[set[int]] = [set() for _ in nodes]
    for number, awaited in enumerate(waits):
        for maker in awaited:
            followers[maker].add(number)
    order = _freed(waits, followers)
    stuck = sorted(set(range(len(nodes))).difference(order))
    circle = set(stuck).difference(_freed(followers, waits))  # without those that only wait for one
    return [nodes[k] for k in (*order, *stuck)], [nodes[k] for k in stuck if k in circle]


def _freed(waits: Sequence[set[int]], followers: Sequence[set[int]]) -> list[int]:
    """The numbers, each after those that it waits for, without those that are in a circle or wait for one."""
    left = [len(awaited) for awaited in waits]
    ready, order = [number for number, count in enumerate(left) if not count], []
    while ready:  # a heap: the first of those that can come next
        order.append(number := heapq.heappop(ready))
        for follower in followers[number]:
            left[follower] -= 1
            if not left[follower]:
                heapq.heappush(ready, follower)
    return order


def names_read(node: NodeProto) -> set[str]:
    """The tensors that a node reads, or a body of it from around the node."""
    names = {name for name in node.input if name}
    for graph in graphs_of(node):
        inside = {name for inner in graph.node for name in names_read(inner)}
        inside.update(value.name for value in graph.output)
        made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        names |= inside - made - {name for inner in graph.node for name in inner.output}
    return names


def _bodies(node: NodeProto) -> Iterator[NodeProto]:
    for graph in graphs_of(node):
        for inner in graph.node:
            yield inner
            yield from _bodies(inner)


def graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of an If, a Loop or a Scan."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in OWN_DOMAINS and any(node.output[:1]):
            for attribute in node.attribute:
                value = helper.get_attribute_value(attribute)
                if attribute.name in ("value_float", "value_floats"):
                    value = numpy_helper.from_array(np.array(value, np.float32))
                elif attribute.name in ("value_int", "value_ints"):
                    value = numpy_helper.from_array(np.array(value, np.int64))
                if isinstance(value, TensorProto):
                    constants[node.output[0]] = value
    return constants


def _fixed(
    nodes: Iterable[NodeProto], constants: Iterable[str], shapes: Mapping[str, tuple[int | None, ...]]
) -> frozenset[str]:
    fixed = set(constants)
    for node in nodes:
        static = node.op_type in ("Shape", "Size") and None not in shapes.get(operand(node, 0), (None,))
        given = node.input and all(name in fixed for name in node.input if name)
        if static or (given and fixed.issuperset(names_read(node))):
            fixed.update(node.output)
    return frozenset(fixed)


def _inferred(
    model: ModelProto, nodes: Iterable[NodeProto], shapes: Shapes | None
) -> tuple[dict[str, ValueInfoProto], str]:
    """Type and shape of every value, and the complaint of strict inference, "" if there is none.

    Inferred without the large weights, else as the graph states them. What it states comes second: a stale
    ``value_info`` must not hide a type that the operators make.
    """
    graph = model.graph
    light = ModelProto(ir_version=model.ir_version, functions=model.functions)
    for opset in model.opset_import:
        light.opset_import.add(domain=plain_domain(opset.domain), version=opset.version)
    light.graph.name = graph.name or "graph"
    light.graph.node.extend(nodes)
    for number, node in enumerate(light.graph.node):
        node.name, node.domain = str(number), plain_domain(node.domain)
        for inner in _bodies(node):
            inner.name = ""  # a number there would be one of ours
    weights = {tensor.name: tensor for tensor in graph.initializer}
    light.graph.input.extend(value for value in graph.input if value.name not in weights)
    for value in light.graph.input:
        sizes = (1,) if shapes is None else shapes.get(value.name, (1,))
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value < 0:  # what some write for a dynamic axis, ONNX takes for a size
                dim.ClearField("dim_value")
            if shapes is not None and axis < len(sizes) and not dim.HasField("dim_value"):
                dim.dim_value = sizes[axis]
    for tensor in weights.values():
        light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() <= _SMALL:
            light.graph.initializer.append(tensor)
    stated, complaint = _stated(graph, light.graph.input), ""
    for strict in (True, False):
        try:
            inferred = _infer(light, strict=strict)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
            complaint = complaint or str(error)
        else:
            return stated | (inferred if complaint else _infer_further(light, inferred)), complaint
    return stated, complaint  # no opset, for one, or a node without operands


def _infer(light: ModelProto, *, strict: bool) -> dict[str, ValueInfoProto]:
    found = onnx.shape_inference.infer_shapes(light, strict_mode=strict, data_prop=True).graph
    return {value.name: value for value in found.value_info if value.type.WhichOneof("value")}


def _infer_further(light: ModelProto, inferred: dict[str, ValueInfoProto]) -> dict[str, ValueInfoProto]:
    """What becomes known with sizes that the graph computes, if anything was not."""
    while True:
        shapes = {value.name: dims_of(value) for value in (*light.graph.input, *inferred.values())}
        unknown = any(None in shapes.get(name, (None,)) for node in light.graph.node for name in node.output if name)
        if not unknown or (known := with_computed(light, shapes)) is None:
            return inferred
        light = known
        try:
            inferred |= _infer(light, strict=True) | {value.name: value for value in light.graph.input}
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return inferred


def _stated(graph: GraphProto, inputs: Iterable[ValueInfoProto]) -> dict[str, ValueInfoProto]:
    return {value.name: value for value in (*inputs, *graph.value_info, *graph.output) if value.name}


def plain_domain(domain: str) -> str:
    """A domain, where ONNX's own has one name."""
    return "" if domain in OWN_DOMAINS else domain


def array_of(tensor: TensorProto, name: str = "") -> NDArray[Any]:
    """The values of a constant. Raises IllegalGraphError for a damaged one, HiresvitError for one in another file."""
    said = f"the graph's constant {(name or tensor.name)!r}"
    if tensor.data_location == TensorProto.EXTERNAL:
        raise HiresvitError(f"{said} is in another file: load the weights first")
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise IllegalGraphError(f"{said} does not decode: {' '.join(str(error).split())}") from error


def first_output(node: NodeProto) -> str:
    """The name of what a node makes first; "" for a damaged one that makes nothing."""
    return str(node.output[0]) if node.output else ""
