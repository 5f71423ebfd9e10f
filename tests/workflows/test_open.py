"""Opening and describing what a user may name: a model, a graph, a bundle, and what is none of these."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from graphs import Array, build, content, distance, noise
from onnx import TensorProto, helper
from tiny import CLASSES, build_tiny, export_once, simplify_once, tiny_spec

from hiresvit.bundle.folder import Bundle, read_bundle
from hiresvit.bundle.golden import read_golden, read_pair, write_golden
from hiresvit.bundle.manifest import Manifest, list_files, write_manifest
from hiresvit.data.preprocess import preprocess
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.evaluation.parity import GATES, Gate, compare, compare_runs
from hiresvit.export.contract import fresh_weights, untrained_note
from hiresvit.models.create import build_model
from hiresvit.models.zoo import MODELS
from hiresvit.spec import Feed
from hiresvit.workflows import export as pipeline
from hiresvit.workflows.export import export_bundle
from hiresvit.workflows.export_settings import ExportSettings
from hiresvit.workflows.inspect import graph_summary, inspect_source
from hiresvit.workflows.open import open_source

SPEC = tiny_spec()
UNTRAINED = untrained_note(fresh_weights(0))


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    """The tiny HRViT in HRViT-b1's place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
        patch.setattr(pipeline, "export_onnx", export_once)
        patch.setattr(pipeline, "simplify", simplify_once)
        yield


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    settings = ExportSettings(fp16=True, plan=False, latency=False, images=1, threads=1)
    target = tmp_path_factory.mktemp("made") / "tiny"
    return export_bundle(SPEC, target, settings, command=["hiresvit", "export"])


@pytest.fixture
def folder(made: Bundle, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(made.folder, tmp_path / "tiny"))


def seal(folder: Path, manifest: Manifest, **changes: Any) -> None:
    """Write a manifest that is consistent with the files as they are now: what no accident does."""
    write_manifest(folder, replace(manifest, files=list_files(folder, manifest.weights), **changes))


class TestModels:
    def test_a_name_is_pytorch_with_an_exports_weights(self, made: Bundle) -> None:
        source = open_source("hrvit_b1", imgsz=(64, 96), num_classes=CLASSES, threads=1)
        assert (source.spec, source.label) == (SPEC, "hrvit_b1 (PyTorch)")
        inputs, outputs = read_golden(made)
        with source.runner as runner:
            assert runner.outputs == made.manifest.outputs
            # The same weights in the same PyTorch; the number of threads may differ.
            assert distance(outputs["logits"], runner(inputs)["logits"]) < 1e-5

    @pytest.mark.parametrize(
        ("task", "names"),
        [("classify", ["logits"]), ("features", [f"features_{stride}" for stride in (4, 8, 16, 32)])],
    )
    def test_the_other_tasks(self, task: Any, names: list[str]) -> None:
        with open_source("hrvit_b1", task=task, imgsz=(64, 64), threads=1).runner as runner:
            out = runner({"image": noise(1, 3, 64, 64)})
            assert list(out) == names == [spec.name for spec in runner.outputs]
            for spec in runner.outputs:
                sizes = zip(spec.shape, out[spec.name].shape, strict=True)
                assert all(isinstance(said, str) or said == found for said, found in sizes)

    def test_weights_of_a_checkpoint(self, tmp_path: Path) -> None:
        model = build_model(SPEC, seed=3)
        torch.save(model.state_dict(), tmp_path / "w.pth")
        image = noise(1, 3, 64, 96)
        answers: list[Array] = []
        for weights in (Path("w.pth"), None):
            with open_source(
                "hrvit_b1", weights=weights, imgsz=(64, 96), num_classes=CLASSES, threads=1
            ).runner as runner:
                answers.append(runner({"image": image})["logits"])
        with torch.inference_mode():
            wanted = torch.nn.functional.interpolate(
                model(torch.from_numpy(image)), scale_factor=4, mode="bilinear"
            ).numpy()
        assert distance(wanted, answers[0]) < 1e-5  # the number of threads may differ
        assert distance(wanted, answers[1]) > 1e-2

    @pytest.mark.parametrize(
        ("name", "options", "said"),
        [
            ("hrvit_b4", {}, "unknown model 'hrvit_b4': did you mean"),
            ("HRViT-B1x", {}, "did you mean hrvit_b1"),
            ("hrvit_b1", {"graph": "fp16"}, "--graph picks a file of a bundle; hrvit_b1 is a model name"),
            ("hrvit_b1", {"imgsz": (60, 64)}, "nearest"),
            ("hrvit_b1", {"task": "features", "num_classes": 3}, "features have no classes"),
        ],
    )
    def test_what_cannot_be_served(self, name: str, options: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError, match=said):
            open_source(name, **options)

    def test_description(self) -> None:
        found = inspect_source("hrvit_b2")
        assert (found["kind"], found["name"], found["family"]) == ("model", "hrvit_b2", "hrvit")
        [row] = [row for row in found["tasks"] if row["task"] == "segment"]
        assert (row["imgsz"], row["default"]) == ([512, 512], True)
        json.dumps(found)


