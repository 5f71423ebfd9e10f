"""From an FP32 graph and pictures to an INT8 graph that is as accurate as was asked, and the evidence for it.

The pictures are split before anything is measured: one part calibrates, one is what the search for modules that stay
in FP16 looks at, and one, which neither has seen, proves the result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.audit import check_scales
from hiresvit.calibration.calibrate import calibrate
from hiresvit.calibration.collect import MEMORY_BYTES
from hiresvit.calibration.fallback import check_drop, find_fallback
from hiresvit.calibration.observers import Method
from hiresvit.calibration.qdq import Int8Report, calibration_tensors, quantize
from hiresvit.calibration.sensitivity import Group, measure_sensitivity
from hiresvit.calibration.sites import Policy, Site, find_sites, find_skips
from hiresvit.calibration.table import CalibrationTable, graph_digest, load_table, require_match
from hiresvit.data.pictures import SCENES, Feeds, Pictures, find_pictures, open_pictures
from hiresvit.data.scenes import Dataset, Scenes
from hiresvit.device.plan import EngineReport
from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.graph.index import GraphIndex, index_graph
from hiresvit.progress import OnStep, silent
from hiresvit.report.chart import bar_chart
from hiresvit.spec import ModelSpec
from hiresvit.workflows.yardstick import AGREEMENT, METRICS, Kept, Yardstick, answered, references

DEFAULT_METHOD: Method = "mse"
DEFAULT_IMAGES = 64
# Pictures that do not calibrate if there is a --max-drop: a quarter of all, within these bounds.
ASIDE = (8, 48)
SEARCH_SCENES, PROOF_SCENES = 40, 200
SHOWN_SCENES = 40  # of the proof's, where nothing was promised
SEARCH_SEED = 700_000  # neither training's, nor calibration's, nor evaluation's
KNOWN = (
    50.0  # per cent of mIoU: a network below it in FP32 has not learned these labels, and cannot lose them
)
REFERENCES = 2  # pictures that the SQNR is measured on
SEARCHES = 3  # the limit of the search is halved each time the proof misses the one that was asked for


@dataclass(frozen=True)
class Int8Settings:
    """What can be chosen about an INT8 graph.

    ``calib`` is a source of `open_pictures`, ``images`` how many of them calibrate, ``table`` a calibration from
    before. ``max_drop`` are percentage points below FP32; without it every layer that the policy allows is INT8.
    ``prove``: whether to measure accuracy without a ``max_drop``, too, where the pictures have labels.
    """

    calib: str
    method: Method = DEFAULT_METHOD
    images: int = DEFAULT_IMAGES
    seed: int = 0
    table: Path | None = None
    max_drop: float | None = None
    residual: bool = False
    attention: bool = False
    memory: int = MEMORY_BYTES
    threads: int | None = None
    prove: bool = True


@dataclass(frozen=True, eq=False)
class Int8Result:
    """The graph, the ranges it was made from, and a report as plain JSON values."""

    graph: ModelProto
    table: CalibrationTable
    report: dict[str, Any]


def make_int8(
    simple: ModelProto,
    half: ModelProto,
    spec: ModelSpec,
    settings: Int8Settings,
    *,
    state: Path | None = None,
    on_step: OnStep = silent,
) -> Int8Result:
    """Calibrate the simplified FP32 graph and write Q/DQ into its FP16 form ``half``.

    ``state`` is where an interrupted calibration goes on from. Raises UsageError on settings that cannot be served,
    HiresvitError on pictures that cannot, ArtefactError on a table of another graph, pictures or preprocessing, and
    GateError if no choice of modules keeps within ``max_drop`` on the pictures of the proof.
    """
    check_int8(settings, spec)
    policy = Policy(residual=settings.residual, int8_attention=settings.attention)
    index = index_graph(simple, {})
    sites = find_sites(index, policy)
    if all(site.excluded for site in sites):
        raise UsageError(
            f"{spec.name}: the policy leaves all {len(sites)} layers in FP16, there is nothing to do"
        )
    calib, aside = _pictures(settings, spec, on_step)
    feeds = Feeds(calib, spec, simple.graph.input[0].name)
    tensors = calibration_tensors(sites, find_skips(index, sites, policy), find_attentions(index, policy))
    table = _table(simple, tensors, feeds, settings, state=state, on_step=on_step)
    maker = _Maker(index, half, tuple(sites), policy, table)
    report: dict[str, Any] = {"calibration": _calibration_json(table, calib, settings.images)}
    kept: tuple[str, ...] = ()
    if settings.max_drop is not None:
        on_step("search", None)
        kept, found = _fallback(maker, _proving(spec, settings, simple, feeds, aside), on_step)
        report |= found
    elif settings.prove and (proving := _proving(spec, settings, simple, feeds, aside)).labelled:
        report["accuracy"] = proving.accuracy(maker, proving.proof(), kept, on_step)
    graph, made = maker.together(kept)
    return Int8Result(
        graph, table, report | {"policy": _policy_json(policy, kept), "quantize": made.to_json()}
    )


def check_int8(settings: Int8Settings, spec: ModelSpec) -> None:
    """Raise UsageError on settings that cannot be served."""
    drop = settings.max_drop
    if drop is not None and not (math.isfinite(drop) and drop >= 0):
        raise UsageError(f"--max-drop {drop:g}: give percentage points from 0 on, such as 0.5")
    if drop is not None and spec.task == "features":
        raise UsageError(
            "--max-drop is about answers and features are none: leave it out, or choose another task"
        )
    if settings.images < 2:
        raise UsageError(f"--calib-images {settings.images}: give at least 2, better 64")
    if settings.memory < 1:
        raise UsageError(f"--calib-memory {settings.memory}: give a positive number")


def check_sources(settings: Int8Settings, spec: ModelSpec) -> None:
    """What `check_int8` checks, and the files, before the work that precedes `make_int8`. Raises HiresvitError."""
    check_int8(settings, spec)
    find_pictures(settings.calib, spec.imgsz)
    if settings.table is not None:
        load_table(settings.table)


@dataclass(frozen=True, eq=False)
class _Maker:
    """Makes INT8 graphs of one network from one calibration."""

    simple: GraphIndex
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
        skips = find_skips(self.simple, sites, policy)
        attentions = find_attentions(self.simple, policy)
        amax = self.table.amax
        graph, made = quantize(self.half, sites, amax, skips=skips, attentions=attentions)
        check_scales(graph, amax, sites, skips=skips, attentions=attentions)
        return graph, made

    def _sites(self, modules: frozenset[str]) -> list[Site]:
        return [
            site if site.excluded or site.module in modules else replace(site, excluded="kept")
            for site in self.sites
        ]


@dataclass(frozen=True, eq=False)
class _Proving:
    """Measures graphs on pictures that did not calibrate: ``aside``, or scenes if they are ``labelled``."""

    spec: ModelSpec
    settings: Int8Settings
    simple: ModelProto
    feeds: Feeds
    aside: Pictures
    labelled: bool

    def search(self) -> Yardstick:
        """What the search looks at."""
        if self.labelled:
            return self._by_labels(Kept(Scenes(SEARCH_SCENES, self.spec.imgsz, SEARCH_SEED)))
        return self._by_agreement(self.aside.part(0, len(self.aside) // 2))

    def proof(self) -> Yardstick:
        """What the result is held to."""
        if self.labelled:
            count = SHOWN_SCENES if self.settings.max_drop is None else PROOF_SCENES
            return self._by_labels(Scenes(count, self.spec.imgsz))
        return self._by_agreement(self.aside.part(len(self.aside) // 2, len(self.aside)))

    def accuracy(
        self, maker: _Maker, proof: Yardstick, kept: tuple[str, ...], on_step: OnStep
    ) -> dict[str, Any]:
        """FP32, FP16 and INT8 on the same pictures."""
        rows = {}
        judge = proof.judge(self.settings.threads)
        for name, graph in (("fp32", self.simple), ("fp16", maker.half), ("int8", maker.together(kept)[0])):
            on_step(f"prove: {name}", None)
            rows[name] = judge(graph).metric
        return {
            "metric": proof.metric,
            "data": proof.dataset.name,
            "images": len(proof.dataset),
            "rows": rows,
        }

    def _by_labels(self, scenes: Dataset) -> Yardstick:
        return Yardstick(self.spec, scenes, METRICS[self.spec.task], self._references())

    def _by_agreement(self, pictures: Pictures) -> Yardstick:
        dataset = answered(self.simple, pictures, self.spec, self.settings.threads)
        return Yardstick(self.spec, dataset, AGREEMENT, self._references())

    def _references(self) -> Any:
        return references(self.simple, [self.feeds[i] for i in range(REFERENCES)], self.settings.threads)


def _proving(
    spec: ModelSpec, settings: Int8Settings, simple: ModelProto, feeds: Feeds, aside: Pictures
) -> _Proving:
    """By labels if there are some and the network knows them in FP32; a promise about 1 % of mIoU would be none."""
    labelled = settings.calib == SCENES and spec.task == "segment" and max(Scenes.classes) < spec.num_classes
    made = _Proving(spec, settings, simple, feeds, aside, labelled)
    if labelled and made.search().judge(settings.threads)(simple).metric < KNOWN:
        return replace(made, labelled=False)
    return made


def _pictures(settings: Int8Settings, spec: ModelSpec, on_step: OnStep) -> tuple[Pictures, Pictures]:
    """Those that calibrate, and those that are kept from it for the search and the proof."""
    asked = settings.images + (ASIDE[1] if settings.max_drop is not None else 0)
    found = open_pictures(settings.calib, spec.imgsz, asked, seed=settings.seed, on_step=on_step)
    if settings.max_drop is None:
        return found, found.part(0, 0)
    aside = min(max(len(found) // 4, ASIDE[0]), ASIDE[1])
    if len(found) - aside < 2:
        raise HiresvitError(
            f"{settings.calib}: {len(found)} pictures are too few for --max-drop, which keeps at least {ASIDE[0]} from"
            f" calibration to prove its result on; give at least {ASIDE[0] + 2}"
        )
    first = min(settings.images, len(found) - aside)
    return found.part(0, first), found.part(len(found) - aside, len(found))


def _table(
    simple: ModelProto, tensors: list[str], feeds: Feeds, settings: Int8Settings, **running: Any
) -> CalibrationTable:
    """The ranges: measured, or read and held to this graph, these pictures and this preprocessing."""
    preprocess, digest = feeds.spec.preprocess, feeds.pictures.digest
    if settings.table is not None:
        table = load_table(settings.table)
        require_match(table, graph=graph_digest(simple), data=digest, preprocess=preprocess)
        return table
    return calibrate(
        simple,
        tensors,
        feeds,
        method=settings.method,
        data_digest=digest,
        preprocess=preprocess,
        memory_bytes=settings.memory,
        threads=settings.threads,
        **running,
    )


def _fallback(maker: _Maker, proving: _Proving, on_step: OnStep) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Which modules stay in FP16, with the sensitivity that decided it and the proof. Raises GateError."""
    limit, threads = proving.settings.max_drop, proving.settings.threads
    assert limit is not None
    judge = proving.search().judge(threads)
    baseline = judge(proving.simple)
    sensitivity = measure_sensitivity(maker.groups, maker.alone, judge, baseline, on_step)
    every = frozenset(group.module for group in maker.groups)
    proof = proving.proof()
    for number in range(SEARCHES):
        found = find_fallback(
            sensitivity,
            lambda modules: maker.together(tuple(sorted(every - modules)))[0],
            judge,
            baseline,
            limit / 2**number,
            on_step=on_step,
        )
        accuracy = proving.accuracy(maker, proof, found.kept, on_step)
        rows, what = (
            accuracy["rows"],
            f"{accuracy['images']} pictures of {accuracy['data']} that did not calibrate",
        )
        try:
            kept = f"{len(found.kept)} of {len(every)} modules in FP16"
            check_drop(
                rows["int8"], rows["fp32"], limit, f"{accuracy['metric']} of INT8 with {kept}, on {what},"
            )
        except GateError as error:
            missed = error
            continue
        search = found.to_json() | {"max_drop": limit, "searched_with": limit / 2**number}
        return found.kept, {"sensitivity": sensitivity.to_json(), "fallback": search, "accuracy": accuracy}
    raise missed


