"""Bundles with a contract: what is in them, that their way from a picture's file is PyTorch's, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from convolutions import Convolutions
from onnx import helper
from PIL import Image
from tiny import export_once, simplify_once
from torch.nn import functional

from hiresvit.bundle.folder import Bundle
from hiresvit.bundle.golden import Golden, read_pair, write_golden
from hiresvit.bundle.manifest import list_files, read_manifest, write_manifest
from hiresvit.data.image import load_image
from hiresvit.data.preprocess import preprocess, valid_region
from hiresvit.errors import ArtefactError, GateError, UsageError
from hiresvit.evaluation.latency import latency_report
from hiresvit.export.contract import contract_inputs, contract_outputs, read_contract
from hiresvit.export.deployed import Deployed
from hiresvit.export.frame import apply_contract
from hiresvit.export.simplify import SimplifyReport
from hiresvit.models.create import build_model, enliven, model_spec
from hiresvit.models.zoo import MODELS
from hiresvit.runtime.frame import picture_feed
from hiresvit.spec import ContractSpec, ModelSpec, PreprocessSpec
from hiresvit.workflows import export as pipeline
from hiresvit.workflows import frame as framing
from hiresvit.workflows.bench import BenchSettings, measure_sources
from hiresvit.workflows.build import trtexec_lines
from hiresvit.workflows.calibrate import quantize_file
from hiresvit.workflows.compare import compare_sources
from hiresvit.workflows.evaluate import EvalSettings, evaluate_sources
from hiresvit.workflows.export import export_bundle
from hiresvit.workflows.export_settings import ExportSettings
from hiresvit.workflows.inspect import inspect_source
from hiresvit.workflows.open import open_source
from hiresvit.workflows.quantize import Int8Settings
from hiresvit.workflows.verify import verify_bundle

IMGSZ, CAMERA = (64, 96), (90, 140)
CLASSES = 19
FAST = ExportSettings(latency=False, plan=False, images=1, threads=1)
FRAMED = ContractSpec("camera", size=CAMERA, confidence=True)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=Convolutions, strides=(4,)))
        patch.setattr(pipeline, "export_onnx", export_any)
        patch.setattr(pipeline, "simplify", leave)
        yield


def export_any(model: Any, spec: ModelSpec, **options: Any) -> onnx.ModelProto:
    """Once for all that is done to pictures before."""
    return export_once(model, replace(spec, preprocess=PreprocessSpec()), **options)


def leave(model: onnx.ModelProto) -> tuple[onnx.ModelProto, SimplifyReport]:
    """What is simplified is not what this is about."""
    nodes = len(model.graph.node)
    return onnx.load_from_string(model.SerializeToString()), SimplifyReport(nodes, nodes, None)


def spec_of(task: Any = "segment", **preprocessing: Any) -> ModelSpec:
    spec = model_spec("hrvit_b1", task, IMGSZ, None if task == "features" else CLASSES)
    return replace(spec, preprocess=replace(spec.preprocess, **preprocessing))


def export(target: Path, contract: ContractSpec, spec: ModelSpec | None = None, **settings: Any) -> Bundle:
    chosen = replace(FAST, contract=contract, **settings)
    return export_bundle(spec or spec_of(), target, chosen, command=["hiresvit", "export"])


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A camera's labels and confidence, in every precision, with latencies."""
    int8 = Int8Settings("scenes", images=2)
    target = tmp_path_factory.mktemp("framed") / "camera"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "simplify", simplify_once)
        patch.setattr(pipeline, "latency_report", lambda sides, min_s: latency_report(sides, min_s=min_s / 100))
        return export(target, FRAMED, fp16=True, int8=int8, images=2, latency=True)


@pytest.fixture
def folder(framed: Bundle, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(framed.folder, tmp_path / "camera"))


def seal(folder: Path) -> None:
    """A manifest that is consistent with the files as they are now: what no accident does."""
    manifest = read_manifest(folder / "manifest.json")
    write_manifest(folder, replace(manifest, files=list_files(folder, manifest.weights)))


