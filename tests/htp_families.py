"""A network of each family with a block of every kind, small enough for Qualcomm's emulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from onnx import ModelProto
from tiny import fresh_tiny, tiny_spec
from torch import nn

from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.models import hiri_vit, lrformer, mixformer
from hiresvit.models.create import enliven, model_spec
from hiresvit.models.fold import fold
from hiresvit.spec import ModelSpec


def graph_of(model: nn.Module, spec: ModelSpec) -> ModelProto:
    enliven(model, spec)
    simple, report = simplify(export_onnx(fold(model), spec))
    assert report.rolled_back is None
    return simple


def shallow(family: Any, classifier: type[nn.Module], name: str, size: tuple[int, int], **depths: Any) -> Any:
    """A block of each kind that the variant has."""
    spec = model_spec(name, "classify", size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return classifier(replace(family.VARIANTS[name], **depths), size, spec.num_classes).eval(), spec


FAMILIES: dict[str, Callable[[], Any]] = {
    "hrvit": lambda: (fresh_tiny(tiny_spec("classify")), tiny_spec("classify")),
    "lrformer": lambda: shallow(
        lrformer, lrformer.LRFormerClassifier, "lrformer_t", (64, 96), depths=(1, 1, 1, 1), pooled_size=5
    ),
    "mixformer": lambda: shallow(
        mixformer, mixformer.MixFormerClassifier, "mixformer_b0", (64, 96), depths=(1, 1, 1, 1)
    ),
    "hiri_vit": lambda: shallow(hiri_vit, hiri_vit.HiriViTClassifier, "hiri_vit_s", (64, 128), blocks=(1, 1, 1, 1, 1)),
}


@cache
def family(name: str) -> tuple[ModelProto, ModelSpec]:
    """The simplified graph of a row of `FAMILIES`, once, and its spec. Nothing of it may be changed."""
    model, spec = FAMILIES[name]()
    return graph_of(model, spec), spec
