"""Which modules stay in FP16 so that a network loses no more than a stated number of points to INT8."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hiresvit.calibration.sensitivity import Judge, Judgement, Quantizer, Sensitivity, finite
from hiresvit.errors import GateError, UsageError
from hiresvit.progress import OnStep, silent

TRIES = 64
"""Graphs judged at most; the binary search takes 9 of them for 100 modules."""

Passes = Callable[[Collection[str]], bool]
"""Whether the graph with these modules in FP16 is good enough."""

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
    stays: str = "FP16",
    on_step: OnStep = silent,
) -> Fallback:
    """Search a small set of modules to keep in FP16 so that the metric is at most ``max_drop`` points below baseline.

    ``stays`` is what they are kept in, if not that. Nothing is kept if full INT8 is good enough. Else a binary search
    finds how many of the most sensitive modules must be kept, and then each of them, those with the most
    multiply-accumulates first, goes back to INT8 if the drop stays within the limit, until none can. The drop need not
    fall with every module kept: what is returned was judged, and is minimal in the sense that no single module can go
    back. `TRIES` bounds the graphs that are judged; the binary search is always finished, and 2 + log2(modules) is what
    it takes.

    ``baseline`` is what ``judge`` says of the reference, so that the search can be held to other pictures than the
    sensitivity was measured on. Raises UsageError for a ``max_drop`` that is negative or not finite, GateError if even
    the graph with every module in FP16 drops by more.
    """
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise UsageError(f"max_drop {max_drop}: give percentage points from 0 on, for example 0.5")
    macs = {row.module: row.macs for row in sensitivity.modules}
    judged: dict[frozenset[str], Judgement] = {}

    def passes(kept: Collection[str]) -> bool:
        chosen = frozenset(kept)
        if chosen not in judged:
            on_step(f"fallback: {len(chosen)} of {len(macs)} modules in {stays}", None)
            judged[chosen] = judge(quantizer(frozenset(macs) - chosen))
        return within(baseline.metric - judged[chosen].metric, max_drop)

    kept: tuple[str, ...] = () if passes(()) else _prefix(tuple(macs), passes)
    if not passes(kept):
        what = f"the graph with all {len(kept)} modules in {stays}"
        check_drop(judged[frozenset(kept)].metric, baseline.metric, max_drop, what)
    kept, minimal = _pruned(kept, macs, judged, passes)
    result, full = judged[frozenset(kept)], judged[frozenset()]
    return Fallback(
        kept=kept,
        metric=result.metric,
        drop=baseline.metric - result.metric,
        sqnr_db=result.sqnr_db,
        full_drop=baseline.metric - full.metric,
        int8_share=sum(count for module, count in macs.items() if module not in kept) / (sum(macs.values()) or 1),
        tried=len(judged),
        minimal=minimal,
    )


def check_drop(metric: float, baseline: float, max_drop: float, what: str) -> None:
    """Raise GateError if ``metric`` is more than ``max_drop`` points below ``baseline``; ``what`` was measured."""
    drop = baseline - metric
    if not within(drop, max_drop):
        raise GateError(
            f"{what} is {metric:.2f} %, {drop:.2f} points below {baseline:.2f} %: --max-drop {max_drop:g} allows less;"
            " allow more, or calibrate with more and better pictures"
        )


def within(drop: float, max_drop: float) -> bool:
    """Whether so many points may be lost, but for rounding."""
    return drop <= max_drop + _ROUNDING


def _prefix(order: tuple[str, ...], passes: Passes) -> tuple[str, ...]:
    """The most sensitive modules, as many as it takes; all of them if no other number is enough."""
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(order[:middle]) else (middle, high)
    return order[:high]


def _pruned(
    kept: tuple[str, ...], macs: Mapping[str, int], judged: Collection[frozenset[str]], passes: Passes
) -> tuple[tuple[str, ...], bool]:
    """Without the modules that can go back to INT8, and whether all were tried."""
    shrunk = True
    while shrunk:
        shrunk = False
        for module in sorted(kept, key=lambda name: -macs[name]):
            rest = tuple(name for name in kept if name != module)
            if frozenset(rest) not in judged and len(judged) >= TRIES:
                return kept, False
            if passes(rest):
                kept, shrunk = rest, True
    return kept, True
