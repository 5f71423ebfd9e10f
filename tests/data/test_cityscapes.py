"""Cityscapes in its true layout: which numbers become which class, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published import FRAMES, numbers, palette_png, photo, save, write_cityscapes

from hiresvit.data.dataset import check_fit
from hiresvit.data.open import find_dataset, open_dataset
from hiresvit.data.pairs import Pairs
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import ModelSpec, PreprocessSpec

# What each id is called if it is evaluated: typed from the table in cityscapesScripts, helpers/labels.py, commit
# 4b832633. The others of 0 to 33 have ignoreInEval.
EVALUATED = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
# And trainId, from the same table, of ids that were easy to get wrong by one.
TRAIN_IDS = {
    0: 255,
    6: 255,
    7: 0,
    10: 255,
    11: 2,
    13: 4,
    14: 255,
    17: 5,
    18: 255,
    19: 6,
    28: 15,
    29: 255,
    31: 16,
    33: 18,
}
LABELS = f"gtFine/val/{FRAMES[0]}_gtFine_labelIds.png"


def cityscapes(root: Path, split: str | None = None) -> Pairs:
    found = open_dataset("cityscapes", folder=root, split=split, imgsz=(1, 1))
    assert isinstance(found, Pairs)
    return found


def test_every_id_is_the_class_that_it_is_called(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    save(tmp_path / LABELS, numbers(range(34), (6, 9)))
    found = cityscapes(tmp_path)
    labels = found[0].labels
    assert isinstance(labels, np.ndarray)
    assert labels.dtype == np.uint8
    said = {i: found.classes.get(label) for i, label in enumerate(labels.ravel()[:34].tolist())}
    assert said == {i: EVALUATED.get(i) for i in range(34)}
    assert {i: int(labels.ravel()[i]) for i in TRAIN_IDS} == TRAIN_IDS
    assert (found.ignore, len(found.classes), found.colours[13]) == (255, 19, (0, 0, 142))


def test_the_samples_in_the_order_of_their_cities(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    (tmp_path / "gtFine" / "val" / "frankfurt" / "._x_gtFine_labelIds.png").write_bytes(b"\0")
    found = cityscapes(tmp_path)
    assert (found.name, found.task, len(found)) == ("cityscapes val", "segment", 3)
    assert [found.name_of(i) for i in range(3)] == [f"leftImg8bit/val/{frame}_leftImg8bit.png" for frame in FRAMES]
    for index in range(3):
        np.testing.assert_array_equal(found[index].image, photo(index))
        assert np.asarray(found[index].labels).ravel()[:3].tolist() == [0, 13, 255]
    write_cityscapes(tmp_path, "train")
    assert cityscapes(tmp_path, "train").name_of(0).startswith("leftImg8bit/train/frankfurt/")
    assert len(open_dataset("cityscapes", folder=tmp_path, imgsz=(1, 1), limit=2)) == 2


def test_palettes_and_sixteen_bits_are_the_same_numbers(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    values = numbers([7, 33, 0, 24])
    for picture in (palette_png(values), Image.fromarray(values.astype(np.uint16))):
        save(tmp_path / LABELS, picture)
        assert np.asarray(cityscapes(tmp_path)[0].labels).ravel()[:4].tolist() == [0, 18, 255, 11]


def test_train_ids_only_where_there_are_no_ids(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    for frame in FRAMES:
        save(tmp_path / "gtFine" / "val" / f"{frame}_gtFine_labelTrainIds.png", numbers([18, 255, 0]))
    assert np.asarray(cityscapes(tmp_path)[0].labels).ravel()[:2].tolist() == [0, 13]
    for frame in FRAMES:
        (tmp_path / "gtFine" / "val" / f"{frame}_gtFine_labelIds.png").unlink()
    assert np.asarray(cityscapes(tmp_path)[0].labels).ravel()[:3].tolist() == [18, 255, 0]
    save(tmp_path / "gtFine" / "val" / f"{FRAMES[0]}_gtFine_labelTrainIds.png", numbers([19]))
    with pytest.raises(HiresvitError, match="has labels 19; Cityscapes has train ids 0 to 18, and 255 for none"):
        cityscapes(tmp_path)[0]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / LABELS).unlink(), r"1 of 3 pictures have no labels, the first is .*294_leftImg8bit\.png; City"),
        (lambda f: (f / "leftImg8bit/val/lindau").rename(f / "x"), r"1 of 3 label files have no picture, .*lindau_000"),
        (lambda f: save(f / LABELS, numbers([7], (6, 8))), r"labelIds\.png is 6x8, .*leftImg8bit\.png 6x9; give a"),
        (lambda f: save(f / LABELS, numbers([7, 34, 255])), r"labelIds\.png has labels 34, 255; Cityscapes has ids 0"),
        (lambda f: save(f / LABELS, photo(0)), r"labelIds\.png is RGB; labels are numbers, write a PNG of 8-bit"),
        (lambda f: (f / LABELS).write_bytes(b"\x89PNG"), r"labelIds\.png: not a readable PNG"),
        (
            lambda f: (f / f"leftImg8bit/val/{FRAMES[0]}_leftImg8bit.png").write_bytes(b"\x89PNG\r\n\x1a\n1234"),
            r"294_leftImg8bit\.png: not a readable image",
        ),
        (
            lambda f: [path.unlink() for path in f.glob("gtFine/val/*/*_labelIds.png")],
            r"gtFine/val: no CITY/\*_gtFine_labelIds\.png or CITY/\*_gtFine_labelTrainIds\.png in it; Cityscapes is",
        ),
        (
            lambda f: [path.unlink() for path in f.glob("leftImg8bit/val/*/*.png")],
            r"leftImg8bit/val: no CITY/\*_leftImg8bit\.png in it; Cityscapes is",
        ),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_named(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(write_cityscapes(tmp_path))
    with pytest.raises(HiresvitError, match=words) as caught:
        cityscapes(tmp_path)[0]
    assert "\n" not in str(caught.value)


def test_a_wrong_layout_says_which_folder_was_expected_where(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path / "data" / "cityscapes")
    for given in (root / "leftImg8bit", root / "gtFine" / "val", root.parent):
        words = rf"{given} has no folder leftImg8bit/val \(but {root} has: give --data {root}\); Cityscapes is DIR/left"
        with pytest.raises(HiresvitError, match=words):
            cityscapes(given)
    with pytest.raises(HiresvitError, match=r"nowhere is no folder; Cityscapes is DIR/leftImg8bit/val/CITY"):
        cityscapes(tmp_path / "nowhere")
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(HiresvitError, match="has no folder gtFine/val; Cityscapes is"):
        cityscapes(root)


def test_a_folder_of_another_set_is_not_recommended(tmp_path: Path) -> None:
    """gtFine has a folder val, too, and is no ImageNet."""
    with pytest.raises(HiresvitError, match=r"has no folder val or .*CLS-LOC/val; ImageNet is DIR"):
        open_dataset("imagenet", folder=write_cityscapes(tmp_path), imgsz=(1, 1))


def test_the_labels_of_test_are_not_there_to_be_measured_on(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "test")
    with pytest.raises(UsageError, match="--split test: no split of cityscapes is called so; there is val, train"):
        cityscapes(tmp_path, "test")
    for name in ("scenes", "folder"):
        with pytest.raises(UsageError, match=f"--split val: no split of {name} is called so; it has none, leave out"):
            find_dataset(name, None if name == "scenes" else tmp_path, "val")


def test_a_network_for_other_classes_is_refused(tmp_path: Path) -> None:
    found = cityscapes(write_cityscapes(tmp_path))
    for classes in (19, 150):
        spec = ModelSpec("toy", "toy", "segment", (8, 8), classes, PreprocessSpec())
        if classes == 19:
            check_fit(spec, found)
            continue
        with pytest.raises(UsageError, match="toy answers 150 classes, cityscapes val has 19; give a network"):
            check_fit(spec, found)


def test_nothing_is_listed_before_it_is_asked_for(tmp_path: Path) -> None:
    """As `run` only wants the names and colours."""
    root = write_cityscapes(tmp_path)
    (root / LABELS).unlink()
    found = cityscapes(root)
    assert found.classes[0] == "road"
    with pytest.raises(HiresvitError, match="1 of 3 pictures have no labels"):
        len(found)
