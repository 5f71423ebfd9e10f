"""How far a number of a data set may be off because it has these pictures and not others of their kind.

The percentile bootstrap (Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13) over pictures: as many
as there are, are drawn from them with replacement, a thousand times, and the metric is computed anew from each draw's
summed counts. Its 2.5th and 97.5th percentile bound the interval. Pixels of one picture depend on each other, pictures
do not, so pictures are what is drawn. Every network sees the same draws, which pairs a difference of two: what makes a
picture hard for both cancels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEED = 0
RESAMPLES = 1000
LEVEL = 95.0
_AT_A_TIME = 64  # draws: of 50,000 pictures 25 MB


def resampled_sums(rows: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
    """The rows (N, C) of N pictures summed over draws of N of them with replacement: (resamples, C).

    Which pictures a draw has depends on ``seed``, ``resamples`` and N alone.
    """
    generator, count = np.random.Generator(np.random.PCG64(seed)), len(rows)
    sums = np.empty((resamples, rows.shape[1]))
    for start in range(0, resamples, _AT_A_TIME):
        size = min(_AT_A_TIME, resamples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        sums[start : start + size] = times.astype(np.float64) @ rows
    return sums


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The percentiles between which `LEVEL` % of a metric's values over draws lie; None if a draw has none."""
    tail = (100 - LEVEL) / 2
    low, high = np.nanpercentile(values, (tail, 100 - tail)) if not np.isnan(values).all() else (np.nan, np.nan)
    return None if np.isnan(low) else (float(low), float(high))
