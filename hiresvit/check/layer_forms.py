"""Forms of layers: resizing, convolutions, pools, norms, attention, recurrence."""

from __future__ import annotations

from onnx import NodeProto

from hiresvit.check.forms import form_of, rank_of, text_of
from hiresvit.check.rule import View
from hiresvit.graph.index import attributes, operand
from hiresvit.graph.operators import RECURRENT

# Resizing


@form_of("Resize.antialias")
def _antialias(_: View, node: NodeProto) -> str:
    return "antialias" if attributes(node).get("antialias") else ""


@form_of("Resize.transformation")
def _transformation(_: View, node: NodeProto) -> str:
    mode = text_of(node, "coordinate_transformation_mode", "half_pixel")
    return mode if mode in ("half_pixel_symmetric", "tf_crop_and_resize") else ""


@form_of("Resize.policy")
def _policy(_: View, node: NodeProto) -> str:
    policy = text_of(node, "keep_aspect_ratio_policy", "stretch")
    return "" if policy == "stretch" else f"keep_aspect_ratio_policy={policy}"


@form_of("Resize.nearest")
def _nearest(_: View, node: NodeProto) -> str:
    mode = text_of(node, "nearest_mode", "round_prefer_floor")
    half_pixel = text_of(node, "coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn"
    return f"tf_half_pixel_for_nn and {mode}" if half_pixel and mode != "round_prefer_floor" else ""


@form_of("Resize.cubic")
def _cubic(_: View, node: NodeProto) -> str:
    return "mode=cubic" if text_of(node, "mode", "nearest") == "cubic" else ""


@form_of("Resize.volume")
def _volume(view: View, node: NodeProto) -> str:
    scales, given = view.array(operand(node, 2)), attributes(node).get("axes")
    if not _cubic(view, node) or scales is None or given:
        return ""
    return "mode=cubic along other axes than the last two" if (scales.flatten()[:-2] != 1).any() else ""


@form_of("Resize.axes")
def _resized_axes(view: View, node: NodeProto) -> str:
    axes, rank = attributes(node).get("axes"), rank_of(view, node, 0)
    if not axes or rank is None or not operand(node, 2) or operand(node, 2) in view.constants:
        return ""
    return "" if [axis % rank for axis in axes] == list(range(rank)) else "some axes and scales that are no initializer"


@form_of("Upsample.mode")
def _upsample(_: View, node: NodeProto) -> str:
    mode = text_of(node, "mode", "nearest")
    return "" if mode in ("nearest", "linear", "bilinear") else f"mode={mode}"


@form_of("GridSample.rank")
def _grid(view: View, node: NodeProto) -> str:
    rank = rank_of(view, node, 0)
    return "" if rank in (None, 4) else f"{rank} axes"


# Convolutions and pools


@form_of("Conv.spatial", "Conv", "ConvTranspose")
def _conv(view: View, node: NodeProto) -> str:
    axes = (rank_of(view, node, 1) or 0) - 2
    return f"{axes} spatial axes" if axes > 3 else ""


@form_of("DeformConv.spatial")
def _deformed_axes(view: View, node: NodeProto) -> str:
    axes = (rank_of(view, node, 1) or 0) - 2
    return f"{axes} spatial axes" if axes > 2 else ""


@form_of("DeformConv.pads")
def _deformed_pads(_: View, node: NodeProto) -> str:
    pads = attributes(node).get("pads", [])
    half = len(pads) // 2
    return "other pads at the end than at the beginning" if pads[:half] != pads[half:] else ""


@form_of("Pool.dilations", "AveragePool", "LpPool", "MaxPool")
def _dilations(_: View, node: NodeProto) -> str:
    return "dilations" if any(size != 1 for size in attributes(node).get("dilations", [])) else ""


@form_of("Pool.spatial", "AveragePool", "LpPool", "MaxPool")
def _pool_axes(_: View, node: NodeProto) -> str:
    axes = len(attributes(node).get("kernel_shape", [1, 1]))
    return f"{axes} spatial axes" if axes > 3 else "1 spatial axis" if axes == 1 and node.op_type == "LpPool" else ""


@form_of("Pool.line", "AveragePool", "MaxPool")
def _line(_: View, node: NodeProto) -> str:
    return "1 spatial axis" if len(attributes(node).get("kernel_shape", [1, 1])) == 1 else ""


@form_of("MaxPool.indices")
def _indices(_: View, node: NodeProto) -> str:
    return "Indices as output" if any(node.output[1:]) else ""


@form_of("LpNormalization.p", "LpNormalization", "LpPool")
def _norm_power(_: View, node: NodeProto) -> str:
    power = attributes(node).get("p", 2)
    return "" if power in (1, 2) else f"p={power}"


# Normalisation, attention, recurrence


@form_of("Norm.training", "BatchNormalization", "LayerNormalization")
def _training(_: View, node: NodeProto) -> str:
    return "training outputs" if attributes(node).get("training_mode") or any(node.output[1:]) else ""


@form_of("BatchNormalization.types")
def _norm_types(view: View, node: NodeProto) -> str:
    kinds = {view.type_of(node, k) for k in range(5)} - {""}
    return "parameters of another type than its data" if len(kinds) > 1 else ""


@form_of("Dropout.training")
def _dropout(view: View, node: NodeProto) -> str:
    training = view.array(operand(node, 2))
    if training is None:
        return "a training_mode that is no initializer" if operand(node, 2) else ""
    return "training_mode" if training.any() else ""


@form_of("Attention.one_tensor")
def _one_tensor(_: View, node: NodeProto) -> str:
    return "q, k and v in one tensor" if len(node.input) > 2 and len(set(node.input[:3])) == 1 else ""


@form_of("Attention.softcap")
def _softcap(_: View, node: NodeProto) -> str:
    return next((name for name in ("softcap", "qk_matmul_output_mode") if attributes(node).get(name)), "")


@form_of("Attention.outputs")
def _attention_outputs(_: View, node: NodeProto) -> str:
    return "more than one output" if any(node.output[1:]) else ""


@form_of("Attention.inputs")
def _attention_inputs(_: View, node: NodeProto) -> str:
    return "past keys and values, or their lengths" if any(node.input[4:]) else ""


@form_of("Attention.rank")
def _attentionrank_of(view: View, node: NodeProto) -> str:
    ranks = {rank_of(view, node, k) for k in range(3)} - {None, 4}
    return f"q, k or v of {ranks.pop()} axes" if ranks else ""


@form_of("Attention.mask")
def _attention_mask(view: View, node: NodeProto) -> str:
    rank = rank_of(view, node, 3) if operand(node, 3) else None
    return "" if rank in (None, 4) else f"a mask of {rank} axes"


@form_of("RotaryEmbedding.positions")
def _positions(view: View, node: NodeProto) -> str:
    kind = view.type_of(node, 3)
    return f"positions in {kind.upper()}" if kind not in ("", "int64") else ""


@form_of("LSTM.layout")
def _layout(_: View, node: NodeProto) -> str:
    return "layout=1" if attributes(node).get("layout") else ""


@form_of("LSTM.input_forget")
def _input_forget(_: View, node: NodeProto) -> str:
    return "input_forget" if attributes(node).get("input_forget") else ""


@form_of("RNN.activations", *RECURRENT)
def _activations(_: View, node: NodeProto) -> str:
    given = attributes(node)
    halves = [given.get(name, []) for name in ("activations", "activation_alpha", "activation_beta")]
    differ = any(values[: len(values) // 2] != values[len(values) // 2 :] for values in halves)
    both = text_of(node, "direction", "forward") == "bidirectional"
    return "other activations backwards than forwards" if both and differ else ""
