"""Every metric against torchmetrics or a count by hand, on random label maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional import classification as referee

from hiresvit.data.dataset import Sample
from hiresvit.errors import HiresvitError
from hiresvit.evaluation.counts import class_rows, columns, count, foreign, metrics, needed
from hiresvit.runtime.picture_runner import LabelMap, TopClasses

IGNORE = 255
TOLERANCE = 1e-12
Array = NDArray[Any]


@dataclass
class Declared:
    """As much of a data set as counts look at."""

    classes: dict[int, str]
    task: str = "segment"
    ignore: int = IGNORE
    name: str = "declared"
    colours: dict[int, Any] = field(default_factory=dict)


def sums(labels: list[Array], answers: list[Array], dataset: Any) -> Any:
    rows = [
        count(Sample(np.zeros((*truth.shape, 3), np.uint8), truth), LabelMap(answer), dataset)
        for truth, answer in zip(labels, answers, strict=True)
    ]
    assert {row.shape for row in rows} == {(columns(dataset),)}
    return np.sum(rows, 0)


def drawn(seed: int) -> tuple[int, list[Array], list[Array]]:
    """Pictures of several sizes, of few classes or many, with ignored pixels and classes that are missing."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 40))
    sizes = rng.integers(5, 40, (3, 2)).tolist()
    there = rng.permutation(classes)[: max(classes - seed % 4, 2)]
    labels = [np.where(rng.random(size) < 0.1, IGNORE, rng.choice(there, size)).astype(np.uint8) for size in sizes]
    answers = [
        np.where((truth != IGNORE) & (rng.random(truth.shape) < 0.7), truth, rng.integers(0, classes, truth.shape))
        for truth in labels
    ]
    return classes, labels, answers


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchmetrics makes float32 of its counts before it divides, which leaves 1e-7."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def by_torchmetrics(measure: Callable[..., Any], found: tuple[Array, Array], classes: int, average: str | None) -> Any:
    predicted, truth = (torch.from_numpy(values.astype(np.int64)) for values in found)
    result = measure(predicted, truth, num_classes=classes, average=average, ignore_index=IGNORE)
    assert result.dtype == torch.float64
    return result.numpy()


@pytest.mark.parametrize("seed", range(20))
def test_segmentation_is_as_torchmetrics_counts(seed: int) -> None:
    classes, labels, answers = drawn(seed)
    dataset: Any = Declared({index: f"c{index}" for index in range(classes)})
    total = sums(labels, answers, dataset)
    found = {name: float(value) for name, value in metrics(total, dataset, classes).items()}
    truth, answer = (np.concatenate([one.ravel() for one in side]) for side in (labels, answers))
    kept = truth != IGNORE
    labelled = np.isin(np.arange(classes), truth)
    there = labelled | np.isin(np.arange(classes), answer[kept])
    ious = by_torchmetrics(referee.multiclass_jaccard_index, (answer, truth), classes, None)
    assert found["miou"] == pytest.approx(100 * ious[there].mean(), abs=100 * TOLERANCE)
    micro = by_torchmetrics(referee.multiclass_accuracy, (answer, truth), classes, "micro")
    assert found["pixel_accuracy"] == pytest.approx(100 * float(micro), abs=100 * TOLERANCE)
    accuracies = by_torchmetrics(referee.multiclass_accuracy, (answer, truth), classes, None)
    assert found["mean_accuracy"] == pytest.approx(100 * accuracies[labelled].mean(), abs=100 * TOLERANCE)
    for row in class_rows(total, dataset):
        i = row["index"]
        assert (row["iou"] is None, row["accuracy"] is None) == (not there[i], not labelled[i])
        if there[i]:
            assert row["iou"] == pytest.approx(100 * ious[i], abs=100 * TOLERANCE)
        if labelled[i]:
            assert row["accuracy"] == pytest.approx(100 * accuracies[i], abs=100 * TOLERANCE)
        assert row["pixels"] == np.sum(truth == i)


def test_foreign_answers_are_wrong_and_counted() -> None:
    dataset: Any = Declared({0: "a", 3: "b"})
    total = sums([np.array([[0, 0, 3, 3, IGNORE]])], [np.array([[0, 7, 3, 1, 7]])], dataset)
    found = {name: float(value) for name, value in metrics(total, dataset, 8).items()}
    assert (found["miou"], found["pixel_accuracy"], foreign(total, dataset)) == (50, 50, 0.5)
    with pytest.raises(HiresvitError, match=r"answers are \(1, 2\), from -1 on; they must be classes of \(1, 2\)"):
        sums([np.array([[0, 0]])], [np.array([[0, -1]])], dataset)
    with pytest.raises(HiresvitError, match="they must be classes of"):
        sums([np.array([[0, 0]])], [np.array([[0, 1, 2]])], dataset)


@pytest.mark.parametrize("seed", range(20))
def test_top_k_is_as_torchmetrics_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, pictures = int(rng.integers(6, 30)), 50
    scores = rng.permuted(np.tile(np.arange(classes, dtype=np.float64), (pictures, 1)), axis=1)  # no ties
    truth = rng.integers(0, classes, pictures)
    dataset: Any = Declared({index: f"c{index}" for index in range(classes)}, "classify")
    black = np.zeros((1, 1, 3), np.uint8)
    total = np.sum(
        [
            count(Sample(black, int(label)), TopClasses(tuple((int(i), 0.0) for i in np.argsort(-row)[:5])), dataset)
            for label, row in zip(truth, scores, strict=True)
        ],
        0,
    )
    found = metrics(total, dataset, classes)
    for name, k in (("top1", 1), ("top5", 5)):
        expected = referee.multiclass_accuracy(
            torch.from_numpy(scores), torch.from_numpy(truth), num_classes=classes, average="micro", top_k=k
        )
        assert found[name] == pytest.approx(100 * float(expected), abs=100 * TOLERANCE)
    assert set(metrics(total, dataset, 5)) == {"top1"}, "of five classes the best five say nothing"
    assert needed(dataset) == columns(dataset)
