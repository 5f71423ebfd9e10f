"""What answers are called and painted: as the data set says, else as the number of classes suggests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hiresvit.data.dataset import CITYSCAPES, Colour, Kept, Part, Sample, check_fit, palette
from hiresvit.data.labels import find_labels
from hiresvit.data.scenes import Scenes
from hiresvit.errors import UsageError
from hiresvit.spec import ModelSpec, PreprocessSpec, Task


def spec(classes: int, task: Task = "segment") -> ModelSpec:
    return ModelSpec("toy", "toy", task, (8, 8), classes, PreprocessSpec())


@dataclass
class Named:
    """A data set whose pictures nobody asks for."""

    classes: Mapping[int, str]
    colours: Mapping[int, Colour] = field(default_factory=dict)
    task: Task = "segment"
    name: str = "named"
    ignore: int = 255
    exact: bool = False

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError(index)

    def files_of(self, index: int) -> tuple[Path, ...]:
        return ()

    def name_of(self, index: int) -> str:
        return f"picture {index}"


def test_a_part_calls_pictures_as_the_whole_does() -> None:
    whole = Scenes(5, (8, 8), first=700)
    assert [whole.name_of(i) for i in (0, 4)] == ["scene 700", "scene 704"]
    assert Part(whole, (4, 2)).name_of(1) == Kept(Part(whole, (4, 2))).name_of(1) == "scene 702"


def test_nineteen_classes_to_segment_are_cityscapes() -> None:
    found = find_labels(spec(19))
    assert len(CITYSCAPES) == 19
    assert (*found.names[:2], found.names[18]) == ("road", "sidewalk", "bicycle")
    assert found.colours[13].tolist() == [0, 0, 142]  # car
    for other in (spec(2), spec(19, "classify")):
        found = find_labels(other)
        assert found.names == tuple(f"class {i}" for i in range(other.num_classes))
        np.testing.assert_array_equal(found.colours, palette(other.num_classes))


def test_classes_that_are_all_there_are_need_a_network_for_just_them() -> None:
    two = {0: "cat", 1: "dog"}
    check_fit(spec(3), Named(two))
    check_fit(spec(2), Part(Named(two, exact=True), (0,)))
    with pytest.raises(UsageError, match="toy answers 3 classes, named has 2; give a network with"):
        check_fit(spec(3), Part(Named(two, exact=True), (0,)))


def test_a_data_set_has_the_say() -> None:
    found = find_labels(spec(19), Named({1: "cat", 18: "dog"}, {18: (1, 2, 3)}))
    assert found.names == ("class 0", "cat", *(f"class {i}" for i in range(2, 18)), "dog")
    np.testing.assert_array_equal(found.colours[:18], palette(19)[:18])
    assert found.colours[18].tolist() == [1, 2, 3]
    streets = find_labels(spec(19), Scenes(1, (8, 8)))
    assert streets.names[13] == "car"
    assert streets.colours[13].tolist() == [0, 0, 142]
    assert streets.names[3] == "class 3", "scenes have no walls"


def test_a_data_set_of_something_else_is_refused() -> None:
    with pytest.raises(UsageError, match=r"toy answers classes 0 to 3, named has class 4 \(dog\)"):
        find_labels(spec(4), Named({0: "cat", 4: "dog"}))
    with pytest.raises(UsageError, match="toy is a network to classify, named has labels to segment"):
        find_labels(spec(4, "classify"), Named({0: "cat"}))


@pytest.mark.parametrize("classes", [1, 2, 21, 150, 256])
def test_colours_are_distinct(classes: int) -> None:
    colours = palette(classes)
    assert colours.shape == (classes, 3)
    assert colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == classes