class TestWhatIsInIt:
    def test_every_graph_has_the_contract(self, framed: Bundle) -> None:
        manifest = framed.manifest
        whole = replace(FRAMED, label_type="uint8")
        assert manifest.contract == whole
        assert manifest.inputs == contract_inputs(manifest.spec, whole)
        assert manifest.outputs == contract_outputs(manifest.spec, whole)
        assert list(manifest.graphs) == ["cpu", "fp16", "fp32", "int8", "simplified"]
        for stage, described in manifest.graphs.items():
            model = onnx.load(framed.path(stage))
            onnx.checker.check_model(model, full_check=True)
            assert read_contract({prop.key: prop.value for prop in model.metadata_props}) == whole
            names = [value.name for value in (*model.graph.input, *model.graph.output)]
            assert names == ["image", "labels", "confidence"]
            assert described["nodes"] == len(model.graph.node)
        assert (framed.unlisted, set(manifest.latency["sides"])) == ((), {"pytorch", *manifest.graphs})

    def test_its_parity_is_of_tensors_and_of_answers(self, framed: Bundle) -> None:
        parity = framed.manifest.parity
        assert parity["stages"][0]["report"]["outputs"][0]["name"] == "logits"
        assert parity["contract"]["pictures"] == ["picture0.png", "picture0.jpg", "picture1.png"]
        rows = {stage["stage"]: stage for stage in parity["contract"]["stages"]}
        assert list(rows) == ["onnx", "simplified", "cpu", "fp16", "int8"]
        assert [row["gate"]["min_agreement"] for row in rows.values()] == [0.9999, 0.9999, 0.9999, 0.94, 0.45]
        for row in rows.values():
            assert row["report"]["answers"] == 3 * CAMERA[0] * CAMERA[1]
            assert row["report"]["agreement"] >= row["gate"]["min_agreement"]
        assert rows["int8"]["report"]["differing"] > 0, "compared with itself?"

    @pytest.mark.parametrize(
        ("task", "contract", "preprocessing"),
        [
            ("segment", ContractSpec(), {}),
            ("segment", ContractSpec(), {"resize": "stretch", "filter": "pillow"}),
            ("segment", ContractSpec(), {"resize": "slide"}),
            ("segment", ContractSpec("camera", size=CAMERA), {"resize": "letterbox", "filter": "pillow"}),
            ("classify", ContractSpec(), {}),
            ("classify", ContractSpec("image", top_k=3), {}),
            ("features", ContractSpec("camera", "bgra", CAMERA), {}),
        ],
    )
    def test_the_golden_answer_is_pillows_and_pytorchs(
        self, tmp_path: Path, task: Any, contract: ContractSpec, preprocessing: Any
    ) -> None:
        spec = spec_of(task, **preprocessing)
        bundle = export(tmp_path / "b", contract, spec)
        golden, picture = read_pair(bundle), np.asarray(Image.open(bundle.path("picture")))
        assert picture.shape[:2] == (CAMERA if contract.name == "camera" else (80, 72))
        if task == "features":
            assert golden.answer == {}
        elif task == "segment":
            answer = torch_labels(picture, spec)
            agreement = np.mean(golden.answer["labels"] == answer)
            assert golden.answer["labels"].shape == picture.shape[:2]
            assert agreement > 0.999, "float32 in another order, and no more"
        else:
            seen = np.asarray(golden.inputs["image"][0]) if contract.name == "image" else None
            feed = preprocess(picture, spec.preprocess, IMGSZ)
            if seen is not None:
                np.testing.assert_allclose(preprocess(seen, PreprocessSpec(), IMGSZ), feed, atol=1e-6)
            wanted = network(spec)(torch.from_numpy(feed)).softmax(1)[0]
            top = wanted.topk(contract.top_k or 5)
            assert golden.answer["classes"].tolist() == top.indices.tolist()
            np.testing.assert_allclose(golden.answer["probabilities"], top.values.numpy(), atol=1e-6)

    def test_the_bytes_are_the_same_again(
        self, framed: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "simplify", simplify_once)
        again = export(tmp_path / "again", FRAMED, fp16=True)
        for name in ("fp32.onnx", "simplified.onnx", "cpu.onnx", "fp16.onnx", "golden.npz", "golden.png"):
            assert (again.folder / name).read_bytes() == (framed.folder / name).read_bytes(), name


def network(spec: ModelSpec) -> Any:
    model = build_model(spec, seed=0)
    enliven(model, spec, 0)
    return torch.inference_mode()(Deployed(model.eval(), spec))


