"""Two opened networks, compared on pictures: `hiresvit compare`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import sample_images
from hiresvit.errors import GateError, UsageError
from hiresvit.evaluation.parity import Gate, check_gate, compare
from hiresvit.workflows.open import Source


def compare_sources(
    reference: Source, test: Source, images: Sequence[NDArray[np.uint8]], *, drawn: int, limits: Mapping[str, float]
) -> tuple[dict[str, Any], GateError | None]:
    """How far ``test`` is from ``reference`` on uint8 (H, W, 3) images and ``drawn`` streets, and what it missed.

    ``limits`` are fields of `Gate`; what is not there may be anything, but NaN and Inf miss any. The first is plain
    JSON values, a parity table of one stage. Raises UsageError if neither says how it takes a picture, or without
    pictures.
    """
    spec = reference.spec or test.spec
    if spec is None:
        raise UsageError("neither graph says how it takes a picture; one must be from hiresvit")
    name = reference.runner.inputs[0].name
    pictures = [*images, *sample_images(drawn, spec.imgsz)]
    feeds = [{name: preprocess(picture, spec.preprocess, spec.imgsz)} for picture in pictures]
    report = compare(reference.runner, test.runner, feeds, spec.task)
    stage = {"stage": test.label, "gate": dict(limits), "report": report.to_json()}
    found = {"reference": reference.label, "task": spec.task, "images": len(feeds), "stages": [stage]}
    gate = Gate(**{field.name: limits.get(field.name, -math.inf) for field in fields(Gate)})
    missed = check_gate(report, gate, test.label)
    return found, GateError("; ".join(missed)) if missed else None
