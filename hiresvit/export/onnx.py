"""PyTorch -> ONNX: one graph, named by the modules it came from, the same bytes every time."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import nn

from hiresvit.errors import UsageError
from hiresvit.export.contract import BATCH, INPUT, output_names, stamp
from hiresvit.export.deployed import Deployed
from hiresvit.export.rewrites import lower_to_opset_17
from hiresvit.graph.precision import Lowest
from hiresvit.spec import ModelSpec
from hiresvit.version import __version__

OPSETS = range(17, 23)
_COMPILER_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
DEFAULT_OPSET = 20  # the first with Gelu as one node; every TensorRT from 10.3 on reads it


def check_opset(opset: int) -> None:
    """Raise UsageError unless the exporter writes this opset."""
    if opset not in OPSETS:
        why = "LayerNormalization is one node from 17 on" if opset < OPSETS.start else "not tested yet"
        raise UsageError(f"opset {opset}: {OPSETS.start} to {OPSETS.stop - 1} can be written ({why})")


def export_onnx(
    model: nn.Module, spec: ModelSpec, *, opset: int = DEFAULT_OPSET, dynamic_batch: bool = False, resize: bool = True
) -> onnx.ModelProto:
    """Export a (folded) model of ``spec`` at its static size, batch 1 or, if asked, a dynamic batch.

    Input ``image`` float32 (1, 3, H, W); outputs ``logits`` or ``features_4`` .. ``features_32``. Segmentation
    logits are resized bilinearly to (H, W) unless ``resize`` is off. Node names are the module's path and the
    operator, for example ``backbone.stem.conv1/Conv``. Raises UsageError for an opset that cannot be written.
    """
    check_opset(opset)
    deployed = Deployed(model, spec, resize=resize).eval()
    parameter = next(model.parameters(), torch.zeros(()))
    # A traced batch of 2: torch.export treats 1 as a constant.
    example = torch.zeros(2 if dynamic_batch else 1, 3, *spec.imgsz, dtype=parameter.dtype)
    with _quiet():
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            opset_version=max(opset, 18),  # the exporter's own floor
            input_names=[INPUT],
            output_names=output_names(spec),
            dynamic_shapes=({0: torch.export.Dim(BATCH)},) if dynamic_batch else None,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    if opset == 17:
        lower_to_opset_17(graph)
    _tidy(graph)
    stamp(graph, spec, "fp32", lowest=_lowest_precisions(model))
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _lowest_precisions(model: nn.Module) -> Lowest:
    """By module path, what `hiresvit.graph.precision` is about."""
    named = ((path, getattr(module, "lowest_precision", None)) for path, module in model.named_modules())
    return {path: lowest for path, lowest in named if lowest is not None}


def _tidy(model: onnx.ModelProto) -> None:
    """Name nodes by module, and drop what differs between machines: stack traces, file paths, versions."""
    graph = model.graph
    used: Counter[str] = Counter()
    made_by: dict[str, str] = {}
    for node in graph.node:
        module = _module_path(node)
        if module is None:  # put in by the exporter's own passes: it belongs where its input comes from
            module = made_by.get(node.input[0] if node.input else "", "model")
        made_by.update((output, module) for output in node.output)
        name = f"{module}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del graph.metadata_props[:]
    del model.metadata_props[:]
    graph.name, graph.doc_string, model.doc_string = "hiresvit", "", ""
    model.producer_name, model.producer_version = "hiresvit", __version__


def _module_path(node: onnx.NodeProto) -> str | None:
    """``model.backbone.stem.conv1`` of the exporter's scopes, without the wrapper's ``model.``."""
    for entry in node.metadata_props:
        if entry.key == "namespace":
            # ": Deployed/model: HRViT/model.stem: Stem/model.stem.conv1: Conv2d/conv2d: aten.conv2d.default"
            scopes = [scope.split(": ")[0] for scope in entry.value.split("/")]
            modules = [scope for scope in scopes[:-1] if scope.startswith("model")]
            return modules[-1].removeprefix("model").lstrip(".") or "model" if modules else "output"
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about torchvision, its own deprecations and opset 18; none of it is the user's concern.

    Nor is the folder of PyTorch's compiler, which nothing here uses and an import makes: it is told one that is there.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    folder = os.environ.get(_COMPILER_FOLDER)
    os.environ[_COMPILER_FOLDER] = folder or tempfile.gettempdir()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if folder is None:
            del os.environ[_COMPILER_FOLDER]
