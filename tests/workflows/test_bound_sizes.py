"""`hiresvit plan-sizes --device`: the order of the sizes, and that the bound is that of the exported graph's plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from hiresvit.device.boards import find_board
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.models.create import model_spec
from hiresvit.workflows import bound_sizes

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=f"TensorRT-RTX is not installed: {INSTALL_HINT}")


@needs_rtx
def test_the_least_time_a_pixel_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def bound(spec: Any, board: Any) -> dict[str, float]:
        return {"bound_ns_per_pixel": {64: 3.0, 96: 1.0, 128: 2.0}[spec.imgsz[0]]}

    monkeypatch.setattr(bound_sizes, "_bound", bound)
    rows = [{"imgsz": [height, 64], "macs": 1} for height in (64, 96, 128)]
    board = find_board("orin-nx")
    found = bound_sizes.bound_rows(model_spec("hrvit_nano"), rows, board, lambda text, _: said.append(text))
    assert [row["imgsz"][0] for row in found] == [96, 128, 64]
    assert found[0]["macs"] == 1
    assert said == [f"sizes: {height}x64 compiled" for height in (64, 96, 128)]


@pytest.mark.slow
@needs_rtx
def test_the_bound_is_that_of_the_exported_graph(tmp_path: Path, cli: Cli) -> None:
    """The same kernels, whatever the weights; `check` builds the FP16 graph of the bundle."""
    asked = ("--device", "orin-nx", "--json")
    sizes = cli("plan-sizes", "hrvit_nano", "--near", "64x96", "--count", "1", *asked)
    assert sizes.code == 0, sizes.err
    [row] = json.loads(sizes.out)["plan_sizes"]["sizes"]
    made = tmp_path / "nano"
    exported = cli("export", "hrvit_nano", "--imgsz", "64x96", "--fp16", "--no-plan", "--no-latency", "-o", str(made))
    assert exported.code == 0, exported.err
    checked = cli("check", str(made), "--target", "rtx", "--graph", "fp16", *asked)
    assert checked.code == 0, checked.err
    roofline = json.loads(checked.out)["compiled"]["traffic"]["roofline"]
    assert row["bound_ms"] == pytest.approx(roofline["bound_ms"])
    table = cli("plan-sizes", "hrvit_nano", "--near", "64x96", "--count", "1", *asked[:2])
    assert f"{row['bound_ms']:.3g} ms" in table.out
    assert "no prediction" in table.out
