"""Rules about Qualcomm's HTP: what is no unit of Q/DQ, and what its compiler takes and computes wrongly.

All was run in the emulator of `onnxruntime-qnn` 2.7.0 (QAIRT 2.51), which says nothing about any of it. A unit is an
operator whose operands come from a DequantizeLinear and whose result goes into a QuantizeLinear: the HTP computes it
in integers, and all else in FP16, on chips that have that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hiresvit.check.forms import is_gelu_by_erf, made_by, maker_of, rank_of, stored_as, text_of
from hiresvit.check.qdq_rules import channel_axis
from hiresvit.check.rule import LevelOf, Spot, View, rule
from hiresvit.graph.dtypes import FLOATS
from hiresvit.graph.index import array_of, attributes, first_output, operand, reached
from hiresvit.graph.operators import HARMLESS, LAYOUT, PAIRED, QUANTIZERS, WEIGHTED

# Run: ONNX Runtime moves Q and DQ past these, so that they need none of their own.
_MOVES = (LAYOUT | {"Concat", "Expand", "Flatten", "Gather", "Slice", "Tile"}) - {"Cast"}
_CLIPPED = frozenset({"Clip", "Relu"})  # run: part of the unit before them
# Run: they take constants without Q/DQ.
_BARE = frozenset({"Clip", "Conv", "ConvTranspose", "Gemm", "Pad", "Resize", "Where"})
# Run: behind the Transpose that is lost.
_EACH = HARMLESS | QUANTIZERS | {"LayerNormalization", "MatMul", "Relu", "Sigmoid", "Softmax", "Tanh"}
_COARSE = 0.1  # a step of the scores that changes a softmax by a tenth
_MASKED = -30.0
_LONG = 4  # run: means of 3x3, 3x4 and 2x8 are right, of 4x4 and 4x6 not


def _known(name: str) -> LevelOf:
    """A hazard where the target is known to compute it wrongly."""
    return lambda target: "hazard" if name in target.miscomputes else None


@rule(
    lambda target: "illegal" if target.integers_only else None,
    "{target} computes in integers alone: quantize the graph for it (hiresvit export --htp a16w8 or a8w8 --calib), "
    "every operator with Q/DQ around it",
)
def floating_point(view: View) -> Iterator[Spot]:
    """An operator in floating point, outside a unit of Q/DQ, where the chip has integers only."""
    for node in view.nodes:
        if node.op_type in QUANTIZERS or view.fixed.issuperset(node.output):
            continue
        fed = [name for k, name in enumerate(node.input) if name and _is_floating(view, node, k)]
        made = [name for name in node.output if view.types.get(name) in FLOATS]
        if node.op_type in _MOVES:
            fed, made = [name for name in fed if name in view.fixed], []
        if not all(_is_from_dq(view, name) for name in fed) or not all(_goes_to_q(view, name) for name in made):
            yield node, "arithmetic in floating point"


@rule(
    lambda target: None if not target.one_scale else "illegal" if target.integers_only else "hazard",
    "{target} moves integers only where operand and result have one scale and zero point, and else computes in "
    "floating point, which some chips lack: give both the same",
)
def one_scale(view: View) -> Iterator[Spot]:
    """An operator that only moves data, whose result is quantized otherwise than its operand."""
    for node in view.nodes:
        moves = node.op_type in view.target.one_scale and not _is_asymmetric_linear(node)
        if moves and _is_rescaled(view, node):
            yield node, f"{node.op_type} with another scale behind it than before it"


@rule(
    lambda target: "hazard" if target.narrows_products else None,
    "{target} makes UINT8 of it without a word, which leaves 39 dB of 69: quantize it to INT16 with zero point 0, "
    "which chips from V73 on take, and to UINT8 knowingly on others",
)
def narrow_product(view: View) -> Iterator[Spot]:
    """A product of two activations whose second is UINT16."""
    for node in view.nodes:
        both = node.op_type == "MatMul" and operand(node, 1) not in view.fixed
        if both and stored_as(view, node, 1) == "uint16":
            yield node, "a MatMul of two activations whose second is UINT16"


@rule(_known("edge_pad"), "{target} computes garbage there without a word: pad with mode=reflect or a constant")
def edge_pad(view: View) -> Iterator[Spot]:
    """A Pad with mode=edge in floating point."""
    for node in view.nodes:
        if node.op_type == "Pad" and text_of(node, "mode", "constant") == "edge" and not stored_as(view, node, 0):
            yield node, "a Pad with mode=edge in floating point"


@rule(
    _known("byte_cast"),
    "{target} makes 1 of everything but 0 without a word: cast to INT32 first, and that to FP32; or quantize it",
)
def byte_cast(view: View) -> Iterator[Spot]:
    """A Cast of UINT8 to FP32, as of pixels, that nothing quantizes."""
    for node in view.nodes:
        made = first_output(node)
        casts = node.op_type in ("Cast", "CastLike") and view.type_of(node, 0) == "uint8"
        if casts and view.types.get(made) == "float" and not _goes_to_q(view, made, _MOVES):
            yield node, f"a {node.op_type} of UINT8 to FP32"


@rule(
    _known("padded_mean"),
    "{target} computes it wrongly at some sizes (16x16, 24x24) without a word, and dies of some padded at one end: pad "
    "first and count the border (count_include_pad=1), or write it as a depthwise convolution",
)
def padded_mean(view: View) -> Iterator[Spot]:
    """An AveragePool in floating point that leaves its padding out of the mean."""
    for node in view.nodes:
        given = attributes(node)
        if node.op_type != "AveragePool" or stored_as(view, node, 0) or given.get("count_include_pad"):
            continue
        padded = any(given.get("pads", [])) or text_of(node, "auto_pad", "NOTSET").startswith("SAME")
        if padded:
            yield node, "an AveragePool that does not count its padding"


@rule(
    _known("long_mean"),
    "{target} computes it wrongly at some sizes without a word (9 to 16 dB): give its operand and its result one scale "
    "and zero point",
)
def long_mean(view: View) -> Iterator[Spot]:
    """An AveragePool of 4x4 or more in Q/DQ, whose result is quantized otherwise than its operand."""
    for node in view.nodes:
        long = node.op_type == "AveragePool" and min(attributes(node).get("kernel_shape", [1])) >= _LONG
        if long and _is_rescaled(view, node):
            yield node, "an AveragePool of 4x4 or more with another scale behind it than before it"


@rule(
    _known("turned_weight"),
    "{target} takes the scales for those of its outputs without a word (2 dB): quantize along the last axis",
)
def turned_weight(view: View) -> Iterator[Spot]:
    """A MatMul's weight with a scale for each of its inputs."""
    for node in view.nodes:
        maker = made_by(view, operand(node, 1), "DequantizeLinear") if node.op_type == "MatMul" else None
        axis = None if maker is None else channel_axis(view, maker)
        rank = rank_of(view, node, 1)
        if axis is not None and rank and axis % rank != rank - 1:
            yield node, "the weight of a MatMul with a scale for each of its inputs"


