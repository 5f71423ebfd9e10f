"""`hiresvit plan-sizes --device`: the least time of each size's FP16 plan, which is built here without the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiresvit.device.boards import Board
from hiresvit.device.plan import read_sidecar
from hiresvit.device.tensorrt_api import find_backend
from hiresvit.engine.build import BuildSettings, build_engine
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.files import scratch_folder
from hiresvit.models.create import build_model, enliven
from hiresvit.models.fold import fold
from hiresvit.progress import OnStep, silent
from hiresvit.spec import ModelSpec
from hiresvit.workflows.plan_traffic import describe_plan

_SETTINGS = BuildSettings(backend="tensorrt_rtx")  # the one that needs no GPU


def bound_rows(
    spec: ModelSpec, rows: Sequence[dict[str, Any]], board: Board, on_step: OnStep = silent
) -> list[dict[str, Any]]:
    """Rows of `hiresvit.workflows.plan_sizes` with what their plans move, the least time a pixel first.

    Added are ``moved_bytes``, ``bound_ms`` (`hiresvit.engine.roofline`) and ``bound_ns_per_pixel``. The weights are
    fresh ones. Raises MissingDependency without TensorRT-RTX.
    """
    find_backend(_SETTINGS.backend)  # before minutes of work
    found = []
    for number, row in enumerate(rows):
        height, width = row["imgsz"]
        on_step(f"sizes: {height}x{width} compiled", number / len(rows))
        found.append({**row, **_bound(replace(spec, imgsz=(height, width)), board)})
    return sorted(found, key=lambda row: row["bound_ns_per_pixel"])


def _bound(spec: ModelSpec, board: Board) -> dict[str, Any]:
    model = build_model(spec)
    enliven(model, spec)  # a norm that shifts by nothing would be fewer nodes
    half, _ = to_fp16(simplify(export_onnx(fold(model), spec))[0])
    with scratch_folder() as folder:
        graph = Path(folder, "graph.onnx")
        graph.write_bytes(for_tensorrt(half).SerializeToString())
        plan = graph.with_suffix(".plan")
        build_engine(graph, plan, _SETTINGS)
        found = describe_plan(plan, read_sidecar(plan), board)
    bound = found["roofline"]["bound_ms"]
    return {
        "moved_bytes": found["activation_bytes"] + found["weight_bytes"],
        "bound_ms": bound,
        "bound_ns_per_pixel": 1e6 * bound / (spec.imgsz[0] * spec.imgsz[1]),
    }
