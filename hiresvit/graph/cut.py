"""A part of a graph that stands alone: any of its steps, with what they read of the others as inputs.

A step is a node that computes something. What carries its result, as a Q/DQ pair or a cast, belongs to each part that
has the step, and so do constants: a part of a quantized graph is quantized as the whole is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from hiresvit.graph.index import GraphIndex, first_output, names_read
from hiresvit.graph.operators import CARRIERS


@dataclass(frozen=True)
class Part:
    """``nodes`` of a graph with their constants, the tensors that must be fed, and those that nothing in it reads."""

    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def find_steps(index: GraphIndex) -> list[NodeProto]:
    """The nodes that compute something of what is fed, in order."""
    return [node for node in index.nodes if node.op_type not in CARRIERS and not _is_fixed(index, node)]


def steps_before(index: GraphIndex, tensor: str) -> list[NodeProto]:
    """The steps that a tensor depends on, the nearest first."""
    found: dict[str, NodeProto] = {}
    near = [tensor]
    while near:
        makers = [index.producer[name] for name in near if name in index.producer and name not in index.fixed]
        new = {first_output(node): node for node in makers if first_output(node) not in found}
        found |= new
        near = [name for node in new.values() for name in sorted(names_read(node))]
    return [node for node in found.values() if node.op_type not in CARRIERS]


def cut_out(index: GraphIndex, steps: Collection[NodeProto]) -> Part | None:
    """The part that has these steps and no others; None if nothing is left that depends on what is fed."""
    chosen = {first_output(node) for node in steps}
    nodes = {first_output(node): node for node in steps}
    made = {name for node in steps for name in node.output}
    inputs: dict[str, None] = {}
    for node in steps:
        for name in sorted(names_read(node)):
            source = _above(index, name, nodes)
            if source not in index.fixed and source not in made:
                inputs[source] = None
    outputs: dict[str, None] = {}
    for node in steps:
        for name in filter(None, node.output):
            readers = list(_readers(index, name))
            if readers and chosen.isdisjoint(readers):
                outputs[_below(index, name, nodes)] = None
    if not inputs or not outputs:
        return None
    return Part(_with_constants(index, nodes), tuple(inputs), tuple(outputs))


def stand_alone(model: ModelProto, part: Part, values: Mapping[str, NDArray[Any]]) -> ModelProto:
    """The part as a graph; ``values`` of its inputs give their types and sizes."""
    alone = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    alone.graph.name = "part"
    alone.graph.node.extend(part.nodes)
    read = {name for node in part.nodes for name in names_read(node)} | set(part.outputs)
    alone.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    for name in part.inputs:
        kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
        alone.graph.input.append(helper.make_tensor_value_info(name, kind, values[name].shape))
    for name in part.outputs:
        alone.graph.output.add(name=name)  # who opens it infers its type
    return alone


def without_step(model: ModelProto, index: GraphIndex, step: NodeProto) -> ModelProto | None:
    """The graph with a step's readers reading what it read; None unless that has the same type and size."""
    made = [name for name in step.output if index.reads(name) or name in index.outputs]
    if len(made) != 1:
        return None
    alike = (index.types.get(made[0]), index.sizes(made[0]))
    for name in step.input:
        if name and name not in index.fixed and (index.types.get(name), index.sizes(name)) == alike:
            break
    else:
        return None
    if made[0] in index.outputs and (name in index.inputs or name in index.outputs):
        return None
    left = ModelProto()
    left.CopyFrom(model)
    del left.graph.node[:]
    for node in index.nodes:
        if node is step:
            continue
        added = left.graph.node.add()
        added.CopyFrom(node)
        added.input[:] = [name if read == made[0] else read for read in node.input]
    for output in left.graph.output:
        if output.name == made[0]:
            output.name = name
    return left


def _is_fixed(index: GraphIndex, node: NodeProto) -> bool:
    return all(name in index.fixed for name in node.output if name)


def _above(index: GraphIndex, name: str, nodes: dict[str, NodeProto]) -> str:
    """What a tensor carries; the carriers between are added to ``nodes``."""
    while name not in index.fixed and name in index.producer and index.producer[name].op_type in CARRIERS:
        node = index.producer[name]
        nodes[first_output(node)] = node
        name = node.input[0]
    return name


def _below(index: GraphIndex, name: str, nodes: dict[str, NodeProto]) -> str:
    """A result as its readers get it: behind its Q/DQ pair, which is added to ``nodes``."""
    for reader, _ in index.reads(name):
        if reader.op_type == "QuantizeLinear":
            for behind, _ in index.reads(first_output(reader)):
                nodes |= {first_output(node): node for node in (reader, behind)}
                return first_output(behind)
    return name


def _readers(index: GraphIndex, name: str) -> Iterable[str]:
    """The steps that read a result, in whatever type, each by its first output; "" for the graph's caller."""
    if name in index.outputs:
        yield ""
    for reader, _ in index.reads(name):
        if reader.op_type in CARRIERS:
            yield from _readers(index, first_output(reader))
        else:
            yield first_output(reader)


def _with_constants(index: GraphIndex, nodes: Mapping[str, NodeProto]) -> tuple[NodeProto, ...]:
    """The nodes, and those that compute constants for them, in order."""
    kept: list[NodeProto] = []
    needed: set[str] = set()
    for node in reversed(index.nodes):
        if first_output(node) in nodes or (_is_fixed(index, node) and not needed.isdisjoint(node.output)):
            kept.append(node)
            needed |= names_read(node)
    return tuple(reversed(kept))
