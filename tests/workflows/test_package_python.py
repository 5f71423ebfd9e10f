"""`hiresvit package --format python`: predict.py's labels are those of hiresvit, which it does without."""

from __future__ import annotations

import ast
import itertools
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import environment
from packages import make_bundle
from PIL import Image
from tensor_bundles import write_detector

from hiresvit.bundle.folder import read_bundle
from hiresvit.data.image import load_image
from hiresvit.data.preprocess import valid_region
from hiresvit.data.scenes import sample_image
from hiresvit.errors import UsageError
from hiresvit.runtime.boxes import find_boxes
from hiresvit.runtime.frame import labels_of, picture_feed
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.spec import ContractSpec, PreprocessSpec
from hiresvit.workflows.package.package import package_bundle

MOST_LINES = 100  # that are not empty
WITHOUT = """
import runpy, sys
sys.modules["hiresvit"], sys.argv = None, sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)
PREPROCESS = {
    "stretch": PreprocessSpec(),
    "bicubic": PreprocessSpec(interpolation="bicubic", mean=MEAN, std=STD, channels="bgr"),
    "crop": PreprocessSpec("crop"),
    "crop, round": PreprocessSpec("crop", rounding="round", crop_pct=0.9),
    "keep": PreprocessSpec("keep", mean=MEAN, std=STD),
    "keep, round": PreprocessSpec("keep", rounding="round", divisor=8, filter="opencv"),
    "letterbox": PreprocessSpec("letterbox", filter="opencv", mean=MEAN, std=STD, channels="bgr"),
}
SIZES = [(40, 56), (61, 35), (20, 97), (32, 48), (52, 72)]  # of the last a crop has half a pixel to round


def hiresvit_answer(bundle: Path, image: Any) -> Any:
    """The labels of a picture, or what comes out of a classifier."""
    found = read_bundle(bundle)
    spec, contract = found.manifest.spec, found.manifest.contract
    with OnnxRuntimeRunner(found.path("simplified"), threads=1) as runner:
        outputs = runner(picture_feed(image, spec, contract))
    return labels_of(outputs, image.shape[:2], spec, contract) if spec.task == "segment" else outputs


def program(folder: Path, most_lines: int = MOST_LINES) -> dict[str, Any]:
    """predict.py's functions, after what holds for each of them: short, and nothing of ours in it."""
    path = folder / "predict.py"
    text = path.read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in text.splitlines()) < most_lines
    modules = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    foreign = modules - set(sys.stdlib_module_names)
    assert foreign in ({"numpy", "PIL", "onnxruntime"}, {"numpy", "PIL", "tensorrt", "cuda"})
    return runpy.run_path(str(path))


@pytest.mark.parametrize("name", PREPROCESS)
@pytest.mark.parametrize("contract", [ContractSpec(), ContractSpec("image", "bgra")], ids=["tensor", "image"])
def test_labels_are_those_of_hiresvit(tmp_path: Path, name: str, contract: ContractSpec) -> None:
    preprocess = PREPROCESS[name]
    task = "classify" if preprocess.resize == "crop" else "segment"
    bundle = make_bundle(tmp_path / "b", contract, task=task, preprocess=preprocess, roles=("fp32", "simplified"))  # type: ignore[arg-type]
    folder = package_bundle(bundle, "python", tmp_path / "p").folder
    own = program(folder)
    graph, manifest = own["open_graph"](folder / "model.onnx"), read_bundle(bundle).manifest
    for size in SIZES:
        image = sample_image(1, *size)
        tensor, region = own["feed"](image)
        [given] = picture_feed(image, manifest.spec, manifest.contract).values()
        assert np.array_equal(tensor, given)
        expected = hiresvit_answer(bundle, image)
        if task == "segment":
            labels = own["labels_of"](graph(tensor), size, region)
            assert np.array_equal(labels, expected)
            assert len(np.unique(labels)) > 2, "there is something to see"
            if contract.name == "tensor":
                equals = {"logits": np.ones((1, 5, 32, 48), np.float32)}
                assert not own["labels_of"](equals, size, region).any(), "of equals the lowest"
            continue
        classes, shares = own["classes_of"](graph(tensor))
        if contract.name == "image":
            assert np.array_equal(classes, expected["classes"][0])
            assert np.array_equal(shares, expected["probabilities"][0])
        else:
            assert np.array_equal(classes, np.argsort(-expected["logits"][0], kind="stable")[:5])
            assert np.isclose(shares.sum(), 1)


