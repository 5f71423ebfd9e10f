"""Bundles of graphs of a few nodes with the contract tensor, written as `hiresvit export` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from hiresvit.bundle.golden import write_golden
from hiresvit.bundle.manifest import Manifest, Weights, list_files, write_manifest
from hiresvit.export.contract import TENSOR
from hiresvit.spec import AnchorSpec, ContractSpec, ModelSpec, PreprocessSpec, Task, TensorSpec

IMGSZ = (32, 48)


def write_graph(
    folder: Path,
    spec: ModelSpec,
    model: onnx.ModelProto,
    tensors: Sequence[TensorSpec],
    contract: ContractSpec = TENSOR,
) -> None:
    """Write a whole bundle of a graph: what it answers to noise is the golden pair."""
    taken = len(model.graph.input)
    inputs, outputs = tensors[:taken], tensors[taken:]
    folder.mkdir()
    onnx.save(model, folder / "fp32.onnx")
    session = onnxruntime.InferenceSession(folder / "fp32.onnx", providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {t.name: random.integers(0, 256, t.shape).astype(t.dtype) for t in inputs}  # type: ignore[arg-type]
    names = [t.name for t in outputs]
    write_golden(folder / "golden.npz", feeds, dict(zip(names, session.run(names, feeds), strict=True)))
    weights = Weights("fresh, seed 0")
    files, tools = tuple(list_files(folder, weights)), {"hiresvit": "0"}
    write_manifest(folder, Manifest(spec, tuple(inputs), tuple(outputs), weights, files, tools, [], contract))


def write_tensor(
    folder: Path,
    spec: ModelSpec,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    outputs: Sequence[TensorSpec],
) -> None:
    """`write_graph` of nodes that read the contract tensor's ``image``."""
    inputs = [TensorSpec("image", "float32", (1, 3, *spec.imgsz))]
    sides = [[helper.make_tensor_value_info(t.name, 1, t.shape) for t in side] for side in (inputs, outputs)]
    values = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tensors", *sides, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    write_graph(folder, spec, model, [*inputs, *outputs])


def write_raw(folder: Path, task: Task) -> None:
    """Write the bundle of outputs that an app reads itself: feature maps, or the masks of queries."""
    spec = ModelSpec("raw", "none", task, IMGSZ, 2, PreprocessSpec())
    outputs = [TensorSpec("features_4" if task == "features" else "masks", "float32", (1, 3, *IMGSZ))]
    nodes = [helper.make_node("Relu", ["image"], [outputs[0].name])]
    if task == "masks":
        outputs.insert(0, TensorSpec("classes", "float32", (1, 3, 1, 1)))
        nodes.append(helper.make_node("GlobalAveragePool", ["image"], ["classes"]))
    write_tensor(folder, spec, nodes, {}, outputs)


ANCHORS = AnchorSpec((8, 16), (1.0, 1.5), (0.5, 1.0, 2.0), max_boxes=20)


def write_detector(folder: Path, preprocess: PreprocessSpec | None = None) -> ModelSpec:
    """Write the bundle of a detector of three classes, whose boxes and scores are of the colours of a cell."""
    spec = ModelSpec("coloured", "none", "detect", IMGSZ, 3, preprocess or PreprocessSpec(), anchors=ANCHORS)
    random = np.random.default_rng(0)
    nodes, outputs, constants = [], [], dict[str, NDArray[Any]]()
    for stride in ANCHORS.strides:
        pool = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        nodes.append(helper.make_node("AveragePool", ["image"], [f"cells_{stride}"], **pool))
        for kind, depth, wide in (("logits", spec.num_classes, 3), ("deltas", 4, 0.5)):
            name, channels = f"{kind}_{stride}", ANCHORS.per_cell * depth
            constants[f"{name}_weights"] = random.normal(0, wide, (channels, 3, 1, 1))
            nodes.append(helper.make_node("Conv", [f"cells_{stride}", f"{name}_weights"], [name]))
            outputs.append(TensorSpec(name, "float32", (1, channels, *(side // stride for side in IMGSZ))))
    write_tensor(folder, spec, nodes, constants, outputs)
    return spec
