"""Forms of operators that Qualcomm's HTP refuses (run: each); `hiresvit.check.qualcomm` lists those of a chip."""

from __future__ import annotations

from onnx import NodeProto

from hiresvit.check.forms import form_of, is_gelu_by_erf, made_by, rank_of, stored_as, text_of
from hiresvit.check.qdq_rules import channel_axis
from hiresvit.check.rule import View
from hiresvit.graph.dtypes import shown
from hiresvit.graph.index import attributes, first_output, operand

_WIDE = ("int16", "uint16")


@form_of("Norm.axes", "LayerNormalization", "RMSNormalization")
def _norm_axes(view: View, node: NodeProto) -> str:
    rank = rank_of(view, node, 0) or 0
    if rank > 4:
        return f"{rank} axes"
    axis = attributes(node).get("axis", -1)
    return "" if not rank or axis % rank == rank - 1 else f"axis={axis}, not the last"


@form_of("Norm.scale", "LayerNormalization")
def _norm_scale(view: View, node: NodeProto) -> str:
    data, scale, bias = (stored_as(view, node, k) for k in range(3))
    if not data or not scale:
        return ""
    taken = {"int8"} if data == "int8" else {"uint8"}
    if data == "uint16" and view.target.takes_wide_products:
        taken.add("int16")
    if scale not in taken:
        return f"a scale in {shown(scale)} for data in {shown(data)}"
    return f"a bias in {shown(bias)}, not INT32" if bias not in ("", "int32") else ""


@form_of("BatchNormalization.wide")
def _batch_norm(view: View, node: NodeProto) -> str:
    wide = any(stored_as(view, node, k) in _WIDE for k in range(1, 5))
    return "parameters in 16 bits" if wide else ""


@form_of("GroupNormalization.groups")
def _groups(view: View, node: NodeProto) -> str:
    return "a scale for each group (opset 21 has one for each channel)" if (view.opset or 21) < 21 else ""


@form_of("GroupNormalization.quantized")
def _group_norm(view: View, node: NodeProto) -> str:
    return "Q/DQ" if stored_as(view, node, 0) else ""


@form_of("InstanceNormalization.axes")
def _instance_norm(view: View, node: NodeProto) -> str:
    rank = rank_of(view, node, 0)
    return "" if rank in (None, 3, 4) else f"{rank} axes (it takes 3 or 4)"


@form_of("GridSample.mode")
def _grid_mode(_: View, node: NodeProto) -> str:
    mode = text_of(node, "mode", "linear")
    return f"mode={mode}" if mode in ("cubic", "bicubic") else ""


@form_of("GridSample.axes")
def _grid_axes(view: View, node: NodeProto) -> str:
    rank = rank_of(view, node, 0)
    return "" if rank in (None, 4) else f"{rank} axes"


@form_of("Erf.alone")
def _erf(view: View, node: NodeProto) -> str:
    if stored_as(view, node, 0):
        return "Q/DQ (write GELU as one operator)"
    return "" if is_gelu_by_erf(view, node) else "no GELU around it"


@form_of("Einsum.wide")
def _einsum(view: View, node: NodeProto) -> str:
    return "16 bits (write it as MatMul)" if any(stored_as(view, node, k) in _WIDE for k in range(2)) else ""


@form_of("MatMul.ranks")
def _ranks(view: View, node: NodeProto) -> str:
    left, right = (rank_of(view, node, k) or 0 for k in range(2))
    return "5 axes and a weight of 2" if left > 4 and right == 2 else ""


@form_of("MatMul.int16")
def _signed_product(view: View, node: NodeProto) -> str:
    return "a second operand in INT16" if stored_as(view, node, 1) == "int16" else ""


@form_of("Conv.weight", "Conv", "ConvTranspose")
def _weight(view: View, node: NodeProto) -> str:
    kind, maker = stored_as(view, node, 1), made_by(view, operand(node, 1), "DequantizeLinear")
    axis = None if maker is None else channel_axis(view, maker)
    if axis is None:
        return ""
    if kind in ("int16", "uint8"):
        return f"a weight in {shown(kind)} with a scale for each channel"
    return f"a weight with scales along axis {axis}" if node.op_type == "Conv" and axis % 4 else ""


@form_of("Quantize.dynamic", "QuantizeLinear", "DequantizeLinear")
def _dynamic(view: View, node: NodeProto) -> str:
    return "" if operand(node, 1) in view.fixed else "a scale that is not constant"


@form_of("Product.unquantized", "Conv", "ConvTranspose", "Gemm", "MatMul")
def _unquantized(view: View, node: NodeProto) -> str:
    maker, name = made_by(view, operand(node, 1), "DequantizeLinear"), first_output(node)
    if maker is None or channel_axis(view, maker) is None:
        return ""
    while len(readers := view.reads(name)) == 1 and readers[0][0].op_type in ("Clip", "Relu"):
        name = first_output(readers[0][0])
    quantized = bool(readers) and all(reader.op_type == "QuantizeLinear" for reader, _ in readers)
    if quantized and stored_as(view, node, 0):
        return ""
    return "a weight with a scale for each channel, but no Q/DQ around all of it"
