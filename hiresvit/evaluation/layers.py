"""Where two runs of one network part: the difference at every boundary of a module, and of which kind it is.

Nothing here knows what runs a network. Each side is a function that fetches some of its tensors; they come in chunks of
a bounded size, are summed up at once and let go of, so that memory does not depend on how many modules there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.process import trim_memory
from hiresvit.progress import OnStep, silent

if TYPE_CHECKING:
    from hiresvit.graph.modules import Boundary

Verdict = Literal["scale", "saturation", "nan", "outliers", "everything"]
Fetch = Callable[[int], Sequence[NDArray[Any]]]
"""The tensors that were asked for, on a picture by its number."""
Side = Callable[[Sequence[str]], Fetch]
"""What makes a network ready to give some of its tensors."""

# In dB, of a module, between what noise leaves at the worst of all modules (trained nano, HRViT-b1 and LRFormer-T at
# 256x256: FP32 against PyTorch 118, FP16 57 and more than 35 with fresh weights, INT8 20) and what the smallest fault
# that costs anything leaves where it begins: docs/compare.md, docs/faults.md.
# Graphs for Qualcomm's HTP, emulated, the trained nano at 64x64 and LRFormer-T at 128x128: a16w8 24 and 29, and 19.7 of
# the nano where 4 pictures gave the ranges; a8w8 21 and 17. Its lost transpose leaves 0.4 to 6.5 where it begins.
TOLERANCES = {"fp32": 80.0, "fp16": 33.0, "bf16": 15.0, "a16w8": 15.0, "a8w8": 10.0, "int8": 10.0}
MEMORY_BYTES = 512 * 2**20
"""Of the tensors of one side that are in memory at a time."""
FEW = 0.001
"""The share of a tensor's values that counts as a few."""

_MOST = 0.9  # of the error's energy: what explains so much of it is its kind
_CLIPPED = 0.5  # a clipped value pulls its neighbours along in no way, but noise is on the others, too
_BLOCK = 2**20  # elements upcast to float64 at once


@dataclass(frozen=True)
class Pair:
    """A module as both sides have it."""

    reference: Boundary
    test: Boundary

    @property
    def floor(self) -> float:
        """Below it no reader sees a difference: 8 bits of the HTP's form have no room for that, so none is counted."""
        known = [side.floor for side in (self.reference, self.test) if side.floor is not None]
        return min(known, default=-math.inf)


@dataclass(frozen=True)
class Matched:
    """``pairs`` in the reference's order, and the modules that are of one side only or of another size there."""

    pairs: tuple[Pair, ...]
    only_reference: tuple[str, ...]
    only_test: tuple[str, ...]


@dataclass(frozen=True)
class LayerDifference:
    """A module's difference over all pictures.

    ``sqnr_db`` is 20 log10(|ref| / |ref - test|), None for exact or incomparable tensors, ``scale`` the factor that
    brings the reference nearest to the test (least squares). ``outliers`` is the share of the error's energy in the
    `FEW` values that are worst, ``clipped`` that in values at the test's own bound where the reference goes beyond it.
    ``non_finite`` counts NaN and Inf of the test. ``verdict`` is None within the tolerance.
    """

    module: str
    kind: str
    tensor: str
    sqnr_db: float | None
    max_abs: float | None
    cosine: float | None
    scale: float | None
    outliers: float | None
    clipped: float | None
    non_finite: int
    verdict: Verdict | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def match_modules(reference: Sequence[Boundary], test: Sequence[Boundary]) -> Matched:
    """Pair the modules of two sides by their paths, if their tensors have one shape, or one has its channels last.

    An export leaves out a transposition that the next one takes back, and PyTorch's module made it.
    """
    other = {boundary.module: boundary for boundary in test}
    pairs = []
    for mine in reference:
        theirs = other.get(mine.module)
        if theirs is not None and _fit(mine.shape, theirs.shape):
            pairs.append(Pair(mine, theirs))
    both = {pair.reference.module for pair in pairs}
    left, right = ([b.module for b in side if b.module not in both] for side in (reference, test))
    return Matched(tuple(pairs), tuple(left), tuple(right))


