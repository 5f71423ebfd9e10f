"""`hiresvit verify`: every fault that is planted is found, with its own exit code, and the rest is still looked at."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles import edit
from conftest import Cli
from fake_cuda import FakeCuda
from plan_files import describe, save
from tiny import build_tiny

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.golden import read_pair, write_golden
from hiresvit.bundle.manifest import Weights, list_files, write_manifest
from hiresvit.bundle.stages import STAGES
from hiresvit.device.cuda import NO_GPU
from hiresvit.device.plan import Sidecar, sidecar_path, write_sidecar
from hiresvit.device.platform import has_driver
from hiresvit.errors import ArtefactError, MissingDependency
from hiresvit.models.zoo import MODELS
from hiresvit.runtime import onnxruntime_runner, preflight, tensorrt_runner
from hiresvit.workflows.open import open_source

GRAPHS = ["fp32", "simplified", "cpu", "fp16"]


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


def seal(folder: Path) -> None:
    """Write a manifest with sums that hold, as somebody who can write the folder would."""

    def relist(values: dict[str, Any]) -> None:
        values["files"] = [vars(entry) for entry in list_files(folder, Weights(**values["weights"]))]

    edit(folder, relist)


def add_plan(folder: Path, *, graph: bytes | None = None, kernels: int | None = None) -> None:
    """A plan of the FP16 graph as far as can be seen without TensorRT, listed with its sums.

    ``graph`` is what it was really built from, ``kernels`` what its manifest says of it.
    """
    plan, source = folder / STAGES["plan"].file, folder / STAGES["fp16"].file
    save(plan)
    report = describe(plan, "tensorrt", "10.3.0.30")
    built_from = hashlib.sha256(graph or source.read_bytes()).hexdigest()
    write_sidecar(plan, Sidecar(source.name, built_from, report))
    seal(folder)
    stated = json.loads(json.dumps(report.to_json())) | ({} if kernels is None else {"kernel_total": kernels})
    edit(folder, lambda values: values["engines"].update(fp16=stated))


def answer(cli: Cli, *args: str | Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, what it found, and stderr."""
    result = cli("verify", *args, "--threads", "1", "--json")
    document = json.loads(result.out)
    return result.code, document.get("verify", {}), result.err


class TestWhole:
    def test_a_whole_bundle_passes_on_every_graph(self, folder: Path, cli: Cli, tmp_path: Path) -> None:
        (folder / "notes.txt").write_text("mine")
        code, found, err = answer(cli, folder, "-o", tmp_path / "v.json")
        assert (code, err) == (0, "")
        assert [(side["graph"], side["verdict"]) for side in found["sides"]] == [(name, "passed") for name in GRAPHS]
        assert found["unlisted"] == ["notes.txt"]
        assert found["findings"] == []
        assert json.loads((tmp_path / "v.json").read_text())["verify"] == found

    def test_the_numbers_are_those_of_the_replay(self, folder: Path, cli: Cli) -> None:
        _, found, _ = answer(cli, folder, "--graph", "fp16")
        [side] = found["sides"]
        golden = read_pair(read_bundle(folder))
        with onnxruntime_runner.OnnxRuntimeRunner(folder / "fp16.onnx", threads=1) as runner:
            ours, expected = runner(golden.inputs)["logits"].astype(float), golden.outputs["logits"].astype(float)
        sqnr = 10 * np.log10((expected**2).sum() / ((expected - ours) ** 2).sum())
        [output] = side["report"]["outputs"]
        assert output["sqnr_db"] == pytest.approx(sqnr)
        assert output["max_abs"] == pytest.approx(np.abs(expected - ours).max())
        assert output["agreement"] == pytest.approx((expected.argmax(1) == ours.argmax(1)).mean())
        assert side["origin"]["sha256"] == hashlib.sha256((folder / "fp16.onnx").read_bytes()).hexdigest()
        assert side["gate"]["min_sqnr_db"] == 38

    def test_two_runners_each_have_a_row(self, folder: Path, cli: Cli) -> None:
        pytest.importorskip("openvino")
        code, found, _ = answer(cli, folder, "--graph", "cpu", "--runner", "onnxruntime", "--runner", "openvino")
        assert code == 0
        assert [side["origin"]["backend"] for side in found["sides"]] == ["ONNX Runtime", "OpenVINO"]

    def test_the_tables_for_people(self, folder: Path, cli: Cli) -> None:
        add_plan(folder)
        result = cli("verify", folder, "--threads", "1")
        assert result.code == 0, result.err
        for said in ("all sums as the manifest says", "passed", "90 dB, 99.9 %", "not run here", "tensorrt 10.3.0.30"):
            assert said in result.out


