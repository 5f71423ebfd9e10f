"""What each module of a network loses if it alone is quantized.

The network is seen through two functions: a `Quantizer` makes the graph in which exactly the named modules are INT8,
a `Judge` says how good a graph is. What the metric is (mIoU, top-1, or agreement with FP32 where there are no labels)
is the judge's business; here it is per cent, and a loss is in percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.files import scratch_folder
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.runner import Runner

NOISE = 0.05
"""Points. Drops that are closer than this are told apart by SQNR: a few pixels on the border of two classes flip
whatever is quantized, and a tenth of the usual ``--max-drop`` of 0.5 must not decide an order."""


@dataclass(frozen=True)
class Judgement:
    """How good a graph is: the task's metric in per cent, and the SQNR of its outputs in dB (infinite if exact).

    Raises HiresvitError for a metric that is NaN or infinite and an SQNR that is NaN, with which nothing compares.
    """

    metric: float
    sqnr_db: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.metric) or math.isnan(self.sqnr_db):
            raise HiresvitError(
                f"a graph was judged {self.metric} % and {self.sqnr_db} dB; a finite metric is needed, so look at"
                " the graph's outputs and the labels"
            )


Judge = Callable[[ModelProto], Judgement]
Quantizer = Callable[[frozenset[str]], ModelProto]


@dataclass(frozen=True)
class Group:
    """What is quantized together: a module by its path in PyTorch, and its multiply-accumulates."""

    module: str
    macs: int


@dataclass(frozen=True)
class ModuleLoss:
    """What a module loses alone: ``drop`` is baseline minus ``metric``, in points, and negative for a gain.

    ``share``, from 0 to 1, is of the multiply-accumulates of all groups.
    """

    module: str
    macs: int
    share: float
    metric: float
    drop: float
    sqnr_db: float


@dataclass(frozen=True)
class Sensitivity:
    """All modules, the most sensitive first, and the judgement of the graph without INT8."""

    baseline: Judgement
    modules: tuple[ModuleLoss, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: ``baseline``, and ``modules`` with one row each; an infinite SQNR is null."""
        return {"baseline": finite(asdict(self.baseline)), "modules": [finite(asdict(row)) for row in self.modules]}


def measure_sensitivity(
    groups: Sequence[Group], quantizer: Quantizer, judge: Judge, baseline: Judgement, on_step: OnStep = silent
) -> Sensitivity:
    """Quantize one group at a time and judge each graph: as many judgements as groups.

    ``baseline`` is what the same judge says of the graph without INT8. Modules are sorted by drop, those within
    `NOISE` of each other by SQNR, the lowest first. Raises UsageError without groups, for two of one name, and for
    negative multiply-accumulates.
    """
    names = [group.module for group in groups]
    if not groups or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"{len(groups)} groups, given twice {twice}; give at least one, each module once")
    least = min(groups, key=lambda group: group.macs)
    if least.macs < 0:
        raise UsageError(f"group {least.module!r} has {least.macs} multiply-accumulates; give 0 or more")
    total = sum(group.macs for group in groups) or 1
    rows = []
    for number, group in enumerate(groups):
        on_step(f"sensitivity: {group.module}", number / len(groups))
        found = judge(quantizer(frozenset({group.module})))
        share, drop = group.macs / total, baseline.metric - found.metric
        rows.append(ModuleLoss(group.module, group.macs, share, found.metric, drop, found.sqnr_db))
    on_step("sensitivity", 1.0)
    rows.sort(key=lambda row: (-round(row.drop / NOISE), row.sqnr_db, row.module))
    return Sensitivity(baseline, tuple(rows))


def by_running(score: Callable[[Runner], Judgement], *, threads: int | None = None) -> Judge:
    """A judge that loads each graph with ONNX Runtime on the CPU and asks ``score`` about it."""

    def judge(graph: ModelProto) -> Judgement:
        with running(graph, threads) as runner:
            return score(runner)

    return judge


@contextmanager
def running(graph: ModelProto, threads: int | None) -> Iterator[Runner]:
    """The graph, loaded with ONNX Runtime on the CPU."""
    with scratch_folder() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(graph, path)
        with OnnxRuntimeRunner(path, threads=threads) as runner:
            yield runner


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """For JSON: null in place of infinities."""
    return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in values.items()}