def _calibration_json(table: CalibrationTable, pictures: Pictures, asked: int) -> dict[str, Any]:
    return {
        "source": pictures.source,
        "asked": asked,
        "images": len(pictures),
        "skipped": list(pictures.skipped),
        "small": pictures.small,
        "method": table.method,
        "tensors": len(table.amax),
        "dead": list(table.dead),
        "data": table.data,
        "graph": table.graph,
    }


def _policy_json(policy: Policy, kept: tuple[str, ...]) -> dict[str, Any]:
    return asdict(policy) | {"keep": list(kept)}


def require_fused(half: EngineReport, int8: EngineReport) -> None:
    """Raise GateError if fewer attentions are one kernel in the INT8 plan than in the FP16 plan."""
    if int8.attentions_fused < half.attentions_fused:
        raise GateError(
            f"the INT8 plan fuses {int8.attentions_fused} of {int8.attentions_total} attentions, the FP16 plan"
            f" {half.attentions_fused}: Q/DQ on a part of an attention breaks it; quantize all five points or none"
        )


def sensitivity_chart(sensitivity: Mapping[str, Any], kept: Sequence[str]) -> str:
    """A bar for every module: the points that it loses alone in INT8, as SVG."""
    rows = [(row["module"], row["drop"]) for row in sensitivity["modules"]]
    return bar_chart(rows, title="what each module loses alone in INT8", unit="points", highlight=kept)


