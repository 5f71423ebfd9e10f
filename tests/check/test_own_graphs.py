"""The rules against graphs of our own: no alarm about what is whole, and each damage to one is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from every import firsts, small_size
from findings import find_problems, problems_on, rules_at
from graphs import content, copied, indexed
from onnx import ModelProto, NodeProto, helper, numpy_helper
from tiny import tiny_simplified, tiny_spec
from variants import chain

from hiresvit.calibration.htp_plan import Bits
from hiresvit.calibration.htp_qdq import htp_tensors, quantize_htp
from hiresvit.calibration.qdq import quantize
from hiresvit.calibration.sites import find_sites
from hiresvit.device.chips import find_chip
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.htp import for_htp
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.models.zoo import MODELS
from hiresvit.spec import HtpForm


@cache
def own_graphs() -> dict[str, bytes]:
    simple = tiny_simplified(tiny_spec())
    half = to_fp16(simple)[0]
    sites = find_sites(indexed(simple))
    # The ranges do not matter here: any scale above 0 is legal.
    int8, _ = quantize(half, sites, {site.tensor: 4.0 for site in sites})
    return {"fp32": content(simple), "fp16": content(for_tensorrt(half)), "int8": content(for_tensorrt(int8))}


def no_false_alarm(model: ModelProto) -> None:
    for target, found in problems_on(model).items():
        assert [finding for finding in found if finding.level != "advice"] == [], target


class TestOurOwnGraphs:
    @pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
    def test_no_false_alarm(self, kind: str) -> None:
        no_false_alarm(onnx.load_from_string(own_graphs()[kind]))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", list(firsts().values()))
    def test_no_false_alarm_in_any_family(self, name: str) -> None:
        for task in MODELS[name].imgsz:
            made = chain(name, task, small_size(name))
            graphs = made.graphs
            sites = find_sites(indexed(graphs["simplified"]))
            int8, _ = quantize(made.half, sites, {site.tensor: 4.0 for site in sites})
            for model in (graphs["simplified"], graphs["fp16"], for_tensorrt(int8)):
                no_false_alarm(model)


class TestOurOwnGraphsForChips:
    @pytest.mark.parametrize(
        ("form", "chip"), [("fp16", "sm8650"), ("a16w8", "ar1"), ("a16w8", "xr2-gen2"), ("a8w8", "ar1")]
    )
    def test_no_false_alarm(self, form: HtpForm, chip: str) -> None:
        model, _ = for_htp(onnx.load_from_string(own_graphs()["fp32"]), form, find_chip(chip))
        if form != "fp16":
            ranges = dict.fromkeys(htp_tensors(model), (-4.0, 4.0))
            model, _ = quantize_htp(model, ranges, Bits(16 if form == "a16w8" else 8), find_chip(chip))
        alarms = {finding.rule for finding in find_problems(model, chip)}
        # Chips before V73 take no other second operand of 16 bits, so that the writer means it.
        assert alarms <= ({"narrow_product"} if chip == "xr2-gen2" else set())

    def test_each_is_none_for_the_other(self) -> None:
        """Of our own INT8 graph for TensorRT, and of one for a chip."""
        simple = onnx.load_from_string(own_graphs()["fp32"])
        model, _ = for_htp(simple, "a16w8", find_chip("ar1"))
        model, _ = quantize_htp(model, dict.fromkeys(htp_tensors(model), (-4.0, 4.0)), Bits(16), find_chip("ar1"))
        assert {"asymmetric", "quantized"} & rules_at("illegal", find_problems(model, "jetpack6"))
        assert "floating_point" in rules_at(
            "illegal", find_problems(onnx.load_from_string(own_graphs()["int8"]), "ar1")
        )


Damage = Callable[[ModelProto], object]


def first(model: ModelProto, op: str, inputs: int = 1) -> NodeProto:
    node: NodeProto = next(n for n in model.graph.node if n.op_type == op and len(n.input) >= inputs)
    return node


def replaced(model: ModelProto, name: str, value: Any) -> str:
    """The name of a new constant; ``value`` may be a function of the old one's values."""
    old = next(t for t in model.graph.initializer if t.name == name)
    new = value(numpy_helper.to_array(old)) if callable(value) else value
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(new), f"{name}.damaged"))
    return f"{name}.damaged"


