"""The model of an export, and what is known of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hiresvit.bundle.manifest import Weights
from hiresvit.data.dataset import Labels
from hiresvit.export.contract import fresh_weights, untrained_note
from hiresvit.files import sha256_file
from hiresvit.models.create import build_model, enliven, load_model_weights
from hiresvit.spec import ModelSpec


@dataclass(frozen=True)
class Loaded:
    """Where weights are from, what of them nobody trained, the classes' names, and what is to be said of all that."""

    weights: Weights
    untrained: str
    labels: Labels | None
    notes: list[str]


def load_model(
    spec: ModelSpec, path: Path | None, *, seed: int, labels: Labels | None, **choices: Any
) -> tuple[nn.Module, Loaded]:
    """The model with a checkpoint's weights, or with fresh ones from a seed.

    ``labels`` are the classes' names where they are not the checkpoint's own, ``choices`` those of
    `load_model_weights`, which says what is raised.
    """
    model = build_model(spec, seed=seed)
    if path is None:
        enliven(model, spec, seed)  # a comparison through zeros would see nothing
        untrained = fresh_weights(seed)
        return model, Loaded(Weights(f"fresh, seed {seed}"), untrained, labels, [untrained_note(untrained)])
    report = load_model_weights(model, spec, path, **choices)
    notes = report.lines(path)
    if report.untrained:
        notes.append(untrained_note(report.untrained))
    weights = Weights(path.name, sha256_file(path))
    return model, Loaded(weights, report.untrained, labels or report.labels, notes)
