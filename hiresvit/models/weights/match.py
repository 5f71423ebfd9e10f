"""From the tensors of a checkpoint to a model: every key is accounted for, or nothing is loaded.

Our models use the authors' key names; only prefixes differ by task:

    ============  =================================  ==========================================
    task          keys of the model                  left out, by name
    ============  =================================  ==========================================
    classify      the backbone's, the head's         ``decode_head.* auxiliary_head.*``
    detect        ``backbone.* neck.* bbox_head.*``  the classifier's, ``auxiliary_head.*``
    segment       ``backbone.* decode_head.*``       the classifier's, ``auxiliary_head.*``
    masks         as segment
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

from hiresvit.data.dataset import Labels
from hiresvit.data.labels import printable
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.weights.facts import read_labels, read_untrained
from hiresvit.models.weights.file import Checkpoint, read_checkpoint
from hiresvit.models.weights.layout import Layout
from hiresvit.models.weights.paddle import as_pytorch
from hiresvit.models.weights.tree import some
from hiresvit.spec import AnchorSpec, Task

Shapes = Mapping[str, tuple[int, ...]]

BACKBONE = "backbone."
SEGMENTER = "decode_head"
AUXILIARY = "auxiliary_head"  # a second head that only training uses
DETECTOR, BOX_CLASSES = ("neck", "bbox_head"), "bbox_head.retina_cls."
TWO_STAGES = ("rpn_head", "roi_head")  # of mmdet's detectors that look at their own proposals again
HEAD_OF: Mapping[Task, Task] = {"masks": "segment"}
"""Of tasks that have no head of their own: whose it is."""


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: entry used, tensors copied, key groups left out by name, things to know.

    ``fresh`` are the groups that the file does not have and that keep the model's own values; ``untrained`` says what
    of the model nobody trained, "" for nothing. ``labels`` are the classes' names, if the file has them.
    """

    source: str
    loaded: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    untrained: str = ""
    labels: Labels | None = None

    def lines(self, path: Path) -> list[str]:
        """What to tell the user."""
        return [f"{self.loaded} tensors from {self.source} of {path.name}", *self.remarks]

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the file even where only an answer is wanted."""
        return [*self.notes, *([f"left out by name: {', '.join(self.left_out)}"] if self.left_out else [])]


@dataclass(frozen=True)
class Parts:
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
    hint: Callable[[Checkpoint], str] = lambda _: "",
) -> LoadReport:
    """Copy a checkpoint's tensors into ``model``: every one of them or, with HiresvitError, none.

    ``ema`` and ``entry`` choose among the sets of weights in the file, see `read_checkpoint`.
    With ``allow_missing_head`` a file without the task's head may leave the model's own there; a head that is
    there must fit. ``hint`` is asked about a checkpoint that does not fit: "" or what it looks like and how to ask for
    that. BatchNorm's ``num_batches_tracked`` may be absent (old files); the model then keeps its own.
    """
    if allow_missing_head and task == "features":
        raise UsageError("features have no head that could be missing: leave out --allow-missing head")
    checkpoint = read_checkpoint(path, ema=ema, entry=entry)
    wanted = model.state_dict()
    wanted_parts = sort_tensors(path, wanted, layout)
    parts = sort_tensors(path, laid_out(checkpoint, layout), layout)
    foreign = _foreign(parts, wanted_parts, task) if layout.foreign_head else {}
    body = {key: tensor for key, tensor in parts.backbone.items() if key not in foreign}
    if shapes_of(body) != shapes_of(wanted_parts.backbone) and (looks := hint(checkpoint)):
        raise HiresvitError(f"{path}: not the model asked for: {looks}")
    if checkpoint.source == "pdparams" and not layout.linears:
        raise HiresvitError(f"{path} is Paddle's, which this model has none of; give a PyTorch or safetensors file")
    own = HEAD_OF.get(task, task)
    head = {key: tensor for key, tensor in parts.heads.get(own, {}).items() if key not in foreign}
    fresh = {} if head else wanted_parts.heads.get(own, {})
    if own == "detect" and (stages := [group for group in parts.rest if group.partition(".")[0] in TWO_STAGES]):
        raise HiresvitError(
            f"{path} is of a two-stage detector ({', '.join(stages)}): how many proposals it looks at again is known"
            " only while it runs, which no plain plan has; give a RetinaNet, or --task features for its backbone"
        )
    prefix = BACKBONE if own in ("segment", "detect") else ""
    tensors = {**{prefix + key: tensor for key, tensor in body.items()}, **head}
    if misfit := misfit_of(tensors, {key: value for key, value in wanted.items() if key not in fresh}):
        raise HiresvitError(f"{path}: {_explain(misfit, head, wanted, layout, lambda: hint(checkpoint))}")
    if fresh and not allow_missing_head:
        raise HiresvitError(f"{path} {_no_head(own, layout, list(foreign), hint(checkpoint))}")
    notes = (*checkpoint.notes, *_conversions(tensors))
    tensors = {key: tensor.to(wanted[key].dtype) for key, tensor in tensors.items() if key in wanted}
    _require_finite(path, tensors)
    model.load_state_dict({**wanted, **tensors}, strict=True)
    others = {group for other, keys in parts.heads.items() if other != own for group in groups_of(keys)}
    left_out = sorted({*others, *parts.rest, *groups_of(foreign)})
    labels, untrained = None, f"{', '.join(sorted(groups_of(fresh)))} (not in {printable(path.name)})" if fresh else ""
    if head:
        labels, said = read_labels(checkpoint, class_count(head, layout) or 0)
        notes, untrained = (*notes, *([said] if said else [])), read_untrained(checkpoint)
    groups = tuple(sorted(groups_of(fresh)))
    return LoadReport(checkpoint.source, len(tensors), tuple(left_out), notes, groups, untrained, labels)


def laid_out(checkpoint: Checkpoint, layout: Layout) -> dict[str, Tensor]:
    """A checkpoint's tensors by PyTorch's names and layouts, Paddle's translated."""
    if checkpoint.source != "pdparams":
        return checkpoint.tensors
    return as_pytorch(checkpoint.tensors, layout.linears, layout.derived)


