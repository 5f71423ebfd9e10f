"""COCO-Stuff in its true layouts: 182 names with gaps become 171 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from published import numbers, photo, save, write_coco_stuff

from hiresvit.data.open import open_dataset
from hiresvit.data.pairs import Pairs
from hiresvit.errors import HiresvitError

# Names beside every gap and at both ends: typed from labels.txt of nightrome/cocostuff (commit cad94560), whose numbers
# are one more than those of the files, as its README says.
NAMES = {
    1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack", 28: "umbrella", 31: "handbag",
    44: "bottle", 46: "wine glass", 65: "bed", 67: "dining table", 70: "toilet", 72: "tv", 82: "refrigerator",
    84: "book", 90: "toothbrush", 92: "banner", 157: "sky-other", 182: "wood",
}  # fmt: skip
UNUSED = {
    12: "street sign", 26: "hat", 29: "shoe", 30: "eye glasses", 45: "plate", 66: "mirror", 68: "window", 69: "desk",
    71: "door", 83: "blender", 91: "hair brush",
}  # fmt: skip
# And of the table in mmseg's dataset_converters/coco_stuff164k.py (commit b7fcd9e5).
TRAIN_IDS = {0: 0, 10: 10, 12: 11, 24: 23, 26: 24, 27: 25, 30: 26, 43: 39, 45: 40, 64: 59, 66: 60, 69: 61, 71: 62, 81: 72, 83: 73, 89: 79, 91: 80, 181: 170, 255: 255}  # fmt: skip  # noqa: E501
FIRST = "annotations/val2017/000000000139.png"


def coco_stuff(root: Path, split: str | None = None) -> Pairs:
    found = open_dataset("coco_stuff", folder=root, split=split, imgsz=(1, 1))
    assert isinstance(found, Pairs)
    return found


def test_every_number_is_the_class_that_it_is_called(tmp_path: Path) -> None:
    write_coco_stuff(tmp_path)
    used = [number - 1 for number in range(1, 183) if number not in UNUSED]
    save(tmp_path / FIRST, numbers([*used, 255], (12, 15)))
    save(tmp_path / "images/val2017/000000000139.jpg", photo(0, (12, 15)))
    found = coco_stuff(tmp_path)
    labels = dict(zip([*used, 255], np.asarray(found[0].labels).ravel().tolist(), strict=False))
    said = {number: found.classes[labels[number - 1]] for number in NAMES}
    assert {number: name.replace(" ", "") for number, name in said.items()} == {
        number: name.replace(" ", "") for number, name in NAMES.items()
    }
    assert {number: labels[number] for number in TRAIN_IDS} == TRAIN_IDS
    assert sorted(labels.values()) == [*range(171), 255]


@pytest.mark.parametrize("number", sorted(UNUSED))
def test_names_that_are_not_in_use_are_in_no_file(tmp_path: Path, number: int) -> None:
    write_coco_stuff(tmp_path)
    save(tmp_path / FIRST, numbers([0, number - 1]))
    with pytest.raises(
        HiresvitError, match=rf"139\.png has labels {number - 1}; COCO-Stuff has 0 to 181 without 11, 25"
    ):
        coco_stuff(tmp_path)[0]


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("images/val2017", "annotations/val2017"),
        ("val2017", "stuffthingmaps/val2017"),
        ("val2017", "annotations/val2017"),
    ],
)
def test_the_samples_of_each_layout(tmp_path: Path, pictures: str, labels: str) -> None:
    (tmp_path / "annotations").mkdir()  # COCO's own has instances_val2017.json
    found = coco_stuff(write_coco_stuff(tmp_path, pictures, labels))
    assert (found.name, len(found), found.ignore) == ("coco_stuff val", 2, 255)
    assert found.name_of(1) == f"{pictures}/000000000285.jpg"
    assert np.asarray(found[1].labels).ravel()[:4].tolist() == [0, 170, 255, 12]


def test_what_mmseg_converted_is_taken_as_it_is(tmp_path: Path) -> None:
    write_coco_stuff(tmp_path)
    own = sorted((tmp_path / "annotations/val2017").iterdir())
    for path in own:
        save(path.with_name(f"{path.stem}_labelTrainIds.png"), numbers([170, 255, 11]))
    assert np.asarray(coco_stuff(tmp_path)[0].labels).ravel()[:2].tolist() == [0, 170], (
        "the files' own numbers come first"
    )
    for path in own:
        path.unlink()
    found = coco_stuff(tmp_path)
    assert len(found) == 2
    assert np.asarray(found[0].labels).ravel()[:3].tolist() == [170, 255, 11]
    save(own[0].with_name(f"{own[0].stem}_labelTrainIds.png"), numbers([171]))
    with pytest.raises(HiresvitError, match="has labels 171; mmseg's converter writes 0 to 170, and 255 for none"):
        coco_stuff(tmp_path)[0]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write_coco_stuff(tmp_path)
    with pytest.raises(HiresvitError, match=r"has no folder images/train2017 or train2017; COCO-Stuff is DIR/images"):
        coco_stuff(tmp_path, "train")
    (tmp_path / FIRST).unlink()
    with pytest.raises(HiresvitError, match=r"1 of 2 pictures have no labels, the first is .*000000000139\.jpg; COCO-"):
        len(coco_stuff(tmp_path))
    for path in (tmp_path / "annotations/val2017").iterdir():
        path.unlink()
    with pytest.raises(HiresvitError, match=r"annotations/val2017: no \*\.png in it; COCO-Stuff is"):
        len(coco_stuff(tmp_path))
