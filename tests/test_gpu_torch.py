"""`benchmarks/gpu_torch.py` runs: on a CPU, in float32, with the nano. What it is for has not run here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from by_path import ROOT, load
from torch import nn

from hiresvit.errors import UsageError
from hiresvit.models.create import build_model, enliven, model_spec
from hiresvit.spec import Task

sys.path.append(str(ROOT / "benchmarks"))  # a script finds what lies beside it
layout = load(ROOT / "benchmarks" / "authors_layout.py")
script = load(ROOT / "benchmarks" / "gpu_torch.py")


def test_it_measures_every_form_in_both_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "found.json"
    options = ["--device", "cpu", "--tiny", "--batches", "2", "--min-s", "0", "--scenes", "1"]
    assert script.main([*options, "--output", str(target)]) == 0
    found = json.loads(target.read_text())
    rows = [(row["batch"], row["layout"], row["form"], row["mode"]) for row in found["latency"]]
    assert sorted(rows) == sorted(
        (2, layout, form, "eager") for layout in ("NCHW", "NHWC") for form in ("trained", "folded", "authors")
    )
    for row in found["latency"]:
        assert row["samples_ns"]
        assert row["throughput"] > 0
        assert row["ratio"] == 1 if row["form"] == "trained" else row["ratio"] > 0
        assert row["share_of_copy"] > 0
        moved = row["activation_bytes"] + row["weight_bytes"]
        assert moved > 0
    bytes_of = {(row["form"], row["layout"]): row["activation_bytes"] for row in found["latency"]}
    assert bytes_of["folded", "NCHW"] < bytes_of["authors", "NCHW"], "what folding is for"
    [agreed] = found["agreement"]
    assert agreed["agreement"] > 0.9999, "folded float32 against float64"
    assert agreed["least_sqnr_db"] > 90
    assert "| hrvit_nano segment 64 | 2 | NHWC | eager | folded |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "task", "size"), [("hrvit_nano", "segment", (64, 96)), ("hrvit_b2", "classify", (64, 64))]
)
def test_the_authors_layout_is_the_same_network(name: str, task: Task, size: tuple[int, int]) -> None:
    """In float64, with attention awake; both sizes pad stripes, and one is not square. Measured: 3e-15."""
    spec = model_spec(name, task, size)
    model = build_model(spec)
    enliven(model, spec)
    model = model.double().eval()
    authors = layout.in_authors_layout(model, spec).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, found = model(image), authors(image)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.parametrize("wrong", ["mask", "halves", "shortcut"])
def test_another_layout_is_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if wrong == "mask":
        monkeypatch.setattr(layout, "MASKED", 0.0)
    elif wrong == "halves":
        monkeypatch.setattr(layout.F, "pad", lambda x, _: torch.cat([x, x.flip(2)], dim=2)[:, :, : x.shape[2] + 3])
    else:
        monkeypatch.setattr(layout.Shortcut, "forward", lambda self, x: x)
    with pytest.raises((AssertionError, RuntimeError)):
        test_the_authors_layout_is_the_same_network("hrvit_nano", "segment", (64, 96))


def test_another_network_has_no_such_layout() -> None:
    spec = model_spec("lrformer_t", "segment", (64, 64))
    with pytest.raises(UsageError, match="lrformer_t segment: of HRViT's classifier and SegFormer's head only"):
        layout.in_authors_layout(nn.Identity(), spec)


class Residual(nn.Module):
    """A 1x1 convolution, an activation in place, a view that is free, a copy, a row that is repeated, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu_(self.conv(x))  # reads and writes a map, twice
        turned = y.transpose(2, 3).contiguous()  # a view, then a map read and a map written
        shifted = turned + turned[:1, :1, :1].expand_as(turned)  # one row more than a map read, one map written
        return shifted + x  # two maps read, one written


def test_bytes_are_those_of_a_hand_count() -> None:
    moved = script.count_bytes(Residual().eval(), torch.randn(1, 4, 8, 8))
    one = 4 * 8 * 8 * 4
    assert moved.activations == (2 + 2 + 2 + 2 + 3) * one + 8 * 4
    assert moved.weights == (4 * 4 + 4) * 4


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
