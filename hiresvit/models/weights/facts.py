"""What a checkpoint says of its weights beside the tensors: names of classes, a head that nobody trained, settings.

A trainer's file has names somewhere in its own structure; ours have these keys in safetensors' metadata, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hiresvit.data.dataset import Labels
from hiresvit.data.labels import labels_from_json, labels_to_json, names_of_trainer, printable
from hiresvit.errors import HiresvitError
from hiresvit.models.weights.file import Checkpoint
from hiresvit.models.weights.stated import PREPROCESS
from hiresvit.schema import read_json
from hiresvit.spec import ModelSpec, PreprocessSpec, Task

_MODEL, _TASK, _SOURCE = "hiresvit.model", "hiresvit.task", "hiresvit.source"
_LABELS, _SETTINGS, _UNTRAINED = "hiresvit.labels", "hiresvit.settings", "hiresvit.untrained"


def facts_of(
    spec: ModelSpec, source: str, labels: Labels | None, untrained: str, *, row: PreprocessSpec
) -> dict[str, str]:
    """What is written beside the weights of a model that came from a file called ``source``.

    How it takes a picture is written where that is not as the family's ``row`` says.
    """
    facts = {_MODEL: spec.name, _TASK: spec.task, _SOURCE: source}
    if labels:
        facts[_LABELS] = json.dumps(labels_to_json(labels))
    if spec.overrides:
        facts[_SETTINGS] = json.dumps(dict(spec.overrides), sort_keys=True)
    if spec.preprocess != row:
        facts[PREPROCESS] = json.dumps(asdict(spec.preprocess), sort_keys=True)
    return facts | ({_UNTRAINED: untrained} if untrained else {})


def read_labels(checkpoint: Checkpoint, count: int) -> tuple[Labels | None, str]:
    """The names of a checkpoint's ``count`` classes and what is to be said of those that it has for others.

    Raises HiresvitError where they are ours and damaged.
    """
    if (text := checkpoint.metadata.get(_LABELS)) is None:
        return names_of_trainer(checkpoint.meta, count)
    try:
        return labels_from_json(read_json(text), count), ""
    except (ValueError, KeyError, TypeError) as error:
        raise HiresvitError(f"{_LABELS} in the metadata is damaged ({error}); convert the checkpoint again") from error


def read_untrained(checkpoint: Checkpoint) -> str:
    """Which part of the weights nobody trained, "" for none; known of our own files only."""
    return printable(checkpoint.metadata.get(_UNTRAINED, ""))


def read_settings(checkpoint: Checkpoint, name: str, task: Task) -> Mapping[str, Any]:
    """The settings that our own file of this variant for this task was written with; none for another's."""
    if (checkpoint.metadata.get(_MODEL), checkpoint.metadata.get(_TASK)) != (name, task):
        return {}
    try:
        values = read_json(checkpoint.metadata.get(_SETTINGS, "{}"))
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    except (ValueError, AttributeError) as error:
        raise HiresvitError(f"{_SETTINGS} in the metadata is damaged ({error}); convert it again") from error