@rule(
    _known("half_product"),
    "{target} computes garbage of it without a word, or no plan: leave the graph in FP32, which is computed in FP16",
)
def half_product(view: View) -> Iterator[Spot]:
    """A MatMul of two activations of five axes in an FP16 graph."""
    for node in view.nodes:
        ranks = {len(view.shapes.get(name, ())) for name in node.input}
        both = node.op_type == "MatMul" and view.fixed.isdisjoint(node.input)
        if both and ranks == {5} and view.type_of(node, 0) == "float16":
            yield node, "a MatMul of two activations of 5 axes in FP16"


@rule(
    _known("signed_softmax"),
    "{target} computes another function without a word (-17 dB): quantize to UINT8 or UINT16",
)
def signed_softmax(view: View) -> Iterator[Spot]:
    """A Softmax in INT8."""
    for node in view.nodes:
        if node.op_type == "Softmax" and stored_as(view, node, 0) == "int8":
            yield node, "a Softmax of INT8"


@rule(
    _known("wide_mask"),
    "so that scores that differ become one: mask with about -20 (8 bits) or -50 (16 bits), which is 0 behind the "
    "softmax just as well",
)
def wide_mask(view: View) -> Iterator[Spot]:
    """A mask added to the scores that takes most of their range in Q/DQ."""
    for node in view.nodes:
        after = _quantizer_of(view, first_output(node)) if node.op_type in ("Add", "Where") else None
        if after is None or not _feeds_softmax(view, first_output(node)):
            continue
        step = view.array(operand(after, 1))
        lowest = min((_lowest(view, name) for name in node.input), default=0.0)
        if lowest <= _MASKED and step is not None and float(step.max()) > _COARSE:
            yield node, f"a softmax's mask of {lowest:g}, with scores in steps of {float(step.max()):.2g}"


