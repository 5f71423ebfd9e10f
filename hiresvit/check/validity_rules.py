"""The rules about graphs that are no ONNX: operands that are missing, a circle, sizes that do not fit together.

Not by `onnx.checker.check_model`: it stops at its first complaint, and TensorRT-RTX builds much that it refuses: nodes
in any order, outputs without a shape, operators and attributes of another version. Who makes what is looked up here,
as the parser does. Of what ONNX's strict shape inference says, only what TensorRT-RTX 1.7 was seen to refuse counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import NodeProto

from hiresvit.check.rule import Spot, View, rule
from hiresvit.graph.index import attributes, names_read, operand, schema_of
from hiresvit.graph.operators import OWN_DOMAINS

_BROADCAST = "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Where Xor"
_REDUCTIONS = (
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare"
)
# Run: what inference said against these in many graphs, RTX refused. It takes scalars and short lists from others
# (TopK, Tile, Split, Pad, the attributes of convolutions and pools), any perm of a Transpose, both inputs of a Resize,
# some sizes of an Expand that do not fit, and a depth of any rank for a OneHot.
_TRUSTED = frozenset(
    f"{_BROADCAST} {_REDUCTIONS} BatchNormalization Cast Concat DepthToSpace Einsum EyeLike Gather "
    "Gemm GridSample MatMul Reshape Slice SpaceToDepth Squeeze Trilu Unsqueeze".split()
)
# Before opset 13 RTX takes an axis behind the last for these.
_SOFTMAX = frozenset({"Hardmax", "LogSoftmax", "Softmax"})
# Run: RTX takes sizes in INT32, where ONNX wants INT64; and what has no type has its reason elsewhere.
_UNTRUSTED = ("ParseData", "expected to have type")
_LEAST_OPSET = 7
_COMPLAINT = re.compile(r"\(op_type:(\w+), node name: (\d+)\): (.*?)(?=\(op_type:|\Z)", re.DOTALL)


@rule("illegal", "ONNX wants more: the graph is damaged, export it again")
def operands(view: View) -> Iterator[Spot]:
    """An operator of ONNX with fewer operands or results than it has to have."""
    for node in view.nodes:
        schema = schema_of(node, view.opset)  # of any domain: the parser goes by the name
        if schema is None:
            continue
        # The parser reads axes in their older form, an attribute, too.
        least = 1 if any(a.name == "axes" for a in node.attribute) else schema.min_input
        if len(node.input) < min(least, schema.min_input) or len(node.output) < schema.min_output:
            yield node, f"{node.op_type} with {len(node.input)} operands and {len(node.output)} results"


@rule("illegal", "this is not valid ONNX: export the graph again")
def invalid(view: View) -> list[Spot]:
    """What no ONNX graph has: operands that nobody makes, two makers, circles, sizes that do not fit together."""
    circle = ((node, "nodes that wait for each other's results") for node in view.circle)
    spots = [*_unmade(view), *_made_twice(view), *circle]
    if spots or not _is_as_onnx_knows_it(view):  # what is said about sizes would only follow from these
        return spots
    return [*_misfits(view), *_complaints(view)]


def _unmade(view: View) -> Iterator[Spot]:
    known = _given(view).union(*(node.output for node in view.nodes)) - {""}
    for node in view.nodes:
        for name in sorted(names_read(node) - known):
            yield node, f"{node.op_type} reads {name!r}, which nothing makes"
    for value in view.graph.output:
        if value.name not in known:
            yield None, f"nothing makes the output {value.name!r}"


def _made_twice(view: View) -> Iterator[Spot]:
    inputs = Counter(value.name for value in view.graph.input)
    weights = Counter(tensor.name for tensor in view.graph.initializer)
    for name, count in (inputs | weights).items():
        if count > 1 and name:  # a weight that is listed as an input too is one of each
            yield None, f"{name!r} is given {count} times"
    made = _given(view)
    for node in view.nodes:
        for name in filter(None, node.output):
            if name in made:
                yield node, f"{node.op_type} makes {name!r}, which is there already"
            made.add(name)


def _given(view: View) -> set[str]:
    graph = view.graph
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return given | set(view.sparse)


def _misfits(view: View) -> Iterator[Spot]:
    """What inference does not look at: the channels of a convolution, how many elements a Reshape has."""
    for node in view.nodes:
        data, weight, biases = (view.shapes.get(operand(node, k)) for k in range(3))
        if node.op_type == "Conv" and data and weight and min(len(data), len(weight)) > 2:
            fed, wanted = data[1], weight[1]
            group = attributes(node).get("group", 1)
            if fed is not None and wanted is not None and fed != wanted * group:
                yield node, f"Conv of {fed} channels with a weight for {wanted * group}"
            if biases and None not in (biases[0], weight[0]) and biases[0] != weight[0]:
                yield node, f"Conv with {weight[0]} outputs and {biases[0]} biases"
        if node.op_type == "Reshape" and data is not None and None not in data:
            sizes = view.array(operand(node, 1))
            have = math.prod(size or 0 for size in data)
            if sizes is not None and (sizes > 0).all() and (want := math.prod(sizes.flat)) != have:
                yield node, f"Reshape of {have} elements to {want}"


def _complaints(view: View) -> Iterator[Spot]:
    """What strict inference says, where it can be trusted."""
    for op, number, said in _COMPLAINT.findall(view.complaint):
        node = view.nodes[int(number)]
        trusted = op in _TRUSTED or (op in _SOFTMAX and (view.opset or 0) >= 13)
        if not trusted or op != node.op_type or any(word in said for word in _UNTRUSTED):
            continue
        text = " ".join(re.sub(r"\[\w+Error\]| in node .*", "", said).split()).removesuffix(".")
        yield node, f"{op} of {_operands(view, node)} ({text[:1].lower()}{text[1:]})"


def _is_as_onnx_knows_it(view: View) -> bool:
    """Whether all nodes have inputs and attributes of their version.

    ONNX passes over what it does not know, such as axes that came as an attribute before they were an input. The
    parser knows both forms, so that what ONNX infers from there on is of another graph.
    """
    newest = onnx.defs.onnx_opset_version()
    if view.opset is None or not _LEAST_OPSET <= view.opset <= newest:
        return False
    for node in view.nodes:
        schema = schema_of(node, view.opset) if node.domain in OWN_DOMAINS else None
        if schema is None:
            continue
        known: dict[str, Any] = {name: a.type for name, a in schema.attributes.items()}
        strange = any(a.name not in known or int(known[a.name]) != a.type for a in node.attribute)
        if strange or len(node.input) > schema.max_input:
            return False
    return True


def _operands(view: View, node: NodeProto) -> str:
    shapes = [view.shapes.get(name) for name in node.input if name]
    texts = ["?" if shape is None else str(["?" if size is None else size for size in shape]) for shape in shapes]
    return " and ".join(texts).replace("'", "")