def swap_input(op: str, index: int, value: Any) -> Damage:
    def damage(model: ModelProto) -> None:
        node = first(model, op, index + 1)
        node.input[index] = replaced(model, node.input[index], value)

    return damage


def pair_zero_point(dtype: type, value: int) -> Damage:
    def damage(model: ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), "damaged"))
        quantizer = first(model, "QuantizeLinear", 3)
        for node in model.graph.node:
            if node is quantizer or (node.op_type == "DequantizeLinear" and quantizer.output[0] in node.input):
                node.input[2] = "damaged"

    return damage


def integer_bias(model: ModelProto) -> None:
    conv = first(model, "Conv", 3)
    width = next(t.dims[0] for t in model.graph.initializer if t.name == conv.input[2])
    for name, value in (("db", np.ones(width, np.int32)), ("ds", np.ones(width, np.float16))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["db", "ds"], ["dd"], axis=0))
    conv.input[2] = "dd"


def attribute(op: str, name: str, value: Any) -> Damage:
    def damage(model: ModelProto) -> None:
        node = first(model, op)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return damage


def weight_axis(model: ModelProto) -> None:
    shapes = {t.name: t.dims for t in model.graph.initializer}
    square = next(
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and list(shapes.get(node.input[0], ()))[:2] in ([16, 16], [32, 32])
    )
    axis = next(a for a in square.attribute if a.name == "axis")
    axis.i = 1 - axis.i


def rename(op: str, **fields: str) -> Damage:
    def damage(model: ModelProto) -> None:
        for name, value in fields.items():
            setattr(first(model, op), name, value)

    return damage


def dynamic_height(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"


DAMAGES: list[tuple[str, str, Damage]] = [
    ("zero point", "asymmetric", pair_zero_point(np.int8, 3)),
    ("uint8", "unsigned", pair_zero_point(np.uint8, 0)),
    ("negative scale", "scale_sign", swap_input("QuantizeLinear", 1, lambda old: -old)),
    ("infinite scale", "scale_infinite", swap_input("QuantizeLinear", 1, np.float16(np.inf))),
    ("scale in FP32", "scale_type", swap_input("QuantizeLinear", 1, lambda old: old.astype(np.float32))),
    ("int32 bias", "bias", integer_bias),
    ("axis of a weight", "weight_axis", weight_axis),
    ("bias in FP32", "mixed_types", swap_input("Conv", 2, lambda old: old.astype(np.float32))),
    (
        "norm in FP16 and FP32",
        "mixed_types",
        swap_input("LayerNormalization", 1, lambda old: old.astype(np.float16)),
    ),
    ("opset", "opset", lambda model: setattr(model.opset_import[0], "version", 26)),
    ("unknown operator", "operator", rename("Gelu", op_type="FastGelu")),
    ("foreign operator", "domain", rename("Gelu", domain="com.microsoft")),
    ("antialias", "form", attribute("Resize", "antialias", 1)),
    ("dynamic", "dynamic", dynamic_height),
    ("no outputs", "outputs", lambda model: model.graph.ClearField("output")),
]


@pytest.mark.parametrize(("name", "rule", "damage"), DAMAGES, ids=[name.replace(" ", "-") for name, _, _ in DAMAGES])
def test_damage_to_a_real_graph_is_found(name: str, rule: str, damage: Damage) -> None:
    model = onnx.load_from_string(own_graphs()["int8"])
    whole = copied(model)
    damage(model)
    assert content(model) != content(whole)
    # jetpack6 tolerates nothing that RTX does
    assert rule in rules_at("illegal", find_problems(model, "jetpack6"))
