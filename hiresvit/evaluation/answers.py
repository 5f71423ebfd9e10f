"""How far the answers of a graph with a contract are from PyTorch's, and how far is too far.

A graph is compared as a tensor first (`hiresvit.evaluation.parity`), which sees every logit. What is compared here is
what comes out behind the contract, for the same picture: so whatever is wrong between the pixels and the network, or
between its logits and the labels, is found here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import GateError, HiresvitError, UsageError
from hiresvit.runtime.runner import Runner
from hiresvit.spec import ContractSpec, Feed, Task

# Arithmetic in another order leaves 108 dB between PyTorch and its export, which decides 4 pixels of a million anew in
# a network with fresh weights, whose classes are near ties everywhere; a channel in the wrong place costs tens of per
# cent, and a grey level rounded down instead of to the nearest some tenths. A camera's pixels are resized on the way:
# where Pillow's sum ends at a half its fixed point and a graph's float32 may round to two sides, and such a grey level
# moves a few labels around it.
AGREEMENT = {"image": 0.99999, "camera": 0.9999}
FEW = 5
"""So many pixels may differ in any case: of a small picture one alone is more than that share."""

# Mean distance of the confidence in levels of 255: a half that is rounded down makes it 0.5, noise moves one level in a
# few thousand pixels. FP16 moves a probability by up to the share that its logits lose, 1.2 % at its gate of 38 dB.
_LEVELS = {"exact": 0.05, "half": 2.0}
# Logarithm of the ratio of a class' probabilities, which is how far its logit moved against the others: float32 leaves
# 1e-5 of logits that reach 10, a grey level here and there no more, FP16 what its gate does. Channels in the wrong
# order are 0.005 even in a mean over the picture that three fresh convolutions take.
_PROBABILITY = {"exact": 1e-3, "half": 0.25}
_SMALLEST = 1e-6  # probabilities below it are all the same
NEAR_TIE = 0.05
"""The ratio's logarithm up to which another best class is no other answer."""


@dataclass(frozen=True)
class AnswerGate:
    """The least share of equal answers, and the most that ``apart`` may be; None where eight bits decide it."""

    min_agreement: float
    max_apart: float | None


@dataclass(frozen=True)
class AnswerParity:
    """What `compare_answers` found, over all pictures.

    ``answers`` are ``unit``, pixels or, of a classifier, pictures, of which ``differing`` have another label or best
    class. ``apart``: of a classifier the largest logarithm of the ratio of a class' two probabilities; of a segmentor
    the mean distance of the confidence, in its levels of 255, and ``levels`` the largest; None where there is none.
    """

    pictures: int
    unit: Literal["pixels", "pictures"]
    answers: int
    differing: int
    apart: float | None = None
    levels: int | None = None

    @property
    def agreement(self) -> float:
        """The share of equal answers."""
        return 1 - self.differing / self.answers

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "agreement": self.agreement}


def answer_gate(stage: str, contract: ContractSpec, task: Task, min_agreement: float | None) -> AnswerGate:
    """The gate of a stage, by the name of its gate for tensors: ``onnx``, ``simplified``, ``cpu``, ``fp16``, ``int8``.

    ``min_agreement`` is what FP16 and INT8 are held to as tensors, and for FP32 what the user asked for, else None.
    """
    kind = {"fp16": "half", "int8": "eight"}.get(stage, "exact")
    least = AGREEMENT.get(contract.name, 1.0) if min_agreement is None else min_agreement
    return AnswerGate(least, (_LEVELS if task == "segment" else _PROBABILITY).get(kind))


def compare_answers(reference: Runner, test: Runner, feeds: Iterable[Feed]) -> AnswerParity:
    """Run both on every feed of one picture, and compare ``labels``, or ``classes`` with their ``probabilities``.

    Raises UsageError without feeds or for outputs of other names or shapes, HiresvitError for NaN.
    """
    return joined([compare_answer(reference(feed), test(feed)) for feed in feeds])


