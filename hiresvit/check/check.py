"""Whether a graph is legal for its targets, and what a builder makes of it: our own rules, then a real build.

The rules need nothing installed. Where TensorRT-RTX is, its parser and its ahead-of-time build have the last word on
NVIDIA's targets, and where Qualcomm's compiler is, it has it on chips: no rule of ours can know all that is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hiresvit import errors
from hiresvit.check.htp_verdict import Judged, judge, precisions, refusals
from hiresvit.check.rule import Finding, View, look
from hiresvit.check.rules import problems_of
from hiresvit.check.target import Target
from hiresvit.check.targets import RTX
from hiresvit.device.boards import Board
from hiresvit.device.chips import Chip
from hiresvit.device.plan import EngineReport, read_sidecar
from hiresvit.device.tensorrt_api import INSTALL_HINT, Backend, installed
from hiresvit.engine.build import DEFAULTS, BuildSettings, build_engine
from hiresvit.engine.fusion import Explained, explain_attentions, why_not_fused
from hiresvit.engine.kernels import Kernel
from hiresvit.engine.precision import Realised, check_requirement, parse_requirement, realise
from hiresvit.engine.profiles import check_profiles
from hiresvit.engine.roofline import describe
from hiresvit.engine.traffic import Traffic, read_layers, traffic
from hiresvit.errors import BuildError, GateError, HiresvitError, IllegalGraphError, UsageError
from hiresvit.files import scratch_folder
from hiresvit.graph.attentions import Attention, find_attentions
from hiresvit.graph.file import load_graph, load_weights
from hiresvit.graph.index import GraphIndex, index_graph

_RTX: Backend = "tensorrt_rtx"
_DAMAGED = ("operands", "invalid")  # the rules that find what nothing else can be said of


@dataclass(frozen=True)
class Verdict:
    """What our rules find against a graph on one target, and its compiler where it has one of its own."""

    target: Target
    findings: tuple[Finding, ...]
    judged: Judged | None = None

    @property
    def illegal(self) -> tuple[Finding, ...]:
        """The findings that the target refuses the graph for."""
        return tuple(finding for finding in self.findings if finding.level == "illegal")


@dataclass(frozen=True)
class Compiled(Realised):
    """What TensorRT-RTX made of the graph: its report, each attention, what it computes in, and what it moves.

    ``best_shapes`` are those that dynamic axes count at, ``overlapped`` is whether kernels may run beside each other.
    """

    engine: EngineReport
    attentions: tuple[Explained, ...]
    moved: Traffic
    best_shapes: Mapping[str, tuple[int, ...]]
    overlapped: bool

    def to_json(self, board: Board | None) -> dict[str, Any]:
        """Plain JSON values, with the bounds on a board."""
        own = ("moved", "best_shapes", "overlapped")
        shapes = {name: list(shape) for name, shape in self.best_shapes.items()}
        moved = {**describe(self.moved, board, overlapped=self.overlapped), "best_shapes": shapes}
        kept = replace(self, moved=Traffic((), (), counted=False))  # which `asdict` would take apart, kernel by kernel
        return {**{name: value for name, value in asdict(kept).items() if name not in own}, "traffic": moved}


@dataclass(frozen=True)
class CheckReport:
    """The answer of `check_graph`.

    ``refused`` is what TensorRT-RTX said instead of making a plan; where it is ``inconclusive``, the builder died or
    the shapes may be at fault. ``skipped`` is why it was not asked, ``missed`` the requirement that is not met.
    """

    graph: str
    verdicts: tuple[Verdict, ...]
    compiled: Compiled | None = None
    refused: str | None = None
    inconclusive: bool = False
    skipped: str | None = None
    missed: str | None = None

    @property
    def failure(self) -> HiresvitError | None:
        """Why the graph cannot be recommended, the gravest reason first; None if nothing is against it."""
        if bad := [verdict for verdict in self.verdicts if verdict.illegal]:
            names = ", ".join(verdict.target.name for verdict in bad)
            rules = list(dict.fromkeys(finding.rule for verdict in bad for finding in verdict.illegal))
            more = f" (also: {', '.join(rules[1:])})" if rules[1:] else ""
            return IllegalGraphError(f"{self.graph} is illegal for {names}: {bad[0].illegal[0].what}{more}")
        if self.refused:
            return BuildError(self.refused) if self.inconclusive else IllegalGraphError(self.refused)
        if died := [verdict.judged.died for verdict in self.verdicts if verdict.judged and verdict.judged.died]:
            return BuildError(died[0])
        return GateError(self.missed) if self.missed else None

    def is_legal(self, verdict: Verdict) -> bool | None:
        """Whether a target takes the graph; None where that is not known.

        What TensorRT-RTX refuses another target may take: it has the same parser, and a builder of its own.
        """
        if verdict.illegal:
            return False
        if verdict.judged is not None:
            return None if verdict.judged.died else True
        if self.refused:
            return None if self.inconclusive or verdict.target != RTX else False
        return True

    def to_json(self, board: Board | None = None) -> dict[str, Any]:
        """Plain JSON values; of a plan with its bounds on ``board``."""
        targets = [
            {
                "target": verdict.target.name,
                "title": verdict.target.title,
                "legal": self.is_legal(verdict),
                "findings": [finding.to_json() for finding in verdict.findings],
                "compiler": verdict.judged and verdict.judged.to_json(),
            }
            for verdict in self.verdicts
        ]
        compiled = self.compiled.to_json(board) if self.compiled else None
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
    """Hold a graph to the rules of its targets and, unless that is of no use, to the compilers that can judge them.

    ``settings.shapes`` are the profiles of a dynamic graph, ``require`` the least share of the products in a
    precision, as ``fp16:95%``. Raises HiresvitError for a file that is no graph, UsageError for shapes or a
    requirement that cannot be served, MissingDependency for a requirement without the compiler that could show it.
    """
    required = parse_requirement(require) if require is not None else None
    if required is not None and not build:
        raise UsageError(f"{require} can only be seen in a build, and none was asked for")
    model = load_graph(graph)  # says in one line what is wrong with a damaged file
    if settings.shapes:
        check_profiles(graph, model, settings.shapes)
    load_weights(graph, model)
    view = look(model, RTX, bool(settings.shapes))
    # A dynamic graph has no sizes of its own, and to a plan's kernels a local function is one node.
    same = not model.functions and all(view.sizes(name) is not None for name in view.inputs)
    sized = view if same else index_graph(model, {name: best for name, (_, best, _) in settings.shapes.items()})
    report = CheckReport(str(graph), _ask_rules(view, sized, targets))
    if any(target.chip is None for target in targets):
        settings = replace(settings, backend=_RTX)
        report = _ask_rtx(graph, report, view, sized, settings, build=build, required=required, on_progress=on_progress)
    return _ask_chips(graph, report, build, required)


def _ask_rules(view: View, sized: GraphIndex, targets: Sequence[Target]) -> tuple[Verdict, ...]:
    found = {target: problems_of(replace(view, target=target)) for target in targets}
    damaged = any(finding.rule in _DAMAGED for findings in found.values() for finding in findings)
    attentions = [] if damaged else find_attentions(sized)
    slow = {target: () if target.chip else _slow_attentions(attentions, target) for target in found}
    return tuple(Verdict(target, (*found[target], *slow[target])) for target in found)


def _ask_rtx(
    graph: Path,
    report: CheckReport,
    view: View,
    sized: GraphIndex,
    settings: BuildSettings,
    *,
    build: bool,
    required: tuple[str, float] | None,
    on_progress: Callable[[str, float], None] | None,
) -> CheckReport:
    """The report with what TensorRT-RTX makes of the graph. Raises MissingDependency as `check_graph` does."""
    if skipped := _why_not_build(report, view, build):
        if required is None:
            return replace(report, skipped=f"not built: {skipped}")
        unseen = f"{_said(required)} can only be seen in a build, and there is none: {skipped}"
        if report.failure is None and not installed(_RTX):
            raise errors.MissingDependency(unseen)
        return replace(report, skipped=f"not built: {skipped}", missed=unseen)
    try:
        compiled = _compile(graph, sized, settings, on_progress)
        report = replace(report, compiled=compiled)
        if required is not None:
            check_requirement(required, compiled.macs, compiled.leftovers, compiled.uncounted)
    except GateError as error:
        return replace(report, missed=str(error))
    except (IllegalGraphError, BuildError) as error:
        # The parser asks for no profile, so what it refuses no profile has done.
        ours = isinstance(error, IllegalGraphError)
        ours |= isinstance(error, errors.BuilderRefusal) and not settings.shapes
        return replace(report, refused=str(error), inconclusive=not ours)
    return report


def _ask_chips(graph: Path, report: CheckReport, build: bool, required: tuple[str, float] | None) -> CheckReport:
    """The report with what Qualcomm's compiler makes of the graph for each chip, whatever our rules say."""
    verdicts, missed = [], report.missed
    for verdict in report.verdicts:
        chip = verdict.target.chip
        if chip is None:
            verdicts.append(verdict)
            continue
        hopeless = any(finding.rule in (*_DAMAGED, "dynamic") for finding in verdict.findings)
        judged = judge(graph, chip, build=build, hopeless=hopeless)
        known = {name for finding in verdict.illegal for name in finding.nodes}
        findings = (*verdict.findings, *refusals(judged, known))
        verdicts.append(Verdict(verdict.target, findings, judged))
        if required is not None and not verdicts[-1].illegal:
            missed = missed or _missed_on(chip, judged, required)
    return replace(report, verdicts=tuple(verdicts), missed=missed)


