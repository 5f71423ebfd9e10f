from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hiresvit.data.dataset import Colour, Dataset, Sample
from hiresvit.data.scenes import Scenes
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.accuracy import Accuracy, evaluate
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import ModelSpec, PreprocessSpec, Task, TensorSpec

Array = NDArray[Any]
IGNORE = 255
ABOUT = About("says", "1", "CPU")


@dataclass
class Pictures:
    """A data set that is written down."""

    samples: Sequence[Sample]
    classes: Mapping[int, str]
    task: Task = "segment"
    name: str = "pictures"
    ignore: int = IGNORE
    exact: bool = False
    colours: Mapping[int, Colour] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def files_of(self, index: int) -> tuple[Path, ...]:
        return ()

    def name_of(self, index: int) -> str:
        return f"picture {index}"


@dataclass
class Says(Runner):
    """A network that has its answers ready, one picture's logits after the other."""

    logits: Sequence[Array]
    calls: int = 0
    inputs: tuple[TensorSpec, ...] = (TensorSpec("image", "float32", (1, 3, 8, 8)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "float32", ()),)
    about: About = ABOUT

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.calls += 1
        return {"y": self.logits[self.calls - 1]}

    def close(self) -> None: ...


def spec(classes: int, task: Task = "segment") -> ModelSpec:
    return ModelSpec("toy", "toy", task, (8, 8), classes, PreprocessSpec())


def one_hot(answer: Array, classes: int) -> Array:
    """Logits (1, C, H, W) or (1, C) at the picture's own size whose argmax is ``answer``."""
    return np.moveaxis(np.eye(classes, dtype=np.float32)[answer], -1, 0)[None]


def picture(labels: Any) -> Sample:
    labels = np.asarray(labels, np.uint8)
    return Sample(np.zeros((*labels.shape, 3), np.uint8), labels)


def segment(labels: Sequence[Any], answers: Sequence[Any], declared: Mapping[int, str], classes: int = 4) -> Accuracy:
    network = Says([one_hot(np.asarray(answer), classes) for answer in answers])
    return evaluate(network, spec(classes), Pictures([picture(each) for each in labels], declared))


def iou_by_sets(labels: Array, answers: Array, index: int) -> float | None:
    """Intersection over union of two sets of pixels."""
    seen = {where for where, label in enumerate(labels.ravel().tolist()) if label != IGNORE}
    truth = {where for where in seen if labels.ravel()[where] == index}
    answer = {where for where in seen if answers.ravel()[where] == index}
    return 100 * len(truth & answer) / len(truth | answer) if truth | answer else None


def test_the_matrices_of_pictures_of_all_sizes_add_up() -> None:
    rng = np.random.default_rng(0)
    sizes = [(8, 8), (5, 9), (1, 1), (16, 3)]
    labels = [rng.choice([0, 1, 3, IGNORE], size).astype(np.uint8) for size in sizes]
    answers = [rng.integers(0, 4, size) for size in sizes]
    found = segment(labels, answers, {0: "a", 1: "b", 3: "d"})
    truth, answer = (np.concatenate([each.ravel() for each in side]) for side in (labels, answers))
    kept = truth != IGNORE
    expected = {index: iou_by_sets(truth, answer, index) for index in (0, 1, 3)}
    assert {row.index: row.iou for row in found.classes} == pytest.approx(expected)
    assert found.miou == pytest.approx(np.mean([iou for iou in expected.values() if iou is not None]))
    assert found.pixel_accuracy == pytest.approx(100 * np.mean(truth[kept] == answer[kept]))
    assert found.foreign == pytest.approx(np.mean(answer[kept] == 2))
    assert [row.pixels for row in found.classes] == [int(np.sum(truth == i)) for i in (0, 1, 3)]
    assert sum(row.share for row in found.classes) == pytest.approx(1)
    assert (found.images, found.dataset, found.metric) == (4, "pictures", found.miou)


def test_one_matrix_for_the_data_set_is_not_the_mean_of_pictures() -> None:
    # IoUs of class 0: 3 of 4 pixels in one picture, 0 of 1 in the other; together 3 of 5.
    found = segment([[[0, 0, 0, 0]], [[0, 1, 1, 1]]], [[[0, 0, 0, 1]], [[1, 1, 1, 1]]], {0: "a", 1: "b"})
    assert found.classes[0].iou == pytest.approx(60)
    assert found.classes[1].iou == pytest.approx(100 * 3 / 5)


def test_a_class_that_the_data_set_lacks_is_an_error_of_the_true_one() -> None:
    found = segment([[[0, 0, 1, 1]]], [[[0, 2, 1, 3]]], {0: "a", 1: "b"})
    assert [row.iou for row in found.classes] == [50, 50]
    assert (found.miou, found.pixel_accuracy, found.foreign) == (50, 50, 0.5)


def test_a_declared_class_counts_if_it_is_only_answered_and_not_if_it_never_occurs() -> None:
    found = segment([[[0, 0, 0, 0]]], [[[0, 0, 0, 1]]], {0: "a", 1: "b", 3: "d"})
    assert [(row.name, row.iou, row.pixels) for row in found.classes] == [
        ("a", 75, 4),
        ("b", 0, 0),
        ("d", None, 0),
    ]
    assert found.miou == 37.5


def test_answers_where_no_label_is_count_for_nothing() -> None:
    found = segment([[[0, IGNORE, IGNORE, 1]]], [[[0, 2, 1, 1]]], {0: "a", 1: "b"})
    assert (found.miou, found.pixel_accuracy, found.foreign) == (100, 100, 0)