def compare_answer(expected: Feed, found: Feed) -> AnswerParity:
    """Two answers for the same picture, in a contract's terms, with the batch or without it."""
    shapes = [{name: array.shape for name, array in sorted(side.items())} for side in (expected, found)]
    if shapes[0] != shapes[1] or not {"labels", "classes"} & set(expected):
        raise UsageError(f"the reference answers {shapes[0]}, the test {shapes[1]}; compare answers of one contract")
    if "classes" in expected:
        return _classes(expected, found)
    labels = expected["labels"]
    differing = int(np.count_nonzero(labels != found["labels"]))
    if "confidence" not in expected:
        return AnswerParity(1, "pixels", labels.size, differing)
    distance = np.abs(expected["confidence"].astype(np.int16) - found["confidence"])
    return AnswerParity(1, "pixels", labels.size, differing, float(distance.mean()), int(distance.max()))


def joined(found: Sequence[AnswerParity]) -> AnswerParity:
    """Several pictures' in one. Raises UsageError for none."""
    if not found:
        raise UsageError("no pictures to compare on; give at least one")
    unit, answers = found[0].unit, sum(one.answers for one in found)
    levels = max((one.levels for one in found if one.levels is not None), default=None)
    aparts = [one.apart for one in found if one.apart is not None]
    apart = None
    if aparts:  # pictures of one size: the mean of means
        apart = max(aparts) if unit == "pictures" else sum(aparts) / len(aparts)
    differing = sum(one.differing for one in found)
    return AnswerParity(sum(one.pictures for one in found), unit, answers, differing, apart, levels)


def check_answers(found: AnswerParity, gate: AnswerGate, stage: str) -> list[str]:
    """Say in one line each what misses the gate; an empty list passes.

    A few pixels may always differ, and the best class where it was as good as a tie: one picture is right or wrong.
    """
    failures = []
    if found.unit == "pixels":
        excused, what = found.differing <= FEW, "confidence is, in levels and on average,"
    else:
        excused, what = found.apart is not None and found.apart <= NEAR_TIE, "the logarithms of probabilities are"
    if found.agreement < gate.min_agreement and not excused:
        share = (
            f"{found.differing} of {found.answers} {found.unit} are answered otherwise ({found.agreement:.6g} equal)"
        )
        failures.append(f"{stage}: {share}, at least {gate.min_agreement:g} is needed; --min-agreement sets it")
    if gate.max_apart is not None and found.apart is not None and not found.apart <= gate.max_apart:
        failures.append(f"{stage}: {what} {found.apart:.4g} apart, at most {gate.max_apart:g} is allowed")
    return failures


def enforce_answers(found: AnswerParity, gate: AnswerGate, stage: str) -> None:
    """Raise GateError with the first failure."""
    if failures := check_answers(found, gate, stage):
        raise GateError(failures[0])


def read_gate(values: Mapping[str, Any]) -> AnswerGate:
    """A gate of a manifest."""
    return AnswerGate(values["min_agreement"], values["max_apart"])


def _classes(expected: Feed, found: Feed) -> AnswerParity:
    """Best classes with their probabilities: those that only one side names count with how far they are ahead there."""
    ours, theirs = (
        dict(zip(side["classes"].ravel().tolist(), _logarithms(side["probabilities"]), strict=True))
        for side in (expected, found)
    )
    apart = max(_ahead(ours, theirs), _ahead(theirs, ours))
    return AnswerParity(1, "pictures", 1, int(next(iter(ours)) != next(iter(theirs))), apart)


def _logarithms(probabilities: NDArray[Any]) -> list[float]:
    if not np.isfinite(probabilities).all():
        raise HiresvitError("probabilities are NaN or Inf; compare the graph as a tensor first")
    return [float(value) for value in np.log(np.maximum(probabilities.ravel().astype(np.float64), _SMALLEST))]


def _ahead(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    least = min(other.values())  # what is not named has at most that
    return max(abs(value - other[name]) if name in other else value - least for name, value in one.items())