def torch_labels(picture: Any, spec: ModelSpec) -> Any:
    """From pixels to labels by Pillow or OpenCV's numbers, PyTorch, its interpolation and its argmax."""
    run = network(spec)
    if spec.preprocess.resize == "slide":  # 80x72 in windows of 64x96: enlarged to 107x96, two windows
        enlarged = Image.fromarray(picture).resize((96, 107), Image.Resampling.BILINEAR)
        if spec.preprocess.filter == "opencv":
            from hiresvit.data.resample import resample

            enlarged = Image.fromarray(resample(picture, (107, 96), spec.preprocess))
        whole = preprocess(np.asarray(enlarged), PreprocessSpec(), (107, 96))
        total, count = torch.zeros(1, CLASSES, 107, 96), torch.zeros(107, 1)
        for top in (0, 43):
            total[:, :, top : top + 64] += run(torch.from_numpy(whole[:, :, top : top + 64].copy()))
            count[top : top + 64] += 1
        logits = total / count
    else:
        top, left, height, width = valid_region(picture.shape[:2], spec.preprocess, IMGSZ)
        logits = run(torch.from_numpy(preprocess(picture, spec.preprocess, IMGSZ)))
        logits = logits[:, :, top : top + height, left : left + width]
    large = functional.interpolate(logits, picture.shape[:2], mode="bilinear", align_corners=False)
    return large[0].argmax(0).numpy()


# Planted faults


def other_mean(apply: Any) -> Any:
    def wrong(model: Any, spec: ModelSpec, contract: ContractSpec) -> Any:
        return apply(model, replace(spec, preprocess=replace(spec.preprocess, mean=(0.5, 0.5, 0.5))), contract)

    return wrong


def other_order(apply: Any) -> Any:
    def wrong(model: Any, spec: ModelSpec, contract: ContractSpec) -> Any:
        return apply(model, spec, replace(contract, pixels="bgr"))

    return wrong


def other_filter(apply: Any) -> Any:
    def wrong(model: Any, spec: ModelSpec, contract: ContractSpec) -> Any:
        return apply(model, replace(spec, preprocess=replace(spec.preprocess, filter="pillow")), contract)

    return wrong


def shifted(apply: Any) -> Any:
    """Labels that are one pixel to the right."""

    def wrong(model: Any, spec: ModelSpec, contract: ContractSpec) -> Any:
        made = apply(model, spec, contract)
        for node in made.graph.node:
            node.output[:] = ["unshifted" if name == "labels" else name for name in node.output]
            node.input[:] = ["unshifted" if name == "labels" else name for name in node.input]
        rows = helper.make_tensor("columns", 7, [CAMERA[1]], np.roll(np.arange(CAMERA[1]), 1))
        made.graph.initializer.append(rows)
        made.graph.node.append(helper.make_node("Gather", ["unshifted", "columns"], ["labels"], axis=2))
        return made

    return wrong


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        *(("segment", fault) for fault in (other_mean, other_order, other_filter, shifted)),
        *((task, fault) for task in ("classify", "features") for fault in (other_mean, other_order)),
    ],
)
def test_a_fault_in_what_is_put_around_a_graph_ends_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Any, fault: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(framing, "apply_contract", fault(apply_contract))
    with pytest.raises(GateError, match="onnx with contract camera: ") as caught:
        export(tmp_path / "b", ContractSpec("camera", size=CAMERA), spec_of(task))
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_other_colours_of_nv12_end_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = apply_contract
    wrong = lambda model, spec, contract: apply(model, spec, replace(contract, yuv="bt601"))  # noqa: E731
    monkeypatch.setattr(framing, "apply_contract", wrong)
    with pytest.raises(GateError, match="onnx with contract camera: "):
        export(tmp_path / "b", ContractSpec("camera", "nv12", CAMERA))


def test_a_bundle_with_a_contract_is_verified_and_its_parity_computed_again(framed: Bundle, folder: Path) -> None:
    found, failure = verify_bundle(framed.folder, weights="fresh", threads=1)
    assert failure is None
    assert {side["verdict"] for side in found["sides"]} == {"passed"}
    stages = found["parity"]["stages"]
    assert [stage["stage"] for stage in stages] == ["onnx", "simplified", "cpu", "fp16", "int8"]
    assert not any(stage["differs"] for stage in stages)

    golden = read_pair(framed)
    labels = (golden.outputs["labels"] + 1) % CLASSES
    write_golden(folder / "golden.npz", golden.inputs, golden.outputs | {"labels": labels}, golden.answer)
    seal(folder)
    _, failure = verify_bundle(folder, graphs=["cpu"], threads=1)
    assert isinstance(failure, GateError)
    assert "pixels are answered otherwise" in str(failure)


