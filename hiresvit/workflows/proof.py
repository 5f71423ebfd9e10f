"""Whether an INT8 graph is as accurate as FP32: the search for modules that stay in FP16, and the proof of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx import ModelProto

from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.audit import check_scales
from hiresvit.calibration.fallback import check_drop, find_fallback
from hiresvit.calibration.qdq import Int8Report, quantize
from hiresvit.calibration.sensitivity import Group, Judgement, measure_sensitivity
from hiresvit.calibration.sites import Policy, Site, find_skips
from hiresvit.calibration.table import CalibrationTable
from hiresvit.data.dataset import Dataset
from hiresvit.errors import GateError, HiresvitError
from hiresvit.graph.index import GraphIndex
from hiresvit.progress import OnStep
from hiresvit.spec import Feed, ModelSpec
from hiresvit.workflows.split import Split
from hiresvit.workflows.yardstick import AGREEMENT, METRICS, Yardstick, answered, references

# Per cent of mIoU: a network below it in FP32 has not learned the scenes' labels, and cannot lose them.
KNOWN = 50.0
SEARCHES = 3  # the limit of the search is halved each time the proof misses the one that was asked for


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes INT8 graphs of one network from one calibration; ``index`` is that of ``simple``."""

    simple: ModelProto
    index: GraphIndex
    half: ModelProto
    sites: tuple[Site, ...]
    policy: Policy
    table: CalibrationTable

    @property
    def groups(self) -> list[Group]:
        """The modules that the policy quantizes."""
        macs = Counter[str]()
        for site in self.sites:
            if site.excluded is None:
                macs[site.module] += site.macs
        return [Group(module, count) for module, count in macs.items()]

    def alone(self, modules: frozenset[str]) -> ModelProto:
        """With exactly these modules in INT8, without the residuals and attentions of the policy."""
        return quantize(self.half, self._sites(modules), self.table.amax)[0]

    def together(self, kept: tuple[str, ...]) -> tuple[ModelProto, Int8Report]:
        """With all modules but ``kept``, and all that the policy asks for. Raises GateError on a wrong scale."""
        sites = self._sites(frozenset(group.module for group in self.groups) - set(kept))
        policy = replace(self.policy, keep=frozenset(kept))
        skips = find_skips(self.index, sites, policy)
        attentions = find_attentions(self.index, policy)
        amax = self.table.amax
        graph, made = quantize(self.half, sites, amax, skips=skips, attentions=attentions)
        check_scales(graph, amax, sites, skips=skips, attentions=attentions)
        return graph, made

    def _sites(self, modules: frozenset[str]) -> list[Site]:
        return [
            site if site.excluded or site.module in modules else replace(site, excluded="kept") for site in self.sites
        ]


@dataclass(frozen=True, eq=False)
class Proof:
    """What the search looks at, what the result is held to, and how good FP32 is on the former."""

    search: Yardstick
    result: Yardstick
    baseline: Judgement
    threads: int | None

    def accuracy(self, maker: Maker, kept: tuple[str, ...], on_step: OnStep) -> dict[str, Any]:
        """FP32, FP16 and INT8 on the pictures that the result is held to."""
        rows = {}
        judge = self.result.judge(self.threads)
        for name, graph in (("fp32", maker.simple), ("fp16", maker.half), ("int8", maker.together(kept)[0])):
            on_step(f"prove: {name}", None)
            rows[name] = judge(graph).metric
        data = self.result.dataset
        return {"metric": self.result.metric, "data": data.name, "images": len(data), "rows": rows}


def open_proof(
    simple: ModelProto, spec: ModelSpec, split: Split, feeds: Sequence[Feed], *, promised: bool, threads: int | None
) -> Proof | None:
    """By labels if there are some and the network knows them in FP32; a promise about 1 % of mIoU would be none.

    Else by agreement with FP32 for what was ``promised``, and None without a promise. Outputs for ``feeds`` are what
    the SQNR is measured on. Raises HiresvitError if labels were asked for and the network does not know them.
    """
    if split.labelled is None and not promised:
        return None
    known = references(simple, feeds, threads)

    def proof(metric: str, search: Dataset, result: Dataset) -> Proof:
        first = Yardstick(spec, search, metric, known)
        return Proof(first, Yardstick(spec, result, metric, known), first.judge(threads)(simple), threads)

    if split.labelled is not None:
        by_labels = proof(METRICS[spec.task], *split.labelled)
        least = 100 / len(split.labelled[0].classes) if split.asked else KNOWN
        if by_labels.baseline.metric >= least:
            return by_labels
        if split.asked:
            raise HiresvitError(
                f"{split.calib.source}: {spec.name} has {by_labels.baseline.metric:.2f} % {METRICS[spec.task]} in FP32,"
                f" and one answer for everything may have {least:.2f} %: nothing is left that INT8 could lose; look"
                " at the order of the classes and at the weights, or calibrate with pictures without labels"
            )
    if not promised:
        return None
    return proof(AGREEMENT, *(answered(simple, part, spec, threads) for part in (split.search, split.proof)))


def find_kept(maker: Maker, proof: Proof, limit: float, on_step: OnStep) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Which modules stay in FP16, with the sensitivity that decided it and the proof. Raises GateError."""
    judge = proof.search.judge(proof.threads)
    sensitivity = measure_sensitivity(maker.groups, maker.alone, judge, proof.baseline, on_step)
    every = frozenset(group.module for group in maker.groups)

    def make(modules: frozenset[str]) -> ModelProto:
        return maker.together(tuple(sorted(every - modules)))[0]

    for number in range(SEARCHES):
        tighter = limit / 2**number
        found = find_fallback(sensitivity, make, judge, proof.baseline, tighter, on_step=on_step)
        accuracy = proof.accuracy(maker, found.kept, on_step)
        rows, kept = accuracy["rows"], f"{len(found.kept)} of {len(every)} modules in FP16"
        pictures = f"{accuracy['images']} pictures of {accuracy['data']} that did not calibrate"
        what = f"{accuracy['metric']} of INT8 with {kept}, on {pictures},"
        try:
            check_drop(rows["int8"], rows["fp32"], limit, what)
        except GateError as error:
            missed = error
            continue
        search = found.to_json() | {"max_drop": limit, "searched_with": tighter}
        return found.kept, {"sensitivity": sensitivity.to_json(), "fallback": search, "accuracy": accuracy}
    raise missed
