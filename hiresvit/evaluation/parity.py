"""How far two runs of one network differ, and the gates that say how far is too far.

Agreement is strict: the share of argmaxes that are equal, near-ties included. Noise flips the pixels whose
two best logits lie closer together than the noise, and there are always some: for independent normal logits
of 19 classes 8 % at 22 dB, 0.6 % at 45 dB, 0.2 % at 55 dB and 0.01 % at 80 dB (simulated; about 1.5 times
that for 150 classes). Fresh random weights are such a case, trained ones decide most pixels by a wide margin.
A tolerance for near-ties that follows the measured noise would forgive the very error it is there to catch,
so the gates leave room for them instead, and `Parity.flip_margin` tells the cases apart: up to `NEAR_TIE` the
argmaxes that differ were near-ties, towards 1 the network answers something else.

Of raw outputs each has its own measures, and agreement is there where the sign of a number decides: that of a mask,
which is of a query where it is positive. Noise at 45 dB moves 0.2 % of normal numbers across zero. Of a detector all
levels together have one agreement, that of the boxes (`hiresvit.evaluation.detections`); it stands at the first output.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.bundle.stages import EXACT, LIMITS
from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.evaluation.detections import boxes_agree
from hiresvit.models.zoo import has_queries
from hiresvit.runtime.runner import Runner
from hiresvit.spec import MASKS, AnchorSpec, Feed, ModelSpec, Task, is_raw

NEAR_TIE = 0.05
"""The gap between two logits, in standard deviations of a pixel's logits, that noise at 45 dB can close."""

_BLOCK = 2**20  # elements upcast to float64 at once; a whole 19x1024x2048 logit map would take 0.3 GB a copy


@dataclass(frozen=True)
class Parity:
    """One output compared.

    ``sqnr_db`` is 20 log10(|ref| / |ref - test|), infinite for exact arrays. ``agreement`` is the share of
    equal argmaxes, of masks that of equal signs, at a detector's first output that of its boxes, None for other
    raw outputs. ``flip_margin`` is the widest gap in the reference between its class and the test's, in standard
    deviations of that pixel's logits, over the argmaxes that differ; None without any. A test with NaN or Inf
    (``non_finite`` of them) gets the worst of every
    measure.
    """

    max_abs: float
    cosine: float
    sqnr_db: float
    agreement: float | None
    flip_margin: float | None
    exact: bool
    non_finite: int


@dataclass(frozen=True)
class OutputParity:
    """One output over all images: the worst of each measure, and the mean agreement."""

    name: str
    worst: Parity
    mean_agreement: float | None


