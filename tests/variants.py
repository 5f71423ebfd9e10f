"""The real variants, exported: each takes half a minute, so it is done once. Nothing here may be changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from graphs import Array, content
from onnx import ModelProto
from torch import nn

from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import sample_images
from hiresvit.evaluation.parity import ParityReport, compare
from hiresvit.export.contract import INPUT
from hiresvit.export.cpu import for_cpu
from hiresvit.export.deployed import Deployed
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.models.create import build_model, enliven, model_spec
from hiresvit.models.fold import fold
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ModelSpec, Task


@dataclass(frozen=True)
class Chain:
    """A fresh model as `hiresvit export` makes it, before it is folded, and its graphs by stage.

    ``half`` is the FP16 graph that INT8 is written into; the stage is its form for TensorRT.
    """

    spec: ModelSpec
    model: nn.Module
    graphs: dict[str, ModelProto]
    half: ModelProto


@cache
def chain(name: str, task: Task, imgsz: tuple[int, int]) -> Chain:
    """`make_chain`, once; for what is small."""
    return make_chain(name, task, imgsz)


def make_chain(name: str, task: Task, imgsz: tuple[int, int]) -> Chain:
    """Export a variant with fresh weights."""
    spec = model_spec(name, task, imgsz)
    model = build_model(spec)
    enliven(model, spec)
    graph = export_onnx(fold(model), spec)
    simple, report = simplify(graph)
    assert report.rolled_back is None
    half, _ = to_fp16(simple)
    graphs = {"onnx": graph, "simplified": simple, "cpu": for_cpu(simple), "fp16": for_tensorrt(half)}
    return Chain(spec, model, graphs, half)


def pictures(spec: ModelSpec, count: int) -> list[dict[str, Array]]:
    images = sample_images(count, spec.imgsz)
    return [{INPUT: preprocess(image, spec.preprocess, spec.imgsz)} for image in images]


def parity(of: Chain, graph: ModelProto, folder: Path, images: int = 2) -> ParityReport:
    """What `hiresvit export` measures of a graph against the unfolded model, with one thread each."""
    path = folder / "graph.onnx"
    path.write_bytes(content(graph))
    with OnnxRuntimeRunner(path, threads=1) as runner:
        deployed = Deployed(of.model, of.spec)
        with TorchRunner(deployed, runner.inputs, runner.outputs, threads=1) as reference:
            return compare(reference, runner, pictures(of.spec, images), of.spec.task)
