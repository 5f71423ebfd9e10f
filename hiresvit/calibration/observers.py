"""From the magnitudes of one tensor to the range that INT8 keeps of them: pure numpy, constant memory.

Everything is symmetric: what counts is |x|, and a one-sided tensor, as ReLU and Softmax leave it, uses half of
the 255 levels. ``amax`` is the magnitude that becomes 127; what is beyond it is clipped.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import UsageError

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

BINS = 2048
PERCENTILE = 99.99
"""In per cent of a tensor's values: what `percentile` keeps."""

_LEVELS = 128  # of a symmetric INT8 without its sign, as NVIDIA counts them
_TOP = 127  # the largest INT8
_CLIPS = 2.0 ** (-np.arange(6 * 32 + 1) / 32)  # what `mse` tries, in amax: steps of 2 % down to 1/64
_CLIPPED = 0.01  # the largest share of the values that `entropy` may clip
_TIE = 1e-9  # divergences that are equal but for rounding
_BLOCK = 2**16  # values binned at once: half a megabyte in float64, which stays in the cache
_NUDGE = 1 + 2.0**-40


def histogram(values: NDArray[Any], amax: float) -> NDArray[np.int64]:
    """Count the |x| of an FP32 array of any shape in `BINS` equal bins of [0, amax]: int64 (BINS,).

    Bin k holds ``k * amax / BINS <= |x| < (k + 1) * amax / BINS``, exactly, and the last one all that is beyond.
    So the sum over the parts of a tensor is the histogram of the whole, however it was split.

    Raises UsageError unless ``amax`` is a normal FP32 number, and for NaN or Inf among the values.
    """
    _check_amax(amax)
    # In float64, a product is off by 2**-51 at most, but an |x| below an edge is below it by 2**-36 at least, both
    # having 24 bits. The nudge lies between: an |x| on an edge never falls below it, and no other crosses it.
    per_bin = np.float64(BINS / amax * _NUDGE)
    flat = np.asarray(values, np.float32).reshape(-1)
    counts = np.zeros(BINS, np.int64)
    scratch = np.empty(min(flat.size, _BLOCK))
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        place = scratch[: block.size]
        np.multiply(block, per_bin, out=place, dtype=np.float64)
        np.abs(place, out=place)
        furthest = place.max()
        if not np.isfinite(furthest):
            raise UsageError("the values have NaN or Inf; only finite ones have a histogram")
        if furthest >= BINS:
            np.minimum(place, BINS - 1, out=place)
        counts += np.bincount(place.astype(np.intp), minlength=BINS)
    return counts


def amax_of(counts: NDArray[np.int64], amax: float, method: Method) -> float:
    """Choose the magnitude that becomes 127, over 0 and at most ``amax``, from a `histogram` of [0, amax].

    ``minmax`` keeps everything. ``percentile`` keeps `PERCENTILE` of the values, to a bin. ``entropy`` loses the least
    information (Kullback-Leibler), ``mse`` has the least expected squared error.

    Raises UsageError for an unknown method, a histogram that is empty or of another size, and an ``amax`` that is not
    a normal FP32 number.
    """
    _check_amax(amax)
    if method not in METHODS:
        raise UsageError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    if counts.shape != (BINS,) or counts.min() < 0 or not counts.any():
        raise UsageError(f"counts of shape {counts.shape}: give a histogram of {BINS} bins with values in it")
    if method == "minmax":
        return amax
    if method == "percentile":
        return amax * (_percentile_bins(counts) / BINS)
    if method == "entropy":
        return amax * (_entropy_bins(counts) / BINS)
    return amax * float(_CLIPS[np.argmin(_squared_errors(counts))])


def _check_amax(amax: float) -> None:
    if not (math.isfinite(amax) and amax >= np.finfo(np.float32).tiny):
        raise UsageError(f"amax {amax}: a range needs a magnitude that FP32 holds with all its bits, over 1.2e-38")


def _percentile_bins(counts: NDArray[np.int64]) -> int:
    """How many bins hold `PERCENTILE` of the values."""
    held = np.cumsum(counts)
    return int(np.searchsorted(held, held[-1] * (PERCENTILE / 100))) + 1


def _entropy_bins(counts: NDArray[np.int64]) -> int:
    """How many bins to keep: the last of those, from `_LEVELS` on, with the least divergence KL(P || Q).

    As NVIDIA describes it: P is the histogram up to that bin, which the values beyond join. Q is the histogram up
    to it without those, merged into `_LEVELS` levels, each spread evenly over those of its bins that P has values
    in. Three things are needed beside, all of them measured:

    - Values near 0 are the smallest for every range, but 0 itself is exact in every one. Where zeros abound (ReLU,
      padding), spreading them costs P more than any clipping, and half of a normal distribution would be clipped.
      So bin 0 counts no more than bin 1.
    - Where Q's last level is empty and P's is not, KL is infinite, so one stray value far out would forbid all
      clipping short of it. An empty level counts as one value.
    - Where nearly everything is beyond, P and Q are alike: all in one bin. So no candidate clips more than
      `_CLIPPED` of the values. It would where samples are few or a tensor keeps away from 0, to its harm.

    KL is a sum over bins of p log p, which depends on the last bin only, less one over levels of p log q: with
    running sums over the bins each candidate takes `_LEVELS` terms, not thousands.
    """
    kept, edges = _candidates()
    bins = counts.astype(np.float64)
    bins[0] = min(bins[0], bins[1])
    total = bins.sum()
    if total == 0:  # nothing but zeros and values near them, which amax contradicts; keep it all
        return BINS
    below, used, plogp = (np.concatenate(([0.0], np.cumsum(v))) for v in (bins, bins > 0, _xlogx(bins)))
    beyond, last = total - below[kept], bins[kept - 1]
    levels = np.diff(below[edges])  # candidates, levels: Q, and P but for what lies beyond
    p_levels = levels.copy()
    p_levels[:, -1] += beyond
    sizes = np.diff(used[edges])
    sizes[:, -1] += (last == 0) & (beyond > 0)
    empty = (levels[:, -1] == 0) & (beyond > 0)
    q = np.log(np.maximum(levels, 1) / np.maximum(sizes, 1))
    entropy = plogp[kept - 1] + _xlogx(last + beyond) - (p_levels * q).sum(1)
    divergence = entropy / total - math.log(total) + np.log(below[kept] + empty)
    divergence[beyond > _CLIPPED * total] = np.inf
    return int(kept[np.flatnonzero(divergence <= divergence.min() + _TIE)[-1]])


@cache
def _candidates() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many bins a candidate keeps, and the borders of its levels in bins: (candidates, _LEVELS + 1)."""
    kept = np.arange(_LEVELS, BINS + 1)
    return kept, -(-kept[:, None] * np.arange(_LEVELS + 1) // _LEVELS)


def _xlogx(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.log(np.where(x > 0, x, 1))


def _squared_errors(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The expected squared error of each of `_CLIPS`, in amax squared, values being spread evenly inside a bin."""
    edges = np.arange(BINS + 1) / BINS
    step = (_CLIPS / _TOP)[:, None]
    # The integral of (t - q(t))**2 from 0 to x: a whole step of rounding contributes step**3 / 12, and the way from
    # the level next to x its third power over 3. Beyond the last level that way grows: clipping.
    level = np.minimum(np.round(edges / step), _TOP)
    integral = level * step**3 / 12 + (edges - level * step) ** 3 / 3
    errors: NDArray[np.float64] = np.diff(integral) @ counts.astype(np.float64) * (BINS / counts.sum())
    return errors