@dataclass(frozen=True)
class ParityReport:
    """What `compare` found."""

    task: Task
    images: int
    outputs: tuple[OutputParity, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite measure is null, ``exact`` and ``non_finite`` say which kind."""
        outputs = [
            {"name": o.name, **_finite(asdict(o.worst)), "mean_agreement": o.mean_agreement} for o in self.outputs
        ]
        return {"task": self.task, "images": self.images, "outputs": outputs}


@dataclass(frozen=True)
class Gate:
    """The least a comparison must reach; NaN or Inf fails every gate."""

    min_sqnr_db: float
    min_cosine: float
    min_agreement: float


GATES: dict[str, Gate] = {name: Gate(*limits) for name, limits in LIMITS.items()}
"""The gates of `hiresvit export`, by stage: what is compared with the stage before and with PyTorch."""


_SIGNED = Gate(80.0, 0.999999, 0.99)
_OF_QUERIES = {
    **dict.fromkeys(("onnx", "simplified", "cpu"), _SIGNED),
    "fp16": replace(GATES["fp16"], min_agreement=0.9),
    EXACT: replace(GATES[EXACT], min_agreement=0.9),
}
"""Those of a head of queries, in which the sign of a sum decides what the next layer sees.

Sums in another order turn a sign of 1.6 million on some pictures at 512x512. LRFormer-T+ with fresh weights leaves
105 dB and 99.999 % of the labels there, and 118 dB at 64x64, where none is turned; a sign more has cost up to 0.5 % of
the labels. FP16's weights turn some at any size: 93.2 % of the labels are left at 64x64, where a token is one of 4 to
64, and 99.3 % at 512x512. docs/masks.md has the table, benchmarks/turned_sign.py what one sign costs. Small mistakes
of the head are found in float64, by its own tests.
"""


_OF_BOXES = {name: replace(gate, min_agreement=0.0) for name, gate in GATES.items() if gate.min_sqnr_db < 30}
"""Those of a detector: noise that 8 bits are allowed, 20 dB, leaves a quarter of the boxes where they were."""


_IN_BFLOAT16 = Gate(15.0, 0.98, 0.7)
"""Of a runner that computes in bfloat16, whatever the graph: 8 bits of mantissa leave 18 dB less than FP16's 11.

25.6 dB with 95.5 % of the labels on fresh b1 at 512x512, 25.8 dB and 92.1 % on LRFormer-T (OpenVINO 2026.4,
docs/performance.md), 28 dB and 89.9 % on that at 64x64, 18.3 dB on a tiny HRViT of the tests. It does not tell small
mistakes from rounding: those are found in FP32. Of a golden pair a classifier's one class is right or wrong, and noise
moves some of few boxes: no agreement.
"""


def gate_of_runner(gate: Gate, runner: Runner, spec: ModelSpec) -> Gate:
    """A graph's gate, or in each measure that of the precision which its runner was told to compute in, if lower."""
    if runner.precision is None:
        return gate
    least = replace(_IN_BFLOAT16, min_agreement=0.0) if spec.task in ("classify", "detect") else _IN_BFLOAT16
    return Gate(*(min(pair) for pair in zip(astuple(gate), astuple(least), strict=True)))


def gates_for(spec: ModelSpec, asked: Mapping[str, Gate]) -> Mapping[str, Gate]:
    """The gates of a model: those that were asked for, else its own."""
    own = _OF_QUERIES if has_queries(spec) else _OF_BOXES if spec.task == "detect" else {}
    return {name: own.get(name, gate) if gate == GATES[name] else gate for name, gate in asked.items()}


def compare_arrays(
    reference: NDArray[Any], test: NDArray[Any], task: Task = "features", *, signs: bool = False
) -> Parity:
    """Compare two arrays of one shape and of any real dtypes, in float64.

    Agreement is per pixel over axis 1 of (B, C, H, W) for segment and top-1 of (B, C) for classify; with ``signs`` the
    share of numbers of which both or neither is positive. Raises UsageError if the shapes differ, are empty or do not
    fit the task, HiresvitError if the reference itself has NaN or Inf: then nothing can be said about the test.
    """
    if reference.shape != test.shape or reference.size == 0:
        raise UsageError(f"reference is {reference.shape}, test is {test.shape}; shapes must be equal, not empty")
    rank = {"segment": 4, "classify": 2}.get(task, reference.ndim)
    if reference.ndim != rank:
        raise UsageError(f"an output of shape {reference.shape} is not {task}: that needs {rank} dimensions")
    if bad := reference.size - int(np.count_nonzero(np.isfinite(reference))):
        raise HiresvitError(f"the reference has {bad} NaN or Inf values; repair it first, nothing compares with it")
    if bad := test.size - int(np.count_nonzero(np.isfinite(test))):
        agreement = 0.0 if signs or not is_raw(task) else None
        return Parity(math.inf, -math.inf, -math.inf, agreement, None, exact=False, non_finite=bad)
    agreement, margin = (None, None) if is_raw(task) else _agreement(reference, test)
    if signs:
        agreement = float(np.mean((reference > 0) == (test > 0)))
    max_abs, cosine, sqnr_db = _distance(reference, test)
    return Parity(max_abs, cosine, sqnr_db, agreement, margin, exact=max_abs == 0, non_finite=0)


def compare(
    reference: Runner, test: Runner, feeds: Iterable[Feed], task: Task, anchors: AnchorSpec | None = None
) -> ParityReport:
    """Run both on every feed, one image at a time, and keep the worst of each measure per output.

    ``anchors`` are a detector's, of which boxes are compared, too.

    Raises UsageError if there is no feed, if a feed does not fit, or if the outputs differ in name or shape.
    """
    [found] = compare_each(reference, [test], feeds, task, anchors)
    return found


def compare_each(
    reference: Runner,
    tests: Sequence[Runner],
    feeds: Iterable[Feed],
    task: Task,
    anchors: AnchorSpec | None = None,
) -> tuple[ParityReport, ...]:
    """`compare` of each of ``tests``, for which the reference runs once."""
    found: list[list[dict[str, Parity]]] = [[] for _ in tests]
    for feed in feeds:
        expected = reference(feed)
        for images, test in zip(found, tests, strict=True):
            images.append(_compare_outputs(expected, test(feed), task, anchors))
    if not found[0]:
        raise UsageError("no images to compare on; give at least one")
    return tuple(
        ParityReport(task, len(images), tuple(_summary(name, [image[name] for image in images]) for name in images[0]))
        for images in found
    )


def compare_runs(reference: Feed, test: Feed, task: Task, anchors: AnchorSpec | None = None) -> ParityReport:
    """Compare the outputs of one run with recorded ones. Raises UsageError if they differ in name or shape."""
    outputs = _compare_outputs(reference, test, task, anchors)
    return ParityReport(task, 1, tuple(_summary(name, [parity]) for name, parity in outputs.items()))


def _compare_outputs(reference: Feed, test: Feed, task: Task, anchors: AnchorSpec | None) -> dict[str, Parity]:
    if sorted(reference) != sorted(test):
        raise UsageError(f"the reference returns {list(reference)}, the test {list(test)}; compare runs of one network")
    found = {
        name: compare_arrays(values, test[name], task, signs=(task, name) == ("masks", MASKS))
        for name, values in reference.items()
    }
    if anchors is not None:
        name, broken = next(iter(found)), any(one.non_finite for one in found.values())
        agreement = 0.0 if broken else boxes_agree(reference, test, anchors)
        found[name] = replace(found[name], agreement=agreement)
    return found


def check_gate(report: ParityReport, gate: Gate, stage: str) -> list[str]:
    """Say in one line each which measures miss the gate; an empty list passes.

    Segmentation is held to its worst image. Classification is held to its mean, since one image is either
    right or wrong, and not at all if every answer that differs was a near-tie: a handful of images cannot
    tell those from a share of 99 %, and the logits' SQNR is gated as well.
    """
    failures = []
    for output in report.outputs:
        worst, where = output.worst, f"{stage}: output {output.name!r}"
        if worst.non_finite:
            failures.append(f"{where} has {worst.non_finite} NaN or Inf values, allowed are 0; no option lifts this")
            continue
        agreement = output.mean_agreement if report.task == "classify" else worst.agreement
        near_tie = report.task == "classify" and (worst.flip_margin or 0.0) <= NEAR_TIE
        for measure, value, least, option in (
            ("sqnr_db", worst.sqnr_db, gate.min_sqnr_db, "--min-sqnr"),
            ("cosine", worst.cosine, gate.min_cosine, "--min-cosine"),
            ("agreement", None if near_tie else agreement, gate.min_agreement, "--min-agreement"),
        ):
            if value is not None and value < least:
                failures.append(f"{where} has {measure} {value:.6g}, at least {least:g} is needed; {option} sets it")
    return failures


def enforce(report: ParityReport, gate: Gate, stage: str) -> None:
    """Raise GateError with the first failure and the number of the others, if the report misses the gate."""
    if failures := check_gate(report, gate, stage):
        raise GateError(failures[0] + (f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""))


def _distance(reference: NDArray[Any], test: NDArray[Any]) -> tuple[float, float, float]:
    """Largest absolute difference, cosine (0 if one side is all zeros) and SQNR in dB."""
    ref, other = reference.ravel(), test.ravel()
    ref_sq = test_sq = diff_sq = dot = max_abs = 0.0
    for start in range(0, ref.size, _BLOCK):
        a = ref[start : start + _BLOCK].astype(np.float64)
        b = other[start : start + _BLOCK].astype(np.float64)
        d = a - b
        ref_sq += float(a @ a)
        test_sq += float(b @ b)
        diff_sq += float(d @ d)
        dot += float(a @ b)
        max_abs = max(max_abs, float(np.abs(d).max()))
    if max_abs == 0:
        return 0.0, 1.0, math.inf
    norms = math.sqrt(ref_sq) * math.sqrt(test_sq)
    cosine = min(dot / norms, 1.0) if norms else 0.0  # rounding can leave 1 + 2e-16
    return max_abs, cosine, 10 * math.log10(ref_sq / diff_sq) if ref_sq else -math.inf


def _agreement(reference: NDArray[Any], test: NDArray[Any]) -> tuple[float, float | None]:
    """Share of equal argmaxes over axis 1, and the flip margin."""
    expected, actual = reference.argmax(1), test.argmax(1)
    flips = expected != actual
    if not (count := int(np.count_nonzero(flips))):
        return 1.0, None
    logits = np.moveaxis(reference, 1, -1)[flips].astype(np.float64)  # flips, C
    row = np.arange(count)
    gap = logits[row, expected[flips]] - logits[row, actual[flips]]
    spread = np.maximum(logits.std(1), np.finfo(np.float64).tiny)  # equal logits: 0 / tiny is 0
    return 1 - count / flips.size, float((gap / spread).max())


def _summary(name: str, images: list[Parity]) -> OutputParity:
    agreements = [p.agreement for p in images if p.agreement is not None]
    margins = [p.flip_margin for p in images if p.flip_margin is not None]
    worst = Parity(
        max_abs=max(p.max_abs for p in images),
        cosine=min(p.cosine for p in images),
        sqnr_db=min(p.sqnr_db for p in images),
        agreement=min(agreements, default=None),
        flip_margin=max(margins, default=None),
        exact=all(p.exact for p in images),
        non_finite=sum(p.non_finite for p in images),
    )
    return OutputParity(name, worst, sum(agreements) / len(agreements) if agreements else None)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