def _fit(one: Sequence[int] | None, other: Sequence[int] | None) -> bool:
    """Whether tensors of these shapes can be one, as far as that is known."""
    if one is None or other is None:
        return True
    left, right = ([size for size in shape if size != 1] for shape in (one, other))
    return left == right or (len(left) == 3 and right in ([*left[1:], left[0]], [left[2], *left[:2]]))


def laid_out(reference: NDArray[Any], test: NDArray[Any]) -> NDArray[Any]:
    """The test in the reference's layout: as it is, or with its channels moved from one end to the other.

    Where the shape does not tell them apart (64 channels of 64x64), it is the one that follows the reference, if the
    other does not at all. Raises ValueError if it can be none.
    """
    ref, other = reference.squeeze(), test.squeeze()
    if ref.ndim != 3 or ref.size != other.size or other.ndim != 3:
        if ref.shape != other.shape:
            raise ValueError
        return other
    ways = [other, np.moveaxis(other, -1, 0), np.moveaxis(other, 0, -1)]
    fitting = [way for way in ways if way.shape == ref.shape]
    if not fitting:
        raise ValueError
    return max(fitting, key=lambda way: _follows(ref, way)) if len(fitting) > 1 else fitting[0]


def _follows(reference: NDArray[Any], test: NDArray[Any]) -> bool:
    """Whether one is more or less the other: `max` keeps the first of those that are equal."""
    a, b = (side.astype(np.float32).ravel() for side in (reference, test))
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(a @ b > 0.5 * np.linalg.norm(a) * np.linalg.norm(b))


def compare_layers(
    pairs: Sequence[Pair],
    reference: Side,
    test: Side,
    *,
    images: int,
    tolerance: float,
    memory_bytes: int = MEMORY_BYTES,
    on_step: OnStep = silent,
) -> list[LayerDifference]:
    """The difference of each pair over ``images`` pictures, in the order of ``pairs``.

    ``tolerance`` is the least SQNR in dB without a verdict. Each side is asked for a chunk of tensors at a time, of up
    to ``memory_bytes`` or one tensor, and runs once a picture for it. Raises UsageError without pairs or pictures, and
    for tensors of another size than was said; HiresvitError for NaN or Inf in the reference.
    """
    if not pairs or images < 1:
        raise UsageError(f"{len(pairs)} modules on {images} pictures: nothing to compare; give at least one of each")
    found: list[LayerDifference] = []
    for chunk in in_chunks(pairs, memory_bytes):
        sides = [
            reference([pair.reference.source for pair in chunk]),
            test([pair.test.source for pair in chunk]),
        ]
        sums = [_Sums(pair.reference.module, pair.floor) for pair in chunk]
        for image in range(images):
            on_step("layers: " + chunk[0].reference.module, (len(found) + len(chunk) * image / images) / len(pairs))
            _add(sums, sides, image)
        found += [one.difference(pair, tolerance) for one, pair in zip(sums, chunk, strict=True)]
        del sides  # and with them the session, before the next one is made
        trim_memory()
    on_step("layers", 1.0)
    return found


def in_chunks(pairs: Sequence[Pair], memory_bytes: int) -> Iterable[list[Pair]]:
    """Pairs in order, each chunk within ``memory_bytes`` a side, or one pair."""
    chunk: list[Pair] = []
    left = 0.0
    for pair in pairs:
        size = math.inf if pair.reference.size is None else 4 * pair.reference.size
        if chunk and size > left:
            yield chunk
            chunk = []
        left = (left if chunk else memory_bytes) - size
        chunk.append(pair)
    if chunk:
        yield chunk


def first_beyond(found: Sequence[LayerDifference]) -> LayerDifference | None:
    """The first module that leaves the tolerance, in the reference's order."""
    return next((one for one in found if one.verdict is not None), None)


def _add(sums: Sequence[_Sums], sides: Sequence[Fetch], image: int) -> None:
    for one, reference, test in zip(sums, *(side(image) for side in sides), strict=True):
        one.add(reference, test)


