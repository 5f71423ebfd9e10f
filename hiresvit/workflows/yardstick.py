"""How good a graph is on pictures: by labels where there are some, by its agreement with FP32 where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from hiresvit.calibration.sensitivity import Judge, Judgement, by_running, running
from hiresvit.data.dataset import IGNORE, Colour, Dataset, Sample
from hiresvit.data.labels import find_labels
from hiresvit.data.pictures import Pictures
from hiresvit.evaluation.accuracy import evaluate
from hiresvit.evaluation.parity import compare_runs
from hiresvit.runtime.picture_runner import PictureRunner, TopClasses
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.spec import ContractSpec, Feed, ModelSpec, Task

AGREEMENT = "agreement with FP32"
METRICS: Mapping[Task, str] = {"segment": "mIoU", "classify": "top-1"}


class Answered:
    """Pictures without labels, labelled with what a network answers: a data set to measure agreement on."""

    def __init__(self, pictures: Pictures, runner: Runner, spec: ModelSpec) -> None:
        self.name, self.task = pictures.source, spec.task
        self.classes: Mapping[int, str] = dict(enumerate(find_labels(spec).names))
        self.colours: Mapping[int, Colour] = {}
        self.ignore = IGNORE if spec.num_classes <= IGNORE else -1
        self.exact = True
        self.pictures = pictures
        predictor = PictureRunner(runner, spec, top_k=1)
        self.answers = [predictor.predict(pictures[index]) for index in range(len(pictures))]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        answer = self.answers[index]
        labels: Any = answer.top[0][0] if isinstance(answer, TopClasses) else answer.labels
        return Sample(self.pictures[index], labels)

    def name_of(self, index: int) -> str:
        """As the source calls it."""
        return self.pictures.names[index]

    def files_of(self, index: int) -> tuple[Path, ...]:
        """None: its labels are answers."""
        return ()


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
        value = self.metric_of(runner)
        reports = [compare_runs(outputs, runner(feed), self.spec.task) for feed, outputs in self.references]
        return Judgement(value, min(out.worst.sqnr_db for report in reports for out in report.outputs))

    def metric_of(self, runner: Runner, contract: ContractSpec | None = None) -> float:
        """The metric alone, of a network that takes tensors, or behind a contract."""
        found = evaluate(runner, self.spec, self.dataset, contract=contract)
        by_pixel = self.metric == AGREEMENT and self.spec.task == "segment"
        value = found.pixel_accuracy if by_pixel else found.metric
        assert value is not None  # `evaluate` fills in what the task has
        return value

    def judge(self, threads: int | None) -> Judge:
        """The same, of a graph."""
        return by_running(self.measure, threads=threads)


def answered(graph: ModelProto, pictures: Pictures, spec: ModelSpec, threads: int | None) -> Answered:
    """The pictures with the graph's own answers."""
    with running(graph, threads) as runner:
        return Answered(pictures, Casting(runner), spec)


def references(graph: ModelProto, feeds: Sequence[Feed], threads: int | None) -> list[tuple[Feed, Feed]]:
    """Each feed with the graph's outputs for it."""
    with running(graph, threads) as runner:
        return [(feed, Casting(runner)(feed)) for feed in feeds]
