"""A HRViT of 190 thousand weights that has everything the variants have, and exports in seconds.

At 64x96 its branches run line by line (window 1), in stripes, and in stripes that are padded and masked, with one
head and with two; at 64x64 rows and columns share one attention. Nothing that is cached here may be changed.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from graphs import content
from onnx import ModelProto, helper, numpy_helper
from torch import nn

from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import DEFAULT_OPSET, export_onnx
from hiresvit.export.simplify import SimplifyReport, simplify
from hiresvit.models.create import enliven, model_spec
from hiresvit.models.fold import fold
from hiresvit.models.hrvit import HRViT, HRViTClassifier, HRViTConfig, HRViTSegmentor
from hiresvit.spec import ModelSpec, Task

CONFIG = HRViTConfig(
    channels=(16, 32, 48, 64),
    blocks=((0, 0, 0, 1), (1, 1, 1, 1)),
    ratios=(2, 2, 2, 2),
    head_dim=16,
    decoder=32,
)
CLASSES = 5

_exported: dict[Any, bytes] = {}
_simplified: dict[str, tuple[bytes, SimplifyReport]] = {}


def build_tiny(spec: ModelSpec) -> nn.Module:
    """What `hiresvit.models.hrvit.build` makes of a spec, with `CONFIG` instead of a variant's table."""
    if spec.task == "classify":
        return HRViTClassifier(CONFIG, spec.imgsz, spec.num_classes)
    if spec.task == "segment":
        return HRViTSegmentor(CONFIG, spec.imgsz, spec.num_classes)
    return HRViT(CONFIG, spec.imgsz)


def tiny_spec(task: Task = "segment", imgsz: tuple[int, int] = (64, 96)) -> ModelSpec:
    """It passes for a HRViT-b1."""
    return model_spec("hrvit_b1", task, imgsz, None if task == "features" else CLASSES)


def fresh_tiny(spec: ModelSpec) -> nn.Module:
    """With the weights that training starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_tiny(spec).eval()


@cache
def tiny_model(spec: ModelSpec) -> nn.Module:
    """Before it is folded, with weights that give every part of it a say; as `hiresvit export` makes them."""
    model = fresh_tiny(spec)
    enliven(model, spec)
    return model


def export_once(model: nn.Module, spec: ModelSpec, **options: Any) -> ModelProto:
    """`export_onnx`, but not twice for the same weights: the bytes would be the same (test_onnx.py)."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    key = (digest.hexdigest(), spec, *sorted(options.items()))
    if key not in _exported:
        _exported[key] = content(export_onnx(model, spec, **options))
    return onnx.load_from_string(_exported[key])


def simplify_once(model: ModelProto) -> tuple[ModelProto, SimplifyReport]:
    """`simplify`, but not twice for the same graph (test_simplify.py)."""
    key = hashlib.sha256(content(model)).hexdigest()
    if key not in _simplified:
        simple, report = simplify(model)
        _simplified[key] = content(simple), report
    data, report = _simplified[key]
    return onnx.load_from_string(data), report


@cache
def tiny_graph(
    spec: ModelSpec, opset: int = DEFAULT_OPSET, dynamic_batch: bool = False, resize: bool = True
) -> ModelProto:
    """As it is exported."""
    options = {"opset": opset, "dynamic_batch": dynamic_batch, "resize": resize}
    return export_once(fold(tiny_model(spec)), spec, **options)


@cache
def tiny_simplified(spec: ModelSpec, dynamic_batch: bool = False) -> ModelProto:
    """As it is simplified."""
    simple, report = simplify_once(tiny_graph(spec, dynamic_batch=dynamic_batch))
    assert report.rolled_back is None
    return simple


WIDTH = 16
LOUD = 60.0  # one channel behind `loud` is so much larger than the others that INT8 leaves these few steps


@cache
def seven_convolutions(classes: int = CLASSES) -> tuple[ModelProto, ModelProto]:
    """Six convolutions, FP32 and FP16: `quiet.0` to `quiet.2` lose little in INT8, and `deaf`, behind `loud`, much."""
    generator = np.random.default_rng(0)
    nodes, weights = [], []
    source, channels = "image", 3
    for name, size, wide in (
        ("stem", 3, WIDTH),
        ("quiet.0", 1, WIDTH),
        ("quiet.1", 1, WIDTH),
        ("quiet.2", 1, WIDTH),
        ("loud", 1, WIDTH),
        ("deaf", 1, WIDTH),
        ("head", 1, classes),
    ):
        weight = generator.normal(0, channels**-0.5 / size, (wide, channels, size, size)).astype(np.float32)
        if name == "loud":
            weight[0] *= LOUD
        if name == "deaf":
            weight[:, 0] /= LOUD
        weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        inputs, pads = [source, f"{name}.weight"], [size // 2] * 4
        source, channels = ("logits" if name == "head" else f"{name}.out"), wide
        nodes.append(helper.make_node("Conv", inputs, [source], f"{name}/Conv", pads=pads))
    border = (("image", 3), ("logits", classes))
    values = [helper.make_tensor_value_info(n, 1, [1, c, *tiny_spec().imgsz]) for n, c in border]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    simple = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return simple, to_fp16(simple)[0]
