"""Bundles of networks of a few nodes, one for each contract, written as `hiresvit export` writes them.

The labels of a picture are which of its colours is the strongest, and the confidence is that colour; of NV12 the labels
come from the luma and the confidence from the chroma. So every byte that goes in shows in what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tensor_bundles import IMGSZ, write_graph

from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec, Task, TensorSpec

DTYPES = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "int64": TensorProto.INT64}
Node = tuple[str, list[str], str, dict[str, Any]]


def _strongest(contract: ContractSpec) -> list[Node]:
    """Of packed pixels."""
    last = 3 if contract.pixels in ("rgba", "bgra") else None
    cut: list[Node] = [("Slice", ["image", "zero", "three", "three"], "colours", {})] if last else []
    colours = "colours" if last else "image"
    return [
        *cut,
        ("Cast", [colours], "wide", {"to": TensorProto.FLOAT}),
        ("ArgMax", ["wide"], "best", {"axis": 3, "keepdims": 0}),
        ("Cast", ["best"], "labels", {"to": DTYPES[contract.label_type or "uint8"]}),
        ("ReduceMax", ["wide", "three"], "most", {"keepdims": 0}),
        ("Cast", ["most"], "confidence", {"to": TensorProto.UINT8}),
    ]


def _planes(contract: ContractSpec) -> list[Node]:
    """Of NV12: a label is a quarter of the luma's range, the confidence is Cb of the pixel's block."""
    return [
        ("Cast", ["y"], "luma", {"to": TensorProto.FLOAT}),
        ("Mul", ["luma", "quarter"], "scaled", {}),
        ("Floor", ["scaled"], "floored", {}),
        ("Cast", ["floored"], "labels", {"to": DTYPES[contract.label_type or "uint8"]}),
        ("Cast", ["uv"], "chroma", {"to": TensorProto.FLOAT}),
        ("ReduceMin", ["chroma", "three"], "least", {"keepdims": 0}),
        ("Unsqueeze", ["least", "one"], "map", {}),
        (
            "Resize",
            ["map", "", "double"],
            "enlarged",
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
        ),
        ("Squeeze", ["enlarged", "one"], "flat", {}),
        ("Cast", ["flat"], "confidence", {"to": TensorProto.UINT8}),
    ]


def _classes(contract: ContractSpec) -> list[Node]:
    """The strongest colours of the whole picture."""
    return [
        ("Cast", ["image"], "wide", {"to": TensorProto.FLOAT}),
        ("ReduceMean", ["wide", "sides"], "means", {"keepdims": 0}),
        ("Softmax", ["means"], "shares", {"axis": 1}),
        ("TopK", ["shares", "two"], "probabilities,found", {}),
        ("Cast", ["found"], "classes", {"to": DTYPES[contract.label_type or "int32"]}),
    ]


def _graph(task: Task, contract: ContractSpec, size: tuple[int, int]) -> tuple[onnx.ModelProto, list[TensorSpec]]:
    height, width = size
    depth = len(contract.pixels) if contract.pixels != "nv12" else 0
    shapes: dict[str, tuple[int, ...]] = {"image": (1, height, width, depth)}
    if contract.pixels == "nv12":
        shapes = {"y": (1, height, width), "uv": (1, height // 2, width // 2, 2)}
    outputs: Sequence[tuple[str, str]]
    if task == "classify":
        nodes, outputs = _classes(contract), [("classes", contract.label_type or "int32"), ("probabilities", "float32")]
    else:
        nodes = _planes(contract) if contract.pixels == "nv12" else _strongest(contract)
        outputs = [("labels", contract.label_type or "uint8"), ("confidence", "uint8")][: 1 + contract.confidence]
    shape = (1, contract.top_k or 0) if task == "classify" else (1, height, width)
    constants: dict[str, NDArray[Any]] = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "three": np.array([3]),
        "sides": np.array([1, 2]),
        "double": np.array([1, 1, 2, 2], np.float32),
        "quarter": np.array(1 / 64, np.float32),
    }
    kind = {"float32": TensorProto.FLOAT, **DTYPES}
    graph = helper.make_graph(
        [helper.make_node(op, ins, out.split(","), **more) for op, ins, out, more in nodes],
        "picture",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, kind[dtype], shape) for name, dtype in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    specs = [TensorSpec(name, "uint8", shape) for name, shape in shapes.items()]
    return model, specs + [TensorSpec(name, dtype, shape) for name, dtype in outputs]


def write_bundle(
    folder: Path, contract: ContractSpec, task: Task = "segment", preprocess: PreprocessSpec | None = None
) -> ModelSpec:
    """Write a whole bundle with one graph, and return its spec."""
    model, tensors = _graph(task, contract, contract.size or IMGSZ)
    spec = ModelSpec("strongest", "none", task, IMGSZ, 4, preprocess or PreprocessSpec())
    write_graph(folder, spec, model, tensors, contract)
    return spec
