"""Rules about Q/DQ: what may be quantized, to what, with which scale and along which axis.

Run on TensorRT-RTX 1.7 are the refusals, and which forms it builds but computes in floating point. For the other
targets they are what TensorRT documents for all versions and the parser's list: Q/DQ have to be symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto

from hiresvit.check.rule import Level, Spot, View, rule
from hiresvit.check.target import Target
from hiresvit.graph.dtypes import shown
from hiresvit.graph.index import attributes, first_output, is_read_as_data, operand, quantized_type
from hiresvit.graph.operators import QUANTIZERS, WEIGHTED

_STORED = frozenset({"int8", "int4", "float8e4m3fn", "float4e2m1"})
_WHOLE_BYTES = ("int8", "float8e4m3fn")  # run: in INT4 one element is too few, with an axis or without
_INT8_READERS = frozenset({("Conv", 1), ("Clip", 1), ("Clip", 2)})  # run: they take a constant in INT8
_WIDTH = {"float": 32, "float16": 16, "bfloat16": 16}
_FLOATING = "TensorRT-RTX builds it but computes the product in floating point: "


def _unfused(target: Target) -> Level:
    """The level of what is not meant to be quantized so, and which some compute in floating point."""
    return "hazard" if target.takes_unfused_qdq else "illegal"


@rule("illegal", "{target} quantizes symmetrically: calibrate with zero point 0")
def asymmetric(view: View) -> Iterator[Spot]:
    """A zero point other than 0."""
    for node in _quantizers(view):
        name = operand(node, 2)
        if name and view.types.get(name, "") not in view.target.asymmetric:
            zero = view.array(name)
            if name not in view.fixed:
                yield node, "a zero point that is not constant"
            elif zero is not None and zero.astype(float).any():
                yield node, "a zero point that is not 0"


@rule("illegal", "{target} cannot quantize to it: use INT8, with zero point 0")
def quantized(view: View) -> Iterator[Spot]:
    """Q/DQ through a type that the target does not have; UINT8 activations are `unsigned`."""
    for node in _quantizers(view):
        kind, elsewhere = view.type_of(node, 0), {"int32"}  # the rule bias
        if node.op_type == "QuantizeLinear":
            kind, elsewhere = quantized_type(node, view.types) or "", {"uint8"}
        elif node.input[0] not in view.constants:
            elsewhere = {"int32", "uint8"}
        if kind and kind not in view.target.quantized | elsewhere:
            yield node, f"{node.op_type} of {shown(kind)}"


@rule(
    lambda target: "hazard" if target.takes_uint8_as_int8 else "illegal",
    "TensorRT has only INT8, and TensorRT-RTX takes UINT8 for it, so that values end at 127: quantize to INT8",
)
def unsigned(view: View) -> Iterator[Spot]:
    """UINT8 activations, whose zero point is 0."""
    for node in _quantizers(view) if "uint8" not in view.target.quantized else ():
        if node.op_type == "QuantizeLinear" and quantized_type(node, view.types) == "uint8":
            yield node, "QuantizeLinear to UINT8"


@rule("hazard", "TensorRT quantizes to INT8, ONNX and ONNX Runtime to UINT8: give it a zero point of type INT8")
def no_zero_point(view: View) -> Iterator[Spot]:
    """A QuantizeLinear that does not say what it quantizes to."""
    for node in _quantizers(view):
        if node.op_type == "QuantizeLinear" and quantized_type(node, view.types) is None:
            yield node, "QuantizeLinear without zero point and output_dtype"


@rule("illegal", "{target} has no INT32 bias: leave biases in floating point (QuantizeBias=False)")
def bias(view: View) -> Iterator[Spot]:
    """A bias in INT32."""
    for node in _quantizers(view) if "int32" not in view.target.quantized else ():
        if node.op_type == "DequantizeLinear" and view.type_of(node, 0) == "int32":
            yield node, "DequantizeLinear of INT32"


@rule("illegal", "{target} has quantized constants for a DequantizeLinear alone: do it to the values, or behind that")
def stored(view: View) -> Iterator[Spot]:
    """A quantized constant that something else than a DequantizeLinear reads."""
    for name in view.constants:
        kind = view.types[name]
        if kind not in _STORED:
            continue
        if name in view.outputs:
            yield None, f"a constant in {shown(kind)} as output"
        for node, index in view.reads(name):
            after = [(reader.op_type, k) for out in node.output for reader, k in view.reads(out)]
            zero_point = bool(after) and all(op in QUANTIZERS and k == 2 for op, k in after)
            known = node.op_type in QUANTIZERS or node.op_type in view.target.own_ops
            if not (known or zero_point or (node.op_type, index) in _INT8_READERS):
                yield node, f"{node.op_type} of a constant in {shown(kind)}"


@rule("illegal", "TensorRT-RTX was seen to build no plan of it: give the constant the shape [1]")
def scalar(view: View) -> Iterator[Spot]:
    """A quantized constant without axes, which ONNX Runtime's quantizer makes of a factor or an addend."""
    for node in _quantizers(view):
        name, kind = node.input[0], view.type_of(node, 0)
        if node.op_type != "DequantizeLinear" or name not in view.constants or view.shapes[name]:
            continue
        if kind in _WHOLE_BYTES and is_read_as_data(view, first_output(node)):
            yield node, f"DequantizeLinear of a constant in {shown(kind)} without axes"


