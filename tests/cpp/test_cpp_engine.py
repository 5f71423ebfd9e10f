"""The C++ engine: what it answers is what Python answers, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract_bundles import write_bundle
from cpp_engine import CEngine, CError, classes_of, label_answer, picture
from numpy.typing import NDArray
from onnx import helper
from tensor_bundles import IMGSZ, write_tensor

from hiresvit.bundle.folder import read_bundle
from hiresvit.data.pixels import from_pixels, to_pixels
from hiresvit.export.contract import TENSOR
from hiresvit.runtime.frame import label_maps, labels_of, picture_feed
from hiresvit.runtime.open import open_runner
from hiresvit.spec import ContractSpec, ModelSpec, Pixels, PreprocessSpec, TensorSpec, Yuv

Picture = NDArray[np.uint8]
Open = Callable[..., CEngine]
YUV: Yuv = "bt709"
SIZES = ((64, 96), (1, 1), (2, 301), (33, 70), (270, 480), (481, 202))


@pytest.fixture
def open_engine(cpp_build: Path, onnxruntime_library: Path) -> Iterator[Open]:
    """Opens engines, and closes them again."""
    engines: list[CEngine] = []

    def open_one(bundle: Path, **options: Any) -> CEngine:
        engines.append(CEngine(cpp_build, bundle, **{"library": onnxruntime_library, **options}))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()


def drawn(height: int, width: int, seed: int = 0) -> Picture:
    """A picture of soft spots: neighbours differ little, as in a photo, and every grey level comes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3)).repeat(9, 0).repeat(9, 1)[:height, :width]
    return np.asarray(np.clip(coarse + random.integers(-9, 10, coarse.shape), 0, 255), np.uint8)


def python_labels(bundle: Path, role: str, image: Picture) -> NDArray[Any]:
    """What Python's parts answer, on the same library with as many threads."""
    manifest = read_bundle(bundle).manifest
    runner = open_runner(read_bundle(bundle).path(role), threads=1)
    outputs = runner(picture_feed(image, manifest.spec, manifest.contract))
    return labels_of(outputs, image.shape[:2], manifest.spec, manifest.contract)


@pytest.mark.parametrize("role", ["cpu", "fp16"])
def test_labels_of_any_size_are_pythons(tiny_bundle: Path, open_engine: Open, role: str) -> None:
    engine = open_engine(tiny_bundle, graph=role)
    for index, size in enumerate(SIZES):
        image = drawn(*size, seed=index)
        want = python_labels(tiny_bundle, role, image)
        assert np.array_equal(engine.labels(picture([image])), want), size
        assert np.array_equal(engine.labels(picture([image]), "int64"), want)


@pytest.mark.parametrize("pixels", ["bgr", "rgba", "bgra", "nv12"])
def test_labels_of_any_layout_are_pythons(tiny_bundle: Path, open_engine: Open, pixels: Pixels) -> None:
    engine = open_engine(tiny_bundle)
    for yuv in ("bt601", "bt709-full") if pixels == "nv12" else (None,):
        feed = to_pixels(drawn(122, 98), pixels, yuv)
        planes = [plane[0] for plane in feed.values()]
        apart = [np.pad(plane, ((0, 0), (0, 6), *((0, 0),) * (plane.ndim - 2)))[:, :-6] for plane in planes]
        want = python_labels(tiny_bundle, "cpu", from_pixels(feed, pixels, yuv))
        assert np.array_equal(engine.labels(picture(planes, pixels, yuv)), want)
        assert np.array_equal(engine.labels(picture(apart, pixels, yuv)), want), "rows that lie apart"