def sort_tensors(path: Path, tensors: Mapping[str, Tensor], layout: Layout) -> Parts:
    """Tensors by what they belong to. Raises HiresvitError for a name that is there with and without ``backbone.``."""
    backbone: dict[str, Tensor] = {}
    heads: dict[Task, dict[str, Tensor]] = {}
    rest, seen = set(), set()
    for key, tensor in tensors.items():
        name = key.removeprefix(BACKBONE)
        if name in seen:
            raise HiresvitError(f"{path} has {name} twice, with and without 'backbone.': two models in one")
        seen.add(name)
        group = name.partition(".")[0]
        if group in (AUXILIARY, *TWO_STAGES):
            rest.add(f"{group}.*")
        elif group == SEGMENTER:
            heads.setdefault("segment", {})[name] = tensor
        elif group in DETECTOR:
            heads.setdefault("detect", {})[name] = tensor
        elif group in layout.head:
            heads.setdefault("classify", {})[name] = tensor
        else:
            backbone[name] = tensor
    return Parts(backbone, heads, tuple(sorted(rest)))


def _foreign(parts: Parts, wanted: Parts, task: Task) -> dict[str, Tensor]:
    """A classifier of unknown names: what belongs to no part of the backbone, and a head of other keys than ours."""
    known = groups_of(wanted.backbone)
    found = {key: tensor for key, tensor in parts.backbone.items() if _group(key) not in known}
    head, ours = (side.heads.get("classify", {}) for side in (parts, wanted))
    return found | head if task == "classify" and shapes_of(head).keys() != shapes_of(ours).keys() else found


def _group(key: str) -> str:
    return f"{key.partition('.')[0]}.*"


def groups_of(keys: Mapping[str, object]) -> set[str]:
    """``decode_head.*`` for keys that start so."""
    return {_group(key) for key in keys}


def _no_head(task: Task, layout: Layout, foreign: list[str], looks: str) -> str:
    """What to do about a file whose backbone fits and that lacks the head."""
    if task == "segment":
        lacks = f"segmentation head (no {SEGMENTER}.* keys)"
        instead = "--task features, or weights trained for segmentation with mmseg"
    elif task == "detect":
        lacks = f"detection head (no {' '.join(f'{group}.*' for group in DETECTOR)} keys)"
        instead = "--task features, or weights of mmdet's RetinaNet"
    else:
        keys = " ".join(f"{group}.*" for group in layout.head)
        lacks, instead = f"classification head (no {keys} keys)", "--task segment or --task features"
    unplaced = f"; skipped {len(foreign)} that belong to nothing known ({some(foreign)})" if foreign else ""
    looks = f"{looks}, or " if looks else ""
    return f"has no {lacks}{unplaced}: {looks}use {instead}; or --allow-missing head to go on with an untrained head"


def misfit_of(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
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
    misfit: Mapping[str, list[str]],
    head: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    layout: Layout,
    hint: Callable[[], str],
) -> str:
    classes = (layout.classifier, layout.segment_classes, BOX_CLASSES)
    shapes = [key.partition(" ")[0] for key in misfit.get("of another shape", ())]
    have, want = class_count(head, layout), class_count(wanted, layout)
    only_classes = misfit.keys() == {"of another shape"} and all(key.startswith(classes) for key in shapes)
    if only_classes and have not in (None, want):
        return f"trained with {have} classes, the model has {want}: pass --num-classes {have}"
    found = "; ".join(f"{len(keys)} {what} ({some(keys)})" for what, keys in misfit.items())
    looks = hint()
    return f"does not fit the model, nothing was loaded: {found}{f'; {looks}' if looks else ''}"


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """By name, without what may be absent."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items() if not _optional(key)}


def class_count(head: Mapping[str, Tensor], layout: Layout) -> int | None:
    """How many classes a head has; None where that does not show."""
    extra = {layout.classifier: 0, layout.segment_classes: layout.extra_classes}
    boxes = [t for key, t in head.items() if key.startswith(BOX_CLASSES) and t.dim()]
    if boxes:
        classes, odd = divmod(boxes[0].shape[0], AnchorSpec().per_cell)
        return None if odd else classes or None
    rows = [(t, n) for key, t in head.items() for prefix, n in extra.items() if key.startswith(prefix)]
    return next((t.shape[0] - n for t, n in rows if t.dim() and t.numel() and t.shape[0] > n), None)


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
