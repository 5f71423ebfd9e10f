"""What a checkpoint is of, by the names and shapes of its tensors: variant, task, classes, and the head's kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hiresvit.errors import UsageError
from hiresvit.models.weights.file import Checkpoint
from hiresvit.models.weights.match import class_count, groups_of, laid_out, misfit_of, shapes_of, sort_tensors
from hiresvit.models.weights.tree import some
from hiresvit.models.zoo import MODELS
from hiresvit.spec import ModelSpec, Task

Build = Callable[[str, Task, int | None, Mapping[str, Any]], Mapping[str, Tensor]]
"""The tensors, without data, of a variant for a task, a number of classes, and settings."""


@dataclass(frozen=True)
class Candidate:
    """What a checkpoint can be loaded as; ``num_classes`` is None for features, ``settings`` are not the defaults."""

    name: str
    task: Task
    num_classes: int | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    def options(self, spec: ModelSpec) -> str:
        """How it is asked for by somebody who asked for ``spec``: `` with --task classify``, or ""."""
        typed = [] if spec.task == self.task else [f"--task {self.task}"]
        if self.num_classes and (spec.task, spec.num_classes) != (self.task, self.num_classes):
            typed.append(f"--num-classes {self.num_classes}")
        known = dict(spec.overrides)
        typed += [f"--set {name}={value}" for name, value in self.settings if known.get(name) != value]
        return f" with {' '.join(typed)}" if typed else ""

    def __str__(self) -> str:
        head = "".join(f", {name}={value}" for name, value in self.settings)
        what = f"{self.num_classes} classes" if self.num_classes else "without a head that is known"
        return f"{self.name} for {self.task}, {what}{head}"


def find_candidates(path: Path, checkpoint: Checkpoint, build: Build) -> tuple[Candidate, ...]:
    """Everything that a checkpoint's tensors can be loaded as; nothing if its backbone is no variant's.

    A file without a head that is known gives features. Of a head that fits in none of its forms the number of classes
    is still told; loading then says what does not fit. Raises HiresvitError for two models in one file.
    """
    found: list[Candidate] = []
    for name, entry in MODELS.items():
        layout, wanted = entry.layout, shapes_of(build(name, "features", None, {}))
        parts = sort_tensors(path, laid_out(checkpoint, layout), layout)
        groups = groups_of(wanted)
        body = {k: t for k, t in parts.backbone.items() if not layout.foreign_head or groups_of({k: t}) <= groups}
        if shapes_of(body) != wanted:
            continue
        served = {task: head for task, head in parts.heads.items() if task in entry.imgsz}
        heads = [_candidate(path, name, task, head, build) for task, head in served.items()]
        found += [head for head in heads if head] or [Candidate(name, "features")]
    return tuple(found)


def _candidate(path: Path, name: str, task: Task, head: Mapping[str, Tensor], build: Build) -> Candidate | None:
    """What a head is; None for one that is not ours, which is skipped when a file is loaded."""
    layout = MODELS[name].layout
    classes = class_count(head, layout)
    foreign = layout.foreign_head and task == "classify"
    choices = layout.heads.get(task, ("",))
    for choice in choices:
        settings = {"head": choice} if choice else {}
        ours = sort_tensors(path, build(name, task, classes, settings), layout).heads[task]
        if shapes_of(ours) == shapes_of(head):
            return Candidate(name, task, classes, () if choice == choices[0] else tuple(settings.items()))
        foreign = foreign and shapes_of(ours).keys() != shapes_of(head).keys()
    return None if foreign else Candidate(name, task, classes)


def choose(path: Path, found: Sequence[Candidate], task: Task | None) -> Candidate:
    """The one that a file stands for; for a ``task`` that it has no head for, its variant and what loading says then.

    Raises UsageError, with what to type for each, if there are several.
    """
    wanted = [one for one in found if task in (None, one.task)]
    names = list(dict.fromkeys(one.name for one in found))
    if len(wanted) == 1:
        return wanted[0]
    if not wanted and len(names) == 1 and task is not None:
        return Candidate(names[0], task)
    many = wanted or found
    ways = [
        f"--task {one.task}" if len(names) == 1 else f"{one.name} --task {one.task} --weights {path}" for one in many
    ]
    raise UsageError(f"{path} can be {' or '.join(map(str, many))}: give {' or '.join(ways)}")


def describe_candidates(found: Sequence[Candidate], spec: ModelSpec) -> str:
    """What a checkpoint looks like, and how to ask for that instead of ``spec``; "" if it is unknown."""
    if not found:
        return ""
    alike = [one for one in found if one.task == spec.task] or found
    if not any(one.name == spec.name for one in alike):
        names = " or ".join(dict.fromkeys(one.name for one in alike))
        return f"this looks like {names}; ask for that{alike[0].options(spec)}"
    ways = " or ".join(one.options(spec).removeprefix(" with ") for one in alike if one.options(spec))
    return f"this looks like {spec.name} with {ways}" if ways else ""


def nearest(path: Path, checkpoint: Checkpoint, build: Build) -> str:
    """The variant whose backbone a checkpoint has most of, and what does not fit."""
    best: tuple[int, str] = (-1, "")
    for name, entry in MODELS.items():
        layout, wanted = entry.layout, build(name, "features", None, {})
        body = sort_tensors(path, laid_out(checkpoint, layout), layout).backbone
        misfit = misfit_of(body, wanted)
        fits = len(wanted) - len(misfit.get("missing", ())) - len(misfit.get("of another shape", ()))
        share = fits / (len(wanted) + len(misfit.get("unexpected", ())))
        why = "; ".join(f"{len(keys)} {what} ({some(keys)})" for what, keys in misfit.items())
        best = max(best, (round(1000 * share), f"{name}, of which {fits} of {len(wanted)} fit: {why}"))
    return best[1]
