"""INT8 that is held to the labels of a data set on a disk: how its pictures are split, and what is promised by them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import run
from numpy.typing import NDArray
from PIL import Image
from published import write_cityscapes
from tiny import CLASSES, seven_convolutions, tiny_spec

from hiresvit.calibration.fallback import find_fallback
from hiresvit.data.dataset import Kept, Part
from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import HELD_OUT, SEARCH, Scenes, sample_image, sample_images, sample_scene
from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.models.create import model_spec
from hiresvit.workflows import proof
from hiresvit.workflows.quantize import Int8Settings, check_sources, make_int8
from hiresvit.workflows.split import split_pictures

SPEC = tiny_spec()


def write_labelled(folder: Path, count: int, shift: int = 0, classes: int = CLASSES) -> Path:
    """Pictures that are labelled with what the seven convolutions answer, each class called ``shift`` higher."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    simple, _ = seven_convolutions(classes)
    for index, image in enumerate(sample_image(seed, *SPEC.imgsz) for seed in range(50, 50 + count)):
        logits: NDArray[Any] = run(simple, {"image": preprocess(image, SPEC.preprocess, SPEC.imgsz)})[0]
        labels = (logits[0].argmax(0) + shift) % classes
        Image.fromarray(image).save(folder / "images" / f"{index:03}.png")
        Image.fromarray(labels.astype(np.uint8)).save(folder / "labels" / f"{index:03}.png")
    names = [{"index": i, "name": f"kind {i}"} for i in range(classes)]
    (folder / "classes.json").write_text(json.dumps({"task": "segment", "classes": names}))
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("labelled") / "set", 20)


def settings(folder: Path, **values: Any) -> Int8Settings:
    return Int8Settings("folder", data=folder, method="minmax", **{"images": 6, "threads": 1, **values})


# Of 20 pictures: what does not calibrate is a quarter, at least 8, and all that is not asked for.
@pytest.mark.parametrize(("images", "parts"), [(6, (6, 7, 7)), (2, (2, 9, 9)), (12, (12, 4, 4)), (64, (12, 4, 4))])
def test_a_folder_is_split_into_three_by_the_seed(labelled: Path, images: int, parts: tuple[int, int, int]) -> None:
    def split(seed: int) -> Any:
        return split_pictures("folder", labelled, SPEC, images=images, seed=seed, promised=True)

    found, again, other = split(0), split(0), split(1)
    search, result = found.labelled
    numbers = [[*map(int, found.calib.names)], [*search.indices], [*result.indices]]
    together = [number for part in numbers for number in part]
    assert tuple(map(len, numbers)) == parts
    assert len(together) == len(set(together)), "a picture has two uses"
    assert [*again.labelled[1].indices] == numbers[2]
    assert [*other.labelled[1].indices] != numbers[2]
    np.testing.assert_array_equal(search[0].image, found.search[0])


