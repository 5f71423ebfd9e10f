"""From an FP32 graph and pictures to an INT8 graph that is as accurate as was asked, and the evidence for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto

from hiresvit.calibration.attention import find_attentions
from hiresvit.calibration.audit import check_scales
from hiresvit.calibration.calibrate import calibrate
from hiresvit.calibration.collect import MEMORY_BYTES, RunOptions
from hiresvit.calibration.observers import Method
from hiresvit.calibration.qdq import Int8Report, calibration_tensors, quantize
from hiresvit.calibration.sensitivity import Group
from hiresvit.calibration.sites import Policy, Site, find_sites, find_skips
from hiresvit.calibration.table import CalibrationTable, graph_digest, load_table, require_match
from hiresvit.data.pictures import Feeds, Pictures, find_pictures
from hiresvit.device.plan import EngineReport
from hiresvit.errors import GateError, UsageError
from hiresvit.evaluation.headroom import Headroom, measure_headroom
from hiresvit.export.tensorrt import for_tensorrt
from hiresvit.graph.index import GraphIndex, index_graph
from hiresvit.progress import OnStep, silent
from hiresvit.spec import ModelSpec, is_raw
from hiresvit.workflows.proof import Found, Maker, open_proof, prove
from hiresvit.workflows.split import Split, picture_source, split_pictures
from hiresvit.workflows.yardstick import Yardstick

DEFAULT_METHOD: Method = "mse"
DEFAULT_IMAGES = 64
REFERENCES = 2  # pictures that the SQNR is measured on


@dataclass(frozen=True)
class CalibrationSettings:
    """What can be chosen about integers that are made from pictures.

    ``calib`` is a source of `open_pictures`, or the name of a data set that lies in the folder ``data``, and ``split``
    the part of it that is meant. ``images`` are how many of its pictures calibrate, ``table`` is a calibration from
    before. ``max_drop`` are percentage points below FP32, by the labels where there are some; without it everything
    has as few bits as there are. ``prove``: whether to measure accuracy without a ``max_drop``, too, where the
    pictures have labels.
    """

    calib: str
    data: Path | None = None
    split: str | None = None
    method: Method = DEFAULT_METHOD
    images: int = DEFAULT_IMAGES
    seed: int = 0
    table: Path | None = None
    max_drop: float | None = None
    memory: int = MEMORY_BYTES
    threads: int | None = None
    prove: bool = True


@dataclass(frozen=True)
class Int8Settings(CalibrationSettings):
    """What can be chosen about TensorRT's INT8 graph; ``residual``, ``attention`` and ``lean`` are those of `Policy`.

    Raises UsageError for two that contradict each other.
    """

    residual: bool = False
    attention: bool = False
    lean: bool = False

    def __post_init__(self) -> None:
        if self.lean and self.residual:
            raise UsageError("--int8-lean keeps what is added in FP16 and --int8-residual does not: leave one out")


@dataclass(frozen=True, eq=False)
class Int8Result:
    """The graph, the ranges it was made from, and a report as plain JSON values.

    ``headroom``: how much of FP16's range this graph (``int8``) and the FP16 one (``fp16``) use on the pictures that
    calibrate, both in their form for TensorRT. ``proof`` are the pictures that its accuracy was measured on, None where
    it was not.
    """

    graph: ModelProto
    table: CalibrationTable
    report: dict[str, Any]
    headroom: dict[str, Headroom]
    proof: Yardstick | None = None


@dataclass(frozen=True, eq=False)
class Int8Maker:
    """Makes TensorRT's INT8 graphs of one network from one calibration; ``index`` is that of ``simple``."""

    simple: ModelProto
    index: GraphIndex
    half: ModelProto
    sites: tuple[Site, ...]
    policy: Policy
    table: CalibrationTable
    name = "int8"
    stays = "FP16"

    @property
    def references(self) -> dict[str, ModelProto]:
        """FP32, and the graph that INT8 is written into."""
        return {"fp32": self.simple, "fp16": self.half}

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
        """With all modules but ``kept``, all that the policy asks for, and in its form for TensorRT.

        Raises GateError on a wrong scale.
        """
        sites = self._sites(frozenset(group.module for group in self.groups) - set(kept))
        policy = replace(self.policy, keep=frozenset(kept))
        skips = find_skips(self.index, sites, policy)
        attentions = find_attentions(self.index, policy)
        amax = self.table.amax
        graph, made = quantize(self.half, sites, amax, skips=skips, attentions=attentions)
        check_scales(graph, amax, sites, skips=skips, attentions=attentions)
        return for_tensorrt(graph), made

    def _sites(self, modules: frozenset[str]) -> list[Site]:
        return [
            site if site.excluded or site.module in modules else replace(site, excluded="kept") for site in self.sites
        ]


