"""What a plan moves, from the file beside it: sidecars of this version and older ones, and those that cannot say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import content, copied, named_graph, ones
from plan_files import describe, save

from hiresvit.device.boards import BOARDS
from hiresvit.device.plan import Sidecar, sidecar_path, write_sidecar
from hiresvit.engine.kernels import Kernel
from hiresvit.errors import ArtefactError, UsageError
from hiresvit.files import sha256_file
from hiresvit.spec import TensorSpec
from hiresvit.workflows.inspect import inspect_source
from hiresvit.workflows.plan_traffic import bound_of_plan, describe_plan

BOARD = BOARDS["orin-nx"]
GRAPH = named_graph("y = MatMul(x, w)", "float[1,8,16] x", "float[1,8,4] y", w=ones(16, 4))


def tensor(name: str, *shape: int | str, dtype: str = "float16") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


KERNEL = Kernel(
    "gemm_myl0_0",
    "gemm",
    (tensor("x", 1, 8, 16),),
    (tensor("w", 16, 4),),
    (tensor("y", 1, 8, 4),),
    "",
    ("m.y/MatMul",),
)


def plan_with(folder: Path, *layers: dict[str, Any], **report: Any) -> tuple[Path, Sidecar]:
    """A plan of `GRAPH`, which lies beside it, with these layers."""
    (folder / "a.onnx").write_bytes(content(GRAPH))
    plan = save(folder / "a.plan", backend="tensorrt_rtx", version="1.7.1.116")
    said = describe(plan, "tensorrt_rtx", "1.7.1.116", **{"flags": {"max_aux_streams": 0}, **report})
    sidecar = Sidecar("a.onnx", sha256_file(folder / "a.onnx"), said, layers)
    write_sidecar(plan, sidecar)
    return plan, sidecar


NEW = {**KERNEL.to_json(), "macs": {"fp16": 512}}
BYTES = 256 + 64 + 128


def test_a_new_sidecar(tmp_path: Path) -> None:
    plan, sidecar = plan_with(tmp_path, NEW)
    (tmp_path / "a.onnx").unlink()  # it needs no graph
    found = describe_plan(plan, sidecar, BOARD)
    assert (found["read_bytes"], found["written_bytes"], found["weight_bytes"]) == (256, 64, 128)
    assert found["macs"] == {"fp16": 512}
    assert found["modules"][0]["module"] == "m.y"
    # bytes over GB/s; the division is all that rounds
    assert found["roofline"]["bound_ms"] == pytest.approx(1e3 * BYTES / 102.4e9, rel=1e-12)
    assert found["roofline"]["overlapped"] is False
    json.dumps(found, allow_nan=False)


def test_an_older_sidecar_counts_in_the_graph_beside_it(tmp_path: Path) -> None:
    plan, sidecar = plan_with(tmp_path, KERNEL.to_json())
    assert describe_plan(plan, sidecar, BOARD)["macs"] == {"fp16": 1 * 8 * 16 * 4}
    other = copied(GRAPH)
    other.doc_string = "another"
    (tmp_path / "a.onnx").write_bytes(content(other))
    assert describe_plan(plan, sidecar, BOARD)["macs"] is None, "another graph than it was built from"
    (tmp_path / "a.onnx").unlink()
    found = describe_plan(plan, sidecar, BOARD)
    assert (found["macs"], found["intensity"]) == (None, None)
    assert found["roofline"]["bound_ms"] > 0


def test_dynamic_axes_count_at_the_best_shape(tmp_path: Path) -> None:
    open_batch = replace(KERNEL, inputs=(tensor("x", "?", 8, 16),), outputs=(tensor("y", "?", 8, 4),))
    layer = {**open_batch.to_json(), "macs": {"fp16": 2048}, "best": {"x": [4, 8, 16], "y": [4, 8, 4]}}
    plan, sidecar = plan_with(tmp_path, layer, profiles={"x": ((1, 8, 16), (4, 8, 16), (8, 8, 16))})
    found = describe_plan(plan, sidecar, None)
    assert found["best_shapes"] == {"x": [4, 8, 16]}
    assert (found["activation_bytes"], found["untold"]) == (4 * 320, [])
    older, sidecar = plan_with(tmp_path, open_batch.to_json())
    with_less = describe_plan(older, sidecar, None)
    assert (with_less["activation_bytes"], with_less["untold"]) == (0, ["x", "y"])


@pytest.mark.parametrize(("flags", "overlapped"), [({}, True), ({"max_aux_streams": 2}, True)])
def test_a_plan_of_several_streams(tmp_path: Path, flags: dict[str, Any], overlapped: bool) -> None:
    plan, sidecar = plan_with(tmp_path, NEW, flags=flags)
    assert describe_plan(plan, sidecar, BOARD)["roofline"]["overlapped"] is overlapped


def test_plans_that_cannot_say(tmp_path: Path) -> None:
    plan, empty = plan_with(tmp_path)
    with pytest.raises(ArtefactError, match=r"a\.plan: the plan has no layer list"):
        describe_plan(plan, empty, BOARD)
    plan, named = plan_with(tmp_path, Kernel("stem/Conv", "", (), (), (), "").to_json())
    with pytest.raises(ArtefactError, match=r"a\.plan: .*no shapes and types of tensors \(as of all of stem/Conv\)"):
        describe_plan(plan, named, BOARD)
    plan, damaged = plan_with(tmp_path, {"name": "k"})
    with pytest.raises(ArtefactError, match="layer list is damaged"):
        describe_plan(plan, damaged, BOARD)
    with pytest.raises(ArtefactError, match=r"has no sidecar beside it \(a\.plan\.json\).*hiresvit build"):
        describe_plan(plan, None, BOARD)


def test_inspect_notes_what_is_not_known_and_fails_where_it_was_asked_for(tmp_path: Path) -> None:
    plan, _ = plan_with(tmp_path)
    found = inspect_source(str(plan))
    assert found["traffic"] is None
    assert "no layer list" in found["notes"][0]
    with pytest.raises(ArtefactError, match="no layer list"):
        inspect_source(str(plan), board=BOARD)
    plan, _ = plan_with(tmp_path, NEW)
    assert inspect_source(str(plan), board=BOARD)["traffic"]["roofline"]["device"] == "orin-nx"
    assert inspect_source(str(plan))["traffic"]["roofline"] is None
    with pytest.raises(UsageError, match=r"--device is about a plan, which .*a\.onnx is not"):
        inspect_source(str(tmp_path / "a.onnx"), board=BOARD)


def test_the_gpu_that_runs_a_plan(tmp_path: Path) -> None:
    """Its row where the table has one; nothing for another, and what is not known is no error then."""
    plan, _ = plan_with(tmp_path, NEW)
    found = bound_of_plan(plan, None, "NVIDIA GeForce RTX 4090")
    assert found is not None
    assert found["device"] == "rtx-4090"
    assert bound_of_plan(plan, None, "Orin") is None
    sidecar_path(plan).unlink()
    assert bound_of_plan(plan, None, "NVIDIA GeForce RTX 4090") is None
    with pytest.raises(ArtefactError, match="has no sidecar"):
        bound_of_plan(plan, BOARD, "Orin")
