"""What the deployed HRViTs may cost, and that each of them survives the whole path.

``tests/golden/budgets.json`` has what HRViT-b1 for segmentation at 512x512 took when it was last looked at; run as a
program, this file writes it anew. More than 2 % above it needs a look, and then a new file.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import constants_of, content
from onnx import ModelProto
from variants import chain, parity

from hiresvit.evaluation.parity import GATES, check_gate
from hiresvit.export.engine import INSTALL_HINT, EngineReport, build_engine, count_attentions, rtx_available
from hiresvit.export.onnx import export_onnx
from hiresvit.models.fold import fold
from hiresvit.models.hrvit_block import Attention
from hiresvit.spec import Task

FILE = Path(__file__).parents[1] / "golden" / "budgets.json"
SIZE = (512, 512)
MOST_NODES, MOST_KERNELS = (
    1800,
    600,
)  # docs: the authors' simplified export has 4257 nodes and takes 927 kernels
SLACK = 1.02

# Arithmetic on shapes, what comes of it, and what does nothing.
FORBIDDEN = {
    *("Shape", "Size", "Range", "Where", "ScatterND", "Gather", "GatherElements", "GatherND", "NonZero"),
    *("ConstantOfShape", "Expand", "Tile", "Identity", "Constant", "If", "Loop", "Dropout"),
    *("BatchNormalization", "Unsqueeze", "Squeeze", "Mul", "Div", "Sqrt", "Pow", "Erf"),
}
needs_rtx = pytest.mark.skipif(not rtx_available(), reason=f"TensorRT-RTX is not installed: {INSTALL_HINT}")


def recorded(what: str) -> int:
    return int(json.loads(FILE.read_text())[what])


def simplified() -> ModelProto:
    return chain("hrvit_b1", "segment", SIZE).graphs["simplified"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EngineReport:
    return build(tmp_path_factory.mktemp("engine"))


def build(folder: Path) -> EngineReport:
    graph = folder / "fp16.onnx"
    graph.write_bytes(content(chain("hrvit_b1", "segment", SIZE).graphs["fp16"]))
    return build_engine(graph, folder / "fp16.plan")


def test_nodes() -> None:
    count = len(simplified().graph.node)
    assert count <= MOST_NODES
    assert count <= SLACK * recorded("nodes")


def test_bytes() -> None:
    """A constant that is there twice, or one that was folded into something large."""
    assert len(content(simplified())) <= SLACK * recorded("bytes")


def test_no_shape_arithmetic() -> None:
    graph = simplified().graph
    assert not Counter(node.op_type for node in graph.node).keys() & FORBIDDEN
    constants = constants_of(simplified())
    for node in graph.node:
        if node.op_type in {"Reshape", "Pad", "Slice", "Resize", "Split"}:
            assert all(name in constants for name in node.input[1:] if name), node.name
    assert all(d.HasField("dim_value") for v in graph.value_info for d in v.type.tensor_type.shape.dim)


def test_pads_are_those_of_the_stripes() -> None:
    """Two for each attention whose map is no multiple of its window, of zeros, along one axis."""
    model = chain("hrvit_b1", "segment", SIZE).model
    padded = [m for m in model.modules() if isinstance(m, Attention) and m.rows.padding]
    assert padded
    constants = constants_of(simplified())
    pads = [node for node in simplified().graph.node if node.op_type == "Pad"]
    assert len(pads) == 2 * len(padded)
    for pad in pads:
        assert ".attn/" in pad.name
        assert not [a for a in pad.attribute if a.name == "mode" and a.s != b"constant"]
        assert not any(np.any(constants[name]) for name in pad.input[2:] if name)
        assert np.count_nonzero(constants[pad.input[1]]) == 1


def test_attentions_are_all_there() -> None:
    """One for each attention module, two where rows and columns are not done at once."""
    model = chain("hrvit_b1", "segment", SIZE).model
    attentions = [m for m in model.modules() if isinstance(m, Attention)]
    wanted = sum(2 if m.lines or m.columns is not None else 1 for m in attentions)
    assert count_attentions(simplified()) == wanted == recorded("attentions")


@needs_rtx
def test_every_attention_is_fused(engine: EngineReport) -> None:
    assert engine.attentions_fused == engine.attentions_total == recorded("attentions")


@needs_rtx
def test_kernels(engine: EngineReport) -> None:
    assert engine.kernel_total <= MOST_KERNELS
    assert engine.kernel_total <= SLACK * recorded("kernels")


@needs_rtx
def test_every_product_is_in_fp16(engine: EngineReport) -> None:
    assert list(engine.precision) == ["fp16"]
    assert engine.precision["fp16"] > engine.attentions_total
    assert engine.warnings == ()


@needs_rtx
def test_activation_memory(engine: EngineReport) -> None:
    assert engine.activation_bytes <= SLACK * recorded("activation_bytes")


def test_the_real_model_exports_to_the_same_bytes_again() -> None:
    first = chain("hrvit_b1", "segment", SIZE)
    assert content(export_onnx(fold(first.model), first.spec)) == content(first.graphs["onnx"])


slow = pytest.mark.slow
EVERY: list[Any] = [
    ("hrvit_b1", "segment", (64, 96)),
    pytest.param("hrvit_b1", "classify", (64, 96), marks=slow),
    pytest.param("hrvit_b1", "features", (64, 96), marks=slow),
    pytest.param("hrvit_b2", "segment", (64, 64), marks=slow),
    pytest.param("hrvit_b2", "classify", (64, 64), marks=slow),
    pytest.param("hrvit_b2", "features", (64, 96), marks=slow),
    pytest.param("hrvit_b3", "segment", (64, 64), marks=slow),
    pytest.param("hrvit_b3", "classify", (64, 96), marks=slow),
    pytest.param("hrvit_b3", "features", (64, 64), marks=slow),
]


@pytest.mark.parametrize(("name", "task", "imgsz"), EVERY)
def test_every_variant_passes_every_gate(
    name: str, task: Task, imgsz: tuple[int, int], tmp_path: Path
) -> None:
    exported = chain(name, task, imgsz)
    for stage, graph in exported.graphs.items():
        onnx.checker.check_model(graph, full_check=True)
        report = parity(exported, graph, tmp_path)
        assert check_gate(report, GATES[stage], stage) == []
        assert all(output.worst.max_abs > 0 for output in report.outputs), "compared with itself?"


def main() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        engine = build(Path(folder))
    budgets = {
        "made_by": "python tests/export/test_budgets.py: HRViT-b1, segment, 512x512, fresh weights",
        "tensorrt_rtx": engine.version,
        "nodes": len(simplified().graph.node),
        "bytes": len(content(simplified())),
        "attentions": engine.attentions_fused,
        "kernels": engine.kernel_total,
        "activation_bytes": engine.activation_bytes,
    }
    FILE.write_text(json.dumps(budgets, indent=2) + "\n")


if __name__ == "__main__":
    main()
