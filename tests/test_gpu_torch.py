"""`benchmarks/gpu_torch.py` runs: on a CPU, in float32, with the nano. What it is for has not run here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from by_path import ROOT, load

script = load(ROOT / "benchmarks" / "gpu_torch.py")


def test_it_measures_both_forms_in_both_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "found.json"
    options = ["--device", "cpu", "--tiny", "--batches", "2", "--min-s", "0", "--scenes", "1"]
    assert script.main([*options, "--output", str(target)]) == 0
    found = json.loads(target.read_text())
    rows = [(row["batch"], row["layout"], row["form"], row["mode"]) for row in found["latency"]]
    assert sorted(rows) == sorted(
        (2, layout, form, "eager") for layout in ("NCHW", "NHWC") for form in ("trained", "folded")
    )
    for row in found["latency"]:
        assert row["samples_ns"]
        assert row["throughput"] > 0
        assert row["ratio"] == 1 if row["form"] == "trained" else row["ratio"] > 0
    [agreed] = found["agreement"]
    assert agreed["agreement"] > 0.9999, "folded float32 against float64"
    assert agreed["least_sqnr_db"] > 90
    assert "| hrvit_nano segment 64 | 2 | NHWC | eager | folded |" in capsys.readouterr().out


def test_another_network_does_not_pass_for_the_trained_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agreement sees a fold that is wrong by a hundredth."""
    fold = script.fold

    def wrong(model: torch.nn.Module) -> torch.nn.Module:
        folded: torch.nn.Module = fold(model)
        next(folded.parameters()).data.mul_(1.01)
        return folded

    monkeypatch.setattr(script, "fold", wrong)
    [case] = script.TINY
    assert script.agreement(case, script.NANO, "cpu", 1)["least_sqnr_db"] < 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([]) == 6
    assert "finds no NVIDIA GPU" in capsys.readouterr().err


def test_what_does_not_fit_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = script.prepared

    def tight(network: torch.nn.Module, image: torch.Tensor, mode: str, pool: None) -> object:
        if image.is_contiguous(memory_format=torch.channels_last):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prepared(network, image, mode, pool)

    monkeypatch.setattr(script, "prepared", tight)
    [case] = script.TINY
    rows = script.measure(case, 1, "cpu", 0)
    assert {row["layout"] for row in rows if row["median_ms"] is None} == {"NHWC"}
    assert "does not fit" in script.table(rows)
