"""From a module's ``lowest_precision`` to the types of its nodes: the exporter, the simplifier and FP16 together."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from graphs import copied, indexed
from onnx import ModelProto
from torch import Tensor, nn

from hiresvit.calibration.htp_plan import Bits, Layout, Width
from hiresvit.calibration.sites import find_sites
from hiresvit.export.cpu import for_cpu
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.graph.index import module_of
from hiresvit.graph.precision import LOWEST_KEY
from hiresvit.models.create import model_spec, perturb_zeros
from hiresvit.models.deformable import CHANNELS, DeformableAttention, GroupNorm, MaskFeature
from hiresvit.models.mask2former import ClassEmbed, KeyMasks, MaskEmbed, QuerySum
from hiresvit.spec import ModelSpec

SIDE = 8


class Net(nn.Module):
    """The parts of Mask2Former's head that say something of precision, and two that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 4, stride=4)
        self.gn = GroupNorm()
        self.mask_feature = MaskFeature()
        self.mask_embed = MaskEmbed()
        self.key_masks = KeyMasks([(SIDE, SIDE)])
        self.key_masks.folded = True
        self.attention = DeformableAttention([(SIDE, SIDE)])
        perturb_zeros(self.attention)
        self.attention.fold_points_(torch.randn(SIDE**2, CHANNELS))
        self.cls_embed = ClassEmbed(CHANNELS, CHANNELS)
        self.total = QuerySum()
        with torch.no_grad():
            self.gn.weight.add_(0.2 * torch.randn(CHANNELS))
            self.gn.bias.add_(0.2 * torch.randn(CHANNELS))

    def forward(self, image: Tensor) -> Tensor:
        features = self.gn(self.stem(image))
        rows = features.flatten(2)[:, :, : SIDE**2].transpose(1, 2).reshape(-1, CHANNELS)
        rows = self.cls_embed(rows + self.attention(rows, None))
        embedded = self.mask_embed(rows).reshape(-1, 1, SIDE**2, CHANNELS)
        hidden = self.key_masks(embedded, self.mask_feature(features), 0)
        shares = torch.where(hidden, -1e4, embedded @ embedded.transpose(2, 3)).softmax(dim=3)[:, 0]
        out: Tensor = self.total(shares, shares)
        return out.reshape(-1, SIDE**2, SIDE, SIDE)


@cache
def simplified() -> ModelProto:
    torch.manual_seed(0)
    spec = ModelSpec(
        "net", "net", "features", (4 * SIDE, 4 * SIDE), 0, model_spec("lrformer_t").preprocess, strides=(4,)
    )
    simple, report = simplify(export_onnx(Net().eval(), spec))
    assert report.rolled_back is None
    return simple


def in_fp32(model: ModelProto) -> dict[str, set[str]]:
    """The operators of each module that have a float result, all of them in FP32."""
    index = indexed(model)
    found: dict[str, set[str]] = {}
    halves: set[str] = set()
    for node in index.nodes:
        kinds = {index.types[name] for name in (*node.input, *node.output) if index.types.get(name, "") in FLOATS}
        if node.op_type != "Cast" and kinds:
            (found.setdefault(module_of(node.name), set()) if kinds == {"float"} else halves).add(node.op_type)
    return found


FLOATS = {"float", "float16"}
ISLANDS = {
    "gn": {"Reshape", "InstanceNormalization", "Mul", "Add"},
    "key_masks": {"MatMul", "Less", "ReduceMax", "GreaterOrEqual"},
    "total": {"MatMul"},
}


def test_nodes_of_the_modules_that_ask_for_it_stay_fp32() -> None:
    found = in_fp32(to_fp16(simplified())[0])
    assert {module: found[module] - {"Transpose"} for module in ISLANDS} == ISLANDS


def test_it_is_the_metadata_that_pins_them() -> None:
    bare = copied(simplified())
    [said] = [prop for prop in bare.metadata_props if prop.key == LOWEST_KEY]
    bare.metadata_props.remove(said)
    assert ISLANDS.keys().isdisjoint(in_fp32(to_fp16(bare)[0]))


def test_it_is_in_every_form_of_the_graph() -> None:
    said = {form: indexed(graph).metadata[LOWEST_KEY] for form, graph in forms().items()}
    assert len(set(said.values())) == 1
    assert all(name in said["simplified"] for name in (*ISLANDS, "mask_embed", "mask_feature"))


def forms() -> dict[str, ModelProto]:
    return {"simplified": simplified(), "cpu": for_cpu(simplified()), "fp16": to_fp16(simplified())[0]}


def test_points_masks_and_classes_get_no_integers() -> None:
    excluded = {site.module: site.excluded for site in find_sites(indexed(simplified()))}
    assert {module for module, rule in excluded.items() if rule == "precise"} == {
        *("attention.points.project", "cls_embed", "mask_feature"),
        *(f"mask_embed.{layer}" for layer in (0, 2, 4)),
    }
    assert {module for module, rule in excluded.items() if rule is None} == {
        *("attention.value_proj", "attention.output_proj"),
    }


@pytest.mark.parametrize("default", [8, 16])
def test_on_a_chip_of_integers_it_has_sixteen_bits(default: Width) -> None:
    layout = Layout(indexed(simplified()))
    widths = {module_of(node.name): layout.width(node, Bits(default)) for node in layout.index.nodes}
    precise = ("gn", "mask_feature", "mask_embed.0", "total", "attention.points.project", "cls_embed")
    assert {widths[module] for module in precise} == {16}
    assert widths["stem"] == widths["attention.value_proj"] == default
