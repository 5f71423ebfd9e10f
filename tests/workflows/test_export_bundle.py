"""The whole export, on a tiny HRViT in HRViT-b1's place: what it leaves behind when it works and when it does not."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from graphs import distance, run
from tiny import CLASSES, build_tiny, export_once, simplify_once, tiny_spec
from torch import nn

from hiresvit.bundle.folder import Bundle, read_bundle
from hiresvit.bundle.golden import read_golden
from hiresvit.bundle.stages import EXACT
from hiresvit.device import tensorrt_api
from hiresvit.device.tensorrt_api import INSTALL_HINT, installed
from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.evaluation.parity import GATES, Gate
from hiresvit.export.contract import read_stamp
from hiresvit.export.deployed import Deployed
from hiresvit.models.create import build_model
from hiresvit.models.zoo import MODELS
from hiresvit.spec import ModelSpec, TensorSpec
from hiresvit.version import __version__
from hiresvit.workflows import export as pipeline
from hiresvit.workflows.export import export_bundle
from hiresvit.workflows.export_settings import ExportSettings
from hiresvit.workflows.inspect import graph_summary
from hiresvit.workflows.open import open_source

SPEC = tiny_spec()
COMMAND = ["hiresvit", "export", "hrvit_b1"]
FAST = ExportSettings(latency=False, plan=False, images=2, threads=1)
needs_rtx = pytest.mark.skipif(not installed("tensorrt_rtx"), reason=f"TensorRT-RTX is not installed: {INSTALL_HINT}")


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
        patch.setattr(pipeline, "export_onnx", export_once)
        patch.setattr(pipeline, "simplify", simplify_once)
        yield


def export(target: Path, settings: ExportSettings = FAST, spec: ModelSpec = SPEC, **options: Any) -> Bundle:
    return export_bundle(spec, target, settings, command=COMMAND, **options)


Steps = list[tuple[str, float | None]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Steps]:
    """Everything that can be had at once, and the steps that were told."""
    steps: Steps = []
    target = tmp_path_factory.mktemp("whole") / "new" / "bundle"
    settings = ExportSettings(fp16=True, images=2, threads=1)
    bundle = export(target, settings, on_step=lambda name, fraction: steps.append((name, fraction)))
    return bundle, steps


class TestWhole:
    def test_files_and_their_parents(self, whole: tuple[Bundle, Steps]) -> None:
        bundle, _ = whole
        plan = [("fp16.plan", "plan", "fp16.onnx"), ("fp16.plan.json", "plan_info", "fp16.plan")]
        assert [(entry.name, entry.role, entry.parent) for entry in bundle.manifest.files] == [
            ("fp32.onnx", "fp32", None),
            ("simplified.onnx", "simplified", "fp32.onnx"),
            ("cpu.onnx", "cpu", "simplified.onnx"),
            ("fp16.onnx", "fp16", "simplified.onnx"),
            *(plan if installed("tensorrt_rtx") else ()),
            ("golden.npz", "golden", None),
            ("golden.png", "picture", None),
        ]
        sums: dict[str | None, str | None] = {entry.name: entry.sha256 for entry in bundle.manifest.files}
        for entry in bundle.manifest.files:
            data = (bundle.folder / entry.name).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry.sha256, entry.bytes)
            assert entry.parent_sha256 == sums.get(entry.parent)
        assert bundle.unlisted == ()
        assert read_bundle(bundle.folder) == bundle

    def test_what_it_says_about_itself(self, whole: tuple[Bundle, Steps]) -> None:
        manifest = whole[0].manifest
        assert manifest.spec == SPEC
        assert manifest.inputs == (TensorSpec("image", "float32", (1, 3, 64, 96)),)
        assert manifest.outputs == (TensorSpec("logits", "float32", (1, CLASSES, 64, 96)),)
        assert (manifest.weights.source, manifest.weights.sha256) == ("fresh, seed 0", None)
        assert manifest.command == COMMAND
        assert manifest.tools["hiresvit"] == __version__
        assert {"python", "platform", "torch", "onnx", "onnxruntime", "onnxsim", "numpy"} <= set(manifest.tools)
        assert manifest.notes[0].startswith("fresh weights from seed 0")
        assert len(manifest.notes) == (1 if installed("tensorrt_rtx") else 2)

    def test_every_graph_is_stamped_with_its_stage(self, whole: tuple[Bundle, Steps]) -> None:
        bundle, _ = whole
        for role in ("fp32", "simplified", "cpu", "fp16"):
            model = onnx.load(bundle.folder / f"{role}.onnx")
            onnx.checker.check_model(model, full_check=True)
            assert read_stamp({p.key: p.value for p in model.metadata_props}) == (SPEC, role)

    def test_reports(self, whole: tuple[Bundle, Steps]) -> None:
        manifest = whole[0].manifest
        assert manifest.simplify["rolled_back"] is None
        assert manifest.simplify["nodes_after"] <= manifest.simplify["nodes_before"]
        assert manifest.fp16["casts"] > 0
        assert (manifest.fp16["overflow"], manifest.fp16["underflow"]) == ([], [])
        assert manifest.fp16["headroom"]["images"] == 2
        assert 0 < manifest.fp16["headroom"]["share"] < 0.01
        parity = manifest.parity
        assert (parity["images"], parity["task"], parity["reference"]) == (2, "segment", "pytorch")
        assert [stage["stage"] for stage in parity["stages"]] == ["onnx", "simplified", "cpu", "fp16", EXACT]
        for stage in parity["stages"]:
            assert stage["gate"] == asdict(GATES[stage["stage"]])
            [output] = stage["report"]["outputs"]
            assert output["sqnr_db"] > stage["gate"]["min_sqnr_db"]
            assert not output["exact"], "compared with itself?"
        latency = manifest.latency
        assert set(latency["sides"]) == {"pytorch", "fp32", "simplified", "cpu", "fp16"}
        assert all(side["median_ms"] > 0 for side in latency["sides"].values())
        assert latency["threads"] == 1
        assert list(manifest.engines) == (["fp16"] if installed("tensorrt_rtx") else [])

    def test_it_describes_its_graphs(self, whole: tuple[Bundle, Steps]) -> None:
        bundle, _ = whole
        graphs = bundle.manifest.graphs
        assert graphs == {role: graph_summary(bundle.path(role)) for role in ("fp32", "simplified", "cpu", "fp16")}
        assert graphs["fp16"]["attentions"] == 10

    @needs_rtx
    def test_the_plan_is_the_fp16_graphs(self, whole: tuple[Bundle, Steps]) -> None:
        bundle, _ = whole
        engine = bundle.manifest.engines["fp16"]
        [entry] = [entry for entry in bundle.manifest.files if entry.role == "plan"]
        assert engine["plan_sha256"] == entry.sha256
        assert engine["attentions_total"] == 10
        assert engine["attentions_fused"] > 0  # not all: its heads are narrower than what TensorRT fuses
        assert engine["profiles"] == {}

    def test_the_golden_pair_is_pytorchs(self, whole: tuple[Bundle, Steps]) -> None:
        bundle, _ = whole
        inputs, outputs = read_golden(bundle)
        assert {name: array.shape for name, array in inputs.items()} == {"image": (1, 3, 64, 96)}
        assert {name: array.shape for name, array in outputs.items()} == {"logits": (1, CLASSES, 64, 96)}
        for role in ("fp32", "simplified", "cpu"):
            [found] = run(onnx.load(bundle.folder / f"{role}.onnx"), inputs)
            # Float32 in another order on standardised logits: 3e-6 was measured.
            assert distance(outputs["logits"], found) < 1e-4
        assert len(np.unique(outputs["logits"].argmax(1))) == CLASSES, "every class wins somewhere"

    @pytest.mark.parametrize("graph", ["fp32", "simplified", "cpu", "fp16"])
    def test_every_graph_opens_and_replays_the_pair(self, whole: tuple[Bundle, Steps], graph: str) -> None:
        bundle, _ = whole
        source = open_source(str(bundle.folder), graph=graph, threads=1)
        with source.runner as runner:
            assert (source.spec, source.label) == (SPEC, f"bundle/{graph}")
            assert runner(read_golden(bundle)[0])["logits"].dtype == np.float32

    @needs_rtx
    @pytest.mark.parametrize(("driver", "graph", "said"), [(True, None, 1), (False, None, 0), (True, "cpu", 0)])
    def test_beside_a_gpu_the_plan_is_pointed_at(
        self,
        whole: tuple[Bundle, Steps],
        monkeypatch: pytest.MonkeyPatch,
        driver: bool,
        graph: str | None,
        said: int,
    ) -> None:
        """What is taken without being asked for is the same on every machine: the CPU's graph."""
        monkeypatch.setattr("hiresvit.workflows.open.has_driver", lambda: driver)
        source = open_source(str(whole[0].folder), graph=graph, threads=1)
        source.runner.close()
        assert source.label == "bundle/cpu"
        pointed = "computed on the CPU; --graph plan runs the bundle's plan on the GPU"
        assert [note for note in source.notes if "nobody trained" not in note] == [pointed][:said]

    def test_steps_are_told(self, whole: tuple[Bundle, Steps]) -> None:
        _, steps = whole
        names = list(dict.fromkeys(name for name, _ in steps if not name.startswith("plan")))
        assert names == [
            *("load", "export", "simplify", "fp16"),
            *("parity: onnx", "parity: simplified", "parity: cpu", "parity: fp16", "latency", "write"),
        ]
        building = [fraction for name, fraction in steps if name.startswith("plan: ")]
        assert bool(building) == installed("tensorrt_rtx")
        assert all(fraction is not None and 0 <= fraction <= 1 for fraction in building)

    def test_the_manifest_is_json(self, whole: tuple[Bundle, Steps]) -> None:
        bundle, _ = whole
        values = json.loads((bundle.folder / "manifest.json").read_text())
        assert values["kind"] == "hiresvit-bundle"
        assert values["spec"]["name"] == "hrvit_b1"
        assert values["parity"] == bundle.manifest.parity


