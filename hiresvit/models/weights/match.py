"""From the tensors of a checkpoint to a model: every key is accounted for, or nothing is loaded.

Our models use the authors' key names; only prefixes differ by task:

    ============  =================================  ==========================================
    task          keys of the model                  left out, by name
    ============  =================================  ==========================================
    classify      the backbone's, the head's         ``decode_head.* auxiliary_head.*``
    segment       ``backbone.* decode_head.*``       the classifier's, ``auxiliary_head.*``
    features      the backbone's                     all heads'
    ============  =================================  ==========================================

Which keys are the classifier's is the family's `Layout`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.weights.file import Checkpoint, read_checkpoint
from hiresvit.models.weights.layout import Layout
from hiresvit.models.weights.paddle import as_pytorch
from hiresvit.models.weights.tree import some
from hiresvit.spec import Task

Shapes = Mapping[str, tuple[int, ...]]

BACKBONE = "backbone."
SEGMENTER = "decode_head"
AUXILIARY = "auxiliary_head"  # a second head that only training uses
SEGMENTER_CLASSES = f"{SEGMENTER}.conv_seg."


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: entry used, tensors copied, key groups left out by name, things to know.

    ``fresh`` are the groups that the file does not have and that keep the model's own values.
    """

    source: str
    loaded: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    fresh: tuple[str, ...] = ()

    def lines(self, path: Path) -> list[str]:
        """What to tell the user."""
        said = [f"{self.loaded} tensors from {self.source} of {path.name}", *self.notes]
        if self.left_out:
            said.append(f"left out by name: {', '.join(self.left_out)}")
        if self.fresh:
            said.append(f"not in the file and untrained: {', '.join(self.fresh)}; its answers mean nothing")
        return said


@dataclass(frozen=True)
class _Parts:
    """A checkpoint's tensors by what they belong to: backbone (without its prefix), the heads by task, the rest."""

    backbone: dict[str, Tensor]
    heads: dict[Task, dict[str, Tensor]]
    rest: tuple[str, ...]


def load_weights(
    model: nn.Module,
    path: Path,
    *,
    task: Task,
    layout: Layout,
    ema: bool = False,
    entry: str | None = None,
    allow_missing_head: bool = False,
    siblings: Callable[[], Mapping[str, tuple[Layout, Shapes]]] | None = None,
) -> LoadReport:
    """Copy a checkpoint's tensors into ``model``: every one of them or, with HiresvitError, none.

    ``ema`` and ``entry`` choose among the sets of weights in the file, see `read_checkpoint`.
    With ``allow_missing_head`` a file without the task's head may leave the model's own there; a head that is
    there must fit. ``siblings`` gives, when a checkpoint does not fit, layout and backbone shapes of every
    variant, so that the error can say which one it looks like. BatchNorm's ``num_batches_tracked`` may be
    absent (old files); the model then keeps its own.
    """
    if allow_missing_head and task == "features":
        raise UsageError("features have no head that could be missing: leave out --allow-missing head")
    checkpoint = read_checkpoint(path, ema=ema, entry=entry)
    wanted = model.state_dict()
    wanted_parts = _sort(path, wanted, layout)
    parts = _sort(path, _laid_out(checkpoint, layout), layout)
    foreign = _foreign(parts, wanted_parts, task) if layout.foreign_head else {}
    body = {key: tensor for key, tensor in parts.backbone.items() if key not in foreign}
    if _shapes(body) != _shapes(wanted_parts.backbone) and siblings:
        _require_no_sibling(path, checkpoint, task, siblings())
    if checkpoint.source == "pdparams" and not layout.linears:
        raise HiresvitError(f"{path} is Paddle's, which this model has none of; give a PyTorch or safetensors file")
    head = {key: tensor for key, tensor in parts.heads.get(task, {}).items() if key not in foreign}
    fresh = {} if head else wanted_parts.heads.get(task, {})
    prefix = BACKBONE if task == "segment" else ""
    tensors = {**{prefix + key: tensor for key, tensor in body.items()}, **head}
    if misfit := _misfit(tensors, {key: value for key, value in wanted.items() if key not in fresh}):
        raise HiresvitError(f"{path}: {_explain(misfit, head, wanted, layout)}")
    if fresh and not allow_missing_head:
        raise HiresvitError(f"{path} {_no_head(task, layout, list(foreign))}")
    notes = (*checkpoint.notes, *_conversions(tensors))
    tensors = {key: tensor.to(wanted[key].dtype) for key, tensor in tensors.items() if key in wanted}
    _require_finite(path, tensors)
    model.load_state_dict({**wanted, **tensors}, strict=True)
    others = {group for other, keys in parts.heads.items() if other != task for group in _groups(keys)}
    left_out = sorted({*others, *parts.rest, *_groups(foreign)})
    return LoadReport(checkpoint.source, len(tensors), tuple(left_out), notes, tuple(sorted(_groups(fresh))))


def _laid_out(checkpoint: Checkpoint, layout: Layout) -> dict[str, Tensor]:
    if checkpoint.source != "pdparams":
        return checkpoint.tensors
    return as_pytorch(checkpoint.tensors, layout.linears, layout.derived)


