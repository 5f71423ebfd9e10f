"""`hiresvit eval`: how often a network is right on a labelled data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiresvit.data.open import open_dataset
from hiresvit.errors import UsageError
from hiresvit.evaluation.accuracy import evaluate
from hiresvit.progress import OnStep, silent
from hiresvit.workflows.open import Source


def evaluate_source(
    source: Source, dataset: str, *, folder: Path | None = None, limit: int | None = None, on_step: OnStep = silent
) -> dict[str, Any]:
    """Measure an opened source on the data set of a name (see `open_dataset`), or on its first ``limit`` pictures.

    Returns plain JSON values: ``source``, and what `evaluate` found. Raises UsageError for a source that does not say
    what its answers mean, and whatever `open_dataset` and `evaluate` raise.
    """
    if source.spec is None:
        raise UsageError(f"{source.label} does not say what its answers mean; give one that hiresvit exported")
    # A camera's graph takes pictures of the camera's size, and drawn ones can have it.
    size = source.contract.size if source.contract.name == "camera" else None
    pictures = open_dataset(dataset, folder=folder, imgsz=size or source.spec.imgsz, limit=limit)
    found = evaluate(source.runner, source.spec, pictures, contract=source.contract, on_step=on_step)
    return {"source": source.label, **found.to_json()}
