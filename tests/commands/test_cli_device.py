"""``--device`` as it is typed: of check, inspect and bench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from graphs import content, named_graph, noise
from plan_files import save

from hiresvit.device.tensorrt_api import INSTALL_HINT, installed

needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=INSTALL_HINT)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "a.onnx"
    weights = noise(32, 16).astype(np.float16)
    path.write_bytes(content(named_graph("y = MatMul(x, w)", "float16[1,64,32] x", "float16[1,64,16] y", w=weights)))
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return save(tmp_path / "b.plan", backend="tensorrt_rtx", version="1.7.1.116", device=None)


@needs_rtx
def test_check_and_then_inspect(cli: Cli, graph: Path, tmp_path: Path) -> None:
    """The same plan by both: 64 x 32 and 64 x 16 halves, and 32 x 16 weights with whatever the kernel adds."""
    checked = json.loads(cli("check", graph, "--device", "orin-nx", "--json").out)["compiled"]["traffic"]
    assert checked["roofline"]["device"] == "orin-nx"
    assert checked["macs"] == {"fp16": 64 * 32 * 16}
    assert checked["activation_bytes"] >= 2 * (64 * 32 + 64 * 16)
    assert 1024 <= checked["weight_bytes"] <= 1100  # at most a few scalars beside them
    assert cli("build", graph, "-o", tmp_path / "a.plan").code == 0
    inspected = cli("inspect", tmp_path / "a.plan", "--device", "orin-nx", "--json")
    found = json.loads(inspected.out)
    assert found["traffic"] == checked
    assert found["report"]["traffic"]["macs"] == checked["macs"]
    shown = cli("inspect", tmp_path / "a.plan", "--bandwidth", "100", "--tflops", "10")
    assert "lower bound on by hand (100 GB/s, 10 TFLOP/s by hand" in " ".join(shown.out.split())
    assert "m.y" in shown.out
    plain = cli("check", graph)
    assert "what one call moves" in plain.out
    assert "lower bound" not in plain.out


def test_a_device_that_is_not_in_the_table(cli: Cli, graph: Path, plan: Path) -> None:
    """Before anything is built, read or measured."""
    for command in (("check", graph), ("inspect", plan), ("bench", graph)):
        result = cli(*command, "--device", "orin-mx")
        assert result.code == 2
        assert "did you mean orin-nx" in result.err
        assert "--bandwidth GB/s and --tflops T" in result.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--bandwidth 100", "half of a device: give --tflops"),
        ("--tflops 0 --bandwidth 100", "--tflops 0: give a number above 0"),
    ],
)
def test_half_a_device(cli: Cli, plan: Path, typed: str, said: str) -> None:
    result = cli("inspect", plan, *typed.split())
    assert result.code == 2
    assert said in result.err


def test_what_has_no_bound(cli: Cli, graph: Path, plan: Path) -> None:
    refused = cli("check", graph, "--device", "thor", "--no-build")
    assert (refused.code, "--no-build makes none" in refused.err) == (2, True)
    chip = cli("check", graph, "--device", "thor", "--target", "ar1")
    assert (chip.code, "--target names chips only" in chip.err) == (2, True)
    for source in ("hrvit_b1", graph):
        result = cli("inspect", source, "--device", "thor")
        assert (result.code, "--device is about a plan" in result.err) == (2, True)
    unknown = cli("inspect", plan, "--device", "thor")
    assert (unknown.code, "no layer list" in unknown.err) == (7, True)
    noted = cli("inspect", plan)
    assert noted.code == 0
    assert "no layer list" in noted.out
    measured = cli("bench", graph, "--device", "thor", "--min-s", "0", "--json")
    assert measured.code == 0
    assert any("none of what is measured is a plan" in note for note in json.loads(measured.out)["notes"])
