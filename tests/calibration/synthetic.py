"""Networks that are nothing but a loss for each set of quantized modules; a graph carries their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnx import ModelProto

from hiresvit.calibration.sensitivity import Group, Judgement, Sensitivity, measure_sensitivity

Loss = Callable[[frozenset[str]], float]

BASELINE = Judgement(metric=85.0, sqnr_db=60.0)


@dataclass
class Synthetic:
    """``loss`` gives the points that a set of INT8 modules costs; ``asked`` counts the graphs that were judged."""

    macs: Mapping[str, int]
    loss: Loss
    asked: list[frozenset[str]] = field(default_factory=list)

    def quantize(self, modules: frozenset[str]) -> ModelProto:
        assert modules <= set(self.macs)
        return ModelProto(doc_string=",".join(sorted(modules)))

    def judge(self, graph: ModelProto) -> Judgement:
        modules = frozenset(filter(None, graph.doc_string.split(",")))
        self.asked.append(modules)
        loss = self.loss(modules)
        return Judgement(BASELINE.metric - loss, 60 - 10 * loss)

    def sensitivity(self) -> Sensitivity:
        groups = [Group(module, macs) for module, macs in self.macs.items()]
        return measure_sensitivity(groups, self.quantize, self.judge, BASELINE)

    def drop(self, kept: frozenset[str]) -> float:
        """With ``kept`` in FP16 and everything else in INT8."""
        return self.loss(frozenset(self.macs) - kept)
