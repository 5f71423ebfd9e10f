"""What people see of an evaluation: a side that failed, classes, top-1, and words for what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from hiresvit.evaluation.beside import keeps
from hiresvit.report.accuracy import accuracy_report
from hiresvit.report.blocks import Part, Table
from hiresvit.report.result_parts import result_parts
from hiresvit.report.tables import render

PROTOCOL = {
    "name": "imagenet-center",
    "size": [224, 224],
    "resize": "crop",
    "filter": "bicubic by Pillow, antialiased",
    "scaled": "cropped",
    "stride": None,
    "flip": True,
    "scales": [1.0],
    "ignore": None,
    "labels": "one class a picture",
    "notes": ["not as the paper has it"],
}


def side(name: str, value: float, *, failure: str = "", beside: float | None = None) -> dict[str, Any]:
    against = None
    if beside is not None:
        difference = {"difference": beside, "low": beside - 0.1, "high": beside + 0.1}
        against = {"metrics": {"top1": difference}, "agreement": 0.987, "keeps": "99.9 %"}
    metrics = {} if failure else {"top1": {"value": value, "low": value - 1, "high": value + 1}}
    failed = {"message": failure, "exit_code": 6} if failure else None
    row: dict[str, Any] = {"name": name, "origin": {}, "failure": failed, "metrics": metrics, "classes": []}
    return row | {"foreign": 0.25 if name == "c" else 0.0, "against": against}


def document(*sides: dict[str, Any], complete: bool = True) -> dict[str, Any]:
    worst = {"picture": "a.jpg", "index": 0, "agreement": None, "image": "it-worst-1.png"}
    accuracies = [{"name": one["name"], "accuracy": None if one["failure"] else 0.0} for one in sides]
    return {
        "dataset": {"name": "imagenet", "pictures": 50, "ignore": None},
        "protocol": PROTOCOL,
        "task": "classify",
        "images": 50 if complete else 3,
        "complete": complete,
        "sides": list(sides),
        "worst": [worst | {"sides": accuracies}],
    }


def test_sides_of_a_classifier_and_one_that_failed() -> None:
    sides = (side("a", 80.0), side("b", 0.0, failure="no GPU here"), side("c", 79.95, beside=-0.05))
    lines = render(accuracy_report(document(*sides))).splitlines()
    how = "cropped, bicubic by Pillow, antialiased, mirrored, too, and averaged"
    assert lines[0] == f"protocol imagenet-center: network 224x224, {how}"
    assert lines[1:4] == [
        "labels: one class a picture",
        "note: not as the paper has it",
        "accuracy in % on 50 images of imagenet, with 95 % intervals",
    ]
    cells = [line.split() for line in lines]
    assert ["a", "top-1", "80.00", "79.00", "to", "81.00"] in cells
    assert ["b", "failed"] in cells
    wanted = ["c", "top-1", "79.95", "78.95", "to", "80.95", "-0.05", "-0.15", "to", "0.05", "98.70", "%", "99.9", "%"]
    assert wanted in cells
    assert ["no", "class", "of", "the", "data", "25.00"] in cells
    assert lines[-1] == "worst: a.jpg: a 0.00 % right, c 0.00 % right, drawn in it-worst-1.png"


def test_a_difference_that_is_nothing_has_no_minus() -> None:
    text = render(accuracy_report(document(side("a", 80.0), side("c", 80.0, beside=-0.001))))
    assert "+0.00 -0.10 to 0.10" in text


def test_a_page_shows_the_accuracies_and_folds_the_classes() -> None:
    row = {"index": 0, "name": "road", "iou": 80.0, "accuracy": 90.0, "boundary_f": 70.0, "share": 1.0, "pixels": 9}
    found = document(side("a", 80.0) | {"classes": [row]}) | {"task": "segment"}
    for shown, folded in ((document(side("a", 80.0)), []), (found, ["By class"])):
        [whole] = result_parts({"results": [{"file": "it.json", "document": {"accuracy": shown}}]}, {})[:1]
        assert isinstance(whole, Part)
        [of_file] = [block for block in whole.blocks if isinstance(block, Part)]
        tables = [block for block in of_file.blocks if isinstance(block, Table)]
        assert [table.rows[0][0].text for table in tables] == ["a"]
        assert [block.title for block in of_file.blocks if isinstance(block, Part) and block.folded] == folded


def test_what_is_not_all_says_so() -> None:
    assert "on 3 images of imagenet of 50, INCOMPLETE," in render(
        accuracy_report(document(side("a", 80), complete=False))
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (80.1, "99.9 %"),
        (79.92, "99.9 %"),
        (79.91, "99 %"),
        (79.2, "99 %"),
        (79.19, "less than 99 %"),
        (0, "less than 99 %"),
    ],
)
def test_what_is_kept_of_80_in_words(value: float, words: str) -> None:
    assert keeps(value, 80) == words
