"""ADE20K in its true layout: 0 is nothing, the 150 count from 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from published import numbers, palette_png, photo, save, write_ade20k

from hiresvit.data.open import open_dataset
from hiresvit.data.pairs import Pairs
from hiresvit.errors import HiresvitError

# "Idx" and the first of "Name" in objectInfo150.txt of the challenge (CSAILVision/sceneparsing).
OBJECTS = {1: "wall", 2: "building", 3: "sky", 13: "person", 21: "car", 84: "truck", 128: "bicycle", 150: "flag"}
FIRST = "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png"


def ade20k(root: Path, split: str | None = None) -> Pairs:
    found = open_dataset("ade20k", folder=root, split=split, imgsz=(1, 1))
    assert isinstance(found, Pairs)
    return found


@pytest.mark.parametrize("palette", [False, True])
def test_every_number_is_the_class_that_it_is_called(tmp_path: Path, palette: bool) -> None:
    write_ade20k(tmp_path)
    values = numbers(range(151), (13, 12))
    save(tmp_path / FIRST, palette_png(values) if palette else values)
    save(tmp_path / "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg", photo(0, (13, 12)))
    found = ade20k(tmp_path)
    labels = np.asarray(found[0].labels).ravel()[:151].tolist()
    assert labels == [255, *range(150)]
    assert {number: found.classes[labels[number]] for number in OBJECTS} == OBJECTS
    assert (found.ignore, len(found.classes)) == (255, 150)


def test_the_samples_one_of_them_grey_and_smaller(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    for root in (tmp_path, tmp_path / "ADEChallengeData2016"):
        found = ade20k(root)
        assert (found.name, len(found)) == ("ade20k val", 3)
        assert found.name_of(1).endswith("images/validation/ADE_val_00000002.jpg")
        image, labels = found[1].image, np.asarray(found[1].labels)
        assert (image.shape, labels.shape) == ((4, 5, 3), (4, 5))
        assert (image[..., 0] == image[..., 2]).all()
        assert labels.ravel()[:4].tolist() == [255, 0, 149, 1]
    write_ade20k(tmp_path, "training")
    assert len(ade20k(tmp_path, "train")) == 3


@pytest.mark.parametrize("wrong", [151, 255])
def test_numbers_that_a_converter_left_are_refused(tmp_path: Path, wrong: int) -> None:
    """255 is in labels from which the one was subtracted already: taken once more, walls would be nothing."""
    write_ade20k(tmp_path)
    save(tmp_path / FIRST, numbers([0, 1, wrong]))
    with pytest.raises(HiresvitError, match=rf"00000001\.png has labels {wrong}; ADE20K has 1 to 150, and 0 for none"):
        ade20k(tmp_path)[0]


def test_what_does_not_belong_together_is_named(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    extra = tmp_path / FIRST.replace("00000001", "00000009")
    save(extra, numbers([0]))
    with pytest.raises(HiresvitError, match=rf"1 of 4 label files have no picture, the first is {extra}; ADE20K is"):
        len(ade20k(tmp_path))
    extra.unlink()
    (tmp_path / FIRST).unlink()
    with pytest.raises(HiresvitError, match=r"1 of 3 pictures have no labels, the first is .*ADE_val_00000001\.jpg;"):
        len(ade20k(tmp_path))
    (tmp_path / "ADEChallengeData2016" / "annotations").rename(tmp_path / "annotations")
    with pytest.raises(HiresvitError, match="has no folder ADEChallengeData2016/annotations/validation; ADE20K is"):
        ade20k(tmp_path)
    (tmp_path / "ADEChallengeData2016" / "images").rename(tmp_path / "pictures")
    with pytest.raises(HiresvitError, match="has no folder images/validation or ADEChallengeData2016/images/val"):
        ade20k(tmp_path)
