"""Whether a graph is legal for its targets, and what a builder makes of it: our own rules, then a real build.

The rules need nothing installed. Where TensorRT-RTX is, its parser and its ahead-of-time build have the last word:
no rule of ours can know all that a parser refuses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto
from onnx.external_data_helper import load_external_data_for_model

from hiresvit.errors import BuilderRefusal, GateError, HiresvitError, IllegalGraphError, MissingDependency
from hiresvit.export.attention_rules import Attention, why_not_fused
from hiresvit.export.attentions import Explained, explain_attentions, find_attentions
from hiresvit.export.engine import DEFAULTS, BuildSettings, build_engine, load_graph
from hiresvit.export.layers import Kernel
from hiresvit.export.legality import Finding, find_problems
from hiresvit.export.profiles import check_profiles
from hiresvit.export.realised import (
    Leftover,
    check_requirement,
    fp32_leftovers,
    parse_requirement,
    realised_macs,
    unmatched_products,
)
from hiresvit.export.targets import Target
from hiresvit.plan import EngineReport, read_sidecar
from hiresvit.tensorrt_api import INSTALL_HINT, Backend, installed

_RTX: Backend = "tensorrt_rtx"
_NAMED = 5  # nodes that a finding names


@dataclass(frozen=True)
class Verdict:
    """What our rules find against a graph on one target."""

    target: Target
    findings: tuple[Finding, ...]

    @property
    def illegal(self) -> tuple[Finding, ...]:
        """The findings that the target refuses the graph for."""
        return tuple(finding for finding in self.findings if finding.level == "illegal")


@dataclass(frozen=True)
class Compiled:
    """What TensorRT-RTX made of the graph: its report, each attention, and the products by what computes them.

    ``macs`` counts multiply-accumulates of one call by precision, ``leftovers`` what is computed in FP32;
    ``unmatched`` are the products that no kernel names, ``unknown`` in ``macs``.
    """

    engine: EngineReport
    attentions: tuple[Explained, ...]
    macs: dict[str, int]
    leftovers: tuple[Leftover, ...]
    unmatched: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """The answer of `check_graph`.

    ``refused`` is why TensorRT-RTX does not take a graph that our rules pass, ``skipped`` why it was not asked,
    ``missed`` the requirement that the build does not meet.
    """

    graph: str
    verdicts: tuple[Verdict, ...]
    compiled: Compiled | None = None
    refused: str | None = None
    skipped: str | None = None
    missed: str | None = None

    @property
    def illegal(self) -> str | None:
        """Why the graph is illegal, in one line; None if it is legal for every target."""
        bad = [verdict for verdict in self.verdicts if verdict.illegal]
        if bad:
            names = ", ".join(verdict.target.name for verdict in bad)
            first = bad[0].illegal[0].message
            more = sum(len(verdict.illegal) for verdict in bad) - 1
            return f"{self.graph} is illegal for {names}: {first}" + (f" (and {more} more)" if more else "")
        return self.refused

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        targets = [
            {
                "target": verdict.target.name,
                "title": verdict.target.title,
                "legal": not verdict.illegal and self.refused is None,
                "findings": [finding.to_json() for finding in verdict.findings],
            }
            for verdict in self.verdicts
        ]
        compiled = asdict(self.compiled) if self.compiled else None
        rest = {"refused": self.refused, "skipped": self.skipped, "missed": self.missed}
        return {"graph": self.graph, "targets": targets, "compiled": compiled, **rest}


def check_graph(
    graph: Path,
    targets: Sequence[Target],
    settings: BuildSettings = DEFAULTS,
    *,
    build: bool = True,
    require: str | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> CheckReport:
    """Hold a graph to the rules of its targets and, unless one of them refuses it, to TensorRT-RTX.

    ``settings.shapes`` are the profiles of a dynamic graph, ``require`` the least share of the products in a
    precision, as ``fp16:95%``. Raises HiresvitError for a file that is no graph, UsageError for shapes or a
    requirement that cannot be served, MissingDependency for a requirement without TensorRT-RTX, BuildError when the
    builder dies, which says nothing about the graph.
    """
    required = parse_requirement(require) if require is not None else None
    model = load_graph(graph)  # says in one line what is wrong with a damaged file
    if settings.shapes:
        check_profiles(graph, model, settings.shapes)
    try:
        load_external_data_for_model(model, str(graph.parent))
    except onnx.checker.ValidationError as error:  # ONNX reads no weights through a link
        raise HiresvitError(f"{graph}: its external weights cannot be read: {_one_line(error)}") from error
    attentions = find_attentions(model, best_shapes(settings))
    profiled = bool(settings.shapes)
    verdicts = tuple(
        Verdict(
            target,
            (*find_problems(model, target, profiled=profiled), *slow_attentions(attentions, target)),
        )
        for target in targets
    )
    report = CheckReport(str(graph), verdicts)
    if any(verdict.illegal for verdict in verdicts):
        return replace(report, skipped="not built: the graph is illegal")
    if not build:
        return replace(report, skipped="not built: our own rules were asked for")
    if not installed(_RTX):
        if required is not None:
            raise MissingDependency(
                f"{require} can only be seen in a build: TensorRT-RTX is missing, {INSTALL_HINT}"
            )
        return replace(report, skipped=f"not built: TensorRT-RTX is not installed, {INSTALL_HINT}")
    try:
        compiled = _compile(graph, model, replace(settings, backend=_RTX), on_progress)
    except (IllegalGraphError, BuilderRefusal) as error:
        if settings.shapes:
            raise  # it may be their fault and not the graph's
        return replace(report, refused=str(error))
    report = replace(report, compiled=compiled)
    if required is not None:
        try:
            check_requirement(required, compiled.macs, compiled.leftovers)
        except GateError as error:
            return replace(report, missed=str(error))
    return report


def _compile(
    graph: Path, model: ModelProto, settings: BuildSettings, on_progress: Callable[[str, float], None] | None
) -> Compiled:
    with tempfile.TemporaryDirectory(prefix="hiresvit-") as folder:
        plan = Path(folder, "checked.plan")
        report = build_engine(graph, plan, settings, on_progress=on_progress)
        sidecar = read_sidecar(plan)
    assert sidecar is not None
    kernels = [Kernel.from_json(layer) for layer in sidecar.layers]
    best = best_shapes(settings)
    return Compiled(
        report,
        tuple(explain_attentions(model, kernels, best)),
        realised_macs(model, kernels, best),
        tuple(fp32_leftovers(model, kernels, best)),
        tuple(unmatched_products(model, kernels, best)),
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def best_shapes(settings: BuildSettings) -> dict[str, tuple[int, ...]]:
    """The shape of each dynamic input that a plan is best at, and that products are counted for."""
    return {name: profile[1] for name, profile in settings.shapes.items()}


def slow_attentions(attentions: Iterable[Attention], target: Target) -> list[Finding]:
    """What is known against computing attentions in one kernel: not wrong, but slow, and their scores take memory.

    For TensorRT 10 that is also what its guide does not promise, for the others what TensorRT-RTX was seen to refuse.
    """
    documented = any(version.startswith("10.") for version in target.tensorrt)
    slow: dict[str, list[str]] = {}
    for attention in attentions:
        if reason := why_not_fused(attention, documented=documented):
            slow.setdefault(reason, []).append(attention.node)
    return [
        Finding(
            "attention",
            "advice",
            tuple(nodes[:_NAMED]),
            len(nodes),
            "",
            f"attentions that are not fused, or not for certain: {reason}",
        )
        for reason, nodes in slow.items()
    ]