@rule("illegal", "{target} has INT4 for weights only: use INT8")
def int4_activation(view: View) -> Iterator[Spot]:
    """INT4 for what is no weight."""
    for node in _quantizers(view):
        if _is_activation(view, node) and quantized_type(node, view.types) == "int4":
            yield node, "an activation in INT4"


@rule("illegal", "{target} takes scales above 0: calibrate again")
def scale_sign(view: View) -> Iterator[Spot]:
    """A scale that is 0, negative or not a number; those of blocks may be (run)."""
    for node, scale in _scales(view):
        if not (scale.astype(float) > 0).all() and not attributes(node).get("block_size"):
            yield node, "a scale that is not above 0"


@rule(
    lambda target: "hazard" if target.takes_infinite_scales else "illegal",
    "all it scales becomes 0, infinite or NaN: calibrate again",
)
def scale_infinite(view: View) -> Iterator[Spot]:
    """A scale that is infinite."""
    for node, scale in _scales(view):
        if (scale.astype(float) == float("inf")).any():
            yield node, "an infinite scale"


@rule("hazard", f"{_FLOATING}calibrate, and write the scale as a constant")
def scale_dynamic(view: View) -> Iterator[Spot]:
    """A scale that the graph computes."""
    for node in _quantizers(view):
        if node.input[1] not in view.fixed:
            yield node, f"{node.op_type} with a scale that is not constant"


@rule("illegal", "there must be one for each channel or block: the axis or the scales are wrong")
def scale_count(view: View) -> Iterator[Spot]:
    """A scale for each place of the axis, or for each block, and as many zero points."""
    for node, scale in _scales(view):
        wanted = _scale_shape(view, node)
        if wanted is not None and list(scale.shape) != wanted:
            yield node, f"scales of shape {list(scale.shape)}, not {wanted}"
        zero = view.array(operand(node, 2))
        if zero is not None and zero.size != scale.size:
            yield node, f"{scale.size} scales and {zero.size} zero points"


@rule(
    lambda target: None if target.takes_scales_of_any_type else "illegal",
    "before opset 23 ONNX wants one type, and {target} may refuse it: write the scale in the tensor's type",
)
def scale_type(view: View) -> Iterator[Spot]:
    """A scale of another type than the tensor that is quantized."""
    for node in _quantizers(view):
        kinds = view.type_of(node, 0), view.type_of(node, 1)
        if node.op_type == "QuantizeLinear" and _WIDTH.keys() >= set(kinds) and kinds[0] != kinds[1]:
            yield node, f"QuantizeLinear of {shown(kinds[0])} with a scale in {shown(kinds[1])}"


@rule(
    lambda target: "illegal" if target.boards_disagree_on_qdq else "hazard",
    f"{_FLOATING}give the scales the type that the product reads, without a Cast (TensorRT 10.16 refuses such a "
    "graph on Orin: TensorRT#4832)",
)
def widened(view: View) -> Iterator[Spot]:
    """What is dequantized in a narrow type and read in a wide one."""
    return _conversions(view, wider=True)


@rule(
    lambda target: None if target.fuses_narrowed_qdq else "hazard",
    "TensorRT-RTX still fuses it, {target} was not tried: give the scales the type that the product reads",
)
def narrowed(view: View) -> Iterator[Spot]:
    """What is dequantized in one type and read in another that is no wider."""
    return _conversions(view, wider=False)


@rule(_unfused, f"one scale belongs to each output. {_FLOATING}quantize along the outputs")
def weight_axis(view: View) -> Iterator[Spot]:
    """A weight that is quantized along another axis than its outputs."""
    for node in _quantizers(view):
        axis = channel_axis(view, node)
        shape = view.shapes.get(node.input[0], ())
        if node.op_type != "DequantizeLinear" or axis is None or not shape or not _is_weight(view, node):
            continue
        for reader, index in view.reads(first_output(node)):
            wanted = _output_axis(reader, index, len(shape))
            if wanted is not None and axis % len(shape) != wanted:
                yield node, f"the weight of a {reader.op_type} quantized along axis {axis}, not {wanted}"


@rule(_unfused, f"only weights have scales for each channel. {_FLOATING}use one scale for the tensor")
def channel_activation(view: View) -> Iterator[Spot]:
    """An activation with a scale for each channel."""
    for node in _quantizers(view):
        if _is_activation(view, node) and channel_axis(view, node) is not None:
            yield node, "an activation with a scale for each channel"


