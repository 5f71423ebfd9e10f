"""Several networks' accuracies on the same pictures, each beside the first: intervals, differences, the worst pictures.

All plain JSON values. Accuracies and differences are in per cent and points, intervals those of
`hiresvit.evaluation.bootstrap`, agreements shares from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.dataset import Dataset
from hiresvit.evaluation.bootstrap import interval, resampled_sums
from hiresvit.evaluation.counts import class_rows, foreign, metrics, needed
from hiresvit.evaluation.ledger import Ledger

MAIN = {"segment": "miou", "classify": "top1"}
"""The one number of a task."""
KEPT = ((0.999, "99.9 %"), (0.99, "99 %"))
"""Shares of the first side's number that MLPerf asks for (Inference rules, quality targets), and their words."""

_Draws = Mapping[str, NDArray[np.float64]]


def side_rows(
    ledger: Ledger, dataset: Dataset, classes: Sequence[int], *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """What was measured of each side, ``classes`` being how many each network has: ``failure`` to ``against``."""
    found: list[dict[str, Any]] = []
    first: tuple[dict[str, float], _Draws] | None = None
    for side, num_classes in enumerate(classes):
        if side in ledger.failures:
            found.append(_empty(ledger.failures[side]))
            continue
        rows = ledger.rows[side, : ledger.done]
        sums = rows.sum(0)
        draws = resampled_sums(rows[:, : needed(dataset)], resamples=resamples, seed=seed) if len(rows) > 1 else None
        values = {name: float(value) for name, value in metrics(sums, dataset, num_classes).items()}
        spread = {} if draws is None else metrics(draws, dataset, num_classes)
        row = _empty(None)
        row["metrics"] = {name: _measured("value", value, spread.get(name)) for name, value in values.items()}
        row["classes"] = class_rows(sums, dataset) if dataset.task == "segment" else []
        row["foreign"] = foreign(sums, dataset)
        if side == 0:
            first = values, spread
        elif first is not None:
            row["against"] = _against(first, values, spread, MAIN[dataset.task]) | {
                "agreement": float(ledger.equal[side, : ledger.done].sum() / ledger.answers[: ledger.done].sum())
            }
        found.append(row)
    return found


def worst_pictures(ledger: Ledger, dataset: Dataset, most: int) -> list[dict[str, Any]]:
    """The pictures on which another side agrees least with the first, and of those the ones that are answered worst.

    With one side, or without the first, those that are answered worst. Each with its number, its agreement or None, and
    each side's accuracy in per cent, that of its pixels, or 0 or 100 of a class.
    """
    done, living = ledger.done, ledger.living
    right = np.full((len(ledger.rows), done), np.nan)
    for side in living:
        rows = ledger.rows[side, :done]
        name = "pixel_accuracy" if dataset.task == "segment" else "top1"
        right[side] = metrics(rows[:, : needed(dataset)], dataset, 1)[name]
    others = [side for side in living if side] if 0 in living else []
    share = (ledger.equal[others, :done] / ledger.answers[:done]).min(0) if others else np.ones(done)
    known = np.where(np.isnan(right[living]), 100.0, right[living]).mean(0)
    order = np.lexsort((known, share))[:most]
    return [
        {
            "index": int(index),
            "agreement": float(share[index]) if others else None,
            "accuracy": [None if np.isnan(value) else float(value) for value in right[:, index]],
        }
        for index in order
    ]


def keeps(value: float, first: float) -> str:
    """How much of the first side's number another one keeps, in words."""
    return next((words for share, words in KEPT if value >= share * first), f"less than {KEPT[-1][1]}")


def _empty(failure: dict[str, Any] | None) -> dict[str, Any]:
    return {"failure": failure, "metrics": {}, "classes": [], "foreign": None, "against": None}


def _measured(what: str, value: float, draws: NDArray[np.float64] | None) -> dict[str, float | None]:
    bounds = None if draws is None or np.isnan(value) else interval(draws)
    low, high = bounds or (None, None)
    return {what: None if np.isnan(value) else value, "low": low, "high": high}


def _against(
    first: tuple[dict[str, float], _Draws], values: Mapping[str, float], spread: _Draws, main: str
) -> dict[str, Any]:
    known, draws = first
    both = [name for name in values if name in known]
    differences = {
        name: _measured("difference", values[name] - known[name], spread[name] - draws[name] if spread else None)
        for name in both
    }
    return {"metrics": differences, "keeps": keeps(values[main], known[main])}
