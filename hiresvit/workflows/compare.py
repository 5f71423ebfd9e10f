"""Two opened networks, compared on pictures: `hiresvit compare`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.errors import GateError, HiresvitError, UsageError, missing_extra
from hiresvit.evaluation.answers import AnswerGate, check_answers, compare_answers
from hiresvit.evaluation.parity import Gate, check_gate, compare_each
from hiresvit.evaluation.reference import TENSOR, Behind, picture_size
from hiresvit.runtime.frame import picture_feed
from hiresvit.runtime.runner import Casting, Runner
from hiresvit.spec import is_raw
from hiresvit.workflows.open import Source

if TYPE_CHECKING:
    from hiresvit.evaluation.headroom import ExactHalf


def compare_sources(
    reference: Source, test: Source, images: Sequence[NDArray[np.uint8]], *, drawn: int, limits: Mapping[str, float]
) -> tuple[dict[str, Any], GateError | None]:
    """How far ``test`` is from ``reference`` on uint8 (H, W, 3) images and ``drawn`` streets, and what it missed.

    ``limits`` are fields of `Gate`; what is not there may be anything, but NaN and Inf miss any, and so does on either
    side what FP16 cannot hold. The first is plain JSON values, a parity table of one stage, or of two if ``test`` is
    an ONNX graph with FP16 in it: as ONNX Runtime computes it and as FP16 rounds it. Raises UsageError if neither says
    how it takes a picture, or without pictures.
    """
    spec = reference.spec or test.spec
    if spec is None:
        raise UsageError("neither graph says how it takes a picture; one must be from hiresvit")
    if reference.contract != TENSOR or test.contract != TENSOR:
        return _compare_answers(reference, test, images, drawn=drawn, limits=limits)
    name = reference.runner.inputs[0].name
    pictures = [*images, *sample_images(drawn, spec.imgsz)]
    feeds = [{name: example_input(picture, spec.preprocess, spec.imgsz)} for picture in pictures]
    notes: list[str] = []
    known, half = _exact(reference, notes), _exact(test, notes)
    tests: dict[str, Runner] = {test.label: test.runner}
    if half is not None:
        tests[f"{test.label} (fp16 exact)"] = Casting(half)
    reports = compare_each(reference.runner, [*tests.values()], feeds, spec.task, spec.anchors)
    if known is not None:
        for feed in feeds:
            known(feed)
    stages = [
        {"stage": label, "gate": dict(limits), "report": report.to_json()}
        for label, report in zip(tests, reports, strict=True)
    ]
    found = {"reference": reference.label, "task": spec.task, "images": len(feeds), "stages": stages}
    ranges = [
        (source.label, runner.found) for source, runner in ((reference, known), (test, half)) if runner is not None
    ]
    found["fp16"] = [{"graph": label, **headroom.to_json()} for label, headroom in ranges]
    found["notes"] = notes
    gate = Gate(**{field.name: limits.get(field.name, -math.inf) for field in fields(Gate)})
    missed = [line for label, headroom in ranges for line in headroom.failures(label)]
    for label, report in zip(tests, reports, strict=True):
        missed += check_gate(report, gate, label)
    return found, GateError("; ".join(missed)) if missed else None


def _compare_answers(
    reference: Source, test: Source, images: Sequence[NDArray[np.uint8]], *, drawn: int, limits: Mapping[str, float]
) -> tuple[dict[str, Any], GateError | None]:
    """`compare_sources` behind a contract, by what comes out there; one that takes tensors is given what it would get.

    Raises UsageError for two contracts, for limits that labels do not have, and for pictures of another size.
    """
    framed = [source for source in (reference, test) if source.contract != TENSOR]
    contract, spec = framed[0].contract, framed[0].spec
    assert spec is not None  # without one no contract was read
    if framed[-1].contract != contract:
        names = " and ".join(f"{source.label} has {source.contract.name}" for source in framed)
        raise UsageError(f"{names}, or another detail of it: compare two of one contract, or one with a model")
    numbers = [name for name in limits if name != "min_agreement"]
    if numbers and not is_raw(spec.task):
        raise UsageError(f"{', '.join(numbers)}: what comes out of contract {contract.name} has only an agreement")
    sides: list[Runner] = [
        Behind(source.runner, source.spec or spec, contract) if source.contract == TENSOR else source.runner
        for source in (reference, test)
    ]
    pictures = [*images, *sample_images(drawn, picture_size(spec, contract))]
    feeds = [picture_feed(picture, spec, contract) for picture in pictures]
    found: dict[str, Any] = {"reference": reference.label, "task": spec.task, "images": len(feeds)}
    if is_raw(spec.task):
        [report] = compare_each(sides[0], sides[1:], feeds, spec.task)
        gate = Gate(**{field.name: limits.get(field.name, -math.inf) for field in fields(Gate)})
        stage = {"stage": test.label, "gate": dict(limits), "report": report.to_json()}
        missed = check_gate(report, gate, test.label)
    else:
        answers = compare_answers(sides[0], sides[1], feeds)
        limit = AnswerGate(limits.get("min_agreement", 0.0), None)
        stage = {"stage": test.label, "gate": asdict(limit), "report": answers.to_json()}
        missed = check_answers(answers, limit, test.label)
        found["contract"] = asdict(contract)
    found |= {"stages": [stage], "fp16": [], "notes": []}
    return found, GateError("; ".join(missed)) if missed else None


def _exact(source: Source, notes: list[str]) -> ExactHalf | None:
    """A source once more, rounded as FP16 rounds it, if it is a graph with FP16 in it; a note if that cannot be had."""
    if source.graph is None:
        return None
    unseen = f"{source.label}: whether FP16 holds its values was not looked at"
    try:
        from hiresvit.evaluation.headroom import open_exact
        from hiresvit.graph.file import load_graph

        return open_exact(load_graph(source.graph, weights=True), source.runner.about.threads)
    except ModuleNotFoundError as error:
        if missing_extra(error) is None:
            raise
        notes.append(f"{unseen}, that needs onnx: pip install 'hiresvit[export]'")
    except HiresvitError as error:
        notes.append(f"{unseen}: {error}")
    return None