class TestGraphs:
    def test_one_of_ours_says_which_model_it_is(self, made: Bundle) -> None:
        source = open_source(str(made.path("fp16")), threads=1)
        assert (source.spec, source.label) == (SPEC, "fp16.onnx")
        with source.runner as runner:
            assert runner({"image": noise(1, 3, 64, 96)})["logits"].shape == (1, CLASSES, 64, 96)

    def test_one_of_somebody_elses(self, tmp_path: Path) -> None:
        onnx.save(build("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }"), tmp_path / "a.onnx")
        source = open_source("a.onnx")
        assert source.spec is None
        with source.runner as runner:
            # doubles are cast to what the graph takes
            np.testing.assert_array_equal(runner({"x": -np.ones((2, 3))})["y"], np.zeros((2, 3), np.float32))

    def test_a_damaged_stamp(self, made: Bundle, tmp_path: Path) -> None:
        model = onnx.load(made.path("fp32"))
        helper.set_model_props(model, {"hiresvit.spec": '{"name": "hrvit_b1"}'})
        onnx.save(model, tmp_path / "a.onnx")
        for use in (open_source, inspect_source):
            with pytest.raises(ArtefactError, match="metadata is damaged"):
                use("a.onnx")

    @pytest.mark.parametrize(
        ("text", "error", "said"),
        [
            ("nothing.onnx", HiresvitError, r"nothing\.onnx: no such file"),
            ("nothing.plan", HiresvitError, r"cannot read .*nothing\.plan"),
            ("notes.txt", UsageError, r"no runtime for the suffix '\.txt'"),
            ("noise.onnx", HiresvitError, r"noise\.onnx is not an ONNX graph"),
            ("empty.onnx", HiresvitError, r"empty\.onnx is empty"),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, text: str, error: type[HiresvitError], said: str) -> None:
        (tmp_path / "notes.txt").write_text("notes")
        (tmp_path / "noise.onnx").write_bytes(noise(100).tobytes())
        (tmp_path / "empty.onnx").write_bytes(b"")
        with pytest.raises(error, match=said) as caught:
            open_source(text)
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)

    def test_description(self, made: Bundle) -> None:
        found = inspect_source(str(made.path("fp32")))
        model = onnx.load(made.path("fp32"))
        assert (found["kind"], found["stage"], found["opset"]) == ("graph", "fp32", 20)
        assert found["nodes"] == len(model.graph.node) == sum(found["operators"].values())
        assert found["attentions"] == 10
        assert found["bytes"] == made.path("fp32").stat().st_size
        assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": (1, 3, 64, 96)}]
        json.dumps(found)

    def test_a_graph_without_an_opset_of_onnx_has_none(self, tmp_path: Path) -> None:
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        graph = helper.make_graph([], "g", [value], [value])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("custom", 1)])
        (tmp_path / "a.onnx").write_bytes(content(model))
        assert graph_summary(tmp_path / "a.onnx")["opset"] is None