def _sort(path: Path, tensors: Mapping[str, Tensor], layout: Layout) -> _Parts:
    backbone: dict[str, Tensor] = {}
    heads: dict[Task, dict[str, Tensor]] = {}
    rest, seen = set(), set()
    for key, tensor in tensors.items():
        name = key.removeprefix(BACKBONE)
        if name in seen:
            raise HiresvitError(f"{path} has {name} twice, with and without 'backbone.': two models in one")
        seen.add(name)
        group = name.partition(".")[0]
        if group == AUXILIARY:
            rest.add(f"{group}.*")
        elif group == SEGMENTER:
            heads.setdefault("segment", {})[name] = tensor
        elif group in layout.head:
            heads.setdefault("classify", {})[name] = tensor
        else:
            backbone[name] = tensor
    return _Parts(backbone, heads, tuple(sorted(rest)))


def _foreign(parts: _Parts, wanted: _Parts, task: Task) -> dict[str, Tensor]:
    """A classifier of unknown names: what belongs to no part of the backbone, and a head of other keys than ours."""
    known = _groups(wanted.backbone)
    found = {key: tensor for key, tensor in parts.backbone.items() if _group(key) not in known}
    head, ours = (side.heads.get("classify", {}) for side in (parts, wanted))
    return found | head if task == "classify" and _shapes(head).keys() != _shapes(ours).keys() else found


def _group(key: str) -> str:
    return f"{key.partition('.')[0]}.*"


def _groups(keys: Mapping[str, object]) -> set[str]:
    return {_group(key) for key in keys}


def _no_head(task: Task, layout: Layout, foreign: list[str]) -> str:
    """What to do about a file whose backbone fits and that lacks the head."""
    if task == "segment":
        lacks = f"segmentation head (no {SEGMENTER}.* keys)"
        instead = "--task features, or weights trained for segmentation with mmseg"
    else:
        keys = " ".join(f"{group}.*" for group in layout.head)
        lacks, instead = f"classification head (no {keys} keys)", "--task segment or --task features"
    unplaced = f"; skipped {len(foreign)} that belong to nothing known ({some(foreign)})" if foreign else ""
    return f"has no {lacks}{unplaced}: use {instead}; or --allow-missing head to go on with an untrained head"


def _misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What does not match, by kind; empty when every key of both sides is accounted for."""
    groups = {
        "missing": [key for key in wanted if key not in tensors and not _optional(key)],
        "unexpected": [key for key in tensors if key not in wanted and not _optional(key)],
        "of another shape": [
            f"{key} is {_describe(tensor)} and should be {_describe(wanted[key])}"
            for key, tensor in tensors.items()
            if key in wanted and not _alike(tensor, wanted[key])
        ],
    }
    return {what: keys for what, keys in groups.items() if keys}


def _optional(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def _explain(
    misfit: Mapping[str, list[str]], head: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: Layout
) -> str:
    classes = (layout.classifier, SEGMENTER_CLASSES)
    shapes = [key.partition(" ")[0] for key in misfit.get("of another shape", ())]
    have, want = _classes(head, layout), _classes(wanted, layout)
    if misfit.keys() == {"of another shape"} and all(key.startswith(classes) for key in shapes) and have:
        return f"trained with {have} classes, the model has {want}: pass --num-classes {have}"
    found = "; ".join(f"{len(keys)} {what} ({some(keys)})" for what, keys in misfit.items())
    return f"does not fit the model, nothing was loaded: {found}"


def _require_no_sibling(
    path: Path, checkpoint: Checkpoint, task: Task, siblings: Mapping[str, tuple[Layout, Shapes]]
) -> None:
    """Raise HiresvitError if the file's backbone is another variant's."""
    alike, hint = [], ""
    for name, (layout, shapes) in siblings.items():
        parts = _sort(path, _laid_out(checkpoint, layout), layout)
        groups = _groups(shapes)
        own = {key: t for key, t in parts.backbone.items() if not layout.foreign_head or _group(key) in groups}
        if _shapes(own) == {key: shape for key, shape in shapes.items() if not _optional(key)}:
            alike.append(name)
            have = _classes(parts.heads.get(task, {}), layout)
            hint = f" with --num-classes {have}" if have else ""
    if alike:
        names = " or ".join(alike)
        raise HiresvitError(f"{path}: not the model asked for: this looks like {names}; ask for that{hint}")


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items() if not _optional(key)}


def _classes(head: Mapping[str, Tensor], layout: Layout) -> int | None:
    prefixes = (layout.classifier, SEGMENTER_CLASSES)
    return next((t.shape[0] for key, t in head.items() if key.startswith(prefixes) and t.dim()), None)


def _conversions(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    dtypes = [t.dtype for t in tensors.values() if t.is_floating_point() and t.dtype != torch.float32]
    return tuple(f"{count} tensors converted from {_name(d)} to float32" for d, count in Counter(dtypes).items())


def _require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if bad := [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise HiresvitError(f"{path}: {len(bad)} tensors hold NaN or infinity ({some(bad)}); the training diverged?")


def _describe(tensor: Tensor) -> str:
    return f"{_name(tensor.dtype)}{list(tensor.shape)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
