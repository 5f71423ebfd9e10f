"""Whether integers are as accurate as FP32: the search for modules that keep more bits, and the proof of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from onnx import ModelProto

from hiresvit.calibration.fallback import check_drop, find_fallback
from hiresvit.calibration.sensitivity import Group, Judgement, measure_sensitivity
from hiresvit.data.dataset import Dataset
from hiresvit.errors import GateError, HiresvitError
from hiresvit.progress import OnStep
from hiresvit.spec import Feed, ModelSpec
from hiresvit.workflows.split import Split
from hiresvit.workflows.yardstick import AGREEMENT, METRICS, Yardstick, answered, references

# Per cent of mIoU: a network below it in FP32 has not learned the scenes' labels, and cannot lose them.
KNOWN = 50.0
SEARCHES = 3  # the limit of the search is halved each time the proof misses the one that was asked for


class Maker(Protocol):
    """Makes graphs of few bits of one network from one calibration, in which any modules can have more.

    ``name`` is that of what it makes, ``stays`` what the modules have that do not have few bits.
    """

    @property
    def name(self) -> str: ...

    @property
    def stays(self) -> str: ...

    @property
    def groups(self) -> Sequence[Group]:
        """The modules that there is a choice for; none where there is no choice."""

    @property
    def references(self) -> Mapping[str, ModelProto]:
        """What the result is compared with, ``fp32`` first."""

    def alone(self, modules: frozenset[str]) -> ModelProto:
        """With few bits in these modules only."""

    def together(self, kept: tuple[str, ...]) -> tuple[ModelProto, Any]:
        """With few bits in all modules but ``kept``, and a report. Raises GateError on a pair that is wrong."""


@dataclass(frozen=True, eq=False)
class Proof:
    """What the search looks at, what the result is held to, and how good FP32 is on the former."""

    search: Yardstick
    result: Yardstick
    baseline: Judgement
    threads: int | None

    def accuracy(self, maker: Maker, kept: tuple[str, ...], on_step: OnStep) -> dict[str, Any]:
        """What is made, and what that is compared with, on the pictures that the result is held to."""
        rows = {}
        judge = self.result.judge(self.threads)
        for name, graph in (*maker.references.items(), (maker.name, maker.together(kept)[0])):
            on_step(f"prove: {name}", None)
            rows[name] = judge(graph).metric
        data = self.result.dataset
        return {"metric": self.result.metric, "data": data.name, "images": len(data), "rows": rows}


def open_proof(
    simple: ModelProto, spec: ModelSpec, split: Split, feeds: Sequence[Feed], *, promised: bool, threads: int | None
) -> Proof | None:
    """By labels if there are some and the network knows them in FP32; a promise about 1 % of mIoU would be none.

    Else by agreement with FP32 for what was ``promised``, and None without a promise. Outputs for ``feeds`` are what
    the SQNR is measured on. Raises HiresvitError if labels were asked for and the network does not know them.
    """
    if split.labelled is None and not promised:
        return None
    known = references(simple, feeds, threads)

    def proof(metric: str, search: Dataset, result: Dataset) -> Proof:
        first = Yardstick(spec, search, metric, known)
        return Proof(first, Yardstick(spec, result, metric, known), first.judge(threads)(simple), threads)

    if split.labelled is not None:
        by_labels = proof(METRICS[spec.task], *split.labelled)
        least = 100 / len(split.labelled[0].classes) if split.asked else KNOWN
        if by_labels.baseline.metric >= least:
            return by_labels
        if split.asked:
            raise HiresvitError(
                f"{split.calib.source}: {spec.name} has {by_labels.baseline.metric:.2f} % {METRICS[spec.task]} in FP32,"
                f" and one answer for everything may have {least:.2f} %: nothing is left that INT8 could lose; look"
                " at the order of the classes and at the weights, or calibrate with pictures without labels"
            )
    if not promised:
        return None
    return proof(AGREEMENT, *(answered(simple, part, spec, threads) for part in (split.search, split.proof)))


def find_kept(maker: Maker, proof: Proof, limit: float, on_step: OnStep) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Which modules stay as they are, with the sensitivity that decided it and the proof. Raises GateError."""
    judge = proof.search.judge(proof.threads)
    sensitivity = measure_sensitivity(maker.groups, maker.alone, judge, proof.baseline, on_step)
    every = frozenset(group.module for group in maker.groups)

    def make(modules: frozenset[str]) -> ModelProto:
        return maker.together(tuple(sorted(every - modules)))[0]

    for number in range(SEARCHES):
        tighter = limit / 2**number
        found = find_fallback(sensitivity, make, judge, proof.baseline, tighter, stays=maker.stays, on_step=on_step)
        accuracy = proof.accuracy(maker, found.kept, on_step)
        kept = f"{len(found.kept)} of {len(every)} modules in {maker.stays}"
        try:
            check_accuracy(accuracy, maker.name, kept, limit)
        except GateError as error:
            missed = error
            continue
        search = found.to_json() | {"max_drop": limit, "searched_with": tighter}
        return found.kept, {"sensitivity": sensitivity.to_json(), "fallback": search, "accuracy": accuracy}
    raise missed


def check_accuracy(accuracy: Mapping[str, Any], name: str, kept: str, limit: float) -> None:
    """Raise GateError if what ``name`` stands for is more than ``limit`` points below FP32 on the proof's pictures."""
    rows = accuracy["rows"]
    pictures = f"{accuracy['images']} pictures of {accuracy['data']} that did not calibrate"
    what = f"{accuracy['metric']} of {name.upper()} with {kept}, on {pictures},"
    check_drop(rows[name], rows["fp32"], limit, what)


@dataclass(frozen=True, eq=False)
class Found:
    """Which modules were ``kept`` from few bits, what to report of it, and the pictures it was ``proven`` on."""

    kept: tuple[str, ...]
    report: dict[str, Any]
    proven: Yardstick | None


def prove(maker: Maker, proof: Proof | None, limit: float | None, on_step: OnStep) -> Found:
    """Search for what a ``limit`` in points asks for, or measure what has few bits throughout. Raises GateError."""
    if proof is None:
        return Found((), {}, None)
    if limit is not None and maker.groups:
        kept, report = find_kept(maker, proof, limit, on_step)
        return Found(kept, report, proof.result)
    accuracy = proof.accuracy(maker, (), on_step)
    if limit is not None:
        check_accuracy(accuracy, maker.name, "nothing kept from it", limit)
    return Found((), {"accuracy": accuracy}, proof.result)