def flipped(folder: Path) -> None:
    path = folder / "cpu.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swapped(folder: Path) -> None:
    """Two graphs in each other's place, and all sums right."""
    one, other = folder / "cpu.onnx", folder / "simplified.onnx"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    seal(folder)


def no_graph(folder: Path) -> None:
    (folder / "fp16.onnx").write_bytes(b"no graph")
    seal(folder)


def cut_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-200])


def other_counts(folder: Path) -> None:
    edit(folder, lambda values: values["graphs"]["fp16"].update(nodes=7))


def other_shape(folder: Path) -> None:
    golden = read_pair(read_bundle(folder))
    write_golden(
        folder / "golden.npz",
        golden.inputs,
        {name: array[:, :, :32] for name, array in golden.outputs.items()},
        golden.answer,
    )
    seal(folder)
    edit(folder, lambda values: values["outputs"][0].update(shape=[1, 19, 32, 96]))


def other_model(folder: Path) -> None:
    """The golden pair of other weights, all of it consistent."""
    golden = read_pair(read_bundle(folder))
    other = {name: np.roll(array, 1, axis=1) for name, array in golden.outputs.items()}
    write_golden(folder / "golden.npz", golden.inputs, other, golden.answer)
    seal(folder)


def other_picture(folder: Path) -> None:
    golden = read_pair(read_bundle(folder))
    inputs = {name: array[..., ::-1] for name, array in golden.inputs.items()}
    write_golden(folder / "golden.npz", inputs, golden.outputs, golden.answer)
    seal(folder)


def other_answer(folder: Path) -> None:
    """Only what the output means for the picture is wrong."""
    golden = read_pair(read_bundle(folder))
    write_golden(folder / "golden.npz", golden.inputs, golden.outputs, {"labels": (golden.answer["labels"] + 1) % 19})
    seal(folder)


def other_weights(folder: Path) -> None:
    model = onnx.load(folder / "cpu.onnx")
    weight = max(model.graph.initializer, key=lambda tensor: tensor.ByteSize())
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.05)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "cpu.onnx")
    seal(folder)


FAULTS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "a flipped bit": (flipped, 7, "cpu.onnx was changed"),
    "swapped graphs": (swapped, 7, "has stage cpu, the manifest says simplified"),
    "what is no graph": (no_graph, 7, "fp16.onnx"),
    "a truncated manifest": (cut_manifest, 7, "manifest.json is not valid JSON"),
    "another number of nodes": (other_counts, 7, r"fp16.onnx has nodes \d+, the manifest says 7"),
    "a pair of another shape": (other_shape, 7, "the golden pair is not of this network"),
    "a pair of another picture": (other_picture, 7, "its picture does not become its input"),
    "a pair of another model": (other_model, 4, "does not answer the golden input as PyTorch did"),
    "another answer for the picture": (other_answer, 4, "the picture's answer"),
    "other weights in a graph": (other_weights, 4, "tiny/cpu does not answer"),
    "a stale plan": (lambda folder: add_plan(folder, graph=b"before"), 7, "fp16.plan is stale: it was built from"),
    "other numbers of a plan": (lambda folder: add_plan(folder, kernels=3), 7, "says another kernel_total"),
}


@pytest.mark.parametrize("what", list(FAULTS))
def test_a_fault_is_found_with_its_code(folder: Path, cli: Cli, what: str) -> None:
    plant, code, words = FAULTS[what]
    plant(folder)
    result = cli("verify", folder, "--threads", "1")
    assert result.code == code, result.err
    [line] = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert re.search(words, line), line
    assert "--min" not in line, "no option of verify's would lift it"


def test_whoever_opens_a_bundle_sees_swapped_graphs(folder: Path) -> None:
    """By the stamp, for which onnx need not be here."""
    swapped(folder)
    with pytest.raises(ArtefactError, match="says that it is simplified, the manifest cpu"):
        open_source(str(folder), threads=1)


def test_a_plan_that_is_not_what_stands_beside_it(folder: Path, cli: Cli) -> None:
    add_plan(folder)
    plan = folder / "fp16.plan"
    plan.write_bytes(plan.read_bytes()[:-1] + b"q")
    seal(folder)
    code, found, err = answer(cli, folder, "--graph", "cpu")
    assert (code, found["plans"][0]["verdict"]) == (7, "damaged")
    assert "is not the plan that fp16.plan.json describes" in err
    assert found["sides"][0]["verdict"] == "passed", "the rest is looked at all the same"