class TestOpening:
    @pytest.mark.parametrize("graph", ["fp32", "simplified", "cpu", "fp16", "int8"])
    def test_every_graph_replays_the_pair(self, framed: Bundle, graph: str) -> None:
        source = open_source(str(framed.folder), graph=graph, threads=1)
        with source.runner as runner:
            assert source.contract == framed.manifest.contract
            assert runner(read_pair(framed).inputs)["labels"].dtype == np.uint8

    def test_a_graph_alone_knows_its_contract(self, framed: Bundle) -> None:
        source = open_source(str(framed.path("fp16")), threads=1)
        assert (source.contract, source.spec) == (framed.manifest.contract, framed.manifest.spec)
        source.runner.close()

    def test_a_schema_5_is_opened_as_before(self, schema_5: Path) -> None:
        source = open_source(str(schema_5), threads=1)
        assert (source.contract, source.labels and source.labels.names) == (ContractSpec(), ("road", "sky"))
        source.runner.close()

    def test_another_picture_is_found_by_its_sum(self, folder: Path) -> None:
        Image.open(folder / "golden.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "golden.png")
        with pytest.raises(ArtefactError, match=r"golden\.png (was changed|has \d+ bytes)"):
            open_source(str(folder), threads=1)
        seal(folder)
        with pytest.raises(ArtefactError, match="its picture does not become its input 'image'"):
            open_source(str(folder), threads=1)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda golden: golden.outputs.update(labels=golden.outputs["labels"] ^ 1), "cpu: 12600 of 12600 pixels"),
            (lambda golden: golden.outputs.update(confidence=golden.outputs["confidence"] // 2), "cpu: confidence is"),
            (lambda golden: golden.answer.update(labels=golden.answer["labels"][:, ::-1]), "the picture's answer: "),
            (lambda golden: golden.answer.update(labels=golden.answer["labels"][:9]), "the reference answers"),
            (lambda golden: golden.answer.update(labels=golden.answer["labels"].astype(np.int32)), "is int32"),
            (lambda golden: golden.answer.clear(), "it lacks, or has too many, .'answer/labels.npy'."),
        ],
    )
    def test_answers_that_do_not_come_out(
        self, framed: Bundle, folder: Path, change: Callable[[Golden], object], said: str
    ) -> None:
        golden = read_pair(framed)
        change(golden)
        write_golden(folder / "golden.npz", *golden)
        seal(folder)
        with pytest.raises(ArtefactError, match=said) as caught:
            open_source(str(folder), threads=1)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "hiresvit.contract metadata is damaged"),
            ("{}", "hiresvit.contract metadata is damaged: it must contain"),
            (json.dumps(asdict(FRAMED) | {"size": [0, 1]}), "hiresvit.contract metadata is damaged: size"),
            (json.dumps(asdict(FRAMED)), "says a contract that its model cannot have: no label_type"),
            (json.dumps(asdict(FRAMED) | {"label_type": "uint8", "size": [64, 96]}), r"says that it takes image uint8"),
            (json.dumps(asdict(ContractSpec())), r"says that it takes image \[1, 3, 64, 96\]"),
        ],
    )
    def test_a_contract_in_metadata_that_is_wrong(self, framed: Bundle, tmp_path: Path, text: str, said: str) -> None:
        model = onnx.load(framed.path("cpu"))
        props = {prop.key: prop.value for prop in model.metadata_props}
        helper.set_model_props(model, props | {"hiresvit.contract": text})
        onnx.save(model, tmp_path / "a.onnx")
        with pytest.raises(ArtefactError, match=said) as caught:
            open_source(str(tmp_path / "a.onnx"), threads=1)
        assert "\n" not in str(caught.value)

    def test_a_graph_of_another_contract_than_the_manifests(self, folder: Path) -> None:
        model = onnx.load(folder / "cpu.onnx")
        props = {prop.key: prop.value for prop in model.metadata_props}
        values = json.loads(props["hiresvit.contract"]) | {"confidence": False}
        helper.set_model_props(model, props | {"hiresvit.contract": json.dumps(values)})
        onnx.save(model, folder / "cpu.onnx")
        seal(folder)
        with pytest.raises(ArtefactError, match="says contract camera, the manifest camera or another detail"):
            open_source(str(folder), threads=1)


