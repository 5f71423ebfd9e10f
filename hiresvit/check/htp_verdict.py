"""What Qualcomm's own compiler says of a graph for a chip, beside our rules: the nodes that it refuses, by module."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiresvit.check.rule import Finding
from hiresvit.device.chips import Chip
from hiresvit.device.context import HtpReport
from hiresvit.device.qnn_api import require_library
from hiresvit.engine.htp import compile_graph
from hiresvit.engine.htp_arithmetic import kinds_of
from hiresvit.errors import BuildError, MissingDependency


@dataclass(frozen=True)
class Judged:
    """The compiler's report, or in words why there is none: ``skipped`` if it was not asked, ``died`` if it ended."""

    report: HtpReport | None = None
    skipped: str | None = None
    died: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"report": self.report and self.report.to_json(), "skipped": self.skipped, "died": self.died}


def judge(graph: Path, chip: Chip, *, build: bool, hopeless: bool) -> Judged:
    """Compile a graph for a chip and keep nothing, unless that is not wanted, of no use or not possible."""
    if hopeless:
        return Judged(skipped="the graph is illegal")
    if not build:
        return Judged(skipped="our own rules were asked for")
    try:
        require_library()
        return Judged(compile_graph(graph, chip))
    except MissingDependency as error:
        return Judged(skipped=str(error))
    except BuildError as error:
        return Judged(died=str(error))


def refusals(judged: Judged, known: Collection[str]) -> Iterator[Finding]:
    """What the compiler refuses, a finding for each reason and module; ``known`` are nodes that a rule has named."""
    if judged.report is None:
        return
    nodes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for refused in judged.report.refused:
        if refused.node not in known:
            what = f"{refused.op}, {refused.reason}" if refused.reason else refused.op
            nodes[refused.module, what].append(refused.node)
    for (module, what), names in nodes.items():
        message = f"{what}: Qualcomm's compiler refuses it: write it in another form, or run that part elsewhere"
        yield Finding("compiler", "illegal", tuple(names), len(names), module, what, message)
    if judged.report.failure and not judged.report.refused:
        what = " ".join(judged.report.failure.split())
        yield Finding("compiler", "illegal", (), 0, "", what, f"{what}: Qualcomm's compiler makes nothing of the graph")


def precisions(macs: Mapping[str, int]) -> dict[str, int]:
    """Multiply-accumulates by the words of `--require-precision`, of those by both operands as ``u16,s8``."""
    order = ("8", "16", "32", "fp16", "unknown")
    counts: Counter[str] = Counter()
    for operands, number in macs.items():
        widest = max(
            (kind.lstrip("us") if kind[1:].isdigit() else kind for kind in kinds_of(operands)), key=order.index
        )
        counts[f"int{widest}" if widest.isdigit() else widest] += number
    return dict(counts.most_common())