@rule(
    _known("lost_transpose"),
    "at some sizes (16x16 and up; none below was seen but with 16 bits) {target} loses the Transpose without a word, "
    "or fails when it runs: compute on each part before the Concat (split the other summand, add to each half, then "
    "concatenate), or concatenate both as flat lists and reshape behind that",
)
def lost_transpose(view: View) -> Iterator[Spot]:
    """A Concat of a product of activations and of one that is transposed, as of attention along both axes."""
    for node in view.nodes:
        rank = rank_of(view, node, 0)
        if node.op_type != "Concat" or len(node.input) != 2 or not rank or attributes(node)["axis"] % rank != rank - 1:
            continue
        first = maker_of(view, node.input[0])
        while first is not None and first.op_type == "Transpose":
            first = maker_of(view, first.input[0])
        if _is_mixture(view, first) and _is_turned(view, node.input[1]):
            yield node, "a Concat of two products of activations, the second of them transposed"


@rule(
    lambda target: "advice" if "fused_gelu" in target.miscomputes else None,
    "{target} fuses it with a coarser formula (44 to 52 dB where GELU alone has 65): where that counts, export it as "
    "the tanh of a polynomial (hiresvit export --htp fp16 does), which is not fused",
)
def fused_gelu(view: View) -> Iterator[Spot]:
    """A GELU in floating point right behind a convolution or a linear layer."""
    for node in view.nodes:
        name = node.input[0] if node.op_type == "Gelu" else ""
        if node.op_type == "Erf" and is_gelu_by_erf(view, node):
            name = view.producer[node.input[0]].input[0]
        if name and _is_fused(view, name, 1 if node.op_type == "Gelu" else 2):
            yield node, "a GELU behind a convolution or a linear layer"


def _is_floating(view: View, node: NodeProto, index: int) -> bool:
    """Whether an operand is in floating point, and not a constant that the operator takes as it is."""
    name = node.input[index]
    bare = name in view.fixed and node.op_type in _BARE and index > 0
    return view.types.get(name) in FLOATS and not bare


def _is_from_dq(view: View, name: str) -> bool:
    """Whether a tensor comes from a DequantizeLinear, or is part of the unit that one begins."""
    while (maker := view.producer.get(name)) is not None and maker.op_type in _MOVES:
        name = maker.input[0]
    if maker is None:
        return False
    ends = [reader for reader, _ in view.reads(name)]
    inside = len(ends) == 1 and ends[0].op_type in _CLIPPED and maker.op_type not in QUANTIZERS
    return maker.op_type == "DequantizeLinear" or inside