@rule(_unfused, "blocks are meant for INT4, FP8 and FP4: use a scale for each output channel")
def block(view: View) -> Iterator[Spot]:
    """INT8 with a scale for each block."""
    # From memory of NVIDIA's guide, not read.
    for node in _quantizers(view):
        if attributes(node).get("block_size") and view.type_of(node, 0) == "int8":
            yield node, "INT8 in blocks"


@rule("illegal", "{target} has blocks along the last two axes only")
def block_axis(view: View) -> Iterator[Spot]:
    """Blocks along an axis that is not one of the last two."""
    for node in _quantizers(view):
        given, shape = attributes(node), view.shapes.get(node.input[0], ())
        if given.get("block_size") and shape and given.get("axis", 1) % len(shape) < len(shape) - 2:
            yield node, f"blocks along axis {given.get('axis', 1)} of {len(shape)}"


@rule(
    lambda target: "advice" if target.boards_disagree_on_qdq else None,
    "10.16.2.10 on Orin refuses some Q/DQ graphs that it builds on Thor, with 'Could not infer output types for "
    "operation: dequantize' (TensorRT#4832, open): build on the board before you rely on it",
)
def orin_qdq(view: View) -> Iterator[Spot]:
    """Any Q/DQ."""
    return ((node, "QuantizeLinear and DequantizeLinear") for node in _quantizers(view))


@rule(
    lambda target: "advice" if target.int8_conv_writes_fp32 else None,
    "its INT8 convolutions write FP32 and need a second kernel each, so its speed says nothing about INT8 on a full "
    "TensorRT: measure there",
)
def int8_conv(view: View) -> Iterator[Spot]:
    """A convolution with two quantized operands."""
    for node in view.nodes:
        makers = [view.producer.get(name) for name in node.input[:2]]
        if node.op_type == "Conv" and all(m is not None and m.op_type == "DequantizeLinear" for m in makers):
            yield node, "INT8 convolutions"


def channel_axis(view: View, node: NodeProto) -> int | None:
    """The axis of a Q or DQ that has a scale for each channel; None with one scale or blocks."""
    shape, given = view.shapes.get(node.input[1], ()), attributes(node)
    if given.get("block_size") or len(shape) != 1 or shape[0] == 1:
        return None
    return int(given.get("axis", 1))


def _scale_shape(view: View, node: NodeProto) -> list[int] | None:
    """The shape that scales by channel or block must have; None for one scale, and where it is not known."""
    shape, given = [*(view.sizes(node.input[0]) or ())], attributes(node)
    block_size, axis = given.get("block_size", 0), given.get("axis", 1)
    if not shape or not (block_size or channel_axis(view, node) is not None):
        return None
    if not -len(shape) <= axis < len(shape):
        return []
    if not block_size:
        return [shape[axis]]
    shape[axis] = -(-shape[axis] // block_size)
    return shape


def _quantizers(view: View) -> Iterator[NodeProto]:
    return (node for node in view.nodes if node.op_type in QUANTIZERS)


def _scales(view: View) -> Iterator[tuple[NodeProto, NDArray[Any]]]:
    for node in _quantizers(view):
        if (scale := view.array(node.input[1])) is not None:
            yield node, scale


def _is_activation(view: View, node: NodeProto) -> bool:
    """Whether a node quantizes what the graph computes."""
    return node.op_type == "QuantizeLinear" and not _is_weight(view, node)


def _is_weight(view: View, node: NodeProto) -> bool:
    """Whether a Q or DQ is of a constant, or of what a Q makes of one."""
    maker = view.producer.get(node.input[0])
    if maker is not None and maker.op_type == "QuantizeLinear":
        return maker.input[0] in view.constants
    return node.input[0] in view.constants


def _conversions(view: View, *, wider: bool) -> Iterator[Spot]:
    """DequantizeLinear nodes whose product reads another type than their scale's, a wider one or one that is not."""
    for node in _quantizers(view):
        scale = view.type_of(node, 1)
        if node.op_type != "DequantizeLinear" or scale not in _WIDTH:
            continue
        readers = view.reads(first_output(node))
        casts = [reader for reader, _ in readers if reader.op_type == "Cast"]
        readers = [pair for cast in casts for pair in view.reads(first_output(cast))] or readers
        kind = view.types.get(first_output(casts[0] if casts else node), "")
        if kind not in _WIDTH or kind == scale or (_WIDTH[kind] > _WIDTH[scale]) != wider:
            continue
        if any(reader.op_type in WEIGHTED for reader, _ in readers):
            yield node, f"DequantizeLinear in {shown(scale)} for a product in {shown(kind)}"


def _output_axis(reader: NodeProto, index: int, axes: int) -> int | None:
    """Along which axis of a product's operand its output channels lie; None if that is not known."""
    given = attributes(reader)
    if reader.op_type == "Conv" and index == 1:
        return 0
    if reader.op_type == "Gemm" and index < 2:
        return 1 - index if given.get("transB" if index else "transA") else index
    if reader.op_type == "MatMul":
        return axes - 1 if index else axes - 2
    return None
