"""`hiresvit.Predictor` on a bundle: what it takes, what it says, and what it refuses in one line."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hiresvit import Predictor
from hiresvit.data.pairs import load_labels
from hiresvit.data.scenes import sample_image
from hiresvit.errors import ArtefactError, HiresvitError, MissingDependency, UsageError
from hiresvit.workflows import predictor as predictor_module
from hiresvit.workflows.answer import Segmentation
from hiresvit.workflows.predictor import as_array


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Any:
    with Predictor(tiny_bundle, threads=1) as made:
        yield made


def test_a_picture_however_it_is_given(predictor: Predictor, tmp_path: Path) -> None:
    image = sample_image(3, 50, 70)
    Image.fromarray(image).save(tmp_path / "a.png")
    found = predictor(image)
    assert isinstance(found, Segmentation)
    assert found.labels.shape == (50, 70)
    assert found.labels.dtype == np.uint8
    assert found.confidence is None
    upside_down = np.flip(image, 0).copy()
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), np.flip(upside_down, 0)):
        other = predictor(given)
        assert isinstance(other, Segmentation)
        np.testing.assert_array_equal(other.labels, found.labels)
        np.testing.assert_array_equal(other.picture, image)


def test_many_pictures_of_mixed_sizes(predictor: Predictor) -> None:
    images = [sample_image(n, *size) for n, size in enumerate([(50, 70), (64, 96), (200, 31), (1, 1)])]
    for image, found in zip(images, predictor(images), strict=True):
        assert isinstance(found, Segmentation)
        np.testing.assert_array_equal(found.labels, predictor(image).labels)
        assert found.labels.shape == image.shape[:2]
    batch = np.stack([images[0], images[0][::-1]])
    np.testing.assert_array_equal(predictor(batch)[1].labels, predictor(batch[1]).labels)
    assert predictor([]) == []


def test_names_colours_shares_and_files(predictor: Predictor, tmp_path: Path) -> None:
    image = sample_image(3, 50, 70)
    found = predictor(image)
    assert isinstance(found, Segmentation)
    assert len(found.names) == len(found.colours) == predictor.spec.num_classes
    assert sum(row["share"] for row in found.shares) == pytest.approx(1)
    assert found.shares == found.save(tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as written:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(found.overlay()))
    found.save_labels(tmp_path / "l.png")
    np.testing.assert_array_equal(load_labels(tmp_path / "l.png"), found.labels)


def test_it_says_what_it_took(predictor: Predictor, tiny_bundle: Path) -> None:
    assert predictor.notes[0].startswith(f"{tiny_bundle.name}/cpu, by ONNX Runtime ")
    assert not any("--graph" in note or "--classes" in note for note in predictor.notes), "there is no command line"
    with Predictor(tiny_bundle, graph="fp16") as other:
        assert other.notes[0].startswith(f"{tiny_bundle.name}/fp16, by ONNX Runtime ")
    with Predictor(tiny_bundle / "fp32.onnx", runner="onnxruntime") as other:
        assert other.notes[0].startswith("fp32.onnx (onnxruntime), by ONNX Runtime ")


@pytest.mark.parametrize(
    ("driver", "fails", "taken"), [(False, False, None), (True, False, "plan"), (True, True, None)]
)
def test_auto_takes_the_plan_where_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: bool, fails: bool, taken: str | None
) -> None:
    asked = []
    (tmp_path / "fp16.plan").touch()

    def open_source(text: str, *, graph: str | None = None, **_: Any) -> Any:
        asked.append(graph)
        if graph == "plan" and fails:
            raise MissingDependency("no TensorRT here")
        return "opened"

    monkeypatch.setattr(predictor_module, "has_driver", lambda: driver)
    monkeypatch.setattr(predictor_module, "open_source", open_source)
    _, said = predictor_module._open(tmp_path, "auto", graph=None, threads=None, replay=True)
    assert asked[-1] == taken
    assert said == (() if not fails else ("the plan cannot be run here: no TensorRT here",))


def test_confidence_comes_with_the_labels(tiny_bundle: Path, predictor: Predictor) -> None:
    image = sample_image(3, 50, 70)
    with Predictor(tiny_bundle, confidence=True, threads=1) as sure:
        found = sure(image)
    assert isinstance(found, Segmentation)
    assert found.confidence is not None
    assert found.confidence.shape == (50, 70)
    assert found.confidence.dtype == np.uint8
    assert found.confidence.min() >= 255 // predictor.spec.num_classes
    np.testing.assert_array_equal(found.labels, predictor(image).labels)


def test_windows_slide_where_they_are_asked_for(tiny_bundle: Path, predictor: Predictor) -> None:
    image = sample_image(3, 96, 200)
    with Predictor(tiny_bundle, slide=(48, 72), threads=1) as sliding:
        found = sliding(image)
        assert isinstance(found, Segmentation)
        assert found.labels.shape == (96, 200)
        assert (found.labels != predictor(image).labels).any()
        small = sliding(image[:64, :96])  # a single window
        np.testing.assert_array_equal(small.labels, predictor(image[:64, :96]).labels)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), r"image is float32 \(4, 4, 3\); it must be uint8 \(height, width, 3\) RGB"),
        (np.zeros((4, 4), np.uint8), r"image is uint8 \(4, 4\); it must be"),
        (np.zeros((3, 4, 4), np.uint8), r"image is uint8 \(3, 4, 4\); it must be"),
        (np.zeros((0, 4, 3), np.uint8), r"image is uint8 \(0, 4, 3\); it must be"),
        (np.zeros((4, 4, 4), np.uint8), r"image is uint8 \(4, 4, 4\); it must be"),
        (np.zeros((1, 4, 4, 3), np.int16), r"image is int16 \(4, 4, 3\); it must be"),
        (7, "picture is a int; give a path, a PIL image or a uint8 array"),
        (b"x.png", "picture is a bytes; give a path"),
        (Image.new("LAB", (4, 4)), "the PIL image cannot be taken: its colours are CIE Lab"),
        ("missing.png", "missing.png: no such file"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture(predictor: Predictor, picture: Any, said: str) -> None:
    with pytest.raises(HiresvitError, match=f"^{said}") as caught:
        predictor(picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "F"])
def test_pillow_of_any_mode_is_what_its_file_would_be(mode: str) -> None:
    picture = Image.fromarray(sample_image(0, 9, 12)).convert("L" if mode in ("I;16", "F") else mode)
    found = as_array(picture.convert("I;16") if mode == "I;16" else picture.convert("F") if mode == "F" else picture)
    assert found.dtype == np.uint8
    assert found.shape == (9, 12, 3)
    expected = np.asarray(picture.convert("RGB"))
    assert np.abs(found.astype(int) - expected).max() <= (1 if mode == "F" else 0)


def test_what_is_no_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    (tmp_path / "a.pth").write_bytes(b"x")
    for given, kind, said in (
        (tmp_path / "nothing", HiresvitError, "nothing does not exist; give a bundle's folder"),
        (tmp_path, HiresvitError, "manifest"),
        (tmp_path / "a.pth", UsageError, "is a checkpoint"),
        ("hrvit_b1", HiresvitError, "hrvit_b1 does not exist"),
        (tmp_path / "a.onnx", HiresvitError, "a.onnx"),
    ):
        with pytest.raises(kind, match=said):
            Predictor(given)
    with pytest.raises(UsageError, match="runner 'torch': one of"):
        Predictor(tiny_bundle, "torch")
    with pytest.raises(UsageError, match="top_k 0"):
        Predictor(tiny_bundle, top_k=0)


def test_the_golden_pair_is_replayed_unless_it_is_left_out(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replay(*_: Any) -> None:
        raise ArtefactError("the golden pair does not come out")

    monkeypatch.setattr("hiresvit.workflows.open.replay_golden", replay)
    with pytest.raises(ArtefactError, match="golden pair"):
        Predictor(tiny_bundle)
    Predictor(tiny_bundle, replay=False).close()


def test_closed_is_closed(tiny_bundle: Path) -> None:
    made = Predictor(tiny_bundle, threads=1)
    made.close()
    made.close()
    with pytest.raises(UsageError, match="this predictor is closed"):
        made(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UsageError, match="this predictor is closed"):
        made.stream([])


def test_threads_are_served_one_after_the_other(predictor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [sample_image(n, 40 + n, 60) for n in range(6)]
    alone = [predictor(image).labels for image in images]
    assert predictor._network is not None
    runner, inside, most = predictor._network.runner, 0, 0
    guard = threading.Lock()

    class Watching:
        inputs, outputs = runner.inputs, runner.outputs

        def __call__(self, feeds: Any) -> Any:
            nonlocal inside, most
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            found = runner(feeds)
            with guard:
                inside -= 1
            return found

    monkeypatch.setattr(predictor._network, "runner", Watching())
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: predictor(image).labels, images * 2))
    assert most == 1
    for expected, found in zip(alone * 2, together, strict=True):
        np.testing.assert_array_equal(found, expected)