@pytest.mark.parametrize("name", ["stretch", "keep, round", "letterbox"])
def test_boxes_are_those_of_hiresvit(tmp_path: Path, name: str) -> None:
    spec = write_detector(tmp_path / "b", PREPROCESS[name])
    folder = package_bundle(tmp_path / "b", "python", tmp_path / "p").folder
    own = program(folder, MOST_LINES + 30)
    graph = own["open_graph"](folder / "model.onnx")
    assert spec.anchors is not None
    for number, size in enumerate(SIZES):
        image = sample_image(number, *size)
        tensor, region = own["feed"](image)
        outputs = graph(tensor)
        equal = {each: np.round(values) for each, values in outputs.items()}
        for given in (outputs, equal):
            boxes, scores, classes = own["boxes_of"](given, size, region)
            wanted = find_boxes(given, spec.anchors, size, valid_region(size, spec.preprocess, spec.imgsz))
            assert np.array_equal(classes, wanted.classes)
            assert np.allclose(boxes, wanted.boxes, rtol=1e-6, atol=1e-5)
            assert np.allclose(scores, wanted.scores, rtol=1e-6)
            assert len(boxes) > 1
    Image.fromarray(sample_image(5, 90, 120)).save(tmp_path / "street.png")
    command = [sys.executable, "-c", WITHOUT, str(folder / "predict.py"), "street.png"]
    alone = {**environment(tmp_path), "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"( *\d+\.\d\d%( +\d+\.\d){4}  class \d\n){2,}", done.stdout)


@pytest.mark.parametrize("pixels", ["rgb", "bgr", "rgba", "bgra"])
def test_a_camera_has_its_own_size(tmp_path: Path, pixels: Any) -> None:
    bundle = make_bundle(tmp_path / "b", ContractSpec("camera", pixels, (40, 56)))
    folder = package_bundle(bundle, "python", tmp_path / "p").folder
    own = program(folder)
    image = sample_image(1, 40, 56)
    tensor, region = own["feed"](image)
    [given] = picture_feed(image, read_bundle(bundle).manifest.spec, read_bundle(bundle).manifest.contract).values()
    assert np.array_equal(tensor, given)
    labels = own["labels_of"](own["open_graph"](folder / "model.onnx")(tensor), (40, 56), region)
    assert np.array_equal(labels, hiresvit_answer(bundle, image))
    with pytest.raises(SystemExit, match="the picture is 32x48; this is made for a camera of 40x56"):
        own["feed"](sample_image(1, 32, 48))


def test_it_answers_without_hiresvit(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", preprocess=PREPROCESS["keep, round"])
    folder = package_bundle(bundle, "python", tmp_path / "p").folder
    Image.fromarray(sample_image(5, 90, 120)).save(tmp_path / "street.png")
    command = [sys.executable, "-c", WITHOUT, str(folder / "predict.py"), "street.png", "-o", "l.png"]
    alone = {**environment(tmp_path), "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "l.png") as picture:
        assert np.array_equal(np.asarray(picture), hiresvit_answer(bundle, load_image(tmp_path / "street.png")))
    assert "%  " in done.stdout


def test_every_program_is_short_and_python(tmp_path: Path) -> None:
    both = [ContractSpec(), ContractSpec("image", "rgba")]
    for number, (preprocess, contract) in enumerate(itertools.product(PREPROCESS.values(), both)):
        task = "classify" if preprocess.resize == "crop" else "segment"
        bundle = make_bundle(tmp_path / f"b{number}", contract, task=task, preprocess=preprocess, engine="tensorrt")  # type: ignore[arg-type]
        folder = package_bundle(bundle, "python", tmp_path / f"p{number}", graph="plan").folder
        own = program(folder)
        assert {"open_graph", "feed", "main"} <= own.keys()
        assert (folder / "model.plan").exists()
        assert json.loads((folder / "predict.json").read_text(encoding="utf-8"))["graph"] == "model.plan"


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    nv12 = make_bundle(tmp_path / "b", ContractSpec("camera", "nv12", (40, 56)))
    with pytest.raises(UsageError, match=r"predict\.py reads picture files, which are no NV12; export it with: .*56$"):
        package_bundle(nv12, "python", tmp_path / "p")
    slide = make_bundle(tmp_path / "s", preprocess=PreprocessSpec("slide"))
    with pytest.raises(UsageError, match="--resize slide takes more than one call"):
        package_bundle(slide, "python", tmp_path / "p")
    many = make_bundle(tmp_path / "m", classes=300)
    with pytest.raises(UsageError, match=r"300 classes; predict\.py writes a PNG with a byte a pixel, so 256 at most"):
        package_bundle(many, "python", tmp_path / "p")
    rtx = make_bundle(tmp_path / "r", engine="tensorrt_rtx")
    with pytest.raises(UsageError, match="--graph plan: TensorRT-RTX made this plan"):
        package_bundle(rtx, "python", tmp_path / "p", graph="plan")
    assert not (tmp_path / "p").exists()