STEPS = [
    "load",
    "export",
    "simplify",
    "fp16",
    "parity: onnx",
    "parity: cpu",
    "parity: fp16",
    "write",
]
STOPPED = [
    *((step, replace(FAST, fp16=True)) for step in STEPS),
    ("latency", replace(FAST, latency=True)),
    *(
        pytest.param(step, replace(FAST, fp16=True, plan=True), marks=needs_rtx)
        for step in ("plan", "plan: Compiling kernels", "plan: Writing")
    ),
]


def stop_at(step: str, error: BaseException) -> Callable[[str, float | None], None]:
    def on_step(name: str, _fraction: float | None) -> None:
        if name == step:
            raise error

    return on_step


@pytest.mark.parametrize(("step", "settings"), STOPPED)
def test_ctrl_c_leaves_nothing(tmp_path: Path, step: str, settings: ExportSettings) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "new" / "bundle", settings, on_step=stop_at(step, KeyboardInterrupt()))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_the_bundle_that_was_there(tmp_path: Path) -> None:
    before = export(tmp_path / "bundle")
    data = {path.name: path.read_bytes() for path in before.folder.iterdir()}
    settings = replace(FAST, force=True, images=1)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "bundle", settings, on_step=stop_at("write", KeyboardInterrupt()))
    assert {path.name: path.read_bytes() for path in before.folder.iterdir()} == data
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))
    with pytest.raises(HiresvitError, match=r"cannot write .*bundle: No space left on device") as caught:
        export(tmp_path / "bundle", on_step=stop_at("simplify", full))
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", [stage for stage in GATES if stage != "int8" and not stage.startswith("htp")])
def test_a_gate_that_is_missed_leaves_nothing(tmp_path: Path, stage: str) -> None:
    gates = {stage: Gate(min_sqnr_db=1000, min_cosine=0.9, min_agreement=0.9)}  # the others have their defaults
    with pytest.raises(GateError, match=f"^{stage}: output 'logits' has sqnr_db") as caught:
        export(tmp_path / "new" / "bundle", replace(FAST, fp16=True, gates=gates))
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_the_gates_that_were_asked_for_are_in_the_manifest_and_hold_later(tmp_path: Path) -> None:
    lenient = {stage: Gate(-100.0, -1.0, 0.0) for stage in GATES}
    bundle = export(tmp_path / "bundle", replace(FAST, gates=lenient))
    assert {s["stage"]: s["gate"] for s in bundle.manifest.parity["stages"]} == {
        stage: asdict(lenient[stage]) for stage in ("onnx", "simplified", "cpu")
    }


