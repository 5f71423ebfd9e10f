"""Graphs that answer about the tensors of another: their extremes, or they themselves."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, helper

from hiresvit.graph.index import names_read
from hiresvit.graph.operators import QUANTIZERS

_PROBE = "hiresvit/calibration"  # names of what we add to a graph begin with it


def range_graph(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Its outputs are maximum, minimum and sum of each tensor, each taken right behind the node that makes it."""
    probes = {name: [_reduction(op, name) for op in ("Max", "Min", "Sum")] for name in names}
    nodes = [probe for value in model.graph.input for probe in probes.get(value.name, ())]
    for node in model.graph.node:
        nodes.append(node)
        nodes += [probe for name in node.output for probe in probes.get(name, ())]
    return _pruned(model, nodes, [probe.output[0] for name in names for probe in probes[name]])


def _reduction(op: str, tensor: str) -> NodeProto:
    # Over all axes without naming them, which is the same in every opset.
    return helper.make_node(f"Reduce{op}", [tensor], [f"{_PROBE}/{op}/{tensor}"], keepdims=0)


def tensor_graph(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Its outputs are the tensors."""
    inputs = {value.name for value in model.graph.input}
    outputs = {name: f"{_PROBE}/{name}" if name in inputs else name for name in names}
    copies = [helper.make_node("Identity", [a], [b]) for a, b in outputs.items() if a != b]
    return _pruned(model, [*copies, *model.graph.node], list(outputs.values()))


def _pruned(model: ModelProto, nodes: Sequence[NodeProto], outputs: Sequence[str]) -> ModelProto:
    """A graph of those of ``nodes`` that ``outputs`` depend on, and of the weights these read.

    What quantizes any result of theirs stays, read or not: without it Qualcomm's HTP takes no Split (run).
    """
    needed = set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed |= names_read(node)
    made = {name for node in kept if node.op_type not in QUANTIZERS for name in node.output}
    ends = [node for node in nodes if node.op_type == "QuantizeLinear" and node.input[0] in made]
    ends = [node for node in ends if needed.isdisjoint(node.output)]
    kept = [*ends, *kept]
    needed |= {name for node in ends for name in node.input}
    cut = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    cut.graph.name = model.graph.name
    cut.graph.node.extend(reversed(kept))
    cut.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    cut.graph.input.extend(model.graph.input)
    for name in outputs:
        cut.graph.output.add(name=name)  # ONNX Runtime infers its type
    return cut