@pytest.mark.parametrize("pixels", ["rgb", "bgra", "nv12"])
@pytest.mark.parametrize("name", ["image", "camera"])
def test_every_contract_is_served(tmp_path: Path, open_engine: Open, name: Any, pixels: Pixels) -> None:
    size, yuv = (60, 82) if name == "camera" else IMGSZ, None if pixels != "nv12" else YUV
    types: dict[str, Any] = {"rgb": "uint8", "bgra": "int32", "nv12": "int64"}
    contract = ContractSpec(name, pixels, size, yuv, types[pixels], confidence=True)
    spec = write_bundle(tmp_path / "bundle", contract, preprocess=PreprocessSpec("letterbox"))
    engine = open_engine(tmp_path / "bundle")
    runner = open_runner(tmp_path / "bundle" / "fp32.onnx", threads=1)
    for index, shape in enumerate([size] if name == "camera" else SIZES):
        image = drawn(*shape, seed=index)
        outputs = runner(picture_feed(image, spec, contract))
        labels, confidence = np.full(shape, 9, np.uint8), np.full((shape[0], shape[1] + 3), 9, np.uint8)
        engine.submit(picture([image]))
        engine.wait(label_answer(labels, confidence[:, :-3]))
        assert np.array_equal(labels, labels_of(outputs, shape, spec, contract)), shape
        sure = labels_of({"labels": outputs["confidence"]}, shape, spec, contract)
        assert np.array_equal(confidence[:, :-3], sure)
        assert (confidence[:, -3:] == 9).all()
    assert engine.output(0)[0] == "labels"