def test_scenes_are_measured_at_their_own_size() -> None:
    scenes = Scenes(2, (30, 44))
    logits = [np.random.default_rng(i).standard_normal((1, 19, 8, 8)).astype(np.float32) for i in range(2)]
    steps: list[tuple[str, float | None]] = []
    found = evaluate(Says(logits), spec(19), scenes, on_step=lambda name, fraction: steps.append((name, fraction)))
    truth, answer = [], []
    predictor = PictureRunner(Says(logits), spec(19))
    for index in range(2):
        result = predictor.predict(scenes[index].image)
        assert isinstance(result, LabelMap)
        truth.append(np.asarray(scenes[index].labels))
        answer.append(result.labels)
    expected = [iou_by_sets(np.stack(truth), np.stack(answer), i) for i in sorted(scenes.classes)]
    assert [row.iou for row in found.classes] == pytest.approx(expected)
    assert [row.name for row in found.classes] == [scenes.classes[i] for i in sorted(scenes.classes)]
    assert steps == [("evaluate", 0.5), ("evaluate", 1.0)]


def test_each_picture_is_answered_once() -> None:
    network = Says([one_hot(np.zeros((1, 1), int), 2)] * 3)
    found = evaluate(network, spec(2), Pictures([picture([[0]])] * 3, {0: "a"}))
    assert (found.images, network.calls) == (3, 3)


def named(labels: Sequence[int]) -> Pictures:
    samples = [Sample(np.zeros((8, 8, 3), np.uint8), label) for label in labels]
    return Pictures(samples, {i: f"class {i}" for i in range(6)}, "classify")


def test_top_1_and_top_5() -> None:
    logits = np.arange(8, dtype=np.float32)[None]  # class 7 is best, 3 is the fifth
    found = evaluate(Says([logits, -logits] * 2), spec(8, "classify"), named([3, 0, 2, 4]))
    # The first and third picture get 7, 6, 5, 4, 3 and the others 0, 1, 2, 3, 4.
    assert (found.top1, found.top5, found.metric) == (25, 75, 25)
    assert found.foreign == 0.5  # class 7 is none of the data set's six
    assert found.to_json() == {
        "dataset": "pictures",
        "task": "classify",
        "images": 4,
        "foreign": 0.5,
        "top1": 25.0,
        "top5": 75.0,
    }


def test_top_5_of_few_classes_says_nothing() -> None:
    pictures = Pictures([Sample(np.zeros((8, 8, 3), np.uint8), 1)], {0: "a", 1: "b"}, "classify")
    found = evaluate(Says([np.array([[0, 1]], np.float32)]), spec(2, "classify"), pictures)
    assert (found.top1, found.top5) == (100, None)


def test_json_is_plain() -> None:
    found = segment([[[0, 0, 1, 1]]], [[[0, 2, 1, 1]]], {0: "a", 1: "b", 3: "d"})
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["miou"] == 75
    assert read["classes"][0] == {"index": 0, "name": "a", "iou": 50.0, "accuracy": 50.0, "share": 0.5, "pixels": 2}
    assert read["classes"][2]["iou"] is None
    assert not {"top1", "top5"} & set(read)


@pytest.mark.parametrize(
    ("dataset", "classes", "words"),
    [
        (Pictures([picture([[0]]), picture([[0, 7]])], {0: "a", 2: "c"}), 4, "image 1: label 7; allowed are 0, 2"),
        # A class of the network that the data set does not declare is no label of it.
        (Pictures([picture([[1]])], {0: "a", 2: "c"}), 4, "image 0: label 1; allowed are 0, 2, and 255 for none"),
        (Pictures([picture([[IGNORE]])], {0: "a"}), 4, "none of 1 images has a pixel with a label"),
        (Pictures([], {0: "a"}), 4, "pictures has no images"),
        (
            Pictures([Sample(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), np.uint8))], {0: "a"}),
            4,
            r"image 0: labels are \(3, 2\), the image is 2x3",
        ),
    ],
)  # fmt: skip
def test_bad_labels_are_named(dataset: Dataset, classes: int, words: str) -> None:
    logits = [one_hot(np.zeros(dataset[i].image.shape[:2], int), classes) for i in range(len(dataset))]
    with pytest.raises(HiresvitError, match=words) as caught:
        evaluate(Says(logits), spec(classes), dataset)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "words"), [(6, "image 0: label 6; allowed are 0, 1, 2"), (255, "image 0: label 255")]
)
def test_a_class_out_of_range_is_named(label: int, words: str) -> None:
    with pytest.raises(HiresvitError, match=words):
        evaluate(Says([np.zeros((1, 300), np.float32)]), spec(300, "classify"), named([label]))


def test_a_map_is_no_class() -> None:
    pictures = Pictures([picture([[0]])], {0: "a"}, "classify")
    with pytest.raises(HiresvitError, match=r"image 0: labels are \(1, 1\); classification needs one class"):
        evaluate(Says([np.zeros((1, 2), np.float32)]), spec(2, "classify"), pictures)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (spec(4, "classify"), "a network to classify, pictures has labels to segment"),
        (spec(2), r"answers classes 0 to 1, pictures has class 2 \(c\)"),
    ],
)
def test_what_does_not_fit_is_refused(network: ModelSpec, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(Says([]), network, Pictures([picture([[0]])], {0: "a", 2: "c"}))