def never(name: str, _fraction: float | None) -> None:
    raise AssertionError(f"{name} was begun")


class TestTargets:
    def test_an_existing_bundle_is_refused_before_any_work(self, tmp_path: Path) -> None:
        export(tmp_path / "bundle")
        with pytest.raises(HiresvitError, match="exists; pass --force to replace it"):
            export(tmp_path / "bundle", on_step=never)

    @pytest.mark.parametrize("force", [False, True])
    def test_anything_else_is_refused_before_any_work(self, tmp_path: Path, force: bool) -> None:
        target = tmp_path / "photos"
        target.mkdir()
        (target / "cat.jpg").write_bytes(b"cat")
        with pytest.raises(HiresvitError, match="is not a bundle"):
            export(target, replace(FAST, force=force), on_step=never)
        assert (target / "cat.jpg").read_bytes() == b"cat"

    def test_a_bundle_with_something_of_the_users_in_it_is_refused(self, tmp_path: Path) -> None:
        export(tmp_path / "bundle")
        (tmp_path / "bundle" / "notes.txt").write_text("mine")
        with pytest.raises(HiresvitError, match=r"also holds 'notes\.txt'"):
            export(tmp_path / "bundle", replace(FAST, force=True), on_step=never)

    def test_force_replaces(self, tmp_path: Path) -> None:
        before = export(tmp_path / "bundle")
        after = export(tmp_path / "bundle", replace(FAST, force=True, images=1))
        assert (before.manifest.parity["images"], after.manifest.parity["images"]) == (2, 1)
        assert read_bundle(tmp_path / "bundle") == after
        assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]

    def test_another_number_of_threads_gives_the_same_files(self, tmp_path: Path) -> None:
        """But the manifest: its parity is measured with them (docs/bundle.md)."""
        one, two = (export(tmp_path / f"{count}", replace(FAST, images=1, threads=count)) for count in (1, 2))
        assert [(e.name, e.sha256) for e in two.manifest.files] == [(e.name, e.sha256) for e in one.manifest.files]
        assert two.manifest.parity != one.manifest.parity, "or PyTorch would not have noticed the threads"

    def test_a_second_export_has_the_same_files(self, tmp_path: Path) -> None:
        one, two = (export(tmp_path / name, replace(FAST, fp16=True)) for name in "ab")
        assert one.manifest.files == two.manifest.files


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (replace(FAST, io="fp16"), "add --fp16"),
        (replace(FAST, images=0), "0 parity images: give at least 1"),
        (replace(FAST, threads=0), "0 threads: give at least 1"),
        (replace(FAST, ema=True), "give one with --weights"),
        (replace(FAST, opset=16), "opset 16: 17 to 22"),
        (replace(FAST, opset=23), "opset 23: 17 to 22"),
    ],
)
def test_settings_that_exclude_each_other(tmp_path: Path, settings: ExportSettings, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        export(tmp_path / "new" / "bundle", settings, on_step=never)
    assert list(tmp_path.iterdir()) == []


NEITHER = f"TensorRT-RTX (neither is installed): {INSTALL_HINT}"


class TestChoices:
    def test_fp16_inputs_and_outputs(self, tmp_path: Path) -> None:
        bundle = export(tmp_path / "bundle", replace(FAST, fp16=True, io="fp16"))
        graph = onnx.load(bundle.path("fp16")).graph
        halves = {v.name for v in (*graph.input, *graph.output) if v.type.tensor_type.elem_type == 10}
        assert halves == {"image", "logits"}
        with open_source(str(bundle.folder), graph="fp16", threads=1).runner as runner:
            assert runner.inputs[0].dtype == "float16"
            image = read_golden(bundle)[0]
            assert runner(image)["logits"].dtype == np.float16

    def test_a_dynamic_batch(self, tmp_path: Path) -> None:
        settings = replace(FAST, fp16=True, dynamic_batch=True, plan=installed("tensorrt_rtx"))
        bundle = export(tmp_path / "bundle", settings)
        assert "cpu" not in {entry.role for entry in bundle.manifest.files}
        assert bundle.manifest.inputs[0].shape == ("batch", 3, 64, 96)
        assert bundle.manifest.outputs[0].shape == ("batch", CLASSES, 64, 96)
        assert [s["stage"] for s in bundle.manifest.parity["stages"]] == ["onnx", "simplified", "fp16", EXACT]
        if installed("tensorrt_rtx"):
            assert bundle.manifest.engines["fp16"]["profiles"] == {"image": [[n, 3, 64, 96] for n in (1, 1, 8)]}
        source = open_source(str(bundle.folder), threads=1)
        with source.runner as runner:
            assert source.label == "bundle/simplified"
            image = read_golden(bundle)[0]["image"]
            logits = runner({"image": np.concatenate([image, image, -image])})["logits"]
        assert logits.shape == (3, CLASSES, 64, 96)
        assert distance(logits[0], logits[1]) < 1e-5  # the same picture, in another row of a matrix product
        assert distance(logits[0], logits[2]) > 0.1

    def test_logits_at_the_heads_own_stride_in_an_older_opset(self, tmp_path: Path) -> None:
        bundle = export(tmp_path / "bundle", replace(FAST, resize=False, opset=17, fp16=True))
        for role in ("fp32", "simplified", "cpu", "fp16"):
            [opset] = onnx.load(bundle.folder / f"{role}.onnx").opset_import
            assert opset.version == 17
        assert bundle.manifest.outputs[0].shape == (1, CLASSES, 16, 24)
        with open_source(str(bundle.folder), threads=1).runner as runner:
            assert runner.outputs[0].shape == (1, CLASSES, 16, 24)

    def test_classify(self, tmp_path: Path) -> None:
        bundle = export(tmp_path / "bundle", replace(FAST, fp16=True), tiny_spec("classify"))
        assert bundle.manifest.outputs == (TensorSpec("logits", "float32", (1, CLASSES)),)
        assert bundle.manifest.parity["stages"][0]["report"]["outputs"][0]["mean_agreement"] == 1.0

    def test_features(self, tmp_path: Path) -> None:
        bundle = export(tmp_path / "bundle", replace(FAST, fp16=True), tiny_spec("features"))
        assert [(t.name, t.shape) for t in bundle.manifest.outputs] == [
            ("features_4", (1, 16, 16, 24)),
            ("features_8", (1, 32, 8, 12)),
            ("features_16", (1, 48, 4, 6)),
            ("features_32", (1, 64, 2, 3)),
        ]
        assert set(read_golden(bundle)[1]) == {t.name for t in bundle.manifest.outputs}

    @pytest.mark.parametrize(
        ("settings", "note"),
        [
            (
                replace(FAST, plan=True),
                "no plan was built: TensorRT fuses attention in FP16 only, add --fp16",
            ),
            (
                replace(FAST, plan=True, fp16=True),
                f"no plan was built: building a plan needs TensorRT or {NEITHER}",
            ),
            (replace(FAST, fp16=True), None),
            (FAST, None),
        ],
    )
    def test_without_a_plan_a_note_says_why(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: ExportSettings, note: str | None
    ) -> None:
        monkeypatch.setattr(tensorrt_api, "installed", lambda backend: False)
        bundle = export(tmp_path / "bundle", settings)
        assert bundle.manifest.engines == {}
        assert bundle.manifest.notes[1:] == ((note,) if note else ())
        assert not (bundle.folder / "fp16.plan").exists()

    def test_torch_gets_its_threads_back(self, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        settings = replace(FAST, threads=1 if before > 1 else 2)
        export(tmp_path / "a", settings)
        assert torch.get_num_threads() == before
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path / "b", settings, on_step=stop_at("parity: simplified", KeyboardInterrupt()))
        assert torch.get_num_threads() == before


class TestCheckpoints:
    """As the authors' training code writes them; the weights are those of a model with another seed."""

    @pytest.fixture
    def trained(self) -> nn.Module:
        model = build_model(SPEC, seed=7)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn(value.shape, generator=generator) * 0.05)
        return model

    @pytest.fixture
    def checkpoint(self, trained: nn.Module, tmp_path: Path) -> Path:
        state = {f"module.{key}": value for key, value in trained.state_dict().items()}
        state["module.auxiliary_head.conv.weight"] = torch.zeros(3)
        path = tmp_path / "best.pth.tar"
        torch.save({"state_dict": state, "epoch": 3, "state_dict_ema": {}}, path)
        return path

    def test_they_are_what_is_exported(self, tmp_path: Path, trained: nn.Module, checkpoint: Path) -> None:
        bundle = export(tmp_path / "bundle", replace(FAST, weights=checkpoint))
        manifest = bundle.manifest
        assert manifest.weights.source == "best.pth.tar"
        assert manifest.weights.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert {e.parent_sha256 for e in manifest.files if e.parent is None} == {manifest.weights.sha256}
        assert manifest.notes[0] == f"{len(trained.state_dict())} tensors from state_dict of best.pth.tar"
        assert any("auxiliary_head" in note for note in manifest.notes)
        inputs, outputs = read_golden(bundle)
        with torch.inference_mode():
            wanted = Deployed(trained, SPEC)(torch.from_numpy(inputs["image"])).numpy()
        # The same weights in the same PyTorch; the number of threads may differ.
        assert distance(wanted, outputs["logits"]) < 1e-5

    def test_one_that_does_not_fit_leaves_nothing(self, tmp_path: Path, checkpoint: Path) -> None:
        other = replace(SPEC, num_classes=CLASSES + 2)
        with pytest.raises(HiresvitError, match=f"pass --num-classes {CLASSES}") as caught:
            export(tmp_path / "new" / "bundle", replace(FAST, weights=checkpoint), other)
        assert caught.value.exit_code == 1
        assert list(tmp_path.iterdir()) == [checkpoint]

    def test_a_head_that_is_missing(self, tmp_path: Path, trained: nn.Module) -> None:
        state = {k: v for k, v in trained.state_dict().items() if not k.startswith("decode_head.")}
        torch.save(state, path := tmp_path / "backbone.pth")
        with pytest.raises(HiresvitError, match=r"no segmentation head .* --allow-missing head"):
            export(tmp_path / "bundle", replace(FAST, weights=path))
        with pytest.raises(UsageError, match="is about a checkpoint: give one with --weights"):
            export(tmp_path / "bundle", replace(FAST, allow_missing_head=True))
        assert list(tmp_path.iterdir()) == [path]
        bundle = export(tmp_path / "bundle", replace(FAST, weights=path, allow_missing_head=True))
        [note] = [note for note in bundle.manifest.notes if "nobody trained" in note]
        assert note.startswith("decode_head.* (not in backbone.pth): nobody trained this, so the answers mean nothing;")

    def test_an_average_that_is_not_there(self, tmp_path: Path, checkpoint: Path) -> None:
        with pytest.raises(HiresvitError):
            export(tmp_path / "bundle", replace(FAST, weights=checkpoint, ema=True))
        assert list(tmp_path.iterdir()) == [checkpoint]
