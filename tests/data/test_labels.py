"""What classes are called: tables known by name, files, what trainers write, and what is only assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dataset import Named, spec

from hiresvit.data.dataset import palette
from hiresvit.data.labels import (
    TABLES,
    assumption,
    find_labels,
    labels_from_json,
    labels_to_json,
    names_of_trainer,
    printable,
    read_classes,
    read_table,
)
from hiresvit.errors import HiresvitError, UsageError

# Spot checks by other writers than the tables' sources: Keras' imagenet_class_index.json, ADE20K's objectInfo150.csv
# (numbers from 1) with the colours of color150.mat, cocostuff's labels.md (label 1 to 182 in the published order).
SPOTS: dict[str, dict[int, tuple[str, str | None]]] = {
    "imagenet": {0: ("tench", None), 207: ("golden retriever", None), 817: ("sports car", None), 998: ("ear", None)},
    "ade20k": {0: ("wall", "#787878"), 12: ("person", "#96053d"), 20: ("car", "#0066c8"), 149: ("flag", "#5c00ff")},
    "coco_stuff": {0: ("person", None), 79: ("toothbrush", None), 80: ("banner", None), 170: ("wood", None)},
    "coco": {0: ("person", None), 2: ("car", None), 39: ("bottle", None), 79: ("toothbrush", None)},
    "cityscapes": {0: ("road", "#804080"), 11: ("person", "#dc143c"), 13: ("car", "#00008e"), 18: ("bicycle", None)},
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_whole(name: str) -> None:
    found, table = read_table(name), TABLES[name]
    assert (len(found.names), found.colours.shape) == (table.count, (table.count, 3))
    assert found.source == name
    assert all(text and text == printable(text) for text in found.names)
    for index, (text, colour) in SPOTS[name].items():
        assert found.names[index] == text
        if colour:
            assert bytes(found.colours[index]).hex() == colour[1:]


def test_what_is_assumed_is_said() -> None:
    for name, table in TABLES.items():
        found = find_labels(spec(table.count, table.task))
        assert (found.names, found.source) == (read_table(name).names, f"assumed {name}")
        note = assumption(found)
        assert note is not None
        assert table.title in note
        assert "--classes" in note
    assert find_labels(spec(150, "masks")).source == find_labels(spec(150)).source == "assumed ade20k"
    numbers = find_labels(spec(5))
    assert (numbers.names[4], numbers.source, assumption(numbers)) == ("class 4", "", None)
    assert find_labels(spec(19, "classify")).names[0] == "class 0"


def test_whoever_names_them_has_the_say() -> None:
    known = read_classes("cityscapes", 19)
    found = find_labels(spec(19), None, known)
    assert (found.source, assumption(found)) == ("cityscapes", None)
    assert find_labels(spec(19), Named({0: "cat"}), known).names[0] == "cat"
    with pytest.raises(UsageError, match="19 names for a network of 5 classes"):
        find_labels(spec(5), None, known)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "\ufeff# our classes\ncat\r\n\n big  dog \nbird\n"),
        ("names.json", '["cat", "big dog", "bird"]'),
        ("names.json", '{"0": "cat", "1": "big dog", "2": "bird"}'),
        ("names.json", '{"1": ["n02", "big dog"], "0": ["n01", "cat"], "2": ["n03", "bird"]}'),
        ("names.json", '{"big dog": 1, "bird": 2, "cat": 0}'),
        (
            "classes.json",
            '{"task": "segment", "classes": [{"index": 1, "name": "big dog", "colour": "#010203"},'
            ' {"index": 0, "name": "cat"}, {"index": 2, "name": "bird"}]}',
        ),
    ],
)
def test_a_file_names_them(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    found = read_classes(str(tmp_path / file), 3)
    assert (found.names, found.source) == (("cat", "big dog", "bird"), "file")
    if file == "classes.json":
        assert found.colours[1].tolist() == [1, 2, 3]
    with pytest.raises(UsageError, match="3 names for a network of 4 classes"):
        read_classes(str(tmp_path / file), 4)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("a.txt", b"", "has no names"),
        ("a.txt", b"cat\n\x1b\n", "the name of class 1 cannot be printed"),
        ("a.txt", b"\xff\xfec\x00", "not a text file in UTF-8"),
        ("a.json", b"[1, 2]", "is no list of names"),
        ("a.json", b'{"0": "cat", "2": "dog"}', "is no list of names"),
        ("a.json", b"[" * 100_000, "not a JSON file"),
        ("a.json", b'{"task": "segment", "classes": [{"index": 1, "name": "a"}]}', "has no class 0"),
    ],
)
def test_a_file_that_names_nothing(tmp_path: Path, file: str, text: bytes, said: str) -> None:
    (tmp_path / file).write_bytes(text)
    with pytest.raises(HiresvitError, match=said):
        read_classes(str(tmp_path / file), 2)


def test_what_is_neither_a_file_nor_a_table() -> None:
    with pytest.raises(HiresvitError, match=r"gone\.txt: no such file"):
        read_classes("gone.txt", 2)
    with pytest.raises(UsageError, match="--classes imagnet: give a file, or one of imagenet, ade20k"):
        read_classes("imagnet", 2)


NAMES = ["road", "car", "sky"]
COLOURS = [[1, 2, 3], [4, 5, 6], [7, 8, 255]]


@pytest.mark.parametrize(
    ("beside", "painted"),
    [
        ({"CLASSES": NAMES, "PALETTE": COLOURS}, True),  # mmseg 0.x, lifted out of its meta
        ({"meta": {"CLASSES": tuple(NAMES), "PALETTE": [tuple(row) for row in COLOURS]}}, True),
        ({"meta": {"dataset_meta": {"classes": NAMES, "palette": COLOURS}}}, True),  # mmengine
        ({"message_hub": {"runtime_info": {"dataset_meta": {"CLASSES": NAMES, "PALETTE": None}}}}, False),
        ({"classes": NAMES, "palette": [[1, 2, 300], *COLOURS[1:]]}, False),
        ({"hyper_parameters": {"class_names": NAMES}}, False),  # Lightning
        ({"class_to_idx": {"sky": 2, "road": 0, "car": 1}}, False),  # torchvision's ImageFolder
        ({"config": {"id2label": {"0": "road", "1": "car", "2": "sky"}}}, False),
        ({"classes": ["first", "second"], "names": NAMES}, False),
    ],
)
def test_what_trainers_write_is_found(beside: dict[str, Any], painted: bool) -> None:
    found, said = names_of_trainer(beside, 3)
    assert found is not None
    assert (found.names, found.source, said) == (tuple(NAMES), "checkpoint", "")
    np.testing.assert_array_equal(found.colours, COLOURS if painted else palette(3))


def test_names_of_something_else_are_left_out_and_said() -> None:
    found, said = names_of_trainer({"CLASSES": NAMES}, 5)
    assert (found, said) == (None, "the file names 3 classes, the model has 5: the names are left out")
    assert names_of_trainer({"CLASSES": NAMES}, 2)[0] is None, "nor are the first two of three"
    assert names_of_trainer({"epoch": 3, "CLASSES": None, "classes": 19}, 5) == (None, "")
    deep: dict[str, Any] = {"classes": NAMES}
    for _ in range(100):
        deep = {"more": deep}
    assert names_of_trainer(deep, 3) == (None, "")


def test_no_name_has_power_over_a_terminal() -> None:
    found, _ = names_of_trainer({"CLASSES": ["\x1b[31mroad", "c\u202ear", "\x07", "a\nb", "x" * 999]}, 5)
    assert found is not None
    assert found.names == ("[31mroad", "car", "class 2", "a b", "x" * 200)


def test_labels_survive_json() -> None:
    labels = read_table("cityscapes")
    values = json.loads(json.dumps(labels_to_json(labels)))
    again = labels_from_json(values, 19)
    assert (again.names, again.source) == (labels.names, "cityscapes")
    np.testing.assert_array_equal(again.colours, labels.colours)
    for damage in (
        {"names": values["names"][1:]},
        {"names": ["\x1b", *values["names"][1:]]},
        {"names": [1] * 19},
        {"colours": values["colours"][1:]},
        {"colours": [[1, 2, 256]] * 19},
        {"source": "\x07"},
    ):
        with pytest.raises(ValueError, match="labels"):
            labels_from_json(values | damage, 19)