@pytest.mark.parametrize("stride", [1, 4])
def test_sums_of_queries_are_labels_as_logits_are(tmp_path: Path, open_engine: Open, stride: int) -> None:
    """What LRFormer+ gives: 0 to 100, at the input's size, and with postprocess=fast at a quarter of it."""
    random, shape = np.random.default_rng(1), (1, 5, *(side // stride for side in IMGSZ))
    values = {"w": random.normal(0, 4, (5, 3, 1, 1)), "hundred": np.array(100)}
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("Conv", ["small", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=1),
        helper.make_node("Mul", ["shares", "hundred"], ["logits"]),
    ]
    spec = ModelSpec("lrformer_t_plus", "lrformer", "segment", IMGSZ, 5, PreprocessSpec("keep"))
    write_tensor(tmp_path / "bundle", spec, nodes, values, [TensorSpec("logits", "float32", shape)])
    engine, runner = open_engine(tmp_path / "bundle"), open_runner(tmp_path / "bundle" / "fp32.onnx", threads=1)
    for index, size in enumerate(SIZES):
        image, labels, sure = drawn(*size, seed=index), np.full(size, 9, np.uint8), np.full(size, 9, np.uint8)
        sums = runner(picture_feed(image, spec, TENSOR))
        wanted, confidence = label_maps(sums, size, spec, TENSOR, confidence=True)
        engine.call("run", engine.handle, byref(picture([image])), byref(label_answer(labels, sure)))
        assert np.array_equal(labels, wanted)
        assert confidence is not None
        assert np.array_equal(sure, confidence)
        if index == 0:
            assert sums["logits"].max() > 50
            assert len(np.unique(labels)) > 2


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_a_classifier_names_its_best(tmp_path: Path, open_engine: Open, dtype: Any) -> None:
    contract = ContractSpec("image", "rgb", IMGSZ, None, dtype, top_k=2)
    write_bundle(tmp_path / "bundle", contract, "classify")
    blue = np.zeros((40, 40, 3), np.uint8) + np.array([1, 2, 3], np.uint8)
    classes, shares = classes_of(open_engine(tmp_path / "bundle"), picture([blue]), 5)
    odds = np.exp([3.0, 2.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    assert classes == [2, 1]
    assert shares == pytest.approx(odds, rel=1e-5)


def test_the_second_thread_is_told(tiny_bundle: Path, open_engine: Open) -> None:
    engine, given = open_engine(tiny_bundle), picture([drawn(200, 300)])
    want, codes, wrong = engine.labels(given), list[int](), list[int]()

    def use() -> None:
        for _ in range(20):
            try:
                wrong.append(int((engine.labels(given) != want).sum()))
            except CError as error:
                codes.append(error.code)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong
    assert not any(wrong)
    assert set(codes) <= {8}


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    """Exit code and line of a call that must not work."""
    with pytest.raises(CError) as caught:
        call()
    assert caught.value.args[0]
    assert "\n" not in caught.value.args[0]
    return caught.value.code, caught.value.args[0]


def test_bad_pictures_and_buffers_are_refused(tiny_bundle: Path, open_engine: Open) -> None:
    engine, image = open_engine(tiny_bundle), drawn(6, 8)
    labels = np.zeros((6, 8), np.uint8)

    def changed(**values: Any) -> Callable[[], object]:
        given = picture([image])
        for name, value in values.items():
            setattr(given, name, value)
        return lambda: engine.submit(given)

    for call in (
        changed(height=0),
        changed(width=-1),
        changed(width=2**20),
        changed(width=9),  # the stride is of 8
        changed(pixels=9),
        changed(yuv=7),
        changed(planes=(None, None)),
        lambda: engine.submit(picture([image[:, :, 0], image[:3, :4, :2]], "nv12")),  # of which colours?
        lambda: engine.submit(picture([image[:5, :, 0], image[:3, :4, :2]], "nv12", "bt601")),  # odd
    ):
        assert refusal(call)[0] == 1
    assert refusal(changed(struct_size=3))[0] == 2
    assert refusal(lambda: engine.wait(label_answer(labels)))[0] == 2  # nothing is under way
    engine.submit(picture([image]))
    engine.submit(picture([image]))
    assert "two frames" in refusal(changed())[1]
    assert refusal(lambda: engine.wait(label_answer(labels[:5])))[0] == 2
    engine.wait(label_answer(labels))
    engine.wait(label_answer(labels))
    engine.close()
    assert refusal(changed()) == (2, "the engine is NULL: it was closed, or opening it failed")


def test_what_cannot_be_opened(
    tiny_bundle: Path, bundle_copy: Path, open_engine: Open, cpp_build: Path, tmp_path: Path
) -> None:
    assert refusal(lambda: open_engine(tmp_path / "none"))[0] == 1
    assert refusal(lambda: open_engine(tiny_bundle, graph="plan"))[0] in (1, 7)  # it has none
    assert refusal(lambda: open_engine(tiny_bundle, graph="best"))[0] == 2
    assert refusal(lambda: open_engine(tiny_bundle, backend="cuda"))[0] == 2
    assert refusal(lambda: open_engine(tiny_bundle, backend="tensorrt", graph="cpu"))[0] == 2
    assert refusal(lambda: open_engine(tiny_bundle, threads=-1))[0] == 2
    assert refusal(lambda: open_engine(tiny_bundle, library=tmp_path / "lib.so"))[0] == 6
    code, line = refusal(lambda: open_engine(tiny_bundle, library=cpp_build / "tests" / "libold_onnxruntime.so"))
    assert code == 6
    assert "1.17.3" in line
    assert "1.18" in line
    code, line = refusal(lambda: open_engine(tiny_bundle, library=cpp_build / "tests" / "libno_onnxruntime.so"))
    assert code == 6
    assert "OrtGetApiBase" in line
    graph = bundle_copy / "cpu.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    assert refusal(lambda: open_engine(bundle_copy))[0] == 7
    graph.unlink()
    assert refusal(lambda: open_engine(bundle_copy))[0] == 7


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """To be changed."""
    import shutil

    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def test_the_golden_pair_is_replayed(tmp_path: Path, open_engine: Open) -> None:
    from hiresvit.bundle.golden import read_golden, write_golden
    from hiresvit.bundle.manifest import Manifest, list_files, write_manifest

    folder = tmp_path / "bundle"
    write_bundle(folder, ContractSpec("image", "rgb", IMGSZ, None, "uint8"))
    read = read_bundle(folder)
    inputs, outputs = read_golden(read)
    labels = outputs["labels"].copy()
    labels[0, :9] = 3  # more than a gate of 99.9 % lets pass
    write_golden(folder / "golden.npz", inputs, {"labels": labels})
    values = {**vars(read.manifest), "files": list_files(folder, read.manifest.weights)}
    write_manifest(folder, Manifest(**values))
    code, line = refusal(lambda: open_engine(folder))
    assert code == 7
    assert "golden pair" in line
    assert "labels has agreement" in line
    open_engine(folder, skip_golden=1)


def test_a_newer_schema_is_named(bundle_copy: Path, open_engine: Open) -> None:
    manifest = bundle_copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 7', '"schema_version": 8'))
    code, line = refusal(lambda: open_engine(bundle_copy))
    assert code == 7
    assert "schema version 8, this library reads 6 and 7" in line