def _missed_on(chip: Chip, judged: Judged, required: tuple[str, float]) -> str | None:
    """Why a requirement is not met on a chip. Raises MissingDependency if its compiler is not installed."""
    if judged.skipped:
        raise errors.MissingDependency(
            f"{_said(required)} can only be seen in a build, and there is none: {judged.skipped}"
        )
    if judged.report is None:
        return None
    try:
        check_requirement(required, precisions(judged.report.macs), uncounted=judged.report.uncounted)
    except GateError as error:
        return f"{chip.name}: {error}"
    return None


def _said(required: tuple[str, float]) -> str:
    return f"{required[0]}:{100 * required[1]:g}%"


def _why_not_build(report: CheckReport, view: View, wanted: bool) -> str | None:
    """Why TensorRT-RTX is not asked; None if it is: it can stand in for any target whose rules let the graph pass."""
    if all(verdict.illegal for verdict in report.verdicts if verdict.target.chip is None):
        return "the graph is illegal"
    if not wanted:
        return "our own rules were asked for"
    if not installed(_RTX):
        return f"TensorRT-RTX is not installed, {INSTALL_HINT}"
    asked = next((verdict for verdict in report.verdicts if verdict.target == RTX), None)
    own = asked or Verdict(RTX, tuple(problems_of(replace(view, target=RTX))))
    return f"TensorRT-RTX does not take it: {own.illegal[0].message}" if own.illegal else None


