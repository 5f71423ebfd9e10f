"""How good a graph is on pictures: by labels where there are some, by its agreement with FP32 where there are none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from hiresvit.calibration.sensitivity import Judge, Judgement, by_running
from hiresvit.data.pictures import Pictures
from hiresvit.data.scenes import IGNORE, Dataset, Sample
from hiresvit.evaluation.accuracy import evaluate
from hiresvit.evaluation.parity import compare_runs
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.predictor import ClassifyResult, Predictor, class_names
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.spec import Feed, ModelSpec, Task

AGREEMENT = "agreement with FP32"
METRICS: Mapping[Task, str] = {"segment": "mIoU", "classify": "top-1"}


class Answered:
    """Pictures without labels, labelled with what a network answers: a data set to measure agreement on."""

    def __init__(self, pictures: Pictures, runner: Runner, spec: ModelSpec) -> None:
        self.name, self.task = pictures.source, spec.task
        self.classes: Mapping[int, str] = dict(enumerate(class_names(spec.num_classes)))
        self.ignore = IGNORE if spec.num_classes <= IGNORE else -1
        self.pictures = pictures
        predictor = Predictor(runner, spec, top_k=1)
        self.answers = [predictor.predict(pictures[index]) for index in range(len(pictures))]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        answer = self.answers[index]
        labels: Any = answer.top[0][0] if isinstance(answer, ClassifyResult) else answer.labels
        return Sample(self.pictures[index], labels)


class Kept:
    """A data set in memory, for what is measured on it many times: drawing a scene takes as long as answering it."""

    def __init__(self, dataset: Dataset) -> None:
        self.name, self.task = dataset.name, dataset.task
        self.classes, self.ignore = dataset.classes, dataset.ignore
        self.samples = [dataset[index] for index in range(len(dataset))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@dataclass(frozen=True, eq=False)
class Yardstick:
    """A data set, what is measured on it (`METRICS` or `AGREEMENT`), and FP32's outputs for a few inputs."""

    spec: ModelSpec
    dataset: Dataset
    metric: str
    references: Sequence[tuple[Feed, Feed]]

    def measure(self, runner: Runner) -> Judgement:
        """The metric in per cent over the data set, and the lowest SQNR over the references."""
        runner = Casting(runner)
        found = evaluate(runner, self.spec, self.dataset)
        by_pixel = self.metric == AGREEMENT and self.spec.task == "segment"
        value = found.pixel_accuracy if by_pixel else found.metric
        assert value is not None  # `evaluate` fills in what the task has
        reports = [compare_runs(outputs, runner(feed), self.spec.task) for feed, outputs in self.references]
        return Judgement(value, min(out.worst.sqnr_db for report in reports for out in report.outputs))

    def judge(self, threads: int | None) -> Judge:
        """The same, of a graph."""
        return by_running(self.measure, threads=threads)


def answered(graph: ModelProto, pictures: Pictures, spec: ModelSpec, threads: int | None) -> Answered:
    """The pictures with the graph's own answers."""
    with _running(graph, threads) as runner:
        return Answered(pictures, runner, spec)


def references(graph: ModelProto, feeds: Sequence[Feed], threads: int | None) -> list[tuple[Feed, Feed]]:
    """Each feed with the graph's outputs for it."""
    with _running(graph, threads) as runner:
        return [(feed, runner(feed)) for feed in feeds]


@contextmanager
def _running(graph: ModelProto, threads: int | None) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory(prefix="hiresvit-") as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(graph, path)
        with OnnxRuntimeRunner(path, threads=threads) as runner:
            yield Casting(runner)