def make_int8(
    simple: ModelProto,
    half: ModelProto,
    spec: ModelSpec,
    settings: Int8Settings,
    *,
    also: Sequence[str] = (),
    state: Path | None = None,
    on_step: OnStep = silent,
) -> Int8Result:
    """Calibrate the simplified FP32 graph and write Q/DQ into its FP16 form ``half``, as `to_fp16` makes it.

    ``also`` are more of its tensors that the table gets ranges of, for another writer. ``state`` is where an
    interrupted calibration goes on from. Raises UsageError on settings that cannot be served, HiresvitError on pictures
    that cannot, ArtefactError on a table of another graph, pictures or preprocessing, and GateError if no choice of
    modules keeps within ``max_drop`` on the pictures of the proof, or if FP16 cannot hold what either graph computes on
    a picture that calibrates.
    """
    check_calibration(settings, spec)
    policy = Policy(residual=settings.residual, int8_attention=settings.attention, lean=settings.lean)
    index = index_graph(simple, {})
    sites = find_sites(index, policy)
    if all(site.excluded for site in sites):
        raise UsageError(f"{spec.name}: the policy leaves all {len(sites)} layers in FP16, there is nothing to do")
    split = split_for(settings, spec, on_step)
    feeds = Feeds(split.calib, spec, simple.graph.input[0].name)
    look = partial(measure_headroom, feeds=feeds, threads=settings.threads, on_step=on_step)
    headroom = {"fp16": look(for_tensorrt(half), what="fp16")}
    tensors = calibration_tensors(sites, find_skips(index, sites, policy), find_attentions(index, policy))
    tensors = list(dict.fromkeys([*tensors, *also]))
    table = ranges_for(simple, tensors, feeds, settings, settings.method, state=state, on_step=on_step)
    maker = Int8Maker(simple, index, half, tuple(sites), policy, table)
    found = searched(maker, split, feeds, settings, on_step)
    graph, made = maker.together(found.kept)
    headroom["int8"] = look(graph, what="int8")
    report = {"calibration": calibration_json(table, split.calib, settings.images)} | found.report
    report |= {"policy": asdict(policy) | {"keep": list(found.kept)}, "quantize": made.to_json()}
    return Int8Result(graph, table, report | headroom["int8"].to_json(), headroom, found.proven)


def split_for(settings: CalibrationSettings, spec: ModelSpec, on_step: OnStep) -> Split:
    """The pictures of the settings, in the parts that they are for."""
    return split_pictures(
        settings.calib,
        settings.data,
        spec,
        part=settings.split,
        images=settings.images,
        seed=settings.seed,
        promised=settings.max_drop is not None,
        on_step=on_step,
    )


def searched(maker: Maker, split: Split, feeds: Feeds, settings: CalibrationSettings, on_step: OnStep) -> Found:
    """Which modules keep more bits, by what the settings promise, and the accuracy where it can be measured."""
    promised = settings.max_drop is not None
    if not promised and not settings.prove:
        return Found((), {}, None)
    if promised:
        on_step("search", None)
    few = [feeds[i] for i in range(REFERENCES)]
    fp32 = maker.references["fp32"]
    proof = open_proof(fp32, feeds.spec, split, few, promised=promised, threads=settings.threads)
    return prove(maker, proof, settings.max_drop, on_step)


def check_calibration(settings: CalibrationSettings, spec: ModelSpec) -> None:
    """Raise UsageError on settings that cannot be served."""
    drop = settings.max_drop
    if drop is not None and not (math.isfinite(drop) and drop >= 0):
        raise UsageError(f"--max-drop {drop:g}: give percentage points from 0 on, such as 0.5")
    if drop is not None and is_raw(spec.task):
        raise UsageError(f"--max-drop is about answers and {spec.task} are none: leave it out, or choose another task")
    if settings.images < 2:
        raise UsageError(f"--calib-images {settings.images}: give at least 2, better 64")
    if settings.memory < 1:
        raise UsageError(f"--calib-memory {settings.memory}: give a positive number")


def check_sources(settings: CalibrationSettings, spec: ModelSpec) -> None:
    """What `check_calibration` checks, and the files, before the work that precedes them. Raises HiresvitError."""
    check_calibration(settings, spec)
    find_pictures(picture_source(settings.calib, settings.data, settings.split, spec), spec.imgsz)
    if settings.table is not None:
        load_table(settings.table)


def ranges_for(
    simple: ModelProto,
    tensors: Sequence[str],
    feeds: Feeds,
    settings: CalibrationSettings,
    method: Method,
    **running: Any,
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
        method=method,
        data_digest=digest,
        preprocess=preprocess,
        run=RunOptions(settings.memory, settings.threads, **running),
    )


def calibration_json(table: CalibrationTable, pictures: Pictures, asked: int) -> dict[str, Any]:
    """What calibrated, and with which result."""
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


def require_fused(half: EngineReport, int8: EngineReport) -> None:
    """Raise GateError if fewer attentions are one kernel in the INT8 plan than in the FP16 plan."""
    if int8.attentions_fused < half.attentions_fused:
        raise GateError(
            f"the INT8 plan fuses {int8.attentions_fused} of {int8.attentions_total} attentions, the FP16 plan"
            f" {half.attentions_fused}: Q/DQ on a part of an attention breaks it; quantize all five points or none"
        )