class TestCommands:
    def test_bench_feeds_pixels(self, framed: Bundle) -> None:
        with open_source(str(framed.folder), threads=1).runner as runner:
            source = open_source(str(framed.folder), threads=1)
            found = measure_sources([source], BenchSettings(min_s=0.0)).report
            source.runner.close()
            assert found["sides"]["camera/cpu"]["calls"] > 0
            assert runner.inputs[0].dtype == "uint8"

    def test_compare_with_pytorch_and_with_itself(self, framed: Bundle) -> None:
        model = open_source("hrvit_b1", imgsz=IMGSZ, num_classes=CLASSES, threads=1)
        cpu, int8 = (open_source(str(framed.folder), graph=graph, threads=1) for graph in ("cpu", "int8"))
        image = load_image(framed.path("picture"))
        found, missed = compare_sources(model, cpu, [image], drawn=1, limits={"min_agreement": 0.9999})
        assert missed is None
        assert (found["images"], found["stages"][0]["report"]["answers"]) == (2, 2 * CAMERA[0] * CAMERA[1])
        assert compare_sources(cpu, model, [image], drawn=0, limits={"min_agreement": 0.9999})[1] is None
        found, missed = compare_sources(cpu, int8, [image], drawn=0, limits={"min_agreement": 1.0})
        assert "pixels are answered otherwise" in str(missed)
        with pytest.raises(UsageError, match="min_sqnr_db: what comes out of contract camera has only an agreement"):
            compare_sources(model, cpu, [image], drawn=0, limits={"min_sqnr_db": 30.0})
        with pytest.raises(UsageError, match="this is made for a camera of 90x140"):
            compare_sources(model, cpu, [image[:64]], drawn=0, limits={})
        other = replace(int8, contract=replace(int8.contract, pixels="bgr"))
        with pytest.raises(UsageError, match="or another detail of it: compare two of one contract"):
            compare_sources(cpu, other, [image], drawn=0, limits={})
        for source in (model, cpu, int8):
            source.runner.close()

    def test_eval_counts_the_labels_of_the_graph(self, tmp_path: Path) -> None:
        spec = spec_of(resize="stretch")
        rows = []
        for name, contract in (("camera", ContractSpec("camera", size=CAMERA)), ("tensor", ContractSpec())):
            source = open_source(str(export(tmp_path / name, contract, spec).folder), threads=1)
            with source.runner:
                [side] = evaluate_sources([source], EvalSettings("scenes", limit=1)).document["accuracy"]["sides"]
                rows.append(side["metrics"])
        assert rows[0]["miou"]["value"] >= 0
        assert set(rows[0]) == set(rows[1])

    def test_calibrate_says_what_to_give_instead(self, framed: Bundle, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"has contract camera.* hiresvit export with --int8 and its --contract"):
            quantize_file(framed.folder, tmp_path / "a.onnx", Int8Settings("scenes", images=1))

    def test_build_takes_any_of_its_graphs(self, framed: Bundle) -> None:
        from hiresvit.engine.build import BuildSettings

        assert all("fp16.onnx" in line["line"] for line in trtexec_lines(framed.folder, None, BuildSettings()))

    def test_the_documents_program_runs(
        self, framed: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = (Path(__file__).parents[2] / "docs" / "contract.md").read_text(encoding="utf-8")
        [program] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        monkeypatch.chdir(framed.folder.parent)
        exec(program, {})
        assert capsys.readouterr().out == "uint8 (1, 90, 140), 100.00 % as PyTorch has it\n"

    def test_inspect_knows_the_contract(self, framed: Bundle) -> None:
        for text in (framed.folder, framed.path("int8")):
            found = json.loads(json.dumps(inspect_source(str(text))))
            assert found["contract"] == json.loads(json.dumps(asdict(framed.manifest.contract)))


@pytest.mark.parametrize(
    ("contract", "settings", "said"),
    [
        (FRAMED, {"io": "fp16", "fp16": True}, "--io fp16 with --contract camera: no tensor goes in"),
        (FRAMED, {"resize": False}, "--logits head with --contract camera: labels come out"),
        (ContractSpec("camera"), {}, "contract camera has no size"),
        (ContractSpec("camera", "nv12", (91, 140)), {}, "both sides must be even"),
        (ContractSpec("image", top_k=3), {}, "top_k 3 with task segment"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path: Path, contract: ContractSpec, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        export(tmp_path / "b", contract, **settings)


def test_a_dynamic_batch_has_the_contract_per_picture(tmp_path: Path) -> None:
    bundle = export(tmp_path / "b", ContractSpec("image", "nv12", confidence=True), dynamic_batch=True)
    assert [tensor.shape[0] for tensor in (*bundle.manifest.inputs, *bundle.manifest.outputs)] == ["batch"] * 4
    with open_source(str(bundle.folder), threads=1).runner as runner:
        picture = load_image(bundle.path("picture"))
        feed = picture_feed(picture, bundle.manifest.spec, bundle.manifest.contract)
        one = runner(feed)
        two = runner({name: np.concatenate((array, array)) for name, array in feed.items()})
        for name, array in one.items():
            np.testing.assert_array_equal(two[name], np.concatenate((array, array)))