def int8_verdict(
    half: Mapping[str, Any], int8: Mapping[str, Any], accuracy: Mapping[str, Any] | None
) -> list[str]:
    """What the two plans and the accuracies say about whether INT8 is worth it, in sentences.

    ``half`` and ``int8`` are `EngineReport.to_json`. Plans are not run here, so speed is not known; what is known
    are kernels, memory and size.
    """
    said = []
    more = int8["kernel_total"] - half["kernel_total"]
    smaller = 1 - int8["plan_bytes"] / half["plan_bytes"]
    facts = (
        f"the INT8 plan has {int8['kernel_total']} kernels where FP16 has {half['kernel_total']},"
        f" and is {abs(smaller):.0%} {'smaller' if smaller > 0 else 'larger'}"
    )
    if more > 0 and smaller <= 0:
        said.append(
            f"INT8 is not worth it by what can be seen without a GPU: {facts}; stay with FP16 unless a"
            " measurement on the device says otherwise"
        )
    elif more > 0:
        said.append(
            f"INT8 saves memory only, by what can be seen without a GPU: {facts}; measure both on the device"
        )
    else:
        said.append(f"{facts}; measure both on the device")
    if accuracy is not None:
        rows = accuracy["rows"]
        lost = rows["fp16"] - rows["int8"]
        said.append(f"INT8 costs {lost:.2f} points of {accuracy['metric']} against FP16")
    return said
