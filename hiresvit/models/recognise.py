"""What a checkpoint is of, by the names and shapes of its tensors: variant, task, classes, and the head's kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hiresvit.errors import UsageError
from hiresvit.models.weights.file import Checkpoint
from hiresvit.models.weights.match import HEAD_OF, class_count, groups_of, laid_out, misfit_of, shapes_of, sort_tensors
from hiresvit.models.weights.tree import some
from hiresvit.models.zoo import MODELS, siblings
from hiresvit.spec import ModelSpec, Task

Build = Callable[[str, Task, int | None, Mapping[str, Any]], Mapping[str, Tensor]]
"""The tensors, without data, of a variant for a task, a number of classes, and settings."""

# Whose a segmentation head is, by the second part of its keys' names.
_HEADS = {
    "transformer_decoder": "Mask2Former's",
    "psp_modules": "UPerNet's",
    "fusion_conv": "SegFormer's",
    "squeeze1": "LRFormer's",
}


@dataclass(frozen=True)
class Candidate:
    """What a checkpoint can be loaded as; ``num_classes`` is None for features, ``settings`` are not the defaults.

    ``whose`` says of a head that fits in none of its forms whose it is, where that is known.
    """

    name: str
    task: Task
    num_classes: int | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    whose: str = ""

    def options(self, spec: ModelSpec) -> str:
        """How it is asked for by somebody who asked for ``spec``: `` with --task classify``, or ""."""
        same = HEAD_OF.get(spec.task, spec.task) == self.task
        typed = [] if same else [f"--task {self.task}"]
        usual = spec.num_classes if self.name == spec.name else MODELS[self.name].num_classes.get(self.task)
        if self.num_classes and not (same and self.num_classes == spec.num_classes == usual):
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
    is still told; loading then says what does not fit. Of variants with one backbone it is the one whose head the file
    has most of. Raises HiresvitError for two models in one file.
    """
    heads: dict[Task, list[tuple[int, Candidate]]] = {}
    bare: list[Candidate] = []
    for name, entry in MODELS.items():
        layout, wanted = entry.layout, shapes_of(build(_bare(name), "features", None, {}))
        parts = sort_tensors(path, laid_out(checkpoint, layout), layout)
        groups = groups_of(wanted)
        body = {k: t for k, t in parts.backbone.items() if not layout.foreign_head or groups_of({k: t}) <= groups}
        if shapes_of(body) != wanted:
            continue
        for task, head in parts.heads.items():
            if task in entry.imgsz and (one := _candidate(path, name, task, head, build)):
                heads.setdefault(task, []).append(one)
        bare += [Candidate(name, "features")] if _bare(name) == name else []
    return tuple(max(ones, key=lambda one: one[0])[1] for ones in heads.values()) or tuple(bare)


def _bare(name: str) -> str:
    """The variant that gives features of this one's backbone."""
    return next(one for one in (name, *siblings(name)) if "features" in MODELS[one].imgsz)


def _candidate(
    path: Path, name: str, task: Task, head: Mapping[str, Tensor], build: Build
) -> tuple[int, Candidate] | None:
    """What a head is, and how many of its tensors are ours; None for one that is skipped when a file is loaded."""
    layout = MODELS[name].layout
    classes = class_count(head, layout)
    foreign = layout.foreign_head and task == "classify"
    choices = layout.heads.get(task, ("",))
    shapes, known = shapes_of(head), 0
    for choice in choices:
        settings = {"head": choice} if choice else {}
        ours = shapes_of(sort_tensors(path, build(name, task, classes, settings), layout).heads[task])
        if ours == shapes:
            return len(ours), Candidate(name, task, classes, () if choice == choices[0] else tuple(settings.items()))
        foreign = foreign and ours.keys() != shapes.keys()
        known = max(known, len(ours.items() & shapes.items()))
    # Of two variants with one backbone the second has a head that a file must have something of.
    if foreign or (not known and _bare(name) != name):
        return None
    parts = {key.split(".")[1] for key in head}
    whose = next((whose for part, whose in _HEADS.items() if part in parts), "") if task == "segment" else ""
    return known, Candidate(name, task, classes, whose=whose)


def choose(path: Path, found: Sequence[Candidate], task: Task | None) -> Candidate:
    """The one that a file stands for; for a ``task`` that it has no head for, its variant and what loading says then.

    Raises UsageError, with what to type for each, if there are several.
    """
    wanted = [one for one in found if task is None or HEAD_OF.get(task, task) == one.task]
    names = list(dict.fromkeys(one.name for one in found))
    if len(wanted) == 1:
        return wanted[0] if task is None else replace(wanted[0], task=task)
    if not wanted and len(names) == 1 and task is not None:
        serving = [one for one in (names[0], *siblings(names[0])) if task in MODELS[one].imgsz]
        return Candidate([*serving, names[0]][0], task)
    many = wanted or found
    ways = [
        f"--task {one.task}" if len(names) == 1 else f"{one.name} --task {one.task} --weights {path}" for one in many
    ]
    raise UsageError(f"{path} can be {' or '.join(map(str, many))}: give {' or '.join(ways)}")


def describe_candidates(found: Sequence[Candidate], spec: ModelSpec) -> str:
    """What a checkpoint looks like, and how to ask for that instead of ``spec``; "" if it is unknown."""
    if not found:
        return ""
    alike = [one for one in found if one.task == HEAD_OF.get(spec.task, spec.task)] or found
    first = alike[0]
    if first.whose and first.name in (spec.name, *siblings(spec.name)):
        return f"its segmentation head is {first.whose}, which {spec.name} does not take"
    if first.name in siblings(spec.name):
        return f"this is {_bare(first.name)} {_head_in_words(first)}: use {first.name}{first.options(spec)}"
    if not any(one.name == spec.name for one in alike):
        names = " or ".join(dict.fromkeys(one.name for one in alike))
        return f"this looks like {names}; ask for that{first.options(spec)}"
    ways = " or ".join(one.options(spec).removeprefix(" with ") for one in alike if one.options(spec))
    return f"this looks like {spec.name} with {ways}" if ways else ""


def _head_in_words(one: Candidate) -> str:
    named = [head for entry in MODELS.values() for head, name in entry.others.items() if name == one.name]
    own = "with its own head" if one.num_classes else "without a head"
    return f"with a {named[0]} head" if named else own


def nearest(path: Path, checkpoint: Checkpoint, build: Build) -> str:
    """The variant whose backbone a checkpoint has most of, and what does not fit."""
    best: tuple[int, str] = (-1, "")
    for name in dict.fromkeys(map(_bare, MODELS)):
        layout, wanted = MODELS[name].layout, build(name, "features", None, {})
        body = sort_tensors(path, laid_out(checkpoint, layout), layout).backbone
        misfit = misfit_of(body, wanted)
        fits = len(wanted) - len(misfit.get("missing", ())) - len(misfit.get("of another shape", ()))
        share = fits / (len(wanted) + len(misfit.get("unexpected", ())))
        why = "; ".join(f"{len(keys)} {what} ({some(keys)})" for what, keys in misfit.items())
        best = max(best, (round(1000 * share), f"{name}, of which {fits} of {len(wanted)} fit: {why}"))
    return best[1]