def _compile(
    graph: Path, index: GraphIndex, settings: BuildSettings, on_progress: Callable[[str, float], None] | None
) -> Compiled:
    with scratch_folder() as folder:
        plan = Path(folder, "checked.plan")
        report = build_engine(graph, plan, settings, on_progress=on_progress)
        sidecar = read_sidecar(plan)
    assert sidecar is not None
    kernels = [Kernel.from_json(layer) for layer in sidecar.layers]
    attentions = tuple(explain_attentions(find_attentions(index), kernels))
    best = {name: shapes[1] for name, shapes in settings.shapes.items()}
    return Compiled(
        **vars(realise(index, kernels)),
        engine=report,
        attentions=attentions,
        moved=traffic(*read_layers(sidecar.layers)),
        best_shapes=best,
        overlapped=settings.max_aux_streams > 0,
    )


def _slow_attentions(attentions: Iterable[Attention], target: Target) -> Iterator[Finding]:
    """What is known against computing attentions in one kernel: not wrong, but slow, and their scores take memory.

    That is what TensorRT-RTX was seen to refuse, and for some targets also what their guide does not promise.
    """
    slow: dict[str, list[str]] = defaultdict(list)
    for attention in attentions:
        if reason := why_not_fused(attention, documented=target.fuses_as_documented):
            slow[reason].append(attention.node)
    for reason, nodes in slow.items():
        what = "attentions that are not fused, or not for certain"
        yield Finding("attention", "advice", tuple(nodes), len(nodes), "", what, f"{what}: {reason}")
