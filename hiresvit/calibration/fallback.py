"""Which modules stay in FP16 so that a network loses no more than a stated number of points to INT8."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from hiresvit.calibration.sensitivity import Judge, Judgement, Quantizer, Sensitivity, finite
from hiresvit.errors import GateError, UsageError
from hiresvit.progress import OnStep, silent

TRIES = 64
"""Graphs judged at most; the binary search takes 9 of them for 100 modules."""

_ROUNDING = 1e-9  # points: in binary 64.4 - 63.9 is more than 0.5


@dataclass(frozen=True)
class Fallback:
    """What `find_fallback` found.

    ``kept``: the modules that stay in FP16, the most sensitive first. ``metric``, ``drop`` and ``sqnr_db`` are of
    that graph, ``full_drop`` is of the one with every module in INT8. ``int8_share`` is the share, from 0 to 1, of the
    quantizable multiply-accumulates that are in INT8. ``tried``: how many graphs were judged. ``minimal``: whether
    each kept module is known to be needed, which it is unless the tries ran out.
    """

    kept: tuple[str, ...]
    metric: float
    drop: float
    sqnr_db: float
    full_drop: float
    int8_share: float
    tried: int
    minimal: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite SQNR is null."""
        return finite({**asdict(self), "kept": list(self.kept)})


def find_fallback(
    sensitivity: Sensitivity,
    quantizer: Quantizer,
    judge: Judge,
    baseline: Judgement,
    max_drop: float,
    *,
    on_step: OnStep = silent,
) -> Fallback:
    """Search a small set of modules to keep in FP16 so that the metric is at most ``max_drop`` points below baseline.

    Nothing is kept if full INT8 is good enough. Else a binary search finds how many of the most sensitive modules must
    be kept, and then each of them, those with the most multiply-accumulates first, goes back to INT8 if the drop stays
    within the limit, until none can. The drop need not fall with every module kept: what is returned was judged, and
    is minimal in the sense that no single module can go back. `TRIES` bounds the graphs that are judged; the binary
    search is always finished, and 2 + log2(modules) is what it takes.

    ``baseline`` is what ``judge`` says of the reference, so that the search can be held to other pictures than the
    sensitivity was measured on. Raises UsageError for a ``max_drop`` that is negative or not finite, GateError if even
    the graph with every module in FP16 drops by more.
    """
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop {max_drop}: give percentage points from 0 on, for example 0.5")
    search = _Search(sensitivity, quantizer, judge, baseline, max_drop, on_step)
    kept, minimal = search.pruned(search.prefix())
    result, full = search.judged[frozenset(kept)], search.judged[frozenset()]
    total = sum(row.macs for row in sensitivity.modules) or 1
    return Fallback(
        kept=kept,
        metric=result.metric,
        drop=baseline.metric - result.metric,
        sqnr_db=result.sqnr_db,
        full_drop=baseline.metric - full.metric,
        int8_share=sum(row.macs for row in sensitivity.modules if row.module not in kept) / total,
        tried=len(search.judged),
        minimal=minimal,
    )


def check_drop(metric: float, baseline: float, max_drop: float, what: str) -> None:
    """Raise GateError if ``metric`` is more than ``max_drop`` points below ``baseline``; ``what`` was measured."""
    drop = baseline - metric
    if not _within(drop, max_drop):
        raise GateError(
            f"{what} is {metric:.2f} %, {drop:.2f} points below {baseline:.2f} %: --max-drop {max_drop:g} allows less;"
            " allow more, or calibrate with more and better pictures"
        )


def _within(drop: float, max_drop: float) -> bool:
    return drop <= max_drop + _ROUNDING


@dataclass
class _Search:
    """The judgements so far, by what was kept in FP16: no graph is judged twice."""

    sensitivity: Sensitivity
    quantizer: Quantizer
    judge: Judge
    baseline: Judgement
    max_drop: float
    on_step: OnStep
    judged: dict[frozenset[str], Judgement] = field(default_factory=dict)

    def passes(self, kept: Iterable[str]) -> bool:
        chosen = frozenset(kept)
        if chosen not in self.judged:
            names = frozenset(row.module for row in self.sensitivity.modules)
            self.on_step(f"fallback: {len(chosen)} of {len(names)} modules in FP16", None)
            self.judged[chosen] = self.judge(self.quantizer(names - chosen))
        return _within(self.baseline.metric - self.judged[chosen].metric, self.max_drop)

    def prefix(self) -> tuple[str, ...]:
        """The most sensitive modules, as many as it takes; raises GateError if all are not enough."""
        order = tuple(row.module for row in self.sensitivity.modules)
        if self.passes(()):
            return ()
        low, high = 0, len(order)  # too few, and enough if any number is
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.passes(order[:middle]) else (middle, high)
        if not self.passes(order[:high]):
            metric = self.judged[frozenset(order)].metric
            check_drop(metric, self.baseline.metric, self.max_drop, f"the graph with all {high} modules in FP16")
        return order[:high]

    def pruned(self, kept: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
        """Without the modules that can go back to INT8, and whether all were tried."""
        macs = {row.module: row.macs for row in self.sensitivity.modules}
        shrunk = True
        while shrunk:
            shrunk = False
            for module in sorted(kept, key=lambda name: -macs[name]):
                rest = tuple(name for name in kept if name != module)
                if frozenset(rest) not in self.judged and len(self.judged) >= TRIES:
                    return kept, False
                if self.passes(rest):
                    kept, shrunk = rest, True
        return kept, True