OPTIONS: list[dict[str, Any]] = [
    *(
        {"weights": Path("w.pth")},
        {"ema": True},
        {"task": "segment"},
        {"imgsz": (64, 96)},
        {"num_classes": 5},
    ),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_a_file_brings_its_own_options(made: Bundle, options: dict[str, Any]) -> None:
    for text in (str(made.folder), str(made.path("fp32"))):
        with pytest.raises(UsageError, match=f"is a file and brings its own {next(iter(options))}"):
            open_source(text, **options)


class TestBundles:
    @pytest.mark.parametrize(
        ("graph", "label"), [(None, "cpu"), ("fp32", "fp32"), ("simplified", "simplified"), ("fp16", "fp16")]
    )
    def test_its_graphs_agree(self, made: Bundle, graph: str | None, label: str) -> None:
        source = open_source(str(made.folder), graph=graph, threads=1)
        assert (source.spec, source.label) == (SPEC, f"tiny/{label}")
        picture = np.random.default_rng(1).integers(0, 256, (70, 90, 3), np.uint8)
        feed = {"image": preprocess(picture, SPEC.preprocess, SPEC.imgsz)}
        with source.runner as runner, open_source(str(made.path("fp32")), threads=1).runner as reference:
            [output] = compare(reference, runner, [feed], "segment").outputs
        assert output.worst.sqnr_db > GATES["onnx" if label == "fp32" else label].min_sqnr_db

    @pytest.mark.parametrize(
        ("graph", "error", "said"),
        [
            ("int4", UsageError, "--graph int4: one of fp32, simplified, cpu, fp16, int8"),
            ("plan", ArtefactError, "has no plan file"),
            ("golden", UsageError, "--graph golden: one of"),
        ],
    )
    def test_a_graph_that_is_none(self, made: Bundle, graph: str, error: type[HiresvitError], said: str) -> None:
        with pytest.raises(error, match=said):
            open_source(str(made.folder), graph=graph)

    def test_a_graph_that_it_has_not(self, made: Bundle, folder: Path) -> None:
        (folder / "fp16.onnx").unlink()
        seal(folder, made.manifest)
        with pytest.raises(ArtefactError, match="has no fp16 file, only fp32, simplified, cpu, golden"):
            open_source(str(folder), graph="fp16")

    @pytest.mark.parametrize(
        ("gone", "label"),
        [
            (["cpu.onnx"], "tiny/simplified"),
            (["cpu.onnx", "fp16.onnx", "simplified.onnx"], "tiny/fp32"),
        ],
    )
    def test_the_best_of_what_is_left(self, made: Bundle, folder: Path, gone: list[str], label: str) -> None:
        for name in gone:
            (folder / name).unlink()
        seal(folder, made.manifest)
        assert open_source(str(folder), threads=1).label == label

    def test_another_runner_answers_the_same_and_is_named(self, made: Bundle) -> None:
        pytest.importorskip("openvino")
        source = open_source(str(made.folder), runner="openvino", threads=1)
        assert (source.spec, source.label, source.notes) == (SPEC, "tiny/cpu (openvino)", (UNTRAINED,))
        assert source.runner.about.backend == "OpenVINO"
        inputs, outputs = read_golden(made)
        with (
            source.runner as runner,
            open_source(str(made.path("cpu")), runner="openvino", threads=1).runner as file,
        ):
            answer = runner(inputs)["logits"]
            np.testing.assert_array_equal(answer, file(inputs)["logits"])
        # FP32 sums in another order: the gate of a FP32 graph.
        [output] = compare_runs(outputs, {"logits": answer}, "segment").outputs
        assert output.worst.sqnr_db > GATES["cpu"].min_sqnr_db

    def test_what_a_runner_has_to_say_is_a_note(self, made: Bundle) -> None:
        pytest.importorskip("openvino")
        source = open_source(str(made.folder), graph="fp16", runner="openvino", threads=1)
        said = "what the graph has in FP16 is computed in FP32, from weights in FP16"
        assert source.notes == (UNTRAINED, said)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("hrvit_b1", "--runner picks what opens a file; hrvit_b1 is a model name"),
            ("", "runner 'tflite': one of"),
        ],
    )
    def test_a_runner_that_is_none(self, made: Bundle, text: str, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            open_source(text or str(made.folder), runner="tflite")

    def test_one_without_graphs(self, made: Bundle, folder: Path) -> None:
        for path in folder.glob("*.onnx"):
            path.unlink()
        seal(folder, made.manifest)
        with pytest.raises(ArtefactError, match="has no fp32 file, only golden"):
            open_source(str(folder))

    def test_description(self, made: Bundle) -> None:
        found = inspect_source(str(made.folder))
        assert (found["kind"], found["unlisted"]) == ("bundle", [])
        assert {role: graph["stage"] for role, graph in found["graphs"].items()} == {
            role: role for role in ("fp32", "simplified", "cpu", "fp16")
        }
        assert found["graphs"]["fp16"]["nodes"] > found["graphs"]["simplified"]["nodes"]
        assert found["spec"]["name"] == "hrvit_b1"
        json.dumps(found)

    def test_files_that_nobody_listed_are_named(self, folder: Path) -> None:
        (folder / "notes.txt").write_text("mine")
        assert inspect_source(str(folder))["unlisted"] == ["notes.txt"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda folder: flip(folder / "fp16.onnx"),
    "a cut graph": lambda folder: cut(folder / "cpu.onnx"),
    "a cut pair": lambda folder: cut(folder / "golden.npz"),
    "a cut manifest": lambda folder: cut(folder / "manifest.json"),
    "a flipped bit in the manifest": lambda folder: flip(folder / "manifest.json"),
    "a lost file": lambda folder: (folder / "simplified.onnx").unlink(),
    "an exchanged file": lambda folder: shutil.copy(folder / "simplified.onnx", folder / "fp32.onnx"),
    "a link": lambda folder: link(folder / "fp32.onnx"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "somebody else's manifest": lambda folder: (folder / "manifest.json").write_text('{"kind": "app"}'),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_damage_is_found(folder: Path, what: str) -> None:
    DAMAGE[what](folder)
    for use in (open_source, inspect_source):
        with pytest.raises(ArtefactError, match="export the bundle again or copy it anew") as caught:
            use(str(folder))
        assert caught.value.exit_code == 7
        assert "\n" not in str(caught.value)


def golden_of(folder: Path) -> tuple[Feed, Feed]:
    return read_golden(read_bundle(folder))


def rewrite(folder: Path, inputs: Feed, outputs: Feed) -> None:
    """The pair with the answer that is there."""
    write_golden(folder / "golden.npz", inputs, outputs, read_pair(read_bundle(folder)).answer)


def other_numbers(folder: Path) -> None:
    inputs, outputs = golden_of(folder)
    rewrite(folder, inputs, {name: 1.01 * a for name, a in outputs.items()})


def other_picture(folder: Path) -> None:
    inputs, outputs = golden_of(folder)
    rewrite(folder, {name: a[..., ::-1] for name, a in inputs.items()}, outputs)


def other_input_shape(folder: Path) -> None:
    inputs, outputs = golden_of(folder)
    rewrite(folder, {name: a[:, :, :32] for name, a in inputs.items()}, outputs)


def other_output_shape(folder: Path) -> None:
    inputs, outputs = golden_of(folder)
    rewrite(folder, inputs, {name: a[:, :, :32] for name, a in outputs.items()})


def other_input_name(folder: Path) -> None:
    inputs, outputs = golden_of(folder)
    rewrite(folder, {"picture": inputs["image"]}, outputs)


def other_output_name(folder: Path) -> None:
    inputs, outputs = golden_of(folder)
    rewrite(folder, inputs, {"answer": outputs["logits"]})


def nan(folder: Path) -> None:
    inputs, outputs = golden_of(folder)
    rewrite(folder, inputs, {name: a * np.float32("nan") for name, a in outputs.items()})


@pytest.mark.parametrize(
    "change",
    [
        *(other_numbers, other_picture, other_input_shape, other_output_shape),
        *(other_input_name, other_output_name, nan),
    ],
)
def test_a_pair_that_does_not_come_out(made: Bundle, folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    seal(folder, made.manifest)  # all sums are right: only the replay can tell
    with pytest.raises(
        ArtefactError, match=r"the golden pair does not come out on this machine: |golden\.npz cannot be read \("
    ) as caught:
        open_source(str(folder), threads=1)
    message = str(caught.value)
    assert caught.value.exit_code == 7
    assert "\n" not in message
    assert "--min" not in message, "no option of the reader's lifts it"


def test_a_graph_of_other_weights_does_not_pass_for_this_one(made: Bundle, folder: Path) -> None:
    model = onnx.load(folder / "cpu.onnx")
    weight = max(model.graph.initializer, key=lambda tensor: tensor.ByteSize())
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.05)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "cpu.onnx")
    seal(folder, made.manifest)
    with pytest.raises(ArtefactError, match="the golden pair does not come out"):
        open_source(str(folder), threads=1)


def test_the_pair_is_held_to_the_exports_own_gate(made: Bundle, folder: Path) -> None:
    """A bundle that was exported with lower limits opens on the machine that made it."""
    other_numbers(folder)  # 40 dB
    parity = made.manifest.parity
    lenient = asdict(Gate(30.0, 0.99, 0.9))
    stages = [{**stage, "gate": lenient} for stage in parity["stages"] if stage["stage"] != "fp16"]
    seal(folder, made.manifest, parity={**parity, "stages": stages})
    assert open_source(str(folder), graph="simplified", threads=1).label == "tiny/simplified"
    seal(folder, made.manifest, parity=None)  # then the usual gates count
    with pytest.raises(ArtefactError, match=r"sqnr_db 40\.\d+, at least 90 is needed; export it again"):
        open_source(str(folder), graph="simplified", threads=1)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("hrvit_b9", UsageError, "unknown model"),
        ("notes.txt", UsageError, "give a model name, a checkpoint, an .onnx file, a plan or a bundle folder"),
        ("nothing.onnx", HiresvitError, "no such file"),
        ("some/where", HiresvitError, "some/where does not exist"),
        ("nothing.zip", HiresvitError, r"nothing\.zip does not exist"),
        ("empty", ArtefactError, "manifest.json cannot be read: No such file or directory"),
        ("noise.onnx", HiresvitError, r"noise\.onnx is not an ONNX graph"),
    ],
)
def test_there_is_nothing_to_describe(tmp_path: Path, text: str, error: type[HiresvitError], said: str) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=said) as caught:
        inspect_source(text)
    assert type(caught.value) is error