def test_more_pictures_than_are_needed(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search takes a half of what is left, up to its most, the proof what it needs."""
    from hiresvit.workflows import split

    monkeypatch.setattr(split, "SEARCH", 3)
    monkeypatch.setattr(split, "PROOF", 5)
    monkeypatch.setattr(split, "SHOWN", 2)
    for promised, proven in ((True, 5), (False, 2)):
        found = split_pictures("folder", labelled, SPEC, images=4, seed=0, promised=promised)
        assert found.labelled is not None
        assert [len(found.calib), *map(len, found.labelled)] == [4, 3, proven]


def test_scenes_have_seeds_for_each_part() -> None:
    spec = model_spec("hrvit_nano", imgsz=(32, 32))
    found = split_pictures("scenes", None, spec, images=3, seed=0, promised=True)
    assert found.labelled is not None
    search, result = found.labelled
    assert (len(found.calib), len(search), len(result)) == (3, 40, 200)
    assert isinstance(search, Kept)
    np.testing.assert_array_equal(search[5].image, sample_scene(SEARCH + 5, 32, 32).image)
    np.testing.assert_array_equal(result[5].image, sample_scene(HELD_OUT + 5, 32, 32).image)
    shown = split_pictures("scenes", None, spec, images=3, seed=0, promised=False).labelled
    assert shown is not None
    assert isinstance(shown[1], Part)
    assert len(shown[1]) == 40
    other = split_pictures("scenes", None, SPEC, images=3, seed=0, promised=False)
    assert other.labelled is None, "five classes are none of Scenes' nineteen"
    assert max(Scenes.classes) >= SPEC.num_classes


def test_the_promise_is_about_the_labels(labelled: Path) -> None:
    found = make_int8(*seven_convolutions(), SPEC, settings(labelled, max_drop=3.0)).report
    assert found["calibration"]["source"] == found["accuracy"]["data"] == str(labelled)
    assert (found["accuracy"]["metric"], found["accuracy"]["images"]) == ("mIoU", 7)
    assert found["accuracy"]["rows"]["fp32"] == 100
    assert 97 <= found["accuracy"]["rows"]["int8"] < 100
    assert "deaf" in found["fallback"]["kept"]
    assert found["fallback"]["full_drop"] > 20


def test_without_a_promise_it_is_shown(labelled: Path) -> None:
    graphs = seven_convolutions()
    found = make_int8(*graphs, SPEC, settings(labelled)).report
    assert found["accuracy"]["rows"]["fp32"] == 100
    assert found["accuracy"]["rows"]["int8"] < 80
    assert "fallback" not in found
    assert "accuracy" not in make_int8(*graphs, SPEC, settings(labelled, prove=False)).report


def test_a_proof_that_fails_names_the_folder(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is told that INT8 loses nothing, the labels of the proof say otherwise."""

    def content(sensitivity: Any, quantizer: Any, judge: Any, baseline: Any, _: float, **rest: Any) -> Any:
        return find_fallback(sensitivity, quantizer, judge, baseline, 100.0, **rest)

    monkeypatch.setattr(proof, "find_fallback", content)
    words = rf"mIoU of INT8 with 0 of 5 .* on 7 pictures of {re.escape(str(labelled))} that did not calibrate"
    with pytest.raises(GateError, match=words):
        make_int8(*seven_convolutions(), SPEC, settings(labelled, max_drop=3.0))


@pytest.mark.parametrize("drop", [None, 3.0])
def test_labels_in_another_order_prove_nothing(tmp_path: Path, drop: float | None) -> None:
    folder = write_labelled(tmp_path / "set", 12, shift=1)
    words = r"hrvit_b1 has \d\.\d\d % mIoU in FP32, and one answer for everything may have 20\.00 %: .*order of"
    with pytest.raises(HiresvitError, match=words):
        make_int8(*seven_convolutions(), SPEC, settings(folder, max_drop=drop))


def test_a_split_of_a_published_set_calibrates(tmp_path: Path) -> None:
    """Pictures of train, and what is measured on val later has seen none of them."""
    write_cityscapes(tmp_path)
    write_cityscapes(tmp_path, "train", [f"aachen/aachen_{number:06d}_000019" for number in range(12)])
    spec = model_spec("hrvit_nano", imgsz=(32, 32))
    chosen = Int8Settings("cityscapes", data=tmp_path, split="train", images=2)
    check_sources(chosen, spec)
    found = split_pictures("cityscapes", tmp_path, spec, part="train", images=2, seed=0, promised=True)
    assert found.labelled is not None
    assert found.calib.source == "cityscapes train"
    names = [dataset.name_of(index) for dataset in found.labelled for index in range(len(dataset))]
    assert len({*names}) == 10
    assert all(name.startswith("leftImg8bit/train/aachen/") for name in names)
    with pytest.raises(HiresvitError, match="hrvit_b1 answers classes 0 to 4, cityscapes train has class 5"):
        check_sources(chosen, SPEC)


def test_what_is_refused_before_any_work(labelled: Path, tmp_path: Path) -> None:
    few = write_labelled(tmp_path / "few", 9)
    six = write_labelled(tmp_path / "six", 1, classes=6)
    lonely = write_labelled(tmp_path / "lonely", 2)
    (lonely / "labels" / "001.png").unlink()
    for source, folder, words in (
        ("folder", six, "hrvit_b1 answers classes 0 to 4, .*six has class 5"),
        ("folder", lonely, "1 of 2 pictures have no labels"),
        ("folder", None, "the data set folder lies somewhere: give --data DIR"),
        ("scenes", labelled, "the data set scenes is drawn and lies nowhere: leave out --data"),
        ("photos", labelled, "no data set is called photos: there is scenes, folder"),
        ("folder", tmp_path / "nowhere", "nowhere is no folder"),
    ):
        with pytest.raises(HiresvitError, match=words):
            check_sources(Int8Settings(source, data=folder), SPEC)
    check_sources(Int8Settings("folder", data=labelled), SPEC)
    with pytest.raises(UsageError, match=r"a network to classify, .*set has labels to segment"):
        check_sources(Int8Settings("folder", data=labelled), tiny_spec("classify"))
    with pytest.raises(HiresvitError, match=r"9 pictures are too few .* give at least 10"):
        split_pictures("folder", few, SPEC, images=6, seed=0, promised=True)


def test_a_folder_called_folder_is_one_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    for index, image in enumerate(sample_images(2, (8, 8))):
        Image.fromarray(image).save(tmp_path / "folder" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    found = split_pictures("folder", None, SPEC, images=2, seed=0, promised=False)
    assert (len(found.calib), found.labelled) == (2, None)
