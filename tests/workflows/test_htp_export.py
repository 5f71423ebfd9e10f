"""Graphs for Qualcomm's HTP in an export: made, held to PyTorch, and emulated at a small size or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.manifest import Manifest
from hiresvit.bundle.stages import EMULATED
from hiresvit.device.chips import CHIPS
from hiresvit.device.context import Refused
from hiresvit.errors import GateError, IllegalGraphError, MissingDependency, UsageError
from hiresvit.evaluation.parity import GATES, Gate
from hiresvit.models.create import model_spec
from hiresvit.models.zoo import MODELS
from hiresvit.report.bundle_parts import bundle_part
from hiresvit.report.results import export_report
from hiresvit.report.tables import render
from hiresvit.spec import ContractSpec, HtpForm, ModelSpec
from hiresvit.workflows import emulate, htp_export
from hiresvit.workflows.emulate import small_spec
from hiresvit.workflows.export import export_bundle
from hiresvit.workflows.export_settings import ExportSettings
from hiresvit.workflows.htp import HtpSettings, make_htp
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
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with all forms, emulated at half its size; do not change it."""
    pytest.importorskip("onnxruntime_qnn")
    target = tmp_path_factory.mktemp("htp") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=Net))
        patch.setitem(emulate._SIDES, "hrvit", 32)
        export(target, order(*FORMS))
    return target


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
    assert "htp a16w8: for Snapdragon AR1 Gen 1 (SSG2125P, V73)" in said


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


def test_what_was_emulated_is_in_the_report_of_a_bundle(made: Path) -> None:
    values = {**read_bundle(made).manifest.to_json(), "name": "tiny"}
    [part] = [block for block in bundle_part(values).blocks if getattr(block, "title", "") == "Qualcomm's HTP"]
    assert "emulated HTP at 32x64 beside PyTorch" in repr(part)
    assert "not emulated" not in repr(part)


def spoiled(graph: ModelProto) -> ModelProto:
    """One output channel of the stem has the other sign."""
    [weight] = [tensor for tensor in graph.graph.initializer if list(tensor.dims) == [16, 3, 3, 3]]
    values = numpy_helper.to_array(weight).copy()
    values[0] *= -1
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return graph


def test_a_wrong_graph_misses_the_gate_of_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the small size only: the export's own graphs are compared before."""
    pytest.importorskip("onnxruntime_qnn")

    def wrong(*args: Any, **more: Any) -> Any:
        made = make_htp(*args, **more)
        return replace(made, graph=spoiled(made.graph))

    monkeypatch.setattr(emulate, "make_htp", wrong)
    with pytest.raises(GateError, match="htp_fp16 emulated: output 'logits' has sqnr_db"):
        export(tmp_path / "b", order("fp16"))
    assert not (tmp_path / "b").exists()


def test_nodes_that_are_refused_are_listed_and_the_bundle_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the export's own size, by a runner and a compiler that say what Qualcomm's do of a graph that does not fit."""

    def refuses(path: Path, **_: Any) -> Any:
        raise IllegalGraphError(f"{path}: the HTP does not take it (node act)")

    node = Refused("act/Gelu", "act", "Gelu", "more than 5 axes")
    monkeypatch.setattr(emulate, "why_not", lambda: None)
    monkeypatch.setattr(htp_export, "why_not", lambda: None)
    monkeypatch.setattr(emulate, "QnnRunner", refuses)
    monkeypatch.setattr(emulate, "compile_graph", lambda *_: SimpleNamespace(refused=(node,)))
    manifest = export(tmp_path / "b", order("fp16", emulate="full"))
    found = manifest.htp["fp16"]
    assert (found["emulated"], [row["module"] for row in found["refused"]]) == (None, ["act"])
    said = "htp_fp16 was not emulated: Gelu of act would not run on the HTP of Snapdragon 8 Gen 3 (SM8650, V75)"
    assert said in manifest.notes
    assert "  Gelu of act: more than 5 axes" in render(export_report(manifest.to_json())).splitlines()


def test_trained_weights_are_held_to_more_unless_a_gate_is_asked_for() -> None:
    stage = EMULATED["fp16"]
    assert htp_export._gate("fp16", GATES, True).min_sqnr_db == 55
    assert htp_export._gate("fp16", GATES, False) == GATES[stage]
    asked = Gate(10.0, 0.5, 0.5)
    assert htp_export._gate("fp16", {stage: asked}, True) == asked


def test_a_size_is_small_where_the_network_is_large_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def size(name: str, *imgsz: int) -> tuple[int, int]:
        return small_spec(model_spec(name, None, (imgsz[0], imgsz[1]))).imgsz

    assert size("hrvit_b1", 512, 512) == (128, 128)
    assert size("hrvit_b1", 384, 672) == (128, 224)
    assert size("hrvit_b1", 672, 384) == (224, 128)
    assert size("hrvit_b1", 96, 672) == (96, 672)
    assert size("mixformer_b0", 224, 224) == (64, 64)
    assert size("hiri_vit_s", 448, 896) == (128, 256)


CASES: dict[str, tuple[dict[str, Any], tuple[HtpForm, ...], str, str]] = {
    "a chip of integers": ({}, ("fp16",), "ar1", "takes integers only: make a16w8, or a8w8"),
    "an open batch": ({"dynamic_batch": True}, ("fp16",), "sm8650", "--dynamic-batch with --htp"),
    "an old opset": ({"opset": 17}, ("fp16",), "sm8650", "--opset 17 with --htp"),
    "pixels": ({"contract": ContractSpec("image")}, ("fp16",), "sm8650", "--contract image with --htp"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_made_is_said_before_any_work(tmp_path: Path, name: str) -> None:
    more, forms, chip, said = CASES[name]
    asked = HtpOrder(tuple(HtpSettings("scenes", form=form, chip=CHIPS[chip]) for form in forms))
    with pytest.raises(UsageError, match=said):
        export(tmp_path / "b", asked, **more)


@pytest.mark.slow
def test_nothing_is_emulated_where_that_was_asked_for(tmp_path: Path) -> None:
    manifest = export(tmp_path / "b", order("fp16", emulate="none"))
    assert manifest.htp["fp16"]["emulated"] is None
    assert "the graphs for the HTP were neither compiled nor emulated: --emulate none" in manifest.notes
