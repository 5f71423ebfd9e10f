"""Modules of the PyTorch models of every family against their graphs: what is matched is one tensor."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from variants import chain

from hiresvit.spec import Task
from hiresvit.workflows.compare_layers import compare_sources_by_layer
from hiresvit.workflows.open import open_source

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "task", "imgsz", "stage"),
    [
        ("hrvit_b1", "segment", (64, 96), "onnx"),
        ("lrformer_t", "segment", (64, 96), "simplified"),
        ("mixformer_b1", "classify", (224, 224), "simplified"),
        ("hiri_vit_s", "classify", (256, 256), "simplified"),
    ],
)
def test_every_matched_module_is_the_same(
    name: str, task: Task, imgsz: tuple[int, int], stage: str, tmp_path: Path
) -> None:
    """Two tensors that only stand at the same place are 20 dB apart or less."""
    onnx.save(chain(name, task, imgsz).graphs[stage], tmp_path / "graph.onnx")
    model = open_source(name, threads=1, task=task, imgsz=imgsz)
    found, _ = compare_sources_by_layer(model, open_source(str(tmp_path / "graph.onnx"), threads=1), [], drawn=1)
    rows, only = found["modules"], found["unmatched"]
    assert min(row["sqnr_db"] for row in rows if row["sqnr_db"] is not None) > 80, found["first"]
    assert len(only["reference"]) < 0.2 * len(rows), only["reference"]