def test_a_plan_without_anything_beside_it_is_said(folder: Path, cli: Cli) -> None:
    add_plan(folder)
    sidecar_path(folder / "fp16.plan").unlink()
    seal(folder)
    edit(folder, lambda values: values["engines"].clear())
    code, found, _ = answer(cli, folder, "--graph", "cpu")
    assert (code, found["plans"][0]["verdict"]) == (0, "unknown")


class TestRunners:
    def test_what_is_no_runner_is_a_mistake_of_typing(self, folder: Path, cli: Cli) -> None:
        assert cli("verify", folder, "--runner", "tflite").code == 2
        result = cli("verify", folder, "--runner", "tensorrt")
        assert (result.code, result.out) == (2, "")
        assert "tensorrt opens .plan" in result.err
        assert cli("verify", folder, "--graph", "golden").code == 2
        assert cli("verify", folder, "--graph", "int8").code == 7, "it has none"

    def test_one_that_cannot_start_leaves_the_others(
        self, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(*_: Any, **__: Any) -> None:
            raise MissingDependency("OpenVINO is not installed")

        monkeypatch.setattr("hiresvit.runtime.openvino_runner.OpenVinoRunner", absent)
        code, found, err = answer(cli, folder, "--graph", "cpu", "--runner", "openvino", "--runner", "onnxruntime")
        assert code == 6
        assert "OpenVINO is not installed" in err
        assert [side["verdict"] for side in found["sides"]] == ["did not start", "passed"]
        assert found["sides"][0]["report"] is None, "what was not measured is no number"

    def test_a_missed_pair_counts_more_than_a_runner_that_is_not_there(
        self, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(*_: Any, **__: Any) -> None:
            raise MissingDependency("OpenVINO is not installed")

        monkeypatch.setattr("hiresvit.runtime.openvino_runner.OpenVinoRunner", absent)
        other_model(folder)
        code, found, err = answer(cli, folder, "--graph", "cpu", "--runner", "openvino", "--runner", "onnxruntime")
        assert (code, len(found["findings"])) == (4, 2)
        assert err.endswith("(and 1 more)\n")

    @pytest.mark.skipif(has_driver(), reason="this machine has a GPU")
    def test_a_plan_is_a_finding_only_where_it_was_asked_for(self, folder: Path, cli: Cli) -> None:
        add_plan(folder)
        code, found, _ = answer(cli, folder)
        [side] = [side for side in found["sides"] if side["graph"] == "plan"]
        assert (code, side["verdict"], found["plans"][0]["verdict"]) == (0, "not run here", "matches")
        assert NO_GPU in side["why"]
        for asked in (["--graph", "plan"], ["--runner", "tensorrt"]):
            code, found, err = answer(cli, folder, *asked)
            assert (code, found["sides"][0]["verdict"]) == (6, "did not start")
            assert NO_GPU in err


@pytest.mark.parametrize(("recommended", "role"), [("int8", "int8_plan"), ("fp16", "plan"), (None, "plan")])
def test_whoever_opens_a_bundle_is_told_of_the_plan_that_was_measured_to_be_better(
    folder: Path, monkeypatch: pytest.MonkeyPatch, recommended: str | None, role: str
) -> None:
    add_plan(folder)
    for name in ("int8.onnx", "int8.plan"):
        shutil.copy(folder / name.replace("int8", "fp16"), folder / name)
    seal(folder)
    calibration = {"source": "", "asked": 1, "images": 1, "skipped": [], "small": 0, "method": "mse", "tensors": 1}
    counts = {"sites_int8": 1, "macs_total": 1, "macs_share": 1.0, "attentions_int8": 0}
    said = {
        "calibration": calibration | {"dead": []},
        "policy": {"keep": []},
        "quantize": counts | {"sites_fp16": {}, "macs_fp16": {}, "attentions_fp16": {}},
        "decision": {"recommended": recommended, "latency": None},
    }
    edit(folder, lambda values: values.update(int8=said))
    monkeypatch.setattr("hiresvit.workflows.open.has_driver", lambda: True)
    [note] = [note for note in open_source(str(folder), threads=1).notes if "on the GPU" in note]
    assert f"--graph {role} runs" in note


class TestPlansThatRun:
    """On a CUDA and a TensorRT of host memory: the engine answers what the test says."""

    @pytest.fixture
    def engine(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        from fake_engine import FakeTensorRT, Network, Tensor, TensorIOMode

        add_plan(folder)
        golden = read_pair(read_bundle(folder))
        [(name, image)], [(logits, expected)] = golden.inputs.items(), golden.outputs.items()
        tensors = (Tensor(name, TensorIOMode.INPUT, image.shape), Tensor(logits, TensorIOMode.OUTPUT, expected.shape))

        def scaled(factor: float) -> None:
            plan = (folder / "fp16.plan").read_bytes()
            what = Network(tensors, compute=lambda _: {logits: expected * np.float32(factor)}, plan=plan)
            cuda = FakeCuda()
            fake = FakeTensorRT(cuda, what)
            monkeypatch.setattr(tensorrt_runner, "open_cuda", lambda: cuda)
            monkeypatch.setattr(tensorrt_runner, "find_backend", lambda wanted: wanted)
            monkeypatch.setattr(tensorrt_runner, "load", lambda _: fake)
            monkeypatch.setattr(preflight, "installed_version", lambda _: "10.3.0")
            monkeypatch.setattr(preflight, "check_device", lambda *_: None)

        return scaled

    def test_its_answer_is_held_to_the_gate(self, folder: Path, cli: Cli, engine: Callable[[float], None]) -> None:
        engine(1.001)  # 60 dB
        code, found, err = answer(cli, folder, "--graph", "plan")
        assert (code, err) == (0, ""), err
        [side] = found["sides"]
        assert (side["verdict"], side["origin"]["backend"]) == ("passed", "TensorRT")
        assert side["report"]["outputs"][0]["sqnr_db"] == pytest.approx(60, abs=0.1)
        engine(1.1)  # 20 dB, and the same labels
        code, found, err = answer(cli, folder, "--graph", "plan")
        assert (code, found["sides"][0]["verdict"]) == (4, "missed")
        assert "sqnr_db 20" in err


class TestAgain:
    """The report's parity, computed again from the weights."""

    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))

    def test_the_numbers_come_out_again(self, folder: Path, cli: Cli) -> None:
        code, found, err = answer(cli, folder, "--graph", "cpu", "--weights", "fresh")
        assert (code, err) == (0, "")
        assert [stage["stage"] for stage in found["parity"]["stages"]] == [
            *("onnx", "simplified", "cpu", "fp16", "fp16 exact")
        ]
        for stage in found["parity"]["stages"]:
            assert stage["differs"] == []
            assert stage["found"][f"{stage['stage']}, logits"]["sqnr_db"] > 36
        assert "computed again" in cli("verify", folder, "--graph", "cpu", "--weights", "fresh").out

    @pytest.mark.parametrize(("measure", "by"), [("sqnr_db", -4.0), ("agreement", -0.003), ("cosine", -0.002)])
    def test_another_number_in_the_report_is_found(self, folder: Path, cli: Cli, measure: str, by: float) -> None:
        def change(values: dict[str, Any]) -> None:
            [stage] = [stage for stage in values["parity"]["stages"] if stage["stage"] == "fp16"]
            stage["report"]["outputs"][0][measure] += by

        edit(folder, change)
        code, found, err = answer(cli, folder, "--graph", "cpu", "--weights", "fresh")
        assert code == 4
        assert f"fp16, logits: {measure} is" in err
        assert [stage["stage"] for stage in found["parity"]["stages"] if stage["differs"]] == ["fp16"]

    def test_other_weights_do_not_pass_for_the_bundles(self, folder: Path, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "a.safetensors").write_bytes(b"other")
        result = cli("verify", folder, "--weights", tmp_path / "a.safetensors")
        assert result.code == 7
        assert "was made from fresh, seed 0" in result.err
        bundle = read_bundle(folder)
        weights = replace(bundle.manifest.weights, source="a.safetensors", sha256="ab" * 32)
        files = list_files(folder, weights)
        write_manifest(folder, replace(bundle.manifest, weights=weights, files=files))
        code, found, err = answer(cli, folder, "--graph", "cpu", "--weights", tmp_path / "a.safetensors")
        assert (code, found["parity"], found["sides"][0]["verdict"]) == (7, None, "passed")
        assert "abababababab" in err
        assert cli("verify", folder, "--weights", tmp_path / "b").code == 1
