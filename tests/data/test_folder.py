"""Data sets on a disk, written as other programs write them, and what is wrong with the ones that are refused."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.folder import Folder, read_class_list
from hiresvit.data.open import DATASETS, find_dataset, open_dataset
from hiresvit.data.pairs import load_labels
from hiresvit.errors import HiresvitError, UsageError

ROAD, CAR, SKY = 0, 3, 7
CLASSES: list[dict[str, Any]] = [
    {"index": ROAD, "name": "road", "colour": "#804080"},
    {"index": CAR, "name": "motor car", "colour": "#00008E"},
    {"index": SKY, "name": "sky"},
]
SIZE = (6, 8)


def write_list(folder: Path, **values: Any) -> None:
    values = {"task": "segment", "ignore": 255, "classes": CLASSES} | values
    (folder / "classes.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def labels_of(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice([ROAD, CAR, SKY, 255], SIZE).astype(np.uint8)


def save_picture(path: Path, seed: int, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)).save(path, **options)


def save_labels(path: Path, labels: NDArray[Any], *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    if palette:
        picture = picture.convert("P") if picture.mode != "L" else picture
        picture.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    picture.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pairs, one of them deeper, one with another ending and a palette, and files that are none of it."""
    found = tmp_path / "set"
    for index, name in enumerate(("a", "b", "city/c", "d.e")):
        save_picture(found / "images" / f"{name}.{'JPG' if index % 2 else 'png'}", index)
        save_labels(found / "labels" / f"{name}.png", labels_of(index), palette=index == 1)
    (found / "images" / ".DS_Store").write_bytes(b"\0")
    (found / "images" / "._a.png").write_bytes(b"\0")
    (found / "labels" / "notes.txt").write_text("by hand")
    write_list(found)
    return found


def test_the_samples(folder: Path) -> None:
    found = Folder(folder)
    assert (found.name, found.task, found.ignore, len(found)) == (str(folder), "segment", 255, 4)
    assert found.classes == {0: "road", 3: "motor car", 7: "sky"}
    assert found.colours == {0: (128, 64, 128), 3: (0, 0, 142)}
    for index in range(4):
        sample = found[index]
        assert sample.image.shape == (*SIZE, 3)
        np.testing.assert_array_equal(sample.labels, labels_of((0, 1, 2, 3)[index]))
    names = ["images/a.png", "images/b.JPG", "images/city/c.png", "images/d.e.JPG"]
    assert [found.name_of(index) for index in range(4)] == names
    with pytest.raises(IndexError):
        found[4]


def test_a_limit_takes_the_first(folder: Path) -> None:
    for limit, count in ((1, 1), (4, 4), (99, 4), (None, 4)):
        found = open_dataset("folder", folder=folder, imgsz=(1, 1), limit=limit)
        assert len(found) == count
        np.testing.assert_array_equal(found[count - 1].labels, labels_of(count - 1))
    with pytest.raises(UsageError, match="limit 0: give at least 1"):
        open_dataset("folder", folder=folder, imgsz=(1, 1), limit=0)


def test_only_the_class_list_is_read_for_names_and_colours(tmp_path: Path) -> None:
    write_list(tmp_path)
    assert Folder(tmp_path).classes[3] == "motor car"


def grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values)


def two_colours(values: NDArray[Any]) -> Image.Image:
    """Pillow writes one bit for each pixel then."""
    picture = Image.fromarray(values)
    picture.putpalette([9, 9, 9, 200, 0, 0])
    return picture


def one_bit(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values * 255).convert("1")


@pytest.mark.parametrize("picture", [grey, two_colours, one_bit])
def test_labels_are_what_pillow_was_given(picture: Callable[[NDArray[Any]], Image.Image], tmp_path: Path) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)
    picture(values).save(tmp_path / "l.png")
    found = load_labels(tmp_path / "l.png")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