class _Sums:
    """What is kept of a module's tensors: sums of squares and products, over all pictures."""

    def __init__(self, module: str, floor: float) -> None:
        self.module, self.floor = module, floor
        self.ref_sq = self.test_sq = self.diff_sq = self.dot = self.max_abs = 0.0
        self.worst_sq = self.clipped_sq = 0.0
        self.clipped = self.non_finite = 0

    def add(self, reference: NDArray[Any], test: NDArray[Any]) -> None:
        """Those of one picture."""
        try:
            other = laid_out(reference, test).ravel()
        except ValueError:
            raise UsageError(
                f"module {self.module!r} has {list(reference.shape)} here and {list(test.shape)} there: compare two"
                " forms of one network at one size"
            ) from None
        ref = reference.ravel()
        if bad := ref.size - int(np.count_nonzero(np.isfinite(ref))):
            raise HiresvitError(
                f"the reference has {bad} NaN or Inf values in module {self.module!r}; repair it first, nothing"
                " compares with it"
            )
        bad = other.size - int(np.count_nonzero(np.isfinite(other)))
        self.non_finite += bad
        if not bad:
            self._add_finite(ref, other)

    def _add_finite(self, ref: NDArray[Any], other: NDArray[Any]) -> None:
        low, high = (max(float(end), self.floor) for end in (other.min(), other.max()))
        few = max(1, int(FEW * ref.size))
        worst = np.zeros(0)
        for start in range(0, ref.size, _BLOCK):
            a, b = (np.maximum(side[start : start + _BLOCK], self.floor, dtype=np.float64) for side in (ref, other))
            error = np.square(a - b)
            self.ref_sq += float(a @ a)
            self.test_sq += float(b @ b)
            self.dot += float(a @ b)
            self.diff_sq += float(error.sum())
            self.max_abs = max(self.max_abs, math.sqrt(float(error.max())))
            if low < high:
                beyond = ((b == high) & (a > high)) | ((b == low) & (a < low))
                self.clipped += int(np.count_nonzero(beyond))
                self.clipped_sq += float(error[beyond].sum())
            worst = np.concatenate([worst, error])
            if worst.size > few:
                worst = np.partition(worst, worst.size - few)[-few:]
        self.worst_sq += float(worst.sum())

    def difference(self, pair: Pair, tolerance: float) -> LayerDifference:
        """What the sums say."""
        names = (pair.reference.module, pair.reference.kind, pair.reference.tensor)
        if self.non_finite:
            return LayerDifference(*names, None, None, None, None, None, None, self.non_finite, "nan")
        if not self.diff_sq:
            return LayerDifference(*names, None, 0.0, 1.0, 1.0, None, None, 0, None)
        sqnr = 10 * math.log10(self.ref_sq / self.diff_sq) if self.ref_sq else -math.inf
        norms = math.sqrt(self.ref_sq) * math.sqrt(self.test_sq)
        return LayerDifference(
            *names,
            sqnr_db=sqnr if self.ref_sq else None,
            max_abs=self.max_abs,
            cosine=min(self.dot / norms, 1.0) if norms else 0.0,
            scale=self.dot / self.ref_sq if self.ref_sq else None,
            outliers=self.worst_sq / self.diff_sq,
            clipped=self.clipped_sq / self.diff_sq,
            non_finite=0,
            verdict=self._verdict() if sqnr < tolerance else None,
        )

    def _verdict(self) -> Verdict:
        """The kind of a difference: the first of these that explains it."""
        # One value at a bound is that of any tensor: its largest.
        if self.clipped > 1 and self.clipped_sq >= _CLIPPED * self.diff_sq:
            return "saturation"
        rest = self.test_sq - self.dot**2 / self.ref_sq if self.ref_sq else math.inf
        if rest <= (1 - _MOST) * self.diff_sq:
            return "scale"
        return "outliers" if self.worst_sq >= _MOST * self.diff_sq else "everything"