def _goes_to_q(view: View, name: str, between: Collection[str] = _MOVES | _CLIPPED) -> bool:
    """Whether all that read a tensor quantize it, or move or clip it first (``between``)."""

    def onward(read: str) -> Iterator[str]:
        for reader, _ in view.reads(read):
            if reader.op_type in between:
                yield from reader.output

    names = reached([name], onward)
    readers = [reader.op_type for read in names for reader, _ in view.reads(read)]
    quantized = bool(readers) and set(readers) <= {*between, "QuantizeLinear"}
    return quantized and view.outputs.keys().isdisjoint(names)


def _quantizer_of(view: View, name: str) -> NodeProto | None:
    """The QuantizeLinear that alone reads a tensor."""
    readers = [reader for reader, _ in view.reads(name)]
    return readers[0] if len(readers) == 1 and readers[0].op_type == "QuantizeLinear" else None


def _is_rescaled(view: View, node: NodeProto) -> bool:
    """Whether the result of a unit has another scale or zero point than its first operand."""
    pair = made_by(view, operand(node, 0), "DequantizeLinear"), _quantizer_of(view, first_output(node))
    scales = [[_values(view, operand(one, k)).tolist() for k in (1, 2)] for one in pair if one is not None]
    return len(scales) == 2 and scales[0] != scales[1]


def _values(view: View, name: str) -> NDArray[np.float64]:
    """A constant of any type, also of those that TensorRT does not have; empty for anything else."""
    return array_of(view.constants[name], name).astype(float) if name in view.constants else np.zeros(0)


def _is_asymmetric_linear(node: NodeProto) -> bool:
    """A Resize that is taken with two scales (run): linear, with coordinates that are asymmetric."""
    if node.op_type != "Resize" or text_of(node, "mode", "nearest") != "linear":
        return False
    return text_of(node, "coordinate_transformation_mode", "half_pixel") == "asymmetric"


def _feeds_softmax(view: View, name: str) -> bool:
    def onward(read: str) -> Iterator[str]:
        return (first_output(r) for r, _ in view.reads(read) if r.op_type in QUANTIZERS | LAYOUT)

    return any(r.op_type == "Softmax" for read in reached([name], onward) for r, _ in view.reads(read))


def _lowest(view: View, name: str) -> float:
    """The lowest value of a constant, dequantized or not; 0 for anything else."""
    maker = made_by(view, name, "DequantizeLinear")
    values = _values(view, name if maker is None else maker.input[0])
    if maker is not None and values.size:
        zero = _values(view, operand(maker, 2))
        values = (values - zero.max(initial=0)) * _values(view, maker.input[1]).max(initial=0)
    return float(values.min(initial=0))


def _is_mixture(view: View, node: NodeProto | None) -> bool:
    """Whether a node is a product of two activations."""
    return node is not None and node.op_type in PAIRED and view.fixed.isdisjoint(node.input)


def _is_turned(view: View, name: str) -> bool:
    """Whether a tensor comes from a product of two activations by a Transpose, and what works on each place behind."""

    def onward(read: str) -> Iterator[str]:
        maker = view.producer.get(read)
        if maker is not None and maker.op_type in _EACH and not _is_mixture(view, maker):
            yield from maker.input

    makers = map(view.producer.get, reached([name], onward))
    turned = [maker for maker in makers if maker is not None and maker.op_type == "Transpose"]
    return any(_is_mixture(view, maker_of(view, maker.input[0])) for maker in turned)


def _is_fused(view: View, name: str, reads: int) -> bool:
    """Whether a GELU's operand comes from a product with weights, alone and perhaps through a bias or a Transpose."""
    while (maker := view.producer.get(name)) is not None and len(view.reads(name)) == reads:
        if name in view.outputs:
            return False
        reads = 1
        if maker.op_type in WEIGHTED:
            return operand(maker, 1) in view.constants
        bias = maker.op_type == "Add" and any(read in view.constants for read in maker.input)
        if not bias and maker.op_type != "Transpose":
            return False
        name = next(read for read in maker.input if read not in view.constants)
    return False
