"""How good a graph is on pictures: which number is taken of which data set, and of which picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import content
from numpy.typing import NDArray
from onnx import ModelProto, load_from_string, numpy_helper
from tiny import seven_convolutions, tiny_spec

from hiresvit.data.dataset import Kept, Part, Sample
from hiresvit.data.pictures import Feeds, open_pictures
from hiresvit.evaluation.parity import compare_runs
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import ModelSpec, PreprocessSpec, TensorSpec
from hiresvit.workflows.yardstick import AGREEMENT, METRICS, Yardstick, answered, references

SPEC = tiny_spec()
PICTURES = open_pictures("scenes", SPEC.imgsz, 3)


def changed(factor: float) -> ModelProto:
    """Seven convolutions, one of whose weights is that much larger."""
    graph = load_from_string(content(seven_convolutions()[0]))
    [weight] = [init for init in graph.graph.initializer if init.name == "quiet.1.weight"]
    values = numpy_helper.to_array(weight).copy()
    values[3] *= factor
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return graph


class Answers(Runner):
    """A network of two classes that adds noise of a strength of its own to each input's logits."""

    inputs = (TensorSpec("image", "float32", (1, 3, 4, 4)),)
    outputs = (TensorSpec("y", "float32", (1, 2, 4, 4)),)
    about = About("a test's", "1", "CPU")

    def __init__(self, noise: Mapping[float, float]) -> None:
        self.noise = noise

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        x = feeds["image"]
        logits = np.concatenate([x[:, :1], -x[:, :1]], 1).astype(np.float32)
        strength = self.noise.get(round(float(x[0, 0, 0, 0]), 3), 0.0)
        return {"y": logits + np.float32(strength) * np.resize(np.array([1, -1, -1], np.float32), logits.shape)}

    def close(self) -> None: ...


@pytest.mark.parametrize("order", [(1.0, 2.0), (2.0, 1.0)])
def test_the_sqnr_is_of_the_worst_picture(order: tuple[float, float]) -> None:
    """Whichever comes first: the noise is 1 % of one input's answer and 10 % of the other's, 40 dB and 20 dB."""
    spec = ModelSpec("toy", "toy", "segment", (4, 4), 2, PreprocessSpec())
    exact, noisy = Answers({}), Answers({1.0: 0.01, 2.0: 0.2})
    feeds = [{"image": np.full((1, 3, 4, 4), value, np.float32)} for value in order]
    known = [(feed, exact(feed)) for feed in feeds]
    dataset = Part(Written(), range(2))
    found = Yardstick(spec, dataset, METRICS["segment"], known).measure(noisy)
    each = [compare_runs(outputs, noisy(feed), "segment").outputs[0].worst.sqnr_db for feed, outputs in known]
    assert sorted(each) == pytest.approx([20, 40], abs=1e-3)  # of float32 sums
    assert found.sqnr_db == min(each)


class Written:
    """Two pictures, white and black, of which the labels are right for one half of each."""

    name, ignore, exact = "written", 255, False
    task: Any = "segment"
    classes: Mapping[int, str] = {0: "light", 1: "dark"}
    colours: Mapping[int, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        image = np.full((4, 4, 3), 255 * (1 - index), np.uint8)
        labels = np.zeros((4, 4), np.uint8)
        labels[:2] = 1
        return Sample(image, labels)

    def files_of(self, index: int) -> tuple[Path, ...]:
        return ()

    def name_of(self, index: int) -> str:
        return ("white", "black")[index]


def test_labels_count_by_the_tasks_metric_and_agreement_by_pixels() -> None:
    spec = ModelSpec("toy", "toy", "segment", (4, 4), 2, PreprocessSpec())
    known = [
        (
            {"image": np.ones((1, 3, 4, 4), np.float32)},
            Answers({})({"image": np.ones((1, 3, 4, 4), np.float32)}),
        )
    ]
    by_labels = Yardstick(spec, Written(), METRICS["segment"], known).measure(Answers({}))
    by_pixels = Yardstick(spec, Written(), AGREEMENT, known).measure(Answers({}))
    # White is answered light, black dark: 16 of 32 pixels are right, 8 of 24 of each class's union.
    assert by_labels.metric == pytest.approx(100 / 3)
    assert by_pixels.metric == 50
    assert by_labels.sqnr_db == by_pixels.sqnr_db == np.inf


def test_a_graph_agrees_with_itself_and_not_with_another() -> None:
    simple, _ = seven_convolutions()
    feeds = Feeds(PICTURES, SPEC, "image")
    dataset = answered(simple, PICTURES, SPEC, 1)
    assert (dataset.name, dataset.task, len(dataset)) == ("scenes", "segment", 3)
    assert dataset.classes == {i: f"class {i}" for i in range(SPEC.num_classes)}
    np.testing.assert_array_equal(dataset[1].image, PICTURES[1])
    judge = Yardstick(SPEC, dataset, AGREEMENT, references(simple, [feeds[0], feeds[1]], 1)).judge(1)
    same, other = judge(simple), judge(changed(1.5))
    assert (same.metric, same.sqnr_db) == (100, np.inf)
    assert 50 < other.metric < 100
    assert 0 < other.sqnr_db < 40


def test_references_are_the_graphs_own_outputs() -> None:
    simple, _ = seven_convolutions()
    feeds = Feeds(PICTURES, SPEC, "image")
    found = references(simple, [feeds[0], feeds[2]], 1)
    assert [feed["image"].tobytes() for feed, _ in found] == [feeds[i]["image"].tobytes() for i in (0, 2)]
    assert [outputs["logits"].shape for _, outputs in found] == [(1, SPEC.num_classes, *SPEC.imgsz)] * 2
    assert not np.array_equal(found[0][1]["logits"], found[1][1]["logits"])


def test_a_kept_data_set_draws_each_picture_once() -> None:
    class Counted(Written):
        drawn = 0

        def __getitem__(self, index: int) -> Sample:
            Counted.drawn += 1
            return super().__getitem__(index)

    kept = Kept(Counted())
    assert (len(kept), Counted.drawn) == (2, 0)
    assert kept[1] is kept[1]
    assert Counted.drawn == 1
    assert (kept.name, kept.task, kept.ignore, kept.classes) == ("written", "segment", 255, Written.classes)
