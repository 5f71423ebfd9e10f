"""Graphs for Qualcomm's HTP in an export: made, held to PyTorch, and emulated at a small size or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.manifest import Manifest
from hiresvit.bundle.stages import EMULATED
from hiresvit.device.chips import CHIPS
from hiresvit.device.context import HtpReport, Refused
from hiresvit.errors import GateError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.evaluation.parity import GATES, Gate
from hiresvit.models.create import model_spec
from hiresvit.models.zoo import MODELS
from hiresvit.report.bundle_parts import bundle_part
from hiresvit.report.results import export_report
from hiresvit.report.tables import render
from hiresvit.spec import HtpForm, ModelSpec
from hiresvit.workflows import emulate, htp_export
from hiresvit.workflows.emulate import small_spec
from hiresvit.workflows.export import ExportSettings, export_bundle
from hiresvit.workflows.htp import HtpSettings
from hiresvit.workflows.htp_export import HtpOrder
from hiresvit.workflows.verify import verify_bundle

FORMS: tuple[HtpForm, ...] = ("fp16", "a16w8", "a8w8")


def order(*forms: HtpForm, emulate: emulate.Emulate = "small", **settings: Any) -> HtpOrder:
    chips = {form: CHIPS["sm8650" if form == "fp16" else "ar1"] for form in forms}
    made = (HtpSettings("scenes", images=2, form=form, chip=chips[form], threads=1, **settings) for form in forms)
    return HtpOrder(tuple(made), emulate)


class Net(nn.Module):
    """Convolutions and a GELU, which the form in FP16 writes out; logits at a fourth of the size."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 16, 3, 4, 1), nn.GELU()
        self.head = nn.Conv2d(16, spec.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.head(self.act(self.stem(image)))
        return out


@pytest.fixture(autouse=True)
def small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=Net))
    monkeypatch.setitem(emulate._SIDES, "hrvit", 32)


SPEC = model_spec("hrvit_b1", "segment", (64, 96), 5)


def export(target: Path, asked: HtpOrder, **more: Any) -> Manifest:
    settings = ExportSettings(htp=asked, plan=False, latency=False, images=1, threads=1, **more)
    return export_bundle(SPEC, target, settings, command=["hiresvit", "export", "hrvit_b1"]).manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle with all forms, emulated at half its size; do not change it."""
    pytest.importorskip("onnxruntime_qnn")
    target = tmp_path_factory.mktemp("htp") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=Net))
        patch.setitem(emulate._SIDES, "hrvit", 32)
        export(target, order(*FORMS))
    yield target


def test_every_form_is_a_stage_and_was_emulated_at_a_small_size(made: Path) -> None:
    manifest = read_bundle(made).manifest
    roles = {entry.role: entry.parent for entry in manifest.files}
    assert {role: roles[role] for role in roles if role.startswith("htp")} == dict.fromkeys(
        ("htp_fp16", "htp_a16w8", "htp_a8w8"), "simplified.onnx"
    )
    assert roles["calibration"] == "simplified.onnx"
    assert [stage["stage"] for stage in manifest.parity["stages"]][-3:] == ["htp_fp16", "htp_a16w8", "htp_a8w8"]
    assert list(manifest.htp) == ["a16w8", "a8w8", "fp16"]
    for form, found in manifest.htp.items():
        assert found["chip"]["name"] == ("sm8650" if form == "fp16" else "ar1")
        assert found["emulated"]["imgsz"] == [32, 64]
        assert found["emulated"]["version"]
        assert found["refused"] == []
    said = " ".join(render(export_report(manifest.to_json())).split())
    assert "emulated HTP at 32x64 beside PyTorch" in said
    assert "htp a16w8: for Snapdragon AR1 Gen 1 (SSG2115P, V73)" in said


def test_verify_replays_the_golden_pair_through_them(made: Path) -> None:
    found, error = verify_bundle(made, weights="fresh", threads=1)
    assert error is None
    assert {side["graph"] for side in found["sides"] if side["verdict"] == "passed"} >= {"htp_fp16", "htp_a8w8"}
    rechecked = {stage["stage"]: stage["differs"] for stage in found["parity"]["stages"]}
    assert rechecked["htp_a16w8"] == []


def test_without_the_library_all_is_made_and_a_note_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise MissingDependency("Qualcomm's compiler is not installed: pip install 'hiresvit[qnn]'")

    monkeypatch.setattr(emulate, "require_library", missing)
    manifest = export(tmp_path / "b", order("fp16"))
    assert manifest.htp["fp16"]["emulated"] is None
    assert [note for note in manifest.notes if "HTP" in note] == [
        "the graphs for the HTP were neither compiled nor emulated: Qualcomm's compiler is not installed: pip install"
        " 'hiresvit[qnn]'"
    ]


def test_a_wrong_graph_misses_the_gate_of_the_emulator(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of the small graph has the other sign: the emulator computes it, and PyTorch does not."""


def test_a_size_is_small_where_the_network_is_large_only() -> None:
    def size(name: str, *imgsz: int) -> tuple[int, int]:
        return small_spec(model_spec(name, None, (imgsz[0], imgsz[1]))).imgsz

    assert size("hrvit_b1", 512, 512) == (128, 128)
    assert size("hrvit_b1", 384, 672) == (128, 224)
    assert size("hrvit_b1", 672, 384) == (224, 128)
    assert size("hrvit_b1", 96, 672) == (96, 672)
    assert size("mixformer_b0", 224, 224) == (64, 64)
    assert size("hiri_vit_s", 448, 896) == (128, 256)