def test_sixteen_bits_are_for_more_classes(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [300, 65535, 7]], np.uint16)
    grey(values).save(tmp_path / "l.png")
    found = load_labels(tmp_path / "l.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, values)


def raw_png(path: Path, depth: int, kind: int, values: NDArray[np.uint8]) -> None:
    """A PNG of less than 8 bits a pixel, as specialised tools write it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    bits = ((values[..., None] >> np.arange(depth)[::-1]) & 1).reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(3 * 2**depth)) if kind == 3 else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + colours
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [0, 3])
def test_grey_and_palettes_of_few_bits_are_numbers_too(depth: int, kind: int, tmp_path: Path) -> None:
    """Pillow spreads grey of 2 and of 4 bits over 0 to 255: label 3 would be 255, and ignored."""
    values = np.random.default_rng(0).integers(0, min(2**depth, 80), (5, 9), np.uint8)
    raw_png(tmp_path / "l.png", depth, kind, values)
    np.testing.assert_array_equal(load_labels(tmp_path / "l.png"), values)


def test_the_picture_is_turned_and_the_labels_are_not(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    save_picture(folder / "images" / "a.png", 0, exif=exif)
    with pytest.raises(HiresvitError, match=r"a\.png is 6x8, .*a\.png 8x6 \(EXIF turns the picture") as caught:
        Folder(folder)[0]
    assert str(folder / "labels" / "a.png") in str(caught.value)
    save_labels(folder / "labels" / "a.png", np.rot90(labels_of(0), k=-1).copy())
    assert Folder(folder)[0].image.shape == (8, 6, 3)


def test_names_that_are_no_utf_8(folder: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    save_picture(folder / "images" / f"{name}.png", 9)
    save_labels(folder / "labels" / f"{name}.png", labels_of(9))
    assert len(Folder(folder)) == 5
    (folder / "labels" / f"{name}.png").unlink()
    with pytest.raises(HiresvitError, match="1 of 5 pictures have no labels"):
        len(Folder(folder))


def test_composed_and_decomposed_names_are_one(folder: Path) -> None:
    save_picture(folder / "images" / "caf\u00e9.png", 9)
    save_labels(folder / "labels" / "cafe\u0301.png", labels_of(9))
    assert len(Folder(folder)) == 5


@pytest.mark.parametrize(("start", "end"), [(b"\xef\xbb\xbf", b"\r\n"), (b"", b"\n"), (b"\n", b"\r\n\r\n")])
def test_class_lists_of_other_editors(start: bytes, end: bytes, tmp_path: Path) -> None:
    text = json.dumps({"task": "segment", "classes": [{"index": 1, "name": "trottoir, côté"}]}, indent=1)
    (tmp_path / "classes.json").write_bytes(start + text.encode().replace(b"\n", end) + end)
    found = read_class_list(tmp_path / "classes.json")
    assert (found.classes, found.ignore) == ({1: "trottoir, côté"}, -1)


def test_classes_are_folders(tmp_path: Path) -> None:
    write_list(tmp_path, task="classify", ignore=None)
    for index, name in enumerate(("sky/z", "road/a", "road/more/b", "motor car/c")):
        save_picture(tmp_path / "images" / f"{name}.png", index)
    found = Folder(tmp_path)
    assert (found.task, len(found)) == ("classify", 4)
    assert [found[i].labels for i in range(4)] == [CAR, ROAD, ROAD, SKY]
    for name, said in (
        ("Motor_Car/d.png", "has no class Motor_Car; it has motor car, give both one spelling"),
        ("cat/d.png", "has no class cat; it has road, motor car, sky"),
        ("d.png", "d.png lies in no class's folder"),
    ):
        save_picture(tmp_path / "images" / name, 0)
        with pytest.raises(HiresvitError, match=said):
            len(Folder(tmp_path))
        (tmp_path / "images" / name).unlink()


def unlink(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:60])


def with_labels(labels: Any, mode: str | None = None) -> Callable[[Path], object]:
    def save(folder: Path) -> None:
        picture = Image.fromarray(np.asarray(labels))
        (picture.convert(mode) if mode else picture).save(folder / "labels" / "a.png")

    return save


def many(folder: Path) -> None:
    labels = np.arange(48, dtype=np.uint8).reshape(SIZE)
    Image.fromarray(labels).save(folder / "labels" / "a.png")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unlink("labels/b.png"), r"1 of 4 pictures have no labels, the first is .*images/b\.JPG; DIR/images/NAME"),
        (unlink("images/b.JPG"), r"1 of 4 label files have no picture, the first is .*labels/b\.png"),
        (lambda f: save_picture(f / "images" / "a.jpg", 0), r"a\.jpg and .*a\.png have one name"),
        (lambda f: (f / "labels").rename(f / "annotations"), r"labels: no files here that end in \.png; a data set is"),
        (lambda f: (f / "images").rename(f / "pictures"), r"images: no files here that end in \.jpg, \.jpeg"),
        (unlink("classes.json"), r"classes\.json: no such file"),
        (cut("labels/a.png"), r"labels/a\.png: not a readable PNG \(.*\); labels are numbers"),
        (cut("images/a.png"), r"images/a\.png: not a readable image"),
        (lambda f: (f / "labels" / "a.png").write_bytes(b""), r"labels/a\.png: not a readable PNG"),
        (lambda f: save_picture(f / "labels" / "a.png", 0, format="JPEG"), r"labels/a\.png: not a readable PNG"),
        (lambda f: save_picture(f / "labels" / "a.png", 0), r"labels/a\.png is RGB; labels are numbers, write a PNG"),
        (with_labels(labels_of(0), "LA"), r"labels/a\.png is grey with alpha; labels are numbers"),
        (with_labels(labels_of(0), "RGBA"), r"labels/a\.png is RGB with alpha"),
        (with_labels(labels_of(0)[:4]), r"labels/a\.png is 4x8, .*images/a\.png 6x8; give a label for each pixel"),
        (
            with_labels(np.where(labels_of(0) == 3, 4, labels_of(0))),
            r'labels/a\.png has labels 4; classes\.json allows 0, 3, 7, and 255 for none: .*"ignore"',
        ),
        (many, r"has labels 1, 2, 4, 5, 6 and 40 more; classes\.json allows"),
        (lambda f: write_list(f, ignore=None), r"has labels 255; classes\.json allows 0, 3, 7: repair"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_named(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(folder)
    with pytest.raises(HiresvitError, match=words) as caught:
        Folder(folder)[0]
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def entry(**values: Any) -> list[dict[str, Any]]:
    return [*CLASSES, {"index": 9, "name": "dog", **values}]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "detect"}, 'task is "detect"; give "segment" or "classify"'),
        ({"task": None}, "it has no task; give task, classes, perhaps ignore"),
        ({"classes": None}, "it has no classes"),
        ({"classes": []}, r"classes is \[\]; give a list of"),
        ({"classes": {"0": "road"}}, r'classes is \{"0": "road"\}; give a list'),
        ({"classes": ["road"]}, 'class 0 of the list is "road"; give an object with index, name, perhaps colour'),
        ({"name": "mine"}, 'it has "name", which means nothing here; give task'),
        ({"ignore": "void"}, 'ignore is "void"; it is a label from 0 to 65535'),
        ({"ignore": -1}, "ignore is -1"),
        ({"ignore": 7}, "class 2 of the list has index 7; give 0 to 65535, but not the ignored one"),
        ({"task": "classify"}, "ignore is 255; .* only segmentation has one"),
        ({"classes": entry(index=-1)}, "class 3 of the list has index -1"),
        ({"classes": entry(index=65536)}, "class 3 of the list has index 65536"),
        ({"classes": entry(index=True)}, "class 3 of the list has index true"),
        ({"classes": entry(index="9")}, 'class 3 of the list has index "9"'),
        ({"classes": entry(index=3)}, "motor car and dog both have index 3"),
        ({"classes": entry(name="  ")}, 'class 3 of the list is called "  "; give a name'),
        ({"classes": entry(name=None)}, "class 3 of the list is called null"),
        ({"classes": entry(name="road")}, "road and road are one name twice"),
        ({"classes": entry(name="Road")}, "road and Road are one name twice; give each class a name of its own"),
        ({"classes": entry(name="Motor_Car")}, "motor car and Motor_Car are one name twice"),
        ({"classes": entry(colour="red")}, 'the colour of dog is "red"; give #rrggbb'),
        ({"classes": entry(colour=[1, 2, 3])}, r"the colour of dog is \[1, 2, 3\]"),
        ({"classes": entry(color="#ffffff")}, 'class 3 of the list has "color", which means nothing here; .*colour'),
        ({"classes": [{"index": 0}]}, "class 0 of the list has no name; give index, name, perhaps colour"),
    ],
)  # fmt: skip
def test_bad_class_lists(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    write_list(tmp_path, **values)
    with pytest.raises(HiresvitError, match=words) as caught:
        Folder(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "classes.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"road\nsky\n", b'{"task": "\xff"}', b"[" * 100_000, b"null", b"[]"])
def test_files_that_are_no_class_list(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "classes.json").write_bytes(data)
    with pytest.raises(HiresvitError, match=r"classes\.json: (not a JSON file in UTF-8|it is )") as caught:
        Folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_classes_may_be_painted_alike(tmp_path: Path) -> None:
    write_list(tmp_path, classes=entry(colour="#804080"))
    assert Folder(tmp_path).colours[9] == Folder(tmp_path).colours[ROAD]


@pytest.mark.parametrize("name", ["kitti", "Scenes", ""])
def test_unknown_data_sets_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"no data set is called {name}: there is {', '.join(DATASETS)}"):
        find_dataset(name)


def test_a_folder_where_one_is_needed_and_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the data set folder lies somewhere: give --data DIR; a data set is"):
        find_dataset("folder")
    with pytest.raises(UsageError, match="the data set scenes is drawn and lies nowhere: leave out --data"):
        find_dataset("scenes", tmp_path)
    with pytest.raises(HiresvitError, match="nowhere is no folder; a data set is"):
        open_dataset("folder", folder=tmp_path / "nowhere", imgsz=(1, 1))
